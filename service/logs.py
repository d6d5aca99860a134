"""The log: one line for each request, as JSON or for people, on standard error.

A line names a request's route, never its address, and nothing of its query, its body or the answer: what people ask
is nobody's business, unless whoever runs the service has switched it on. Everything that is logged while a request is
answered carries its id, which the answer has, too.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TextIO

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bound_contextvars, get_contextvars, merge_contextvars
from structlog.stdlib import ExtraAdder, ProcessorFormatter, add_log_level, add_logger_name
from structlog.typing import EventDict, Processor, WrappedLogger

from service.departures import CLIENT_GONE
from service.display import visible
from service.headers import header
from service.problems import Problem, answer_to
from service.settings import Settings

if TYPE_CHECKING:  # metrics have to know at that moment whether several processes count together
    from service.metrics import Metrics

logger = logging.getLogger(__name__)

OFTEN_ASKED = frozenset({"/livez", "/readyz", "/metrics"})  # every few seconds, by machines; logged when they fail
REQUEST = "request"  # the message of a line about a request
OUR_LOGGERS = ("index", "service", "uvicorn")

_REQUEST_FIELDS = ("method", "route", "status", "ms", "key_id", "client", "questions")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_MISTAKE = Problem("internal", "Something went wrong here. It is in the log under this request id.")


def configure_logging(settings: Settings) -> None:
    """Send the log of this process to standard error, in the form that the settings name."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_formatter(settings, sys.stderr))
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.captureWarnings(True)
    for name in OUR_LOGGERS:
        logging.getLogger(name).setLevel(logging.INFO)


def _formatter(settings: Settings, stream: TextIO) -> logging.Formatter:
    is_terminal = stream.isatty()
    is_text = settings.log_format == "text" or (settings.log_format == "auto" and is_terminal)
    common: list[Processor] = [
        merge_contextvars,
        ExtraAdder(),
        add_log_level,
        add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    render: list[Processor] = [structlog.processors.JSONRenderer()]
    if is_text:
        # The plain form of a traceback: others show variables, and so what somebody asked.
        plain = structlog.dev.plain_traceback
        render = [
            _made_visible,
            structlog.dev.ConsoleRenderer(
                colors=is_terminal, exception_formatter=plain, sort_keys=False, pad_event_to=0
            ),
        ]
    kind = ProcessorFormatter if is_text else _JsonLines
    return kind(
        foreign_pre_chain=common, processors=[ProcessorFormatter.remove_processors_meta, _without_markup, *render]
    )


class _JsonLines(ProcessorFormatter):
    """Writes the lines about requests, of which there are many, as its processors do but without them."""

    def format(self, record: logging.LogRecord) -> str:
        """Write a line."""
        if record.msg is not REQUEST:
            return super().format(record)
        given = vars(record)
        event = {
            "event": REQUEST,
            **get_contextvars(),
            **{name: given[name] for name in _REQUEST_FIELDS if name in given},
            "level": record.levelname.lower(),
            "logger": record.name,
            "timestamp": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
        }
        return json.dumps(event)


def _without_markup(_logger: WrappedLogger, _name: str, event: EventDict) -> EventDict:
    """Drop the second form of a message that uvicorn adds, for terminals."""
    event.pop("color_message", None)
    return event


def _made_visible(_logger: WrappedLogger, _name: str, event: EventDict) -> EventDict:
    """Keep what others have written on its own line: no control characters, and tracebacks indented."""
    shown = {key: _on_one_line(value) if isinstance(value, str) else value for key, value in event.items()}
    if "exception" in event:
        shown["exception"] = "\n".join(f"    {_on_one_line(line)}" for line in event["exception"].splitlines())
    return shown


def _on_one_line(text: str) -> str:
    return visible(text).replace("\n", "\N{SYMBOL FOR NEWLINE}")


class RequestLog:
    """Middleware that gives each request an id, logs and counts it, and answers for mistakes.

    It sets `request_id` in the scope and the X-Request-ID header of the response. From the scope it logs what others
    put there: `route`, `key_id` and, if questions are to be logged, `questions`.

    Args:
        app: what stands behind it.
        metrics: in which requests are counted.
    """

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and log it when it has been answered."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope["request_id"] = _request_id(scope)
        with bound_contextvars(request_id=scope["request_id"]):
            await self._observe(scope, receive, send)

    async def _observe(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        status: int | None = None

        async def observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", scope["request_id"].encode())]
            await send(message)

        try:
            await self._app(scope, receive, observed)
        except ClientDisconnect:
            pass
        except Exception:
            # When the response has begun, the server sees that it does not end, and closes the connection.
            logger.exception("A mistake of ours")
            if status is None:
                await answer_to(Request(scope), _MISTAKE)(scope, receive, observed)
        finally:
            self._record(scope, status or CLIENT_GONE, time.perf_counter() - started)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        # The routers put the route into this very scope; a mount has one as well, an unknown address has none.
        route = getattr(scope.get("route"), "path", None)
        self._metrics.request(route, scope["method"], status, seconds)
        is_routine = route in OFTEN_ASKED and status < 400
        fields = {
            "method": scope["method"],
            "route": route,
            "status": status,
            "ms": round(seconds * 1000, 1),
            "key_id": scope.get("key_id"),
            "client": scope["client"][0] if scope.get("client") else None,
        }
        if "questions" in scope:
            fields["questions"] = scope["questions"]
        level = logging.DEBUG if is_routine else logging.INFO
        if logger.isEnabledFor(level):
            # Made here, because `log` looks for the line that called it, which the log does not show.
            logger.handle(logger.makeRecord(logger.name, level, __file__, 0, REQUEST, (), None, extra=fields))


def new_request_id() -> str:
    """Return an id that no other request has."""
    return secrets.token_hex(8)


def _request_id(scope: Scope) -> str:
    """Return the id that a request brought along, if it is one, or a new one."""
    given = header(scope, b"x-request-id")
    return given if given is not None and _REQUEST_ID.fullmatch(given) else new_request_id()
