"""The corpus of a generation: documents with their metadata in a SQLite file, chunks in a table of records.

Chunks are numbered from 0 in the order of (doc_id, start), and so are sentences. The same numbers are positions in
the vectors, the sentence embeddings and the keyword index: nothing but these integers ties them together, and the
same documents give the same numbers whatever was indexed before.

Text is kept once. A chunk's record holds its text and the gap since the chunk before it (headings, markup, blank
lines); gaps and texts in order, and the tail after the last chunk, are the document's canonical text.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from index.chunk_table import ChunkTable, ChunkValues, StagedChunks, write_table
from index.chunks import Chunk, embedded_text
from index.citations import Citation
from index.documents import Document, MetadataValue, Span, page_starts
from index.errors import DamagedGenerationError

CORPUS = "corpus.sqlite"
DOCUMENTS_TABLE = """
CREATE TABLE documents (
    document INTEGER PRIMARY KEY,     -- rank of doc_id
    doc_id TEXT NOT NULL UNIQUE,
    source TEXT NOT NULL,             -- key of the source it came from
    title TEXT NOT NULL,
    media_type TEXT NOT NULL,
    sha256 TEXT NOT NULL,             -- of the source bytes
    size INTEGER NOT NULL,            -- of the source in bytes
    uri TEXT,
    metadata TEXT NOT NULL,           -- JSON object
    page_starts TEXT NOT NULL,        -- JSON: [[offset, page], ...]
    first_row INTEGER NOT NULL,
    chunk_count INTEGER NOT NULL,
    first_sentence INTEGER NOT NULL,
    sentence_count INTEGER NOT NULL,
    tail TEXT NOT NULL                -- text after the last chunk
)
"""
INDEX_OF_DOCUMENTS = "CREATE INDEX documents_by_source ON documents (source)"
IDENTITY_COLUMNS = "doc_id, source, title, media_type, sha256, size, uri, metadata, page_starts"
# Of the text around a chunk, in code points.
SURROUNDING_CHARS = 32
RECORD_COLUMNS = f"{IDENTITY_COLUMNS}, first_row, chunk_count"
# Kept in memory: those found most often come up again and again. About 10 MB when they are all taken.
CACHED_CHUNKS = 4_096
CACHED_DOCUMENTS = 1_024

Key = TypeVar("Key")
Value = TypeVar("Value")


@dataclass(frozen=True)
class DocumentRecord:
    """A document as the corpus keeps it, without its text.

    Attributes:
        source: key of the source it came from.
        page_starts: offset at which a page begins -> its number, ascending; empty where there are no pages.
        first_row: of its chunks.
        chunk_count: how many rows from there on are its chunks.
    """

    doc_id: str
    source: str
    title: str
    media_type: str
    sha256: str
    size: int
    uri: str | None
    metadata: Mapping[str, MetadataValue]
    page_starts: Mapping[int, int]
    first_row: int
    chunk_count: int


@dataclass(frozen=True)
class Heading:
    """A heading of a document with text below it.

    Attributes:
        level: how many headings it stands under, itself included.
        start: of the first chunk below it, in code points.
    """

    text: str
    level: int
    start: int


@dataclass(frozen=True)
class ChunkRecord:
    """A chunk as the corpus keeps it.

    Attributes:
        row: its position in every array of the generation.
        first_line: of the canonical text on which it starts, from 1.
        first_sentence: position of its first sentence among all sentences.
        sentences: spans in code points from the start of the chunk.
        row_headers: see `index.chunks.Chunk`.
        text: the quoted text, exact.
        citations: those of it and its parts that were made, by their spans; see `index.citing.cite`.
    """

    row: int
    chunk_id: str
    document: DocumentRecord
    start: int
    end: int
    first_line: int
    headings: tuple[str, ...]
    context: str
    is_furniture: bool
    first_sentence: int
    sentences: tuple[Span, ...]
    row_headers: tuple[tuple[int, int, str], ...]
    text: str
    citations: dict[Span, Citation] = field(default_factory=dict, compare=False, repr=False)

    @property
    def embedded_text(self) -> str:
        """What the model and the keyword index read of it."""
        return embedded_text(self.context, self.text)

    @property
    def sentence_texts(self) -> list[str]:
        """The text of each sentence."""
        return [self.text[start:end] for start, end in self.sentences]

    @property
    def embedded_sentences(self) -> list[str]:
        """What the model reads of each sentence: a row of a table is read under its header."""
        texts = self.sentence_texts
        for first, end, header in self.row_headers:
            texts[first:end] = [embedded_text(header, text) for text in texts[first:end]]
        return texts


@dataclass(frozen=True)
class LocatedChunk:
    """What is kept of a chunk, and where it lies in the corpus.

    Attributes:
        row: its position in every array of the generation.
        document: the number of its document.
        first_sentence: position of its first sentence among all sentences.
        values: what is kept of it.
    """

    row: int
    document: int
    first_sentence: int
    values: ChunkValues


@dataclass(frozen=True)
class StoredChunk:
    """A chunk as it is kept elsewhere.

    Attributes:
        located: what is kept of it, and where it lies.
        before, after: up to 32 code points of the document that stand before and after it.
    """

    located: LocatedChunk
    before: str
    after: str


@dataclass(frozen=True)
class CorpusLayout:
    """Where everything of a new corpus lies, over its documents in their final order.

    Attributes:
        row_counts: chunks of each document, int64.
        sentence_counts: sentences of each document, int64.
        parent_rows: of a document kept from the parent its first row there, of an added one -1; int64.
        parent_sentences: likewise its first sentence.
    """

    row_counts: NDArray[np.int64]
    sentence_counts: NDArray[np.int64]
    parent_rows: NDArray[np.int64]
    parent_sentences: NDArray[np.int64]

    def rows_in_parent(self) -> NDArray[np.int64]:
        """For each chunk its row in the parent, -1 for those of added documents."""
        return _positions(self.row_counts, self.parent_rows)

    def sentences_in_parent(self) -> NDArray[np.int64]:
        """For each sentence its position in the parent, -1 for those of added documents."""
        return _positions(self.sentence_counts, self.parent_sentences)


class CorpusWriter:
    """Collects documents in staging files, then writes the corpus in its final order.

    Args:
        folder: where the staging files and then those of the corpus go.
        parent: folder of the generation from which documents can be kept; None for a first generation.
    """

    def __init__(self, folder: Path, parent: Path | None) -> None:
        self._folder = folder
        self._parent = parent
        self._staging_path = folder / "staging.sqlite"
        self._staging = sqlite3.connect(self._staging_path, uri=True, isolation_level=None)
        self._staging.execute("PRAGMA journal_mode = OFF")
        self._staging.execute("PRAGMA synchronous = OFF")
        self._staging.execute(DOCUMENTS_TABLE)
        self._staging.execute("BEGIN")
        self._chunks = StagedChunks(folder / "staging.npy")
        self._added: set[str] = set()
        self._next_sentence = 0

    def add(self, document: Document, chunks: Sequence[Chunk], *, source: str) -> None:
        """Add a new or changed document with its chunks, in the order of its text."""
        number = len(self._added)
        self._added.add(document.doc_id)
        last_end = chunks[-1].end if chunks else 0
        sentences = sum(len(chunk.sentences) for chunk in chunks)
        self._staging.execute(
            "INSERT INTO documents VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                number,
                document.doc_id,
                source,
                document.title,
                document.media_type,
                document.sha256,
                document.size,
                document.uri,
                _json(dict(document.content.metadata)),
                _json(list(page_starts(document.content.blocks).items())),
                len(self._chunks),
                len(chunks),
                self._next_sentence,
                sentences,
                document.text[last_end:],
            ),
        )
        self._next_sentence += sentences
        self._chunks.add(_chunk_values(document.text, chunks))

    def finish(self, kept: Iterable[str] = ()) -> CorpusLayout:
        """Write the corpus from the added documents and those kept from the parent.

        Args:
            kept: ids of the parent's documents that stay as they are; one that was added too is replaced.
        """
        self._staging.execute("COMMIT")
        self._staging.close()
        parent = "file::memory:" if self._parent is None else _read_only(self._parent / CORPUS)
        with closing(sqlite3.connect(self._folder / CORPUS, uri=True, isolation_level=None)) as corpus:
            corpus.execute("PRAGMA journal_mode = OFF")
            corpus.execute("PRAGMA synchronous = OFF")
            corpus.execute(DOCUMENTS_TABLE)
            corpus.execute("ATTACH ? AS staging", (str(self._staging_path),))
            corpus.execute("ATTACH ? AS parent", (parent,))
            if self._parent is None:
                corpus.execute(DOCUMENTS_TABLE.replace("CREATE TABLE ", "CREATE TABLE parent."))
            corpus.execute("BEGIN")
            _write_documents(corpus, [doc_id for doc_id in kept if doc_id not in self._added])
            layout, staged_rows = _layout(corpus)
            corpus.execute("COMMIT")
            corpus.execute(INDEX_OF_DOCUMENTS)
        self._staging_path.unlink()
        old = ChunkTable.none() if self._parent is None else ChunkTable.load(self._parent)
        staged = (self._chunks.finish(), _positions(layout.row_counts, staged_rows))
        write_table(self._folder, layout.row_counts, (old, layout.rows_in_parent()), staged)
        self._chunks.close()
        return layout

    def close(self) -> None:
        """Close the staging files, finished or not."""
        self._staging.close()
        self._chunks.close()


def _chunk_values(text: str, chunks: Sequence[Chunk]) -> Iterator[tuple[ChunkValues, bytes]]:
    """Return what is kept of the chunks of a document, and the digest of what is embedded of each."""
    end_before, line = 0, 1
    for chunk in chunks:
        gap = text[end_before : chunk.start]
        line += gap.count("\n")
        quoted = text[chunk.start : chunk.end]
        sentences = [place - chunk.start for span in chunk.sentences for place in span]
        embedded = [
            embedded_text(chunk.context, quoted).encode(),
            np.array(sentences, "<i4").tobytes(),
            _json(list(chunk.row_headers)).encode(),
        ]
        values = ChunkValues(
            chunk_id=chunk.chunk_id,
            start=chunk.start,
            end=chunk.end,
            first_line=line,
            headings=list(chunk.headings),
            context=chunk.context,
            is_furniture=chunk.furniture,
            sentences=sentences,
            row_headers=list(chunk.row_headers),
            gap=gap,
            text=quoted,
        )
        yield values, hashlib.sha256(b"\0".join(embedded)).digest()
        line += quoted.count("\n")
        end_before = chunk.end


class Corpus:
    """A corpus opened for reading. One thread at a time may use it.

    Args:
        path: of a file with the documents.
        table: the chunks.

    Raises:
        DamagedGenerationError: the file cannot be opened.
    """

    def __init__(self, path: Path, table: ChunkTable) -> None:
        self._table = table
        try:
            self._connection = sqlite3.connect(_read_only(path), uri=True, check_same_thread=False)
        except sqlite3.OperationalError as exc:
            raise DamagedGenerationError(f"{path.name} cannot be opened: {exc}") from exc
        self._chunks: dict[int, ChunkRecord] = {}
        self._surroundings: dict[int, tuple[str, str]] = {}
        self._documents: dict[int, DocumentRecord] = {}

    @classmethod
    def load(cls, generation: Path) -> Corpus:
        """Open the corpus of a generation.

        Raises:
            DamagedGenerationError: a file is missing or cannot be opened.
        """
        return cls(generation / CORPUS, ChunkTable.load(generation))

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def counts(self) -> tuple[int, int, int]:
        """Count documents, chunks and sentences."""
        documents, sentences = self._connection.execute(
            "SELECT count(*), coalesce(sum(sentence_count), 0) FROM documents"
        ).fetchone()
        return documents, len(self._table), sentences

    def sources(self) -> dict[str, int]:
        """Return how many documents each source has, by its key."""
        return dict(self._connection.execute("SELECT source, count(*) FROM documents GROUP BY 1 ORDER BY 1"))

    def documents(self, *, source: str | None = None) -> Iterator[DocumentRecord]:
        """Iterate over the documents in order of doc_id, all or those of one source."""
        cursor = self._connection.execute(
            f"SELECT {RECORD_COLUMNS} FROM documents "  # noqa: S608 (constants)
            "WHERE ?1 IS NULL OR source = ?1 ORDER BY document",
            (source,),
        )
        return (_document_record(values) for values in cursor)

    def page(self, *, after: str = "", prefix: str = "", limit: int) -> list[DocumentRecord]:
        """List documents in order of doc_id.

        Args:
            after: only ids that come after this one, which need not be there.
            prefix: only ids that begin so.
            limit: how many at most.
        """
        # Text is compared byte by byte, and no byte of UTF-8 is 0xFF: it ends what begins with the prefix.
        cursor = self._connection.execute(
            f"SELECT {RECORD_COLUMNS} FROM documents "  # noqa: S608 (constants)
            "WHERE doc_id > ?1 AND doc_id >= ?2 AND doc_id < CAST(CAST(?2 AS BLOB) || x'FF' AS TEXT) "
            "ORDER BY doc_id LIMIT ?3",
            (after, prefix, limit),
        )
        return [_document_record(values) for values in cursor]

    def document(self, doc_id: str) -> DocumentRecord | None:
        """Return one document, None when there is no such id."""
        values = self._connection.execute(
            f"SELECT {RECORD_COLUMNS} FROM documents WHERE doc_id = ?",  # noqa: S608
            (doc_id,),
        ).fetchone()
        return _document_record(values) if values else None

    def text(self, record: DocumentRecord) -> str:
        """Return the canonical text of a document."""
        chunks = self._values(record.first_row, record.first_row + record.chunk_count)
        return "".join([*(chunk.gap + chunk.text for chunk in chunks), self._tail(record)])

    def outline(self, record: DocumentRecord) -> list[Heading]:
        """List the headings of a document, in order."""
        outline: list[Heading] = []
        before: list[str] = []
        for chunk in self._values(record.first_row, record.first_row + record.chunk_count):
            path = chunk.headings
            pairs = zip(before, path, strict=False)
            known = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
            new = enumerate(path[known:], start=known + 1)
            outline += [Heading(text, level, chunk.start) for level, text in new]
            before = path
        return outline

    def chunks(self, rows: Sequence[int]) -> list[ChunkRecord]:
        """Return chunks by row, in the order asked for."""
        known = {row: self._chunks[row] for row in rows if row in self._chunks}
        if len(known) < len(rows):
            for found in self._located([int(row) for row in rows if row not in known]):
                known[found.row] = _chunk_record(found, self._document(found.document))
                keep(self._chunks, found.row, known[found.row], most=CACHED_CHUNKS)
        return [known[row] for row in rows]

    def text_before(self, chunk: ChunkRecord, length: int) -> str:
        """Return up to `length` code points, at most 32, of the document that stand before a chunk."""
        before, _ = self._around(chunk)
        return before[max(0, len(before) - length) :]

    def text_after(self, chunk: ChunkRecord, length: int) -> str:
        """Return up to `length` code points, at most 32, of the document that stand after a chunk."""
        return self._around(chunk)[1][:length]

    def _located(self, rows: Sequence[int]) -> list[LocatedChunk]:
        """Read some rows, in any order."""
        table = self._table
        return [
            LocatedChunk(row, int(table.documents[row]), int(table.sentence_starts[row]), table.values(row))
            for row in rows
        ]

    def _values(self, first: int, end: int) -> Iterator[ChunkValues]:
        """Read a range of rows."""
        return map(self._table.values, range(first, end))

    def _tail(self, record: DocumentRecord) -> str:
        """Read what stands after the last chunk of a document."""
        (tail,) = self._connection.execute("SELECT tail FROM documents WHERE doc_id = ?", (record.doc_id,)).fetchone()
        return str(tail)

    def _document(self, number: int) -> DocumentRecord:
        if number not in self._documents:
            values = self._connection.execute(
                f"SELECT {RECORD_COLUMNS} FROM documents WHERE document = ?",  # noqa: S608 (constants)
                (number,),
            ).fetchone()
            keep(self._documents, number, _document_record(values), most=CACHED_DOCUMENTS)
        return self._documents[number]

    def _around(self, chunk: ChunkRecord) -> tuple[str, str]:
        """Return what stands before and after a chunk."""
        if chunk.row not in self._surroundings:
            keep(self._surroundings, chunk.row, self._read_around(chunk), most=CACHED_CHUNKS)
        return self._surroundings[chunk.row]

    def _read_around(self, chunk: ChunkRecord) -> tuple[str, str]:
        return self._read_before(chunk), self._read_after(chunk)

    def _read_before(self, chunk: ChunkRecord) -> str:
        text, row = self._table.values(chunk.row).gap, chunk.row - 1
        while len(text) < SURROUNDING_CHARS and row >= chunk.document.first_row:
            values = self._table.values(row)
            text = values.gap + values.text + text
            row -= 1
        return text[max(0, len(text) - SURROUNDING_CHARS) :]

    def _read_after(self, chunk: ChunkRecord) -> str:
        text, row = "", chunk.row + 1
        while len(text) < SURROUNDING_CHARS and row < chunk.document.first_row + chunk.document.chunk_count:
            values = self._table.values(row)
            text += values.gap + values.text
            row += 1
        if len(text) < SURROUNDING_CHARS:
            text += self._tail(chunk.document)
        return text[:SURROUNDING_CHARS]

    def rows_embedded_from(self, digests: Iterable[bytes]) -> dict[bytes, int]:
        """Find chunks by the digest of what was embedded: digest -> the first such row, for those that are there."""
        return self._table.rows_with(digests)

    def digests(self, rows: Sequence[int]) -> list[bytes]:
        """Return the digest of what was embedded for each row."""
        return [self._table.digests[row].tobytes() for row in rows]

    def rows(self) -> Iterator[StoredChunk]:
        """Iterate over all chunks with what is kept beside them, in their order, to write them elsewhere."""
        for row in range(len(self._table)):
            (found,) = self._located([row])
            chunk = _chunk_record(found, self._document(found.document))
            yield StoredChunk(found, *self._read_around(chunk))

    def save_documents(self, path: Path) -> None:
        """Write the documents without their chunks to a new file, for a corpus whose chunks are elsewhere."""
        with closing(sqlite3.connect(path, isolation_level=None)) as documents:
            documents.execute("PRAGMA journal_mode = OFF")
            documents.execute(DOCUMENTS_TABLE)
            documents.execute("BEGIN")
            rows = self._connection.execute("SELECT * FROM documents ORDER BY document")
            documents.executemany("INSERT INTO documents VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
            documents.execute("COMMIT")
            documents.execute(INDEX_OF_DOCUMENTS)


def _read_only(path: Path) -> str:
    return f"{path.resolve().as_uri()}?mode=ro&immutable=1"


def _write_documents(corpus: sqlite3.Connection, kept: Sequence[str]) -> None:
    """Copy the added documents and those that are kept, in their final order, with their final numbers."""
    corpus.execute("CREATE TEMP TABLE kept (doc_id TEXT PRIMARY KEY)")
    corpus.executemany("INSERT INTO kept VALUES (?)", ((doc_id,) for doc_id in kept))
    corpus.execute(
        f"""
        INSERT INTO main.documents
        WITH originals AS (
            SELECT * FROM staging.documents
            UNION ALL
            SELECT d.* FROM parent.documents AS d JOIN kept USING (doc_id)
        )
        SELECT row_number() OVER ordered - 1, {IDENTITY_COLUMNS},
               sum(chunk_count) OVER ordered - chunk_count, chunk_count,
               sum(sentence_count) OVER ordered - sentence_count, sentence_count, tail
        FROM originals WINDOW ordered AS (ORDER BY doc_id) ORDER BY doc_id
        """  # noqa: S608 (constants)
    )


def _layout(corpus: sqlite3.Connection) -> tuple[CorpusLayout, NDArray[np.int64]]:
    """Return where everything lies, and the first row of each added document among those added, else -1."""
    rows = corpus.execute(
        """
        SELECT d.chunk_count, d.sentence_count,
               coalesce(p.first_row, -1), coalesce(p.first_sentence, -1), coalesce(s.first_row, -1)
        FROM main.documents AS d
        LEFT JOIN staging.documents AS s ON s.doc_id = d.doc_id
        LEFT JOIN parent.documents AS p ON p.doc_id = d.doc_id AND s.doc_id IS NULL
        ORDER BY d.document
        """
    ).fetchall()
    columns = np.array(rows, dtype=np.int64).reshape(-1, 5).T
    return CorpusLayout(*columns[:4]), columns[4]


def _positions(counts: NDArray[np.int64], firsts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number `counts[i]` positions from `firsts[i]` on, -1 throughout where `firsts[i]` is -1."""
    within = np.arange(counts.sum(), dtype=np.int64) - np.repeat(np.cumsum(counts) - counts, counts)
    origins = np.repeat(firsts, counts)
    return np.where(origins < 0, -1, origins + within)


