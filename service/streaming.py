"""Replies that come as events: their beginning, keeping the connection alive, and what goes wrong on the way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable
from typing import Any, TypeVar

from fastapi import Request
from fastapi.sse import KEEPALIVE_COMMENT

from index.errors import WhenceError
from service.departures import ClientGoneError
from service.problems import Problem

Made = TypeVar("Made")

EVENTS = "text/event-stream"
VARY = {"Vary": "Accept"}
UNBUFFERED = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
AT_ONCE_S = 0.25  # what fails so soon is answered with its status; later it is an event
PING_S = 15.0


def wants_events(request: Request) -> bool:
    """Return whether a client names events before JSON among what it takes."""
    named = (part.partition(";")[0].strip().lower() for part in request.headers.get("accept", "").split(","))
    return next((name for name in named if name in (EVENTS, "application/json")), None) == EVENTS


async def started(making: Coroutine[Any, Any, Made]) -> asyncio.Future[Made]:
    """Begin to make a reply, and wait a moment for it.

    Raises:
        Exception: what went wrong at once, so that it is still answered with its status.
    """
    replying = asyncio.ensure_future(making)
    replying.add_done_callback(_seen)
    await asyncio.wait({replying}, timeout=AT_ONCE_S)
    if replying.done():
        replying.result()
    return replying


async def streamed(
    replying: asyncio.Future[Made],
    write: Callable[[Made], Iterable[bytes]],
    write_problem: Callable[[Problem], bytes],
    *,
    before: Iterable[bytes] = (),
    ping_s: float = PING_S,
) -> AsyncGenerator[bytes, None]:
    """Yield a reply event by event.

    Args:
        replying: to be cancelled when nobody takes the events any more.
        write: gives the events of the reply.
        write_problem: gives the event for what goes wrong, which is the last one.
        before: events that need no reply.
        ping_s: seconds after which a comment is sent while there is no reply, so that nobody closes the connection.
    """
    try:
        for event in before:
            yield event
        while not (await asyncio.wait({replying}, timeout=ping_s))[0]:
            yield KEEPALIVE_COMMENT
        for event in write(replying.result()):
            yield event
    except (Problem, WhenceError) as error:
        yield write_problem(error if isinstance(error, Problem) else Problem.of(error))
    except ClientGoneError:
        pass  # nobody is there to be told
    finally:
        replying.cancel()


def _seen(replying: asyncio.Future[Any]) -> None:
    """Look at how a reply ended, also when nobody waits for it any more."""
    if not replying.cancelled():
        replying.exception()
