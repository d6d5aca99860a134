"""Dense search in a large corpus: one bit for each dimension finds candidates, whose embeddings are then compared.

Exact search reads every embedding. A sketch has one bit for each dimension (RaBitQ: Gao & Long 2024, "RaBitQ:
Quantizing High-Dimensional Vectors with a Theoretical Error Bound for Approximate Nearest Neighbor Search"), so a
twelfth as much is read. In a very large corpus the sketches lie in lists around centres, of which those nearest to a
question are looked through (Jégou, Douze & Schmid 2011, "Product Quantization for Nearest Neighbor Search"). How many
of the nearest chunks are found this way is measured on the corpus's own sentences when a generation is written, and
stands in its manifest.

Equal corpora have equal sketches, whatever came before. Yet hardly any have to be made anew when a document comes to
a very large corpus: the centres are found in the chunks with the smallest digests, and recall is measured on
sentences chosen so. Of a million chunks few are among them, and as long as none of these comes or goes, every other
sketch stays what it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from index.embeddings import Embeddings
from index.faiss_files import read_index, write_index
from index.halves import singles

# Chunks up to which exact search takes a small part of the time that encoding the question takes.
EXACT_CHUNKS = 20_000
TARGET_RECALL = 0.98
# Chunks up to which all sketches are looked through, which takes about a millisecond for each 100,000.
ONE_LIST_CHUNKS = 200_000
LISTS = 256
MEASURED_QUERIES = 200
SAMPLED_OF_LIST = 16  # rows for each list from which its centre is found; recall grows little with more
NEAREST = 10  # rows of each that recall is measured on

_ROUNDS = 8  # of k-means, after which centres hardly move
_UPDATED_SHARE = 0.02  # of rows that come or go, up to which updating is faster than making all anew
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
    def of(
        cls,
        halves: NDArray[np.float16],
        oversampling: int = 1,
        *,
        lists: int = 1,
        sample: NDArray[np.int64] | None = None,
    ) -> Sketches:
        """Make them.

        Args:
            halves: the embeddings: float16, shape (n, dimension).
            oversampling: see `DenseSearch`.
            lists: in which they are to lie.
            sample: rows in which the centres of several lists are found, see `sampled_rows`.
        """
        index = _one_list(halves) if sample is None else _several_lists(singles(halves[sample]), lists)
        for first in range(0, len(halves), _COPY_ROWS):
            index.add(singles(halves[first : first + _COPY_ROWS]))
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

    def update(self, halves: NDArray[np.float16], origins: NDArray[np.int64]) -> None:
        """Make sketches in lists those of the next generation, equal to `of` as long as the sample is the same.

        Args:
            halves: the embeddings of the next generation.
            origins: int64, ascending where it is not -1: which row of now each row is, -1 for a new one.
        """
        if not isinstance(self._index, faiss.IndexIVFRaBitQFastScan):
            raise TypeError("sketches in one list are made anew")
        added = np.flatnonzero(origins < 0)
        row_of = np.full(len(self) + len(added), -1)
        row_of[origins[origins >= 0]] = np.flatnonzero(origins >= 0)
        row_of[len(self) :] = added
        if len(added):
            self._index.add(singles(halves[added]))
        lists = faiss.downcast_InvertedLists(self._index.invlists)  # type: ignore[arg-type]
        for number in range(self._index.nlist):
            _renumber(lists, number, row_of)
        self._index.ntotal = len(origins)

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


def is_little(changed: int, chunks: int) -> bool:
    """Tell whether so few of all chunks come or go that updating sketches is faster than making them anew."""
    return changed <= _UPDATED_SHARE * chunks


def ways_of_searching(chunks: int) -> Sequence[DenseSearch]:
    """Return what is to be tried for so many chunks, the fastest first; all of it on the same sketches."""
    return WAYS if chunks <= ONE_LIST_CHUNKS else WAYS_BY_LISTS


def _one_list(halves: NDArray[np.float16]) -> faiss.IndexRaBitQFastScan:
    index = faiss.IndexRaBitQFastScan(halves.shape[1], faiss.METRIC_INNER_PRODUCT)
    index.train(singles(halves[:_COPY_ROWS]))
    return index


def _several_lists(sample: Embeddings, lists: int) -> faiss.IndexIVFRaBitQFastScan:
    dimension = sample.shape[1]
    centres = faiss.IndexFlatIP(dimension)
    index = faiss.IndexIVFRaBitQFastScan(centres, dimension, lists, faiss.METRIC_INNER_PRODUCT)
    index.cp.spherical = True
    index.cp.niter = _ROUNDS
    index.cp.min_points_per_centroid = 1
    index.train(sample)
    index.own_fields = True
    centres.this.disown()  # type: ignore[attr-defined]
    return index


def _renumber(lists: Any, number: int, row_of: NDArray[np.int64]) -> None:
    """Give the sketches in a list their new rows, put them in the order of these, and drop those that have none.

    Args:
        lists: `faiss.BlockInvertedLists`, which the stubs do not know.
        number: of the list.
        row_of: int64: the new row of each row, -1 for none.
    """
    size = int(lists.list_size(number))
    ids = faiss.rev_swig_ptr(lists.get_ids(number), size)
    rows = row_of[ids]
    order = np.flatnonzero(rows >= 0)
    order = order[np.argsort(rows[order], kind="stable")]
    moved = np.flatnonzero(order != np.arange(len(order)))
    first = int(moved[0]) if len(moved) else len(order)
    if first == size:
        ids[:] = rows
        return
    # Sketches lie interleaved in blocks, so those from the first that moves are taken out and put back in order.
    packer = lists.packer
    before = _blocks(lists, number, size).copy()
    codes = {place: packer.unpack_1(before, int(place)) for place in order[first:]}
    lists.resize(number, len(order))
    after = _blocks(lists, number, len(order))
    whole = first // packer.nvec
    after[whole:] = 0
    for place in range(whole * packer.nvec, len(order)):
        code = codes[order[place]] if place >= first else packer.unpack_1(before, place)
        packer.pack_1(code, place, after)
    faiss.rev_swig_ptr(lists.get_ids(number), len(order))[:] = rows[order]


def _blocks(lists: Any, number: int, size: int) -> NDArray[np.uint8]:
    """View the sketches in a list: uint8, shape (blocks, bytes of a block)."""
    count = -(-size // lists.packer.nvec)
    flat: NDArray[np.uint8] = faiss.rev_swig_ptr(lists.get_codes(number), count * lists.block_size)
    return flat.reshape(count, lists.block_size)


def sampled_rows(digests: NDArray[np.uint8], count: int) -> NDArray[np.int64]:
    """Return the rows with the smallest digests, at most `count`, in the order of these; equal ones by row.

    Args:
        digests: uint8, shape (n, at least 8): of what was embedded.
        count: of rows wanted.
    """
    keys = np.ascontiguousarray(digests[:, :8]).view(">u8").ravel().astype(np.uint64)
    rows = np.arange(len(keys))
    if count < len(keys):
        rows = np.flatnonzero(keys <= np.partition(keys, count)[count])
    chosen: NDArray[np.int64] = rows[np.argsort(keys[rows], kind="stable")][:count]
    return chosen


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
    numbers, rows = (np.concatenate(parts) for parts in zip(*found, strict=True))
    rows += np.repeat(_COPY_ROWS * np.arange(len(found)), [len(part[0]) for part in found])
    return _best(halves, queries, numbers, rows, count=count)


def updated_nearest(
    nearest: NDArray[np.int64],
    halves: NDArray[np.float16],
    queries: Embeddings,
    origins: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Return the nearest rows of the next generation, equal to `nearest_rows`.

    Args:
        nearest: int64, shape (queries, count): those of this generation.
        halves: the embeddings of the next.
        queries: as of this generation.
        origins: see `Sketches.update`.
    """
    row_of = np.full(max(origins.max(initial=-1), nearest.max(initial=-1)) + 1, -1)
    row_of[origins[origins >= 0]] = np.flatnonzero(origins >= 0)
    rows, added = row_of[nearest], np.flatnonzero(origins < 0)
    lost = (rows < 0).any(axis=1)
    if lost.any():
        rows[lost] = nearest_rows(halves, queries[lost], count=nearest.shape[1])
    rows = np.concatenate([rows, np.broadcast_to(added, (len(rows), len(added)))], axis=1)
    numbers = np.repeat(np.arange(len(rows)), rows.shape[1])
    pairs = np.unique(np.stack([numbers, rows.ravel()]), axis=1)
    return _best(halves, queries, pairs[0], pairs[1], count=nearest.shape[1])


