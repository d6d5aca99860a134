"""The Model Context Protocol over HTTP: streamable HTTP without sessions, each request answered with JSON.

Any of several processes can answer any request. The server never speaks first, so that there is no stream to open
(GET) and no session to end (DELETE).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

from anyio.lowlevel import checkpoint
from fastapi import APIRouter, FastAPI
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from index.answers import Answer
from service.addresses import linking
from service.departures import departure
from service.mcp_server import Caller, Context, Desk, make_server
from service.routes.asking import log_questions
from service.services import Services, services_of

router = APIRouter()


class _Endpoint:
    """The protocol as an application; it hands the request on to the library."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a message."""
        request = Request(scope, receive)
        # Read here: of a client that leaves meanwhile the library would think that something has failed.
        body = await request.body()
        manager: StreamableHTTPSessionManager = scope["app"].state.mcp
        await manager.handle_request(scope, _again(body, receive), send)


router.routes.append(Route("/mcp", endpoint=_Endpoint(), methods=["POST"], include_in_schema=False))


@asynccontextmanager
async def mcp_running(app: FastAPI) -> AsyncIterator[None]:
    """Be ready for the protocol, as long as an app runs."""
    services: Services = app.state.services
    server = make_server(Desk(services.settings, services.serving, services.line, caller=_caller, ready=checkpoint))
    # Hosts, origins and the size of a body are looked at by our own middleware, as everywhere.
    app.state.mcp = StreamableHTTPSessionManager(
        server, json_response=True, stateless=True, max_request_body_size=services.settings.max_body
    )
    async with app.state.mcp.run():
        yield


def _caller(ctx: Context) -> Caller:
    request = cast(Request, ctx.request)
    services = services_of(request)
    link = linking(request, services.settings)

    def note(answer: Answer) -> None:
        log_questions([answer], request, services)

    return Caller(gone=departure(request), address=lambda _doc_id, url: link(url), note=note)


def _again(body: bytes, receive: Receive) -> Receive:
    """Return what gives a body that was read once more, and after it what follows."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def given() -> Message:
        return messages.pop() if messages else await receive()

    return given
