"""The documents: listing and reading them, putting and deleting them.

What is written here is accepted with a task and done by the indexer; see `service.tasks`.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, TypeVar
from urllib.parse import quote

from anyio import to_thread
from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from pydantic_core import from_json
from starlette.responses import StreamingResponse

from index.corpus import DocumentRecord
from index.documents import HALF_SURROGATE
from index.generations import utc_now
from index.manifest import SourceRecord
from index.uploads import UPLOADS, Upload, check_doc_id, name_for
from service.cursors import cursor_after, document_before
from service.originals import original
from service.problems import Problem, documented
from service.receiving import MULTIPART, ReceivedFile, ReceivedForm, Receiver, media_type_of, receiving
from service.schemas.documents import (
    DescriptionJson,
    DocumentDetailJson,
    DocumentsJson,
    DocumentsQuery,
    DocumentSummaryJson,
    PutFilesJson,
    PutTextJson,
    SourceKind,
    TaskJson,
)
from service.schemas.problems import FieldProblemJson
from service.services import Here, Services
from service.serving import Served
from service.tasks import Task, TaskKind

router = APIRouter(tags=["documents"])

MAX_JSON_BYTES = 50_000_000
JSON = "application/json"
Description = TypeVar("Description", DescriptionJson, PutFilesJson)
DocId = Annotated[str, Path(description="Of a document, such as guide/intro.md.", examples=["guide/intro.md"])]

# Nothing in a document may run in a browser, whoever opens its address.
INERT = {"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "sandbox; default-src 'none'"}
KEPT = {"Cache-Control": "private, no-cache"}  # kept by a browser, and asked after each time

_BINARY = {"type": "string", "format": "binary"}
_ACCEPTED: dict[int | str, dict[str, Any]] = {
    202: {
        "description": "Accepted: it is written down and will be done; the task says how far it is.",
        "headers": {"Location": {"description": "Address of the task.", "schema": {"type": "string"}}},
    }
}
_NOT_MODIFIED: dict[int | str, dict[str, Any]] = {
    304: {"description": "It is as the sender of If-None-Match has it."}
}
_PUT_BODY = {
    "required": True,
    "content": {
        "application/octet-stream": {"schema": _BINARY},
        JSON: {"schema": PutTextJson.model_json_schema()},
        MULTIPART: {
            "schema": {
                "type": "object",
                "required": ["file"],
                "properties": {
                    "file": _BINARY,
                    "title": {"type": "string"},
                    "url": {"type": "string"},
                    "metadata": {"type": "string", "description": "A JSON object."},
                },
            }
        },
    },
}
_POST_BODY = {
    "required": True,
    "content": {
        MULTIPART: {
            "schema": {
                "type": "object",
                "required": ["file"],
                "properties": {
                    "file": {"type": "array", "items": _BINARY, "minItems": 1},
                    "prefix": {"type": "string", "description": "Put before the file names."},
                    "metadata": {"type": "string", "description": "A JSON object, for all of them."},
                },
            }
        }
    },
}


@router.get("/v1/documents", responses=documented("invalid_request", "starting"))
def list_documents(asked: Annotated[DocumentsQuery, Query()], services: Here) -> DocumentsJson:
    """List documents in order of their ids. A cursor stays good when the index changes."""
    after = "" if asked.cursor is None else document_before(asked.cursor)
    with services.serving.lease() as served:
        with served.corpus_lock:
            found = served.corpus.page(after=after, prefix=asked.prefix, limit=asked.limit + 1)
        sources = _sources(served)
    page = found[: asked.limit]
    return DocumentsJson(
        documents=[DocumentSummaryJson.of(record, source=_kind(sources[record.source])) for record in page],
        next_cursor=cursor_after(page[-1].doc_id) if len(found) > asked.limit else None,
        generation=served.generation.name,
    )


@router.get(
    "/v1/documents/{doc_id:path}/text",
    response_class=Response,
    responses={200: {"description": "The canonical text.", "content": {"text/plain": {"schema": {"type": "string"}}}}}
    | _NOT_MODIFIED
    | documented("document_unknown", "starting"),
)
def document_text(doc_id: DocId, request: Request, services: Here) -> Response:
    """Return the canonical text of a document, to which all offsets refer."""
    with services.serving.lease() as served:
        record = _record(served, doc_id)
        if record is None:
            return _described_instead(served, f"{doc_id}/text", request)
        with served.corpus_lock:
            text = served.corpus.text(record)
    data = text.encode()
    headers = {**INERT, **KEPT, "ETag": f'"{hashlib.sha256(data).hexdigest()}"'}
    if _has_it(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    return Response(data, media_type="text/plain; charset=utf-8", headers=headers)


@router.get(
    "/v1/documents/{doc_id:path}/original",
    response_class=Response,
    responses={200: {"description": "The bytes of the source.", "content": {"*/*": {"schema": _BINARY}}}}
    | _NOT_MODIFIED
    | documented("document_unknown", "original_changed", "starting", "storage_unavailable"),
)
def document_original(doc_id: DocId, request: Request, services: Here) -> Response:
    """Return the bytes that a document was made of, as a download."""
    with services.serving.lease() as served:
        record = _record(served, doc_id)
        if record is None:
            return _described_instead(served, f"{doc_id}/original", request)
        source = _sources(served)[record.source]
    headers = {**INERT, **KEPT, "ETag": f'"{record.sha256}"'}
    if _has_it(request, headers["ETag"]):
        return Response(status_code=304, headers=headers)
    name = quote(doc_id.rpartition("/")[2], safe="")
    download = {
        "Content-Type": record.media_type,
        "Content-Length": str(record.size),
        "Content-Disposition": f"attachment; filename*=UTF-8''{name}",
    }
    return StreamingResponse(original(record, source, services.uploads), headers={**headers, **download})


@router.get("/v1/documents/{doc_id:path}", responses=documented("document_unknown", "starting"))
def document(doc_id: DocId, request: Request, services: Here) -> DocumentDetailJson:
    """Describe a document.

    An id that ends in /text or /original is reached as long as no document has the id before that.
    """
    with services.serving.lease() as served:
        return _described(served, doc_id, request)


@router.put(
    "/v1/documents/{doc_id:path}",
    status_code=202,
    responses=_ACCEPTED
    | documented(
        "invalid_document",
        "invalid_request",
        "malformed_json",
        "malformed_body",
        "document_synced",
        "storage_unavailable",
    ),
    openapi_extra={"requestBody": _PUT_BODY},
)
async def put_document(doc_id: DocId, request: Request, response: Response, services: Here) -> TaskJson:
    """Add a document, or replace it.

    The body is the file itself, or JSON with its text, or a form with one file. A JSON file is sent as
    application/octet-stream.
    """
    check_doc_id(doc_id)
    await to_thread.run_sync(_refuse_synced, [doc_id], services)
    with receiving(services.uploads) as receiver:
        file, described = await _receive_one(receiver, request)
        upload = _upload(doc_id, file, described)
        task = await to_thread.run_sync(_enqueue_puts, [upload], services)
    return _accepted(task, request, response)


@router.post(
    "/v1/documents",
    status_code=202,
    responses=_ACCEPTED
    | documented(
        "invalid_document",
        "invalid_request",
        "malformed_body",
        "content_type",
        "document_synced",
        "storage_unavailable",
    ),
    openapi_extra={"requestBody": _POST_BODY},
)
async def post_documents(request: Request, response: Response, services: Here) -> TaskJson:
    """Add or replace several documents with one form; each has the id of its file name, after the prefix."""
    if media_type_of(request) != MULTIPART:
        raise Problem("content_type", f"Send the files as {MULTIPART}, or one of them with PUT /v1/documents/ID.")
    with receiving(services.uploads) as receiver:
        form = await receiver.receive_form(request)
        uploads = _uploads(form)
        await to_thread.run_sync(_refuse_synced, [upload.doc_id for upload in uploads], services)
        task = await to_thread.run_sync(_enqueue_puts, uploads, services)
    return _accepted(task, request, response)


@router.delete(
    "/v1/documents/{doc_id:path}",
    status_code=202,
    responses=_ACCEPTED | documented("document_unknown", "document_synced", "storage_unavailable"),
)
def delete_document(doc_id: DocId, request: Request, response: Response, services: Here) -> TaskJson:
    """Delete a document that was put; also one that is still waiting to be indexed."""
    _refuse_synced([doc_id], services)
    if not _is_put(doc_id, services):
        raise _unknown(doc_id)
    task = services.tasks.enqueue_delete(doc_id)
    services.indexer.wake()
    return _accepted(task, request, response)


def _sources(served: Served) -> dict[str, SourceRecord]:
    return {source.path: source for source in served.generation.manifest.sources}


def _kind(source: SourceRecord) -> SourceKind:
    if source.path == UPLOADS:
        return "upload"
    return "bundled" if source.is_bundled else "folder"


def _record(served: Served, doc_id: str) -> DocumentRecord | None:
    if HALF_SURROGATE.search(doc_id):
        return None
    with served.corpus_lock:
        return served.corpus.document(doc_id)


def _described(served: Served, doc_id: str, request: Request) -> DocumentDetailJson:
    record = _record(served, doc_id)
    if record is None:
        raise _unknown(doc_id)
    with served.corpus_lock:
        outline = served.corpus.outline(record)
    prefix, path = request.scope.get("root_path", ""), quote(doc_id)
    return DocumentDetailJson.detailed(
        record,
        source=_kind(_sources(served)[record.source]),
        outline=outline,
        addresses={
            "text_url": f"{prefix}/v1/documents/{path}/text",
            "original_url": f"{prefix}/v1/documents/{path}/original",
            "page_url": f"{prefix}/documents/{path}",
        },
        generation=served.generation.name,
    )


def _described_instead(served: Served, doc_id: str, request: Request) -> Response:
    """Describe a document whose own id ends like the address of another one's text or original."""
    if _record(served, doc_id) is None:
        raise _unknown(doc_id.rpartition("/")[0])
    return Response(_described(served, doc_id, request).model_dump_json(), media_type=JSON)


