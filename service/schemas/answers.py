"""Questions, and the answer that is the same over HTTP, on the command line and in a batch; citations, checked."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from index.answers import Answer
from index.citations import Citation, Verification
from index.weights import EncoderName
from service.schemas.base import Milliseconds, RequestSchema, Schema, Score, is_none

MAX_BATCH = 256
MAX_CITATIONS = 100


class DocumentJson(Schema):
    """The document of a citation."""

    id: str
    title: str
    uri: str | None
    media_type: str
    sha256: str
    metadata: dict[str, Any]


class CitationJson(Schema):
    """Whence a quote comes."""

    document: DocumentJson
    start: int
    end: int
    first_line: int
    last_line: int
    page: int | None
    headings: list[str]
    quote: str
    prefix: str
    suffix: str
    url: str

    @classmethod
    def of(cls, citation: Citation) -> CitationJson:
        """Convert from the library's record."""
        return cls.model_validate(citation)


class QuoteJson(Schema):
    """The answer: exact words."""

    text: str
    citation: CitationJson


class HighlightJson(Schema):
    """A span of a passage's text, in code points."""

    start: int
    end: int


def _highlight(span: object) -> object:
    return dict(zip(("start", "end"), span, strict=True)) if isinstance(span, tuple) else span


class ScoresJson(Schema):
    """What a passage's score is made of, and what the reranker says of it."""

    dense: Score
    lexical: Score
    sentence: Score
    reranker: Score | None = Field(
        None, description="Probability that it is relevant, by the reranker, if it was read.", exclude_if=is_none
    )


class PassageJson(Schema):
    """A passage returned for a question."""

    rank: int
    score: Score
    text: str
    highlights: list[Annotated[HighlightJson, BeforeValidator(_highlight)]]
    scores: ScoresJson
    citation: CitationJson
    also_in: list[CitationJson]


class ModelJson(Schema):
    """A model: that of a generation, or a reranker."""

    name: str
    sha256: str


class AnswerJson(Schema):
    """What a question gets."""

    question: str
    answered: bool
    confidence: Score
    answer: QuoteJson | None
    passages: list[PassageJson]
    generation: str
    model: ModelJson
    encoder: EncoderName = Field(
        description="What encoded the question: the model, or a table of its tokens, which is faster and less exact."
    )
    reranker: ModelJson | None = Field(
        None, description="In whose order the passages are, if one is used.", exclude_if=is_none
    )
    took_ms: Milliseconds

    @classmethod
    def of(cls, answer: Answer) -> AnswerJson:
        """Convert from the library's record."""
        return cls.model_validate(answer)


class AskJson(RequestSchema):
    """A question over HTTP."""

    question: str = Field(description="1 to 4,000 characters.", examples=["How much memory did Pingora save?"])
    top_k: int | None = Field(None, description="Passages wanted, 1 to 100; 5 unless the service is set otherwise.")
    filters: dict[str, Any] | None = Field(
        None,
        description='Field -> value, list of values, or a range such as {"gte": 2024}; {"prefix": "guide/"}.',
        examples=[{"doc_id": {"prefix": "rust-"}}],
    )
    min_confidence: float | None = Field(
        None, description="Below it the question is not answered, 0 to 1; the fitted threshold if unset."
    )
    encoder: EncoderName | None = Field(
        None, description="What is to encode it: full or instant; full unless the service is set otherwise."
    )


class AskQuery(BaseModel):
    """A question in an address."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    q: str = Field(description="The question, 1 to 4,000 characters.", examples=["How much memory did Pingora save?"])
    top_k: int | None = Field(None, description="Passages wanted, 1 to 100.")
    filter: list[str] = Field([], description="FIELD=VALUE, or a JSON object of filters; may be repeated.")
    min_confidence: float | None = Field(None, description="Below it the question is not answered, 0 to 1.")
    encoder: EncoderName | None = Field(None, description="What is to encode the question: full or instant.")


class AskBatchJson(RequestSchema):
    """Several questions over HTTP, each a text or an object."""

    questions: list[str | AskJson] = Field(min_length=1, max_length=MAX_BATCH)


class AnswersJson(Schema):
    """The answers of a batch, in the order of its questions."""

    answers: list[AnswerJson]


class VerifyJson(RequestSchema):
    """Saved citations: bare, or within the passages or answers in which they came."""

    citations: list[dict[str, Any]] = Field(min_length=1, max_length=MAX_CITATIONS)


class VerificationJson(Schema):
    """What became of a citation."""

    document: str
    quote: str
    status: str
    start: int | None
    end: int | None
    same_source: bool

    @classmethod
    def of(cls, verification: Verification) -> VerificationJson:
        """Convert from the library's record."""
        return cls(
            document=verification.citation.doc_id,
            quote=verification.citation.quote,
            status=verification.standing.value,
            start=verification.start,
            end=verification.end,
            same_source=verification.is_same_source,
        )


class VerificationsJson(Schema):
    """What became of citations, in their order, each once; against the generation that is served."""

    results: list[VerificationJson]
    generation: str
