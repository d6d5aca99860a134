"""Filters over documents: `{"field": value}`, where all fields must hold.

    {"product": "router"}                       equal to, or among the values of a list field
    {"product": ["router", "switch"]}           any of these
    {"year": {"gte": 2024, "lt": 2026}}         a range: gt, gte, lt, lte
    {"doc_id": {"prefix": "guide/"}}            beginning with

Fields are those of a document's metadata, and `doc_id`, `title`, `media_type`, `source`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.corpus import DocumentRecord
from index.errors import QuestionError

OWN_FIELDS = ("doc_id", "title", "media_type", "source")
COMPARISONS: Mapping[str, Callable[[Any, Any], bool]] = {
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
}

Filters = Mapping[str, Any]
_Test = Callable[[Any], bool]


def allowed_rows(filters: Filters, documents: Sequence[DocumentRecord], chunk_count: int) -> NDArray[np.bool_]:
    """Mark the chunks of the documents for which every filter holds.

    Args:
        filters: see the top of this module.
        documents: all of a generation.
        chunk_count: of that generation.

    Returns:
        bool, shape (chunk_count,).

    Raises:
        QuestionError: a filter is malformed; the message names the field.
    """
    tests = {field: _test(field, condition) for field, condition in filters.items()}
    allowed = np.zeros(chunk_count, dtype=np.bool_)
    for document in documents:
        if all(_holds(test, _value(document, field)) for field, test in tests.items()):
            allowed[document.first_row : document.first_row + document.chunk_count] = True
    return allowed


def check_filters(filters: Filters) -> None:
    """Check the form of filters, before there is anything to search.

    Raises:
        QuestionError: a filter is malformed; the message names the field.
    """
    for field, condition in filters.items():
        _test(field, condition)


def _value(document: DocumentRecord, field: str) -> Any:
    return getattr(document, field) if field in OWN_FIELDS else document.metadata.get(field)


def _holds(test: _Test, value: Any) -> bool:
    if value is None:
        return False
    return any(test(each) for each in value) if isinstance(value, list) else test(value)


def _test(field: str, condition: Any) -> _Test:
    if isinstance(condition, Mapping):
        return _comparison(field, condition)
    wanted = condition if isinstance(condition, list | tuple) else [condition]
    if all(isinstance(each, str | int | float | bool) for each in wanted):
        return lambda value: any(_equal(value, each) for each in wanted)
    raise QuestionError(f"The filter on {field!r} is {condition!r}. Give a value, a list of values or a range.")


def _equal(value: Any, wanted: Any) -> bool:
    # True is 1 in Python; in a document's metadata they are different things.
    return isinstance(value, bool) == isinstance(wanted, bool) and bool(value == wanted)


def _comparison(field: str, condition: Mapping[str, Any]) -> _Test:
    unknown = set(condition) - {*COMPARISONS, "prefix"}
    if unknown or not condition:
        known = ", ".join([*COMPARISONS, "prefix"])
        raise QuestionError(f"The filter on {field!r} has {sorted(unknown)}. It takes {known}.")
    for name, bound in condition.items():
        if not isinstance(bound, str if name == "prefix" else str | int | float) or isinstance(bound, bool):
            raise QuestionError(f"The filter on {field!r} compares with {bound!r}. Give a number or a text.")
    return lambda value: all(_compare(value, name, bound) for name, bound in condition.items())


def _compare(value: Any, name: str, bound: Any) -> bool:
    if name == "prefix":
        return isinstance(value, str) and value.startswith(bound)
    are_comparable = isinstance(value, str) == isinstance(bound, str) and not isinstance(value, bool)
    return are_comparable and COMPARISONS[name](value, bound)
