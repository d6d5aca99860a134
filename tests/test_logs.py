from __future__ import annotations

import io
import json
import logging
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, FastAPI, Request
from starlette.responses import StreamingResponse
from structlog.contextvars import bound_contextvars
from structlog.stdlib import ProcessorFormatter
from waiting import until
from wire import connected, listening

from service.headers import SecurityHeaders
from service.logs import REQUEST, RequestLog, configure_logging
from service.metrics import Metrics
from service.problems import Problem, handle_problems
from service.settings import Settings

SECRET = "What is the password of the boss?"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@contextmanager
def configured(stream: io.StringIO, **given: object) -> Iterator[io.StringIO]:
    """Configure the log of this process to go to a stream; afterwards it is as it was."""
    root, stderr, handlers, level = logging.getLogger(), sys.stderr, logging.root.handlers, logging.root.level
    root.handlers, sys.stderr = [], stream
    try:
        configure_logging(Settings.model_validate(given))
        yield stream
    finally:
        root.handlers, sys.stderr = handlers, stderr
        root.setLevel(level)
        logging.captureWarnings(False)
        for name in ("index", "service", "uvicorn"):
            logging.getLogger(name).setLevel(logging.NOTSET)


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    with configured(io.StringIO(), log_format="json") as stream:
        yield stream


def lines(log: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.getvalue().splitlines()]


def requests(log: io.StringIO, count: int) -> list[dict[str, Any]]:
    """Return the lines of requests, once there are as many; they are written after the responses."""
    until(lambda: sum(line["event"] == "request" for line in lines(log)) >= count)
    return [line for line in lines(log) if line["event"] == "request"]


def observed_app(metrics: Metrics | None = None) -> FastAPI:
    app, router = FastAPI(), APIRouter()
    handle_problems(app)

    @router.get("/v1/documents/{doc_id:path}/text")
    def text(doc_id: str) -> str:
        logging.getLogger("service.example").warning("Reading %s", doc_id)
        return doc_id

    @router.get("/v1/ask")
    async def ask(q: str, request: Request) -> str:
        request.scope["key_id"] = "4f2a"
        return q

    @router.get("/v1/logged")
    async def logged(request: Request) -> None:
        request.scope["questions"] = [SECRET]

    @router.get("/problem")
    async def problem() -> None:
        raise Problem("overloaded", "Too many.")

    @router.get("/mistake")
    async def mistake() -> None:
        raise ZeroDivisionError("twice\nover")

    @router.get("/late-mistake")
    async def late_mistake() -> StreamingResponse:
        async def parts() -> Any:
            yield b"some"
            raise ZeroDivisionError

        return StreamingResponse(parts())

    @router.put("/upload")
    async def upload(request: Request) -> int:
        return sum([len(part) async for part in request.stream()])

    @router.get("/livez")
    async def live(broken: bool = False) -> None:
        if broken:
            raise Problem("starting", "Not yet.")

    app.include_router(router)
    app.add_middleware(RequestLog, metrics=metrics or Metrics())
    app.add_middleware(SecurityHeaders)
    return app


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with listening(observed_app()) as port:
        yield port


@pytest.fixture(scope="module")
def client(port: int) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        yield client


def test_a_request_is_one_line_and_holds_nothing_that_was_asked(client: httpx.Client, log: io.StringIO) -> None:
    answer = client.get("/v1/ask", params={"q": SECRET}, headers={"X-Request-ID": "abc-1"})
    (line,) = requests(log, 1)
    assert answer.json() == SECRET
    assert len(lines(log)) == 1
    assert line.pop("ms") > 0
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", line.pop("timestamp"))
    assert line == {
        "event": "request",
        "level": "info",
        "logger": "service.logs",
        "request_id": "abc-1",
        "method": "GET",
        "route": "/v1/ask",
        "status": 200,
        "key_id": "4f2a",
        "client": "127.0.0.1",
    }
    assert "password" not in log.getvalue()


@pytest.mark.parametrize(
    ("method", "path", "route", "status"),
    [
        ("GET", "/v1/documents/guide/a%1Bb.md/text", "/v1/documents/{doc_id:path}/text", 200),
        ("PUT", "/v1/ask", "/v1/ask", 405),
        ("GET", "/v1/ask", "/v1/ask", 422),
        ("GET", "/problem", "/problem", 503),
        ("GET", "/nothing/here?q=1", None, 404),
    ],
)
def test_a_request_is_known_by_the_template_of_its_route(
    client: httpx.Client, log: io.StringIO, method: str, path: str, route: str | None, status: int
) -> None:
    assert client.request(method, path).status_code == status
    (line,) = requests(log, 1)
    assert (line["method"], line["route"], line["status"]) == (method, route, status)


@pytest.mark.parametrize("given", ["", "a b", "ä", "x" * 65, '"}', "a\tb"])
def test_an_id_that_is_none_is_replaced(client: httpx.Client, log: io.StringIO, given: str) -> None:
    answer = client.get("/problem", headers=[(b"X-Request-ID", given.encode("latin-1"))])
    (line,) = requests(log, 1)
    assert re.fullmatch(r"[0-9a-f]{16}", answer.headers["X-Request-ID"])
    assert answer.json()["request_id"] == line["request_id"] == answer.headers["X-Request-ID"]


def test_what_is_logged_during_a_request_has_its_id(client: httpx.Client, log: io.StringIO) -> None:
    client.get("/v1/documents/a%0D%1Bb/text", headers={"X-Request-ID": "abc-2"})
    requests(log, 1)
    warning = lines(log)[0]
    assert (warning["event"], warning["level"], warning["logger"]) == (
        "Reading a\r\x1bb",
        "warning",
        "service.example",
    )
    assert warning["request_id"] == "abc-2"


