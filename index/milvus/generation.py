"""An open generation of a store: small files in the cache folder, chunks from the server as they are needed."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.chunk_table import ChunkTable, ChunkValues
from index.corpus import CACHED_CHUNKS, ChunkRecord, Corpus, DocumentRecord, LocatedChunk, StoredChunk, keep
from index.embeddings import Embeddings
from index.errors import DamagedGenerationError, StoreError
from index.generations import ADAPTATION
from index.manifest import MANIFEST, Manifest, check_files, read_manifest
from index.milvus.collections import ROWS_AT_ONCE, Collections, write_pieces
from index.milvus.rows import RECORD, SCORING, Scoring, excerpt_of, query_vector, unpack_record
from index.milvus.server import Match
from index.store import CANDIDATES, Excerpt, union
from index.token_table import Adaptation
from index.vectors import open_array
from index.vocabulary import LexicalQuery, Vocabulary

DOCUMENTS = "documents.sqlite"
CENTROID = "centroid.npy"
VOCABULARY = ("vocabulary", "term_ends", "offsets")
LEXICAL = "lexical"
MOST_TIES = 1_500  # rows asked for, where many fit equally well


@dataclass(frozen=True, eq=False)
class StoredVocabulary(Vocabulary):
    """The vocabulary of a generation whose postings are elsewhere.

    Attributes, beside those of `Vocabulary`:
        texts: how many there are.
    """

    texts: int

    @classmethod
    def load(cls, folder: Path, texts: int) -> StoredVocabulary:
        """Open its files, memory-mapped."""
        vocabulary, term_ends, offsets = (open_array(folder / f"{name}.npy") for name in VOCABULARY)
        return cls(vocabulary, term_ends, offsets, texts)

    def __len__(self) -> int:
        return self.texts


class StoredCorpus(Corpus):
    """A corpus whose documents are in a file and whose chunks are on the server.

    What only a build needs of a corpus is not there.

    Args:
        path: of the file.
        collections: of the generation.
    """

    def __init__(self, path: Path, collections: Collections) -> None:
        super().__init__(path, ChunkTable.none())
        self._collections = collections

    def counts(self) -> tuple[int, int, int]:
        """Count documents, chunks and sentences."""
        counts = "SELECT count(*), coalesce(sum(chunk_count), 0), coalesce(sum(sentence_count), 0) FROM documents"
        documents, chunks, sentences = self._connection.execute(counts).fetchone()
        return documents, chunks, sentences

    def first_rows(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the numbers of the documents that have chunks, and the first row of each; int64."""
        rows = self._connection.execute(
            "SELECT document, first_row FROM documents WHERE chunk_count > 0 ORDER BY document"
        ).fetchall()
        numbers, firsts = np.array(rows, np.int64).reshape(-1, 2).T
        return numbers, firsts

    def _located(self, rows: Sequence[int]) -> list[LocatedChunk]:
        return [record.located for record in self._records(rows)]

    def _values(self, first: int, end: int) -> Iterator[ChunkValues]:
        return (record.located.values for record in self._range(first, end))

    def _read_around(self, chunk: ChunkRecord) -> tuple[str, str]:
        (record,) = self._records([chunk.row])
        return record.before, record.after

    def _range(self, first: int, end: int) -> Iterator[StoredChunk]:
        for start in range(first, end, ROWS_AT_ONCE):
            yield from self._records(range(start, min(start + ROWS_AT_ONCE, end)))

    def _records(self, rows: Sequence[int]) -> list[StoredChunk]:
        records = [unpack_record(data) for data in self._collections.read_rows(RECORD, rows)]
        for row, record in zip(rows, records, strict=True):
            keep(self._surroundings, row, (record.before, record.after), most=CACHED_CHUNKS)
        return records


