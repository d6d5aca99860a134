"""The chunks of a corpus in files: a record for each, one after another, in the order of the corpus.

A record says nothing of where its chunk lies in the corpus: a document that comes or goes moves the records of others
and changes none, so that they are copied by the megabyte. Where each begins, and what depends on the place, stands in
arrays beside them.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from index.arrays import ArrayWriter, runs, write_updated
from index.vectors import SENTENCE_STARTS, bounds_of, open_array

FOLDER = "chunks"
FURNITURE = "furniture.npy"
DIGEST_BYTES = 32


class ChunkValues(NamedTuple):
    """What is kept of a chunk. Only what JSON has, because that is how it is written.

    Attributes:
        chunk_id, start, end, first_line, headings, context, is_furniture, row_headers, text: see
            `index.corpus.ChunkRecord`.
        sentences: start and end of one after another, in code points from the start of the chunk.
        gap: the text between the chunk before and this one.
    """

    chunk_id: str
    start: int
    end: int
    first_line: int
    headings: list[str]
    context: str
    is_furniture: bool
    sentences: list[int]
    row_headers: list[tuple[int, int, str]]
    gap: str
    text: str


@dataclass(frozen=True, eq=False)
class ChunkTable:
    """The chunks of a corpus, by row.

    Attributes:
        records: uint8: those of all chunks one after another, each a JSON array in UTF-8.
        starts: int64, shape (chunks + 1,): where each record begins, and their length at the end.
        digests: uint8, shape (chunks, 32): of what was embedded, chunk and sentences, to find it again.
        documents: int32, shape (chunks,): the number of its document.
        sentence_starts: int64, shape (chunks + 1,): the first sentence of each chunk, and their number at the end.
        furniture: bool, shape (chunks,): which chunks are page furniture.
    """

    records: NDArray[np.uint8]
    starts: NDArray[np.int64]
    digests: NDArray[np.uint8]
    documents: NDArray[np.int32]
    sentence_starts: NDArray[np.int64]
    furniture: NDArray[np.bool_]

    @classmethod
    def load(cls, generation: Path) -> ChunkTable:
        """Open the files of a generation, memory-mapped.

        Raises:
            DamagedGenerationError: one is missing or not an array.
        """
        folder = generation / FOLDER
        names = ("records.npy", "starts.npy", "digests.npy", "documents.npy")
        own = (open_array(folder / name) for name in names)
        return cls(*own, *(open_array(generation / name) for name in (SENTENCE_STARTS, FURNITURE)))

    @classmethod
    def none(cls) -> ChunkTable:
        """Return a table without chunks."""
        return cls(
            records=np.empty(0, np.uint8),
            starts=np.zeros(1, np.int64),
            digests=np.empty((0, DIGEST_BYTES), np.uint8),
            documents=np.empty(0, np.int32),
            sentence_starts=np.zeros(1, np.int64),
            furniture=np.empty(0, np.bool_),
        )

    def __len__(self) -> int:
        return len(self.documents)

    def values(self, row: int) -> ChunkValues:
        """Return what is kept of a chunk."""
        return ChunkValues(*json.loads(self.records[self.starts[row] : self.starts[row + 1]].tobytes()))

    def rows_with(self, digests: Iterable[bytes]) -> dict[bytes, int]:
        """Find chunks by the digest of what was embedded: digest -> the first such row, for those that are there."""
        wanted = set(digests)
        # The first eight bytes as one number, to look through all of them at once.
        beginnings = np.frombuffer(b"".join(digest[:8].ljust(8) for digest in wanted), "<u8")
        known = np.ascontiguousarray(self.digests[:, :8]).view("<u8").ravel()
        found: dict[bytes, int] = {}
        for row in np.flatnonzero(np.isin(known, beginnings)).tolist():
            digest = self.digests[row].tobytes()
            if digest in wanted:
                found.setdefault(digest, row)
        return found


class StagedChunks:
    """Chunks in the order in which they are added, until it is known where in the corpus they come.

    Args:
        path: of a file for their records.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._records = ArrayWriter(path, np.uint8)
        self._lengths, self._sentences = array("q"), array("q")
        self._furniture, self._digests = bytearray(), bytearray()

    def __len__(self) -> int:
        return len(self._lengths)

    @property
    def sentences(self) -> int:
        """How many sentences they have."""
        return sum(self._sentences)

    def add(self, chunks: Iterable[tuple[ChunkValues, bytes]]) -> None:
        """Add chunks, each with the digest of what is embedded."""
        for values, digest in chunks:
            record = json.dumps(values, ensure_ascii=False, separators=(",", ":")).encode()
            self._records.write(np.frombuffer(record, np.uint8))
            self._lengths.append(len(record))
            self._sentences.append(len(values.sentences) // 2)
            self._furniture.append(values.is_furniture)
            self._digests += digest

    def finish(self) -> ChunkTable:
        """Return them as a table; the documents in it mean nothing."""
        self._records.finish()
        self._records.close()
        return ChunkTable(
            records=open_array(self._path),
            starts=bounds_of(np.array(self._lengths, np.int64)),
            digests=np.frombuffer(bytes(self._digests), np.uint8).reshape(-1, DIGEST_BYTES),
            documents=np.zeros(len(self), np.int32),
            sentence_starts=bounds_of(np.array(self._sentences, np.int64)),
            furniture=np.frombuffer(bytes(self._furniture), np.bool_),
        )

    def close(self) -> None:
        """Close and remove the file, unless that is done; once it is, nothing on the disk is touched any more."""
        self._records.close()
        if self._path.exists():
            self._path.unlink()


def write_table(
    generation: Path,
    row_counts: NDArray[np.int64],
    parent: tuple[ChunkTable, NDArray[np.int64]],
    staged: tuple[ChunkTable, NDArray[np.int64]],
) -> None:
    """Write the table of a new corpus.

    Args:
        generation: folder for the files.
        row_counts: int64: the chunks of each document.
        parent: chunks of the corpus before, and int64 which of them each new row is, -1 for none.
        staged: added chunks, likewise. Each row comes from one of the two.
    """
    folder = generation / FOLDER
    folder.mkdir()
    with ArrayWriter(folder / "records.npy", np.uint8) as writer:
        for table, first, end in _ranges(parent, staged):
            writer.write(table.records[table.starts[first] : table.starts[end]])

    def joined(of_parent: NDArray[Any], of_staged: NDArray[Any]) -> NDArray[Any]:
        values = of_parent[parent[1]] if len(of_parent) else np.zeros_like(of_staged, shape=len(parent[1]))
        is_staged = staged[1] >= 0
        values[is_staged] = of_staged[staged[1][is_staged]]
        return values

    (old, rows), (new, new_rows) = parent, staged
    np.save(folder / "starts.npy", bounds_of(joined(np.diff(old.starts), np.diff(new.starts))))
    np.save(folder / "documents.npy", np.repeat(np.arange(len(row_counts), dtype=np.int32), row_counts))
    np.save(
        generation / SENTENCE_STARTS, bounds_of(joined(np.diff(old.sentence_starts), np.diff(new.sentence_starts)))
    )
    np.save(generation / FURNITURE, joined(old.furniture, new.furniture))
    write_updated(folder / "digests.npy", list(runs(rows)), old.digests, new.digests[new_rows[new_rows >= 0]])


def _ranges(
    parent: tuple[ChunkTable, NDArray[np.int64]], staged: tuple[ChunkTable, NDArray[np.int64]]
) -> Iterator[tuple[ChunkTable, int, int]]:
    """Yield ranges of rows that are copied one after another, each with the table that has them."""
    for first, end, origin in runs(parent[1]):
        if origin >= 0:
            yield parent[0], origin, origin + end - first
        else:
            yield from ((staged[0], start, start + stop - begin) for begin, stop, start in runs(staged[1][first:end]))