def _has_it(request: Request, etag: str) -> bool:
    given = request.headers.get("if-none-match", "")
    return etag in {tag.strip().removeprefix("W/") for tag in given.split(",")}


def _refuse_synced(doc_ids: Iterable[str], services: Services) -> None:
    """Refuse documents that belong to a folder; what is only found out later fails in its task."""
    if not services.serving.is_ready:
        return
    with services.serving.lease() as served:
        for doc_id in doc_ids:
            record = _record(served, doc_id)
            if record is not None and record.source != UPLOADS:
                raise Problem(
                    "document_synced", f"{doc_id} belongs to a folder that is synced. Change it there, then sync."
                )


def _is_put(doc_id: str, services: Services) -> bool:
    """Tell whether a document was put, or waits to be, and is not about to be deleted."""
    pending = services.tasks.pending(doc_id)
    if pending is not None or services.uploads.find(doc_id) is not None:
        return pending is not TaskKind.DELETE
    if not services.serving.is_ready:
        return False
    with services.serving.lease() as served:
        return _record(served, doc_id) is not None


async def _receive_one(receiver: Receiver, request: Request) -> tuple[ReceivedFile, DescriptionJson]:
    """Receive the document of a PUT, and what is said of it."""
    media_type = media_type_of(request)
    if media_type == JSON:
        put = _parsed(await receiver.receive_bytes(request, limit=MAX_JSON_BYTES))
        return await receiver.store(put.text.encode()), put
    if media_type == MULTIPART:
        form = await receiver.receive_form(request)
        if [name for name, _ in form.files] != ["file"]:
            raise _invalid("/file", "Send exactly one file, in the part that is named file")
        return form.files[0][1], _valid(DescriptionJson, form)
    file = await receiver.receive_file(request)
    if not file.size:
        raise Problem("invalid_document", "The body is empty. Send the file as the body, or its text as JSON.")
    return file, DescriptionJson()


