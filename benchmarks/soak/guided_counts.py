"""Counters that outlive the process which counts."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Sequence
from pathlib import Path

_COUNT = struct.Struct("<Q")


class Counts:
    """Numbers in a file that is mapped; for use as a context manager.

    Args:
        path: made where it is not there yet.
        names: of the numbers, the same ones in each process.
    """

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        self._names = tuple(names)
        with path.open("a+b") as file:
            file.truncate(_COUNT.size * len(self._names))
            self._bytes = mmap.mmap(file.fileno(), 0)

    def __enter__(self) -> Counts:
        return self

    def __exit__(self, *error: object) -> None:
        self._bytes.close()

    def add(self, name: str) -> None:
        """Count one more; by one process at a time."""
        place = _COUNT.size * self._names.index(name)
        (count,) = _COUNT.unpack_from(self._bytes, place)
        _COUNT.pack_into(self._bytes, place, count + 1)

    def all(self) -> dict[str, int]:
        """Return the numbers by their names."""
        return {
            name: _COUNT.unpack_from(self._bytes, _COUNT.size * place)[0] for place, name in enumerate(self._names)
        }
