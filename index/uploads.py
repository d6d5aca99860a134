"""Uploads: documents put over HTTP, which stand beside the folders that are synced.

    HOME/
      uploads/
        3f9c0d…           the bytes of a document as they came; never changed
        .part-3f9c0d…     being received
      state.sqlite        the table `uploads`: which document each file is

A document is put, replaced or deleted by a change. Changes are planned into a source that is synced like any other,
and made permanent once the generation with them was published: a generation that fails changes nothing, and what was
published before a crash is made permanent when the same changes are planned again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import secrets
import sqlite3
import time
import unicodedata
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from index.documents import HALF_SURROGATE, Document, MetadataValue
from index.errors import DocumentError, StateError
from index.generations import sync_folder
from index.manifest import SourceRecord
from index.readers.formats import FORMATS
from index.readers.worker import ReaderPool, Reading
from index.sources import Rejected, Source, Unchanged, document_from
from index.state import STATE, State

logger = logging.getLogger(__name__)

UPLOADS = "uploads"  # key of the source, which no folder can have: theirs are absolute paths
MAX_ID_CHARS = 512
PARTIAL_PREFIX = ".part-"
PARTIAL_AGE_S = 3_600.0  # after which nobody is still sending it

TABLE = """
CREATE TABLE IF NOT EXISTS uploads (
    doc_id TEXT PRIMARY KEY,
    file TEXT NOT NULL UNIQUE,  -- name below HOME/uploads
    name TEXT NOT NULL,         -- which the format may be told from
    sha256 TEXT NOT NULL,
    size INTEGER NOT NULL,
    title TEXT,                 -- NULL: from the document itself, as are uri and what metadata does not name
    uri TEXT,
    metadata TEXT NOT NULL,     -- JSON object
    put_at TEXT NOT NULL        -- UTC, ISO 8601
)
"""
COLUMNS = "doc_id, file, name, sha256, size, title, uri, metadata, put_at"
INSERT = f"INSERT INTO uploads ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 (constants)


@dataclass(frozen=True)
class Upload:
    """A document that was put.

    Attributes:
        doc_id: see `check_doc_id`.
        file: name of the file with its bytes, which belongs to this upload alone.
        name: which the format may be told from, such as `guide/intro.md`.
        sha256: hexadecimal digest of the bytes.
        size: in bytes.
        title: given with it; None for the document's own.
        uri: given with it, an http(s) address; None for the document's own.
        metadata: given with it; replaces values of the same name in the document.
        put_at: UTC, ISO 8601.
    """

    doc_id: str
    file: str
    name: str
    sha256: str
    size: int
    title: str | None = None
    uri: str | None = None
    metadata: Mapping[str, MetadataValue] = field(default_factory=dict)
    put_at: str = ""


@dataclass(frozen=True)
class Removal:
    """A document that is to go."""

    doc_id: str


Change = Upload | Removal


@dataclass(frozen=True)
class RefusedUpload(Rejected):
    """An upload that is no document; the one before it stays.

    Attributes:
        file: of the upload.
    """

    file: str


@dataclass(frozen=True)
class UploadClash(Rejected):
    """An upload whose id a document of another source has."""


class Incoming:
    """A file being received.

    Args:
        folder: of the uploads, in a home that is there; made when it is not.

    Attributes:
        file: its name, once it is kept.
        size: bytes received so far.

    Raises:
        StateError: it cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        self.file = secrets.token_hex(16)
        self.size = 0
        self._path = folder / (PARTIAL_PREFIX + self.file)
        self._digest = hashlib.sha256()
        try:
            if not folder.exists():
                folder.mkdir(mode=0o700, exist_ok=True)
                sync_folder(folder.parent)
            self._stream = self._path.open("xb", buffering=0)
        except OSError as exc:
            raise _not_stored(exc) from exc

    def write(self, data: bytes) -> None:
        """Add bytes.

        Raises:
            StateError: there is no room for them.
        """
        try:
            view = memoryview(data)
            while view:  # a disk may take a part of it
                view = view[self._stream.write(view) :]
        except OSError as exc:
            raise _not_stored(exc) from exc
        self._digest.update(data)
        self.size += len(data)

    def finish(self) -> str:
        """Flush it to disk and close it; return the SHA-256 of what was received.

        Raises:
            StateError: it cannot be flushed.
        """
        try:
            os.fsync(self._stream.fileno())
            self._stream.close()
        except OSError as exc:
            raise _not_stored(exc) from exc
        return self._digest.hexdigest()

    def discard(self) -> None:
        """Remove it, unless it was kept."""
        with suppress(OSError):
            self._stream.close()
        try:
            self._path.unlink(missing_ok=True)
        except OSError as exc:
            # No reason to fail what was done with the others: it is swept when it is old.
            logger.warning("%s could not be removed: %s", self._path, exc)


