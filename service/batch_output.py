"""Answers as rows of a file: JSON Lines, CSV, Parquet or a TREC run.

Answers are rendered where they are found, in several processes; rows are put together from them, and from what the
input carries along, in one. The bytes depend on nothing but the rows.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote as percent_encode

from index.answers import Answer
from service.batch_formats import OutputFormat, parquet_modules
from service.batch_input import Row
from service.schemas.answers import AnswerJson, CitationJson, PassageJson, answer_json

ANSWER_FIELDS = (
    "question",
    "answered",
    "confidence",
    "answer",
    "passages",
    "generation",
    "model",
    "encoder",
    "reranker",
)
ERROR_FIELDS = ("line", "error")
QUERY_ID_FIELDS = ("id", "_id", "query_id", "qid", "question_id")  # in order of precedence
RUN_TAG = "whence"
# What a spreadsheet takes for the beginning of a formula (OWASP, "CSV Injection").
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


class CellKind(Enum):
    """What the cells of a column hold."""

    TEXT = "text"
    INTEGER = "integer"
    NUMBER = "number"
    TRUTH = "truth"


@dataclass(frozen=True)
class Shape:
    """What is written of each row.

    Attributes:
        format: of the file.
        top_k: passages that have columns in a table.
        fields: names of fields that are kept; None keeps all.
        carried: in a table the columns for what the input carries: name -> kind.
        id_field: of the input, for the query ids of a run; None for the first of `QUERY_ID_FIELDS` that is there.
        for_spreadsheet: whether cells of a CSV are kept from being taken for formulas.
    """

    format: OutputFormat
    top_k: int
    fields: frozenset[str] | None = None
    carried: tuple[tuple[str, CellKind], ...] = ()
    id_field: str | None = None
    for_spreadsheet: bool = False

    def keeps(self, name: str) -> bool:
        """Whether a field is kept."""
        return self.fields is None or name in self.fields


@dataclass(frozen=True)
class AnsweredRow:
    """A row with what became of it.

    Attributes:
        row: of the input.
        payload: its answer as rendered; None when there is none.
        error: why there is none.
    """

    row: Row
    payload: bytes | None = None
    error: str | None = None


class Output(Protocol):
    """A format of answers."""

    def render(self, answer: Answer) -> bytes:
        """Write down an answer, so that rows can be made of it."""

    def head(self) -> bytes:
        """Return what stands before the first row."""

    def rows(self, rows: Sequence[AnsweredRow]) -> bytes:
        """Write down rows, in their order."""


def output_of(shape: Shape) -> Output:
    """Return the format that writes rows of a shape."""
    match shape.format:
        case OutputFormat.JSONL:
            return JsonLines(shape)
        case OutputFormat.CSV:
            return CsvTable(shape)
        case OutputFormat.PARQUET:
            return ArrowTable(shape)
        case OutputFormat.TREC:
            return TrecRun(shape)


def reserved_names(shape: Shape) -> frozenset[str]:
    """Return the names that fields of the input cannot keep, because the answer has them."""
    if shape.format is OutputFormat.JSONL:
        return frozenset((*ANSWER_FIELDS, *ERROR_FIELDS))
    return frozenset((*(column.name for column in answer_columns(shape.top_k)), *ERROR_FIELDS))


def carried_names(names: Iterable[str], reserved: frozenset[str]) -> dict[str, str]:
    """Name what the input carries: as it was, with `input_` before a name that the answer has.

    Returns:
        Name in the input -> name in the output.
    """
    names = list(names)
    taken = {*reserved, *names}
    renamed: dict[str, str] = {}
    for name in names:
        renamed[name] = _free(name, taken) if name in reserved else name
        taken.add(renamed[name])
    return renamed


def _free(name: str, taken: set[str]) -> str:
    while name in taken:
        name = f"input_{name}"
    return name


class JsonLines:
    """An object a row: what the input carries, then the answer as it is over HTTP but for the time it took."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._reserved = reserved_names(shape)
        self._included = {name for name in ANSWER_FIELDS if shape.keeps(name)}

    def render(self, answer: Answer) -> bytes:
        """Write the answer's object."""
        return answer_json(answer, include=self._included)

    def head(self) -> bytes:
        """Return nothing."""
        return b""

    def rows(self, rows: Sequence[AnsweredRow]) -> bytes:
        """Write a line for each row."""
        return b"".join(map(self._line, rows))

    def _line(self, answered: AnsweredRow) -> bytes:
        row = answered.row
        names = carried_names(row.carried, self._reserved)
        carried = _json({name: row.carried[own] for own, name in names.items() if self._shape.keeps(name)})
        rest = answered.payload
        if rest is None:
            rest = _json({"question": row.question, "line": row.line, "error": answered.error})
        return b"{" + b",".join(filter(None, (carried[1:-1], rest[1:-1]))) + b"}\n"


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: of the column.
        field: of the answer that it belongs to.
        kind: of its cells.
        value: gives its cell.
    """

    name: str
    field: str
    kind: CellKind
    value: Callable[[AnswerJson], Any]


def answer_columns(top_k: int) -> list[Column]:
    """Return the columns of an answer: answer, citation and passages side by side."""
    columns = [
        Column("question", "question", CellKind.TEXT, lambda answer: answer.question),
        Column("answered", "answered", CellKind.TRUTH, lambda answer: answer.answered),
        Column("confidence", "confidence", CellKind.NUMBER, lambda answer: answer.confidence),
        Column("answer", "answer", CellKind.TEXT, lambda answer: answer.answer and answer.answer.text),
    ]
    for name, (kind, value) in _CITATION_CELLS.items():
        columns.append(Column(f"answer_{name}", "answer", kind, _of_quote(value)))
    for place in range(top_k):
        for name, (kind, of_passage) in _PASSAGE_CELLS.items():
            columns.append(Column(f"passage_{place + 1}_{name}", "passages", kind, _of_passage(place, of_passage)))
    columns.append(Column("generation", "generation", CellKind.TEXT, lambda answer: answer.generation))
    columns.append(Column("model", "model", CellKind.TEXT, lambda answer: answer.model.name))
    columns.append(Column("encoder", "encoder", CellKind.TEXT, lambda answer: answer.encoder))
    return columns


_CITATION_CELLS: Mapping[str, tuple[CellKind, Callable[[CitationJson], Any]]] = {
    "document": (CellKind.TEXT, lambda citation: citation.document.id),
    "title": (CellKind.TEXT, lambda citation: citation.document.title),
    "sha256": (CellKind.TEXT, lambda citation: citation.document.sha256),
    "start": (CellKind.INTEGER, lambda citation: citation.start),
    "end": (CellKind.INTEGER, lambda citation: citation.end),
    "first_line": (CellKind.INTEGER, lambda citation: citation.first_line),
    "last_line": (CellKind.INTEGER, lambda citation: citation.last_line),
    "page": (CellKind.INTEGER, lambda citation: citation.page),
    "headings": (CellKind.TEXT, lambda citation: " › ".join(citation.headings)),
    "url": (CellKind.TEXT, lambda citation: citation.url),
}
_PASSAGE_CELLS: Mapping[str, tuple[CellKind, Callable[[PassageJson], Any]]] = {
    "text": (CellKind.TEXT, lambda passage: passage.text),
    "score": (CellKind.NUMBER, lambda passage: passage.score),
    "document": (CellKind.TEXT, lambda passage: passage.citation.document.id),
    "start": (CellKind.INTEGER, lambda passage: passage.citation.start),
    "end": (CellKind.INTEGER, lambda passage: passage.citation.end),
    "url": (CellKind.TEXT, lambda passage: passage.citation.url),
}


def _of_quote(value: Callable[[CitationJson], Any]) -> Callable[[AnswerJson], Any]:
    return lambda answer: None if answer.answer is None else value(answer.answer.citation)


def _of_passage(place: int, value: Callable[[PassageJson], Any]) -> Callable[[AnswerJson], Any]:
    return lambda answer: value(answer.passages[place]) if place < len(answer.passages) else None


class _Table:
    """What both tables have in common: their columns, and the cells of a row."""

    def __init__(self, shape: Shape) -> None:
        self._columns = [column for column in answer_columns(shape.top_k) if shape.keeps(column.field)]
        names = carried_names((name for name, _ in shape.carried), reserved_names(shape))
        self._carried = [(name, names[name], kind) for name, kind in shape.carried if shape.keeps(names[name])]

    @property
    def kinds(self) -> dict[str, CellKind]:
        """Name -> kind of each column, in order."""
        return {
            **{name: kind for _, name, kind in self._carried},
            **{column.name: column.kind for column in self._columns},
            "line": CellKind.INTEGER,
            "error": CellKind.TEXT,
        }

    def answer_cells(self, answer: Answer) -> list[Any]:
        record = AnswerJson.of(answer)
        return [column.value(record) for column in self._columns]

    def carried_cells(self, row: Row) -> list[Any]:
        return [_cell(row.carried.get(own), kind) for own, _, kind in self._carried]

    def cells_without_answer(self, row: Row) -> list[Any]:
        return [row.question if column.name == "question" else None for column in self._columns]

    def error_cells(self, answered: AnsweredRow) -> list[Any]:
        return [None, None] if answered.payload is not None else [answered.row.line, answered.error]


class CsvTable(_Table):
    """A table as text, in UTF-8."""

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        self._for_spreadsheet = shape.for_spreadsheet

    def render(self, answer: Answer) -> bytes:
        """Write the answer's cells."""
        return self._cells(self.answer_cells(answer))

    def head(self) -> bytes:
        """Return the names of the columns; for a spreadsheet after a mark that says it is UTF-8."""
        mark = "\N{BYTE ORDER MARK}" if self._for_spreadsheet else ""
        return mark.encode() + self._cells(list(self.kinds)) + b"\n"

    def rows(self, rows: Sequence[AnsweredRow]) -> bytes:
        """Write a record for each row."""
        return b"".join(map(self._record, rows))

    def _record(self, answered: AnsweredRow) -> bytes:
        answer = answered.payload
        if answer is None:
            answer = self._cells(self.cells_without_answer(answered.row))
        carried = self._cells(self.carried_cells(answered.row))
        groups = ((self._carried, carried), (self._columns, answer))
        cells = [cells for columns, cells in groups if columns]
        return b",".join([*cells, self._cells(self.error_cells(answered))]) + b"\n"

    def _cells(self, values: Iterable[Any]) -> bytes:
        stream = io.StringIO()
        # What is in the line terminator is quoted in a cell.
        csv.writer(stream, lineterminator="\r\n").writerow([self._text(value) for value in values])
        cells = stream.getvalue().removesuffix("\r\n")
        return b"" if cells == '""' else cells.encode()  # an only cell that is empty: others follow

    def _text(self, value: Any) -> str:
        match value:
            case None:
                return ""
            case str():
                is_formula = self._for_spreadsheet and value.startswith(FORMULA_STARTS)
                return f"'{value}" if is_formula else value
        return json.dumps(value)


