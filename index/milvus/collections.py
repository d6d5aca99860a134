"""The collections of a generation: what they are called, and reading and writing rows and files in them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from index.errors import StoreError
from index.milvus.rows import FIELD_BYTES, PART_BYTES, RECORD, SCORING, as_text, joined_parts, part_key
from index.milvus.server import Row, Server

ROWS_AT_ONCE = 256  # about 2 MB
PARTS_AT_ONCE = 64  # about 4 MB

_NAME = re.compile(r"[0-9]{8}T[0-9]{6}Z_[0-9a-f]{6}")
_TEXT = {"datatype": "VARCHAR", "max_length": FIELD_BYTES}
# A collection must have a vector, though nobody searches it.
NO_VECTOR: Row = {"field_name": "unused", "datatype": "FLOAT_VECTOR", "dim": 2}
NO_INDEX: Row = {"field_name": "unused", "index_type": "AUTOINDEX", "metric_type": "IP"}
NOTHING = [0.0, 0.0]


@dataclass(frozen=True)
class Collections:
    """Those of one generation.

    Attributes:
        server: that has them.
        name: of the generation.
    """

    server: Server
    name: str

    @property
    def chunks(self) -> str:
        """Name of the collection of chunks."""
        return f"{self.server.address.collection}_{self.name.replace('-', '_')}"

    @property
    def files(self) -> str:
        """Name of the collection of files."""
        return f"{self.chunks}_files"

    def create(self, dimension: int) -> None:
        """Create both, empty."""
        row = {"field_name": "row", "datatype": "INT64", "is_primary": True}
        self.server.create(
            self.chunks,
            [
                row,
                {"field_name": "document", "datatype": "INT64"},
                {"field_name": "embedding", "datatype": "FLOAT_VECTOR", "dim": dimension},
                {"field_name": "terms", "datatype": "SPARSE_FLOAT_VECTOR"},
                *({"field_name": name, **_TEXT} for name in (SCORING, RECORD)),
                *({"field_name": f"{name}_parts", "datatype": "INT64"} for name in (SCORING, RECORD)),
            ],
            [
                {"field_name": "embedding", "index_type": "AUTOINDEX", "metric_type": "IP"},
                {"field_name": "terms", "index_type": "SPARSE_INVERTED_INDEX", "metric_type": "IP"},
            ],
        )
        key = {"field_name": "key", "datatype": "VARCHAR", "max_length": 512, "is_primary": True}
        parts = {"field_name": "parts", "datatype": "INT64"}
        self.server.create(self.files, [key, parts, {"field_name": "data", **_TEXT}, NO_VECTOR], [NO_INDEX])

    def drop(self) -> None:
        """Drop both, first the one that says that the generation is whole."""
        self.server.drop(self.files)
        self.server.drop(self.chunks)

    def write_file(self, name: str, path: Path) -> None:
        """Write a file; its first part comes last, so that one that is there is whole."""
        with path.open("rb") as stream:
            size = path.stat().st_size
            first, count = stream.read(PART_BYTES), max(1, -(-size // PART_BYTES))
            for start in range(1, count, PARTS_AT_ONCE):
                numbers = range(start, min(start + PARTS_AT_ONCE, count))
                self.write_parts([self._part(name, each, stream.read(PART_BYTES), count) for each in numbers])
        self.write_parts([self._part(name, 0, first, count)])

    def write_parts(self, parts: Sequence[Row]) -> None:
        """Write parts of files, or what did not fit into rows of chunks."""
        for first in range(0, len(parts), PARTS_AT_ONCE):
            self.server.write(self.files, parts[first : first + PARTS_AT_ONCE])

    def fields(self, name: str, row: int, data: bytes) -> tuple[Row, list[Row]]:
        """Return the fields of a chunk's row for some bytes, and what does not fit there."""
        count = max(1, -(-len(data) // PART_BYTES))
        pieces = (data[number * PART_BYTES : (number + 1) * PART_BYTES] for number in range(1, count))
        rest = [self._part(f"{name}/{row}", number, piece, count) for number, piece in enumerate(pieces, start=1)]
        return {name: as_text(data[:PART_BYTES]), f"{name}_parts": count}, rest

    def has_file(self, name: str) -> bool:
        """Whether a file is there."""
        return bool(self.server.read_latest(self.files, _equal_to([part_key(name, 0)]), ["key"]))

    def read_file(self, name: str) -> Iterator[bytes]:
        """Yield a file, in pieces.

        Raises:
            StoreError: it is not there.
        """
        ((first, count),) = self._parts([part_key(name, 0)]).values()
        yield joined_parts([first])
        keys = [part_key(name, number) for number in range(1, count)]
        for start in range(0, len(keys), PARTS_AT_ONCE):
            yield joined_parts(data for data, _ in self._parts(keys[start : start + PARTS_AT_ONCE]).values())

    def read_rows(self, name: str, rows: Sequence[int]) -> list[bytes]:
        """Return the bytes of one kind of some chunks, in the order asked for.

        Raises:
            StoreError: a chunk is not there.
        """
        found: dict[int, bytes] = {}
        for start in range(0, len(rows), ROWS_AT_ONCE):
            condition = f"row in {[int(row) for row in rows[start : start + ROWS_AT_ONCE]]}"
            for values in self.server.read(self.chunks, condition, ["row", name, f"{name}_parts"]):
                found[values["row"]] = self._whole(name, values)
        missing = next((row for row in rows if row not in found), None)
        if missing is not None:
            raise StoreError(f"{self.server.address} has lost chunk {missing} of {self.name}. Publish it anew.")
        return [found[row] for row in rows]

    def _whole(self, name: str, values: Row) -> bytes:
        keys = [part_key(f"{name}/{values['row']}", number) for number in range(1, values[f"{name}_parts"])]
        rest = self._parts(keys).values() if keys else ()
        return joined_parts([values[name], *(data for data, _ in rest)])

    def _parts(self, keys: Sequence[str]) -> dict[str, tuple[str, int]]:
        """Read parts: key -> text and how many parts the file has; in the order asked for."""
        rows = self.server.read_latest(self.files, _equal_to(keys), ["key", "data", "parts"])
        found = {row["key"]: (row["data"], int(row["parts"])) for row in rows}
        missing = next((key for key in keys if key not in found), None)
        if missing is not None:
            raise StoreError(f"{self.server.address} has lost {missing} of {self.name}. Publish it anew.")
        return {key: found[key] for key in keys}

    def _part(self, file: str, number: int, data: bytes, count: int) -> Row:
        return {"key": part_key(file, number), "data": as_text(data), "parts": count, "unused": NOTHING}


def generation_of(collection: str, *, within: str) -> str | None:
    """Return the name of the generation to which a collection belongs, None for what is no generation's.

    Args:
        collection: its name.
        within: the collection of the store.
    """
    rest = collection.removeprefix(f"{within}_").removesuffix("_files")
    if not collection.startswith(f"{within}_") or not _NAME.fullmatch(rest):
        return None
    return rest.replace("_", "-")


def write_pieces(path: Path, pieces: Iterator[bytes]) -> None:
    """Write a file, piece by piece."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream:
        for piece in pieces:
            stream.write(piece)


def _equal_to(keys: Sequence[str]) -> str:
    return f"key in [{', '.join(map(_quoted, keys))}]"


def _quoted(key: str) -> str:
    return '"' + key.replace("\\", "\\\\").replace('"', '\\"') + '"'
