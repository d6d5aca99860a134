"""Citations are read from saved answers of any shape, and what is not one is named."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from index.citations import SavedCitation
from index.errors import CitationError
from service.verification import read_citations

QUOTE = "Rinse it three times."


def citation(start: int = 10, **changes: Any) -> dict[str, Any]:
    return {
        "document": {"id": "kettle.md", "title": "Kettle", "sha256": "a" * 64, "metadata": {"year": 2024}},
        "start": start,
        "end": start + len(QUOTE),
        "first_line": 1,
        "quote": QUOTE,
        "prefix": "vinegar. ",
        "suffix": " Then",
        "url": "/documents/kettle.md",
        **changes,
    }


def answer(*starts: int) -> dict[str, Any]:
    """Return a saved answer whose sentence is the first of its passages."""
    passages = [{"rank": 1, "text": QUOTE, "citation": citation(start), "also_in": []} for start in starts]
    return {"question": "How?", "answer": {"text": QUOTE, "citation": citation(starts[0])}, "passages": passages}


def saved(start: int = 10) -> SavedCitation:
    return SavedCitation("kettle.md", "a" * 64, start, start + len(QUOTE), QUOTE, "vinegar. ", " Then")


def read(tmp_path: Path, text: str) -> list[SavedCitation]:
    path = tmp_path / "answers.json"
    path.write_text(text, encoding="utf-8")
    return read_citations(path)


def test_an_answer_has_the_citations_of_its_sentence_and_its_passages_each_once(tmp_path: Path) -> None:
    assert read(tmp_path, json.dumps(answer(10, 90))) == [saved(10), saved(90)]


def test_an_unanswered_question_has_the_citations_of_its_passages(tmp_path: Path) -> None:
    assert read(tmp_path, json.dumps({**answer(10), "answer": None})) == [saved(10)]


@pytest.mark.parametrize(
    "record", [citation(), [citation()], {"answers": [answer(10)]}, [[{"deep": {"er": citation()}}], None, 1, "x"]]
)
def test_citations_are_found_at_any_depth(tmp_path: Path, record: Any) -> None:
    assert read(tmp_path, json.dumps(record, indent=2)) == [saved()]


def test_one_answer_a_line(tmp_path: Path) -> None:
    lines = [json.dumps(answer(10)), "", "  ", json.dumps(answer(90)), json.dumps({"error": "no question"})]
    assert read(tmp_path, "\n".join(lines) + "\n") == [saved(10), saved(90)]
    assert read(tmp_path, "\r\n".join(lines)) == [saved(10), saved(90)]


def test_rare_line_breaks_within_a_quote_do_not_end_the_line(tmp_path: Path) -> None:
    quotes = ["one\u2028two", "one\x85two", "one\u2029two"]
    lines = [json.dumps(citation(quote=quote), ensure_ascii=False) for quote in quotes]
    assert [found.quote for found in read(tmp_path, "\n".join(lines))] == quotes


def test_a_byte_order_mark_is_left_out(tmp_path: Path) -> None:
    assert read(tmp_path, "\ufeff" + json.dumps(citation())) == [saved()]


def test_a_dash_stands_for_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    data = json.dumps(citation(quote="naïve"), ensure_ascii=False).encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="ascii"))
    assert read_citations(Path("-"))[0].quote == "naïve"


def test_the_context_and_the_digest_may_be_missing(tmp_path: Path) -> None:
    bare = {"document": {"id": "a.md"}, "quote": "x", "start": 0, "end": 1}
    assert read(tmp_path, json.dumps(bare)) == [SavedCitation("a.md", "", 0, 1, "x", "", "")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no citation. Name a file written by whence ask --json or whence batch"),
        ("{}", "holds no citation"),
        ("not JSON", "answers.json, line 1 is not JSON"),
        ('{"answer": ', "line 1 is not JSON"),
        (f"{json.dumps(answer(10))}\n{{", "line 2 is not JSON"),
        ("[" * 5_000 + "]" * 5_000, "nested too deeply"),
        ('{"a":' * 700 + json.dumps({}) + "}" * 700, "(holds no citation|nested too deeply)"),
    ],
)
def test_a_file_without_citations_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(CitationError, match=message):
        read(tmp_path, text)


@pytest.mark.parametrize("document", ["kettle.md", None, {}, {"title": "Kettle"}, []])
def test_a_citation_without_an_id_is_refused(tmp_path: Path, document: Any) -> None:
    with pytest.raises(CitationError, match=r"A citation lacks its document's id: .*Rinse it three times"):
        read(tmp_path, json.dumps({**citation(), "document": document, "url": "", "prefix": ""}))


@pytest.mark.parametrize(
    "changes",
    [
        {"start": "10"},
        {"start": 10.5},
        {"start": None},
        {"start": True},
        {"start": -10},
        {"end": -1},
        {"quote": None},
        {"quote": ["x"]},
        {"prefix": 1},
        {"suffix": None},
        {"document": {"id": 7}},
        {"document": {"id": "a.md", "sha256": 7}},
        {"quote": "half \ud800 a character"},
        {"document": {"id": "\udcff"}},
    ],
)
def test_values_of_the_wrong_kind_are_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(CitationError, match="A citation has values of the wrong kind") as caught:
        read(tmp_path, json.dumps({**citation(), **changes}))
    assert str(caught.value).isprintable()


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CitationError, match=r"missing.json cannot be read: .*No such file"):
        read_citations(tmp_path / "missing.json")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CitationError, match="binary cannot be read"):
        read_citations(tmp_path / "binary")
    with pytest.raises(CitationError, match="cannot be read"):
        read_citations(tmp_path)