class ArrowTable(_Table):
    """A table of typed columns: each part is a batch of an Arrow stream, which becomes a Parquet file in the end."""

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        self._arrow, _ = parquet_modules()

    def render(self, answer: Answer) -> bytes:
        """Write the answer's cells."""
        return _json(self.answer_cells(answer))

    def head(self) -> bytes:
        """Return the schema."""
        schema: bytes = self._schema().serialize().to_pybytes()
        return schema

    def rows(self, rows: Sequence[AnsweredRow]) -> bytes:
        """Write the rows as one batch."""
        schema = self._schema()
        columns = zip(*map(self._record, rows), strict=True)
        arrays = [self._arrow.array(column, type) for column, type in zip(columns, schema.types, strict=True)]
        batch: bytes = self._arrow.RecordBatch.from_arrays(arrays, schema=schema).serialize().to_pybytes()
        return batch

    def _record(self, answered: AnsweredRow) -> list[Any]:
        payload = answered.payload
        answer = self.cells_without_answer(answered.row) if payload is None else json.loads(payload)
        return [*self.carried_cells(answered.row), *answer, *self.error_cells(answered)]

    def _schema(self) -> Any:
        types = {
            CellKind.TEXT: self._arrow.string(),
            CellKind.INTEGER: self._arrow.int64(),
            CellKind.NUMBER: self._arrow.float64(),
            CellKind.TRUTH: self._arrow.bool_(),
        }
        return self._arrow.schema([(name, types[kind]) for name, kind in self.kinds.items()])