class Uploads:
    """The documents put over HTTP; its methods may be called from any thread.

    Args:
        home: folder of the home.
        state: of that home.
    """

    def __init__(self, home: Path, state: State) -> None:
        self.folder = home / UPLOADS
        self._state = state
        state.create(TABLE)

    def receive(self) -> Incoming:
        """Begin to receive a file.

        Raises:
            StateError: it cannot be made.
        """
        return Incoming(self.folder)

    def keep(self, uploads: Iterable[Upload]) -> None:
        """Make received files stay; to be called in the transaction that writes down what they are for.

        Raises:
            StateError: the folder cannot be written.
        """
        try:
            for upload in uploads:
                (self.folder / (PARTIAL_PREFIX + upload.file)).rename(self.folder / upload.file)
            sync_folder(self.folder)
        except OSError as exc:
            raise _not_stored(exc) from exc

    def find(self, doc_id: str) -> Upload | None:
        """Return the upload that a document is, None when it is none."""
        with self._state.reading() as connection:
            row = connection.execute(f"SELECT {COLUMNS} FROM uploads WHERE doc_id = ?", (doc_id,)).fetchone()  # noqa: S608
        return None if row is None else _upload(row)

    def path(self, upload: Upload) -> Path:
        """Return the file with the bytes of an upload."""
        return self.folder / upload.file

    def planned(self, changes: Sequence[Change] = ()) -> PlannedUploads:
        """Return the uploads as they will be after changes, as a source to sync."""
        rows = self._rows()
        tries = {upload.doc_id: (upload,) for upload in rows}
        for change in changes:
            before = tries.get(change.doc_id, ())
            tries[change.doc_id] = (change, *before) if isinstance(change, Upload) else ()
        settled = {upload.file for upload in rows} - {change.file for change in changes if isinstance(change, Upload)}
        return PlannedUploads(self.folder, tries, frozenset(settled))

    def apply(self, changes: Iterable[Change], *, refused: Container[str] = ()) -> None:
        """Make changes permanent, after the generation with them was published; may be repeated.

        Args:
            changes: that were planned.
            refused: files of uploads that are no documents; see `refusals`.
        """
        taken = [change for change in changes if isinstance(change, Removal) or change.file not in refused]
        last = {change.doc_id: change for change in taken}
        with self._state.transaction() as connection:
            for doc_id, change in last.items():
                connection.execute("DELETE FROM uploads WHERE doc_id = ?", (doc_id,))
                if isinstance(change, Upload):
                    connection.execute(INSERT, _row(change))

    def restore(self, stored: PlannedUploads) -> None:
        """Replace all uploads by others, whose files are taken from their folder.

        Raises:
            StateError: the home cannot be written; nothing was changed.
        """
        uploads = [upload for (upload,) in stored.tries.values()]
        with self._state.transaction() as connection:
            self.folder.mkdir(mode=0o700, exist_ok=True)
            for path in stored.folder.glob("*"):
                sync_folder(path)
                path.rename(self.folder / path.name)
            sync_folder(self.folder)
            connection.execute("DELETE FROM uploads")
            connection.executemany(INSERT, map(_row, uploads))

    def sweep(self, *, needed: frozenset[str]) -> None:
        """Remove files that belong to no document; to be called in a transaction, so that none is kept meanwhile.

        Args:
            needed: names of files that are to be documents.
        """
        stored = needed | {upload.file for upload in self._rows()}
        doomed = [path for path in self._files() if path.name not in stored and not _is_being_sent(path)]
        for path in doomed:
            path.unlink(missing_ok=True)
        if doomed:
            sync_folder(self.folder)

    def _rows(self) -> list[Upload]:
        with self._state.reading() as connection:
            rows = connection.execute(f"SELECT {COLUMNS} FROM uploads ORDER BY doc_id").fetchall()  # noqa: S608
        return [_upload(row) for row in rows]

    def _files(self) -> list[Path]:
        try:
            return [path for path in self.folder.iterdir() if path.is_file()]
        except FileNotFoundError:
            return []


@dataclass(frozen=True)
class PlannedUploads:
    """Uploads as a source.

    Attributes:
        folder: of their files.
        tries: doc_id -> its uploads, newest first; where one is refused, the one before it is the document.
        settled: files of those that are in the index as they are, if their bytes are.
    """

    folder: Path
    tries: Mapping[str, Sequence[Upload]]
    settled: frozenset[str]
    key: str = UPLOADS
    prefix: str = ""
    is_bundled: bool = False

    def read(self, known: Mapping[str, str]) -> Iterator[Document | Unchanged | Rejected]:
        """Yield the documents, and what cannot be one."""
        to_read = []
        for uploads in self.tries.values():
            if uploads and self._is_unchanged(uploads[0], known):
                yield Unchanged(uploads[0].doc_id)
            elif uploads:
                to_read.append(uploads)
        with ReaderPool() as pool:

            def outcomes(uploads: Sequence[Upload]) -> list[Document | Unchanged | Rejected]:
                return list(self._outcomes(uploads, pool, known))

            for found in pool.map(outcomes, to_read):
                yield from found

    def _is_unchanged(self, upload: Upload, known: Mapping[str, str]) -> bool:
        return upload.file in self.settled and known.get(upload.doc_id) == upload.sha256

    def _outcomes(
        self, uploads: Sequence[Upload], pool: ReaderPool, known: Mapping[str, str]
    ) -> Iterator[Document | Unchanged | Rejected]:
        for upload in uploads:
            if self._is_unchanged(upload, known):
                yield Unchanged(upload.doc_id)
                return
            try:
                yield _document(upload, pool.read(self.folder / upload.file, upload.name))
                return
            except DocumentError as exc:
                yield RefusedUpload(upload.doc_id, str(exc), upload.file)


