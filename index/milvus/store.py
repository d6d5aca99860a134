"""A store of generations in a Milvus server: publishing, opening, rolling back and pruning."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np

from index.draft import PROBE_SIMILARITY, PROBES, NoProgress, Progress
from index.errors import GenerationError, NoGenerationError, StoreError
from index.generations import ADAPTATION, KEEP_GENERATIONS, Generation
from index.manifest import MANIFEST, Manifest, record_files
from index.milvus.address import Address
from index.milvus.collections import NO_INDEX, NO_VECTOR, NOTHING, ROWS_AT_ONCE, Collections, generation_of
from index.milvus.generation import CENTROID, DOCUMENTS, LEXICAL, VOCABULARY, StoredGeneration
from index.milvus.rows import RECORD, SCORING, Scoring, pack_record, scorings, term_vector
from index.milvus.server import Row, Server


class MilvusStore:
    """A store; one process at a time may write to it, any number may read.

    Args:
        address: of the store.
        cache: folder for files of generations, which can be fetched again.
    """

    def __init__(self, address: Address, cache: Path) -> None:
        self.address = address
        self._server = Server(address)
        self._cache = cache / "stores" / hashlib.sha256(str(address).encode()).hexdigest()[:12]

    def close(self) -> None:
        """Close the connection."""
        self._server.close()

    def published_name(self) -> str | None:
        """Return the name of the published generation, None when there is none.

        Raises:
            StoreError: the server does not answer.
        """
        if not self._server.has_aliases():
            return self._noted()
        collection = self._server.alias(self.address.collection)
        return None if collection is None else generation_of(collection, within=self.address.collection)

    def open_current(self) -> StoredGeneration:
        """Open the published generation.

        Raises:
            NoGenerationError: nothing has been published.
            StoreError: the server does not answer, or has lost something.
        """
        name = self.published_name()
        if name is None:
            raise NoGenerationError(
                f"Nothing is published in {self.address}. Publish an index: whence index PATH --store {self.address}"
            )
        generation = StoredGeneration.open(self._collections(name), self._cache)
        self._forget_others()
        return generation

    def manifests(self) -> list[Manifest]:
        """Return the manifests of the generations that are whole, newest first."""
        manifests = [_manifest(self._collections(name)) for name in self._whole()]
        return sorted(manifests, key=lambda manifest: manifest.name, reverse=True)

    def publish(
        self, generation: Generation, *, keep: int = KEEP_GENERATIONS, progress: Progress | None = None
    ) -> None:
        """Write a generation beside those that are there, check it, and make it the published one in one step.

        Whatever stops this before, the one that was published goes on being so.

        Args:
            generation: of the home.
            keep: how many are kept, this one included.
            progress: told of each stage.

        Raises:
            StoreError: the server does not answer, or refuses.
        """
        progress = progress or NoProgress()
        name = generation.name
        whole = self._whole()
        self._sweep(whole)
        if name not in whole:
            self._write(generation, progress)
        if self.published_name() != name:
            progress.start("Checking the store", None)
            self._check(self._collections(name), generation)
            self._make_published(name)
        self._prune(keep)

    def roll_back(self, name: str | None = None) -> str:
        """Publish an earlier generation, or a later one again.

        Args:
            name: of the generation; None for the one before the published one.

        Returns:
            The name of the generation that is published now.

        Raises:
            GenerationError: there is no such generation.
        """
        names, published = self._whole(), self.published_name()
        if name is None:
            earlier = [other for other in names if published is not None and other < published]
            if not earlier:
                raise GenerationError(f"There is no generation before {published} in {self.address}.")
            name = max(earlier)
        if name not in names:
            raise GenerationError(
                f"There is no generation {name!r} in {self.address}. It has {', '.join(sorted(names)) or 'none'}."
            )
        StoredGeneration.open(self._collections(name), self._cache).close()
        self._make_published(name)
        return name

    def _write(self, generation: Generation, progress: Progress) -> None:
        """Write and check a generation; its manifest comes last, and says that it is whole."""
        collections = self._collections(generation.name)
        collections.create(generation.manifest.model.dimension)
        progress.start("Writing to the store", generation.manifest.chunks)
        rows = _rows(collections, generation)
        while batch := list(islice(rows, ROWS_AT_ONCE)):
            collections.write_parts([part for _, rest in batch for part in rest])
            self._server.write(collections.chunks, [row for row, _ in batch])
            progress.advance(len(batch))
        count = self._server.count(collections.chunks)
        if count != generation.manifest.chunks:
            raise StoreError(
                f"{self.address} took {generation.manifest.chunks:,} chunks and has {count:,}. "
                "Nothing was published. Run the command again."
            )
        self._write_files(collections, generation)

    def _write_files(self, collections: Collections, generation: Generation) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            generation.corpus.save_documents(folder / DOCUMENTS)
            np.save(folder / CENTROID, generation.centroid)
            copied = [f"{LEXICAL}/{name}.npy" for name in VOCABULARY]
            copied += [name for name in generation.manifest.files if name.startswith(f"{ADAPTATION}/")]
            for name in copied:
                (folder / name).parent.mkdir(exist_ok=True)
                shutil.copyfile(generation.folder / name, folder / name)
            manifest = replace(generation.manifest, files=record_files(folder))
            for name in manifest.files:
                collections.write_file(name, folder / name)
            (folder / MANIFEST).write_text(manifest.as_json(), encoding="utf-8")
            collections.write_file(MANIFEST, folder / MANIFEST)

    def _check(self, collections: Collections, generation: Generation) -> None:
        """Open what was written as a reader would; what is not as it was meant is dropped."""
        shutil.rmtree(self._cache / generation.name, ignore_errors=True)  # the server's files are to be checked
        with closing(StoredGeneration.open(collections, self._cache)) as written:
            fault = self._fault(collections, generation, written)
        if fault is not None:
            collections.drop()
            raise StoreError(f"In {self.address}, {fault}. Nothing was published. Run the command again.")

    def _fault(self, collections: Collections, generation: Generation, written: StoredGeneration) -> str | None:
        """Ask a few chunks for themselves; return what is wrong, None if nothing is."""
        last = generation.manifest.chunks - 1
        rows = sorted({round(place * last / (PROBES - 1)) for place in range(PROBES)}) if last >= 0 else []
        for ours, theirs in zip(generation.corpus.chunks(rows), written.corpus.chunks(rows), strict=True):
            if ours != theirs:
                return f"chunk {ours.row} is not what was written"
            embedding = generation.vectors.halves[ours.row].astype(np.float32)
            (nearest, *_) = self._server.search(collections.chunks, "embedding", embedding, limit=1)
            if nearest.score < PROBE_SIMILARITY:
                return f"chunk {ours.row} does not find itself: {nearest.score:.4f}"
        return None

    def _make_published(self, name: str) -> None:
        if self._server.has_aliases():
            self._server.set_alias(self.address.collection, self._collections(name).chunks)
        else:
            self._note(name)

    @property
    def _notes(self) -> str:
        return f"{self.address.collection}_published"

    def _noted(self) -> str | None:
        """Return what stands in for an alias where there are none: the name in the row with the highest number."""
        if self._notes not in self._server.collections():
            return None
        rows = self._server.read_latest(self._notes, "number >= 0", ["number", "generation"])
        return max(((row["number"], str(row["generation"])) for row in rows), default=(0, None))[1]

    def _note(self, name: str) -> None:
        """Add a row with a higher number, which is there or not, and only then delete those before."""
        if self._notes not in self._server.collections():
            number_field = {"field_name": "number", "datatype": "INT64", "is_primary": True}
            name_field = {"field_name": "generation", "datatype": "VARCHAR", "max_length": 64}
            self._server.create(self._notes, [number_field, name_field, NO_VECTOR], [NO_INDEX])
        rows = self._server.read_latest(self._notes, "number >= 0", ["number"])
        number = 1 + max((int(row["number"]) for row in rows), default=0)
        self._server.write(self._notes, [{"number": number, "generation": name, "unused": NOTHING}])
        self._server.delete(self._notes, f"number < {number}")

    def _names(self) -> set[str]:
        """Return the names of all generations of which there is anything."""
        names = (generation_of(each, within=self.address.collection) for each in self._server.collections())
        return {name for name in names if name is not None}

    def _whole(self) -> set[str]:
        present = set(self._server.collections())
        found = (self._collections(name) for name in self._names())
        return {each.name for each in found if {each.chunks, each.files} <= present and each.has_file(MANIFEST)}

    def _sweep(self, whole: set[str]) -> None:
        """Drop what writers that were stopped have left."""
        published = self.published_name()
        for name in self._names() - whole:
            if name != published:
                self._collections(name).drop()

    def _prune(self, keep: int) -> None:
        """Drop generations beyond the newest, never the published one."""
        published = self.published_name()
        for name in sorted(self._whole(), reverse=True)[max(1, keep) :]:
            if name != published:
                self._collections(name).drop()

    def _forget_others(self) -> None:
        """Remove files of generations that the store does not have any more: deleted means gone, here too."""
        names = self._names()
        for folder in self._cache.glob("*-*"):
            if folder.name not in names and not folder.name.startswith("."):
                shutil.rmtree(folder, ignore_errors=True)

    def _collections(self, name: str) -> Collections:
        return Collections(self._server, name)


def _manifest(collections: Collections) -> Manifest:
    return Manifest.from_json(b"".join(collections.read_file(MANIFEST)).decode())


def _rows(collections: Collections, generation: Generation) -> Iterator[tuple[Row, list[Row]]]:
    """Yield the row of each chunk, and what does not fit into it."""
    for stored, scoring in zip(generation.corpus.rows(), scorings(generation), strict=True):
        located = stored.located
        yield _row(collections, generation, located.row, located.document, scoring, pack_record(stored))


def _row(
    collections: Collections, generation: Generation, row: int, document: int, scoring: Scoring, record: bytes
) -> tuple[Row, list[Row]]:
    scoring_fields, rest = collections.fields(SCORING, row, scoring.pack())
    record_fields, more = collections.fields(RECORD, row, record)
    return {
        "row": row,
        "document": document,
        "embedding": scoring.half.astype(np.float32),
        "terms": term_vector(scoring, generation.lexical),
        **scoring_fields,
        **record_fields,
    }, [*rest, *more]
