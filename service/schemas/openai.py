"""Chat completions and models, as OpenAI's clients send and take them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from service.schemas.answers import CitationJson
from service.schemas.base import Schema, Score
from service.schemas.chat import ChatKind

if TYPE_CHECKING:
    from service.addresses import Link
    from service.completions import Completion, Source
    from service.markdown import Annotation

MODEL = "whence"


class LenientSchema(BaseModel):
    """What comes in from clients that were made for other services: fields that say nothing here are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class PartJson(LenientSchema):
    """A part of a message; only those of type `text` are read."""

    type: str
    text: str | None = None


def _as_parts(content: Any) -> Any:
    """Write the content of a message as a list of parts, if it is a text or none."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    if content is not None and not isinstance(content, list):
        raise ValueError("neither a text nor a list of parts")
    return content or []


class CompletionMessageJson(LenientSchema):
    """A message of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"] = Field(
        description="Only what the user and the assistant say is read."
    )
    content: Annotated[
        list[PartJson], BeforeValidator(_as_parts, json_schema_input_type=str | list[PartJson] | None)
    ] = Field([], examples=["How much memory did Pingora save?"])
    standalone: bool = Field(
        False, description="Of a user's message: whether it is searched as it stands, whatever it seems to lean on."
    )


class StreamOptionsJson(LenientSchema):
    """What a stream is to have."""

    include_usage: bool | None = None


class CompletionRequestJson(LenientSchema):
    """A conversation of which the last message is to be replied to; OpenAI's other fields are ignored."""

    model: str = Field(examples=[MODEL])
    messages: list[CompletionMessageJson] = Field(min_length=1, description="Oldest first; the newest 64 are read.")
    stream: bool | None = None
    stream_options: StreamOptionsJson | None = None
    n: int | None = Field(None, description="Replies wanted; there is only ever one.")
    top_k: int | None = Field(None, description="Passages wanted, 1 to 100; 5 unless the service is set otherwise.")
    filters: dict[str, Any] | None = Field(
        None, description="As for a question.", examples=[{"doc_id": {"prefix": "rust-"}}]
    )

    @property
    def wants_usage(self) -> bool:
        """Whether a stream is to end with its usage."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)


class UrlCitationJson(Schema):
    """A link in the text; `start_index` and `end_index` count code points of `content`."""

    start_index: int
    end_index: int
    title: str
    url: str


class AnnotationJson(Schema):
    """What OpenAI's clients know of a citation."""

    type: Literal["url_citation"]
    url_citation: UrlCitationJson

    @classmethod
    def of(cls, annotation: Annotation) -> Self:
        """Convert from the service's record."""
        return cls(
            type="url_citation",
            url_citation=UrlCitationJson(
                start_index=annotation.start,
                end_index=annotation.end,
                title=annotation.title,
                url=annotation.url,
            ),
        )


class SourceJson(Schema):
    """A passage that a reply was found in."""

    number: int | None = Field(
        description="Of its link among `annotations`, from 1; none of the nearest passages when nothing was found."
    )
    text: str = Field(description="Exact words of the document.")
    citation: CitationJson = Field(description="Of what the link cites: the words of the answer, or the passage.")

    @classmethod
    def of(cls, source: Source, link: Link) -> Self:
        """Convert from the service's record."""
        citation = CitationJson.of(source.citation)
        absolute = citation.model_copy(update={"url": link(citation.url)})
        return cls(number=source.number, text=source.text, citation=absolute)


class WhenceJson(Schema):
    """How a reply came about."""

    kind: ChatKind
    confidence: Score | None = Field(description="That the first passage answers, 0 to 1; none in small talk.")
    searched_as: str | None = Field(description="The question as it was searched; none in small talk.")
    leans_on: int | None = Field(
        description="Place in `messages`, from 0, of the question whose words were carried over."
    )
    generation: str

    @classmethod
    def of(cls, completion: Completion) -> Self | None:
        """Take it from a completion; there is none for what a program asked for itself."""
        reply = completion.reply
        if reply is None:
            return None
        return cls(
            kind=reply.kind.value,
            confidence=None if reply.answer is None else reply.answer.confidence,
            searched_as=reply.turn.searched_as,
            leans_on=completion.leans_on,
            generation=completion.generation,
        )


class CompletedMessageJson(Schema):
    """A reply; `sources` and `whence` are ours."""

    role: Literal["assistant"]
    content: str = Field(description="Markdown: exact words of a document with links to it, or a set reply.")
    refusal: None
    annotations: list[AnnotationJson]
    sources: list[SourceJson]
    whence: WhenceJson | None


class ChoiceJson(Schema):
    """The only reply."""

    index: int
    message: CompletedMessageJson
    logprobs: None
    finish_reason: Literal["stop"]


