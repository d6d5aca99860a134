"""A generation in the making: documents in, files of a generation out, checked before anyone can open it."""

from __future__ import annotations

import logging
import sqlite3
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from index.arrays import runs, updated, write_updated
from index.chunk_table import ChunkTable
from index.chunks import Chunk, split
from index.corpus import ChunkRecord, Corpus, CorpusLayout, CorpusWriter
from index.documents import Document
from index.embeddings import Embeddings, Encoder
from index.engines import Engine, LocalEngine
from index.errors import DamagedGenerationError, GenerationError
from index.generations import ADAPTATION, SKETCHES, VECTORS, Generation, Home, sync_folder, sync_tree, utc_now
from index.instant import has_instant, shipped_table
from index.lexical import LexicalIndex
from index.manifest import FORMAT_VERSION, MANIFEST, Manifest, SourceRecord, generation_name, record_files
from index.sequences import write_sequences
from index.sketches import (
    EXACT_CHUNKS,
    LISTS,
    MEASURED_QUERIES,
    NEAREST,
    SAMPLED_OF_LIST,
    TARGET_RECALL,
    DenseSearch,
    Sketches,
    is_little,
    nearest_rows,
    sampled_rows,
    updated_nearest,
    ways_of_searching,
)
from index.store import CANDIDATES
from index.vectors import (
    SENTENCE_LENGTHS,
    SENTENCE_STARTS,
    SENTENCES,
    ChunkVectors,
    SentenceVectors,
    lengths_of,
    open_array,
    quantise,
)

logger = logging.getLogger(__name__)

ENCODED_AT_ONCE = 2_048
PROBES = 5
PROBE_SIMILARITY = 0.999
NEAREST_ROWS = "nearest.npy"


class Progress(Protocol):
    """Someone who wants to know how far a build is."""

    def start(self, stage: str, total: int | None) -> None:
        """A stage begins; `total` is the number of steps, None when it is not known."""

    def advance(self, steps: int) -> None:
        """So many steps of the stage are done."""


class NoProgress:
    """Tells nobody."""

    def start(self, stage: str, total: int | None) -> None:
        """See `Progress.start`."""

    def advance(self, steps: int) -> None:
        """See `Progress.advance`."""


