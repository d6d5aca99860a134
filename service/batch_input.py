"""Questions from a file, a row at a time: JSON Lines, CSV, TSV, plain lines or Parquet, compressed or not.

However large a file or a line of it is, little of it is held. A row without a question is a row all the same, and
says what is wrong with it.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import hashlib
import io
import json
import math
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import date, time
from pathlib import Path
from typing import Any, BinaryIO, cast

from index.errors import WhenceError
from service.batch_formats import InputFormat, parquet_modules, zstd

MAX_LINE_BYTES = 1_000_000
QUESTION_FIELDS = ("question", "text")  # in order of precedence
DELIMITERS = ",;\t|"  # of CSV; the first of those that are most frequent in the header
PARQUET_ROWS = 256  # decoded at a time

_CHUNK = 1 << 16
_INVALID = "whence-invalid"
_BOMS = (
    # Those of UTF-32 first: they begin like those of UTF-16.
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


@dataclass(frozen=True)
class Row:
    """A row of the input.

    Attributes:
        line: on which it begins, from 1; of a Parquet file, its number.
        question: its text; None when it has none.
        carried: all other fields, as JSON has them.
        error: why it cannot be asked; None when it can.
        size: about how many bytes it takes.
    """

    line: int
    question: str | None
    carried: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None
    size: int = 0


class Seen:
    """What was read of a stream.

    Attributes:
        size: in bytes.
    """

    def __init__(self) -> None:
        self.size = 0
        self._digest = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """Of these bytes."""
        return self._digest.hexdigest()

    def add(self, data: bytes) -> None:
        """Note bytes that were read."""
        self.size += len(data)
        self._digest.update(data)


@dataclass(frozen=True)
class QuestionFile:
    """A file of questions.

    Attributes:
        path: None for standard input.
        format: how they are written down.
        field: that holds the question; None for the first of `QUESTION_FIELDS` that is there.
        encoding: of its text; a byte order mark overrides it.
    """

    path: Path | None
    format: InputFormat
    field: str | None = None
    encoding: str = "utf-8"

    @property
    def name(self) -> str:
        """What to call it."""
        return "Standard input" if self.path is None else str(self.path)

    @property
    def is_stream(self) -> bool:
        """Whether it can be read only once: standard input, or a pipe."""
        return self.path is None or (self.path.exists() and not self.path.is_file())

    def rows(self, *, size: int | None = None, seen: Seen | None = None) -> Iterator[Row]:
        """Read the rows.

        Args:
            size: bytes of the file that are read, whatever it has grown to; None for all.
            seen: told of what is read.

        Raises:
            WhenceError: the file cannot be read, is cut off, or has no column for the question.
        """
        with self._open(size, seen) as stream:
            if self.format is InputFormat.PARQUET:
                yield from _parquet_rows(stream, self)
                return
            text = _decoded(_decompressed(stream), self.encoding)
            match self.format:
                case InputFormat.JSONL:
                    yield from _json_rows(text, self.field)
                case InputFormat.LINES:
                    yield from _line_rows(text)
                case _:
                    yield from _table_rows(text, self)

    @contextmanager
    def _open(self, size: int | None, seen: Seen | None) -> Iterator[io.BufferedReader]:
        with ExitStack() as stack:
            try:
                stream = sys.stdin.buffer if self.path is None else stack.enter_context(self.path.open("rb", _CHUNK))
                yield io.BufferedReader(_Watched(stream, size, seen), _CHUNK)
            except (OSError, EOFError, zlib.error, zstd.ZstdError) as exc:
                reason = getattr(exc, "strerror", None) or exc
                raise WhenceError(f"{self.name} cannot be read: {reason}. Check the path and the file.") from exc


class _Watched(io.RawIOBase):
    """A file of which no more than the beginning is read, or of which is noted what was read."""

    def __init__(self, stream: BinaryIO, size: int | None, seen: Seen | None) -> None:
        self._stream = stream
        self._size = size
        self._seen = seen

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._stream.seekable()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_END and self._size is not None:
            offset, whence = self._size + offset, io.SEEK_SET
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def readinto(self, buffer: Any) -> int:
        wanted = len(buffer)
        if self._size is not None:
            wanted = max(0, min(wanted, self._size - self._stream.tell()))
        data = cast(io.BufferedReader, self._stream).read1(wanted)
        if self._seen is not None:
            self._seen.add(data)
        buffer[: len(data)] = data
        return len(data)


class _Recoded(io.RawIOBase):
    """Text of any encoding as UTF-8; where it cannot be decoded stands a byte that UTF-8 does not have."""

    def __init__(self, stream: io.BufferedReader, encoding: str) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder(encoding)(_INVALID)
        self._ready = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        is_over = False
        while not self._ready and not is_over:
            data = self._stream.read(_CHUNK)
            is_over = not data
            self._ready = self._decoder.decode(data, is_over).encode("utf-8", "surrogateescape")
        size = min(len(buffer), len(self._ready))
        buffer[:size], self._ready = self._ready[:size], self._ready[size:]
        return size


codecs.register_error(_INVALID, lambda error: ("\udcff", cast(UnicodeDecodeError, error).end))


def _decompressed(stream: io.BufferedReader) -> io.BufferedReader:
    """Undo gzip or Zstandard, which are told by their first bytes."""
    start = stream.peek(4)[:4]
    if start[:2] == b"\x1f\x8b":
        return io.BufferedReader(cast(io.RawIOBase, gzip.GzipFile(fileobj=stream)), _CHUNK)
    if start == b"\x28\xb5\x2f\xfd":
        return io.BufferedReader(cast(io.RawIOBase, zstd.ZstdFile(stream)), _CHUNK)
    return stream


def _decoded(stream: io.BufferedReader, encoding: str) -> io.BufferedReader:
    """Turn text into UTF-8 without a byte order mark."""
    start = stream.peek(4)[:4]
    encoding = next((name for mark, name in _BOMS if start.startswith(mark)), encoding)
    if start.startswith(codecs.BOM_UTF8):
        stream.read(len(codecs.BOM_UTF8))
    elif codecs.lookup(encoding).name != "utf-8":
        return io.BufferedReader(_Recoded(stream, encoding), _CHUNK)
    return stream


def _lines(stream: io.BufferedReader) -> Iterator[tuple[int, bytes | None]]:
    """Yield each line with its number; None in place of one that is too long, of which the rest is skipped."""
    number = 0
    while line := stream.readline(MAX_LINE_BYTES):
        number += 1
        if len(line) < MAX_LINE_BYTES or line.endswith(b"\n"):
            yield number, line
            continue
        while line and not line.endswith(b"\n"):
            line = stream.readline(MAX_LINE_BYTES)
        yield number, None


_TOO_LONG = f"The line has more than {MAX_LINE_BYTES:,} bytes. Shorten it."
_NOT_TEXT = "The line cannot be decoded. Save the file as UTF-8, or name its --encoding."


def _line_rows(stream: io.BufferedReader) -> Iterator[Row]:
    for number, line in _lines(stream):
        if line is None:
            yield Row(number, None, error=_TOO_LONG)
        elif line.strip():
            try:
                yield Row(number, line.decode().strip(), size=len(line))
            except UnicodeDecodeError:
                yield Row(number, None, error=_NOT_TEXT)


def _json_rows(stream: io.BufferedReader, name: str | None) -> Iterator[Row]:
    for number, line in _lines(stream):
        if line is None:
            yield Row(number, None, error=_TOO_LONG)
        elif line.strip():
            yield _json_row(number, line, name)


def _json_row(number: int, line: bytes, name: str | None) -> Row:
    try:
        parsed = json.loads(line.decode(), parse_float=_finite, parse_constant=_finite)
        json.dumps(parsed, ensure_ascii=False).encode()  # JSON can spell half a character
    except UnicodeDecodeError:
        return Row(number, None, error=_NOT_TEXT)
    except UnicodeEncodeError:
        return Row(number, None, error="The line spells half a character, which is no text.")
    except json.JSONDecodeError as exc:
        return Row(number, None, error=f"The line is not JSON: {exc.msg} at character {exc.pos + 1}.")
    except (ValueError, RecursionError) as exc:
        return Row(number, None, error=f"The line is not JSON that can be kept: {exc}.")
    if isinstance(parsed, str):
        return Row(number, parsed, size=len(line))
    if not isinstance(parsed, dict):
        return Row(number, None, error="The line is neither an object nor a text.")
    return _row(number, parsed, name, size=len(line))


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is no number that JSON has")
    return number


def _row(number: int, fields: Mapping[str, Any], name: str | None, *, size: int) -> Row:
    wanted = QUESTION_FIELDS if name is None else (name,)
    found = next((each for each in wanted if each in fields), None)
    if found is None:
        return Row(number, None, fields, f"There is no field {' or '.join(map(repr, wanted))}.", size)
    question = fields[found]
    carried = {each: value for each, value in fields.items() if each != found}
    if question is None or isinstance(question, str):
        return Row(number, question or "", carried, size=size)
    return Row(number, None, carried, f"The field {found!r} holds no text.", size)


class _TextLines:
    """Lines for a CSV reader. When one is refused the next can be read, which a generator could not do."""

    def __init__(self, stream: io.BufferedReader) -> None:
        self._lines = _lines(stream)
        self._ahead: str | None = None
        self.number = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if self._ahead is not None:
            line, self._ahead = self._ahead, None
            return line
        self.number, data = next(self._lines)
        if data is None:
            raise csv.Error(_TOO_LONG)
        try:
            return data.decode()
        except UnicodeDecodeError as exc:
            raise csv.Error(_NOT_TEXT) from exc

    def first(self) -> str:
        """Return the first line that is not blank, which is then the next to be read; empty without any."""
        self._ahead = next((line for line in self if line.strip()), "")
        return self._ahead


def _table_rows(stream: io.BufferedReader, file: QuestionFile) -> Iterator[Row]:
    lines = _TextLines(stream)
    try:
        records = _records(lines, file.format)
        names = [name.strip() for name in _next_record(records) or ()]
    except csv.Error as exc:
        raise WhenceError(f"The header of {file.name} cannot be read. {exc}") from exc
    if not names:
        return
    column = _question_column(names, file)
    while True:
        number = lines.number + 1
        try:
            cells = _next_record(records)
        except csv.Error as exc:
            yield Row(number, None, error=f"The row cannot be read. {exc}")
            continue
        if cells is None:
            return
        if cells:
            yield _table_row(number, names, cells, column)


def _records(lines: _TextLines, form: InputFormat) -> Iterator[list[str]]:
    """Read the cells of each record. TSV has none of the quoting of CSV: a quotation mark in it is one."""
    header = lines.first()
    if form is InputFormat.TSV:
        return csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    return csv.reader(lines, delimiter=max(DELIMITERS, key=header.count))


def _next_record(records: Iterator[list[str]]) -> list[str] | None:
    """Read the cells of the next record; None after the last. The limit on a cell is set for this record alone."""
    usual = csv.field_size_limit(MAX_LINE_BYTES)
    try:
        return next(records, None)
    finally:
        csv.field_size_limit(usual)


def _question_column(names: Sequence[str], file: QuestionFile) -> str:
    named = [name for name in names if name]
    twice = next((name for name in named if named.count(name) > 1), None)
    if twice is not None:
        raise WhenceError(f"{file.name} has two columns {twice!r}. Rename one of them.")
    wanted = QUESTION_FIELDS if file.field is None else (file.field,)
    found = next((name for name in wanted if name in names), None)
    if found is None:
        raise WhenceError(
            f"{file.name} has no column {' or '.join(map(repr, wanted))}. Its columns: {', '.join(named)}. "
            "Name the one that holds the question: --field NAME"
        )
    return found


def _table_row(number: int, names: Sequence[str], cells: Sequence[str], column: str) -> Row:
    size = sum(map(len, cells))
    if len(cells) > len(names):
        return Row(number, None, {}, f"The row has {len(cells)} cells, the header {len(names)}.", size)
    fields = {name: cell for name, cell in zip(names, cells, strict=False) if name}
    return _row(number, {column: "", **fields}, column, size=size)


def _parquet_rows(stream: io.BufferedReader, file: QuestionFile) -> Iterator[Row]:
    arrow, parquet = parquet_modules()
    number = 0
    try:
        with parquet.ParquetFile(stream) as table:
            column = _question_column(table.schema_arrow.names, file)
            for batch in table.iter_batches(PARQUET_ROWS):
                for values in _without_nanoseconds(arrow, batch).to_pylist():
                    number += 1
                    fields = {name: _as_json(value) for name, value in values.items()}
                    yield _row(number, fields, column, size=sum(len(str(value)) for value in fields.values()))
    except (arrow.ArrowException, ValueError) as exc:
        raise WhenceError(f"{file.name} cannot be read as Parquet after row {number}: {exc}.") from exc


def _without_nanoseconds(arrow: Any, batch: Any) -> Any:
    """Turn moments that Python cannot hold into text."""
    for place, kind in enumerate(batch.schema.types):
        if arrow.types.is_timestamp(kind) and kind.unit == "ns":
            batch = batch.set_column(place, batch.schema.names[place], batch.column(place).cast(arrow.string()))
    return batch


def _as_json(value: Any) -> Any:
    """Turn a value of a Parquet file into one that JSON has; what JSON has no kind for becomes text."""
    match value:
        case float() if not math.isfinite(value):
            return None
        case None | bool() | int() | float() | str():
            return value
        case bytes():
            return value.decode("utf-8", "replace")
        case date() | time():
            return value.isoformat()
        case Mapping():
            return {str(name): _as_json(each) for name, each in value.items()}
        case list() | tuple():
            return [_as_json(each) for each in value]
    return str(value)
