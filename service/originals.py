"""The original bytes of documents, given out only if they are the ones that were indexed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import closing
from io import BufferedReader
from pathlib import Path

from index.corpus import DocumentRecord
from index.errors import DocumentError
from index.manifest import SourceRecord
from index.readers.files import open_file
from index.readers.limits import Limits
from index.sources import find_file
from index.uploads import UPLOADS, Uploads
from service.problems import Problem

CHUNK_BYTES = 1 << 18


def original(record: DocumentRecord, source: SourceRecord, uploads: Uploads) -> Iterator[bytes]:
    """Return the bytes of the file that a document was made of.

    Args:
        record: of the document.
        source: that it came from.
        uploads: of the home.

    Raises:
        Problem: the file is gone, or is not the one that was indexed.
    """
    path = _path(record, source, uploads)
    try:
        file = None if path is None else open_file(path, Limits())
    except DocumentError as exc:
        raise _changed(record) from exc
    if file is None or hashlib.file_digest(file, "sha256").hexdigest() != record.sha256:
        if file is not None:
            file.close()
        raise _changed(record)
    return _checked(file, record)


def _path(record: DocumentRecord, source: SourceRecord, uploads: Uploads) -> Path | None:
    if source.path == UPLOADS:
        upload = uploads.find(record.doc_id)
        return None if upload is None else uploads.path(upload)
    try:
        return find_file(source.source(), record.doc_id)
    except OSError:
        return None


def _checked(file: BufferedReader, record: DocumentRecord) -> Iterator[bytes]:
    """Read a file, and hold its last bytes back if it was changed since it was looked at."""
    digest, held = hashlib.sha256(), b""
    with closing(file):
        file.seek(0)
        while data := file.read(CHUNK_BYTES):
            digest.update(data)
            yield held
            held = data
    if digest.hexdigest() != record.sha256:
        raise RuntimeError(f"{record.doc_id} was changed while it was being sent")
    yield held


def _changed(record: DocumentRecord) -> Problem:
    return Problem(
        "original_changed",
        f"The file of {record.doc_id} is gone, or is not the one that was indexed any more. Its text as it was "
        "indexed can still be had; a sync takes in the new file.",
    )
