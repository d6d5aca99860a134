"""Dense search: chunk embeddings in a FAISS index, sentence embeddings in a memory-mapped array.

Chunk embeddings are kept in half precision. On MiniLM embeddings half precision finds the same neighbours as single
precision at half the memory, and faster, because exact search is bound by memory. A large corpus has sketches beside
them (`index.sketches`), which find the chunks whose embeddings are then compared.
Sentence embeddings only rescore candidates that are already found; one byte for each dimension is enough.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

import faiss
import numpy as np
from numpy.typing import NDArray

from index.arrays import bytes_of
from index.embeddings import Embeddings
from index.errors import DamagedGenerationError, QuestionError
from index.faiss_files import read_index, write_index
from index.halves import singles
from index.sketches import EXACT_CHUNKS, Sketches

SENTENCES, SENTENCE_LENGTHS, SENTENCE_STARTS = "sentences.npy", "sentence_lengths.npy", "sentence_starts.npy"

Scores = NDArray[np.float32]  # of rows: a score or a similarity for each

# Up to so many chunks their embeddings are held in single precision, too, 12 MB of 384 dimensions: comparing them all
# then costs less than FAISS takes, and reading those of candidates a fifth.
_SINGLES_CHUNKS = 8_192
_SIZE_BYTES = 8  # in which a saved index says how many bytes follow
_COPY_ROWS = 65_536  # rows moved at a time, so that memory does not grow with the corpus


class ChunkVectors:
    """The embeddings of all chunks, by row, in a FAISS index for exact search by inner product.

    Attributes:
        sketches: that find candidates for the nearest rows; None for exact search.
    """

    def __init__(self, index: faiss.IndexScalarQuantizer) -> None:
        self._index = index
        self.sketches: Sketches | None = None
        self._halves = _halves_of(index)
        self._singles: Embeddings | None = None

    @classmethod
    def zeros(cls, count: int, dimension: int) -> ChunkVectors:
        """Make room for embeddings of unit length, which are then written into `halves`."""
        index = faiss.IndexScalarQuantizer(dimension, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
        index.codes.resize(count * index.code_size)
        index.ntotal = count
        index.is_trained = True
        return cls(index)

    @classmethod
    def load(cls, path: Path) -> ChunkVectors:
        """Open a saved index, memory-mapped.

        Raises:
            DamagedGenerationError: the file is not an index of this kind.
        """
        return cls(read_index(path, faiss.IndexScalarQuantizer, flags=faiss.IO_FLAG_MMAP_IFC))

    @classmethod
    def write(cls, path: Path, halves: Iterable[NDArray[np.float16]], *, count: int, dimension: int) -> None:
        """Write an index to a file piece by piece, so that it need not fit into memory.

        Args:
            path: of the file.
            halves: float16, the embeddings of all chunks in pieces.
            count: of chunks.
            dimension: of an embedding.

        Raises:
            OSError: there is no room.
        """
        with path.open("wb") as stream:
            stream.write(cls._header(count, dimension))
            for piece in halves:
                stream.write(bytes_of(piece))

    @classmethod
    def writable(cls, path: Path, *, count: int, dimension: int) -> NDArray[np.float16]:
        """Open the embeddings in a file memory-mapped, to write them; float16, shape (count, dimension)."""
        if not count:
            return np.empty((0, dimension), np.float16)
        offset = len(cls._header(count, dimension))
        return np.memmap(path, np.float16, mode="r+", offset=offset, shape=(count, dimension))

    def save(self, path: Path) -> None:
        """Write the index to a file.

        Raises:
            OSError: there is no room, or no permission.
        """
        write_index(self._index, path)

    @staticmethod
    def _header(count: int, dimension: int) -> bytes:
        """Return what stands in a saved index before the embeddings, which are its end."""
        index = faiss.IndexScalarQuantizer(dimension, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
        index.is_trained = True
        index.ntotal = count
        # Its last number is how many bytes of embeddings follow: none, as far as this index knows.
        written = faiss.serialize_index(index).tobytes()
        size = count * int(index.code_size)
        return written[:-_SIZE_BYTES] + size.to_bytes(_SIZE_BYTES, "little")

    def __len__(self) -> int:
        return int(self._index.ntotal)

    @property
    def dimension(self) -> int:
        """Of an embedding."""
        return int(self._index.d)

    @property
    def halves(self) -> NDArray[np.float16]:
        """The embeddings as kept, no copy of them: float16, shape (n, dimension). Valid as long as this object.

        What is written into them is written before the first search.
        """
        return self._halves

    @cached_property
    def centroid(self) -> Embeddings:
        """The mean of all embeddings, not of unit length: float32, shape (dimension,); zeros when there are none."""
        total = np.zeros(self.dimension, dtype=np.float64)
        for part in slices(len(self)):
            total += self._halves[part].sum(axis=0, dtype=np.float64)
        return (total / max(1, len(self))).astype(np.float32)

    def query(self, embedding: Embeddings) -> VectorQuery:
        """Return what answers for one query: float32, shape (dimension,), unit length.

        Raises:
            QuestionError: the embedding has another dimension than the index.
        """
        if embedding.shape != (self.dimension,):
            raise QuestionError(
                f"The question's embedding has shape {embedding.shape}, the index {self.dimension} dimensions. "
                "Ask with the model that the index was built with."
            )
        if self.sketches is None and len(self) <= _SINGLES_CHUNKS:
            return Compared(_products(self._all_singles(), embedding))
        return Searched(self, embedding)

    def search(
        self, embedding: Embeddings, *, top_k: int, allowed: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.int64], Scores]:
        """Find the nearest chunks, see `query` and `VectorQuery.search`."""
        return self.query(embedding).search(top_k=top_k, allowed=allowed)

    def nearest(
        self, embedding: Embeddings, *, top_k: int, allowed: NDArray[np.bool_] | None
    ) -> tuple[NDArray[np.int64], Scores]:
        """Do what `VectorQuery.search` does, by the index and its sketches."""
        available = len(self) if allowed is None else int(np.count_nonzero(allowed))
        if available == 0:
            return np.empty(0, np.int64), np.empty(0, np.float32)
        rows = self._sketched(embedding, top_k, available, allowed)
        if rows is None:
            rows, similarities = self._exactly(embedding, top_k, available, self._parameters(allowed))
        else:
            similarities = self.similarities(embedding, rows)
        order = np.lexsort((rows, -similarities))[:top_k]
        return rows[order], similarities[order]

    def similarities(self, embedding: Embeddings, rows: NDArray[np.int64]) -> Scores:
        """Compute the cosine similarity of one query to given rows: float32, shape (len(rows),)."""
        if len(self) <= _SINGLES_CHUNKS:
            return _products(self._all_singles().take(rows, axis=0), embedding)
        return _products(singles(self._halves[rows]), embedding)

    def _all_singles(self) -> Embeddings:
        if self._singles is None:
            self._singles = singles(self._halves)
        return self._singles

    def _sketched(
        self, embedding: Embeddings, top_k: int, available: int, allowed: NDArray[np.bool_] | None
    ) -> NDArray[np.int64] | None:
        """Return candidates found by their sketches; None when comparing all embeddings costs no more."""
        wanted = math.ceil(top_k * len(self) / available)  # so that enough are left of them
        if self.sketches is None or available <= EXACT_CHUNKS or self.sketches.oversampling * wanted > available:
            return None
        with _one_thread():
            (rows,) = self.sketches.candidates(embedding[None, :], top_k=wanted)
        rows = rows[rows >= 0]
        found = rows if allowed is None else rows[allowed[rows]]
        return found if len(found) >= min(top_k, available) else None

    def _exactly(
        self, embedding: Embeddings, top_k: int, available: int, parameters: faiss.SearchParameters | None
    ) -> tuple[NDArray[np.int64], Scores]:
        """Find at least the `top_k` nearest rows, and every row that is as similar as the last of them.

        Of equally similar rows FAISS keeps any, so it is asked for more until a less similar one comes too.
        """
        wanted = top_k + 1
        while True:
            with _one_thread():
                (similarities,), (rows,) = self._index.search(
                    embedding[None, :], min(wanted, available), params=parameters
                )
            if wanted >= available or similarities[-1] < similarities[top_k - 1]:
                return rows, similarities
            wanted *= 2

    @staticmethod
    def _parameters(allowed: NDArray[np.bool_] | None) -> faiss.SearchParameters | None:
        if allowed is None:
            return None
        # The stubs describe the C++ constructors, not the Python ones.
        selector = faiss.IDSelectorBitmap(np.packbits(allowed, bitorder="little"))  # type: ignore[call-arg,arg-type]
        return faiss.SearchParameters(sel=selector)  # type: ignore[call-arg]


class VectorQuery(Protocol):
    """One query to the embeddings of chunks."""

    def search(self, *, top_k: int, allowed: NDArray[np.bool_] | None = None) -> tuple[NDArray[np.int64], Scores]:
        """Find the nearest chunks: exactly, or with sketches most of them.

        Under a filter that leaves few rows the search is exact.

        Args:
            top_k: chunks wanted, at least 1; asking for more than there are is fine.
            allowed: bool, shape (n,); False keeps a row out. None allows all.

        Returns:
            Rows (int64) and cosine similarities (float32, in [-1, 1]), best first, equal ones by row; at most
            `top_k` of each.
        """

    def similarities(self, rows: NDArray[np.int64]) -> Scores:
        """Return the cosine similarity to given rows: float32, shape (len(rows),)."""


@dataclass(frozen=True)
class Compared:
    """A query that was compared with every chunk.

    Attributes:
        all: float32, the similarity to each row.
    """

    all: Scores

    def search(self, *, top_k: int, allowed: NDArray[np.bool_] | None = None) -> tuple[NDArray[np.int64], Scores]:
        """See `VectorQuery.search`."""
        similarities = self.all if allowed is None else np.where(allowed, self.all, -np.inf)
        floor = -np.inf if top_k >= len(similarities) else np.partition(similarities, -top_k)[-top_k]
        (rows,) = ((similarities >= floor) & (similarities > -np.inf)).nonzero()
        found = self.all.take(rows)
        order = np.lexsort((rows, -found))[:top_k]
        return rows.take(order), found.take(order)

    def similarities(self, rows: NDArray[np.int64]) -> Scores:
        """See `VectorQuery.similarities`."""
        return self.all.take(rows)


@dataclass(frozen=True)
class Searched:
    """A query to many chunks, which are compared only as far as they come near."""

    vectors: ChunkVectors
    embedding: Embeddings

    def search(self, *, top_k: int, allowed: NDArray[np.bool_] | None = None) -> tuple[NDArray[np.int64], Scores]:
        """See `VectorQuery.search`."""
        return self.vectors.nearest(self.embedding, top_k=top_k, allowed=allowed)

    def similarities(self, rows: NDArray[np.int64]) -> Scores:
        """See `VectorQuery.similarities`."""
        return self.vectors.similarities(self.embedding, rows)


@dataclass(frozen=True)
class SentencesOfChunks:
    """The sentences of some chunks one after another.

    Attributes:
        positions: int64, of each among all sentences of the generation.
        bounds: int64, shape (chunks + 1,): where each chunk's begin among them, and their number at the end.
    """

    positions: NDArray[np.int64]
    bounds: NDArray[np.int64]


class SentenceVectors:
    """The embeddings of all sentences, one byte for each dimension.

    A row is scaled so that its largest component is 127. Cosine similarity does not depend on length, so how much it
    was scaled by need not be known; the length it has now is divided out.

    Args:
        quantised: int8, shape (sentences, dimension).
        lengths: float32, shape (sentences,), of the rows of `quantised`.
        starts: int64, shape (chunks + 1,): the first sentence of each chunk, and their number at the end.
    """

    def __init__(self, quantised: NDArray[np.int8], lengths: NDArray[np.float32], starts: NDArray[np.int64]) -> None:
        self._quantised = quantised
        self._lengths = lengths
        self._starts = starts

    @classmethod
    def load(cls, folder: Path) -> SentenceVectors:
        """Open the files of a generation, memory-mapped.

        Raises:
            DamagedGenerationError: a file is not an array.
        """
        return cls(*(open_array(folder / name) for name in (SENTENCES, SENTENCE_LENGTHS, SENTENCE_STARTS)))

    def __len__(self) -> int:
        return len(self._quantised)

    @property
    def lengths(self) -> NDArray[np.float32]:
        """Of the rows as kept: float32, shape (sentences,)."""
        return self._lengths

    @property
    def starts(self) -> NDArray[np.int64]:
        """The first sentence of each chunk, and their number at the end: int64, shape (chunks + 1,)."""
        return self._starts

    @property
    def quantised(self) -> NDArray[np.int8]:
        """The rows as kept: int8, shape (sentences, dimension)."""
        return self._quantised

    def embeddings(self, positions: NDArray[np.int64]) -> Embeddings:
        """Return the embeddings of some sentences: float32, shape (len(positions), dimension), of unit length."""
        return self._quantised[positions].astype(np.float32) / self._lengths[positions][:, None]

    def of_chunks(self, rows: NDArray[np.int64]) -> SentencesOfChunks:
        """Return where the sentences of some chunks lie, each of which has at least one.

        Args:
            rows: int64, of the chunks.
        """
        starts, ends = self._starts.take(rows), self._starts.take(rows + 1)
        return SentencesOfChunks(positions_in(starts, ends), bounds_of(ends - starts))

    def similarities(self, embedding: Embeddings, positions: NDArray[np.int64]) -> Scores:
        """Compare one query with some sentences.

        Args:
            embedding: float32, shape (dimension,), unit length.
            positions: int64, of the sentences.

        Returns:
            Cosine similarities: float32, shape (len(positions),).
        """
        vectors = self._quantised.take(positions, axis=0).astype(np.float32)
        return _products(vectors, embedding) / self._lengths.take(positions)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let FAISS use one thread: for a single query a second one has nothing to do, and waits busily.

    torch takes the number of its threads from the same place, so it is put back.
    """
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)


