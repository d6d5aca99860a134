"""Sources: the folders and files that are synced, and the documents read from them."""

from __future__ import annotations

import hashlib
import os
import stat
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from index.documents import Content, Document
from index.errors import DocumentError, SourceError
from index.readers.files import open_file, unreadable
from index.readers.limits import Limits
from index.readers.worker import PROCESSES, ReaderPool, ReaderProcess, Reading

if TYPE_CHECKING:  # what reads no folder has no use for it
    from pathspec import GitIgnoreSpec

IGNORE_FILE = ".whenceignore"
MAX_DEPTH = 100  # of folders in folders
# An index may be kept inside a folder that is synced; it is not a part of what it indexes.
HOME_MARKS = {"generations", "writer.lock"}
ADDRESS_KEYS = ("url", "uri", "source_url")  # of metadata, in order of precedence

_SPECIAL = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


@dataclass(frozen=True)
class Source:
    """A folder or file that is synced into the index.

    Attributes:
        path: absolute.
        prefix: put before every `doc_id`, so that two sources do not clash.
        is_bundled: whether it came with the program and gives way to the user's own sources.
    """

    path: Path
    prefix: str = ""
    is_bundled: bool = False

    @property
    def key(self) -> str:
        """What tells it from other sources."""
        return str(self.path)

    def root(self) -> Path:
        """Return where it is, links followed.

        Raises:
            SourceError: there is nothing at its path.
        """
        try:
            return self.path.resolve(strict=True)
        except (OSError, RuntimeError) as exc:
            reason = "there is no such file or folder"
            if not isinstance(exc, FileNotFoundError):
                reason = f"it cannot be reached ({getattr(exc, 'strerror', None) or exc})"
            raise SourceError(
                f"No source at {self.path}: {reason}. Nothing was changed. Check the path; "
                "if an indexed source is gone for good, drop it: whence index --remove PATH"
            ) from exc

    def read(self, known: Mapping[str, str]) -> Iterator[Document | Rejected | Unchanged]:
        """Yield its documents, and what cannot be one; see `read_source`."""
        return read_source(self, known=known)


@dataclass(frozen=True)
class Rejected:
    """A file, folder or link that could not be read.

    Attributes:
        path: as a `doc_id`, in printable form.
        reason: what was wrong and what to do, to be read after the path.
    """

    path: str
    reason: str


@dataclass(frozen=True)
class Unchanged:
    """A document whose bytes are those already known."""

    doc_id: str


@dataclass(frozen=True)
class SourceFile:
    """A file to read: where its bytes are, following links, and what it is called."""

    path: Path
    doc_id: str


def read_source(
    source: Source,
    *,
    limits: Limits | None = None,
    known: Mapping[str, str] | None = None,
    processes: int = PROCESSES,
) -> Iterator[Document | Rejected | Unchanged]:
    """Read every document of a source, in the order of their paths.

    Args:
        source: hidden files and folders in it are left out, and what its `.whenceignore` files name.
        limits: on each file.
        known: `doc_id` -> SHA-256 of the bytes already indexed; such files are not read again.
        processes: in which files are read at the same time.

    Raises:
        SourceError: there is nothing at its path.
    """
    limits = limits or Limits()
    with ReaderPool(limits, processes=processes) as pool:

        def outcome(found: SourceFile | Rejected) -> Document | Rejected | Unchanged:
            if isinstance(found, Rejected):
                return found
            return compared(found, known or {}, limits) or read_file(found, pool)

        yield from pool.map(outcome, source_files(source))


def list_documents(source: Source) -> list[str]:
    """Return the `doc_id` of every file that `read_source` would try to read, without opening any.

    Raises:
        SourceError: there is nothing at its path.
    """
    return [found.doc_id for found in source_files(source) if isinstance(found, SourceFile)]


def find_file(source: Source, doc_id: str) -> Path | None:
    """Return the file of a document within a source, None when it has none; never one outside the source.

    Raises:
        OSError: it cannot be looked at.
    """
    root = source.path.resolve()
    if not doc_id.startswith(source.prefix):
        return None
    relative = doc_id.removeprefix(source.prefix)
    if root.is_file():
        return root if relative == source.path.name else None
    path = (root / relative).resolve()
    return path if path.is_relative_to(root) and path.is_file() else None


def document_from(doc_id: str, reading: Reading) -> Document:
    """Give what was read an identity.

    Raises:
        DocumentError: it holds no text.
    """
    content = reading.content
    if not content.blocks:
        is_pdf = reading.media_type == "application/pdf"
        advice = "if it is scanned, put it through text recognition first" if is_pdf else "leave it out or fill it"
        raise DocumentError(f"holds no text; {advice}")
    return Document(
        doc_id,
        content.title or doc_id.rpartition("/")[2],
        reading.media_type,
        reading.sha256,
        reading.size,
        content,
        uri=_address(content),
    )


def compared(file: SourceFile, known: Mapping[str, str], limits: Limits) -> Unchanged | Rejected | None:
    """Compare a file with what is known of it; None when it is new or was changed, and has to be read.

    Args:
        file: whose bytes are digested if it is known.
        known: `doc_id` -> SHA-256 of the bytes already indexed.
        limits: on the file.
    """
    try:
        is_same = file.doc_id in known and digest_of_file(file.path, limits) == known[file.doc_id]
    except DocumentError as exc:
        return Rejected(file.doc_id, str(exc))
    return Unchanged(file.doc_id) if is_same else None


def read_file(file: SourceFile, reader: ReaderPool | ReaderProcess) -> Document | Rejected:
    """Read a file that was found in a source."""
    try:
        return document_from(file.doc_id, reader.read(file.path, file.doc_id))
    except DocumentError as exc:
        return Rejected(file.doc_id, str(exc))


