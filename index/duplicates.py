"""Passages that say the same, found among the candidates for a question."""

from __future__ import annotations

from itertools import compress

import numpy as np
from numpy.typing import NDArray

from index.sequences import TermSequences
from index.shingles import may_overlap, overlap, shingles_of


def groups_of_duplicates(sequences: TermSequences, rows: NDArray[np.int64], *, at_most: int) -> list[list[int]]:
    """Group chunks that say the same.

    All of them are looked through, so that a group does not depend on how many are wanted.

    Args:
        sequences: of the generation.
        rows: of the chunks, best first.
        at_most: groups wanted, at least 1.

    Returns:
        Places in `rows`: of each group's best chunk, which all others of it resemble, and of those, in order.
    """
    counts = sequences.shingle_counts.take(rows, axis=0).astype(np.int32)
    alike = may_overlap(counts[:at_most], counts)
    if np.count_nonzero(alike) == len(alike):  # each is like itself alone, as mostly
        return [[place] for place in range(len(alike))]
    left = np.arange(len(rows))
    groups: list[list[int]] = []
    while len(left) and len(groups) < at_most:
        leader, others = int(left[0]), left[1:]
        may_be_twin = alike[leader] if leader < at_most else may_overlap(counts[leader, None], counts)[0]
        near = others[may_be_twin[others]].tolist()
        twins = list(compress(near, _overlap(sequences, int(rows[leader]), rows[near].tolist()))) if near else []
        groups.append([leader, *twins])
        left = others[~np.isin(others, twins)] if twins else others
    return groups


def _overlap(sequences: TermSequences, row: int, others: list[int]) -> list[bool]:
    if not others:
        return []
    own = shingles_of(sequences.terms(row))
    return [overlap(own, shingles_of(sequences.terms(other))) for other in others]