def _products(vectors: Embeddings, embedding: Embeddings) -> Scores:
    """Multiply each row with one embedding, to the same bits whatever the other rows are.

    The matrix product of BLAS adds up in another order for the last rows than for those before. This is its dot
    product, row by row.
    """
    products: Scores = np.vecdot(vectors, embedding)
    return products


def _halves_of(index: faiss.IndexScalarQuantizer) -> NDArray[np.float16]:
    """View the codes of an index, which are the half-precision numbers themselves, without copying them."""
    if index.ntotal == 0:
        return np.empty((0, index.d), dtype=np.float16)
    codes = faiss.rev_swig_ptr(index.codes.data(), index.codes.size())
    # What is memory-mapped is read-only.
    codes.flags.writeable = index.codes.is_owned  # type: ignore[attr-defined]
    halves: NDArray[np.float16] = codes.view(np.float16).reshape(index.ntotal, index.d)
    return halves


def quantise(embeddings: Embeddings) -> NDArray[np.int8]:
    """Scale each row to bytes so that its largest component is 127."""
    largest = np.abs(embeddings).max(axis=1, keepdims=True)
    quantised: NDArray[np.int8] = np.rint(embeddings * (127.0 / np.maximum(largest, 1e-12))).astype(np.int8)
    return quantised


