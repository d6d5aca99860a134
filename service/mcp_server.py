"""The Model Context Protocol: what a program with a model of its own can ask here, and read.

Two tools, `search` and `fetch`, and every document as a resource. The same server answers over HTTP and over standard
input and output; they differ in who calls, see `Caller`.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from importlib.metadata import version
from typing import Any, TypeVar
from urllib.parse import quote, unquote

from anyio import to_thread
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.shared.exceptions import MCPError
from mcp_types import (
    CONNECTION_CLOSED,
    INTERNAL_ERROR,
    INVALID_PARAMS,
    CallToolRequestParams,
    CallToolResult,
    ListResourcesResult,
    ListResourceTemplatesResult,
    ListToolsResult,
    PaginatedRequestParams,
    ReadResourceRequestParams,
    ReadResourceResult,
    Resource,
    ResourceTemplate,
    TextContent,
    TextResourceContents,
    Tool,
    ToolAnnotations,
)
from pydantic import BaseModel, ValidationError

from index.answers import Answer, Question
from index.corpus import DocumentRecord
from index.documents import HALF_SURROGATE
from index.errors import WhenceError
from service.cursors import cursor_after, document_before
from service.departures import ClientGoneError
from service.line import Line
from service.problems import Problem
from service.schemas.mcp import Address, FetchArguments, FetchedJson, SearchArguments, SearchJson
from service.serving import Serving
from service.settings import Settings

logger = logging.getLogger(__name__)

DOCUMENTS = "whence://documents/"
RESOURCES_AT_ONCE = 100
MAX_RESOURCE_CHARS = 1_000_000  # of a document that is read whole; longer ones are read in parts
PLAIN = "text/plain"

INSTRUCTIONS = (
    "Here are a team's own documents. Search them first whenever a question could be settled by what the team has "
    "written down, before you answer from memory. What comes back are exact words: quote them as they are, and give "
    "the url of what you quote. When `answered` is false, the documents do not answer: say so, and do not present "
    "the nearest passages as an answer. Fetch a document when a passage needs what stands around it."
)
SEARCH_DESCRIPTION = (
    "Search the team's documents and get the answer in their exact words, with a citation that can be checked. Use "
    "it for every question that the documents could settle.\n\n"
    "`answered` says whether they do. If true, `answer` has the words that answer, and `results` the passages, best "
    "first. If false, `answer` is null and `results` are only the nearest passages: say that the documents do not "
    "answer, and do not make an answer out of them; asking once more in other words is worth a try.\n\n"
    "Ask one whole question at a time: earlier calls are not remembered. Quote word for word, and give the `url`."
)
FETCH_DESCRIPTION = (
    "Read a document: its whole text, or a part of it. Take the `id` from a result of search. To read around a "
    "passage, begin somewhat before its `citation.start`. When `next_start` is not null there is more: call again "
    "with it as `start`."
)

_READ_ONLY = ToolAnnotations(read_only_hint=True, idempotent_hint=True, destructive_hint=False, open_world_hint=False)

Context = ServerRequestContext[Any, Any]
Taken = TypeVar("Taken", bound=BaseModel)
_Tool = Callable[[Context, Mapping[str, Any]], Awaitable[BaseModel]]


@dataclass(frozen=True)
class Caller:
    """Who calls, and how.

    Attributes:
        gone: returns when the caller has left; what still waits is then dropped.
        address: makes links such that the caller can open them.
        note: told of each answer that the caller gets.
    """

    gone: Callable[[], Awaitable[None]]
    address: Address
    note: Callable[[Answer], None]


@dataclass(frozen=True)
class Desk:
    """What calls are answered from.

    Attributes:
        settings: of the service.
        serving: whose documents are read.
        line: where questions wait.
        caller: tells who calls.
        ready: waits as long as a caller should for the index to be there, if at all.
    """

    settings: Settings
    serving: Serving
    line: Line
    caller: Callable[[Context], Caller]
    ready: Callable[[], Awaitable[None]]


def make_server(desk: Desk) -> Server[Any]:
    """Make the server of a desk; a transport runs it."""
    handlers = _Handlers(desk)
    server: Server[Any] = Server(
        "whence",
        version=version("whence"),
        title="Whence",
        instructions=INSTRUCTIONS,
        get_tool_input_schema=_input_schema,
        on_list_tools=handlers.list_tools,
        on_call_tool=handlers.call_tool,
        on_list_resources=handlers.list_resources,
        on_list_resource_templates=handlers.list_templates,
        on_read_resource=handlers.read_resource,
    )
    # In the place of the library's own, which reports to OpenTelemetry.
    server.middleware[:] = [_guard]
    return server


def uri_of(doc_id: str) -> str:
    """Return the URI under which a document is read as a resource."""
    return DOCUMENTS + quote(doc_id, safe="")


class _Handlers:
    """Answers what comes in.

    Args:
        desk: to answer from.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._tools: Mapping[str, _Tool] = {"search": self._search, "fetch": self._fetch}

    async def list_tools(self, ctx: Context, params: PaginatedRequestParams | None) -> ListToolsResult:
        """Describe the tools."""
        return ListToolsResult(tools=list(TOOLS.values()))

    async def call_tool(self, ctx: Context, params: CallToolRequestParams) -> CallToolResult:
        """Call a tool. What went wrong is told to the model, which may then do better."""
        tool = self._tools.get(params.name)
        if tool is None:
            raise MCPError(INVALID_PARAMS, f"There is no tool {params.name!r}. There are: {', '.join(self._tools)}.")
        try:
            result = await tool(ctx, params.arguments or {})
        except (Problem, WhenceError) as error:
            _log(error)
            return _refusal(str(error))
        # Programs that read no structured content find the same in the text.
        text = TextContent(text=result.model_dump_json())
        return CallToolResult(content=[text], structured_content=result.model_dump(mode="json"))

    async def list_resources(self, ctx: Context, params: PaginatedRequestParams | None) -> ListResourcesResult:
        """List documents in order of their ids. A cursor stays good when the index changes."""
        after = _after(params.cursor if params else None)
        await self._desk.ready()
        found = await to_thread.run_sync(self._page, after)
        page = found[:RESOURCES_AT_ONCE]
        return ListResourcesResult(
            resources=[_resource(record) for record in page],
            next_cursor=cursor_after(page[-1].doc_id) if len(found) > len(page) else None,
        )

    async def list_templates(
        self, ctx: Context, params: PaginatedRequestParams | None
    ) -> ListResourceTemplatesResult:
        """Say what the URI of a document looks like."""
        template = ResourceTemplate(
            name="document",
            title="Document",
            uri_template=f"{DOCUMENTS}{{id}}",
            description="The text of a document, by the id that search and fetch give it.",
            mime_type=PLAIN,
        )
        return ListResourceTemplatesResult(resource_templates=[template])

    async def read_resource(self, ctx: Context, params: ReadResourceRequestParams) -> ReadResourceResult:
        """Return the text of a document."""
        uri = params.uri
        if not uri.startswith(DOCUMENTS):
            raise MCPError(INVALID_PARAMS, f"There is no resource {uri!r}. Documents are at {DOCUMENTS}ID.")
        await self._desk.ready()
        record, text = await to_thread.run_sync(self._read, unquote(uri.removeprefix(DOCUMENTS)))
        if len(text) > MAX_RESOURCE_CHARS:
            raise MCPError(
                INVALID_PARAMS,
                f"{record.doc_id} has {len(text):,} characters, more than are read at once. Read it in parts with "
                "the tool fetch.",
            )
        return ReadResourceResult(contents=[TextResourceContents(uri=uri, mime_type=PLAIN, text=text)])

    async def _search(self, ctx: Context, arguments: Mapping[str, Any]) -> SearchJson:
        asked = _checked(SearchArguments, arguments)
        settings, caller = self._desk.settings, self._desk.caller(ctx)
        question = Question(
            asked.query,
            top_k=settings.top_k if asked.top_k is None else asked.top_k,
            filters=asked.filters,
            min_confidence=settings.min_confidence,
        )
        await self._desk.ready()
        (answer,) = await self._desk.line.ask([question], gone=caller.gone)
        caller.note(answer)
        # In a thread: finding addresses may look at files.
        return await to_thread.run_sync(SearchJson.of, answer, caller.address)

    async def _fetch(self, ctx: Context, arguments: Mapping[str, Any]) -> FetchedJson:
        asked = _checked(FetchArguments, arguments)
        await self._desk.ready()
        return await to_thread.run_sync(self._fetched, asked, self._desk.caller(ctx).address)

    def _fetched(self, asked: FetchArguments, address: Address) -> FetchedJson:
        record, text = self._read(asked.id)
        url = address(record.doc_id, record.uri or f"/documents/{quote(record.doc_id)}")
        return FetchedJson.of(record, text, asked, url)

    def _read(self, doc_id: str) -> tuple[DocumentRecord, str]:
        with self._desk.serving.corpus() as corpus:
            record = None if HALF_SURROGATE.search(doc_id) else corpus.document(doc_id)
            if record is None:
                raise Problem(
                    "document_unknown",
                    f"There is no document {doc_id!r}. Take the id from a result of search, or list the resources.",
                )
            return record, corpus.text(record)

    def _page(self, after: str) -> list[DocumentRecord]:
        with self._desk.serving.corpus() as corpus:
            return corpus.page(after=after, limit=RESOURCES_AT_ONCE + 1)


