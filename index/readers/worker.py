"""Reading untrusted files in a process of its own, which can be killed.

A reader works on bytes that anyone may have written, with libraries in C. So files are read in a child process
with bounded memory and time: one that hangs or crashes costs its own file and no other.

Parent and child speak over the child's standard input and output: a message is JSON in UTF-8 after its length
in four bytes.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import select
import signal
import struct
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Any, BinaryIO, Self, TypeVar, cast

from index.cpus import usable_cpus
from index.documents import Block, BlockKind, Content
from index.errors import DocumentError
from index.readers.files import open_file
from index.readers.limits import Limits

PROCESSES = min(2, usable_cpus())

_ROOT = Path(__file__).parents[2]  # the folder that holds the package, installed or not
_MAX_SPANS = 1_000_000  # blocks, items and rows of one file; the parent has to hold them
_LENGTH = struct.Struct(">I")
_CHUNK = 1 << 20
_NICENESS = 5  # questions are answered first
_RETIRING_SHARE = 0.4  # of the memory; a child that holds on to more makes room for a fresh one
_KILLING_S = 0.02  # between attempts to end children, one of which may only just be starting
_GRACE_S = 5  # an orphaned child ends this long after its time is up

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Reading:
    """What was made of one file.

    Attributes:
        format: the name of its format.
        media_type: of its bytes, as detected.
        sha256: hexadecimal digest of the bytes that were read.
        size: of those bytes.
        content: their text and blocks.
    """

    format: str
    media_type: str
    sha256: str
    size: int
    content: Content


class ReaderProcess:
    """One child process that reads files one after another; it starts with the first.

    For use by one thread at a time. Use it as a context manager, or call `close`.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def read(self, path: Path, name: str) -> Reading:
        """Read a file.

        Args:
            path: absolute; must be a regular file and no link.
            name: which the format may be told from, such as `guide/intro.md`.

        Raises:
            DocumentError: the file cannot be read, took too long, or brought its reader down. The next
                file is read all the same.
        """
        child = self._running()
        deadline = time.monotonic() + self._limits.seconds
        try:
            _send(cast(BinaryIO, child.stdin), {"path": str(path), "name": name})
            answer = _Inbox(cast(BinaryIO, child.stdout).fileno(), deadline).receive()
        except TimeoutError as exc:
            self.close()
            raise DocumentError(
                f"took longer than {self._limits.seconds:g} s to read; split it or save it in another format"
            ) from exc
        except (EOFError, OSError) as exc:
            cause = self._cause_of_death()
            raise DocumentError(f"brought its reader down ({cause}); it may be damaged: save it anew") from exc
        if answer["is_last"]:
            self.close()
        if "error" in answer:
            raise DocumentError(answer["error"])
        return _decoded(answer["reading"])

    def kill(self) -> None:
        """End the child while another thread may be waiting for its answer; that `read` raises."""
        child = self._child
        if child is not None:
            child.kill()

    def close(self) -> None:
        """End the child, whatever it is doing; a later `read` starts another."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            for stream in (child.stdin, child.stdout):
                with suppress(OSError):  # an unsent request is of no use any more
                    cast(BinaryIO, stream).close()
            child.wait()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._child is not None and self._child.poll() is not None:
            self.close()
        return self._child if self._child is not None else self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "index.readers.worker", json.dumps(asdict(self._limits))]
        self._child = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            command,
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
        )
        return self._child

    def _cause_of_death(self) -> str:
        child = self._child
        if child is not None:
            with suppress(subprocess.TimeoutExpired):
                child.wait(timeout=_GRACE_S)  # its pipe closes before it has ended of itself
        self.close()
        code = child.returncode if child is not None else 0
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"


class ReaderPool:
    """Several reader processes; its methods may be called from any thread."""

    def __init__(self, limits: Limits | None = None, *, processes: int = PROCESSES) -> None:
        self._readers = [ReaderProcess(limits) for _ in range(max(1, processes))]
        self._free: SimpleQueue[ReaderProcess] = SimpleQueue()
        for reader in self._readers:
            self._free.put(reader)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for reader in self._readers:
            reader.close()

    def read(self, path: Path, name: str) -> Reading:
        """Read a file in the next free process; as `ReaderProcess.read`."""
        reader = self._free.get()
        try:
            return reader.read(path, name)
        finally:
            self._free.put(reader)

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """Apply a function that calls `read` to many items, as many at a time as there are processes.

        Results come in the order of the items, which are taken only a few ahead of the one yielded.
        """
        ahead = 2 * len(self._readers)
        pending: deque[Future[R]] = deque()
        with ThreadPoolExecutor(len(self._readers), thread_name_prefix="reader") as executor:
            try:
                for item in items:
                    pending.append(executor.submit(function, item))
                    if len(pending) > ahead:
                        yield _first(pending)
                while pending:
                    yield _first(pending)
            finally:
                under_way = [future for future in pending if not future.cancel()]
                while wait(under_way, timeout=_KILLING_S).not_done:  # given up half-way: nothing is read to its end
                    for reader in self._readers:
                        reader.kill()


def _first(pending: deque[Future[R]]) -> R:
    result = pending[0].result()
    pending.popleft()
    return result


class _Inbox:
    """Receives messages from a descriptor, up to a deadline of the monotonic clock if there is one."""

    def __init__(self, descriptor: int, deadline: float | None = None) -> None:
        self._descriptor = descriptor
        self._deadline = deadline
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLIN)

    def receive(self) -> dict[str, Any]:
        """Return the next message.

        Raises:
            TimeoutError: the deadline has passed.
            EOFError: the other side is gone.
        """
        (length,) = _LENGTH.unpack(self._exactly(_LENGTH.size))
        message: dict[str, Any] = json.loads(self._exactly(length))
        return message

    def _exactly(self, size: int) -> bytes:
        received = bytearray()
        while len(received) < size:
            self._wait()
            piece = os.read(self._descriptor, min(_CHUNK, size - len(received)))
            if not piece:
                raise EOFError
            received += piece
        return bytes(received)

    def _wait(self) -> None:
        if self._deadline is None:
            return
        left = self._deadline - time.monotonic()
        if left <= 0 or not self._poll.poll(left * 1000):
            raise TimeoutError


def _send(stream: BinaryIO, message: Mapping[str, Any]) -> None:
    # A path may hold bytes that are no text; they travel as escaped surrogates.
    data = json.dumps(message, ensure_ascii="path" in message, separators=(",", ":")).encode()
    stream.write(_LENGTH.pack(len(data)))
    stream.write(data)
    stream.flush()


def _encoded(reading: Reading) -> dict[str, Any]:
    content = reading.content
    blocks = [
        [
            block.kind.value,
            block.start,
            block.end,
            block.level,
            block.title,
            block.page,
            block.parts,
            block.header_rows,
            block.furniture,
        ]
        for block in content.blocks
    ]
    return {
        "format": reading.format,
        "media_type": reading.media_type,
        "sha256": reading.sha256,
        "size": reading.size,
        "text": content.text,
        "blocks": blocks,
        "title": content.title,
        "metadata": dict(content.metadata),
        "is_converted": content.is_converted,
    }


def _decoded(message: Mapping[str, Any]) -> Reading:
    content = Content(
        message["text"],
        tuple(_block(*fields) for fields in message["blocks"]),
        message["title"],
        message["metadata"],
        message["is_converted"],
    )
    return Reading(message["format"], message["media_type"], message["sha256"], message["size"], content)


def _block(kind: str, start: int, end: int, level: int, title: str, page: int | None, *rest: Any) -> Block:
    parts, header_rows, furniture = rest
    spans = tuple((first, last) for first, last in parts)
    return Block(BlockKind(kind), start, end, level, title, page, spans, header_rows, furniture)


def main() -> None:
    """Serve as the child: answer one request after another until the parent is gone."""
    limits = Limits(**json.loads(sys.argv[1]))
    requests, answers = _take_over_pipes()
    _confine(limits)
    with os.fdopen(requests, "rb", buffering=0), os.fdopen(answers, "wb") as stream:
        inbox, is_last = _Inbox(requests), False
        while not is_last:
            try:
                request = inbox.receive()
            except EOFError:
                return
            answer = _answer(Path(request["path"]), request["name"], limits)
            is_last = answer.setdefault("is_last", _is_bloated(limits))
            _send(stream, answer)


def _take_over_pipes() -> tuple[int, int]:
    """Return the pipes to the parent, out of reach of libraries that read or print."""
    requests, answers = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    os.close(nothing)
    return requests, answers


def _confine(limits: Limits) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (limits.memory_bytes, limits.memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(_NICENESS)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupted parent ends its children itself
    signal.signal(signal.SIGALRM, signal.SIG_DFL)


def _answer(path: Path, name: str, limits: Limits) -> dict[str, Any]:
    signal.alarm(int(limits.seconds) + _GRACE_S)  # the end of a child whose parent was killed while waiting
    try:
        return {"reading": _encoded(_read(path, name, limits))}
    except DocumentError as exc:
        return {"error": str(exc)}
    except MemoryError:
        memory = f"{limits.memory_bytes:,} bytes of memory"
        return {"error": f"needs more than {memory} to read; split it into smaller files", "is_last": True}
    except RecursionError:
        return {"error": "is nested too deeply to read; simplify it or save it as text"}
    except Exception as exc:  # the edge of the process: a bug met by one file must not cost the others
        return {"error": f"cannot be read: {type(exc).__name__}: {exc}; save it in another format"}
    finally:
        signal.alarm(0)


def _read(path: Path, name: str, limits: Limits) -> Reading:
    from index.readers.formats import read  # late, so that the child is there at once

    with open_file(path, limits) as file:
        data = file.read(limits.source_bytes)
    found, content = read(data, name, limits)
    spans = sum(1 + len(block.parts) for block in content.blocks)
    if spans > _MAX_SPANS:
        raise DocumentError(
            f"has {spans:,} rows, items and blocks, more than {_MAX_SPANS:,}; split it into smaller files"
        )
    return Reading(found.name, found.media_type, hashlib.sha256(data).hexdigest(), len(data), content)


def _is_bloated(limits: Limits) -> bool:
    # The peak that the system reports would include that of the parent at the time of the start.
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    return resident > _RETIRING_SHARE * limits.memory_bytes


if __name__ == "__main__":
    main()
