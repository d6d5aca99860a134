"""Clients that leave before they are answered: noticing it, and what the log says of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fastapi import FastAPI, Request
from starlette.responses import Response
from starlette.types import Receive

CLIENT_GONE = (
    499  # the status of a request whose client left before the response, as nginx has it; only the log sees it
)


class ClientGoneError(Exception):
    """Whoever asked has closed the connection; there is nobody to answer."""


def departure(receive: Receive) -> Callable[[], Awaitable[None]]:
    """Return what waits until the client of a request, whose body has been received, has closed the connection."""

    async def departed() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    return departed


def gone() -> Response:
    """Return the response to a client that has left."""
    return Response(status_code=CLIENT_GONE)


def handle_departures(app: FastAPI) -> None:
    """End requests whose client has left, in the log of an app, with a status of their own."""

    async def end(request: Request, error: Exception) -> Response:
        return gone()

    app.add_exception_handler(ClientGoneError, end)
