"""Metrics equal values worked out by hand, and what cannot be read is named."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path

import pytest
from scipy.stats import ttest_rel  # type: ignore[import-untyped]

from index.errors import EvaluationError
from index.evaluation import (
    METRICS,
    CorpusEntry,
    Difference,
    compare,
    evaluate,
    read_dataset,
    read_run,
    unranked,
    write_run,
)

CORPUS = [
    {"_id": "d1", "title": "Pingora", "text": "It saves memory.", "metadata": {"year": 2022}},
    {"_id": "d2", "text": "It never crashed."},
]
QUERIES = [
    {"_id": "q2", "text": "Did it crash?"},
    {"_id": "q1", "text": "What does it save?"},
    {"_id": "q3", "text": "Who asked?"},
]
QRELS = ["query-id\tcorpus-id\tscore", "q1\td1\t2", "q1\td2\t0", "q2\td2\t1"]


def write_lines(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = "".join(f"{line}\n" for line in lines).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_lines(tmp_path / "corpus.jsonl", [json.dumps(entry) for entry in CORPUS])
    write_lines(tmp_path / "queries.jsonl", [json.dumps(entry) for entry in QUERIES])
    write_lines(tmp_path / "qrels" / "test.tsv", QRELS)
    return tmp_path


def test_a_data_set_has_the_judged_queries_and_a_corpus(folder: Path) -> None:
    dataset = read_dataset(folder)
    assert dataset.split == "test"
    assert dataset.queries == {"q2": "Did it crash?", "q1": "What does it save?"}
    assert dataset.qrels == {"q1": {"d1": 2, "d2": 0}, "q2": {"d2": 1}}
    assert list(dataset.corpus()) == [
        CorpusEntry("d1", "Pingora", "It saves memory.", {"year": 2022}),
        CorpusEntry("d2", "", "It never crashed."),
    ]


def test_the_corpus_can_be_read_more_than_once(folder: Path) -> None:
    dataset = read_dataset(folder)
    assert list(dataset.corpus()) == list(dataset.corpus())


def test_compressed_files_are_read_as_well(folder: Path) -> None:
    plain = read_dataset(folder)
    for path in (folder / "corpus.jsonl", folder / "queries.jsonl", folder / "qrels" / "test.tsv"):
        write_lines(path.with_name(f"{path.name}.gz"), path.read_text().splitlines())
        path.unlink()
    packed = read_dataset(folder)
    assert (packed.split, packed.queries, packed.qrels) == (plain.split, plain.queries, plain.qrels)
    assert [entry.doc_id for entry in packed.corpus()] == ["d1", "d2"]


def test_blank_lines_a_byte_order_mark_and_windows_line_ends_do_no_harm(folder: Path) -> None:
    path = folder / "qrels" / "test.tsv"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n") + b"\r\n")
    assert read_dataset(folder).qrels["q2"] == {"d2": 1}


def test_the_test_split_is_preferred_and_another_can_be_chosen(folder: Path) -> None:
    write_lines(folder / "qrels" / "dev.tsv", [QRELS[0], "q3\td1\t1"])
    assert read_dataset(folder).split == "test"
    assert list(read_dataset(folder, split="dev").queries) == ["q3"]


def test_the_only_split_is_taken_whatever_its_name(folder: Path) -> None:
    (folder / "qrels" / "test.tsv").rename(folder / "qrels" / "dev.tsv")
    assert read_dataset(folder).split == "dev"


def test_an_unknown_split_is_refused_with_those_there_are(folder: Path) -> None:
    with pytest.raises(EvaluationError, match=r"No split 'train' .* one of: test"):
        read_dataset(folder, split="train")


@pytest.mark.parametrize("name", ["corpus.jsonl", "queries.jsonl", "qrels/test.tsv"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(EvaluationError, match=f"No {name.split('/')[0]}"):
        read_dataset(folder)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "corpus.jsonl line 3: not JSON"),
        ("[1]", 'corpus.jsonl line 3: expected an object with "_id" and "text"'),
        ('{"_id": "d3"}', 'line 3: expected an object with "_id" and "text"'),
        ('{"_id": 3, "text": "three"}', "line 3: .* both strings"),
        ('{"_id": "d1", "text": "again"}', "line 3: \"_id\" 'd1' was used further up"),
        ('{"_id": "d3", "text": "", "title": 3}', 'line 3: expected "title" to be a string'),
        ('{"_id": "d3", "text": "", "metadata": [1]}', 'line 3: .* "metadata" an object'),
    ],
)
def test_a_malformed_line_of_the_corpus_is_named(folder: Path, line: str, message: str) -> None:
    with (folder / "corpus.jsonl").open("a") as stream:
        stream.write(line)
    with pytest.raises(EvaluationError, match=message):
        list(read_dataset(folder).corpus())


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("q1\td3", "test.tsv line 5: expected query-id, corpus-id and a whole number .* found 'q1"),
        ("q1 d3 1", "line 5: expected query-id, corpus-id and a whole number"),
        ("q1\td3\t0.5", "line 5: expected query-id, corpus-id and a whole number"),
        ("q1\td1\t1", "line 5: 'd1' was judged 2 for 'q1' further up"),
        ("q9\td1\t1", "test.tsv judges query 'q9', which queries.jsonl does not have"),
    ],
)
def test_a_malformed_line_of_the_qrels_is_named(folder: Path, line: str, message: str) -> None:
    with (folder / "qrels" / "test.tsv").open("a") as stream:
        stream.write(line)
    with pytest.raises(EvaluationError, match=message):
        read_dataset(folder)


@pytest.mark.parametrize("lines", [[], QRELS[1:]])
def test_qrels_need_their_header(folder: Path, lines: list[str]) -> None:
    write_lines(folder / "qrels" / "test.tsv", lines)
    with pytest.raises(EvaluationError, match=r"test.tsv.*: expected the header query-id, corpus-id, score"):
        read_dataset(folder)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"\x00"])
def test_a_file_that_is_not_utf_8_or_not_compressed_is_named(folder: Path, content: bytes) -> None:
    (folder / "queries.jsonl").unlink()
    (folder / "queries.jsonl.gz").write_bytes(content)
    with pytest.raises(EvaluationError, match=r"queries.jsonl.gz cannot be read"):
        read_dataset(folder)


def test_a_truncated_archive_is_named(folder: Path) -> None:
    path = folder / "corpus.jsonl.gz"
    (folder / "corpus.jsonl").rename(path)
    path.write_bytes(gzip.compress(path.read_bytes())[:-12])
    with pytest.raises(EvaluationError, match=r"corpus.jsonl.gz cannot be read"):
        list(read_dataset(folder).corpus())


def test_metrics_equal_values_worked_out_by_hand() -> None:
    qrels = {"q1": {"a": 2, "b": 1, "c": 0}, "q2": {"d": 1}}
    run = {"q1": {"c": 0.9, "b": 0.8, "a": 0.7}, "q2": {"d": 0.1}}
    measured = {name: figure.per_query for name, figure in evaluate(qrels, run).items()}
    gain = 1 / math.log2(3) + 2 / math.log2(4)
    ideal = 2 / math.log2(2) + 1 / math.log2(3)
    assert measured["ndcg@10"] == pytest.approx({"q1": gain / ideal, "q2": 1})
    assert measured["mrr@10"] == {"q1": 0.5, "q2": 1}
    assert measured["recall@1"] == {"q1": 0, "q2": 1}
    assert measured["recall@5"] == {"q1": 1, "q2": 1}
    assert list(measured) == list(METRICS)


def test_what_stands_below_the_cut_off_does_not_count() -> None:
    scores = {f"d{rank:03}": -float(rank) for rank in range(1, 201)}
    measured = evaluate({"q": {"d006": 1, "d011": 1, "d150": 1, "d999": 1}}, {"q": scores})
    assert measured["recall@5"].mean == 0
    assert measured["recall@10"].mean == 0.25
    assert measured["recall@100"].mean == 0.5
    assert measured["mrr@10"].mean == pytest.approx(1 / 6)
    assert evaluate({"q": {"d011": 1}}, {"q": scores})["mrr@10"].mean == 0


def test_a_query_missing_from_the_run_counts_as_zero() -> None:
    measured = evaluate({"q1": {"a": 1}, "q2": {"a": 1}, "q3": {"a": 1}}, {"q1": {"a": 1.0}, "q2": {}})
    assert all(figure.mean == pytest.approx(1 / 3) for figure in measured.values())
    assert measured["mrr@10"].per_query == {"q1": 1, "q2": 0, "q3": 0}
    assert all(figure.mean == 0 for figure in evaluate({"q1": {"a": 1}}, {}).values())


def test_a_query_nobody_judged_is_left_out() -> None:
    assert evaluate({"q1": {"a": 1}}, {"q1": {"a": 1.0}, "q9": {"a": 1.0}})["ndcg@10"].per_query == {"q1": 1}


def test_equal_scores_are_ranked_by_descending_id_for_every_metric() -> None:
    measured = evaluate({"q": {"b": 1}}, {"q": {"a": 0.5, "b": 0.5}})
    assert (measured["mrr@10"].mean, measured["recall@1"].mean, measured["ndcg@10"].mean) == (1, 1, 1)


def test_scores_that_single_precision_cannot_tell_apart_are_told_apart() -> None:
    measured = evaluate({"q": {"a": 1}}, {"q": {"a": 0.5 + 1e-12, "b": 0.5}})
    assert (measured["mrr@10"].mean, measured["ndcg@10"].mean) == (1, 1)


def test_the_interval_is_that_of_resampled_queries() -> None:
    qrels = {f"q{number}": {"a": 1} for number in range(100)}
    run = {f"q{number}": {"a": 1.0} for number in range(50)}
    figure = evaluate(qrels, run)["recall@1"]
    assert figure.mean == 0.5
    # A mean of 100 coin tosses has a standard error of 0.05.
    assert figure.low == pytest.approx(0.5 - 1.96 * 0.05, abs=0.02)
    assert figure.high == pytest.approx(0.5 + 1.96 * 0.05, abs=0.02)
    assert evaluate(qrels, run)["recall@1"] == figure


def test_evaluating_without_qrels_is_refused() -> None:
    with pytest.raises(EvaluationError, match="no qrels"):
        evaluate({}, {"q1": {"a": 1.0}})


def test_a_difference_has_its_interval_and_p_value() -> None:
    qrels = {f"q{number}": {"a": 1} for number in range(5)}
    found = evaluate(qrels, {query_id: {"a": 1.0} for query_id in qrels})
    nothing = evaluate(qrels, {})
    differences = compare(found, nothing)
    assert list(differences) == list(METRICS)
    # Of the 32 ways to turn the signs of five equal differences, two give a mean as far from 0.
    assert set(differences.values()) == {Difference(1.0, 1.0, 1.0, 2 / 32)}
    assert compare(nothing, found)["mrr@10"] == Difference(-1.0, -1.0, -1.0, 2 / 32)


def test_with_many_queries_the_p_value_is_near_that_of_a_t_test() -> None:
    qrels = {f"q{number:03}": {"a": 1} for number in range(200)}
    ranking = {query_id: {"a": 1.0} for query_id in qrels}
    better = evaluate(qrels, dict(list(ranking.items())[:120]))
    worse = evaluate(qrels, dict(list(ranking.items())[20:120] + list(ranking.items())[-8:]))
    difference = compare(better, worse)["recall@1"]
    expected = ttest_rel(list(better["recall@1"].per_query.values()), list(worse["recall@1"].per_query.values()))
    assert difference.mean == 0.06
    assert difference.p_value == pytest.approx(expected.pvalue, abs=0.02)
    error = 0.06 / expected.statistic
    assert (difference.low, difference.high) == pytest.approx((0.06 - 1.96 * error, 0.06 + 1.96 * error), abs=0.01)
    assert compare(better, worse)["recall@1"] == difference


def test_runs_that_do_not_differ_or_a_single_query_prove_nothing() -> None:
    qrels = {"q1": {"a": 1}, "q2": {"a": 1}, "q3": {"a": 1}}
    measured = evaluate(qrels, {"q1": {"a": 1.0}})
    assert set(compare(measured, measured).values()) == {Difference(0.0, 0.0, 0.0, 1.0)}
    one = {"q1": {"a": 1}}
    assert compare(evaluate(one, {"q1": {"a": 1.0}}), evaluate(one, {}))["ndcg@10"] == Difference(1.0, 1.0, 1.0, 1.0)


def test_queries_that_a_run_leaves_out_are_told() -> None:
    qrels = {"q1": {"a": 1}, "q2": {"a": 1}, "q3": {"a": 1}}
    assert unranked(qrels, {"q2": {"b": 0.5}, "q3": {}, "q9": {"a": 1.0}}) == ["q1", "q3"]
    assert unranked(qrels, {}) == ["q1", "q2", "q3"]


def test_a_run_is_written_in_six_columns(tmp_path: Path) -> None:
    write_run({"q1": {"a": 0.25, "b": 0.75}, "q2": {"ü": 1}}, tmp_path / "run", tag="whence")
    assert (tmp_path / "run").read_text(encoding="utf-8").splitlines() == [
        "q1 Q0 b 1 0.75 whence",
        "q1 Q0 a 2 0.25 whence",
        "q2 Q0 ü 1 1.0 whence",
    ]


def test_a_run_reads_back_as_it_was_written(tmp_path: Path) -> None:
    run = {"q1": {"a": 1 / 3, "b": 1e-9}, "q2": {"c": -1.0}}
    write_run(run, tmp_path / "run", tag="whence")
    assert read_run(tmp_path / "run") == run


def test_a_compressed_run_is_read_as_well(tmp_path: Path) -> None:
    write_lines(tmp_path / "run.gz", ["q1 Q0 a 1 0.5 other"])
    assert read_run(tmp_path / "run.gz") == {"q1": {"a": 0.5}}


@pytest.mark.parametrize(
    ("run", "tag", "message"),
    [
        ({"q 1": {"a": 1.0}}, "whence", "query id 'q 1'"),
        ({"q1": {"my file.md": 1.0}}, "whence", "document id 'my file.md'"),
        ({"q1": {"": 1.0}}, "whence", "document id ''"),
        ({"q1": {"a": 1.0}}, "my run", "tag 'my run'"),
    ],
)
def test_what_a_run_cannot_carry_is_refused(
    tmp_path: Path, run: dict[str, dict[str, float]], tag: str, message: str
) -> None:
    with pytest.raises(EvaluationError, match=f"{message} cannot stand in a TREC run"):
        write_run(run, tmp_path / "run", tag=tag)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("q1 Q0 b 2 0.1", "run line 2: expected 6 columns .* found 5"),
        ("q1 Q0 a 2 0.1 tag", "run line 2: document 'a' is ranked twice for query 'q1'"),
        ("q1 Q0 b 2 high tag", "run line 2: expected a number as the score, found 'high'"),
        ("q1 Q0 b 2 nan tag", "run line 2: expected a finite score, found 'nan'"),
    ],
)
def test_a_malformed_line_of_a_run_is_named(tmp_path: Path, line: str, message: str) -> None:
    write_lines(tmp_path / "run", ["q1 Q0 a 1 0.5 tag", line])
    with pytest.raises(EvaluationError, match=message):
        read_run(tmp_path / "run")


def test_a_run_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="missing cannot be read"):
        read_run(tmp_path / "missing")
