"""Where the Model Context Protocol is spoken, see `service.mcp_http`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module
from typing import TYPE_CHECKING

from anyio import TASK_STATUS_IGNORED, Lock, create_task_group, sleep_forever, to_thread
from anyio.abc import TaskGroup, TaskStatus
from fastapi import APIRouter, FastAPI
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from service.services import Services

if TYPE_CHECKING:
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

router = APIRouter()


class _Endpoint:
    """The protocol as an application; it hands the request on to the library."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a message."""
        request = Request(scope, receive)
        # Read here: of a client that leaves meanwhile the library would think that something has failed.
        body = await request.body()
        protocol: _Protocol = scope["app"].state.mcp
        manager = await protocol.manager()
        await manager.handle_request(scope, _again(body, receive), send)


router.routes.append(Route("/mcp", endpoint=_Endpoint(), methods=["POST"], include_in_schema=False))


class _Protocol:
    """The library, loaded for the first message: it takes longer than all the rest of the service."""

    def __init__(self, services: Services, tasks: TaskGroup) -> None:
        self._services = services
        self._tasks = tasks
        self._lock = Lock()
        self._manager: StreamableHTTPSessionManager | None = None

    async def manager(self) -> StreamableHTTPSessionManager:
        """Return what answers messages; it runs until the app ends."""
        async with self._lock:
            if self._manager is None:
                self._manager = await self._tasks.start(self._run)
            return self._manager

    async def _run(self, *, task_status: TaskStatus[StreamableHTTPSessionManager] = TASK_STATUS_IGNORED) -> None:
        module = await to_thread.run_sync(import_module, "service.mcp_http")
        manager: StreamableHTTPSessionManager = module.make_manager(self._services)
        async with manager.run():
            task_status.started(manager)
            await sleep_forever()


@asynccontextmanager
async def mcp_running(app: FastAPI) -> AsyncIterator[None]:
    """Be ready for the protocol, as long as an app runs."""
    async with create_task_group() as tasks:
        app.state.mcp = _Protocol(app.state.services, tasks)
        yield
        tasks.cancel_scope.cancel()


def _again(body: bytes, receive: Receive) -> Receive:
    """Return what gives a body that was read once more, and after it what follows."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def given() -> Message:
        return messages.pop() if messages else await receive()

    return given