def digest_of_file(path: Path, limits: Limits) -> str:
    """Digest a file without holding it in memory.

    Raises:
        DocumentError: it cannot be opened.
    """
    with open_file(path, limits) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _address(content: Content) -> str | None:
    values = (content.metadata.get(key) for key in ADDRESS_KEYS)
    addresses = (value for value in values if isinstance(value, str))
    return next((value for value in addresses if value.startswith(("http://", "https://"))), None)


def source_files(source: Source) -> Iterator[SourceFile | Rejected]:
    """Find the files of a source, in the order of their paths, without opening any.

    Raises:
        SourceError: there is nothing at its path.
    """
    root = source.root()
    if root.is_dir():
        return _Walk(root, source.prefix).folder(root, "", ())
    return iter([_file(root, source.prefix + source.path.name)])


def _file(path: Path, doc_id: str) -> SourceFile | Rejected:
    """Tell a file that can be read from everything else that has a name."""
    printable = doc_id.encode("utf-8", "backslashreplace").decode()
    if printable != doc_id:
        return Rejected(printable, "has a name that is not valid UTF-8; rename it")
    if any(unicodedata.category(character) == "Cc" for character in doc_id):
        return Rejected(ascii(doc_id)[1:-1], "has a name with control characters; rename it")
    try:
        kind = stat.S_IFMT(path.stat().st_mode)
    except OSError as exc:
        return Rejected(doc_id, str(unreadable(exc)))
    if kind != stat.S_IFREG:
        return Rejected(doc_id, f"is {_SPECIAL.get(kind, 'no file')}; only files with text can be added")
    return SourceFile(path, doc_id)


@dataclass(frozen=True)
class _Ignore:
    """The patterns of one ignore file, which apply to what is below its folder.

    Attributes:
        folder: relative to the root, empty or ending in `/`.
        patterns: with the meaning they have for git.
    """

    folder: str
    patterns: GitIgnoreSpec

    def verdict(self, name: str) -> bool | None:
        """Tell whether a path is ignored (True), taken back in (False), or not mentioned (None)."""
        return self.patterns.check_file(name.removeprefix(self.folder)).include


class _Walk:
    """Finds the files below a folder, following no link out of it and none in a circle."""

    def __init__(self, root: Path, prefix: str) -> None:
        self._root = root
        self._prefix = prefix
        self._linked: set[Path] = set()

    def folder(self, path: Path, relative: str, ignores: tuple[_Ignore, ...]) -> Iterator[SourceFile | Rejected]:
        """Yield what is in a folder and below it; `relative` is empty or ends in `/`."""
        if relative.count("/") > MAX_DEPTH:
            yield self._rejected(relative, f"is nested more than {MAX_DEPTH} folders deep; move it up")
            return
        try:
            with os.scandir(path) as scan:
                entries = sorted(scan, key=_order)
            ignores += tuple(self._ignores_in(path, relative))
        except OSError as exc:
            yield self._rejected(relative, str(unreadable(exc)))
            return
        if {entry.name for entry in entries} >= HOME_MARKS:
            return
        for entry in entries:
            if not entry.name.startswith("."):
                yield from self._entry(entry, relative + entry.name, ignores)

    def _entry(
        self, entry: os.DirEntry[str], name: str, ignores: tuple[_Ignore, ...]
    ) -> Iterator[SourceFile | Rejected]:
        if _is_ignored(name + "/" if _is_folder(entry) else name, ignores):
            return
        if entry.is_symlink():
            yield from self._link(Path(entry.path), name, ignores)
        elif entry.is_dir(follow_symlinks=False):
            yield from self.folder(Path(entry.path), name + "/", ignores)
        else:
            yield _file(Path(entry.path), self._prefix + name)

    def _link(self, link: Path, name: str, ignores: tuple[_Ignore, ...]) -> Iterator[SourceFile | Rejected]:
        try:
            target = link.resolve(strict=True)
        except (OSError, RuntimeError):
            yield self._rejected(name, "is a link that leads nowhere; remove it or mend it")
            return
        if not target.is_relative_to(self._root):
            yield self._rejected(name, "is a link out of its source; copy what it leads to, or add that as a source")
        elif not target.is_dir():
            yield _file(target, self._prefix + name)
        elif link.parent.is_relative_to(target) or target in self._linked:
            yield self._rejected(name, "is a link to a folder that is read already; remove it")
        else:
            self._linked.add(target)
            yield from self.folder(target, name + "/", ignores)

    def _ignores_in(self, path: Path, relative: str) -> Iterator[_Ignore]:
        file = path / IGNORE_FILE
        if file.is_file():
            from pathspec import GitIgnoreSpec

            lines = file.read_text("utf-8", errors="replace").splitlines()
            try:
                yield _Ignore(relative, GitIgnoreSpec.from_lines(lines))
            except ValueError as exc:
                raise SourceError(f"{file} has a pattern that makes no sense: {exc}. Correct it") from exc

    def _rejected(self, name: str, reason: str) -> Rejected:
        return Rejected((self._prefix + name).encode("utf-8", "backslashreplace").decode(), reason)


def _order(entry: os.DirEntry[str]) -> str:
    """Sort a folder among files as the paths of what it holds are sorted."""
    return entry.name + "/" if _is_folder(entry) else entry.name


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_ignored(name: str, ignores: tuple[_Ignore, ...]) -> bool:
    """Tell whether the nearest ignore file that mentions a path leaves it out."""
    verdicts = (ignore.verdict(name) for ignore in reversed(ignores))
    return next((verdict for verdict in verdicts if verdict is not None), False)
