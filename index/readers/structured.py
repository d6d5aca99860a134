"""JSON and JSON Lines, as lines a person can read."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from index.documents import BlockKind, Content
from index.errors import DocumentError
from index.readers.builder import ContentBuilder
from index.readers.limits import Limits
from index.readers.text import canonical_text, clean

_NAMING_KEYS = ("title", "name", "heading")
_TEXT_KEYS = frozenset(["text", "body", "content"])  # they say no more than that a text follows
_HEADING_CHARS = 200
_LINE_CHARS = 300


def read_json(data: bytes, limits: Limits) -> Content:
    """Read JSON: an object becomes lines of `key: value`, with dots in the keys of nested objects.

    A long string is a paragraph with its own line breaks, the title or name of an object a heading, and each
    object in an array stands by itself. Numbers keep their digits; null and empty values are left out.

    Raises:
        DocumentError: it is not JSON, with line and column, or nested deeper than `Limits.nesting`.
    """
    value = parse_json(canonical_text(data, limits))
    writer = _Writer(limits)
    writer.write(value)
    content = writer.builder.content()
    return content if isinstance(value, dict) else replace(content, title=None)


def read_jsonl(data: bytes, limits: Limits) -> Content:
    """Read JSON Lines: each line is written out as `read_json` does.

    Raises:
        DocumentError: a line is not JSON; the message gives its number.
    """
    text = canonical_text(data, limits)
    writer = _Writer(limits)
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            writer.write(_parse_line(line, number))
    return replace(writer.builder.content(), title=None)


def parse_json(text: str) -> Any:
    """Parse JSON; numbers come as strings with the digits they are written with.

    Raises:
        DocumentError: it is not JSON; the message gives line and column.
    """
    try:
        return _parse(text)
    except json.JSONDecodeError as exc:
        hint = ", or name it .jsonl if every line is JSON by itself" if exc.msg == "Extra data" else ""
        raise DocumentError(
            f"it is not valid JSON: {exc.msg} at line {exc.lineno:,}, column {exc.colno:,}; correct it{hint}"
        ) from exc


def _parse(text: str) -> Any:
    try:
        return json.loads(text, parse_int=str, parse_float=str, parse_constant=str)
    except RecursionError as exc:
        raise DocumentError("its JSON is nested too deeply to be read; flatten it") from exc


def _parse_line(line: str, number: int) -> Any:
    try:
        return _parse(line)
    except json.JSONDecodeError as exc:
        raise DocumentError(
            f"line {number:,} is not valid JSON: {exc.msg} at column {exc.colno:,}; correct or remove the line"
        ) from exc


class _Writer:
    """Writes values as blocks."""

    def __init__(self, limits: Limits) -> None:
        self.builder = ContentBuilder(limits)
        self._nesting = limits.nesting
        self._lines: list[str] = []

    def write(self, value: Any) -> None:
        """Write a value that stands by itself."""
        self._write(value, (), 1)
        self._flush()

    def _write(self, value: Any, path: tuple[str, ...], depth: int) -> None:
        if depth > self._nesting:
            raise DocumentError(f"its JSON is nested deeper than {self._nesting} levels; flatten it")
        if isinstance(value, dict):
            self._write_object(value, path, depth)
        elif isinstance(value, list):
            self._write_array(value, path, depth)
        else:
            self._write_scalar(_shown(value), path)

    def _write_object(self, value: dict[str, Any], path: tuple[str, ...], depth: int) -> None:
        naming = next((key for key in _NAMING_KEYS if _names(value.get(key))), None)
        if naming is not None:
            self._flush()
            self.builder.add(BlockKind.HEADING, clean(value[naming]), level=min(depth, 6))
        for key, member in value.items():
            if key != naming:
                self._write(member, (*path, " ".join(clean(key).split())), depth + 1)

    def _write_array(self, values: Sequence[Any], path: tuple[str, ...], depth: int) -> None:
        scalars = [_shown(value) for value in values if not isinstance(value, (dict, list))]
        if len(scalars) == len(values):
            self._write_scalars([scalar for scalar in scalars if scalar.strip()], path)
            return
        for value in values:
            self._flush()
            self._write(value, path, depth + 1)
        self._flush()

    def _write_scalars(self, scalars: list[str], path: tuple[str, ...]) -> None:
        joined = ", ".join(scalars)
        if path and len(joined) <= _LINE_CHARS and "\n" not in joined:
            self._write_scalar(joined, path)
        else:
            for scalar in scalars:
                self._write_scalar(scalar, path)

    def _write_scalar(self, value: str, path: tuple[str, ...]) -> None:
        """Write a line `key: value`; a long or broken one becomes paragraphs."""
        value = value.strip()
        if not value:
            return
        is_long = len(value) > _LINE_CHARS or "\n" in value
        label = "" if not path or (is_long and path[-1].lower() in _TEXT_KEYS) else f"{'.'.join(path)}: "
        if not is_long:
            self._lines.append(label + value)
            return
        self._flush()
        for paragraph in _paragraphs(label + value):
            self.builder.add(BlockKind.PARAGRAPH, paragraph)

    def _flush(self) -> None:
        """Write the lines gathered so far as one block."""
        self.builder.add_parts(BlockKind.LIST, self._lines)
        self._lines = []


def _names(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value.strip()) <= _HEADING_CHARS and "\n" not in value.strip()


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return clean(value) if isinstance(value, str) else ""


def _paragraphs(text: str) -> Iterator[str]:
    """Yield the runs of lines between empty lines."""
    run: list[str] = []
    for line in text.split("\n"):
        if line.strip():
            run.append(line)
        elif run:
            yield "\n".join(run)
            run = []
    if run:
        yield "\n".join(run)