class TrecRun:
    """A ranking of documents for each question, each ranked by its best passage; a row without an answer has no line.

    Columns of a run hold no white space: in ids it is percent-encoded.
    """

    def __init__(self, shape: Shape) -> None:
        self._id_fields = QUERY_ID_FIELDS if shape.id_field is None else (shape.id_field,)

    def render(self, answer: Answer) -> bytes:
        """Write the ranking, query ids left out."""
        scores: dict[str, float] = {}
        for passage in answer.passages:
            # Programs that read runs sort by score: after a reranker that must be one of its order.
            score = passage.score if answer.reranker is None else 1 / passage.rank
            scores.setdefault(passage.citation.document.id, score)
        ranking = enumerate(scores.items(), start=1)
        return "".join(
            f" Q0 {_unspaced(doc_id)} {rank} {score!r} {RUN_TAG}\n" for rank, (doc_id, score) in ranking
        ).encode()

    def head(self) -> bytes:
        """Return nothing."""
        return b""

    def rows(self, rows: Sequence[AnsweredRow]) -> bytes:
        """Write the rankings of rows."""
        return b"".join(self._ranking(answered) for answered in rows)

    def _ranking(self, answered: AnsweredRow) -> bytes:
        carried = answered.row.carried
        ids = (str(carried[name]) for name in self._id_fields if carried.get(name) not in (None, ""))
        query_id = _unspaced(next(ids, str(answered.row.line))).encode()
        return b"".join(query_id + line for line in (answered.payload or b"").splitlines(keepends=True))


