"""Filters mark the chunks of the documents that they describe, and malformed ones are refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from index.corpus import DocumentRecord
from index.documents import MetadataValue
from index.errors import QuestionError
from index.filters import allowed_rows

METADATA: dict[str, Mapping[str, MetadataValue]] = {
    "guide/router.md": {"product": "router", "year": 2024, "tags": ["network", "wifi"], "draft": True, "rating": 4.5},
    "guide/switch.md": {"product": "switch", "year": 2025, "tags": ["network"], "draft": False, "date": "2025-03-01"},
    "news.md": {"product": "router", "year": "2025", "tags": [], "one": 1, "date": "2026-01-31"},
    "plain.md": {},
}


def documents() -> list[DocumentRecord]:
    """Return the documents in order; each has as many chunks as its place says, the first one."""
    records: list[DocumentRecord] = []
    for chunk_count, (doc_id, metadata) in enumerate(METADATA.items(), start=1):
        first_row = sum(record.chunk_count for record in records)
        title, source = f"About {doc_id}", f"/docs/{doc_id.partition('/')[0]}"
        records.append(
            DocumentRecord(
                doc_id, source, title, "text/markdown", "0" * 64, 9, None, metadata, {}, first_row, chunk_count
            )
        )
    return records


def found(filters: Mapping[str, Any]) -> list[str]:
    """Return the ids of the documents for which the filters hold, by looking at their first chunk."""
    records = documents()
    allowed = allowed_rows(filters, records, sum(record.chunk_count for record in records))
    return [record.doc_id for record in records if allowed[record.first_row]]


ROUTER, SWITCH, NEWS, PLAIN = METADATA


def test_all_chunks_of_a_document_are_marked_and_no_others() -> None:
    allowed = allowed_rows({"product": "switch"}, documents(), 10)
    assert allowed.tolist() == [False, True, True] + [False] * 7


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, [ROUTER, SWITCH, NEWS, PLAIN]),
        ({"product": "router"}, [ROUTER, NEWS]),
        ({"product": "Router"}, []),
        ({"product": "router", "year": 2024}, [ROUTER]),
        ({"no such field": "router"}, []),
        ({"product": ["router", "switch"]}, [ROUTER, SWITCH, NEWS]),
        ({"product": ("switch",)}, [SWITCH]),
        ({"product": []}, []),
        ({"tags": "network"}, [ROUTER, SWITCH]),
        ({"tags": ["wifi", "cable"]}, [ROUTER]),
        ({"tags": "net"}, []),
        ({"rating": 4.5}, [ROUTER]),
        ({"one": 1.0}, [NEWS]),
    ],
)
def test_a_value_or_any_of_several(filters: Mapping[str, Any], expected: list[str]) -> None:
    assert found(filters) == expected


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"year": {"gte": 2024}}, [ROUTER, SWITCH]),
        ({"year": {"gt": 2024}}, [SWITCH]),
        ({"year": {"lt": 2025}}, [ROUTER]),
        ({"year": {"lte": 2025, "gt": 2024}}, [SWITCH]),
        ({"year": {"gte": 2026}}, []),
        ({"date": {"gte": "2025-01-01", "lt": "2026-01-01"}}, [SWITCH]),
        ({"rating": {"gt": 4}}, [ROUTER]),
        ({"tags": {"gte": "w"}}, [ROUTER]),
        ({"doc_id": {"prefix": "guide/"}}, [ROUTER, SWITCH]),
        ({"doc_id": {"prefix": ""}}, [ROUTER, SWITCH, NEWS, PLAIN]),
        ({"tags": {"prefix": "wi"}}, [ROUTER]),
        ({"year": {"prefix": "20"}}, [NEWS]),
    ],
)
def test_ranges_and_prefixes(filters: Mapping[str, Any], expected: list[str]) -> None:
    assert found(filters) == expected


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"draft": True}, [ROUTER]),
        ({"draft": False}, [SWITCH]),
        ({"draft": 1}, []),
        ({"draft": [0, 1]}, []),
        ({"one": True}, []),
        ({"draft": {"gte": 0}}, []),
        ({"year": 2025}, [SWITCH]),
        ({"year": "2025"}, [NEWS]),
        ({"year": ["2025", 2025]}, [SWITCH, NEWS]),
    ],
)
def test_truth_values_numbers_and_texts_are_different_things(filters: Mapping[str, Any], expected: list[str]) -> None:
    assert found(filters) == expected


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"doc_id": NEWS}, [NEWS]),
        ({"title": "About plain.md"}, [PLAIN]),
        ({"media_type": "text/markdown"}, [ROUTER, SWITCH, NEWS, PLAIN]),
        ({"source": "/docs/guide"}, [ROUTER, SWITCH]),
    ],
)
def test_a_document_has_fields_of_its_own(filters: Mapping[str, Any], expected: list[str]) -> None:
    assert found(filters) == expected


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        (None, "filter on 'year' is None. Give a value, a list of values or a range"),
        ([2024, None], r"filter on 'year' is \[2024, None\]"),
        ([[2024]], r"filter on 'year' is \[\[2024\]\]"),
        ([{"gte": 2024}], "filter on 'year' is"),
        ({"ge": 2024}, r"filter on 'year' has \['ge'\]. It takes gt, gte, lt, lte, prefix"),
        ({"gte": 2024, "before": 2026}, r"has \['before'\]"),
        ({}, r"filter on 'year' has \[\]. It takes"),
        ({"gte": [2024]}, r"compares with \[2024\]. Give a number or a text"),
        ({"gte": None}, "compares with None"),
        ({"lt": True}, "compares with True"),
        ({"prefix": 20}, "compares with 20"),
    ],
)
def test_a_malformed_filter_is_refused_whatever_the_documents_hold(condition: Any, message: str) -> None:
    with pytest.raises(QuestionError, match=message):
        found({"year": condition})
    with pytest.raises(QuestionError, match=message):
        allowed_rows({"year": condition}, [], 0)
