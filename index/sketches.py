"""Dense search in a large corpus: one bit for each dimension finds candidates, whose embeddings are then compared.

Exact search reads every embedding. A sketch has one bit for each dimension (RaBitQ: Gao & Long 2024, "RaBitQ:
Quantizing High-Dimensional Vectors with a Theoretical Error Bound for Approximate Nearest Neighbor Search"), so a
twelfth as much is read. It needs no training but the mean of the embeddings: equal corpora have equal sketches. How
many of the nearest chunks are found this way is measured on the corpus's own sentences when a generation is written,
and stands in its manifest.
"""

from __future__ import annotations

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
# How many times as many candidates are taken from the sketches as are wanted.
OVERSAMPLING = (3, 6, 12)
MEASURED_QUERIES = 200

_COPY_ROWS = 65_536  # rows added at a time, so that memory does not grow with the corpus


@dataclass(frozen=True)
class DenseSearch:
    """How the chunks of a generation are searched by embedding.

    Attributes:
        oversampling: candidates taken from the sketches, for each chunk that is wanted; 0 for exact search without.
        recall: share of the ten nearest chunks that are found, from 0 to 1, as measured when the generation was
            written.
    """

    oversampling: int = 0
    recall: float = 1.0


class Sketches:
    """The sketches of all chunks, by row."""

    def __init__(self, index: faiss.IndexRaBitQFastScan, oversampling: int) -> None:
        self._index = index
        self.oversampling = oversampling

    @classmethod
    def of(cls, halves: NDArray[np.float16], oversampling: int) -> Sketches:
        """Make them.

        Args:
            halves: the embeddings: float16, shape (n, dimension).
            oversampling: see `DenseSearch`.
        """
        index = faiss.IndexRaBitQFastScan(halves.shape[1], faiss.METRIC_INNER_PRODUCT)
        index.train(halves[:_COPY_ROWS].astype(np.float32))
        for first in range(0, len(halves), _COPY_ROWS):
            index.add(halves[first : first + _COPY_ROWS].astype(np.float32))
        return cls(index, oversampling)

    @classmethod
    def load(cls, path: Path, oversampling: int) -> Sketches:
        """Open saved sketches.

        Raises:
            DamagedGenerationError: the file is not an index of this kind.
        """
        return cls(read_index(path, faiss.IndexRaBitQFastScan), oversampling)

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
            int64, shape (queries, min(oversampling * top_k, n)).
        """
        _, rows = self._index.search(embeddings, min(self.oversampling * top_k, len(self)))
        return rows
