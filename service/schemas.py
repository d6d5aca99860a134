"""The JSON of the wire: what every answer looks like over HTTP, on the command line and in a batch."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from index.answers import MAX_QUESTION_CHARS, Answer, CitedPassage, Quote
from index.build import SyncReport
from index.citations import Citation, Verification
from index.conversation import MAX_HEADING_CHARS, Topic
from index.documents import HALF_SURROGATE
from index.manifest import Manifest

if TYPE_CHECKING:  # the metrics library takes half a second to load
    from index.corpus import DocumentRecord, Heading
    from index.evaluation import Measurement
    from service.auth import ApiKey
    from service.chat import Reply, Turn
    from service.feedback import Complaint
    from service.insights import Group
    from service.tasks import Task

MAX_BATCH = 256
MAX_CITATIONS = 100


def _rounded(digits: int) -> Any:
    return BeforeValidator(lambda value: round(float(value), digits))


Score = Annotated[float, _rounded(4)]
Milliseconds = Annotated[float, _rounded(1)]


class _Schema(BaseModel):
    model_config = ConfigDict(from_attributes=True, frozen=True, protected_namespaces=())


class FieldProblemJson(_Schema):
    """What was wrong with one part of a request; `pointer` is a JSON pointer, or `query/NAME`, `path/NAME`."""

    pointer: str
    detail: str


class ProblemJson(_Schema):
    """An error over HTTP (RFC 9457)."""

    model_config = ConfigDict(title="Problem")

    type: str
    title: str
    status: int
    code: str
    detail: str
    request_id: str
    errors: list[FieldProblemJson] = []


class DocumentJson(_Schema):
    """The document of a citation."""

    id: str
    title: str
    uri: str | None
    media_type: str
    sha256: str
    metadata: dict[str, Any]


class HeadingJson(_Schema):
    """A heading of a document; `start` of the first chunk below it, in code points."""

    text: str
    level: int
    start: int


class CitationJson(_Schema):
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


class QuoteJson(_Schema):
    """The answer: exact words."""

    text: str
    citation: CitationJson

    @classmethod
    def of(cls, quote: Quote) -> QuoteJson:
        """Convert from the library's record."""
        return cls(text=quote.text, citation=CitationJson.of(quote.citation))


class HighlightJson(_Schema):
    """A span of a passage's text, in code points."""

    start: int
    end: int


class ScoresJson(_Schema):
    """What a passage's score is made of."""

    dense: Score
    lexical: Score
    sentence: Score


class PassageJson(_Schema):
    """A passage returned for a question."""

    rank: int
    score: Score
    text: str
    highlights: list[HighlightJson]
    scores: ScoresJson
    citation: CitationJson
    also_in: list[CitationJson]

    @classmethod
    def of(cls, passage: CitedPassage) -> PassageJson:
        """Convert from the library's record."""
        return cls(
            rank=passage.rank,
            score=passage.score,
            text=passage.text,
            highlights=[HighlightJson(start=start, end=end) for start, end in passage.highlights],
            scores=ScoresJson(dense=passage.dense, lexical=passage.lexical, sentence=passage.sentence),
            citation=CitationJson.of(passage.citation),
            also_in=[CitationJson.of(citation) for citation in passage.also_in],
        )


class ModelJson(_Schema):
    """The embedding model of a generation."""

    name: str
    sha256: str


class AnswerJson(_Schema):
    """What a question gets."""

    question: str
    answered: bool
    confidence: Score
    answer: QuoteJson | None
    passages: list[PassageJson]
    generation: str
    model: ModelJson
    took_ms: Milliseconds

    @classmethod
    def of(cls, answer: Answer) -> AnswerJson:
        """Convert from the library's record."""
        return cls(
            question=answer.question,
            answered=answer.answered,
            confidence=answer.confidence,
            answer=None if answer.answer is None else QuoteJson.of(answer.answer),
            passages=[PassageJson.of(passage) for passage in answer.passages],
            generation=answer.generation,
            model=ModelJson(name=answer.model_name, sha256=answer.model_sha256),
            took_ms=answer.took_ms,
        )


class _Request(BaseModel):
    """What comes in: unknown fields are refused, and nothing is converted to another kind."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class AskJson(_Request):
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


class AskQuery(BaseModel):
    """A question in an address."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    q: str = Field(description="The question, 1 to 4,000 characters.", examples=["How much memory did Pingora save?"])
    top_k: int | None = Field(None, description="Passages wanted, 1 to 100.")
    filter: list[str] = Field([], description="FIELD=VALUE, or a JSON object of filters; may be repeated.")
    min_confidence: float | None = Field(None, description="Below it the question is not answered, 0 to 1.")


