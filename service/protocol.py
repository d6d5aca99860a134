"""HTTP/1.1 as uvicorn reads it, with bounds on what a client may cost before and after its request is answered.

uvicorn and its parser take the head of a request however long it is, wait for it however slowly it comes, let the
rest of a body come for ever when the answer was given without it, and wait for ever until an answer is taken.
What they refuse they answer in plain text; here it is a problem, as everywhere.
"""

from __future__ import annotations

import asyncio
import logging
import time
from asyncio import TimerHandle
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from service.logs import new_request_id
from service.problems import Problem, problem_response

logger = logging.getLogger(__name__)


class HeadLimitProtocol(HttpToolsProtocol):
    """A connection; for `uvicorn.Config(http=...)`.

    Attributes:
        yielding_s: seconds for which a worker that has connections waits after a new one, where there are several
            workers: of many that come at once it would take most before another one has woken up, and they stay.
        head_s: seconds within which a head must be there, from the opening of the connection or its first byte.
        head_bytes: of a head; and of whatever else in a request is not its body.
        head_fields: header fields of a head.
        linger_s: seconds for which the rest of a body may come that is not needed any more. Until then it is read, so
            that the client reads the answer rather than an error of its connection.
        stalled_s: seconds after which a client that takes nothing of its answer is given up.
    """

    yielding_s = 50e-6
    head_s = 10.0
    head_bytes = 65_536
    head_fields = 100
    linger_s = 2.0
    stalled_s = 120.0

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._is_in_head = False
        self._is_in_body = False
        self._unparsed = 0  # bytes since the parser last had something to show for them
        self._refusal: Problem | None = None
        self._unsent = 0
        self._reading_timer: TimerHandle | None = None
        self._writing_timer: TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a head."""
        super().connection_made(transport)
        self._wait_at_most(self.head_s)
        if self.config.workers > 1 and len(self.connections) > 1:
            time.sleep(self.yielding_s)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._wait_no_more()
        self._stop_watching()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came, unless it is more than a head may have."""
        if not self._is_in_body and self._reading_timer is None:
            self._wait_at_most(self.head_s)
        self._unparsed += len(data)
        super().data_received(data)
        if self._unparsed > self.head_bytes:
            self._refuse(_too_large())

    def on_message_begin(self) -> None:
        """Note that a head has begun."""
        super().on_message_begin()
        self._is_in_head = True
        if self._reading_timer is None:
            self._wait_at_most(self.head_s)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header field, unless there are too many.

        One that follows the body is dropped: it would change the head that the application has seen already.
        """
        if self._is_in_body:
            return
        if len(self.headers) == self.head_fields:
            self._refusal = _too_large()
            raise self._refusal
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Take a head, unless it is too large."""
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > self.head_bytes:
            self._refusal = _too_large()
            raise self._refusal
        super().on_headers_complete()
        self._is_in_head, self._is_in_body, self._unparsed = False, True, 0
        self._wait_no_more()

    def on_body(self, body: bytes) -> None:
        """Take a part of a body."""
        self._unparsed = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Note that a request is whole; if it has been answered already, the next one is waited for."""
        self._is_in_body, self._unparsed = False, 0
        if not self._is_answering:
            self._wait_at_most(self.head_s)
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Note that a request is answered; if it is not whole, its rest is not waited for much longer."""
        super().on_response_complete()
        if self._is_in_body and not self._is_answering and not self.transport.is_closing():
            self._wait_at_most(self.linger_s)

    def send_400_response(self, msg: str) -> None:
        """Answer what the parser could not read."""
        problem = Problem(
            "malformed_request", "This is not HTTP/1.1 as it should be. Check the request line and headers."
        )
        self._refuse(self._refusal or problem)

    def pause_writing(self) -> None:
        """Begin to watch whether the client takes its answer."""
        super().pause_writing()
        self._watch_writing()

    def resume_writing(self) -> None:
        """Stop watching."""
        self._stop_watching()
        super().resume_writing()

    def _unsupported_upgrade_warning(self) -> None:
        """Say nothing: a server need not take up the offer of another protocol, and clients offer it unasked."""

    @property
    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _wait_at_most(self, seconds: float) -> None:
        self._wait_no_more()
        self._reading_timer = self.loop.call_later(seconds, self._on_reading_timeout)

    def _wait_no_more(self) -> None:
        if self._reading_timer is not None:
            self._reading_timer.cancel()
            self._reading_timer = None

    def _on_reading_timeout(self) -> None:
        if self._is_answering:  # the head of a next request has begun; the answer to this one goes first
            self._wait_at_most(self.head_s)
        elif self._is_in_head:
            self._refuse(
                Problem(
                    "head_timeout", f"The head of the request did not come within {self.head_s:g} s. Send it again."
                )
            )
        else:
            self.transport.close()

    def _watch_writing(self) -> None:
        self._unsent = self.transport.get_write_buffer_size()
        self._writing_timer = self.loop.call_later(self.stalled_s, self._on_writing_timeout)

    def _stop_watching(self) -> None:
        if self._writing_timer is not None:
            self._writing_timer.cancel()
            self._writing_timer = None

    def _on_writing_timeout(self) -> None:
        if self.transport.get_write_buffer_size() < self._unsent:
            self._watch_writing()
        else:
            self.transport.abort()

    def _refuse(self, problem: Problem) -> None:
        """Close the connection, with an answer unless another one is due or has begun."""
        if self.transport.is_closing():
            return
        request_id = new_request_id()
        client = self.client[0] if self.client else None
        logger.info("refused", extra={"code": problem.code, "request_id": request_id, "client": client})
        if self._may_answer():
            self.transport.write(self._answer(problem, request_id))
        self.transport.close()

    def _may_answer(self) -> bool:
        if self._is_in_body and not self.pipeline and not self.cycle.response_started:
            self.cycle.disconnected = True  # so that the application does not answer as well
            return True
        return not self._is_answering

    def _answer(self, problem: Problem, request_id: str) -> bytes:
        response = problem_response(problem, request_id)
        headers = [
            *self.server_state.default_headers,
            *response.raw_headers,
            (b"x-request-id", request_id.encode()),
            (b"connection", b"close"),
        ]
        lines = b"".join(name + b": " + value + b"\r\n" for name, value in headers)
        return STATUS_LINE[problem.status] + lines + b"\r\n" + bytes(response.body)


def _too_large() -> Problem:
    return Problem(
        "head_too_large", "The address and the headers of the request are longer than is taken. Shorten them."
    )
