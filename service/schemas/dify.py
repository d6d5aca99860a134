"""What Dify sends to an external knowledge base, and expects of it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from index.answers import Answer, CitedPassage
from service.addresses import Link
from service.schemas.base import Schema, Score, WholeText


class _FromDify(BaseModel):
    # Another version of Dify may send more.
    model_config = ConfigDict(extra="ignore", frozen=True)


class DifySettingJson(_FromDify):
    """How much is wanted."""

    top_k: int | None = Field(None, description="Records wanted, 1 to 100; 5 unless the service is set otherwise.")
    score_threshold: float | None = Field(None, description="Records with a lower score are left out, 0 to 1.")


class DifyConditionJson(_FromDify):
    """A condition on the metadata of documents."""

    name: str | list[str] = Field(description="Of the field.", examples=["product"])
    comparison_operator: str = Field(
        description="`is`, `=`, `in`, `start with`, `>`, `<`, `≥`, `≤`, `before` or `after`.", examples=["is"]
    )
    value: str | int | float | list[str] | None = Field(None, examples=["router"])


class DifyConditionsJson(_FromDify):
    """Conditions that must all hold."""

    logical_operator: Literal["and", "or"] | None = Field("and", description="`or` only before a single condition.")
    conditions: list[DifyConditionJson] | None = None


class DifyQueryJson(_FromDify):
    """A question of Dify."""

    knowledge_id: WholeText = Field(
        description="`whence` for all documents, else what the ids of the documents begin with, such as `guide/`.",
        examples=["whence"],
    )
    query: str = Field(description="1 to 4,000 characters.", examples=["How much memory did Pingora save?"])
    retrieval_setting: DifySettingJson
    metadata_condition: DifyConditionsJson | None = None


class DifyRecordJson(Schema):
    """A passage. Its metadata is the document's own, with its id, the address of the passage, and where it stands."""

    content: str = Field(description="Exact words.")
    score: Score
    title: str
    metadata: dict[str, Any]

    @classmethod
    def of(cls, passage: CitedPassage, answer: Answer, link: Link) -> DifyRecordJson:
        """Convert a passage of an answer from the library's record."""
        citation = passage.citation
        return cls(
            content=passage.text,
            score=passage.score,
            title=citation.document.title,
            metadata={
                **citation.document.metadata,
                "document_id": citation.document.id,
                "url": link(citation.url),
                "headings": list(citation.headings),
                "page": citation.page,
                "start": citation.start,
                "end": citation.end,
                "answered": answer.answered,
                "confidence": round(answer.confidence, 4),
            },
        )


class DifyRecordsJson(Schema):
    """What was found, best first; none when nothing has the score that is wanted."""

    records: list[DifyRecordJson]