def write_parquet(stream: Path, target: Path) -> None:
    """Make a Parquet file of an Arrow stream, with a row group for each of its batches.

    Raises:
        OSError: it cannot be written.
    """
    arrow, parquet = parquet_modules()
    with (
        stream.open("rb") as source,
        arrow.ipc.open_stream(source) as batches,
        parquet.ParquetWriter(str(target), batches.schema, compression="zstd") as writer,
    ):
        for batch in batches:
            writer.write_batch(batch)


def kind_of_cell(value: Any) -> CellKind | None:
    """Tell what kind of column can hold a value of JSON; None when any can."""
    match value:
        case None:
            return None
        case bool():
            return CellKind.TRUTH
        case int():
            return CellKind.INTEGER if -(2**63) <= value < 2**63 else CellKind.TEXT
        case float():
            return CellKind.NUMBER
    return CellKind.TEXT


def common_kind(one: CellKind, other: CellKind) -> CellKind:
    """Return the kind of column that holds cells of both kinds."""
    if one is other:
        return one
    return CellKind.NUMBER if {one, other} == {CellKind.INTEGER, CellKind.NUMBER} else CellKind.TEXT


def _cell(value: Any, kind: CellKind) -> Any:
    if kind is CellKind.TEXT and value is not None and not isinstance(value, str):
        return _json(value).decode()
    return value


def _unspaced(name: str) -> str:
    return "".join(percent_encode(letter) if letter.isspace() else letter for letter in name)


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
