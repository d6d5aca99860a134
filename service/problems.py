"""Errors over HTTP: RFC 9457 problem details, each with a code that stays the same.

Every error of the library has its place in `CODE_OF`; the base classes are there too, as a safety net. On the routes
that OpenAI's clients call, errors have OpenAI's form, and on the routes of deep-chat and Dify theirs, whatever part
of the service they come from.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from index import errors
from index.documents import HALF_SURROGATE
from service.schemas.base import Schema
from service.schemas.problems import (
    DeepChatErrorJson,
    DifyErrorJson,
    FieldProblemJson,
    OpenAIErrorJson,
    OpenAIErrorsJson,
    ProblemJson,
)

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"

# Every code, its status, and when it happens.
CODES: Mapping[str, tuple[int, str]] = {
    "malformed_request": (400, "the request is not HTTP"),
    "malformed_json": (400, "the body is not JSON"),
    "malformed_body": (400, "the body is not what its content type says"),
    "host_refused": (400, "the Host header names another machine than this service answers for"),
    "key_required": (401, "no key was sent"),
    "key_unknown": (401, "the key is unknown, revoked or malformed"),
    "key_expired": (401, "the key was valid and is not any more"),
    "scope_missing": (403, "the key is not for this"),
    "origin_refused": (403, "the page that asks is not allowed to"),
    "not_found": (404, "there is nothing at this address"),
    "document_unknown": (404, "there is no such document"),
    "knowledge_unknown": (404, "the id of no document begins with the knowledge_id"),
    "task_unknown": (404, "there is no such task"),
    "generation_unknown": (404, "there is no such generation"),
    "model_not_found": (404, "there is no such model; the only one is `whence`"),
    "method_not_allowed": (405, "the address does not take this method"),
    "head_timeout": (408, "the head of the request came too slowly"),
    "body_timeout": (408, "the body came too slowly"),
    "document_synced": (409, "the document belongs to a synced folder and is changed there"),
    "original_changed": (409, "the file is not the one that was indexed any more"),
    "task_started": (409, "the task is not waiting any more"),
    "generation_damaged": (409, "a file of the generation is missing or altered"),
    "body_too_large": (413, "the body is larger than is taken"),
    "content_type": (415, "the content type is not one that is read here"),
    "invalid_request": (422, "a field is missing, unknown or of the wrong kind"),
    "invalid_question": (422, "the question, top_k or a filter makes no sense"),
    "invalid_citation": (422, "a citation lacks what is needed to check it"),
    "invalid_document": (422, "the id or the description of a document makes no sense"),
    "rate_exceeded": (429, "the key is used more often than it may be, or too many wrong keys came"),
    "head_too_large": (431, "the address and the headers are larger than is taken"),
    "internal": (500, "a mistake of ours"),
    "starting": (503, "the index or the model is not loaded yet"),
    "overloaded": (503, "too many questions wait"),
    "deadline": (503, "the question waited too long"),
    "writer_busy": (503, "another process is writing the index"),
    "index_unavailable": (503, "no generation can be opened"),
    "storage_unavailable": (507, "the disk is full or cannot be written"),
}
CODE_OF: Mapping[type[errors.WhenceError], str] = {
    errors.QuestionError: "invalid_question",
    errors.CitationError: "invalid_citation",
    errors.DocumentError: "invalid_document",
    errors.WriterBusyError: "writer_busy",
    errors.DamagedGenerationError: "generation_damaged",
    errors.NoGenerationError: "starting",
    errors.GenerationError: "index_unavailable",
    errors.StateError: "storage_unavailable",
    errors.ModelError: "index_unavailable",
    errors.WhenceError: "internal",
}
RETRY_AFTER_S = 1
_OPENAI_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
# Dify's own numbers; other errors have the number of their status.
_DIFY_CODES = {
    "key_required": 1001,
    "key_unknown": 1002,
    "key_expired": 1002,
    "scope_missing": 1002,
    "origin_refused": 1002,
    "knowledge_unknown": 2001,
}
# Of what is no HTTP, or its head too slow or too large: that is answered before there is a route, as problem details.
_BEFORE_ROUTES = (400, 408, 431)
_PLACE = re.compile(r"/([0-9]+)(?=/|$)")


class Problem(Exception):  # noqa: N818 (the word of the RFC)
    """An error to be answered with.

    Attributes:
        code: one of `CODES`.
        detail: what was wrong and what to do.
        headers: of the response.
        fields: which parts of the request were wrong.
    """

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        fields: Sequence[FieldProblemJson] = (),
    ) -> None:
        super().__init__(detail)
        self.code = code
        # Half a surrogate pair can come in with a request, but has no place in UTF-8.
        self.detail = HALF_SURROGATE.sub("\N{REPLACEMENT CHARACTER}", detail)
        self.headers = dict(headers or {})
        self.fields = tuple(fields)
        self.status = CODES[code][0]
        if self.status == HTTPStatus.SERVICE_UNAVAILABLE:
            self.headers.setdefault("Retry-After", str(RETRY_AFTER_S))

    @classmethod
    def of(cls, error: errors.WhenceError) -> Problem:
        """Return the problem that an error of the library is over HTTP."""
        code = next(CODE_OF[kind] for kind in type(error).__mro__ if kind in CODE_OF)
        return cls(code, str(error))


def invalid_field(pointer: str, detail: str) -> Problem:
    """Return the problem of a request of which one part makes no sense, at a JSON pointer."""
    field = FieldProblemJson(pointer=pointer, detail=detail)
    return Problem("invalid_request", f"The request is not as it should be: {pointer}: {detail}.", fields=[field])


def problem_response(problem: Problem, request_id: str) -> Response:
    """Return the response for a problem."""
    body = ProblemJson(
        type=f"urn:whence:problem:{problem.code}",
        title=HTTPStatus(problem.status).phrase,
        status=problem.status,
        code=problem.code,
        detail=problem.detail,
        request_id=request_id,
        errors=list(problem.fields),
    )
    return Response(
        body.model_dump_json(), status_code=problem.status, headers=problem.headers, media_type=MEDIA_TYPE
    )


def openai_error(problem: Problem, request_id: str) -> OpenAIErrorsJson:
    """Return a problem in OpenAI's form."""
    kind = "server_error" if problem.status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request_error"
    pointer = problem.fields[0].pointer if problem.fields else ""
    error = OpenAIErrorJson(
        message=problem.detail,
        type=_OPENAI_TYPES.get(problem.status, kind),
        param=_PLACE.sub(r"[\1]", pointer).strip("/").replace("/", ".") or None,
        code=problem.code,
        request_id=request_id,
    )
    return OpenAIErrorsJson(error=error)


