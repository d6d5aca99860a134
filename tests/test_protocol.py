from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from starlette.types import Receive, Scope, Send
from wire import GET, connected, dripped, echo, everything, listening, poured, problem_in, refuse, response, send_text

from service.protocol import HeadLimitProtocol

MEGABYTE = 1_000_000
CHUNKED = b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
CLOSE = b"\r\nConnection: close\r\n\r\n"


class Hasty(HeadLimitProtocol):
    head_s = 0.4
    linger_s = 0.4
    stalled_s = 0.4


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with listening(echo) as port:
        yield port


@pytest.fixture(scope="module")
def hasty_port() -> Iterator[int]:
    with listening(echo, Hasty) as port:
        yield port


def posted(length: int) -> bytes:
    return b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % length


def with_fields(count: int) -> bytes:
    return b"GET / HTTP/1.1\r\n" + b"X: 1\r\n" * count + b"\r\n"


def test_a_head_that_comes_byte_by_byte_is_given_up(hasty_port: int) -> None:
    started = time.monotonic()
    with connected(hasty_port) as connection:
        assert not dripped(GET, connection, pause_s=0.05)
        data = everything(connection)
    assert time.monotonic() - started < 3
    assert problem_in(data)["code"] == "head_timeout"


def test_a_connection_on_which_nothing_comes_is_closed_without_a_word(hasty_port: int) -> None:
    with connected(hasty_port) as connection:
        assert everything(connection) == b""


def test_empty_lines_do_not_keep_a_connection_open(hasty_port: int) -> None:
    with connected(hasty_port) as connection:
        connection.sendall(GET)
        assert response(connection)[0] == 200
        assert not dripped(b"\r\n" * 40, connection, pause_s=0.05)


def test_a_second_head_on_a_connection_has_its_own_time(hasty_port: int) -> None:
    with connected(hasty_port) as connection:
        for _ in range(3):
            connection.sendall(GET)
            assert response(connection)[0] == 200
            time.sleep(0.2)
        dripped(GET[:-1], connection, pause_s=0.02)
        assert problem_in(everything(connection))["code"] == "head_timeout"


def test_a_body_may_take_longer_than_a_head(hasty_port: int) -> None:
    with connected(hasty_port) as connection:
        connection.sendall(posted(20))
        assert dripped(b"x" * 20, connection, pause_s=0.05)
        assert json.loads(response(connection)[2])["length"] == 20


@pytest.mark.parametrize("head", [b"GET / HTTP/1.1\r\nCookie: ", b"GET /", b"GET / HTTP/1.1\r\nX"])
def test_a_head_without_an_end_is_refused(port: int, head: bytes) -> None:
    with connected(port) as connection:
        connection.sendall(head)
        sent = poured((b"a" * 10_000 for _ in range(2_000)), connection)
        data = everything(connection)
    assert sent < 10 * MEGABYTE  # as much as fits between the two; the parser got one part of it
    assert problem_in(data)["code"] == "head_too_large"


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nCookie: " + b"a" * 65_536 + b"\r\n\r\n",
        b"GET /" + b"a" * 65_536 + b" HTTP/1.1\r\n\r\n",
        with_fields(101),
    ],
)
def test_a_head_that_is_too_large_is_refused_even_when_it_comes_at_once(port: int, head: bytes) -> None:
    with connected(port) as connection:
        connection.sendall(head)
        data = everything(connection)
    assert data.startswith(b"HTTP/1.1 431 Request Header Fields Too Large\r\n")
    assert problem_in(data)["code"] == "head_too_large"


def test_a_head_within_the_bounds_is_taken(port: int) -> None:
    with connected(port) as connection:
        connection.sendall(b"GET /" + b"a" * 60_000 + b" HTTP/1.1\r\n\r\n")
        assert json.loads(response(connection)[2])["path"] == 60_001
        connection.sendall(with_fields(100))
        assert len(json.loads(response(connection)[2])["headers"]) == 100


@pytest.mark.parametrize(
    "head",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/9.9\r\n\r\n",
        b"NONSENSE / HTTP/1.1\r\n\r\n",
        b"GET /caf\xc3\xa9 HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nNo colon\r\n\r\n",
        b"CONNECT example.org:443 HTTP/1.1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        CHUNKED + b"zz\r\n",
    ],
)
def test_what_is_not_http_gets_a_problem(port: int, head: bytes) -> None:
    with connected(port) as connection:
        connection.sendall(head)
        assert problem_in(everything(connection))["code"] == "malformed_request"