def _document_record(values: Sequence[Any]) -> DocumentRecord:
    doc_id, source, title, media_type, sha256, size, uri, metadata, starts, first_row, chunk_count = values
    return DocumentRecord(
        doc_id=doc_id,
        source=source,
        title=title,
        media_type=media_type,
        sha256=sha256,
        size=size,
        uri=uri,
        metadata=json.loads(metadata),
        page_starts=dict(json.loads(starts)),
        first_row=first_row,
        chunk_count=chunk_count,
    )


def _chunk_record(found: LocatedChunk, document: DocumentRecord) -> ChunkRecord:
    values = found.values
    return ChunkRecord(
        row=found.row,
        chunk_id=values.chunk_id,
        document=document,
        start=values.start,
        end=values.end,
        first_line=values.first_line,
        headings=tuple(values.headings),
        context=values.context,
        is_furniture=values.is_furniture,
        first_sentence=found.first_sentence,
        sentences=tuple(zip(values.sentences[::2], values.sentences[1::2], strict=True)),
        row_headers=tuple((first, last, header) for first, last, header in values.row_headers),
        text=values.text,
    )


def keep(kept: dict[Key, Value], key: Key, value: Value, *, most: int) -> None:
    """Keep a value; of too many the one goes that came first."""
    kept[key] = value
    if len(kept) > most:
        del kept[next(iter(kept))]


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
