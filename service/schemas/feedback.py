"""Feedback, and the insights made of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from index.answers import Answer
from service.schemas.answers import PassageJson
from service.schemas.base import RequestSchema, Schema, Score, WholeText

if TYPE_CHECKING:
    from service.feedback import Complaint
    from service.insights import Group

MAX_REASON = 2_000
MAX_GROUPS = 100
MAX_DAYS = 3_650
MAX_LISTED = 10  # wordings, reasons, documents of a group
_LARGEST_INTEGER = 2**53 - 1  # that every JSON parser takes
_Offset = Annotated[int, Field(ge=0, le=_LARGEST_INTEGER)]


class CitedSpanJson(RequestSchema):
    """What was cited, without its words: the document's id, and code points of its text."""

    document: WholeText = Field(min_length=1, max_length=4_096, pattern="^[^\\x00-\\x1f\\x7f-\\x9f]+$")
    start: _Offset
    end: _Offset

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.end < self.start:
            raise ValueError(f"ends at {self.end}, before it starts at {self.start}")
        return self


class FeedbackJson(RequestSchema):
    """What somebody says of an answer."""

    question: WholeText = Field(
        description="As it was asked, 1 to 4,000 characters.", examples=["How much memory did Pingora save?"]
    )
    rating: Literal["up", "down"]
    reason: WholeText | None = Field(None, max_length=MAX_REASON, description="In the sender's own words.")
    answered: bool | None = Field(None, description="As the answer says.")
    generation: str | None = Field(
        None, pattern="^[0-9]{8}T[0-9]{6}Z-[0-9a-f]{6}$", description="As the answer says."
    )
    citation: CitedSpanJson | None = Field(None, description="Of the answer, or of the passage that was shown.")


class FeedbackReceiptJson(Schema):
    """Feedback that was kept."""

    id: str


class UnansweredQuery(BaseModel):
    """Which questions without a good answer are wanted."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    limit: int = Field(20, ge=1, le=MAX_GROUPS, description="Groups wanted, 1 to 100.")
    days: int = Field(30, ge=1, le=MAX_DAYS, description="Days that are looked at, 1 to 3,650.")


class UnansweredGroupJson(Schema):
    """Questions that ask the same and were not answered well, and what the documents say of them now.

    `count` is how often somebody went without a good answer: there was none (`unanswered`), or it was thumbed down.
    `thumbed_down` has the thumbs down on questions without an answer as well.
    """

    question: str = Field(description="The wording that came most often.")
    count: int
    unanswered: int
    thumbed_down: int
    first: str
    last: str
    wordings: list[str] = Field(description="Up to 10, those that came most often first.")
    reasons: list[str] = Field(description="Given with thumbs down: up to 10, the latest first.")
    documents: list[str] = Field(description="Whose words were thumbed down: up to 10 ids.")
    answered: bool = Field(description="Whether the question is answered now.")
    confidence: Score = Field(description="With which it is answered now.")
    nearest: PassageJson | None = Field(description="The passage that comes nearest now.")
    generation: str = Field(description="That was asked.")

    @classmethod
    def of(cls, group: Group, complaints: Sequence[Complaint], answer: Answer) -> UnansweredGroupJson:
        """Convert from the service's records.

        Args:
            group: the questions.
            complaints: about these and others.
            answer: that the group's question gets now.
        """
        return cls(
            question=group.question,
            count=group.count,
            unanswered=group.unanswered,
            thumbed_down=group.thumbed_down,
            first=group.first.isoformat(timespec="seconds"),
            last=group.last.isoformat(timespec="seconds"),
            wordings=[wording.text for wording in group.wordings[:MAX_LISTED]],
            reasons=group.reasons(complaints, at_most=MAX_LISTED),
            documents=group.documents(complaints, at_most=MAX_LISTED),
            answered=answer.answered,
            confidence=answer.confidence,
            nearest=PassageJson.model_validate(answer.passages[0]) if answer.passages else None,
            generation=answer.generation,
        )


class UnansweredJson(Schema):
    """Questions without a good answer in some days, grouped; those that came most often first."""

    groups: list[UnansweredGroupJson]
    groups_found: int = Field(description="Groups in all, also those beyond `limit`.")
    wordings: int = Field(description="Different questions in all.")
    wordings_grouped: int = Field(description="Different questions that were grouped: those that came most often.")
    asked: int | None = Field(description="Questions in the log of these days; null when none are logged.")
    unanswered: int | None = Field(description="Those of them that were not answered.")
