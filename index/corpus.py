"""The corpus of a generation in one SQLite file: documents, chunks, sentences, metadata.

Chunks are numbered from 0 in the order of (doc_id, start), and so are sentences. The same numbers are positions in
the vectors, the sentence embeddings and the keyword index: nothing but these integers ties them together, and the
same documents give the same numbers whatever was indexed before.

Text is kept once. A chunk's row holds its text and the gap since the chunk before it (headings, markup, blank
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
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from index.chunks import Chunk, embedded_text
from index.documents import Document, MetadataValue, Span, page_starts
from index.errors import DamagedGenerationError

if TYPE_CHECKING:
    from index.citations import Citation

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
CHUNKS_TABLE = """
CREATE TABLE chunks (
    row INTEGER PRIMARY KEY,
    chunk_id TEXT NOT NULL,
    document INTEGER NOT NULL,
    start INTEGER NOT NULL,
    end INTEGER NOT NULL,
    first_line INTEGER NOT NULL,      -- from 1
    headings TEXT NOT NULL,           -- JSON array, outermost first
    context TEXT NOT NULL,            -- embedded before the text, not quoted
    is_furniture INTEGER NOT NULL,
    first_sentence INTEGER NOT NULL,
    sentences BLOB NOT NULL,          -- little-endian int32 pairs, code points from the start of the chunk
    row_headers TEXT NOT NULL,        -- JSON: [[first, end, header], ...] for sentences that are rows of a table
    embedded_sha256 BLOB NOT NULL,    -- of what was embedded, chunk and sentences, to find it again
    gap TEXT NOT NULL,                -- text between the chunk before and this one
    text TEXT NOT NULL
)
"""
INDEX_OF_DOCUMENTS = "CREATE INDEX documents_by_source ON documents (source)"
INDEXES = f"CREATE INDEX chunks_by_embedded_sha256 ON chunks (embedded_sha256); {INDEX_OF_DOCUMENTS};"
IDENTITY_COLUMNS = "doc_id, source, title, media_type, sha256, size, uri, metadata, page_starts"
CHUNK_COLUMNS = (
    "row, chunk_id, document, start, end, first_line, headings, context, is_furniture, first_sentence, sentences, "
    "row_headers, text"
)
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
        citations: those of it and its parts that were made, by their spans; see `index.citations.cite`.
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
class StoredChunk:
    """A chunk with what is kept beside it.

    Attributes:
        document: the number of its document.
        gap: the text between the chunk before and this one.
        before, after: up to 32 code points of the document that stand before and after it.
    """

    document: int
    chunk: ChunkRecord
    gap: str
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
    """Collects documents in a staging file, then writes the corpus in its final order.

    Args:
        folder: where the staging file and then `corpus.sqlite` go.
        parent: `corpus.sqlite` from which documents can be kept; None for a first generation.
    """

    def __init__(self, folder: Path, parent: Path | None) -> None:
        self._path = folder / "corpus.sqlite"
        self._parent = parent
        self._staging_path = folder / "staging.sqlite"
        self._staging = sqlite3.connect(self._staging_path, uri=True, isolation_level=None)
        self._staging.execute("PRAGMA journal_mode = OFF")
        self._staging.execute("PRAGMA synchronous = OFF")
        _create_tables(self._staging)
        self._staging.execute("BEGIN")
        self._added: set[str] = set()
        self._next_row = 0
        self._next_sentence = 0

    def add(self, document: Document, chunks: Sequence[Chunk], *, source: str) -> None:
        """Add a new or changed document with its chunks, in the order of its text."""
        number = len(self._added)
        self._added.add(document.doc_id)
        last_end = chunks[-1].end if chunks else 0
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
                self._next_row,
                len(chunks),
                self._next_sentence,
                sum(len(chunk.sentences) for chunk in chunks),
                document.text[last_end:],
            ),
        )
        self._staging.executemany(
            "INSERT INTO chunks VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            self._chunk_values(number, document.text, chunks),
        )

    def finish(self, kept: Iterable[str] = ()) -> CorpusLayout:
        """Write `corpus.sqlite` from the added documents and those kept from the parent.

        Args:
            kept: ids of the parent's documents that stay as they are; one that was added too is replaced.
        """
        self._staging.execute("COMMIT")
        self._staging.close()
        parent = "file::memory:" if self._parent is None else _read_only(self._parent)
        with closing(sqlite3.connect(self._path, uri=True, isolation_level=None)) as corpus:
            corpus.execute("PRAGMA journal_mode = OFF")
            corpus.execute("PRAGMA synchronous = OFF")
            _create_tables(corpus)
            corpus.execute("ATTACH ? AS staging", (str(self._staging_path),))
            corpus.execute("ATTACH ? AS parent", (parent,))
            if self._parent is None:
                _create_tables(corpus, "parent")
            corpus.execute("BEGIN")
            layout = _plan(corpus, [doc_id for doc_id in kept if doc_id not in self._added])
            for origin in ("staging", "parent"):
                _copy(corpus, origin)
            corpus.execute("COMMIT")
            corpus.executescript(INDEXES)
        self._staging_path.unlink()
        return layout

    def close(self) -> None:
        """Close the staging file, finished or not."""
        self._staging.close()

    def _chunk_values(self, number: int, text: str, chunks: Sequence[Chunk]) -> Iterator[tuple[Any, ...]]:
        end_before, line = 0, 1
        for chunk in chunks:
            gap = text[end_before : chunk.start]
            line += gap.count("\n")
            quoted = text[chunk.start : chunk.end]
            spans = (np.array(chunk.sentences, dtype="<i4").reshape(-1, 2) - chunk.start).astype("<i4").tobytes()
            row_headers = _json(list(chunk.row_headers))
            embedded = [embedded_text(chunk.context, quoted).encode(), spans, row_headers.encode()]
            yield (
                self._next_row,
                chunk.chunk_id,
                number,
                chunk.start,
                chunk.end,
                line,
                _json(list(chunk.headings)),
                chunk.context,
                int(chunk.furniture),
                self._next_sentence,
                spans,
                row_headers,
                hashlib.sha256(b"\0".join(embedded)).digest(),
                gap,
                quoted,
            )
            self._next_row += 1
            self._next_sentence += len(chunk.sentences)
            line += quoted.count("\n")
            end_before = chunk.end


class Corpus:
    """A corpus opened for reading. One thread at a time may use it.

    Args:
        path: of a finished `corpus.sqlite`.

    Raises:
        DamagedGenerationError: the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._connection = sqlite3.connect(_read_only(path), uri=True, check_same_thread=False)
        except sqlite3.OperationalError as exc:
            raise DamagedGenerationError(f"{path.name} cannot be opened: {exc}") from exc
        self._chunks: dict[int, ChunkRecord] = {}
        self._surroundings: dict[int, tuple[str, str]] = {}
        self._documents: dict[int, DocumentRecord] = {}

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def counts(self) -> tuple[int, int, int]:
        """Count documents, chunks and sentences."""
        documents, sentences = self._connection.execute(
            "SELECT count(*), coalesce(sum(sentence_count), 0) FROM documents"
        ).fetchone()
        (chunks,) = self._connection.execute("SELECT count(*) FROM chunks").fetchone()
        return documents, chunks, sentences

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
        pieces = self._pieces(record.first_row, record.first_row + record.chunk_count)
        return "".join([*pieces, self._tail(record)])

    def outline(self, record: DocumentRecord) -> list[Heading]:
        """List the headings of a document, in order."""
        outline: list[Heading] = []
        before: list[str] = []
        for start, path in self._headings(record.first_row, record.first_row + record.chunk_count):
            pairs = zip(before, path, strict=False)
            known = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
            outline += [Heading(text, level, start) for level, text in enumerate(path[known:], start=known + 1)]
            before = path
        return outline

    def chunks(self, rows: Sequence[int]) -> list[ChunkRecord]:
        """Return chunks by row, in the order asked for."""
        known = {row: self._chunks[row] for row in rows if row in self._chunks}
        if len(known) < len(rows):
            for values in self._chunk_values([int(row) for row in rows if row not in known]):
                known[values[0]] = _chunk_record(values, self._document(values[2]))
                keep(self._chunks, values[0], known[values[0]], most=CACHED_CHUNKS)
        return [known[row] for row in rows]

    def text_before(self, chunk: ChunkRecord, length: int) -> str:
        """Return up to `length` code points, at most 32, of the document that stand before a chunk."""
        before, _ = self._around(chunk)
        return before[max(0, len(before) - length) :]

    def text_after(self, chunk: ChunkRecord, length: int) -> str:
        """Return up to `length` code points, at most 32, of the document that stand after a chunk."""
        return self._around(chunk)[1][:length]

    def _chunk_values(self, rows: Sequence[int]) -> list[tuple[Any, ...]]:
        """Read `CHUNK_COLUMNS` of some rows, in any order."""
        return self._connection.execute(
            f"SELECT {_of('c', CHUNK_COLUMNS)} "  # noqa: S608 (constants)
            "FROM json_each(?) AS wanted JOIN chunks AS c ON c.row = wanted.value",
            (_json(rows),),
        ).fetchall()

    def _pieces(self, first: int, end: int) -> Iterator[str]:
        """Read what stands before each chunk of a range of rows, and its text, as one."""
        cursor = self._connection.execute(
            "SELECT gap || text FROM chunks WHERE row BETWEEN ? AND ? ORDER BY row", (first, end - 1)
        )
        return (piece for (piece,) in cursor)

    def _headings(self, first: int, end: int) -> Iterator[tuple[int, list[str]]]:
        """Read the start and the headings of each chunk of a range of rows."""
        cursor = self._connection.execute(
            "SELECT start, headings FROM chunks WHERE row BETWEEN ? AND ? ORDER BY row", (first, end - 1)
        )
        return ((start, json.loads(headings)) for start, headings in cursor)

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
        (text,) = self._connection.execute("SELECT gap FROM chunks WHERE row = ?", (chunk.row,)).fetchone()
        row = chunk.row - 1
        while len(text) < SURROUNDING_CHARS and row >= chunk.document.first_row:
            (piece,) = self._connection.execute("SELECT gap || text FROM chunks WHERE row = ?", (row,)).fetchone()
            text = piece + text
            row -= 1
        return str(text[max(0, len(text) - SURROUNDING_CHARS) :])

    def _read_after(self, chunk: ChunkRecord) -> str:
        text = ""
        row = chunk.row + 1
        while len(text) < SURROUNDING_CHARS and row < chunk.document.first_row + chunk.document.chunk_count:
            (piece,) = self._connection.execute("SELECT gap || text FROM chunks WHERE row = ?", (row,)).fetchone()
            text += piece
            row += 1
        if len(text) < SURROUNDING_CHARS:
            text += self._tail(chunk.document)
        return text[:SURROUNDING_CHARS]

    def rows_embedded_from(self, digests: Iterable[bytes]) -> dict[bytes, int]:
        """Find chunks by the digest of what was embedded: digest -> row, for those that are there."""
        found: dict[bytes, int] = {}
        for digest in digests:
            values = self._connection.execute(
                "SELECT row FROM chunks WHERE embedded_sha256 = ? LIMIT 1", (digest,)
            ).fetchone()
            if values:
                found[digest] = values[0]
        return found

    def digests(self, rows: Sequence[int]) -> list[bytes]:
        """Return the digest of what was embedded for each row."""
        cursor = self._connection.execute(
            "SELECT c.row, c.embedded_sha256 FROM json_each(?) AS wanted JOIN chunks AS c ON c.row = wanted.value",
            (_json([int(row) for row in rows]),),
        )
        digests = dict(cursor.fetchall())
        return [digests[int(row)] for row in rows]

    def rows(self) -> Iterator[StoredChunk]:
        """Iterate over all chunks with what is kept beside them, in their order, to write them elsewhere."""
        cursor = self._connection.execute(
            f"SELECT {CHUNK_COLUMNS}, gap FROM chunks ORDER BY row"  # noqa: S608 (constants)
        )
        for *values, gap in cursor:
            chunk = _chunk_record(values, self._document(values[2]))
            yield StoredChunk(values[2], chunk, gap, *self._read_around(chunk))

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

    def sentence_layout(self) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return where each chunk's sentences begin (one more at the end), and which chunks are furniture."""
        starts: list[int] = []
        furniture: list[bool] = []
        for first_sentence, is_furniture in self._connection.execute(
            "SELECT first_sentence, is_furniture FROM chunks ORDER BY row"
        ):
            starts.append(first_sentence)
            furniture.append(bool(is_furniture))
        return np.array([*starts, self.counts()[2]], dtype=np.int64), np.array(furniture, dtype=np.bool_)