class StoredGeneration:
    """An open generation of a store; see `index.store.OpenGeneration`.

    Args:
        collections: of the generation.
        folder: with its files, checked.
    """

    def __init__(self, collections: Collections, folder: Path) -> None:
        self._collections = collections
        self._folder = folder
        self.manifest: Manifest = read_manifest(folder)
        self.lexical: Vocabulary = StoredVocabulary.load(folder / LEXICAL, self.manifest.chunks)
        self.centroid: Embeddings = open_array(folder / CENTROID)
        is_adapted = any(name.startswith(f"{ADAPTATION}/") for name in self.manifest.files)
        self.adaptation = Adaptation.load(folder / ADAPTATION) if is_adapted else None
        self._corpus = StoredCorpus(folder / DOCUMENTS, collections)
        self._scorings: dict[int, Scoring] = {}

    @classmethod
    def open(cls, collections: Collections, cache: Path) -> StoredGeneration:
        """Open a generation, with its files from the cache folder or else from the server.

        Raises:
            StoreError: the server does not answer, or has lost something.
            GenerationError: the format is another version's.
        """
        folder = cache / collections.name
        try:
            check_files(folder, read_manifest(folder))
        except DamagedGenerationError:
            _download(collections, folder)
        return cls(collections, folder)

    @property
    def name(self) -> str:
        """Of the generation."""
        return self.manifest.name

    @property
    def corpus(self) -> Corpus:
        """Documents, chunks and their text."""
        return self._corpus

    @cached_property
    def document_records(self) -> list[DocumentRecord]:
        """All documents in order of doc_id, read once: filters look at every one of them."""
        return list(self._corpus.documents())

    def excerpt(
        self, query: LexicalQuery, embedding: Embeddings, *, allowed: NDArray[np.bool_] | None = None
    ) -> Excerpt:
        """See `index.store.OpenGeneration.excerpt`."""
        condition = "" if allowed is None else self._condition(allowed)
        nothing = self.manifest.chunks == 0 or (allowed is not None and not allowed.any())
        found = np.empty(0, np.int64) if nothing else self._found(query, embedding, condition)
        scorings = self._read(found.tolist())
        return excerpt_of(found, scorings, query, self.lexical, embedding)

    def open_corpus(self) -> Corpus:
        """Open the corpus once more, for another thread; whoever asks for it closes it."""
        return StoredCorpus(self._folder / DOCUMENTS, self._collections)

    def close(self) -> None:
        """Close its files."""
        self._corpus.close()

    def _found(self, query: LexicalQuery, embedding: Embeddings, condition: str) -> NDArray[np.int64]:
        nearest = self._best("embedding", embedding, condition)
        terms = query_vector(query, self.lexical)
        best = self._best("terms", terms, condition) if terms else []
        return union(_rows(nearest), _rows([match for match in best if match.score > 0]))

    def _best(self, field: str, vector: Any, condition: str) -> list[Match]:
        """Find the candidates of one search, equal ones by row, as in a home.

        Of rows that fit equally well a server gives any, so it is asked for more until a worse one comes, too; but
        not for ever.
        """
        server, limit = self._collections.server, CANDIDATES + 1
        while True:
            found = server.search(self._collections.chunks, field, vector, limit=limit, condition=condition)
            if len(found) < limit or limit >= MOST_TIES or found[-1].score < found[CANDIDATES - 1].score:
                return sorted(found, key=lambda match: (-match.score, match.row))[:CANDIDATES]
            limit *= 4

    def _read(self, rows: list[int]) -> list[Scoring]:
        known = {row: self._scorings[row] for row in rows if row in self._scorings}
        missing = [row for row in rows if row not in known]
        for row, data in zip(missing, self._collections.read_rows(SCORING, missing), strict=True):
            known[row] = Scoring.unpack(data)
            keep(self._scorings, row, known[row], most=CACHED_CHUNKS)
        return [known[row] for row in rows]

    @cached_property
    def _documents(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        return self._corpus.first_rows()

    def _condition(self, allowed: NDArray[np.bool_]) -> str:
        """Say which documents are allowed, by naming them or the others, whichever are fewer."""
        numbers, first_rows = self._documents
        is_allowed = allowed[first_rows]
        if 2 * np.count_nonzero(is_allowed) > len(numbers):
            return f"document not in {numbers[~is_allowed].tolist()}" if not is_allowed.all() else ""
        return f"document in {numbers[is_allowed].tolist()}"


def _rows(matches: Sequence[Match]) -> NDArray[np.int64]:
    return np.array([match.row for match in matches], np.int64)


def _download(collections: Collections, folder: Path) -> None:
    """Fetch the files of a generation, beside and then by one rename: other processes may do the same."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fetching-") as scratch:
        fetched = Path(scratch) / collections.name
        write_pieces(fetched / MANIFEST, collections.read_file(MANIFEST))
        manifest = read_manifest(fetched)
        for name in manifest.files:
            write_pieces(fetched / name, collections.read_file(name))
        try:
            check_files(fetched, manifest)
        except DamagedGenerationError as exc:
            raise StoreError(
                f"The files of {collections.name} in {collections.server.address} are damaged: {exc}. "
                "Publish it anew."
            ) from exc
        _put_in_place(fetched, folder)


def _put_in_place(fetched: Path, folder: Path) -> None:
    if folder.exists():
        # Damaged, or fetched by another process in this moment. Who has it open goes on reading it.
        shutil.rmtree(folder, ignore_errors=True)
    try:
        fetched.rename(folder)
    except OSError:
        # Of two that fetch the same one is first.
        check_files(folder, read_manifest(folder))
