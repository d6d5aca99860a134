"""Passages that say the same, found among the candidates for a question.

Two texts say the same when the sets of their shingles, runs of three words, overlap by nine tenths (Broder 1997, "On
the resemblance and containment of documents"). Most pairs of candidates are told apart without reading them: the
shingles of a text are counted in a few buckets, and sets that overlap so much have nearly the same counts. The counts
are kept, so that a chunk that comes up again costs a few additions.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from index.corpus import Corpus

OVERLAP = 0.9
_BUCKETS = 16
# Sets of sizes a and b that overlap by nine tenths differ in at most (a + b) / 19 shingles.
_SIZES_OVER_DIFFERENCE = 19

Shingles = frozenset[tuple[str, ...]]


class Duplicates:
    """Finds chunks of one corpus that say the same.

    Args:
        corpus: that holds the chunks; one thread at a time may use it.
        chunk_count: of that corpus.
    """

    def __init__(self, corpus: Corpus, chunk_count: int) -> None:
        self._corpus = corpus
        # For each chunk how many of its shingles fall into each bucket; all zero until it is first looked at.
        self._counts = np.zeros((chunk_count, _BUCKETS), np.uint16)

    def groups(self, rows: NDArray[np.int64], *, at_most: int) -> list[list[int]]:
        """Group chunks that say the same.

        All of them are looked through, so that a group does not depend on how many are wanted.

        Args:
            rows: of the chunks, best first.
            at_most: groups wanted, at least 1.

        Returns:
            Places in `rows`: of each group's best chunk, which all others of it resemble, and of those, in order.
        """
        counts = self._counts_of(rows)
        sizes = counts.sum(axis=1)
        left = np.arange(len(rows))
        groups: list[list[int]] = []
        while len(left) and len(groups) < at_most:
            leader, others = left[0], left[1:]
            differences = np.abs(counts[others] - counts[leader]).sum(axis=1)
            alike = others[_SIZES_OVER_DIFFERENCE * differences <= sizes[others] + sizes[leader]]
            twins = alike[self._resemble(rows[leader], rows[alike])]
            groups.append([int(leader), *twins.tolist()])
            left = np.setdiff1d(others, twins, assume_unique=True)
        return groups

    def _counts_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        new = rows[~self._counts[rows].any(axis=1)]
        for row, text in zip(new.tolist(), self._corpus.texts(new.tolist()), strict=True):
            hashes = np.fromiter(map(hash, shingles_of(text)), np.int64)
            self._counts[row] = np.bincount(hashes % _BUCKETS, minlength=_BUCKETS)
        return self._counts[rows].astype(np.int64)

    def _resemble(self, row: np.int64, others: NDArray[np.int64]) -> NDArray[np.bool_]:
        if not len(others):
            return np.empty(0, np.bool_)
        own, *rest = map(shingles_of, self._corpus.texts([int(row), *others.tolist()]))
        return np.array([_overlap(own, other) for other in rest])


def shingles_of(text: str) -> Shingles:
    """Return every run of three words of a text, folded; a shorter text is one shingle."""
    words = text.casefold().split()
    return frozenset(zip(words, words[1:], words[2:], strict=False)) or frozenset([tuple(words)])


def _overlap(one: Shingles, other: Shingles) -> bool:
    shared = len(one & other)
    return shared >= OVERLAP * (len(one) + len(other) - shared)