def stored_uploads(home: Path) -> PlannedUploads:
    """Return the uploads of a home as they are, as a source; none where nothing was ever put.

    Raises:
        StateError: the state of the home cannot be read.
    """
    if not (home / STATE).exists():
        return PlannedUploads(home / UPLOADS, {}, frozenset())
    with State(home) as state:
        return Uploads(home, state).planned()


def known_source(home: Path, record: SourceRecord) -> Source | PlannedUploads:
    """Return the source that a generation of a home knows, to read from."""
    return stored_uploads(home) if record.path == UPLOADS else record.source()


def refusals(changes: Iterable[Change], rejected: Iterable[Rejected]) -> dict[str, str]:
    """Tell which changes a sync refused.

    Args:
        changes: that were planned.
        rejected: from the report of the sync.

    Returns:
        file of the upload -> why it is no document.
    """
    refused: dict[str, str] = {}
    clashing: dict[str, str] = {}
    for each in rejected:
        if isinstance(each, RefusedUpload):
            refused[each.file] = each.reason
        elif isinstance(each, UploadClash):
            clashing[each.path] = each.reason
    for change in changes:
        if isinstance(change, Upload) and change.doc_id in clashing:
            refused.setdefault(change.file, clashing[change.doc_id])
    return refused


def check_doc_id(doc_id: str) -> None:
    """Check an id that a document is to be put under.

    Raises:
        DocumentError: it is empty, too long, or no path without detours.
    """
    if not 1 <= len(doc_id) <= MAX_ID_CHARS:
        raise DocumentError(f"The id has {len(doc_id)} characters. Give it 1 to {MAX_ID_CHARS}.")
    if "\\" in doc_id or HALF_SURROGATE.search(doc_id) or any(map(_is_control, doc_id)):
        raise DocumentError(f"The id {doc_id!a} has a backslash or a character that is not text. Leave it out.")
    if not {"", ".", ".."}.isdisjoint(doc_id.split("/")):
        raise DocumentError(f"The id {doc_id!r} has an empty part, or one of dots. Write it like guide/intro.md")


def name_for(doc_id: str, *, filename: str = "", media_type: str = "") -> str:
    """Return a name from which the format of a document can be told.

    Args:
        doc_id: whose suffix says it, if it is a known one.
        filename: else its suffix does.
        media_type: else this does.
    """
    known = {suffix for form in FORMATS for suffix in form.suffixes}
    for name in (doc_id, filename):
        if PurePosixPath(name).suffix.lower() in known:
            return name
    form = next((form for form in FORMATS if form.media_type == media_type), None)
    return doc_id if form is None else doc_id + form.suffixes[0]


def _document(upload: Upload, reading: Reading) -> Document:
    """Make a document of what was read, described as it was when it was put."""
    content = reading.content
    described = replace(
        content, title=upload.title or content.title, metadata={**content.metadata, **upload.metadata}
    )
    document = document_from(upload.doc_id, replace(reading, content=described))
    return document if upload.uri is None else replace(document, uri=upload.uri)


def _upload(row: sqlite3.Row) -> Upload:
    return Upload(**{**dict(row), "metadata": json.loads(row["metadata"])})


def _row(upload: Upload) -> tuple[str | int | None, ...]:
    return (
        upload.doc_id,
        upload.file,
        upload.name,
        upload.sha256,
        upload.size,
        upload.title,
        upload.uri,
        json.dumps(dict(upload.metadata), ensure_ascii=False),
        upload.put_at,
    )


def _is_control(character: str) -> bool:
    return unicodedata.category(character) == "Cc"


def _is_being_sent(path: Path) -> bool:
    try:
        return path.name.startswith(PARTIAL_PREFIX) and time.time() - path.stat().st_mtime < PARTIAL_AGE_S
    except FileNotFoundError:  # it has been kept or discarded in this moment
        return True


def _not_stored(error: OSError) -> StateError:
    return StateError(
        f"The document cannot be stored: {error.strerror or error}. Nothing of it was kept. Make room or check the "
        "permissions of the home, then send it again."
    )
