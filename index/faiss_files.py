"""FAISS indexes in files, with the errors that the rest of the library knows."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import faiss

from index.errors import DamagedGenerationError

IndexT = TypeVar("IndexT", bound=faiss.Index)


def read_index(path: Path, kind: type[IndexT], *, flags: int = 0) -> IndexT:
    """Read an index of one kind.

    Args:
        path: of the file.
        kind: that it must be.
        flags: of FAISS, such as `faiss.IO_FLAG_MMAP_IFC` to open it memory-mapped.

    Raises:
        DamagedGenerationError: the file is not an index of this kind.
    """
    try:
        index = faiss.read_index(str(path), flags)
    except RuntimeError as exc:
        raise DamagedGenerationError(f"{path.name} is not a readable FAISS index") from exc
    if not isinstance(index, kind):
        raise DamagedGenerationError(f"{path.name} is a FAISS index of an unexpected kind")
    return index


def write_index(index: faiss.Index, path: Path) -> None:
    """Write an index to a file.

    Raises:
        OSError: there is no room, or no permission.
    """
    try:
        faiss.write_index(index, str(path))
    except RuntimeError as exc:
        raise OSError(f"FAISS could not write {path.name}") from exc
