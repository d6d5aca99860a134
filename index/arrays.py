"""Arrays of a new generation: what stays is copied from the one before, in pieces as large as it lies in there."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import DTypeLike, NDArray

ZEROS_BYTES = 8 << 20  # that are written at a time in the place of rows that are not known yet


class ArrayWriter:
    """Writes an .npy file piece by piece. How many rows it will have need not be known before.

    Args:
        path: of the file.
        dtype: of the array, little-endian or of single bytes.
        row_shape: shape of a row; () for an array of numbers.
    """

    def __init__(self, path: Path, dtype: DTypeLike, row_shape: tuple[int, ...] = ()) -> None:
        self._dtype = np.dtype(dtype)
        self._row_shape = row_shape
        self._rows = 0
        self._stream: BinaryIO = path.open("wb")
        self._write_header()
        self._start = self._stream.tell()

    def __enter__(self) -> ArrayWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.finish()
        self.close()

    def write(self, rows: NDArray[Any]) -> None:
        """Append rows.

        Raises:
            OSError: there is no room.
        """
        self._rows += len(rows)
        self._stream.write(bytes_of(rows.astype(self._dtype, copy=False)))

    def finish(self) -> None:
        """Write down how many rows there are. NumPy leaves room for that."""
        self._stream.seek(0)
        self._write_header()
        if self._stream.tell() != self._start:
            raise AssertionError("a header of an array has grown beyond the room for it")

    def close(self) -> None:
        """Close the file, finished or not."""
        self._stream.close()

    def _write_header(self) -> None:
        shape = (self._rows, *self._row_shape)
        header = {"descr": np.lib.format.dtype_to_descr(self._dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(self._stream, header)


def runs(origins: NDArray[np.int64]) -> Iterator[tuple[int, int, int]]:
    """Yield ranges of rows that lay one after another in the array before, or are all new.

    Args:
        origins: where each row lay; -1 for a new one.

    Yields:
        First row, row behind the last, and where the first one lay, -1 for new ones.
    """
    if not len(origins):
        return
    is_new = origins < 0
    follows = np.where(is_new[1:], is_new[:-1], (np.diff(origins) == 1) & ~is_new[:-1])
    starts = np.concatenate([[0], np.flatnonzero(~follows) + 1])
    ends = np.append(starts[1:], len(origins))
    yield from zip(starts.tolist(), ends.tolist(), origins[starts].tolist(), strict=True)


def updated(
    ranges: Iterable[tuple[int, int, int]], old: NDArray[Any], added: NDArray[Any] | None = None
) -> Iterator[NDArray[Any]]:
    """Yield the rows of an array that come from an older one, but for the new ones, in pieces.

    Args:
        ranges: see `runs`.
        old: to copy from; its dtype and the shape of its rows are those of the new one.
        added: the new rows in their order; None has zeros in their place, to be filled in later.
    """
    taken = 0
    for first, end, origin in ranges:
        if origin >= 0:
            yield old[origin : origin + end - first]
        elif added is None:
            yield from _zeros(end - first, old)
        else:
            yield added[taken : taken + end - first]
            taken += end - first


def write_updated(
    path: Path, ranges: Iterable[tuple[int, int, int]], old: NDArray[Any], added: NDArray[Any] | None = None
) -> None:
    """Write what `updated` yields to an .npy file.

    Raises:
        OSError: there is no room.
    """
    with ArrayWriter(path, old.dtype, old.shape[1:]) as writer:
        for rows in updated(ranges, old, added):
            writer.write(rows)


def _zeros(count: int, like: NDArray[Any]) -> Iterator[NDArray[Any]]:
    size = max(1, ZEROS_BYTES // max(1, like.itemsize * math.prod(like.shape[1:])))
    zeros = np.zeros((min(count, size), *like.shape[1:]), like.dtype)
    return (zeros[: count - first] for first in range(0, count, size))


def bytes_of(rows: NDArray[Any]) -> memoryview:
    """View rows as bytes, for a file; a copy of them if they do not lie one after another."""
    # By bytes, because not every dtype can be handed over as it is.
    return np.ascontiguousarray(rows).reshape(-1).view(np.uint8).data