def deep_chat_error(problem: Problem, request_id: str) -> DeepChatErrorJson:
    """Return a problem in the form of the deep-chat component."""
    return DeepChatErrorJson(error=problem.detail, code=problem.code, request_id=request_id)


def dify_error(problem: Problem, request_id: str) -> DifyErrorJson:
    """Return a problem in Dify's form, which has no place for the id of a request."""
    return DifyErrorJson(error_code=_DIFY_CODES.get(problem.code, problem.status), error_msg=problem.detail)


@dataclass(frozen=True)
class _Form:
    """How the clients of a route know an error.

    Attributes:
        schema: of the body; its title names it in the OpenAPI description.
        body: of a problem, with the id of the request.
        statuses: that they know better than the problem's own.
    """

    schema: type[Schema]
    body: Callable[[Problem, str], Schema]
    statuses: Mapping[int, int]


# OpenAI's clients know a request that makes no sense by 400, Dify a key that is missing or not valid by 403.
_OPENAI = _Form(OpenAIErrorsJson, openai_error, {422: 400})
# By address; one that ends with a slash is for everything below it.
_FORMS: Mapping[str, _Form] = {
    "/v1/chat/completions": _OPENAI,
    "/v1/chat/completions/": _OPENAI,
    "/v1/models": _OPENAI,
    "/v1/models/": _OPENAI,
    "/v1/deep-chat": _Form(DeepChatErrorJson, deep_chat_error, {}),
    "/retrieval": _Form(DifyErrorJson, dify_error, {401: 403}),
}


def answer_to(request: Request, problem: Problem) -> Response:
    """Return the response for a problem, in the form that the clients of the route know."""
    path = str(request.scope["path"]).removeprefix(request.scope.get("root_path", ""))
    form = _form_of(path)
    if form is None:
        return problem_response(problem, request_id(request))
    return Response(
        form.body(problem, request_id(request)).model_dump_json(),
        status_code=form.statuses.get(problem.status, problem.status),
        headers=problem.headers,
        media_type="application/json",
    )


def _form_of(path: str) -> _Form | None:
    """Return the form of the errors at an address; None for problem details."""
    above = (form for known, form in _FORMS.items() if known.endswith("/") and path.startswith(known))
    return _FORMS.get(path) or next(above, None)