def _tool(name: str, title: str, description: str, *, takes: type[BaseModel], gives: type[BaseModel]) -> Tool:
    return Tool(
        name=name,
        title=title,
        description=description,
        input_schema=takes.model_json_schema(),
        output_schema=gives.model_json_schema(mode="serialization"),
        annotations=_READ_ONLY.model_copy(update={"title": title}),
    )


TOOLS: Mapping[str, Tool] = {
    "search": _tool("search", "Search the documents", SEARCH_DESCRIPTION, takes=SearchArguments, gives=SearchJson),
    "fetch": _tool("fetch", "Read a document", FETCH_DESCRIPTION, takes=FetchArguments, gives=FetchedJson),
}


def _input_schema(name: str) -> Mapping[str, Any] | None:
    tool = TOOLS.get(name)
    return None if tool is None else tool.input_schema


def _resource(record: DocumentRecord) -> Resource:
    # No size: that of the source is known, and not that of its text.
    return Resource(uri=uri_of(record.doc_id), name=record.doc_id, title=record.title, mime_type=PLAIN)


def _after(cursor: str | None) -> str:
    try:
        return "" if cursor is None else document_before(cursor)
    except Problem as problem:
        raise MCPError(INVALID_PARAMS, f"{cursor!r} is no cursor. Take it from nextCursor.") from problem