class AskBatchJson(_Request):
    """Several questions over HTTP, each a text or an object."""

    questions: list[str | AskJson] = Field(min_length=1, max_length=MAX_BATCH)


class AnswersJson(_Schema):
    """The answers of a batch, in the order of its questions."""

    answers: list[AnswerJson]


class VerifyJson(_Request):
    """Saved citations: bare, or within the passages or answers in which they came."""

    citations: list[dict[str, Any]] = Field(min_length=1, max_length=MAX_CITATIONS)


class VerificationJson(_Schema):
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


class VerificationsJson(_Schema):
    """What became of citations, in their order, each once; against the generation that is served."""

    results: list[VerificationJson]
    generation: str


class HealthJson(_Schema):
    """That all is well."""

    status: Literal["ok"]


class ModelIdentityJson(ModelJson):
    """Everything that decides which embedding a text gets."""

    files_sha256: str
    dimension: int
    max_tokens: int
    query_prompt: str
    document_prompt: str


class SourceJson(_Schema):
    """A source of a generation."""

    path: str
    prefix: str
    documents: int
    is_bundled: bool


class FileJson(_Schema):
    """A file of a generation."""

    size: int
    sha256: str


class StatusJson(_Schema):
    """The published generation, and where it is."""

    home: str
    name: str
    format_version: int
    number: int
    created: str
    parent: str | None
    model: ModelIdentityJson
    making: dict[str, str | int]
    documents: int
    chunks: int
    sentences: int
    sources: list[SourceJson]
    files: dict[str, FileJson]

    @classmethod
    def of(cls, manifest: Manifest, *, home: Path) -> StatusJson:
        """Convert from the library's record."""
        return cls.model_validate({"home": str(home), **vars(manifest)})


class GenerationJson(_Schema):
    """A generation in the list of them; `model` is the model's name."""

    name: str
    number: int
    created: str
    parent: str | None
    documents: int
    chunks: int
    sentences: int
    model: str
    published: bool

    @classmethod
    def of(cls, manifest: Manifest, *, published: bool) -> GenerationJson:
        """Convert from the library's record."""
        return cls.model_validate({**vars(manifest), "model": manifest.model.name, "published": published})


class RejectedJson(_Schema):
    """A file that could not be read."""

    path: str
    reason: str


class SyncReportJson(_Schema):
    """What a sync did."""

    generation: str
    is_new: bool
    added: list[str]
    changed: list[str]
    removed: list[str]
    unchanged: int
    rejected: list[RejectedJson]
    encoded: int
    documents: int
    chunks: int
    sentences: int
    pruned: list[str]

    @classmethod
    def of(cls, report: SyncReport) -> SyncReportJson:
        """Convert from the library's record."""
        return cls.model_validate(report)


class PublishedJson(_Schema):
    """The generation that was published again or restored."""

    published: str


# Documents and tasks

MAX_LISTED_DOCUMENTS = 1_000
MAX_LISTED_TASKS = 100
MAX_TITLE = 500
MAX_URL = 2_000
MAX_VALUES = 100  # of metadata
SourceKind = Literal["upload", "folder", "bundled"]
TaskKindName = Literal["put", "delete", "sync"]
TaskStatusName = Literal["enqueued", "processing", "succeeded", "failed", "canceled"]


class DocumentSummaryJson(_Schema):
    """A document in the list of them; `size` in bytes, of the source."""

    id: str
    title: str
    uri: str | None
    media_type: str
    sha256: str
    size: int
    source: SourceKind
    chunks: int

    @classmethod
    def of(cls, record: DocumentRecord, *, source: SourceKind) -> DocumentSummaryJson:
        """Convert from the library's record."""
        return cls.model_validate(_document_fields(record, source))


class DocumentsJson(_Schema):
    """Documents in order of their ids; more of them come after `next_cursor`, unless it is null."""

    documents: list[DocumentSummaryJson]
    next_cursor: str | None
    generation: str