def lengths_of(quantised: NDArray[np.int8], rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return the length of some rows: float32, shape (len(rows),); never 0."""
    lengths = np.empty(len(rows), dtype=np.float32)
    for part in slices(len(rows)):
        vectors = quantised[rows[part]].astype(np.float32)
        lengths[part] = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    return np.maximum(lengths, 1e-12)


def bounds_of(counts: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
    """Return where each of some ranges begins that lie one after another, and at the end where the last one ends."""
    bounds = np.zeros(len(counts) + 1, np.int64)
    counts.cumsum(out=bounds[1:])
    return bounds


def positions_in(starts: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the positions that lie in some ranges, those of one range after another."""
    counts = ends - starts
    ends_here = counts.cumsum()
    positions: NDArray[np.int64] = (ends - ends_here).repeat(counts)
    positions += np.arange(len(positions))
    return positions


def joined(arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """Return one array after another, at least one; no copy of a single one."""
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def open_array(path: Path, *, mode: Literal["r", "r+"] = "r") -> Any:
    """Open an .npy file memory-mapped, to read it or also to write to it.

    Raises:
        DamagedGenerationError: it is missing or not an array.
    """
    try:
        # A plain array: each slice of an np.memmap costs several times as much.
        return np.asarray(np.load(path, mmap_mode=mode, allow_pickle=False))
    except (OSError, ValueError, EOFError) as exc:
        raise DamagedGenerationError(f"{path.name} is not a readable array") from exc


def slices(count: int) -> Iterator[slice]:
    """Divide `count` rows into slices of a size that fits in memory."""
    return (slice(first, min(first + _COPY_ROWS, count)) for first in range(0, count, _COPY_ROWS))
