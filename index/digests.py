"""Digests of files, taken in pieces, so that every processor has its share also of a few large files."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

from index.cpus import usable_cpus

PIECE_BYTES = 32 << 20

_READ_BYTES = 1 << 18  # at a time: what has just been read is then still in the processor's cache


def digests_of(paths: Sequence[Path]) -> list[str]:
    """Return a hexadecimal digest of each of some files.

    Of a file of up to `PIECE_BYTES` it is the SHA-256 of its bytes; of a larger one the SHA-256 of the digests of its
    pieces of that size, one after another.

    Raises:
        OSError: one of them cannot be read.
    """
    counts = [max(1, -(-path.stat().st_size // PIECE_BYTES)) for path in paths]
    pieces = [(path, number) for path, count in zip(paths, counts, strict=True) for number in range(count)]
    # Hashing lets go of the interpreter's lock, so that each thread has a processor.
    with ThreadPoolExecutor(max_workers=usable_cpus()) as pool:
        digests = list(pool.map(_digest, pieces))
    bounds = [0]
    for count in counts:
        bounds.append(bounds[-1] + count)
    return [_together(digests[first:end]).hex() for first, end in pairwise(bounds)]


def _together(digests: Sequence[bytes]) -> bytes:
    return digests[0] if len(digests) == 1 else hashlib.sha256(b"".join(digests)).digest()


def _digest(piece: tuple[Path, int]) -> bytes:
    """Return the SHA-256 of one piece of a file."""
    path, number = piece
    left, buffer, digest = PIECE_BYTES, memoryview(bytearray(_READ_BYTES)), hashlib.sha256()
    with path.open("rb", buffering=0) as stream:
        stream.seek(number * PIECE_BYTES)
        while left and (count := stream.readinto(buffer[:left])):
            digest.update(buffer[:count])
            left -= count
    return digest.digest()
