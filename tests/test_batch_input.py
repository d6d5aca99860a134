"""Questions from files: every format, every way in which a row or a file can be wrong."""

from __future__ import annotations

import bz2
import csv
import gzip
import hashlib
import io
import json
import os
import sys
import threading
import tracemalloc
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from index.errors import WhenceError
from service.batch_formats import INPUT_SUFFIXES, Compression, InputFormat, kind_of, zstd
from service.batch_input import MAX_LINE_BYTES, QuestionFile, Row, Seen

Read = Callable[..., list[Row]]
LONG = b"x" * 10_000_000


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Write a file and read it."""

    def rows(data: bytes, form: InputFormat = InputFormat.JSONL, **given: str) -> list[Row]:
        path = tmp_path / "questions"
        path.write_bytes(data)
        return list(QuestionFile(path, form, **given).rows())

    return rows


def asked(rows: list[Row]) -> list[tuple[int, str | None, dict[str, object]]]:
    return [(row.line, row.question, dict(row.carried)) for row in rows if row.error is None]


def failed(rows: list[Row]) -> dict[int, str]:
    return {row.line: row.error for row in rows if row.error is not None}


def test_json_lines_carry_every_other_field_along(read: Read) -> None:
    rows = read(
        b'\xef\xbb\xbf{"id": "a", "question": "Why?", "text": "kept", "n": [1, {"x": null}]}\n'
        b'\n"How?"\r\n{"_id": 7, "text": "Wer \xc3\xbc\\u00fc?"}'
    )
    assert asked(rows) == [
        (1, "Why?", {"id": "a", "text": "kept", "n": [1, {"x": None}]}),
        (3, "How?", {}),
        (4, "Wer üü?", {"_id": 7}),
    ]
    assert failed(rows) == {}


def test_the_field_of_the_question_can_be_named(read: Read) -> None:
    rows = read(b'{"question": "no", "prompt": "Why?"}\n{"question": "no"}\n', field="prompt")
    assert asked(rows) == [(1, "Why?", {"question": "no"})]
    assert failed(rows) == {2: "There is no field 'prompt'."}


def test_a_bad_line_of_json_says_what_is_wrong_with_it_and_the_next_is_read(read: Read) -> None:
    lines = [
        b"{",
        b"[1]",
        b'{"question": 3, "id": 1}',
        b'{"q": "Why?", "id": 2}',
        b'{"question": "Wh\xff?"}',
        b'{"question": "Why?", "x": "\\ud800"}',
        b'{"question": "Why?", "x": NaN}',
        b'{"question": "Why?", "x": 1e999}',
        b'{"question": "Why?", "x": ' + b"9" * 5000 + b"}",
        b"[" * 100_000,
        b'{"question": "' + LONG + b'"}',
        b'{"question": "Why?", "id": 12}',
    ]
    rows = read(b"\n".join(lines))
    assert asked(rows) == [(12, "Why?", {"id": 12})]
    errors = failed(rows)
    assert list(errors) == list(range(1, 12))
    assert errors[1].startswith("The line is not JSON: Expecting property name")
    assert errors[2] == "The line is neither an object nor a text."
    assert errors[3] == "The field 'question' holds no text."
    assert errors[4] == "There is no field 'question' or 'text'."
    assert errors[5] == "The line cannot be decoded. Save the file as UTF-8, or name its --encoding."
    assert errors[6] == "The line spells half a character, which is no text."
    assert errors[7] == "The line is not JSON that can be kept: NaN is no number that JSON has."
    assert errors[8] == "The line is not JSON that can be kept: 1e999 is no number that JSON has."
    assert "4300 digits" in errors[9]
    assert "recursion" in errors[10]
    assert errors[11] == "The line has more than 1,000,000 bytes. Shorten it."
    assert [dict(row.carried) for row in rows[2:4]] == [{"id": 1}, {"q": "Why?", "id": 2}]


def test_a_missing_or_null_question_is_an_empty_one(read: Read) -> None:
    assert asked(read(b'{"question": null}\n{"question": ""}\n')) == [(1, "", {}), (2, "", {})]


@pytest.mark.parametrize("form", list(InputFormat)[:4])
def test_an_empty_file_has_no_rows(read: Read, form: InputFormat) -> None:
    assert read(b"", form) == []
    assert read(b"\n\n \n", form) == []


def test_plain_lines_are_questions(read: Read) -> None:
    rows = read(b"Why?\n\n  How? \r\nWh\xffo?\n" + LONG + b"\nWhen?", InputFormat.LINES)
    assert asked(rows) == [(1, "Why?", {}), (3, "How?", {}), (6, "When?", {})]
    assert list(failed(rows)) == [4, 5]


def test_reading_a_table_leaves_the_limits_of_other_readers_alone(read: Read) -> None:
    usual = csv.field_size_limit()
    rows = read(b"question\n" + b"a" * (usual + 1) + b"\n", InputFormat.CSV)
    assert len(rows[0].question or "") == usual + 1
    assert csv.field_size_limit() == usual


def test_csv_is_read_with_its_quoting(read: Read) -> None:
    rows = read(
        b'\nid,question,note\r\n1,"What ""is"" it,\r\nreally?",x\r\n2,How?\r\n\r\n3,a,b,c\r\n4,Wh\xffo?,\r\n'
        b"5," + LONG + b",\r\n6,When?,y\r\n",
        InputFormat.CSV,
    )
    assert asked(rows) == [
        (3, 'What "is" it,\r\nreally?', {"id": "1", "note": "x"}),
        (5, "How?", {"id": "2"}),
        (10, "When?", {"id": "6", "note": "y"}),
    ]
    assert failed(rows) == {
        7: "The row has 4 cells, the header 3.",
        8: "The row cannot be read. The line cannot be decoded. Save the file as UTF-8, or name its --encoding.",
        9: "The row cannot be read. The line has more than 1,000,000 bytes. Shorten it.",
    }


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_of_csv_is_told_from_its_header(read: Read, delimiter: str) -> None:
    table = f"id{delimiter}text{delimiter}\n1{delimiter}Why?{delimiter}\n"
    assert asked(read(table.encode(), InputFormat.CSV)) == [(2, "Why?", {"id": "1"})]


def test_a_quotation_mark_that_is_never_closed_costs_no_memory_and_the_rest_is_read(read: Read) -> None:
    rows = read(b'question\n"Why?\n' + b"y" * 100 + b"\n" * 1_000_000 + b"How?\n", InputFormat.CSV)
    assert failed(rows) == {2: f"The row cannot be read. field larger than field limit ({MAX_LINE_BYTES})"}
    assert asked(rows) == [(1_000_003, "How?", {})]


def test_a_quotation_mark_in_tsv_is_a_quotation_mark(read: Read) -> None:
    rows = read(b'id\ttext\n1\t"Why" is it\n2\t"open\n3\tHow?\n', InputFormat.TSV)
    assert [question for _, question, _ in asked(rows)] == ['"Why" is it', '"open', "How?"]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"id,prompt\n1,Why?\n", "has no column 'question' or 'text'. Its columns: id, prompt. Name the one"),
        (b"question,question\na,b\n", "has two columns 'question'. Rename one of them."),
        (b"\xff\xfa,question\na,b\n", "The header of"),
    ],
)
def test_a_table_without_a_usable_header_is_refused(read: Read, data: bytes, reason: str) -> None:
    with pytest.raises(WhenceError, match=reason):
        read(data, InputFormat.CSV)


def test_other_encodings_are_named_or_told_by_their_mark(read: Read) -> None:
    text = "question\nWarum heißt es „naïve“?\n"
    expected = [(2, "Warum heißt es „naïve“?", {})]
    for encoding in ("utf-8-sig", "utf-16", "utf-32", "utf-16-le"):
        mark = "\N{BYTE ORDER MARK}" if encoding == "utf-16-le" else ""
        assert asked(read((mark + text).encode(encoding), InputFormat.CSV)) == expected
    assert asked(read(text.encode("cp1252"), InputFormat.CSV, encoding="cp1252")) == expected


def test_a_row_that_another_encoding_cannot_spell_fails_alone(read: Read) -> None:
    data = "Why?\n".encode("utf-16") + b"\x00\xdc" + "?\nHow?\n".encode("utf-16-le")
    rows = read(data, InputFormat.LINES)
    assert asked(rows) == [(1, "Why?", {}), (3, "How?", {})]
    assert list(failed(rows)) == [2]


@pytest.mark.parametrize("compress", [gzip.compress, zstd.compress])
def test_compressed_files_are_told_by_their_content(read: Read, compress: Callable[[bytes], bytes]) -> None:
    one, two = b'{"question": "Why?"}\n', b'{"question": "How?"}\n'
    assert asked(read(compress(one) + compress(two))) == [(1, "Why?", {}), (2, "How?", {})]


@pytest.mark.parametrize("compress", [gzip.compress, zstd.compress])
def test_a_compressed_file_that_is_cut_off_is_refused(read: Read, compress: Callable[[bytes], bytes]) -> None:
    with pytest.raises(WhenceError, match="questions cannot be read: Compressed file ended before"):
        read(compress(os.urandom(100_000))[:-20], InputFormat.LINES)


def test_a_compressed_file_that_is_damaged_is_refused(read: Read) -> None:
    data = bytearray(gzip.compress(os.urandom(100_000)))
    data[50_000] ^= 0xFF
    with pytest.raises(WhenceError, match="questions cannot be read: "):
        read(bytes(data), InputFormat.LINES)


def test_an_unknown_compression_is_no_text(read: Read) -> None:
    assert len(failed(read(bz2.compress(b"Why?\n"), InputFormat.LINES))) == 1


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(WhenceError, match=r"none\.txt cannot be read: No such file or directory"):
        list(QuestionFile(tmp_path / "none.txt", InputFormat.LINES).rows())


def test_parquet_carries_its_columns_along_as_json_has_them(tmp_path: Path) -> None:
    table = pa.table(
        {
            "id": pa.array([1, 2, 3], pa.int64()),
            "question": ["Why?", None, "How?"],
            "score": [0.5, float("nan"), None],
            "when": [datetime(2026, 11, 21, 6, tzinfo=UTC)] * 3,
            "tick": pa.array([1_795_240_800_000_000_001] * 3, pa.timestamp("ns", "UTC")),
            "day": [date(2026, 11, 21)] * 3,
            "price": [Decimal("1.50")] * 3,
            "raw": [b"caf\xc3\xa9"] * 3,
            "tags": [["a", "b"], [], None],
            "of": [{"x": 1}] * 3,
        }
    )
    pq.write_table(table, tmp_path / "q.parquet", row_group_size=2)
    rows = list(QuestionFile(tmp_path / "q.parquet", InputFormat.PARQUET).rows())
    assert [(row.line, row.question) for row in rows] == [(1, "Why?"), (2, ""), (3, "How?")]
    assert rows[0].carried == {
        "id": 1,
        "score": 0.5,
        "when": "2026-11-21T06:00:00+00:00",
        "tick": "2026-11-21 06:00:00.000000001Z",
        "day": "2026-11-21",
        "price": "1.50",
        "raw": "café",
        "tags": ["a", "b"],
        "of": {"x": 1},
    }
    assert rows[1].carried["score"] is None
    json.dumps([row.carried for row in rows], allow_nan=False)


def test_a_parquet_file_that_is_damaged_or_has_no_question_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "q.parquet"
    path.write_bytes(b"PAR1 nothing of the kind PAR1")
    with pytest.raises(WhenceError, match="cannot be read as Parquet after row 0"):
        list(QuestionFile(path, InputFormat.PARQUET).rows())
    pq.write_table(pa.table({"prompt": ["Why?"]}), path)
    with pytest.raises(WhenceError, match=r"has no column 'question' or 'text'\. Its columns: prompt"):
        list(QuestionFile(path, InputFormat.PARQUET).rows())


@pytest.mark.parametrize("form", [InputFormat.LINES, InputFormat.PARQUET])
def test_what_is_added_to_a_file_is_not_read(tmp_path: Path, form: InputFormat) -> None:
    path = tmp_path / "questions"
    if form is InputFormat.LINES:
        path.write_bytes(b"Why?\nHow?\n")
    else:
        pq.write_table(pa.table({"question": ["Why?", "How?"]}), path)
    size = path.stat().st_size
    rows = QuestionFile(path, form).rows(size=size)
    first = next(rows)
    with path.open("ab") as stream:
        stream.write(b"When?\n" * 1000)
    assert [first.question, *(row.question for row in rows)] == ["Why?", "How?"]
    assert [row.question for row in QuestionFile(path, form).rows(size=size)] == ["Why?", "How?"]


def test_a_stream_is_read_as_it_comes_and_what_was_read_is_known(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    questions = QuestionFile(pipe, InputFormat.LINES)
    assert questions.is_stream
    data = gzip.compress(b"Why?\nHow?\n")
    writer = threading.Thread(target=pipe.write_bytes, args=(data,))
    writer.start()
    seen = Seen()
    assert [row.question for row in questions.rows(seen=seen)] == ["Why?", "How?"]
    writer.join(timeout=10)
    assert (seen.size, seen.sha256) == (len(data), hashlib.sha256(data).hexdigest())


def test_standard_input_is_a_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"question": "Why?"}')))
    questions = QuestionFile(None, InputFormat.JSONL)
    assert questions.is_stream
    assert asked(list(questions.rows(seen=Seen()))) == [(1, "Why?", {})]


def test_memory_does_not_grow_with_the_file_or_a_line(tmp_path: Path) -> None:
    path = tmp_path / "questions.jsonl.gz"
    with gzip.open(path, "wb", compresslevel=1) as stream:
        for number in range(20_000):
            stream.write(b'{"id": %d, "question": "Why?", "note": "%s"}\n' % (number, b"n" * 500))
        stream.write(b'{"question": "' + LONG * 5 + b'"}\n')
    tracemalloc.start()
    count = sum(1 for _ in QuestionFile(path, InputFormat.JSONL).rows())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 20_001
    assert peak < 5_000_000


def test_kinds_of_files_are_told_from_their_names() -> None:
    assert kind_of(Path("a/b.JSONL.GZ")).compression is Compression.GZIP
    assert INPUT_SUFFIXES[kind_of(Path("a/b.JSONL.GZ")).suffix] is InputFormat.JSONL
    assert kind_of(Path("answers.csv.zst")).suffix == ".csv"
    assert kind_of(Path("answers")).suffix == ""
