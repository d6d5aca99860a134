"""Documents as they are now, for checking saved citations.

A document is read anew from its source, so that a citation is held against the file itself and not against what was
once indexed. Where there is no file any more, or no source, the document is gone. Only of a document that never was
a file, because its source is no path, the published generation's text is what there is.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Self

from index.citations import PresentText
from index.errors import CitationError, DocumentError, SourceError
from index.generations import Generation
from index.manifest import SourceRecord
from index.readers.worker import ReaderProcess
from index.sources import find_file, list_documents
from index.uploads import UPLOADS, stored_uploads


class PresentDocuments:
    """Finds documents by id; each is read once.

    Args:
        generation: whose sources are looked into.
    """

    def __init__(self, generation: Generation) -> None:
        self._generation = generation
        self._home = generation.folder.parents[1]
        self._reader = ReaderProcess()
        self._found: dict[str, PresentText | None] = {}
        self._lists: dict[str, frozenset[str]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reader.close()

    def text(self, doc_id: str) -> PresentText | None:
        """Return a document as it is now; None when it is gone."""
        if doc_id not in self._found:
            self._found[doc_id] = self._look_up(doc_id)
        return self._found[doc_id]

    def _look_up(self, doc_id: str) -> PresentText | None:
        record = self._generation.corpus.document(doc_id)
        for source in self._generation.manifest.sources:
            is_indexed = record is not None and record.source == source.path
            found = self._found_in(source, doc_id, is_indexed=is_indexed)
            if found is not None:
                return self._read(*found)
        if record is None or record.source == UPLOADS or Path(record.source).is_absolute():
            return None
        return PresentText(self._generation.corpus.text(record), record.sha256)

    def _found_in(self, source: SourceRecord, doc_id: str, *, is_indexed: bool) -> tuple[Path, str] | None:
        """Find the file of a document in a source, and a name that tells its format; None when it has none."""
        if source.path == UPLOADS:
            return self._uploaded.get(doc_id)
        if not Path(source.path).is_absolute():
            return None
        try:
            path = find_file(source.source(), doc_id) if is_indexed or doc_id in self._listed(source) else None
        except OSError as exc:
            raise CitationError(
                f"{doc_id} in {source.path} cannot be looked at ({exc.strerror}). Make it readable, then verify."
            ) from exc
        return None if path is None else (path, doc_id)

    @cached_property
    def _uploaded(self) -> dict[str, tuple[Path, str]]:
        uploads = stored_uploads(self._home)
        return {doc_id: (uploads.folder / upload.file, upload.name) for doc_id, (upload,) in uploads.tries.items()}

    def _listed(self, source: SourceRecord) -> frozenset[str]:
        """Return the ids that a sync would find, so that what it leaves out cannot be asked after."""
        if source.path not in self._lists:
            try:
                doc_ids = list_documents(source.source())
            except SourceError:
                doc_ids = []
            self._lists[source.path] = frozenset(doc_ids)
        return self._lists[source.path]

    def _read(self, path: Path, doc_id: str) -> PresentText:
        try:
            reading = self._reader.read(path, doc_id)
        except DocumentError:
            # The file is there, but not as a document: no quote can be found in it.
            return PresentText("", "")
        return PresentText(reading.content.text, reading.sha256)
