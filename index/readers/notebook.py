"""Jupyter notebooks of format 3 and 4.

A notebook is JSON of a few known keys, read as it stands: the format's own library would validate it, log what it
finds, and refuse notebooks that are only slightly wrong.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from index.documents import BlockKind, Content, MetadataValue
from index.errors import DocumentError
from index.readers import markdown
from index.readers.blocks import copy_blocks
from index.readers.builder import ContentBuilder
from index.readers.limits import Limits
from index.readers.structured import parse_json
from index.readers.text import canonical_text, clean

_OBJECT_NAME = re.compile(r"<[^\n]*>")  # "<Figure size 640x480 with 1 Axes>" stands for what is not text


def read_notebook(data: bytes, limits: Limits) -> Content:
    """Read a notebook: Markdown cells with their structure, code and its text output as code.

    Pictures and other rich output are left out. The language of the kernel is metadata.

    Raises:
        DocumentError: it is not a notebook; the message says what is missing.
    """
    notebook = parse_json(canonical_text(data, limits))
    builder = ContentBuilder(limits)
    for number, cell in enumerate(_cells(notebook), start=1):
        if not isinstance(cell, dict):
            raise DocumentError(f"cell {number} of the notebook is damaged; open it in Jupyter and save it again")
        _write_cell(cell, builder)
    described = _mapping(notebook.get("metadata"))
    title = described.get("title")
    return builder.content(title=clean(title) if isinstance(title, str) else None, metadata=_metadata(described))


def _cells(notebook: Any) -> Iterator[Any]:
    holders: Any = [notebook]
    if isinstance(notebook, dict) and "cells" not in notebook:
        holders = notebook.get("worksheets")  # format 3
    for holder in holders if isinstance(holders, list) else [None]:
        cells = holder.get("cells") if isinstance(holder, dict) else None
        if not isinstance(cells, list):
            raise DocumentError(
                "it is no notebook: its list of cells is missing; open it in Jupyter and save it again"
            )
        yield from cells


def _write_cell(cell: dict[str, Any], builder: ContentBuilder) -> None:
    source = _joined(cell.get("source", cell.get("input")))
    kind = cell.get("cell_type")
    if kind == "markdown":
        copy_blocks(markdown.parse(source), builder)
    elif kind == "heading":  # format 3
        level = str(cell.get("level", 1))
        builder.add(BlockKind.HEADING, source, level=max(1, min(int(level[:9]), 6)) if level.isdecimal() else 1)
    else:
        builder.add(BlockKind.CODE, source)
    outputs = cell.get("outputs")
    for output in outputs if isinstance(outputs, list) else []:
        _write_output(_mapping(output), builder)


def _write_output(output: dict[str, Any], builder: ContentBuilder) -> None:
    data = _mapping(output.get("data"))
    if output.get("output_type") in ("error", "pyerr"):
        text = f"{_joined(output.get('ename'))}: {_joined(output.get('evalue'))}"
    else:
        text = _joined(output.get("text", data.get("text/plain")))
    if "text/markdown" in data:
        copy_blocks(markdown.parse(_joined(data["text/markdown"])), builder)
    elif not _OBJECT_NAME.fullmatch(text.strip()):
        builder.add(BlockKind.CODE, text)


def _joined(source: Any) -> str:
    """Join the lines of a source, which may also be one string."""
    lines = source if isinstance(source, list) else [source]
    return clean("".join(line for line in lines if isinstance(line, str)))


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _metadata(described: dict[str, Any]) -> dict[str, MetadataValue]:
    language = _mapping(described.get("language_info")).get("name")
    language = language or _mapping(described.get("kernelspec")).get("language")
    return {"language": clean(language)} if isinstance(language, str) and language.strip() else {}
