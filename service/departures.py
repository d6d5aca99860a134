"""Clients that leave before they are answered: noticing it, and what the log says of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fastapi import FastAPI, Request
from starlette.responses import Response

CLIENT_GONE = (
    499  # the status of a request whose client left before the response, as nginx has it; only the log sees it
)


class ClientGoneError(Exception):
    """Whoever asked has closed the connection; there is nobody to answer."""


def departure(request: Request) -> Callable[[], Awaitable[None]]:
    """Return what waits until the client of a request has closed the connection."""

    async def departed() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    return departed


def handle_departures(app: FastAPI) -> None:
    """End requests whose client has left, in the log of an app, with a status of their own."""

    async def end(request: Request, error: Exception) -> Response:
        return Response(status_code=CLIENT_GONE)

    app.add_exception_handler(ClientGoneError, end)