class UsageJson(Schema):
    """Tokens of the embedding model: of the question as it was searched, and of the reply's text."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int

    @classmethod
    def of(cls, completion: Completion) -> Self:
        """Take it from a completion."""
        return cls(
            prompt_tokens=completion.prompt_tokens,
            completion_tokens=completion.completion_tokens,
            total_tokens=completion.prompt_tokens + completion.completion_tokens,
        )


class CompletionJson(Schema):
    """A reply as a whole."""

    id: str
    object: Literal["chat.completion"]
    created: int = Field(description="Seconds since 1970.")
    model: str
    choices: list[ChoiceJson]
    usage: UsageJson
    system_fingerprint: str = Field(description="The generation that was asked.")

    @classmethod
    def of(cls, completion: Completion, link: Link) -> Self:
        """Convert from the service's record."""
        message = CompletedMessageJson(
            role="assistant",
            content=completion.text,
            refusal=None,
            annotations=[AnnotationJson.of(annotation) for annotation in completion.annotations],
            sources=[SourceJson.of(source, link) for source in completion.sources],
            whence=WhenceJson.of(completion),
        )
        return cls(
            id=completion.id,
            object="chat.completion",
            created=completion.created,
            model=MODEL,
            choices=[ChoiceJson(index=0, message=message, logprobs=None, finish_reason="stop")],
            usage=UsageJson.of(completion),
            system_fingerprint=completion.generation,
        )


class DeltaJson(Schema):
    """What a chunk adds to the reply."""

    role: Literal["assistant"] | None = None
    content: str | None = None
    annotations: list[AnnotationJson] | None = None
    sources: list[SourceJson] | None = None
    whence: WhenceJson | None = None

    @classmethod
    def citing(cls, completion: Completion, link: Link, *, is_annotated: bool) -> Self:
        """Say whence a reply came, when all of its text is out."""
        sources, whence = [SourceJson.of(source, link) for source in completion.sources], WhenceJson.of(completion)
        if not is_annotated:
            return cls(sources=sources, whence=whence)
        annotations = [AnnotationJson.of(annotation) for annotation in completion.annotations]
        return cls(annotations=annotations, sources=sources, whence=whence)


class DeltaChoiceJson(Schema):
    """The part of the only reply that a chunk has."""

    index: int
    delta: DeltaJson
    logprobs: None
    finish_reason: Literal["stop"] | None


class OpenWebUiPlaceJson(Schema):
    """Where Open WebUI says that a text comes from; sources of one `source` are shown as one."""

    source: str
    name: str
    source_url: str


class OpenWebUiLinkJson(Schema):
    """What Open WebUI shows for a source."""

    id: str
    name: str
    url: str


class OpenWebUiSourceJson(Schema):
    """A source as Open WebUI shows it: `document` has the texts, `metadata` whence each comes."""

    source: OpenWebUiLinkJson
    document: list[str]
    metadata: list[OpenWebUiPlaceJson]


class OpenWebUiEventJson(Schema):
    """An event that Open WebUI passes on to its page."""

    type: Literal["source"]
    data: OpenWebUiSourceJson

    @classmethod
    def of(cls, source: Source, link: Link) -> Self:
        """Convert from the service's record."""
        citation = source.citation
        title, url = citation.document.title, link(citation.url)
        key = f"{citation.document.id}#{citation.start}-{citation.end}"
        return cls(
            type="source",
            data=OpenWebUiSourceJson(
                source=OpenWebUiLinkJson(id=key, name=title, url=url),
                document=[source.text],
                metadata=[OpenWebUiPlaceJson(source=key, name=title, source_url=url)],
            ),
        )


class ChunkJson(Schema):
    """A part of a streamed reply."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[DeltaChoiceJson]
    usage: UsageJson | None = None
    event: OpenWebUiEventJson | None = None

    @classmethod
    def of(cls, completion: Completion, delta: DeltaJson | None, *, is_last: bool = False) -> Self:
        """Take a part of a completion, without the fields that only some chunks have."""
        reason: Literal["stop"] | None = "stop" if is_last else None
        choices = (
            [] if delta is None else [DeltaChoiceJson(index=0, delta=delta, logprobs=None, finish_reason=reason)]
        )
        return cls(
            id=completion.id,
            object="chat.completion.chunk",
            created=completion.created,
            model=MODEL,
            system_fingerprint=completion.generation,
            choices=choices,
        )


class ModelCardJson(Schema):
    """A model, as OpenAI's clients know it."""

    id: str
    object: Literal["model"]
    created: int = Field(description="When the documents were indexed, in seconds since 1970.")
    owned_by: str


class ModelCardsJson(Schema):
    """All models: one."""

    object: Literal["list"]
    data: list[ModelCardJson]
