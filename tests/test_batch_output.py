"""Answers as files: the words of the answer as they are everywhere, and every format read back."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from index.answers import Answer, Question, answer_questions
from index.embeddings import Encoder
from index.evaluation import read_run
from index.generations import Generation
from service.batch_formats import OutputFormat
from service.batch_input import Row
from service.batch_output import (
    AnsweredRow,
    CellKind,
    Shape,
    answer_columns,
    carried_names,
    common_kind,
    kind_of_cell,
    output_of,
    write_parquet,
)
from service.schemas.answers import AnswerJson

RESETTING = "How do I reset the router?"
NOWHERE = "Who won the world cup in 1998?"
CARRIED: Mapping[str, CellKind] = {
    "id": CellKind.INTEGER,
    "weight": CellKind.NUMBER,
    "is_new": CellKind.TRUTH,
    "answer": CellKind.TEXT,
    "tags": CellKind.TEXT,
}


@pytest.fixture(scope="module")
def answers(handbook: Generation, encoder: Encoder) -> list[Answer]:
    """An answer, and a question without one."""
    return answer_questions(handbook, encoder, [Question(RESETTING, top_k=2), Question(NOWHERE, top_k=2)])


def rows_of(answers: Sequence[Answer], shape: Shape) -> list[AnsweredRow]:
    """Return four rows: answered, not found, refused, and not understood."""
    output = output_of(shape)
    carried = {"id": 1, "weight": 0.5, "is_new": True, "answer": "ten seconds", "tags": ["a", "ü"]}
    return [
        AnsweredRow(Row(1, RESETTING, carried), output.render(answers[0])),
        AnsweredRow(Row(2, NOWHERE, {"id": 2}), output.render(answers[1])),
        AnsweredRow(Row(3, "", {"id": 3}), None, "The question is empty. Ask something."),
        AnsweredRow(Row(4, None), None, "The line is not JSON: Expecting value at character 1."),
    ]


def shape_of(form: OutputFormat, **given: Any) -> Shape:
    return Shape(form, top_k=2, carried=tuple(CARRIED.items()), **given)


def plain(answer: Answer) -> dict[str, Any]:
    """Return an answer as it is over HTTP, without the time it took."""
    return json.loads(AnswerJson.of(answer).model_dump_json(exclude={"took_ms"}))


def test_json_lines_hold_the_answers_of_the_service_to_the_byte(answers: Sequence[Answer]) -> None:
    shape = Shape(OutputFormat.JSONL, top_k=2)
    lines = output_of(shape).rows(rows_of(answers, shape)).splitlines()
    as_over_http = AnswerJson.of(answers[0]).model_dump_json(exclude={"took_ms"}).encode()
    carried = '{"id":1,"weight":0.5,"is_new":true,"input_answer":"ten seconds","tags":["a","ü"],'.encode()
    assert lines[0] == carried + as_over_http[1:]
    assert json.loads(lines[1]) == {"id": 2, **plain(answers[1])}
    assert [json.loads(line) for line in lines[2:]] == [
        {"id": 3, "question": "", "line": 3, "error": "The question is empty. Ask something."},
        {"question": None, "line": 4, "error": "The line is not JSON: Expecting value at character 1."},
    ]


def test_only_fields_that_are_wanted_are_kept(answers: Sequence[Answer]) -> None:
    shape = Shape(OutputFormat.JSONL, top_k=2, fields=frozenset({"id", "input_answer", "confidence", "answered"}))
    lines = output_of(shape).rows(rows_of(answers, shape)).splitlines()
    confidence = round(answers[0].confidence, 4)
    assert list(json.loads(lines[0]).items()) == [
        ("id", 1),
        ("input_answer", "ten seconds"),
        ("answered", True),
        ("confidence", confidence),
    ]
    nothing = Shape(OutputFormat.JSONL, top_k=2, fields=frozenset({"none"}))
    assert output_of(nothing).rows(rows_of(answers, nothing)).splitlines()[0] == b"{}"


def test_a_name_that_the_answer_has_is_carried_under_another() -> None:
    names = ["id", "answer", "input_answer", "line"]
    renamed = carried_names(names, frozenset({"answer", "line"}))
    assert list(renamed.values()) == ["id", "input_input_answer", "input_answer", "input_line"]


def expected_cells(answer: Answer) -> dict[str, Any]:
    """Return what a table says of an answer, taken from its JSON."""
    record = plain(answer)
    quote = record["answer"] or {"text": None, "citation": None}
    citation = quote["citation"]
    cells = {name: record[name] for name in ("question", "answered", "confidence", "generation", "encoder")}
    cells |= {"answer": quote["text"], "model": record["model"]["name"]}
    for name in ("start", "end", "first_line", "last_line", "page", "url"):
        cells[f"answer_{name}"] = citation and citation[name]
    cells["answer_headings"] = citation and " › ".join(citation["headings"])
    for name, key in (("document", "id"), ("title", "title"), ("sha256", "sha256")):
        cells[f"answer_{name}"] = citation and citation["document"][key]
    for place in range(2):
        passage = record["passages"][place]
        cells |= {f"passage_{place + 1}_{name}": passage[name] for name in ("text", "score")}
        cells |= {f"passage_{place + 1}_{name}": passage["citation"][name] for name in ("start", "end", "url")}
        cells[f"passage_{place + 1}_document"] = passage["citation"]["document"]["id"]
    return cells


def test_a_csv_holds_answer_citation_and_passages_side_by_side(answers: Sequence[Answer]) -> None:
    shape = shape_of(OutputFormat.CSV)
    output = output_of(shape)
    text = (output.head() + output.rows(rows_of(answers, shape))).decode()
    records = list(csv.DictReader(io.StringIO(text, newline="")))
    for record, answer in zip(records, answers, strict=False):
        expected = {name: _as_text(value) for name, value in expected_cells(answer).items()}
        assert {name: record[name] for name in expected} == expected
    assert set(expected_cells(answers[0])) == {column.name for column in answer_columns(2)}
    carried = ("id", "weight", "is_new", "input_answer", "tags", "line", "error")
    assert [records[0][name] for name in carried] == ["1", "0.5", "true", "ten seconds", '["a","ü"]', "", ""]
    assert [records[1][name] for name in carried] == ["2", "", "", "", "", "", ""]
    assert [records[2][name] for name in ("id", "question", "answered", "line", "error")] == [
        "3",
        "",
        "",
        "3",
        "The question is empty. Ask something.",
    ]
    assert records[3]["line"] == "4"
    assert not any("\r" in line for line in text.split("\n"))


def _as_text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)


def test_columns_of_a_csv_can_be_chosen(answers: Sequence[Answer]) -> None:
    shape = shape_of(OutputFormat.CSV, fields=frozenset({"id", "answered"}))
    output = output_of(shape)
    assert output.head() + output.rows(rows_of(answers, shape)) == (
        b"id,answered,line,error\n"
        b"1,true,,\n"
        b"2,false,,\n"
        b"3,,3,The question is empty. Ask something.\n"
        b",,4,The line is not JSON: Expecting value at character 1.\n"
    )
    nothing = shape_of(OutputFormat.CSV, fields=frozenset({"none"}))
    assert output_of(nothing).head() == b"line,error\n"
    assert output_of(nothing).rows(rows_of(answers, nothing))[:2] == b",\n"


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_a_csv_for_a_spreadsheet_has_no_formulas(start: str) -> None:
    row = AnsweredRow(Row(1, f"{start}1+1", {"note": f"{start}cmd"}), None, "No.")
    given: dict[str, Any] = {
        "top_k": 1,
        "carried": (("note", CellKind.TEXT),),
        "fields": frozenset({"note", "question"}),
    }
    exact = output_of(Shape(OutputFormat.CSV, **given))
    safe = output_of(Shape(OutputFormat.CSV, **given, for_spreadsheet=True))
    (cells,) = csv.reader(io.StringIO(exact.rows([row]).decode(), newline=""))
    assert cells[:2] == [f"{start}cmd", f"{start}1+1"]
    (cells,) = csv.reader(io.StringIO(safe.rows([row]).decode(), newline=""))
    assert cells[:2] == [f"'{start}cmd", f"'{start}1+1"]
    assert (exact.head()[:4], safe.head()[:7]) == (b"note", b"\xef\xbb\xbfnote")


@pytest.mark.parametrize("text", ["a\nb", "a\rb", "a\r\nb", "a,b", 'a"b', " a ", "\n", ""])
def test_whatever_is_in_a_cell_of_a_csv_comes_back(text: str) -> None:
    shape = Shape(OutputFormat.CSV, 1, frozenset({"note"}), (("note", CellKind.TEXT),))
    data = output_of(shape).rows([AnsweredRow(Row(1, "", {"note": text}), None, "No.")] * 2)
    assert list(csv.reader(io.StringIO(data.decode(), newline=""))) == [[text, "1", "No."]] * 2


def test_numbers_are_not_taken_for_formulas() -> None:
    shape = Shape(OutputFormat.CSV, 1, frozenset({"n"}), (("n", CellKind.NUMBER),), for_spreadsheet=True)
    row = AnsweredRow(Row(1, "", {"n": -1.5}), None, "No.")
    assert output_of(shape).rows([row]) == b"-1.5,1,No.\n"


def test_a_parquet_file_has_the_same_columns_with_their_kinds(answers: Sequence[Answer], tmp_path: Path) -> None:
    shape = shape_of(OutputFormat.PARQUET)
    output = output_of(shape)
    rows = rows_of(answers, shape)
    (tmp_path / "parts").write_bytes(output.head() + output.rows(rows[:3]) + output.rows(rows[3:]))
    write_parquet(tmp_path / "parts", tmp_path / "answers.parquet")
    file = pq.ParquetFile(tmp_path / "answers.parquet")
    assert [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)] == [3, 1]
    records = file.read().to_pylist()
    for record, answer in zip(records, answers, strict=False):
        expected = expected_cells(answer)
        assert {name: record[name] for name in expected} == expected
    carried = ("id", "weight", "is_new", "input_answer", "tags", "line")
    assert [records[0][name] for name in carried] == [1, 0.5, True, "ten seconds", '["a","ü"]', None]
    assert [records[3][name] for name in ("id", "question", "answered", "line")] == [None, None, None, 4]
    head = output_of(shape_of(OutputFormat.CSV)).head().decode().strip()
    assert ",".join(records[0]) == head


def test_a_parquet_file_without_rows_has_its_columns(tmp_path: Path) -> None:
    (tmp_path / "parts").write_bytes(output_of(shape_of(OutputFormat.PARQUET)).head())
    write_parquet(tmp_path / "parts", tmp_path / "answers.parquet")
    table = pq.read_table(tmp_path / "answers.parquet")
    assert (table.num_rows, table.column_names[:2]) == (0, ["id", "weight"])


def test_a_run_ranks_documents_by_their_best_passage(answers: Sequence[Answer], tmp_path: Path) -> None:
    shape = Shape(OutputFormat.TREC, top_k=2)
    output = output_of(shape)
    path = tmp_path / "answers.run"
    path.write_bytes(output.head() + output.rows(rows_of(answers, shape)))
    expected: dict[str, dict[str, float]] = {}
    for query_id, answer in zip(("1", "2"), answers, strict=True):
        for passage in answer.passages:
            doc_id = passage.citation.document.id.replace(" ", "%20")
            expected.setdefault(query_id, {}).setdefault(doc_id, passage.score)
    assert read_run(path) == expected
    first = f"1 Q0 guide/router%20reset%20&%20tips%20(ä).md 1 {answers[0].passages[0].score!r} whence"
    assert path.read_text().splitlines()[0] == first


@pytest.mark.parametrize(
    ("carried", "id_field", "query_id"),
    [
        ({"_id": "q 1"}, None, "q%201"),
        ({"query_id": "a", "_id": ""}, None, "a"),
        ({"id": 7, "key": "k"}, "key", "k"),
        ({"key": "k"}, None, "12"),
        ({}, "key", "12"),
    ],
)
def test_the_query_id_of_a_run_is_carried_or_else_the_line(
    answers: Sequence[Answer], carried: dict[str, Any], id_field: str | None, query_id: str
) -> None:
    output = output_of(Shape(OutputFormat.TREC, top_k=2, id_field=id_field))
    line = output.rows([AnsweredRow(Row(12, RESETTING, carried), output.render(answers[0]))]).decode()
    assert line.split(" ")[0] == query_id


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (None, None),
        (True, CellKind.TRUTH),
        (3, CellKind.INTEGER),
        (2**63, CellKind.TEXT),
        (0.5, CellKind.NUMBER),
        ("x", CellKind.TEXT),
        ([1], CellKind.TEXT),
    ],
)
def test_the_kind_of_a_column_is_told_from_its_cells(value: Any, kind: CellKind | None) -> None:
    assert kind_of_cell(value) is kind


def test_a_column_of_unlike_cells_is_text() -> None:
    assert common_kind(CellKind.INTEGER, CellKind.NUMBER) is CellKind.NUMBER
    assert common_kind(CellKind.TRUTH, CellKind.INTEGER) is CellKind.TEXT
    assert common_kind(CellKind.TRUTH, CellKind.TRUTH) is CellKind.TRUTH
