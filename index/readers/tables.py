"""Comma, semicolon, tab or pipe separated values."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator, Sequence

from index.documents import BlockKind, Content, Span
from index.errors import DocumentError
from index.readers.blocks import Blocks, Lines
from index.readers.limits import Limits
from index.readers.text import canonical_text

_DELIMITERS = ",;\t|"
_SAMPLE_ROWS = 50
_NUMBER = re.compile(r"[-+]?[\d.,\s]*\d[\d.,\s]*%?")
_YEAR = re.compile(r"(?:1[89]|20)\d\d")


def read_csv(data: bytes, limits: Limits) -> Content:
    """Read separated values: one table whose parts are the rows, which may span lines inside quotation marks.

    The separator is the one that gives the most columns evenly. The first row names the columns unless it
    has a number above numbers.

    Raises:
        DocumentError: a field is longer than the parser takes, mostly because its quotation marks do not close.
    """
    text = canonical_text(data, limits)
    lines, blocks = Lines(text), Blocks(text)
    delimiter = _delimiter(lines)
    sample: list[list[str]] = []
    spans: list[Span] = []
    for row, span in _rows(lines, delimiter):
        spans.append(span)
        if len(sample) < _SAMPLE_ROWS:
            sample.append(row)
    blocks.add_parts(BlockKind.TABLE, spans, header_rows=int(_has_header(sample)))
    return blocks.content()


def _rows(lines: Lines, delimiter: str, *, at_most: int | None = None) -> Iterator[tuple[list[str], Span]]:
    """Yield the cells of each row that is not empty, with its span."""
    numbers = range(len(lines))
    reader = csv.reader((lines[number] + "\n" for number in numbers[:at_most]), delimiter=delimiter)
    first = 0
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                yield row, lines.span(first, reader.line_num)
            first = reader.line_num
    except csv.Error as exc:
        raise DocumentError(
            f"the row that begins on line {first + 1:,} cannot be read: {exc}; check its quotation marks"
        ) from exc


def _delimiter(lines: Lines) -> str:
    """Choose the separator under which most of the first rows have the same number of columns, and many.

    One under which something stands between the quotation mark that closes a cell and the next separator comes after
    all others.
    """

    def evenness(delimiter: str) -> tuple[bool, float, int]:
        try:
            widths = Counter(len(row) for row, _ in _rows(lines, delimiter, at_most=_SAMPLE_ROWS))
        except DocumentError:  # a field without end, under a separator that is not the right one
            return False, 0.0, 1
        width, count = max(widths.items(), key=lambda item: (item[1], item[0]), default=(1, 0))
        if width == 1:
            return False, 0.0, 1
        return _is_well_quoted(lines, delimiter), count / widths.total(), width

    return max(_DELIMITERS, key=evenness)


def _is_well_quoted(lines: Lines, delimiter: str) -> bool:
    first = (lines[number] + "\n" for number in range(len(lines))[:_SAMPLE_ROWS])
    try:
        for _ in csv.reader(first, delimiter=delimiter, strict=True):
            pass
    except csv.Error as exc:
        # The other error is an open cell at the end, which may go on behind the sample.
        return "expected after" not in str(exc)
    return True


def _has_header(rows: Sequence[Sequence[str]]) -> bool:
    """Whether the first row names columns.

    It does not when it is the only row, or when it has a number, other than a year, above a column of numbers.
    """
    if len(rows) < 2:
        return False
    first, below = rows[0], rows[1:]
    columns = [[row[number].strip() for row in below if number < len(row)] for number in range(len(first))]
    return not any(_continues(cell.strip(), column) for cell, column in zip(first, columns, strict=True))


def _continues(cell: str, column: Sequence[str]) -> bool:
    """Whether a cell is a number like those below it."""
    if not _NUMBER.fullmatch(cell) or _YEAR.fullmatch(cell):
        return False
    filled = [value for value in column if value]
    return bool(filled) and all(_NUMBER.fullmatch(value) for value in filled)
