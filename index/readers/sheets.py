"""XLSX: the sheets of a workbook as tables of what their cells show."""

from __future__ import annotations

import datetime
import io
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import replace

from openpyxl import load_workbook
from openpyxl.utils.exceptions import InvalidFileException
from openpyxl.workbook.workbook import Workbook

from index.documents import BlockKind, Content
from index.errors import DocumentError
from index.readers.archives import core_properties, damage_reported, open_archive
from index.readers.builder import ContentBuilder
from index.readers.limits import Limits

Row = list[str]


def read_xlsx(data: bytes, limits: Limits) -> Content:
    """Read a workbook: each sheet a heading and its tables, which empty rows set apart.

    Of formulas the value last computed is read; macros and links to other files are not.

    Raises:
        DocumentError: the file is damaged, protected, or crosses a limit.
    """
    with open_archive(data, limits) as archive:
        title, metadata = core_properties(archive)
    builder = ContentBuilder(limits)
    with damage_reported("workbook", InvalidFileException), warnings.catch_warnings():
        # openpyxl warns of every feature that it does not keep; none of them holds text.
        warnings.filterwarnings("ignore", category=UserWarning, module="openpyxl")
        workbook = load_workbook(io.BytesIO(data), read_only=True, data_only=True, keep_links=False)
        _add_sheets(builder, workbook, limits)
        workbook.close()
    return replace(builder.content(metadata=metadata), title=title)  # the name of a sheet is no title


def _add_sheets(builder: ContentBuilder, workbook: Workbook, limits: Limits) -> None:
    for sheet in workbook.worksheets:
        sheet.reset_dimensions()  # those stated in the file are often wrong
        tables = list(_tables(sheet.iter_rows(values_only=True), limits))
        if tables:
            builder.add(BlockKind.HEADING, sheet.title, level=1)
        for table in tables:
            _add_table(builder, table)


def _tables(rows: Iterable[tuple[object, ...]], limits: Limits) -> Iterator[list[Row]]:
    """Split the rows of a sheet at the empty ones."""
    table: list[Row] = []
    characters = 0
    for values in rows:
        row = [_shown(value) for value in values]
        characters += sum(map(len, row))
        if characters > limits.text_chars:
            raise DocumentError(
                f"a sheet holds more than {limits.text_chars:,} characters; split it into smaller files"
            )
        if any(row):
            table.append(row)
        elif table:
            yield table
            table = []
    if table:
        yield table


def _add_table(builder: ContentBuilder, table: list[Row]) -> None:
    """Append a table without its empty columns; a single cell is a paragraph."""
    width = max(map(len, table))
    padded = [row + [""] * (width - len(row)) for row in table]
    columns = [column for column in range(width) if any(row[column] for row in padded)]
    rows = [[row[column] for column in columns] for row in padded]
    if len(rows) == len(columns) == 1:
        builder.add(BlockKind.PARAGRAPH, rows[0][0])
    else:
        texts = [" | ".join(row) for row in rows]
        builder.add_parts(BlockKind.TABLE, texts, header_rows=int(_has_header(rows)))


def _has_header(rows: list[Row]) -> bool:
    """Tell whether the first row names the columns: it has a word in each and stands above others."""
    return len(rows) > 1 and all(any(map(str.isalpha, cell)) for cell in rows[0])


def _shown(value: object) -> str:
    """Return a cell as text on one line."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, float):
        return f"{value:.15g}"  # the precision of a spreadsheet
    if isinstance(value, datetime.datetime):
        return value.isoformat(" ").removesuffix(" 00:00:00")
    return " ".join(str(value).split())