def test_header_fields_after_a_body_change_nothing(port: int) -> None:
    with connected(port) as connection:
        connection.sendall(CHUNKED + b"3\r\nabc\r\n0\r\nAuthorization: Bearer x\r\nOrigin: null\r\n\r\n")
        told = json.loads(response(connection)[2])
    assert told == {"headers": ["host", "transfer-encoding"], "length": 3, "path": 1}


@pytest.mark.parametrize("part", [b"3;", b"3\r\nabc\r\n0\r\nX: "])
def test_what_is_neither_head_nor_body_is_bounded_too(port: int, part: bytes) -> None:
    with connected(port) as connection:
        connection.sendall(CHUNKED + part)
        assert poured((b"a" * 10_000 for _ in range(2_000)), connection) < 10 * MEGABYTE
        everything(connection)


def test_requests_that_are_sent_ahead_are_answered_in_order(port: int) -> None:
    with connected(port) as connection:
        connection.sendall(posted(3) + b"abc" + GET + posted(2) + b"de" + GET.replace(b"\r\n\r\n", CLOSE))
        bodies = [part.partition(b"\r\n\r\n")[2] for part in everything(connection).split(b"HTTP/1.1 200 OK")[1:]]
    assert [json.loads(body)["length"] for body in bodies] == [3, 0, 2, 0]


def test_an_answer_under_way_is_not_cut_by_a_next_head_that_is_late() -> None:
    async def slow(_scope: Scope, _receive: Receive, send: Send) -> None:
        await asyncio.sleep(1.0)
        await send_text(send, 200, "done")

    with listening(slow, Hasty) as port, connected(port) as connection:
        connection.sendall(GET + GET[:5])
        assert response(connection)[2] == b"done"
        assert problem_in(everything(connection))["code"] == "head_timeout"


def test_an_offer_of_another_protocol_is_passed_over(port: int) -> None:
    offer = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    with connected(port) as connection:
        for _ in range(2):
            connection.sendall(offer)
            assert response(connection)[0] == 200


def test_a_connection_is_used_again_when_the_rest_of_an_unread_body_comes_soon() -> None:
    with listening(refuse, Hasty) as port, connected(port) as connection:
        for _ in range(2):
            connection.sendall(posted(20) + b"x" * 10)
            assert response(connection)[0] == 403
            connection.sendall(b"x" * 10)


def test_the_rest_of_an_unread_body_is_not_waited_for_long() -> None:
    with listening(refuse, Hasty) as port, connected(port) as connection:
        connection.sendall(posted(1_000))
        assert response(connection)[0] == 403
        started = time.monotonic()
        assert not dripped(b"x" * 1_000, connection, pause_s=0.05)
        assert time.monotonic() - started < 3


def test_a_client_that_still_sends_can_read_why_it_was_refused() -> None:
    with listening(refuse) as port, connected(port) as connection:
        connection.sendall(posted(50 * MEGABYTE) + b"x" * 20 * MEGABYTE)
        assert response(connection)[0] == 403


def test_a_client_that_takes_nothing_of_its_answer_is_given_up() -> None:
    ended = threading.Event()

    async def endless(_scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        leaving = asyncio.create_task(receive())
        while not leaving.done():
            await send({"type": "http.response.body", "body": b"x" * 100_000, "more_body": True})
            await asyncio.sleep(0)
        ended.set()

    with listening(endless, Hasty) as port, connected(port) as connection:
        connection.sendall(GET)
        assert ended.wait(5.0)


def test_a_client_that_takes_its_answer_slowly_gets_all_of_it() -> None:
    size = 20 * MEGABYTE

    class Watching(HeadLimitProtocol):
        stalled_s = 1.0

    async def large(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send_text(send, 200, "x" * size)

    with listening(large, Watching) as port, connected(port) as connection:
        connection.sendall(GET)
        received = 0
        while received < size:
            received += len(connection.recv(400_000))
            time.sleep(0.03)


@pytest.mark.parametrize(("workers", "pauses"), [(1, 0), (2, 3)])
def test_one_of_several_workers_lets_others_take_a_connection_while_it_has_some(workers: int, pauses: int) -> None:
    noted: list[HeadLimitProtocol] = []

    class Noting(HeadLimitProtocol):
        @property
        def yielding_s(self) -> float:  # type: ignore[override]
            noted.append(self)
            return 0.0

    with listening(echo, Noting, workers=workers) as port, ExitStack() as connections:
        for _ in range(4):
            connection = connections.enter_context(connected(port))
            connection.sendall(GET)
            assert connection.recv(12) == b"HTTP/1.1 200"
    assert len(noted) == pauses
