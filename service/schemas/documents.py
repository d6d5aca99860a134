"""Documents over HTTP, and the tasks that put and delete them."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from index.documents import HALF_SURROGATE
from service.schemas.base import RequestSchema, Schema

if TYPE_CHECKING:
    from index.corpus import DocumentRecord, Heading
    from service.tasks import Task

MAX_LISTED_DOCUMENTS = 1_000
MAX_LISTED_TASKS = 100
MAX_TITLE = 500
MAX_URL = 2_000
MAX_VALUES = 100  # of metadata
SourceKind = Literal["upload", "folder", "bundled"]
TaskKindName = Literal["put", "delete", "sync"]
TaskStatusName = Literal["enqueued", "processing", "succeeded", "failed", "canceled"]


class DocumentSummaryJson(Schema):
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


class DocumentsJson(Schema):
    """Documents in order of their ids; more of them come after `next_cursor`, unless it is null."""

    documents: list[DocumentSummaryJson]
    next_cursor: str | None
    generation: str


class HeadingJson(Schema):
    """A heading of a document; `start` of the first chunk below it, in code points."""

    text: str
    level: int
    start: int


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


class DescriptionJson(RequestSchema):
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


class PutFilesJson(RequestSchema):
    """What is said of several documents that are put with one form."""

    model_config = ConfigDict(allow_inf_nan=False)

    prefix: str = ""
    metadata: Metadata = Field(default_factory=dict)


class TaskDocumentJson(Schema):
    """A document of a task: one that is put or deleted, or that a sync could not read."""

    id: str
    action: TaskKindName
    status: TaskStatusName
    reason: str | None


class TaskSummaryJson(Schema):
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


class TasksJson(Schema):
    """Tasks, newest first; older ones come after `next_cursor`, unless it is null."""

    tasks: list[TaskSummaryJson]
    next_cursor: str | None


class TasksQuery(BaseModel):
    """Which tasks to list."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    status: TaskStatusName | None = Field(None, description="Only tasks of this status.")
    limit: int = Field(20, ge=1, le=MAX_LISTED_TASKS, description="How many at most.")
    cursor: str | None = Field(None, pattern=r"^[0-9a-f]{26}$", description="`next_cursor` of the list before.")


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
