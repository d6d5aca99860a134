"""Dense search in a large corpus: one bit for each dimension finds candidates, whose embeddings are then compared.

Exact search reads every embedding. A sketch has one bit for each dimension (RaBitQ: Gao & Long 2024, "RaBitQ:
Quantizing High-Dimensional Vectors with a Theoretical Error Bound for Approximate Nearest Neighbor Search"), so a
twelfth as much is read. In a very large corpus the sketches lie in lists around centres, of which those nearest to a
question are looked through (Jégou, Douze & Schmid 2011, "Product Quantization for Nearest Neighbor Search"). The
centres are found in a sample of the embeddings, always the same way: equal corpora have equal sketches. How many of
the nearest chunks are found this way is measured on the corpus's own sentences when a generation is written, and
stands in its manifest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray

from index.embeddings import Embeddings
from index.faiss_files import read_index, write_index

# Chunks up to which exact search takes a small part of the time that encoding the question takes.
EXACT_CHUNKS = 20_000
TARGET_RECALL = 0.98
# Chunks up to which all sketches are looked through, which takes about a millisecond for each 100,000.
ONE_LIST_CHUNKS = 200_000
LISTS = 256
MEASURED_QUERIES = 200
NEAREST = 10  # rows of each that recall is measured on

_ROUNDS = 8  # of k-means, after which centres hardly move
_SAMPLED_OF_LIST = 64  # rows for each list from which its centre is found
_COPY_ROWS = 65_536  # rows taken at a time, so that memory does not grow with the corpus
_SAMPLED_ROWS = 8_192  # in which floors are looked for
_ROUNDING = 1e-5  # by which two products of the same embeddings may differ


@dataclass(frozen=True)
class DenseSearch:
    """How the chunks of a generation are searched by embedding.

    Attributes:
        oversampling: candidates taken from the sketches, for each chunk that is wanted; 0 for exact search without.
        recall: share of the ten nearest chunks that are found, from 0 to 1, as measured when the generation was
            written.
        probes: how many of the lists that the sketches lie in are looked through; 0 if they lie in one.
    """

    oversampling: int = 0
    recall: float = 1.0
    probes: int = 0


# What is tried until enough is found, the fastest first.
WAYS = (DenseSearch(oversampling=3), DenseSearch(oversampling=6), DenseSearch(oversampling=12))
WAYS_BY_LISTS = (
    DenseSearch(oversampling=3, probes=64),
    DenseSearch(oversampling=6, probes=64),
    DenseSearch(oversampling=6, probes=128),
    DenseSearch(oversampling=12, probes=LISTS),
)


class Sketches:
    """The sketches of all chunks, by row.

    Attributes:
        oversampling: see `DenseSearch`.
    """

    def __init__(self, index: faiss.IndexRaBitQFastScan | faiss.IndexIVFRaBitQFastScan) -> None:
        self._index = index
        self.oversampling = 1

    @classmethod
    def of(cls, halves: NDArray[np.float16], oversampling: int = 1, *, lists: int = 1) -> Sketches:
        """Make them.

        Args:
            halves: the embeddings: float16, shape (n, dimension).
            oversampling: see `DenseSearch`.
            lists: in which they are to lie.
        """
        index = _one_list(halves) if lists == 1 else _several_lists(halves, lists)
        for first in range(0, len(halves), _COPY_ROWS):
            index.add(halves[first : first + _COPY_ROWS].astype(np.float32))
        sketches = cls(index)
        sketches.oversampling = oversampling
        return sketches

    @classmethod
    def load(cls, path: Path, dense: DenseSearch) -> Sketches:
        """Open saved sketches, to be searched in some way.

        Raises:
            DamagedGenerationError: the file is not an index of this kind.
        """
        index: faiss.IndexRaBitQFastScan | faiss.IndexIVFRaBitQFastScan
        if dense.probes:
            index = read_index(path, faiss.IndexIVFRaBitQFastScan)
        else:
            index = read_index(path, faiss.IndexRaBitQFastScan)
        sketches = cls(index)
        sketches.search_by(dense)
        return sketches

    def search_by(self, dense: DenseSearch) -> None:
        """Search them in some way from now on."""
        self.oversampling = dense.oversampling
        if isinstance(self._index, faiss.IndexIVFRaBitQFastScan):
            self._index.nprobe = dense.probes

    def save(self, path: Path) -> None:
        """Write them to a file.

        Raises:
            OSError: there is no room, or no permission.
        """
        write_index(self._index, path)

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def candidates(self, embeddings: Embeddings, *, top_k: int) -> NDArray[np.int64]:
        """Find the rows among which the nearest ones are.

        Args:
            embeddings: float32, shape (queries, dimension).
            top_k: nearest rows wanted of each.

        Returns:
            int64, shape (queries, min(oversampling * top_k, n)); -1 where fewer are in the lists looked through.
        """
        _, rows = self._index.search(embeddings, min(self.oversampling * top_k, len(self)))
        return rows

    def recall(self, embeddings: Embeddings, nearest: NDArray[np.int64], *, top_k: int) -> float:
        """Return which share of the nearest rows of each query is among the candidates for `top_k`.

        Args:
            embeddings: of the queries.
            nearest: their nearest rows, see `nearest_rows`.
            top_k: see `candidates`.
        """
        found = self.candidates(embeddings, top_k=top_k)
        return float(np.mean([np.isin(one, other).mean() for one, other in zip(nearest, found, strict=True)]))


def ways_of_searching(chunks: int) -> Sequence[DenseSearch]:
    """Return what is to be tried for so many chunks, the fastest first; all of it on the same sketches."""
    return WAYS if chunks <= ONE_LIST_CHUNKS else WAYS_BY_LISTS


def _one_list(halves: NDArray[np.float16]) -> faiss.IndexRaBitQFastScan:
    index = faiss.IndexRaBitQFastScan(halves.shape[1], faiss.METRIC_INNER_PRODUCT)
    index.train(halves[:_COPY_ROWS].astype(np.float32))
    return index


def _several_lists(halves: NDArray[np.float16], lists: int) -> faiss.IndexIVFRaBitQFastScan:
    dimension = halves.shape[1]
    centres = faiss.IndexFlatIP(dimension)
    index = faiss.IndexIVFRaBitQFastScan(centres, dimension, lists, faiss.METRIC_INNER_PRODUCT)
    index.cp.spherical = True
    index.cp.niter = _ROUNDS
    index.train(halves[:: max(1, len(halves) // (_SAMPLED_OF_LIST * lists))].astype(np.float32))
    index.own_fields = True
    centres.this.disown()  # type: ignore[attr-defined]
    return index


def nearest_rows(halves: NDArray[np.float16], queries: Embeddings, *, count: int) -> NDArray[np.int64]:
    """Find the nearest rows of many queries by comparing all embeddings.

    For many queries products of matrices are several times faster than as many searches.

    Args:
        halves: the embeddings: float16, shape (n, dimension).
        queries: float32, shape (queries, dimension).
        count: rows wanted of each, at most n.

    Returns:
        int64, shape (queries, count), nearest first, equally near ones by row.
    """
    floors = _floors(halves, queries, count)
    found = [
        _above(halves[first : first + _COPY_ROWS], queries, floors) for first in range(0, len(halves), _COPY_ROWS)
    ]
    numbers, rows, similarities = (np.concatenate(parts) for parts in zip(*found, strict=True))
    rows += np.repeat(_COPY_ROWS * np.arange(len(found)), [len(part[0]) for part in found])
    order = np.lexsort((rows, -similarities, numbers))
    firsts = np.searchsorted(numbers[order], np.arange(len(queries)))
    nearest: NDArray[np.int64] = rows[order[firsts[:, None] + np.arange(count)]]
    return nearest


def _floors(halves: NDArray[np.float16], queries: Embeddings, count: int) -> Embeddings:
    """Return a similarity that the `count` nearest rows of each query reach: those of a sample do."""
    sample = halves[:: max(1, len(halves) // max(count, _SAMPLED_ROWS))].astype(np.float32)
    floors: Embeddings = np.partition(queries @ sample.T, -count, axis=1)[:, -count]
    return floors - _ROUNDING


def _above(
    halves: NDArray[np.float16], queries: Embeddings, floors: Embeddings
) -> tuple[NDArray[np.int64], NDArray[np.int64], Embeddings]:
    """Return the numbers of queries, and the rows and similarities that reach their floors."""
    similarities = queries @ halves.astype(np.float32).T
    # By places in one row after another: far faster than by row and column.
    found = np.flatnonzero(similarities >= floors[:, None])
    numbers, rows = np.divmod(found, len(halves))
    return numbers, rows, similarities.ravel()[found]