def _refusal(message: str) -> CallToolResult:
    # Half a surrogate pair can come in with a call, but has no place in UTF-8.
    text = TextContent(text=HALF_SURROGATE.sub("\N{REPLACEMENT CHARACTER}", message))
    return CallToolResult(content=[text], is_error=True)


def _checked(takes: type[Taken], arguments: Mapping[str, Any]) -> Taken:
    try:
        return takes.model_validate(arguments)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        raise Problem("invalid_request", f"The arguments are not as they should be: {faults}.") from error


async def _guard(ctx: Context, call_next: CallNext) -> HandlerResult:
    """Tell a caller what went wrong, and of our own mistakes no more than that."""
    try:
        return await call_next(ctx)
    except (MCPError, ValidationError):
        raise  # the library knows these
    except (Problem, WhenceError) as error:
        problem = _log(error)
        is_ours = problem.status >= HTTPStatus.INTERNAL_SERVER_ERROR
        raise MCPError(INTERNAL_ERROR if is_ours else INVALID_PARAMS, str(error)) from error
    except ClientGoneError as error:
        raise MCPError(CONNECTION_CLOSED, "The client has left.") from error
    except Exception as error:  # the edge of the protocol: the library would tell the caller what the mistake was
        logger.exception("A mistake of ours")
        raise MCPError(INTERNAL_ERROR, "Something went wrong here. It is in the log.") from error


def _log(error: Problem | WhenceError) -> Problem:
    """Log an error that is nobody's fault but ours; return the problem that it is over HTTP."""
    if isinstance(error, Problem):
        return error
    problem = Problem.of(error)
    if problem.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        logger.error("%s: %s", type(error).__name__, error)
    return problem