def _uploads(form: ReceivedForm) -> list[Upload]:
    """Make uploads of a form with several files."""
    described = _valid(PutFilesJson, form)
    if not form.files or any(name != "file" or not file.filename for name, file in form.files):
        raise _invalid("/file", "Send at least one file, each with its file name, in parts that are named file")
    uploads = [_upload(described.prefix + file.filename, file, described) for _, file in form.files]
    twice = [doc_id for doc_id, count in Counter(upload.doc_id for upload in uploads).items() if count > 1]
    if twice:
        raise Problem("invalid_document", f"There are two files for the id {twice[0]!r}. Send one of them.")
    for upload in uploads:
        check_doc_id(upload.doc_id)
    return uploads


def _upload(doc_id: str, file: ReceivedFile, described: DescriptionJson | PutFilesJson) -> Upload:
    return Upload(
        doc_id,
        file.file,
        name_for(doc_id, filename=file.filename, media_type=file.media_type),
        file.sha256,
        file.size,
        title=described.title if isinstance(described, DescriptionJson) else None,
        uri=described.url if isinstance(described, DescriptionJson) else None,
        metadata=described.metadata,
        put_at=utc_now().isoformat(timespec="milliseconds"),
    )


def _parsed(body: bytes) -> PutTextJson:
    try:
        return PutTextJson.model_validate_json(body)
    except ValidationError as exc:
        raise _of_validation(exc) from exc


def _valid(model: type[Description], form: ReceivedForm) -> Description:
    """Check the fields of a form; metadata comes as JSON."""
    values: dict[str, Any] = dict(form.fields)
    try:
        if "metadata" in values:
            values["metadata"] = from_json(values["metadata"], allow_inf_nan=False)
    except ValueError as exc:
        raise _invalid("/metadata", f"This is not JSON: {exc}") from exc
    try:
        return model.model_validate(values)
    except ValidationError as exc:
        raise _of_validation(exc) from exc


def _of_validation(error: ValidationError) -> RequestValidationError:
    return RequestValidationError([{**each, "loc": ("body", *each["loc"])} for each in error.errors()])


def _invalid(pointer: str, detail: str) -> Problem:
    return Problem("invalid_request", f"{detail}.", fields=[FieldProblemJson(pointer=pointer, detail=detail)])


def _enqueue_puts(uploads: Sequence[Upload], services: Services) -> Task:
    task = services.tasks.enqueue_puts(uploads, keep=services.uploads.keep)
    services.indexer.wake()
    return task


def _accepted(task: Task, request: Request, response: Response) -> TaskJson:
    response.headers["Location"] = f"{request.scope.get('root_path', '')}/v1/tasks/{task.id}"
    return TaskJson.of(task)


def _unknown(doc_id: str) -> Problem:
    return Problem("document_unknown", f"There is no document {doc_id!r}. The list is at /v1/documents.")