class DocumentDetailJson(DocumentSummaryJson):
    """A document without its text; `pages` where it has pages."""

    metadata: dict[str, Any]
    pages: int | None
    outline: list[HeadingJson]
    text_url: str
    original_url: str
    page_url: str
    generation: str

    @classmethod
    def detailed(
        cls,
        record: DocumentRecord,
        *,
        source: SourceKind,
        outline: Sequence[Heading],
        addresses: Mapping[str, str],
        generation: str,
    ) -> DocumentDetailJson:
        """Convert from the library's records.

        Args:
            record: of the document.
            source: what kind it came from.
            outline: its headings.
            addresses: `text_url`, `original_url` and `page_url`.
            generation: that it is in.
        """
        return cls.model_validate(
            {
                **_document_fields(record, source),
                **addresses,
                "metadata": dict(record.metadata),
                "pages": max(record.page_starts.values(), default=None),
                "outline": list(outline),
                "generation": generation,
            }
        )


class DocumentsQuery(BaseModel):
    """Which documents to list."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    limit: int = Field(100, ge=1, le=MAX_LISTED_DOCUMENTS, description="How many at most.")
    cursor: str | None = Field(None, max_length=4_096, description="`next_cursor` of the list before.")
    prefix: str = Field("", max_length=512, description="Only ids that begin so, such as guide/.")


def _visible_line(text: str) -> str:
    line = " ".join(text.split())
    if not line or HALF_SURROGATE.search(line) or any(unicodedata.category(character) == "Cc" for character in line):
        raise ValueError("is blank, or has characters that cannot be shown")
    return line


def _web_address(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or not text.isprintable() or " " in text:
        raise ValueError("is no address that begins with http:// or https://")
    return text


def _exact(number: Any) -> Any:
    if isinstance(number, int) and not -(2**63) <= number < 2**63:
        raise ValueError("has more digits than are kept; send it as text")
    return number


_Integer = Annotated[int, BeforeValidator(_exact)]
_Float = Annotated[float, BeforeValidator(_exact)]
_Value = Annotated[str, Field(max_length=10_000)] | _Integer | _Float | bool
Metadata = Annotated[
    dict[
        Annotated[str, Field(min_length=1, max_length=200)],
        _Value | list[str] | list[_Integer] | list[_Float],
    ],
    Field(max_length=MAX_VALUES, description="Names with a value or a list of values; they can be filtered by."),
]


class DescriptionJson(_Request):
    """What is said of a document that is put; what is not said is taken from the document itself."""

    model_config = ConfigDict(allow_inf_nan=False)

    title: Annotated[str, AfterValidator(_visible_line)] | None = Field(None, max_length=MAX_TITLE)
    url: Annotated[str, AfterValidator(_web_address)] | None = Field(
        None, max_length=MAX_URL, description="Where a reader opens the original; citations link there."
    )
    metadata: Metadata = Field(default_factory=dict)


class PutTextJson(DescriptionJson):
    """A document as text; its format is told from the suffix of its id."""

    text: str = Field(min_length=1, examples=["# Kettle\n\nDescale the kettle every three months.\n"])


class PutFilesJson(_Request):
    """What is said of several documents that are put with one form."""

    model_config = ConfigDict(allow_inf_nan=False)

    prefix: str = ""
    metadata: Metadata = Field(default_factory=dict)


class TaskDocumentJson(_Schema):
    """A document of a task: one that is put or deleted, or that a sync could not read."""

    id: str
    action: TaskKindName
    status: TaskStatusName
    reason: str | None


class TaskSummaryJson(_Schema):
    """A task in the list of them; `generation` is the first that holds its effect."""

    id: str
    kind: TaskKindName
    status: TaskStatusName
    created: str
    started: str | None
    finished: str | None
    generation: str | None
    error: str | None
    document_count: int
    failed_count: int

    @classmethod
    def of(cls, task: Task) -> Self:
        """Convert from the service's record."""
        documents = [
            {"id": each.doc_id, "action": each.action.value, "status": each.status.value, "reason": each.reason}
            for each in task.documents
        ]
        counts = {
            "document_count": len(documents),
            "failed_count": sum(each["status"] == "failed" for each in documents),
        }
        words = {"kind": task.kind.value, "status": task.status.value}
        return cls.model_validate({**vars(task), **words, **counts, "documents": documents})


class TaskJson(TaskSummaryJson):
    """Something to be written to the index, and how far it is."""

    documents: list[TaskDocumentJson]


class TasksJson(_Schema):
    """Tasks, newest first; older ones come after `next_cursor`, unless it is null."""

    tasks: list[TaskSummaryJson]
    next_cursor: str | None


