"""The pipeline that makes a generation: files -> documents -> chunks -> embeddings -> generation."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

from index.chunks import TARGET_TOKENS
from index.documents import Document
from index.draft import Draft, NoProgress, Progress
from index.embeddings import Encoder
from index.engines import DocumentSource, Engine, LocalEngine, SplitDocument
from index.errors import DamagedGenerationError, NoGenerationError, SourceError
from index.generations import KEEP_GENERATIONS, Generation, Home, write_error
from index.manifest import Manifest, SourceRecord
from index.onnx_export import EXPORT_FORMAT
from index.sources import Rejected, Unchanged
from index.terms import ANALYSIS_VERSION
from index.uploads import UPLOADS, UploadClash, known_source, stored_uploads

logger = logging.getLogger(__name__)

# Raised when readers, chunking or what is embedded change, so that documents are taken in anew.
MAKING_VERSION = 1


@dataclass(frozen=True)
class BuildSettings:
    """How a generation is made.

    Attributes:
        target_tokens: see `index.chunks.split`.
        keep_generations: how many to keep, the new one included.
        wait_s: how long to wait for another writer.
        allow_empty: whether a source that had documents may have none now.
    """

    target_tokens: int = TARGET_TOKENS
    keep_generations: int = KEEP_GENERATIONS
    wait_s: float = 10.0
    allow_empty: bool = False

    def making(self) -> dict[str, str | int]:
        """Return what decides text, chunks and, beside the model, embeddings, for the manifest."""
        return {
            "version": MAKING_VERSION,
            "target_tokens": self.target_tokens,
            "terms": ANALYSIS_VERSION,
            "export": EXPORT_FORMAT,
        }


@dataclass(frozen=True)
class SyncReport:
    """What a sync did.

    Attributes:
        generation: the published generation's name, new or as before.
        is_new: whether anything changed and a generation was written.
        added, changed, removed: ids of documents.
        unchanged: how many documents stayed as they were.
        rejected: what could not be read, with the reason.
        encoded: how many chunks were embedded; the others kept their embedding.
        documents, chunks, sentences: counts of the generation.
        pruned: names of generations that were removed.
    """

    generation: str
    is_new: bool
    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]
    unchanged: int
    rejected: tuple[Rejected, ...]
    encoded: int
    documents: int
    chunks: int
    sentences: int
    pruned: tuple[str, ...] = ()


def sync(
    home: Home,
    sources: Sequence[DocumentSource],
    encoder: Encoder,
    *,
    remove: Sequence[str] = (),
    settings: BuildSettings | None = None,
    progress: Progress | None = None,
    engine: Engine | None = None,
) -> SyncReport:
    """Bring a home up to date with its sources, in a new generation.

    Sources that the home knows and that are not named here keep their documents; so do uploads. Documents that are
    unchanged keep their chunks, and chunks that are unchanged their embeddings.

    Args:
        home: where the generation is published.
        sources: to read.
        encoder: of the model; another one than the home's makes everything anew, from all known sources.
        remove: keys of sources whose documents are to go.
        settings: how to make it.
        progress: told of each stage.
        engine: who reads and encodes; None for this process. It decides nothing of what comes out.

    Raises:
        SourceError: a source is missing, cannot be read, has no documents, or two have a document of the same id.
        GenerationError: the home cannot be written, another process is writing, or what was written is damaged.
    """
    settings, progress = settings or BuildSettings(), progress or NoProgress()
    progress.start("Opening the index", None)
    with home.writer(wait_s=settings.wait_s), home.building_folder() as folder:
        parent, known = _open_parent(home)
        try:
            with closing(_Sync(home, parent, known, folder, encoder, settings, progress, engine)) as run:
                return run.run(sources, remove)
        except (OSError, sqlite3.OperationalError) as exc:
            # Not from reading a source, see `_items`.
            raise write_error(home.path, exc) from exc
        finally:
            if parent is not None:
                parent.close()


def _open_parent(home: Home) -> tuple[Generation | None, tuple[SourceRecord, ...]]:
    """Open the generation to start from, None when there is no whole one, and tell the sources that are known."""
    try:
        parent = home.open_current()
    except NoGenerationError:
        return None, _with_uploads(home, ())
    except DamagedGenerationError as exc:
        logger.warning("%s The sources are read anew.", exc)
        return None, _with_uploads(home, _sources_of_damaged(home))
    return parent, parent.manifest.sources


def _sources_of_damaged(home: Home) -> tuple[SourceRecord, ...]:
    manifest = home.known_manifest()
    if manifest is not None:
        return manifest.sources
    logger.warning(
        "%s: no manifest is readable, so the sources indexed before are not known any more. Name them all: "
        "whence index PATH PATH",
        home.path,
    )
    return ()


def _with_uploads(home: Home, records: tuple[SourceRecord, ...]) -> tuple[SourceRecord, ...]:
    """Add the uploads, which the state of the home knows even where no generation does."""
    is_known = any(record.path == UPLOADS for record in records)
    return records if is_known or not stored_uploads(home.path).tries else (*records, SourceRecord(UPLOADS))


@dataclass
class _Changes:
    """What reading the sources found, beside the documents themselves."""

    added: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)


class _Sync:
    """One run of the pipeline."""

    def __init__(
        self,
        home: Home,
        parent: Generation | None,
        known: Sequence[SourceRecord],
        folder: Path,
        encoder: Encoder,
        settings: BuildSettings,
        progress: Progress,
        engine: Engine | None,
    ) -> None:
        self._home = home
        self._parent = parent
        self._known_sources = {record.path: record for record in known}
        self._settings = settings
        self._progress = progress
        self._changes = _Changes()
        is_reusable = parent is not None and (
            parent.manifest.model == encoder.identity and parent.manifest.making == settings.making()
        )
        self._reusable = parent if is_reusable else None
        self._engine = engine or LocalEngine(encoder)
        self._draft = Draft(
            folder,
            encoder,
            self._reusable,
            target_tokens=settings.target_tokens,
            progress=progress,
            engine=self._engine,
        )

    def run(self, sources: Sequence[DocumentSource], remove: Sequence[str]) -> SyncReport:
        """Read, write, check and publish."""
        staying = self._staying(sources, remove)
        if self._reusable is None:
            # Nothing can be taken over, so the sources that stay have to be read, too.
            sources = [*sources, *(known_source(self._home.path, record) for record in staying)]
        else:
            self._keep_documents_of(staying, self._reusable)
        for source in sorted(sources, key=_is_uploads):  # these last: an id belongs to a folder first
            self._read(source)
        removed, records = self._removed(), _records(staying, sources)
        if self._reusable is not None and self._is_as_before(self._reusable.manifest, removed, records):
            return self._report(self._reusable.manifest, removed, is_new=False, pruned=self._prune())
        if not len(self._draft) and not self._settings.allow_empty and not any(map(_is_uploads, sources)):
            raise SourceError(_no_documents(sources, self._changes.rejected))
        encoded = self._draft.write()
        manifest = self._draft.publish(
            self._home,
            parent=None if self._parent is None else self._parent.name,
            making=self._settings.making(),
            sources=records,
        )
        if self._parent is None:
            # Only now: until then, the manifest of a damaged generation is what knows the sources.
            self._home.set_aside_damaged()
        return self._report(manifest, removed, is_new=True, encoded=encoded, pruned=self._prune())

    def close(self) -> None:
        """Close the draft."""
        self._draft.close()

    def _staying(self, sources: Sequence[DocumentSource], remove: Sequence[str]) -> list[SourceRecord]:
        """Return the known sources that are neither synced now nor dropped."""
        named = {*remove, *(source.key for source in sources)}
        has_own = any(not source.is_bundled and not _is_uploads(source) for source in sources)
        return [
            record
            for record in self._known_sources.values()
            if record.path not in named and not (record.is_bundled and has_own)
        ]

    def _keep_documents_of(self, staying: Sequence[SourceRecord], parent: Generation) -> None:
        for record in staying:
            for document in parent.corpus.documents(source=record.path):
                self._draft.keep(document.doc_id, source=record.path)

    def _prune(self) -> list[str]:
        return self._home.prune(self._settings.keep_generations)

    def _read(self, source: DocumentSource) -> None:
        known = self._known(source)
        found, rejected = 0, []
        self._progress.start(f"Reading {source.key}", None)
        for item in _items(self._engine, source, known if self._reusable is not None else {}):
            self._progress.advance(1)
            if isinstance(item, Rejected):
                rejected.append(item)
                continue
            found += 1
            self._take(item, source, known)
        self._changes.rejected.extend(rejected)
        if not found and not self._settings.allow_empty and not _is_uploads(source):
            self._refuse_empty(source, rejected)

    def _refuse_empty(self, source: DocumentSource, rejected: Sequence[Rejected]) -> None:
        """Raise an error for a source without documents, unless it is known and had none before either."""
        record = self._known_sources.get(source.key)
        if record is None:
            raise SourceError(_no_documents([source], rejected))
        if record.documents:
            raise SourceError(
                f"{source.key} had {record.documents} documents and has none now. Nothing was changed. If they are "
                "really gone, say so: --allow-empty"
            )

    def _take(
        self, item: Document | SplitDocument | Unchanged, source: DocumentSource, known: Mapping[str, str]
    ) -> None:
        chunks = None
        if isinstance(item, SplitDocument):
            chunks, item = item.chunks, item.document
        other = self._draft.owner(item.doc_id)
        if other is not None and _is_uploads(source) and item.doc_id not in known:
            self._changes.rejected.append(_clash(item.doc_id, other))
            return
        if other is not None:
            raise SourceError(
                f"{source.key} and {other} both have a document {item.doc_id!r}. Nothing was changed. Give one of "
                "them a prefix of its own: whence index PATH --prefix NAME/"
            )
        if isinstance(item, Unchanged):
            self._draft.keep(item.doc_id, source=source.key)
            return
        self._draft.add(item, source=source.key, chunks=chunks)
        if item.doc_id not in known:
            self._changes.added.append(item.doc_id)
        elif known[item.doc_id] != item.sha256 or self._is_described_otherwise(item):
            self._changes.changed.append(item.doc_id)

    def _is_described_otherwise(self, document: Document) -> bool:
        """Tell whether a document of the same bytes as in the parent has another title, address or metadata."""
        record = None if self._parent is None else self._parent.corpus.document(document.doc_id)
        return record is None or (
            (record.title, record.uri, record.media_type, dict(record.metadata))
            != (document.title, document.uri, document.media_type, dict(document.content.metadata))
        )

    def _known(self, source: DocumentSource) -> dict[str, str]:
        if self._parent is None:
            return {}
        documents = self._parent.corpus.documents(source=source.key)
        return {document.doc_id: document.sha256 for document in documents}

    def _removed(self) -> list[str]:
        if self._parent is None:
            return []
        documents = self._parent.corpus.documents()
        return [document.doc_id for document in documents if document.doc_id not in self._draft]

    def _is_as_before(self, manifest: Manifest, removed: Sequence[str], records: Sequence[SourceRecord]) -> bool:
        has_changes = bool(self._changes.added or self._changes.changed or removed)
        return not has_changes and list(records) == [_without_count(record) for record in manifest.sources]

    def _report(
        self,
        manifest: Manifest,
        removed: Sequence[str],
        *,
        is_new: bool,
        encoded: int = 0,
        pruned: Sequence[str] = (),
    ) -> SyncReport:
        changes = self._changes
        return SyncReport(
            generation=manifest.name,
            is_new=is_new,
            added=tuple(changes.added),
            changed=tuple(changes.changed),
            removed=tuple(removed),
            unchanged=len(self._draft) - len(changes.added) - len(changes.changed),
            rejected=tuple(changes.rejected),
            encoded=encoded,
            documents=manifest.documents,
            chunks=manifest.chunks,
            sentences=manifest.sentences,
            pruned=tuple(pruned),
        )


def _items(
    engine: Engine, source: DocumentSource, known: Mapping[str, str]
) -> Iterator[Document | SplitDocument | Unchanged | Rejected]:
    """Read a source, with what fails while reading told apart from what fails while writing."""
    try:
        yield from engine.read(source, known)
    except OSError as exc:
        raise SourceError(
            f"{source.key} cannot be read: {exc.strerror or exc}. Nothing was changed. Check it, then run the "
            "command again."
        ) from exc


def _is_uploads(source: DocumentSource) -> bool:
    return source.key == UPLOADS


def _clash(doc_id: str, other: str) -> UploadClash:
    return UploadClash(
        doc_id, f"is the id of a document of {other}, which is changed there; put this one under another id"
    )


def _records(staying: Sequence[SourceRecord], sources: Sequence[DocumentSource]) -> list[SourceRecord]:
    read = [SourceRecord(source.key, source.prefix, is_bundled=source.is_bundled) for source in sources]
    records = {record.path: record for record in [*map(_without_count, staying), *read]}
    return sorted(records.values(), key=lambda record: record.path)


def _without_count(record: SourceRecord) -> SourceRecord:
    return replace(record, documents=0)


def _no_documents(sources: Sequence[DocumentSource], rejected: Sequence[Rejected]) -> str:
    where = ", ".join(source.key for source in sources)
    if not where:
        return (
            "The index would be left without documents. Nothing was changed. If that is meant, say so: --allow-empty"
        )
    if not rejected:
        return f"There is no document in {where}. Add some, or name another folder: whence index PATH"
    first = rejected[0]
    return (
        f"No document in {where} can be read; {len(rejected)} were rejected, the first of them: "
        f"{first.path}: {first.reason}"
    )
