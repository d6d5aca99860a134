"""Conversations, and the replies to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from index.answers import MAX_QUESTION_CHARS
from index.conversation import MAX_HEADING_CHARS, Topic
from index.weights import EncoderName
from service.schemas.answers import AnswerJson, ModelJson, PassageJson, QuoteJson
from service.schemas.base import RequestSchema, Schema, Score

if TYPE_CHECKING:
    from service.chat import Reply, Turn

MAX_MESSAGES = 64
MAX_MESSAGE = 20_000
MAX_HEADINGS = 100


class TopicJson(RequestSchema):
    """What an answered question was about; the next turn can lean on it."""

    question: str = Field(max_length=MAX_QUESTION_CHARS, description="As it was searched.")
    headings: list[Annotated[str, Field(max_length=MAX_HEADING_CHARS)]] = Field(
        [], max_length=MAX_HEADINGS, description="Under which the answer stands, outermost first."
    )

    @classmethod
    def of(cls, topic: Topic) -> TopicJson:
        """Convert from the library's record."""
        headings = [heading[:MAX_HEADING_CHARS] for heading in topic.headings[-MAX_HEADINGS:]]
        return cls(question=topic.question, headings=headings)


class MessageJson(RequestSchema):
    """A message of a conversation."""

    role: Literal["user", "assistant", "system"] = Field(description="What a system says is not read.")
    content: str = Field(max_length=MAX_MESSAGE, examples=["How much memory did Pingora save?"])
    standalone: bool = Field(
        False, description="Of a user's message: whether it is searched as it stands, whatever it seems to lean on."
    )
    topic: TopicJson | None = Field(
        None, description="Of a reply: the `topic` that came with it. When it is left out, it is found again."
    )


class ChatJson(RequestSchema):
    """A conversation over HTTP, of which the last message is to be replied to."""

    messages: list[MessageJson] = Field(min_length=1, max_length=MAX_MESSAGES, description="Oldest first.")
    top_k: int | None = Field(None, description="Passages wanted, 1 to 100; 5 unless the service is set otherwise.")
    filters: dict[str, Any] | None = Field(
        None, description="As for a question.", examples=[{"doc_id": {"prefix": "rust-"}}]
    )
    encoder: EncoderName | None = Field(None, description="As for a question.")

    @model_validator(mode="after")
    def _ends_with_the_user(self) -> Self:
        if self.messages[-1].role != "user":
            raise ValueError("the last message is not the user's")
        return self


ChatKind = Literal["answer", "not_found", "greeting", "thanks", "help"]


class SuggestionJson(Schema):
    """What could be asked next: a question, or a heading with its document's title and its place."""

    text: str
    title: str | None
    url: str | None


class HandoffJson(Schema):
    """Where people get help that the documents do not give."""

    label: str
    url: str


class ChatSearchedJson(Schema):
    """The question as it is searched, and the place in `messages` of the one whose words were carried over."""

    searched_as: str
    leans_on: int | None

    @classmethod
    def of(cls, turn: Turn) -> ChatSearchedJson:
        """Convert from the service's record."""
        return cls(searched_as=turn.searched_as or "", leans_on=turn.leans_on)


class ChatAnswerJson(Schema):
    """The text of a reply, and whence it comes."""

    kind: ChatKind
    content: str
    confidence: Score | None
    answer: QuoteJson | None

    @classmethod
    def of(cls, reply: ChatReplyJson) -> ChatAnswerJson:
        """Take the first part of a reply."""
        answer = reply.answer
        return cls(
            kind=reply.kind,
            content=reply.content,
            confidence=answer and answer.confidence,
            answer=answer and answer.answer,
        )


class ChatPassagesJson(Schema):
    """The passages of a reply, and what they were found in."""

    passages: list[PassageJson]
    generation: str
    model: ModelJson


class ChatSuggestionsJson(Schema):
    """What could be done next."""

    suggestions: list[SuggestionJson]
    handoff: HandoffJson | None


class ChatDoneJson(Schema):
    """The end of a reply. Its topic is to be sent back with it, so that the next turn can lean on it."""

    topic: TopicJson | None


class ChatReplyJson(Schema):
    """The reply to the last message."""

    kind: ChatKind
    content: str = Field(description="Exact words of a document, or a set reply.")
    searched_as: str | None = Field(description="The question as it was searched; none in small talk.")
    leans_on: int | None = Field(
        description="Place in `messages`, from 0, of the question whose words were carried over."
    )
    answer: AnswerJson | None = Field(description="What that question gets wherever it is asked; none in small talk.")
    suggestions: list[SuggestionJson]
    handoff: HandoffJson | None
    topic: TopicJson | None = Field(
        description="To be sent back with this reply, so that the next turn can lean on it."
    )

    @classmethod
    def of(cls, reply: Reply) -> ChatReplyJson:
        """Convert from the service's record."""
        return cls(
            kind=reply.kind.value,
            content=reply.content,
            searched_as=reply.turn.searched_as,
            leans_on=reply.turn.leans_on,
            answer=None if reply.answer is None else AnswerJson.of(reply.answer),
            suggestions=[SuggestionJson.model_validate(each) for each in reply.suggestions],
            handoff=None if reply.handoff is None else HandoffJson.model_validate(reply.handoff),
            topic=None if reply.topic is None else TopicJson.of(reply.topic),
        )


class ChatOpeningJson(Schema):
    """What a chat begins with: a greeting, questions to choose from, and where people get help otherwise."""

    greeting: str
    questions: list[str]
    handoff: HandoffJson | None