class TasksQuery(BaseModel):
    """Which tasks to list."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    status: TaskStatusName | None = Field(None, description="Only tasks of this status.")
    limit: int = Field(20, ge=1, le=MAX_LISTED_TASKS, description="How many at most.")
    cursor: str | None = Field(None, pattern=r"^[0-9a-f]{26}$", description="`next_cursor` of the list before.")


class GenerationsJson(_Schema):
    """The generations, newest first."""

    generations: list[GenerationJson]


def _document_fields(record: DocumentRecord, source: SourceKind) -> dict[str, Any]:
    return {
        "source": source,
        "id": record.doc_id,
        "title": record.title,
        "uri": record.uri,
        "media_type": record.media_type,
        "sha256": record.sha256,
        "size": record.size,
        "chunks": record.chunk_count,
    }


class BackupJson(_Schema):
    """A backup that was written."""

    generation: str
    file: str


class MeasurementJson(_Schema):
    """The mean of a metric over the queries, with its 95 % interval."""

    mean: float
    low: float
    high: float


class EvaluationJson(_Schema):
    """The metrics of one way of retrieval, each under its name."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, MeasurementJson]

    retrieval: str

    @classmethod
    def of(cls, retrieval: str, measured: Mapping[str, Measurement]) -> EvaluationJson:
        """Convert from the library's records."""
        return cls.model_validate({"retrieval": retrieval, **measured})


class BatchInputJson(_Schema):
    """The questions of a batch; size and digest of a stream are known when it has been read."""

    format: str
    size: int | None
    sha256: str | None


class BatchSettingsJson(_Schema):
    """How a batch is answered and written down."""

    top_k: int
    min_confidence: float | None
    filters: dict[str, Any]
    backend: str
    field: str | None
    encoding: str
    format: str
    compression: str
    fields: list[str] | None
    id_field: str | None
    for_spreadsheet: bool


class BatchRunJson(_Schema):
    """All that decides the result of a batch."""

    whence: str
    generation: str
    model: ModelIdentityJson
    input: BatchInputJson
    settings: BatchSettingsJson


class BatchCountsJson(_Schema):
    """How many rows a batch has, and what became of them."""

    rows: int
    answered: int
    unanswered: int
    failed: int


class BatchOutputJson(_Schema):
    """The file of answers."""

    size: int
    sha256: str


class BatchManifestJson(BatchRunJson):
    """The manifest beside the answers of a batch."""

    counts: BatchCountsJson
    output: BatchOutputJson


class KeyJson(_Schema):
    """A key, without its secret."""

    id: str
    name: str
    scope: str
    origins: list[str]
    rate: str | None
    created: str
    expires: str | None
    revoked: str | None
    status: Literal["active", "expired", "revoked"]

    @classmethod
    def of(cls, key: ApiKey, now: datetime) -> KeyJson:
        """Convert from the service's record, as things stand at a moment."""
        is_over = "revoked" if key.revoked else "expired"
        return cls(
            id=key.id,
            name=key.name,
            scope=key.scope.value,
            origins=list(key.origins),
            rate=key.rate,
            created=key.created.isoformat(),
            expires=key.expires and key.expires.isoformat(),
            revoked=key.revoked and key.revoked.isoformat(),
            status="active" if key.is_active(now) else is_over,
        )


class NewKeyJson(KeyJson):
    """A key that was just made, with its secret, which is kept nowhere."""

    key: str


# Feedback and insights

MAX_REASON = 2_000
MAX_GROUPS = 100
MAX_DAYS = 3_650
MAX_LISTED = 10  # wordings, reasons, documents of a group
_LARGEST_INTEGER = 2**53 - 1  # that every JSON parser takes


def _whole(text: str) -> str:
    if HALF_SURROGATE.search(text):
        raise ValueError("has half a character; send UTF-8")
    return text


_Text = Annotated[str, AfterValidator(_whole)]
_Offset = Annotated[int, Field(ge=0, le=_LARGEST_INTEGER)]


class CitedSpanJson(_Request):
    """What was cited, without its words: the document's id, and code points of its text."""

    document: _Text = Field(min_length=1, max_length=4_096, pattern="^[^\\x00-\\x1f\\x7f-\\x9f]+$")
    start: _Offset
    end: _Offset

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.end < self.start:
            raise ValueError(f"ends at {self.end}, before it starts at {self.start}")
        return self