def _read_only(path: Path) -> str:
    return f"{path.resolve().as_uri()}?mode=ro&immutable=1"


def _create_tables(connection: sqlite3.Connection, schema: str = "main") -> None:
    for statement in (DOCUMENTS_TABLE, CHUNKS_TABLE):
        connection.execute(statement.replace("CREATE TABLE ", f"CREATE TABLE {schema}."))


def _plan(corpus: sqlite3.Connection, kept: Sequence[str]) -> CorpusLayout:
    """Give every document its final number, rows and sentences, in a temporary table that `_copy` reads."""
    corpus.execute("CREATE TEMP TABLE kept (doc_id TEXT PRIMARY KEY)")
    corpus.executemany("INSERT INTO kept VALUES (?)", ((doc_id,) for doc_id in kept))
    corpus.execute(
        """
        CREATE TEMP TABLE plan AS
        WITH originals AS (
            SELECT 'staging' AS origin, * FROM staging.documents
            UNION ALL
            SELECT 'parent', d.* FROM parent.documents AS d JOIN kept USING (doc_id)
        )
        SELECT origin,
               document AS old_document, first_row AS old_row, first_sentence AS old_sentence,
               chunk_count, sentence_count,
               row_number() OVER ordered - 1 AS document,
               sum(chunk_count) OVER ordered - chunk_count AS first_row,
               sum(sentence_count) OVER ordered - sentence_count AS first_sentence
        FROM originals WINDOW ordered AS (ORDER BY doc_id)
        """
    )
    corpus.execute("CREATE INDEX temp.plan_by_origin ON plan (origin, old_document)")
    rows = corpus.execute(
        "SELECT chunk_count, sentence_count, iif(origin = 'parent', old_row, -1), "
        "iif(origin = 'parent', old_sentence, -1) FROM plan ORDER BY document"
    ).fetchall()
    columns = np.array(rows, dtype=np.int64).reshape(-1, 4).T
    return CorpusLayout(columns[0], columns[1], columns[2], columns[3])


