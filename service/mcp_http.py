"""The Model Context Protocol over HTTP: streamable HTTP without sessions, each request answered with JSON.

Any of several processes can answer any request. The server never speaks first, so that there is no stream to open
(GET) and no session to end (DELETE).
"""

from __future__ import annotations

from typing import cast

from anyio.lowlevel import checkpoint
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from starlette.requests import Request

from index.answers import Answer
from service.addresses import linking
from service.departures import departure
from service.mcp_server import Caller, Context, Desk, make_server
from service.routes.asking import log_questions
from service.services import Services, services_of


def make_manager(services: Services) -> StreamableHTTPSessionManager:
    """Make what answers messages; it has to be run."""
    server = make_server(Desk(services.settings, services.serving, services.line, caller=_caller, ready=checkpoint))
    # Hosts, origins and the size of a body are looked at by our own middleware, as everywhere.
    return StreamableHTTPSessionManager(
        server, json_response=True, stateless=True, max_request_body_size=services.settings.max_body
    )


def _caller(ctx: Context) -> Caller:
    request = cast(Request, ctx.request)
    services = services_of(request)
    link = linking(request, services.settings)

    def note(answer: Answer) -> None:
        log_questions([answer], request.scope, services)

    return Caller(gone=departure(request.receive), address=lambda _doc_id, url: link(url), note=note)
