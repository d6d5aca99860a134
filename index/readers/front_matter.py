"""YAML front matter: the lines between `---` and `---` at the top of a text."""

from __future__ import annotations

import math
import re
from datetime import date
from typing import Any

import yaml

from index.documents import MetadataValue

MAX_CHARS = 50_000

_FENCED = re.compile(r"---[ \t]*\n(.*?)^(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL | re.MULTILINE)


def front_matter(text: str) -> tuple[dict[str, MetadataValue], int]:
    """Read the front matter of a text.

    Scalars and flat lists are kept, dates as ISO 8601 strings; nested values have no place in a filter and
    are left out. What is not well-formed YAML with names and values is not front matter but text.

    Returns:
        The values by name, and the offset at which the text proper begins; nothing and 0 without
        front matter.
    """
    fenced = _FENCED.match(text, 0, MAX_CHARS)
    if fenced is None:
        return {}, 0
    values = _parse(fenced.group(1))
    if values is None:
        return {}, 0
    return {name: value for name, value in values.items() if value is not None}, fenced.end()


def front_title(metadata: dict[str, MetadataValue]) -> str | None:
    """Return the title that front matter gives, however its name is capitalised."""
    titles = (value for name, value in metadata.items() if name.lower() == "title")
    title = " ".join(str(next(titles, "")).split())
    return title or None


def _parse(source: str) -> dict[str, MetadataValue | None] | None:
    try:
        values = yaml.safe_load(source)
        if not isinstance(values, dict):
            return None
        return {_encodable(str(name)): _plain(value) for name, value in values.items()}
    except (yaml.YAMLError, ValueError, RecursionError):  # ValueError: the date 2021-13-45, or thousands of digits
        return None


def _plain(value: Any) -> MetadataValue | None:
    if isinstance(value, list):
        return _plain_list(value)
    return _scalar(value)


def _scalar(value: Any) -> str | int | float | bool | None:
    if isinstance(value, date):  # a datetime is a date, too
        return value.isoformat()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, int) and abs(value) >= 2**63:  # more than a database column holds
        return str(value)
    if isinstance(value, str):
        return _encodable(value)
    return value if isinstance(value, (int, float)) else None


def _encodable(text: str) -> str:
    """Replace halves of surrogate pairs, which an escape may have made."""
    return text.encode(errors="replace").decode()


def _plain_list(values: list[Any]) -> MetadataValue | None:
    scalars = [_scalar(value) for value in values]
    if any(scalar is None for scalar in scalars):
        return None
    if scalars and all(type(scalar) is int for scalar in scalars):
        return [scalar for scalar in scalars if isinstance(scalar, int)]
    if scalars and all(type(scalar) in (int, float) for scalar in scalars):
        return [float(scalar) for scalar in scalars if scalar is not None]
    return [str(scalar) for scalar in scalars]