class Draft:
    """A generation in the making.

    Args:
        folder: hidden, on the home's file system.
        encoder: of the model.
        parent: generation whose documents and embeddings can be taken over as they are; None for nothing.
        target_tokens: see `index.chunks.split`.
        progress: told of each stage.
        engine: who encodes; None for this process.
    """

    def __init__(
        self,
        folder: Path,
        encoder: Encoder,
        parent: Generation | None,
        *,
        target_tokens: int,
        progress: Progress,
        engine: Engine | None = None,
    ) -> None:
        self._folder = folder
        self._encoder = encoder
        self._parent = parent
        self._target_tokens = target_tokens
        self._progress = progress
        self._engine = engine or LocalEngine(encoder)
        self._writer = CorpusWriter(folder, None if parent is None else parent.folder)
        self._dense = DenseSearch()
        self._owners: dict[str, str] = {}
        self._kept: list[str] = []

    def __len__(self) -> int:
        return len(self._owners)

    def __contains__(self, doc_id: str) -> bool:
        return doc_id in self._owners

    def owner(self, doc_id: str) -> str | None:
        """Return the key of the source that a document came from, None when it is not in the draft."""
        return self._owners.get(doc_id)

    def add(self, document: Document, *, source: str, chunks: Sequence[Chunk] | None = None) -> None:
        """Take in a new or changed document.

        Args:
            document: to be added.
            source: key of the source it came from.
            chunks: of it, where they are known; None splits it.
        """
        if chunks is None:
            chunks = split(document, self._encoder.tokenizer, target_tokens=self._target_tokens)
        self._writer.add(document, chunks, source=source)
        self._owners[document.doc_id] = source

    def keep(self, doc_id: str, *, source: str) -> None:
        """Take over a document of the parent as it is."""
        self._kept.append(doc_id)
        self._owners[doc_id] = source

    def close(self) -> None:
        """Close its files, written or not."""
        self._writer.close()

    def write(self) -> int:
        """Write every file but the manifest; return how many chunks were encoded."""
        self._progress.start("Writing documents", None)
        layout = self._writer.finish(self._kept)
        with closing(Corpus.load(self._folder)) as corpus:
            return self._write_arrays(corpus, layout)

    def publish(
        self, home: Home, *, parent: str | None, making: Mapping[str, str | int], sources: Iterable[SourceRecord]
    ) -> Manifest:
        """Write the manifest, check the whole, and make it the generation that readers open.

        Args:
            home: to publish in; its writer's lock must be held.
            parent: name of the generation before it.
            making: see `Manifest.making`.
            sources: without their counts.

        Raises:
            GenerationError: what was written is not what was meant.
        """
        self._progress.start("Checking", None)
        manifest = self._write_manifest(home, parent, making, sources)
        try:
            self._check(manifest)
        except (DamagedGenerationError, sqlite3.DatabaseError) as exc:
            raise _failed_check(home.path, exc) from exc
        self._progress.start("Publishing", None)
        sync_tree(self._folder)
        place = home.generations_path / manifest.name
        self._folder.rename(place)
        try:
            sync_folder(home.generations_path)
            home.publish(manifest.name)
        except (OSError, GenerationError):
            if home.published_name() != manifest.name:
                # Refused means that nothing was changed, and a disk that is full has no room for what nobody reads.
                place.rename(self._folder)
            raise
        return manifest

    def _write_arrays(self, corpus: Corpus, layout: CorpusLayout) -> int:
        """Write all but documents and manifest; return how many chunks were encoded."""
        starts = open_array(self._folder / SENTENCE_STARTS)
        rows_in_parent = layout.rows_in_parent()
        added = np.flatnonzero(rows_in_parent < 0)
        self._progress.start("Writing the keyword index", None)
        self._write_lexical(corpus, rows_in_parent, added)
        origins, sentence_origins = self._origins(corpus, layout, starts, added)
        self._progress.start("Writing the sequences of terms", None)
        parent = None if self._parent is None else self._parent.sequences
        write_sequences(self._folder / "sequences", origins, parent, corpus.chunks)
        self._progress.start("Writing embeddings", None)
        self._copy_embeddings(origins, sentence_origins)
        to_encode = np.flatnonzero(origins < 0)
        self._encode_chunks(corpus, to_encode, count=len(origins))
        self._encode_sentences(corpus, to_encode)
        self._write_lengths(sentence_origins)
        self._write_adaptation(corpus)
        self._write_sketches(layout)
        return len(to_encode)

    def _write_adaptation(self, corpus: Corpus) -> None:
        """Adapt the instant encoder, if the model has one."""
        if has_instant(self._encoder.identity):
            # Imported here: asking has no use for SciPy, which it loads.
            from index.adaptation import adapt

            self._progress.start("Adapting the instant encoder", None)
            sentences = SentenceVectors.load(self._folder)
            adapt(shipped_table(), self._encoder.tokenizer, corpus, sentences).save(self._folder / ADAPTATION)

    def _origins(
        self, corpus: Corpus, layout: CorpusLayout, starts: NDArray[np.int64], added: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Find the position in the parent of each chunk and sentence, also for unchanged chunks of changed documents.

        Returns:
            int64 arrays over chunks and over sentences, -1 for those that have to be encoded.
        """
        rows, sentences = layout.rows_in_parent(), layout.sentences_in_parent()
        if self._parent is None:
            return rows, sentences
        digests = corpus.digests(added.tolist())
        found = self._parent.corpus.rows_embedded_from(set(digests))
        parent_starts = self._parent.sentences.starts
        for row, digest in zip(added.tolist(), digests, strict=True):
            if digest in found:
                rows[row] = found[digest]
                first = parent_starts[found[digest]]
                sentences[starts[row] : starts[row + 1]] = np.arange(first, first + starts[row + 1] - starts[row])
        return rows, sentences

    def _write_lexical(self, corpus: Corpus, rows_in_parent: NDArray[np.int64], added: NDArray[np.int64]) -> None:
        texts = (chunk.embedded_text for group in _groups(added) for chunk in corpus.chunks(group))
        if self._parent is None:
            lexical = LexicalIndex.from_texts(texts)
        else:
            positions = np.flatnonzero(rows_in_parent >= 0)
            lexical = self._parent.lexical.updated(rows_in_parent[positions], positions, texts)
        lexical.save(self._folder / "lexical")

    def _copy_embeddings(self, origins: NDArray[np.int64], sentence_origins: NDArray[np.int64]) -> None:
        """Copy the embeddings that the parent has, and leave room for the others."""
        count, dimension = len(origins), self._encoder.identity.dimension
        halves, quantised = np.empty((0, dimension), np.float16), np.empty((0, dimension), np.int8)
        if self._parent is not None:
            halves, quantised = self._parent.vectors.halves, self._parent.sentences.quantised
        pieces = updated(runs(origins), halves)
        ChunkVectors.write(self._folder / VECTORS, pieces, count=count, dimension=dimension)
        write_updated(self._folder / SENTENCES, runs(sentence_origins), quantised)

    def _encode_chunks(self, corpus: Corpus, rows: NDArray[np.int64], *, count: int) -> None:
        self._progress.start("Encoding chunks", len(rows))
        path, dimension = self._folder / VECTORS, self._encoder.identity.dimension
        halves = ChunkVectors.writable(path, count=count, dimension=dimension)
        texts = ([chunk.embedded_text for chunk in corpus.chunks(group)] for group in _groups(rows))
        encoded = self._engine.encode(texts, on_progress=self._progress.advance)
        for group, embeddings in zip(_groups(rows), encoded, strict=True):
            halves[group] = embeddings

    def _encode_sentences(self, corpus: Corpus, rows: NDArray[np.int64]) -> None:
        self._progress.start("Encoding sentences", len(rows))
        sentences = open_array(self._folder / SENTENCES, mode="r+")
        asked: deque[_Sentences] = deque()

        def texts() -> Iterator[Sequence[str]]:
            for group in _groups(rows):
                asked.append(_Sentences.of(corpus.chunks(group)))
                yield asked[-1].texts

        for embeddings in self._engine.encode(texts(), on_progress=None):
            encoded = asked.popleft()
            sentences[encoded.positions] = quantise(embeddings)[encoded.places]
            self._progress.advance(encoded.chunks)

    def _write_sketches(self, layout: CorpusLayout) -> None:
        """Sketch the chunks of a large corpus, if the nearest ones are then found."""
        vectors, sentences = ChunkVectors.load(self._folder / VECTORS), SentenceVectors.load(self._folder)
        if len(vectors) <= EXACT_CHUNKS:
            return
        self._progress.start("Writing sketches", None)
        table, origins = ChunkTable.load(self._folder), layout.rows_in_parent()
        queries = sentences.embeddings(_measured_sentences(table))
        nearest = self._nearest(table, origins, vectors, queries)
        ways = ways_of_searching(len(vectors))
        in_lists = ways[0].probes > 0
        sketches = self._in_lists(table, origins, vectors) if in_lists else Sketches.of(vectors.halves)
        for dense in ways:
            sketches.search_by(dense)
            recall = sketches.recall(queries, nearest, top_k=CANDIDATES)
            if recall >= TARGET_RECALL:
                sketches.save(self._folder / SKETCHES)
                np.save(self._folder / NEAREST_ROWS, nearest)
                self._dense = replace(dense, recall=round(recall, 4))
                return
        logger.warning("sketches find %.3f of the nearest chunks only: the search stays exact", recall)

    def _nearest(
        self, table: ChunkTable, origins: NDArray[np.int64], vectors: ChunkVectors, queries: Embeddings
    ) -> NDArray[np.int64]:
        """Return the nearest chunks of the sentences that recall is measured with."""
        parent = self._similar_parent(table, origins, sampled=MEASURED_QUERIES)
        if parent is None or not parent.manifest.dense.oversampling:
            return nearest_rows(vectors.halves, queries, count=NEAREST)
        return updated_nearest(open_array(parent.folder / NEAREST_ROWS), vectors.halves, queries, origins)

    def _in_lists(self, table: ChunkTable, origins: NDArray[np.int64], vectors: ChunkVectors) -> Sketches:
        sampled = SAMPLED_OF_LIST * LISTS
        parent = self._similar_parent(table, origins, sampled=sampled)
        if parent is None or not parent.manifest.dense.probes:
            return Sketches.of(vectors.halves, lists=LISTS, sample=sampled_rows(table.digests, sampled))
        sketches = Sketches.load(parent.folder / SKETCHES, parent.manifest.dense)
        sketches.update(vectors.halves, origins)
        return sketches

    def _similar_parent(self, table: ChunkTable, origins: NDArray[np.int64], *, sampled: int) -> Generation | None:
        """Return the parent if few chunks come or go, and none of them is among those with the smallest digests."""
        if self._parent is None:
            return None
        old = ChunkTable.load(self._parent.folder)
        kept = int(np.count_nonzero(origins >= 0))
        if not is_little(len(table) + len(old) - 2 * kept, len(table)):
            return None
        before, now = (each.digests[sampled_rows(each.digests, sampled)] for each in (old, table))
        return self._parent if np.array_equal(before, now) else None

    def _write_lengths(self, origins: NDArray[np.int64]) -> None:
        lengths = np.empty(0, np.float32) if self._parent is None else self._parent.sentences.lengths
        added = lengths_of(open_array(self._folder / SENTENCES), np.flatnonzero(origins < 0))
        write_updated(self._folder / SENTENCE_LENGTHS, runs(origins), lengths, added)

    def _write_manifest(
        self, home: Home, parent: str | None, making: Mapping[str, str | int], sources: Iterable[SourceRecord]
    ) -> Manifest:
        with closing(Corpus.load(self._folder)) as corpus:
            documents, chunks, sentences = corpus.counts()
            counts = corpus.sources()
        created = utc_now()
        files = record_files(self._folder)
        manifest = Manifest(
            name=generation_name(created, files),
            format_version=FORMAT_VERSION,
            number=max((other.number for other in home.manifests()), default=0) + 1,
            created=created.isoformat(timespec="seconds"),
            parent=parent,
            model=self._encoder.identity,
            making=making,
            documents=documents,
            chunks=chunks,
            sentences=sentences,
            sources=tuple(replace(source, documents=counts.get(source.path, 0)) for source in sources),
            files=files,
            dense=self._dense,
        )
        (self._folder / MANIFEST).write_text(manifest.as_json(), encoding="utf-8")
        return manifest

    def _check(self, manifest: Manifest) -> None:
        """Open what was written as a reader would, and ask a few chunks for themselves."""
        generation = Generation(self._folder, manifest)
        try:
            generation.check_counts()
            rows = {round(place * (manifest.chunks - 1) / (PROBES - 1)) for place in range(PROBES)}
            for chunk in generation.corpus.chunks(sorted(rows) if manifest.chunks else []):
                self._probe(generation, chunk)
        finally:
            generation.close()

    def _probe(self, generation: Generation, chunk: ChunkRecord) -> None:
        if generation.corpus.text(chunk.document)[chunk.start : chunk.end] != chunk.text:
            raise DamagedGenerationError(f"chunk {chunk.row} is not what its document says at that place")
        (embedding,) = self._encoder.encode_documents([chunk.embedded_text])
        _, similarities = generation.vectors.search(embedding, top_k=1)
        if similarities[0] < PROBE_SIMILARITY:
            raise DamagedGenerationError(f"chunk {chunk.row} does not find itself: {similarities[0]:.4f}")


@dataclass(frozen=True)
class _Sentences:
    """Sentences that are encoded together.

    Attributes:
        chunks: how many they are of.
        texts: each once.
        positions: of the sentences in the corpus.
        places: of their texts in `texts`.
    """

    chunks: int
    texts: Sequence[str]
    positions: NDArray[np.int64]
    places: NDArray[np.int64]

    @classmethod
    def of(cls, chunks: Sequence[ChunkRecord]) -> _Sentences:
        place: dict[str, int] = {}
        places = [place.setdefault(text, len(place)) for chunk in chunks for text in chunk.embedded_sentences]
        return cls(len(chunks), list(place), _sentence_positions(chunks), np.array(places, dtype=np.int64))


def _failed_check(path: Path, error: Exception) -> GenerationError:
    return GenerationError(
        f"What was written to {path} failed its check: {error}. Nothing was published. The disk may be full or "
        "faulty: make room or check it, then run the command again."
    )


def _groups(rows: NDArray[np.int64]) -> Iterator[list[int]]:
    return (rows[first : first + ENCODED_AT_ONCE].tolist() for first in range(0, len(rows), ENCODED_AT_ONCE))


def _measured_sentences(table: ChunkTable) -> NDArray[np.int64]:
    """Return the positions of the sentences that recall is measured with: which they are depends on digests alone."""
    rows = sampled_rows(table.digests, MEASURED_QUERIES)
    firsts, counts = table.sentence_starts[rows], table.sentence_starts[rows + 1] - table.sentence_starts[rows]
    positions: NDArray[np.int64] = firsts + table.digests[rows, -1] % counts
    return positions


def _sentence_positions(chunks: Iterable[ChunkRecord]) -> NDArray[np.int64]:
    return np.concatenate(
        [np.arange(chunk.first_sentence, chunk.first_sentence + len(chunk.sentences)) for chunk in chunks]
    )
