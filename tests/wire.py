"""HTTP at the level of bytes: any ASGI application in a thread, and connections that behave as they like."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn import Config, Server
from waiting import until

from service.protocol import HeadLimitProtocol

PATIENCE_S = 10.0
GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


@contextmanager
def listening(
    app: ASGIApp, protocol: type[HeadLimitProtocol] = HeadLimitProtocol, *, root_path: str = "", workers: int = 1
) -> Iterator[int]:
    """Serve an application, as one of so many workers; gives its port on 127.0.0.1."""
    config = Config(
        app,
        port=0,
        loop="uvloop",
        http=protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        root_path=root_path,
        workers=workers,
        timeout_graceful_shutdown=1,
    )
    server = Server(config)
    thread = threading.Thread(target=server.run, name="wire")
    thread.start()
    try:
        until(lambda: server.started or not thread.is_alive())
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(timeout=PATIENCE_S)


@contextmanager
def connected(port: int) -> Iterator[socket.socket]:
    """Open a connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as connection:
        yield connection


def dripped(data: bytes, connection: socket.socket, *, pause_s: float) -> bool:
    """Send byte after byte; tells whether all of it could be sent."""
    for place in range(len(data)):
        try:
            connection.sendall(data[place : place + 1])
        except ConnectionError:
            return False
        time.sleep(pause_s)
    return True


def poured(parts: Iterable[bytes], connection: socket.socket) -> int:
    """Send parts until the other side has closed; returns how many bytes went out."""
    sent = 0
    for part in parts:
        try:
            connection.sendall(part)
        except ConnectionError:
            break
        sent += len(part)
    return sent


def everything(connection: socket.socket) -> bytes:
    """Read until the other side closes."""
    data = b""
    try:
        while part := connection.recv(65_536):
            data += part
    except ConnectionError:
        pass
    return data


def response(connection: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """Read one response with a length: its status, headers and body."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = connection.recv(65_536)
        assert part, f"closed after {data!r}"
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    status, headers = parsed_head(head)
    while len(body) < int(headers["content-length"]):
        body += connection.recv(65_536)
    return status, headers, body


def problem_in(data: bytes) -> dict[str, Any]:
    """Parse a response that is a problem; checks that its status is the one of the head."""
    head, _, body = data.partition(b"\r\n\r\n")
    status, headers = parsed_head(head)
    problem: dict[str, Any] = json.loads(body)
    assert headers["content-type"] == "application/problem+json"
    assert problem["status"] == status
    assert problem["request_id"] == headers["x-request-id"]
    return problem


def parsed_head(head: bytes) -> tuple[int, dict[str, str]]:
    """Parse the status and the headers of a response."""
    status_line, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    return int(status_line.split()[1]), headers


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that reads a body, and answers with the names of the headers and the body's length."""
    length = 0
    while True:
        message = await receive()
        length += len(message.get("body", b""))
        if not message.get("more_body", False):
            break
    names = [name.decode() for name, _ in scope["headers"]]
    await send_text(send, 200, json.dumps({"headers": names, "length": length, "path": len(scope["path"])}))


async def refuse(_scope: Scope, _receive: Receive, send: Send) -> None:
    """An application that answers without reading."""
    await send_text(send, 403, "no")


async def send_text(send: Send, status: int, text: str) -> None:
    """Send a whole response."""
    headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(text)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})
