"""Limits of what a client may send: how much, and how slowly."""

from __future__ import annotations

import asyncio
import time

from fastapi import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.headers import header
from service.problems import Problem, answer_to

UPLOADS = "/v1/documents"
GRACE_S = 10.0
BYTES_PER_S = 1_000


class BodyLimits:
    """Middleware that refuses a body which is too large or comes too slowly, without reading the rest of it.

    A body that says how long it is is refused before any of it is read. Of time only that counts which is spent
    waiting for the client.

    Args:
        app: what stands behind it.
        max_body: bytes of a body.
        max_upload: bytes of a body that puts documents.
        grace_s: seconds for which any body may be waited for.
        bytes_per_s: for so many bytes received, another second.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        max_body: int,
        max_upload: int,
        grace_s: float = GRACE_S,
        bytes_per_s: int = BYTES_PER_S,
    ) -> None:
        self._app = app
        self._max_body = max_body
        self._max_upload = max_upload
        self._grace_s = grace_s
        self._bytes_per_s = bytes_per_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer with a problem."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._limit(scope)
        if _declared_length(scope) > limit:
            await _answer(_too_large(limit), scope, receive, send)
            return
        body = _Body(receive, send, limit=limit, grace_s=self._grace_s, bytes_per_s=self._bytes_per_s)
        try:
            await self._app(scope, body.receive, body.send)
        except Problem as problem:
            if problem is not body.refusal:
                raise
        if body.refusal is not None and not body.is_answered:
            await _answer(body.refusal, scope, receive, send)

    def _limit(self, scope: Scope) -> int:
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        is_upload = scope["method"] in ("PUT", "POST") and f"{path}/".startswith(f"{UPLOADS}/")
        return self._max_upload if is_upload else self._max_body


class _Body:
    """The body of one request on its way in, and the response on its way out.

    Attributes:
        refusal: why the body is not read any further; None as long as it is.
        is_answered: whether a response has begun.
    """

    def __init__(self, receive: Receive, send: Send, *, limit: int, grace_s: float, bytes_per_s: int) -> None:
        self._receive = receive
        self._send = send
        self._limit = limit
        self._grace_s = grace_s
        self._bytes_per_s = bytes_per_s
        self._received = 0
        self._waited_s = 0.0
        self._is_whole = False
        self.refusal: Problem | None = None
        self.is_answered = False

    async def receive(self) -> Message:
        """Return the next part of the body, or after it what follows.

        Raises:
            Problem: the body is too large or too slow.
        """
        if self.refusal is not None:
            raise self.refusal
        if self._is_whole:
            return await self._receive()
        message = await self._in_time()
        self._received += len(message.get("body", b""))
        self._is_whole = not message.get("more_body", False)
        if self._received > self._limit:
            raise self._refuse(_too_large(self._limit))
        return message

    async def send(self, message: Message) -> None:
        """Send a part of the response, unless the body was refused before it began.

        Whoever reads a body may take its refusal for a mistake in it, and answer so.
        """
        if self.refusal is None or self.is_answered:
            self.is_answered = True
            await self._send(message)

    async def _in_time(self) -> Message:
        started = time.monotonic()
        try:
            async with asyncio.timeout(self._grace_s + self._received / self._bytes_per_s - self._waited_s):
                return await self._receive()
        except TimeoutError:
            raise self._refuse(_too_slow(self._received)) from None
        finally:
            self._waited_s += time.monotonic() - started

    def _refuse(self, problem: Problem) -> Problem:
        self.refusal = problem
        return problem


def _declared_length(scope: Scope) -> int:
    declared = header(scope, b"content-length")
    return int(declared) if declared is not None and declared.isdecimal() else 0


def _too_large(limit: int) -> Problem:
    return Problem(
        "body_too_large",
        f"The body has more than {limit:,} bytes. Send less at a time; whoever runs this service sets the limits "
        "with WHENCE_MAX_BODY and WHENCE_MAX_UPLOAD.",
    )


def _too_slow(received: int) -> Problem:
    return Problem(
        "body_timeout",
        f"The rest of the body did not come in time, after {received:,} bytes. Send it again, faster.",
        headers={"Connection": "close"},
    )


async def _answer(problem: Problem, scope: Scope, receive: Receive, send: Send) -> None:
    await answer_to(Request(scope), problem)(scope, receive, send)