class FeedbackJson(_Request):
    """What somebody says of an answer."""

    question: _Text = Field(
        description="As it was asked, 1 to 4,000 characters.", examples=["How much memory did Pingora save?"]
    )
    rating: Literal["up", "down"]
    reason: _Text | None = Field(None, max_length=MAX_REASON, description="In the sender's own words.")
    answered: bool | None = Field(None, description="As the answer says.")
    generation: str | None = Field(
        None, pattern="^[0-9]{8}T[0-9]{6}Z-[0-9a-f]{6}$", description="As the answer says."
    )
    citation: CitedSpanJson | None = Field(None, description="Of the answer, or of the passage that was shown.")


class FeedbackReceiptJson(_Schema):
    """Feedback that was kept."""

    id: str


class UnansweredQuery(BaseModel):
    """Which questions without a good answer are wanted."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    limit: int = Field(20, ge=1, le=MAX_GROUPS, description="Groups wanted, 1 to 100.")
    days: int = Field(30, ge=1, le=MAX_DAYS, description="Days that are looked at, 1 to 3,650.")


class UnansweredGroupJson(_Schema):
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
            nearest=PassageJson.of(answer.passages[0]) if answer.passages else None,
            generation=answer.generation,
        )


class UnansweredJson(_Schema):
    """Questions without a good answer in some days, grouped; those that came most often first."""

    groups: list[UnansweredGroupJson]
    groups_found: int = Field(description="Groups in all, also those beyond `limit`.")
    wordings: int = Field(description="Different questions in all.")
    wordings_grouped: int = Field(description="Different questions that were grouped: those that came most often.")
    asked: int | None = Field(description="Questions in the log of these days; null when none are logged.")
    unanswered: int | None = Field(description="Those of them that were not answered.")


# Chat

MAX_MESSAGES = 64
MAX_MESSAGE = 20_000
MAX_HEADINGS = 100


class TopicJson(_Request):
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


class MessageJson(_Request):
    """A message of a conversation."""

    role: Literal["user", "assistant", "system"] = Field(description="What a system says is not read.")
    content: str = Field(max_length=MAX_MESSAGE, examples=["How much memory did Pingora save?"])
    standalone: bool = Field(
        False, description="Of a user's message: whether it is searched as it stands, whatever it seems to lean on."
    )
    topic: TopicJson | None = Field(
        None, description="Of a reply: the `topic` that came with it. When it is left out, it is found again."
    )


class ChatJson(_Request):
    """A conversation over HTTP, of which the last message is to be replied to."""

    messages: list[MessageJson] = Field(min_length=1, max_length=MAX_MESSAGES, description="Oldest first.")
    top_k: int | None = Field(None, description="Passages wanted, 1 to 100; 5 unless the service is set otherwise.")
    filters: dict[str, Any] | None = Field(
        None, description="As for a question.", examples=[{"doc_id": {"prefix": "rust-"}}]
    )

    @model_validator(mode="after")
    def _ends_with_the_user(self) -> Self:
        if self.messages[-1].role != "user":
            raise ValueError("the last message is not the user's")
        return self


ChatKind = Literal["answer", "not_found", "greeting", "thanks", "help"]


class SuggestionJson(_Schema):
    """What could be asked next: a question, or a heading with its document's title and its place."""

    text: str
    title: str | None
    url: str | None


class HandoffJson(_Schema):
    """Where people get help that the documents do not give."""

    label: str
    url: str


class ChatSearchedJson(_Schema):
    """The question as it is searched, and the place in `messages` of the one whose words were carried over."""

    searched_as: str
    leans_on: int | None

    @classmethod
    def of(cls, turn: Turn) -> ChatSearchedJson:
        """Convert from the service's record."""
        return cls(searched_as=turn.searched_as or "", leans_on=turn.leans_on)


class ChatAnswerJson(_Schema):
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


class ChatPassagesJson(_Schema):
    """The passages of a reply, and what they were found in."""

    passages: list[PassageJson]
    generation: str
    model: ModelJson


class ChatSuggestionsJson(_Schema):
    """What could be done next."""

    suggestions: list[SuggestionJson]
    handoff: HandoffJson | None


class ChatDoneJson(_Schema):
    """The end of a reply. Its topic is to be sent back with it, so that the next turn can lean on it."""

    topic: TopicJson | None


class ChatReplyJson(_Schema):
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


class ChatOpeningJson(_Schema):
    """What a chat begins with: a greeting, questions to choose from, and where people get help otherwise."""

    greeting: str
    questions: list[str]
    handoff: HandoffJson | None