def _best(
    halves: NDArray[np.float16],
    queries: Embeddings,
    numbers: NDArray[np.int64],
    rows: NDArray[np.int64],
    *,
    count: int,
) -> NDArray[np.int64]:
    """Return the nearest rows of each query among pairs of its number and a row, of which it has `count` at least."""
    similarities = np.empty(len(rows), np.float32)
    for first in range(0, len(rows), _COPY_ROWS):
        part = slice(first, first + _COPY_ROWS)
        # To the same bits whatever the other pairs are.
        similarities[part] = np.einsum("ij,ij->i", singles(halves[rows[part]]), queries[numbers[part]])
    order = np.lexsort((rows, -similarities, numbers))
    firsts = np.searchsorted(numbers[order], np.arange(len(queries)))
    nearest: NDArray[np.int64] = rows[order[firsts[:, None] + np.arange(count)]]
    return nearest


def _floors(halves: NDArray[np.float16], queries: Embeddings, count: int) -> Embeddings:
    """Return a similarity that the `count` nearest rows of each query reach: those of a sample do."""
    sample = singles(np.ascontiguousarray(halves[:: max(1, len(halves) // max(count, _SAMPLED_ROWS))]))
    floors: Embeddings = np.partition(queries @ sample.T, -count, axis=1)[:, -count]
    return floors - _ROUNDING


def _above(
    halves: NDArray[np.float16], queries: Embeddings, floors: Embeddings
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the numbers of queries, and the rows whose similarities reach their floors."""
    similarities = queries @ singles(halves).T
    # By places in one row after another: far faster than by row and column.
    found = np.flatnonzero(similarities >= floors[:, None])
    return np.divmod(found, len(halves))