def _copy(corpus: sqlite3.Connection, origin: str) -> None:
    """Copy the planned documents of one origin with their chunks, renumbered."""
    corpus.execute(
        f"""
        INSERT INTO main.documents
        SELECT p.document, {_of("d", IDENTITY_COLUMNS)}, p.first_row, d.chunk_count,
               p.first_sentence, d.sentence_count, d.tail
        FROM plan AS p JOIN {origin}.documents AS d ON d.document = p.old_document
        WHERE p.origin = ? ORDER BY p.document
        """,  # noqa: S608 (constants)
        (origin,),
    )
    corpus.execute(
        f"""
        INSERT INTO main.chunks
        SELECT c.row - p.old_row + p.first_row, c.chunk_id, p.document, c.start, c.end, c.first_line, c.headings,
               c.context, c.is_furniture, c.first_sentence - p.old_sentence + p.first_sentence, c.sentences,
               c.row_headers,
               c.embedded_sha256, c.gap, c.text
        FROM plan AS p
        JOIN {origin}.chunks AS c ON c.row BETWEEN p.old_row AND p.old_row + p.chunk_count - 1
        WHERE p.origin = ? ORDER BY p.document, c.row
        """,  # noqa: S608 (constants)
        (origin,),
    )


def _positions(counts: NDArray[np.int64], firsts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number `counts[i]` positions from `firsts[i]` on, -1 throughout where `firsts[i]` is -1."""
    within = np.arange(counts.sum(), dtype=np.int64) - np.repeat(np.cumsum(counts) - counts, counts)
    origins = np.repeat(firsts, counts)
    return np.where(origins < 0, -1, origins + within)


def _of(alias: str, columns: str) -> str:
    return ", ".join(f"{alias}.{column.strip()}" for column in columns.split(","))


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


def _chunk_record(values: Sequence[Any], document: DocumentRecord) -> ChunkRecord:
    """Make a record of `CHUNK_COLUMNS`."""
    row, chunk_id, _, start, end, first_line, headings, context, furniture, first_sentence, *rest = values
    sentences, row_headers, text = rest
    numbers = np.frombuffer(sentences, dtype="<i4").tolist()
    return ChunkRecord(
        row=row,
        chunk_id=chunk_id,
        document=document,
        start=start,
        end=end,
        first_line=first_line,
        headings=tuple(json.loads(headings)),
        context=context,
        is_furniture=bool(furniture),
        first_sentence=first_sentence,
        sentences=tuple(zip(numbers[::2], numbers[1::2], strict=True)),
        row_headers=tuple((first, last, header) for first, last, header in json.loads(row_headers)),
        text=text,
    )


def keep(kept: dict[Key, Value], key: Key, value: Value, *, most: int) -> None:
    """Keep a value; of too many the one goes that came first."""
    kept[key] = value
    if len(kept) > most:
        del kept[next(iter(kept))]


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
