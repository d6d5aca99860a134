"""A server that cannot be reached, or a library that is missing, is an error that says what to do."""

from __future__ import annotations

import socket
import sys
from contextlib import closing

import pytest

from index.errors import StoreError
from index.milvus import server
from index.milvus.address import parse_address
from index.milvus.server import Server
from service.problems import Problem


def test_without_its_library_the_command_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    with pytest.raises(StoreError, match=r"Install it: pip install 'whence\[milvus\]'"):
        Server(parse_address("milvus://localhost/docs")).collections()


def test_a_server_that_is_not_there_is_named_without_the_password(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pymilvus")
    monkeypatch.setattr(server, "CONNECT_S", 0.5)
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    with pytest.raises(StoreError) as refusal:
        Server(parse_address(f"milvus://reader:geheim@127.0.0.1:{port}/docs")).collections()
    assert str(refusal.value).startswith(f"milvus://127.0.0.1:{port}/docs does not do what it is asked: ")
    assert "geheim" not in str(refusal.value)
    problem = Problem.of(refusal.value)
    assert (problem.status, problem.code, problem.headers["Retry-After"]) == (503, "index_unavailable", "1")
