"""The result of a batch on its way to the disk: parts that are checked, so that a run that was stopped can go on.

    ANSWERS.partial         the parts, one after another
    ANSWERS.journal         a line for the run, then one for each part: counts, size, SHA-256
    ANSWERS.manifest.json   beside the finished file: generation, model, settings, counts, digests

A part is flushed to the disk before the journal says that it is there. When a run goes on every part is checked, and
what stands after the last good one is cut off. The finished file takes its name by a rename: whatever stops a run,
under that name is a whole file, the one that was there before, or none.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from index.errors import WhenceError
from index.generations import UnconfirmedError, put_in_place, sync_folder, unconfirmed
from index.models import sha256_of
from service.display import checked_output

logger = logging.getLogger(__name__)

Identity = dict[str, Any]  # all that decides a result, as JSON has it

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Counts:
    """How many rows there are, and what became of them."""

    rows: int = 0
    answered: int = 0
    unanswered: int = 0
    failed: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.rows + other.rows,
            self.answered + other.answered,
            self.unanswered + other.unanswered,
            self.failed + other.failed,
        )


@dataclass(frozen=True)
class Part:
    """A part of the result as the journal knows it.

    Attributes:
        counts: of its rows.
        size: in bytes.
        sha256: of its bytes.
    """

    counts: Counts
    size: int
    sha256: str

    @classmethod
    def from_json(cls, line: bytes) -> Part:
        """Parse a line of a journal."""
        record: dict[str, Any] = json.loads(line)
        return cls(Counts(**record["counts"]), record["size"], record["sha256"])


class Target(Protocol):
    """Where the answers of a run go.

    Attributes:
        counts: of the rows that are there.
        is_empty: whether nothing is there.
    """

    counts: Counts
    is_empty: bool

    def finished(self, identity: Identity) -> str | None:
        """Return the manifest of a run if its result is there, whole."""

    def begin(self, identity: Identity, *, restart: bool, can_go_on: bool) -> None:
        """Begin a run, or go on with it where it was stopped."""

    def append(self, data: bytes, counts: Counts) -> None:
        """Keep a part."""

    def finish(
        self, manifest: Callable[[int, str], str], *, convert: Callable[[Path, Path], None] | None = None
    ) -> str:
        """End the run, and return its manifest."""


class OutputStream:
    """Standard output, a pipe or a device: what was written is gone, so that no run can go on there.

    Args:
        path: None for standard output.

    Raises:
        WhenceError: it cannot be opened.
    """

    def __init__(self, path: Path | None) -> None:
        self.counts = Counts()
        self.is_empty = True
        self._path = path
        self._size, self._digest = 0, hashlib.sha256()
        with self._errors():
            self._stream = sys.stdout.buffer if path is None else path.open("wb", buffering=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._path is not None:
            self._stream.close()

    def finished(self, identity: Identity) -> None:
        """Return None: nothing is there."""

    def begin(self, identity: Identity, *, restart: bool, can_go_on: bool) -> None:
        """Nothing has to be prepared."""

    def append(self, data: bytes, counts: Counts) -> None:
        """Write a part.

        Raises:
            WhenceError: it cannot be written; a closed pipe stays a `BrokenPipeError`.
        """
        view = memoryview(data)
        with self._errors():
            while view:
                view = view[self._stream.write(view) :]
            self._stream.flush()
        self._size += len(data)
        self._digest.update(data)
        self.counts += counts
        self.is_empty = False

    def finish(
        self, manifest: Callable[[int, str], str], *, convert: Callable[[Path, Path], None] | None = None
    ) -> str:
        """Return the manifest, which is written nowhere."""
        return manifest(self._size, self._digest.hexdigest())

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            with checked_output() if self._path is None else nullcontext():
                yield
        except BrokenPipeError:
            raise
        except OSError as exc:
            raise WhenceError(f"{self._path} cannot be written: {exc.strerror or exc}.") from exc


class Journal:
    """The unfinished result of a run. No other process can have it at the same time.

    Args:
        path: of the result. Nothing is changed there before `finish`.

    Attributes:
        counts: of the rows that are kept.
        is_empty: whether no part is kept.

    Raises:
        WhenceError: the folder cannot be written, or another process has this result.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._partial_path = path.with_name(f"{path.name}.partial")
        self._journal_path = path.with_name(f"{path.name}.journal")
        self._manifest_path = path.with_name(f"{path.name}.manifest.json")
        self.counts = Counts()
        self.is_empty = True
        self._can_go_on: bool | None = None  # of this run, which has not begun
        self._is_removed = False
        with self._errors():
            self._journal = self._lock()
            self._partial = _open(self._partial_path)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        has_begun, is_new = self._can_go_on is not None, not os.fstat(self._journal).st_size
        if not self._is_removed and (is_new or (has_begun and (self.is_empty or not self._can_go_on))):
            self._remove()
        os.close(self._journal)
        os.close(self._partial)

    def finished(self, identity: Identity) -> str | None:
        """Return the manifest of a run if its result is there, whole; what is left of its making is then removed.

        Raises:
            WhenceError: a file cannot be read.
        """
        with self._errors():
            try:
                text = self._manifest_path.read_text(encoding="utf-8")
                manifest = json.loads(text)
                output = manifest["output"]
                is_whole = self._path.stat().st_size == output["size"] and sha256_of(self._path) == output["sha256"]
            except (FileNotFoundError, ValueError, KeyError, TypeError):
                return None
            if not is_whole or {name: manifest.get(name) for name in identity} != identity:
                return None
            if self._begun() == identity:
                self._remove()
            return text

    def begin(self, identity: Identity, *, restart: bool, can_go_on: bool) -> None:
        """Begin a run, or go on with it where it was stopped.

        Args:
            identity: of the run.
            restart: whether to start over, whatever there is.
            can_go_on: whether a run with this identity is sure to be the same; if not it is begun anew, and nothing
                is left of it when it is stopped.

        Raises:
            WhenceError: there is a result of another run, finished or not, or nothing can be written.
        """
        with self._errors():
            begun = None if restart else self._begun()
            if begun is not None and begun != identity:
                raise WhenceError(self._refusal(begun, identity))
            if begun is None and self._path.exists() and not restart:
                raise WhenceError(
                    f"{self._path} is there already, and is not what this command would write. Name another file, "
                    "or have it replaced when all answers are there: --restart"
                )
            if begun is None or not can_go_on:
                self._start(identity)
            else:
                self._go_on()
            self._can_go_on = can_go_on

    def append(self, data: bytes, counts: Counts) -> None:
        """Keep a part; when this returns it is on the disk.

        Raises:
            WhenceError: there is no room, for instance; the parts before it are kept.
        """
        part = Part(counts, len(data), hashlib.sha256(data).hexdigest())
        with self._errors():
            _write(self._partial, data)
            _write(self._journal, _line(asdict(part)))
        self._count(part)

    def finish(
        self, manifest: Callable[[int, str], str], *, convert: Callable[[Path, Path], None] | None = None
    ) -> str:
        """Give the result its name.

        Args:
            manifest: gives the text of the manifest for size and SHA-256 of the result.
            convert: makes the result, the second path, of the parts, the first one; None when they are the result.

        Returns:
            The text of the manifest.

        Raises:
            WhenceError: there is no room, for instance; all parts are kept.
        """
        with self._errors():
            whole = self._partial_path
            if convert is not None:
                whole = self._path.with_name(f"{self._path.name}.whole")
                try:
                    convert(self._partial_path, whole)
                    sync_folder(whole)
                except BaseException:
                    whole.unlink(missing_ok=True)
                    raise
            text = manifest(whole.stat().st_size, sha256_of(whole))
            self._write_manifest(text)
            put_in_place(whole, self._path)
            self._remove()
            return text

    def _lock(self) -> int:
        """Open the journal, for this process alone as long as it lives."""
        while True:
            journal = _open(self._journal_path)
            try:
                fcntl.flock(journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.fstat(journal), self._journal_path.stat()):
                    return journal
            except BlockingIOError as exc:
                os.close(journal)
                raise WhenceError(
                    f"Another process is writing {self._path}. Wait for it, or name another file."
                ) from exc
            except FileNotFoundError:
                pass
            os.close(journal)  # removed by a run that finished in this moment

    def _begun(self) -> Identity | None:
        """Return the identity of the run that the journal is of, None when there is none."""
        first, end, _ = _content(self._journal).partition(b"\n")
        try:
            identity: Identity | None = json.loads(first)["run"] if end else None
        except (ValueError, KeyError, TypeError):
            return None
        return identity

    def _start(self, identity: Identity) -> None:
        os.ftruncate(self._journal, 0)
        os.ftruncate(self._partial, 0)
        _write(self._journal, _line({"run": identity}))
        sync_folder(self._path.parent)

    def _go_on(self) -> None:
        """Check the parts, and cut off what stands after the last good one."""
        lines = _content(self._journal).splitlines(keepends=True)
        journal_size, partial_size = len(lines[0]), 0
        for line in lines[1:]:
            part = _whole_part(line)
            if part is None or _sha256(self._partial, partial_size, part.size) != part.sha256:
                break
            self._count(part)
            journal_size += len(line)
            partial_size += part.size
        os.ftruncate(self._partial, partial_size)
        os.ftruncate(self._journal, journal_size)

    def _count(self, part: Part) -> None:
        self.counts += part.counts
        self.is_empty = False

    def _write_manifest(self, text: str) -> None:
        beside = self._manifest_path.with_name(f"{self._manifest_path.name}.new")
        beside.write_text(text, encoding="utf-8")
        sync_folder(beside)
        beside.replace(self._manifest_path)

    def _remove(self) -> None:
        for path in (self._partial_path, self._journal_path):
            try:
                path.unlink(missing_ok=True)
            except OSError as exc:
                # The result is there all the same; the next run of this command tries again.
                logger.warning("%s could not be removed: %s", path, exc)
        self._is_removed = True

    def _refusal(self, begun: Identity, identity: Identity) -> str:
        was, now = dict(_flat(begun)), dict(_flat(identity))
        changed = [name for name in now | was if was.get(name) != now.get(name)]
        listed = "; ".join(f"{name} was {was.get(name)!r}, is {now.get(name)!r}" for name in changed)
        return (
            f"{self._path} was begun by another run: {listed}. Go on as it was begun (an earlier generation comes "
            "back with whence rollback NAME), or start over: --restart"
        )

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except UnconfirmedError as exc:
            raise WhenceError(unconfirmed(self._path, exc)) from exc
        except OSError as exc:
            kept = f"The answers to {self.counts.rows:,} rows are kept. " if self.counts.rows else ""
            raise WhenceError(
                f"{self._path} cannot be written: {exc.strerror or exc}. {kept}Make room or check the permissions, "
                "then run the same command again."
            ) from exc


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)


def _whole_part(line: bytes) -> Part | None:
    """Parse a line of a journal; None for one that was being written when the run was stopped."""
    try:
        return Part.from_json(line) if line.endswith(b"\n") else None
    except (ValueError, KeyError, TypeError):
        return None


def _content(descriptor: int) -> bytes:
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0)


def _sha256(descriptor: int, start: int, size: int) -> str:
    """Return the digest of a span of a file, as far as it goes."""
    digest = hashlib.sha256()
    while size > 0 and (data := os.pread(descriptor, min(size, _CHUNK), start)):
        digest.update(data)
        start, size = start + len(data), size - len(data)
    return digest.hexdigest()


def _write(descriptor: int, data: bytes) -> None:
    """Append to a file, and flush it to the disk."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
    os.fsync(descriptor)


def _line(record: Mapping[str, Any]) -> bytes:
    return json.dumps(record, ensure_ascii=False).encode() + b"\n"


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, each in value.items():
            yield from _flat(each, f"{prefix}.{name}" if prefix else name)
    else:
        yield prefix, value