def documented(*codes: str) -> dict[int | str, dict[str, Any]]:
    """Describe the problems of a route for OpenAPI."""
    described: dict[int | str, dict[str, Any]] = {}
    for code in codes:
        status, meaning = CODES[code]
        entry = described.setdefault(
            status, {"description": "", "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}}
        )
        entry["description"] += f"{'; ' if entry['description'] else ''}`{code}`: {meaning}"
    return described


def describe_forms(described: dict[str, Any]) -> None:
    """Describe in an OpenAPI description the problems of each route in the form that its clients know."""
    schemas = described["components"]["schemas"]
    for path, item in described["paths"].items():
        form = _form_of(path)
        if form is not None:
            schema = form.schema.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas.update({**schema.pop("$defs", {}), schema["title"]: schema})
            for operation in item.values():
                operation["responses"] = _in_form(operation["responses"], form, schema["title"])


def _in_form(responses: dict[str, Any], form: _Form, name: str) -> dict[str, Any]:
    formed: dict[str, Any] = {}
    for status, response in responses.items():
        if MEDIA_TYPE not in response.get("content", {}):
            formed[status] = response
            continue
        known_as = str(form.statuses.get(int(status), status))
        content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}
        entry = formed.setdefault(known_as, {"description": "", "content": content})
        if int(status) in _BEFORE_ROUTES:
            entry["content"].update(response["content"])
        entry["description"] += f"{'; ' if entry['description'] else ''}{response['description']}"
    return formed


def handle_problems(app: FastAPI) -> None:
    """Answer every error of an app with a problem."""

    async def answer(request: Request, error: Exception) -> Response:
        return answer_to(request, problem_of(error, request))

    for kind in (Problem, errors.WhenceError, HTTPException, RequestValidationError, Exception):
        app.add_exception_handler(kind, answer)


def request_id(request: Request) -> str:
    """Return the id that a request was given; see `service.logs`."""
    return str(request.scope.get("request_id", ""))


def problem_of(error: Exception, request: Request) -> Problem:
    """Return the problem that an error of a request is."""
    match error:
        case Problem():
            return error
        case errors.WhenceError():
            return _of_whence_error(error)
        case HTTPException():
            return _of_http_exception(error, request)
        case RequestValidationError():
            return _of_validation(error, request)
    # Logged with its traceback by the outermost middleware.
    return Problem("internal", "Something went wrong here. The log has it under this request id.")


def _of_whence_error(error: errors.WhenceError) -> Problem:
    problem = Problem.of(error)
    if problem.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        logger.error("%s: %s", type(error).__name__, error)
    return problem


def _of_http_exception(error: HTTPException, request: Request) -> Problem:
    if error.status_code == HTTPStatus.NOT_FOUND:
        return Problem("not_found", f"There is nothing at {request.url.path}. The routes are listed at /docs.")
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        return Problem(
            "method_not_allowed", f"{request.url.path} does not take {request.method}.", headers=error.headers
        )
    if error.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return Problem("body_too_large", "A part of the body is larger than is taken. Split it.")
    if error.status_code < HTTPStatus.INTERNAL_SERVER_ERROR:
        return Problem("malformed_body", f"The body cannot be read: {error.detail}.")
    return Problem("internal", str(error.detail))


def _of_validation(error: RequestValidationError, request: Request) -> Problem:
    found = error.errors()
    if any(each["type"] == "json_invalid" for each in found):
        each = next(each for each in found if each["type"] == "json_invalid")
        reason = each.get("ctx", {}).get("error", "")
        return Problem("malformed_json", f"The body is not JSON: {reason} at {each['loc'][-1]}. Send JSON in UTF-8.")
    if any(each["loc"] == ("body",) for each in found) and not _says_json(request):
        sent = request.headers.get("content-type") or "none"
        return Problem("content_type", f"The content type is {sent}. Send JSON with Content-Type: application/json.")
    fields = [FieldProblemJson(pointer=_pointer(each["loc"]), detail=str(each["msg"])) for each in found]
    said = "; ".join(f"{field.pointer}: {field.detail}" for field in fields[:5])
    return Problem("invalid_request", f"The request is not as it should be: {said}.", fields=fields)


def _says_json(request: Request) -> bool:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return media_type == "application/json" or media_type.endswith("+json")


def _pointer(location: Sequence[str | int]) -> str:
    """Return where in the request something is: a JSON pointer into the body, or the part and its name."""
    first, *rest = location
    path = "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in rest)
    return path or "/" if first == "body" else f"{first}{path}"
