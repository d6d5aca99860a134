"""Filters as a person writes them, on the command line and in an address."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from index.errors import QuestionError


def parse_filters(given: Sequence[str]) -> dict[str, Any]:
    """Parse filters, each `FIELD=VALUE` or a JSON object of filters.

    Returns:
        All of them together, in the form of `index.filters`.

    Raises:
        QuestionError: one is neither, or two are on the same field.
    """
    filters: dict[str, Any] = {}
    for text in given:
        for field, condition in _parse_filter(text).items():
            if field in filters:
                raise QuestionError(
                    f"There are two filters on {field!r}. For any of several values give a list: "
                    f"{json.dumps({field: ['router', 'switch']})}"
                )
            filters[field] = condition
    return filters


def _parse_filter(text: str) -> dict[str, Any]:
    if text.lstrip().startswith("{"):
        try:
            parsed: dict[str, Any] = json.loads(text)
        except (ValueError, RecursionError) as exc:
            raise QuestionError(f"The filter {text[:80]!r} is not JSON: {exc}.") from exc
        return parsed
    field, equals, value = text.partition("=")
    if not equals or not field:
        raise QuestionError(f"The filter {text!r} is not FIELD=VALUE. For example: product=router")
    return {field: readings(value)}


def readings(value: str) -> list[str | int | float | bool]:
    """Return the readings of a value: as text, and as the number or truth value it may stand for."""
    try:
        parsed = json.loads(value)
    except (ValueError, RecursionError):
        return [value]
    return [value, parsed] if isinstance(parsed, int | float | bool) else [value]
