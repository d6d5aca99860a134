"""The file formats of `whence batch`, and how they are told from the name of a file."""

from __future__ import annotations

import gzip
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import ModuleType

from index.errors import WhenceError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

__all__ = ["Compression", "FileKind", "InputFormat", "OutputFormat", "kind_of", "parquet_modules", "zstd"]


class InputFormat(Enum):
    """How questions are written down."""

    JSONL = "jsonl"
    CSV = "csv"
    TSV = "tsv"
    LINES = "lines"
    PARQUET = "parquet"


class OutputFormat(Enum):
    """How answers are written down."""

    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"
    TREC = "trec"


class Compression(Enum):
    """How a file is compressed as a whole."""

    NONE = ""
    GZIP = ".gz"
    ZSTD = ".zst"

    def compressed(self, data: bytes) -> bytes:
        """Compress a part of a file; the compressed parts one after another are the compressed file."""
        match self:
            case Compression.GZIP:
                return gzip.compress(data, mtime=0)
            case Compression.ZSTD:
                return zstd.compress(data)
            case _:
                return data


INPUT_SUFFIXES: Mapping[str, InputFormat] = {
    ".jsonl": InputFormat.JSONL,
    ".ndjson": InputFormat.JSONL,
    ".csv": InputFormat.CSV,
    ".tsv": InputFormat.TSV,
    ".txt": InputFormat.LINES,
    ".parquet": InputFormat.PARQUET,
}
OUTPUT_SUFFIXES: Mapping[str, OutputFormat] = {
    ".jsonl": OutputFormat.JSONL,
    ".ndjson": OutputFormat.JSONL,
    ".csv": OutputFormat.CSV,
    ".parquet": OutputFormat.PARQUET,
    ".run": OutputFormat.TREC,
    ".trec": OutputFormat.TREC,
}


@dataclass(frozen=True)
class FileKind:
    """What the name of a file tells.

    Attributes:
        suffix: in small letters, that of the compression left out.
        compression: that its last suffix says.
    """

    suffix: str
    compression: Compression


def kind_of(path: Path) -> FileKind:
    """Tell a kind of file from its name."""
    last = path.suffix.lower()
    compression = next((each for each in Compression if each.value == last), Compression.NONE)
    bare = path if compression is Compression.NONE else path.with_suffix("")
    return FileKind(bare.suffix.lower(), compression)


def parquet_modules() -> tuple[ModuleType, ModuleType]:
    """Return `pyarrow` and `pyarrow.parquet`, which are an extra.

    Raises:
        WhenceError: they are not installed.
    """
    try:
        import pyarrow  # type: ignore[import-untyped]
        import pyarrow.parquet  # type: ignore[import-untyped]
    except ImportError as exc:
        raise WhenceError("Parquet needs a library that is not installed: pip install 'whence[parquet]'") from exc
    return pyarrow, pyarrow.parquet