def test_questions_are_logged_when_a_route_says_so(client: httpx.Client, log: io.StringIO) -> None:
    client.get("/v1/logged")
    assert requests(log, 1)[0]["questions"] == [SECRET]


def test_a_mistake_is_logged_once_with_its_traceback_and_answered(client: httpx.Client, log: io.StringIO) -> None:
    answer = client.get("/mistake", headers={"X-Request-ID": "abc-3"})
    assert answer.status_code == 500
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.json()["code"] == "internal"
    assert answer.json()["request_id"] == "abc-3"
    assert "twice" not in answer.text
    (line,) = requests(log, 1)
    (mistake,) = (line for line in lines(log) if line["level"] == "error")
    assert line["status"] == 500
    assert mistake["request_id"] == "abc-3"
    assert mistake["exception"].endswith("ZeroDivisionError: twice\nover")


def test_a_mistake_in_an_answer_that_has_begun_cuts_it_short(client: httpx.Client, log: io.StringIO) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        client.get("/late-mistake")
    assert requests(log, 1)[0]["status"] == 200
    assert sum("exception" in line for line in lines(log)) == 1


def test_a_client_that_leaves_is_no_mistake(port: int, log: io.StringIO) -> None:
    with connected(port) as connection:
        connection.sendall(b"PUT /upload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nab")
    (line,) = requests(log, 1)
    assert (line["route"], line["status"]) == ("/upload", 499)
    assert len(lines(log)) == 1


def test_probes_are_logged_when_they_fail(client: httpx.Client, log: io.StringIO) -> None:
    client.get("/livez")
    client.get("/livez?broken=1")
    assert [line["status"] for line in requests(log, 1)] == [503]


def test_requests_are_counted_by_route() -> None:
    metrics = Metrics()
    with listening(observed_app(metrics)) as port, httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        for path in ("/v1/documents/a/text", "/v1/documents/b/text", "/random/1", "/random/2", "/mistake"):
            client.get(path)
    rendered = metrics.render(tasks={}).decode()
    assert 'requests_total{method="GET",route="/v1/documents/{doc_id:path}/text",status="200"} 2.0' in rendered
    assert 'requests_total{method="GET",route="other",status="404"} 2.0' in rendered
    assert 'requests_total{method="GET",route="/mistake",status="500"} 1.0' in rendered
    assert "random" not in rendered


def test_text_is_for_people_and_cannot_be_forged() -> None:
    with configured(io.StringIO(), log_format="text") as log:
        logger = logging.getLogger("service.example")
        logger.info("Reading %s", "a\n2026-01-01 [info] forged\x1b[31m")
        try:
            raise ZeroDivisionError("twice\n2026-01-01 [info] forged")
        except ZeroDivisionError:
            logger.exception("A mistake", extra={"route": "/x\ny"})
    first, second, *rest = log.getvalue().splitlines()
    assert re.fullmatch(r"\S+Z \[info +\] Reading a␤2026-01-01 \[info\] forged�\[31m \[service\.example\]", first)
    assert re.fullmatch(r"\S+Z \[error +\] A mistake \[service\.example\] route=/x␤y", second)
    assert all(line.startswith("    ") for line in rest)
    assert rest[-1] == "    2026-01-01 [info] forged"


def test_a_line_about_a_request_is_written_as_every_other_line(log: io.StringIO) -> None:
    formatters = [handler.formatter for handler in logging.getLogger().handlers]
    (formatter,) = [each for each in formatters if isinstance(each, ProcessorFormatter)]
    fields: dict[str, Any] = {"method": "GET", "route": None, "status": 499, "ms": 0.5, "key_id": "4f2a"}
    for more in ({"client": "::1"}, {"client": None, "questions": ["Wofür? “x”\u2028", SECRET]}):
        record = logging.makeLogRecord(
            {"name": "service.logs", "levelname": "INFO", "msg": REQUEST, **fields, **more}
        )
        with bound_contextvars(request_id="ab12"):
            quick, slow = formatter.format(record), ProcessorFormatter.format(formatter, record)
        assert re.sub(r'"[0-9T:.-]+Z"', "", quick) == re.sub(r'"[0-9T:.-]+Z"', "", slow) != quick


@pytest.mark.parametrize(
    ("stream", "log_format", "is_json"),
    [
        (io.StringIO(), "auto", True),
        (Terminal(), "auto", False),
        (Terminal(), "json", True),
        (io.StringIO(), "text", False),
    ],
)
def test_the_form_follows_the_setting_or_the_terminal(stream: io.StringIO, log_format: str, is_json: bool) -> None:
    with configured(stream, log_format=log_format):
        logging.getLogger("index.example").info("Said")
    assert stream.getvalue().startswith("{") is is_json
    assert ("\x1b[" in stream.getvalue()) is (isinstance(stream, Terminal) and not is_json)


def test_others_are_heard_when_they_warn() -> None:
    with configured(io.StringIO(), log_format="json") as log:
        logging.getLogger("httpx").info("chatter")
        logging.getLogger("uvicorn.error").info("Started", extra={"color_message": "\x1b[36mStarted"})
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            logging.captureWarnings(True)
            warnings.warn("old", UserWarning, stacklevel=1)
            logging.captureWarnings(False)
    assert [(line["logger"], line["level"]) for line in lines(log)] == [
        ("uvicorn.error", "info"),
        ("py.warnings", "warning"),
    ]
    assert "36m" not in log.getvalue()
