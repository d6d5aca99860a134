"""Shingles: the runs of three terms of a chunk, by which two chunks are found to say the same.

Two texts say the same when the sets of their shingles overlap by nine tenths (Broder 1997, "On the resemblance and
containment of documents"). A shingle is a number made of the digests of its terms, so all of this is arithmetic on
arrays. Most pairs are told apart by how many of their shingles fall into each of a few buckets, which is kept for
each chunk: sets that overlap so much have nearly the same counts.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LENGTH = 3
OVERLAP = 0.9
BUCKETS = 16

# Sets of sizes a and b that overlap by nine tenths differ in at most (a + b) / 19 shingles.
_SIZES_OVER_DIFFERENCE = 19
_BUCKET_SHIFT = np.uint64(60)  # the highest four bits are a bucket
# Odd and without a pattern in their bits, so that sums of products spread over all numbers.
_FACTORS = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9], dtype=np.uint64)

Shingles = NDArray[np.uint64]


def shingles_of(terms: NDArray[np.uint32]) -> Shingles:
    """Return the distinct shingles of a text, ascending.

    Args:
        terms: digests of its terms, in order. Fewer than three are one shingle.
    """
    padded = np.zeros(max(LENGTH, len(terms)), dtype=np.uint64)
    padded[: len(terms)] = terms
    runs = len(padded) - LENGTH + 1
    mixed = sum(padded[place : place + runs] * factor for place, factor in enumerate(_FACTORS))
    return np.unique(mixed)


def bucket_counts(shingles: Shingles) -> NDArray[np.uint16]:
    """Count the shingles that fall into each bucket: uint16, shape (BUCKETS,); more than 65,535 count as so many."""
    counts = np.bincount((shingles >> _BUCKET_SHIFT).astype(np.int64), minlength=BUCKETS)
    return np.minimum(counts, np.iinfo(np.uint16).max).astype(np.uint16)


def may_overlap(counts: NDArray[np.int32], others: NDArray[np.int32]) -> NDArray[np.bool_]:
    """Tell which texts may say the same, by the counts of their buckets.

    Args:
        counts: of some texts, shape (m, BUCKETS).
        others: of others, shape (n, BUCKETS).

    Returns:
        Shape (m, n).
    """
    # Bucket by bucket, so that what lies side by side is computed together.
    buckets, buckets_of_others = (np.ascontiguousarray(each.T) for each in (counts, others))
    differences = buckets[:, :, None] - buckets_of_others[:, None]
    differences = np.add.reduce(np.abs(differences, out=differences))
    sizes, sizes_of_others = np.add.reduce(buckets), np.add.reduce(buckets_of_others)
    alike: NDArray[np.bool_] = differences * _SIZES_OVER_DIFFERENCE <= sizes[:, None] + sizes_of_others
    return alike


def overlap(one: Shingles, other: Shingles) -> bool:
    """Whether two texts say the same."""
    shared = len(np.intersect1d(one, other, assume_unique=True))
    return shared >= OVERLAP * (len(one) + len(other) - shared)
