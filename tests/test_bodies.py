from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Annotated

import pytest
from fastapi import Body, FastAPI, Request
from starlette.types import Receive, Scope, Send
from wire import connected, dripped, everything, listening, poured, problem_in, response, send_text

from service.bodies import BodyLimits
from service.logs import RequestLog
from service.metrics import Metrics
from service.problems import handle_problems

LIMIT = 1_000
UPLOAD_LIMIT = 100_000


def limited_app() -> FastAPI:
    """An application whose routes read their bodies in each of the ways there are."""
    app = FastAPI()
    handle_problems(app)

    @app.post("/json")
    async def of_json(told: Annotated[dict[str, str], Body()]) -> dict[str, int]:
        return {"length": len(told["text"])}

    @app.put("/v1/documents/{doc_id:path}")
    @app.post("/v1/documents")
    @app.post("/v1/documentsx")
    @app.delete("/v1/documents")
    async def of_stream(request: Request) -> dict[str, int]:
        return {"length": sum([len(part) async for part in request.stream()])}

    @app.post("/form")
    async def of_form(request: Request) -> dict[str, int]:
        async with request.form() as form:
            return {"length": len(form)}

    @app.post("/unread")
    async def unread() -> dict[str, int]:
        return {"length": -1}

    app.add_middleware(BodyLimits, max_body=LIMIT, max_upload=UPLOAD_LIMIT, grace_s=0.5, bytes_per_s=100)
    app.add_middleware(RequestLog, metrics=Metrics())
    return app


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with listening(limited_app(), root_path="/whence") as port:  # which uvicorn puts before every path
        yield port


def posted(path: str, *fields: str, method: str = "POST") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: localhost", *fields, "", ""]).encode()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def test_a_body_that_says_it_is_too_large_is_refused_before_it_is_sent(port: int) -> None:
    with connected(port) as connection:
        connection.sendall(posted("/json", "Content-Type: application/json", "Content-Length: 1001"))
        status, _, body = response(connection)
    assert status == 413
    assert json.loads(body)["code"] == "body_too_large"
    assert json.loads(body)["detail"].startswith("The body has more than 1,000 bytes.")


def test_a_client_that_asks_first_is_not_told_to_go_on(port: int) -> None:
    with connected(port) as connection:
        connection.sendall(posted("/json", "Expect: 100-continue", "Content-Length: 5000000"))
        assert response(connection)[0] == 413


@pytest.mark.parametrize("path", ["/json", "/form", "/v1/documentsx"])
def test_a_body_without_a_length_is_refused_when_too_much_of_it_has_come(port: int, path: str) -> None:
    fields = ("Content-Type: application/json", "Transfer-Encoding: chunked")
    if path == "/form":
        fields = ("Content-Type: application/x-www-form-urlencoded", "Transfer-Encoding: chunked")
    with connected(port) as connection:
        connection.sendall(posted(path, *fields) + chunk(b"x" * 1_001))
        status, _, body = response(connection)
    assert status == 413
    assert json.loads(body)["code"] == "body_too_large"


def test_a_body_of_just_the_limit_is_read(port: int) -> None:
    body = json.dumps({"text": "x" * (LIMIT - 12)}).encode()
    assert len(body) == LIMIT
    with connected(port) as connection:
        connection.sendall(posted("/json", "Content-Type: application/json", f"Content-Length: {LIMIT}") + body)
        assert response(connection)[2] == b'{"length":988}'
        connection.sendall(posted("/json", "Content-Type: application/json", "Transfer-Encoding: chunked"))
        connection.sendall(chunk(body) + b"0\r\n\r\n")
        assert response(connection)[2] == b'{"length":988}'


@pytest.mark.parametrize(
    ("method", "path", "limit"),
    [
        ("PUT", "/v1/documents/a/b.md", UPLOAD_LIMIT),
        ("POST", "/v1/documents", UPLOAD_LIMIT),
        ("DELETE", "/v1/documents", LIMIT),
        ("POST", "/v1/documentsx", LIMIT),
        ("POST", "/unread", LIMIT),
    ],
)
def test_uploads_have_their_own_limit(port: int, method: str, path: str, limit: int) -> None:
    for length, is_refused in ((limit, False), (limit + 1, True)):
        with connected(port) as connection:
            connection.sendall(posted(path, f"Content-Length: {length}", method=method) + b"x" * length)
            assert (response(connection)[0] == 413) is is_refused


def test_a_body_that_comes_byte_by_byte_is_given_up(port: int) -> None:
    started = time.monotonic()
    with connected(port) as connection:
        connection.sendall(posted("/json", "Content-Type: application/json", "Content-Length: 500"))
        assert not dripped(b"x" * 500, connection, pause_s=0.05)
        problem = problem_in(everything(connection))
    assert problem["code"] == "body_timeout"
    assert time.monotonic() - started < 3


def test_a_body_of_which_nothing_comes_is_given_up(port: int) -> None:
    with connected(port) as connection:
        connection.sendall(posted("/v1/documents/a", "Content-Length: 500", method="PUT"))
        assert problem_in(everything(connection))["code"] == "body_timeout"


def test_a_body_that_comes_fast_enough_may_take_long(port: int) -> None:
    with connected(port) as connection:
        connection.sendall(posted("/v1/documents/a", "Content-Length: 200", method="PUT"))
        for _ in range(10):
            connection.sendall(b"x" * 20)
            time.sleep(0.1)
        assert response(connection)[2] == b'{"length":200}'


def test_a_large_upload_that_nobody_wants_is_refused_while_it_is_sent(port: int) -> None:
    with connected(port) as connection:
        connection.sendall(posted("/json", "Transfer-Encoding: chunked"))
        poured((chunk(b"x" * 10_000) for _ in range(500)), connection)
        status, _, body = response(connection)
    assert status == 413
    assert json.loads(body)["code"] == "body_too_large"


def test_a_body_that_is_not_read_does_no_harm(port: int) -> None:
    with connected(port) as connection:
        for _ in range(2):
            connection.sendall(posted("/unread", "Content-Length: 900") + b"x" * 900)
            assert response(connection)[2] == b'{"length":-1}'


def test_an_answer_that_has_begun_goes_no_further_when_the_body_is_too_large() -> None:
    async def early(_scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        while (await receive()).get("more_body", False):
            pass
        await send({"type": "http.response.body", "body": b"ok"})

    with listening(BodyLimits(early, max_body=10, max_upload=10)) as port, connected(port) as connection:
        connection.sendall(posted("/", "Transfer-Encoding: chunked") + chunk(b"x" * 11))
        assert everything(connection).endswith(b"\r\n\r\n")


def test_waiting_for_what_follows_a_body_is_not_limited() -> None:
    async def patient(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        with suppress(TimeoutError):
            async with asyncio.timeout(0.6):
                await receive()
        await send_text(send, 200, "ok")

    app = BodyLimits(patient, max_body=10, max_upload=10, grace_s=0.2)
    with listening(app) as port, connected(port) as connection:
        connection.sendall(posted("/", "Content-Length: 2") + b"ab")
        assert response(connection)[2] == b"ok"
