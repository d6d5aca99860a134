"""A Milvus server for tests: one that is started here, or a user's own.

    MILVUS_LITE   folder of a virtual environment with milvus-lite==2.5.1, from which a server is started
    MILVUS_URI    http://[USER:PASSWORD@]HOST:PORT of a server that is there; it is left running, and cleaned up

Tests that need one are skipped when neither is set.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import pytest

from index.milvus.address import Address, parse_address
from index.milvus.server import Server

START_S = 60.0
LITE, OWN = os.environ.get("MILVUS_LITE", ""), os.environ.get("MILVUS_URI", "")

needs_milvus = pytest.mark.skipif(not LITE and not OWN, reason="neither MILVUS_LITE nor MILVUS_URI is set")
needs_own_process = pytest.mark.skipif(not LITE, reason="MILVUS_LITE is not set: no server can be killed")


class MilvusServer:
    """A server in a process of its own, with its data in a folder."""

    def __init__(self, folder: Path) -> None:
        self._data = folder / "milvus.db"
        with closing(socket.create_server(("127.0.0.1", 0))) as free:
            self.port = free.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def url(self, collection: str) -> str:
        """Return the address of a store."""
        return f"milvus://127.0.0.1:{self.port}/{collection}"

    def start(self) -> None:
        """Start it, also again over the data that it had; returns when it can be reached."""
        (library,) = Path(LITE).glob("lib/python3.*/site-packages/milvus_lite/lib")
        self._process = subprocess.Popen(
            [library / "milvus", self._data, f"127.0.0.1:{self.port}", "ERROR"],
            env={**os.environ, "LD_LIBRARY_PATH": str(library)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + START_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except OSError:
                assert time.monotonic() < deadline and self._process.poll() is None, "Milvus does not start"
                time.sleep(0.05)

    def kill(self) -> None:
        """End it as a power cut would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


class OwnServer:
    """A server that is there already; what tests write is dropped at the end."""

    def __init__(self) -> None:
        self._place = urlsplit(OWN).netloc
        self._prefix = f"whence_test_{uuid4().hex[:8]}"

    def url(self, collection: str) -> str:
        """Return the address of a store."""
        return f"milvus://{self._place}/{self._prefix}_{collection}"

    def clean(self) -> None:
        """Drop what the tests wrote."""
        with closing(Server(self._address)) as server:
            for name in server.collections():
                if name.startswith(self._prefix):
                    server.drop(name)

    @property
    def _address(self) -> Address:
        return parse_address(self.url("any"))


def running_milvus(folder: Path) -> Iterator[MilvusServer | OwnServer]:
    """Give a server, and end it or clean it up."""
    if OWN:
        own = OwnServer()
        yield own
        own.clean()
    else:
        server = MilvusServer(folder)
        try:
            yield server
        finally:
            server.kill()
