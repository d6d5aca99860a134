"""Retrieval quality: data sets in BEIR layout, TREC runs, and metrics with their intervals.

    folder/corpus.jsonl      {"_id": "d1", "title": "...", "text": "..."}, one document a line
    folder/queries.jsonl     {"_id": "q1", "text": "..."}
    folder/qrels/test.tsv    query-id, corpus-id, score between tabs, under a header

Each file may be compressed as .gz. The metrics are computed by ir-measures, the significance of differences by SciPy.
"""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ir_measures
import numpy as np

from index.documents import HALF_SURROGATE
from index.errors import EvaluationError

Qrels = dict[str, dict[str, int]]
"""query_id -> doc_id -> relevance; 0 is judged and not relevant."""

Run = dict[str, dict[str, float]]
"""query_id -> doc_id -> score, higher is better."""

METRICS = {
    "ndcg@10": ir_measures.nDCG @ 10,
    "mrr@10": ir_measures.RR @ 10,
    "recall@1": ir_measures.R @ 1,
    "recall@5": ir_measures.R @ 5,
    "recall@10": ir_measures.R @ 10,
    "recall@100": ir_measures.R @ 100,
}
RESAMPLES = 1_000
PERMUTATIONS = 9_999  # so that no p-value is below 0.0002

_LAYOUT = "A data set in BEIR layout has corpus.jsonl, queries.jsonl and qrels/*.tsv."
_VALUES_AT_ONCE = 2_000_000  # 16 MB, of which a test holds several copies
_QRELS_HEADER = ["query-id", "corpus-id", "score"]


@dataclass(frozen=True)
class CorpusEntry:
    """One document of a data set; `title` is empty where there is none."""

    doc_id: str
    title: str
    text: str
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Dataset:
    """Queries with their relevance judgements, and the corpus they are about.

    Attributes:
        corpus_path: read by `corpus`, as often as wanted.
        split: name of the qrels file without its ending.
        queries: query_id -> text of the queries that are judged in the split, in the order of their file.
        qrels: of the split.
    """

    corpus_path: Path
    split: str
    queries: dict[str, str]
    qrels: Qrels

    def corpus(self) -> Iterator[CorpusEntry]:
        """Read the corpus document by document, so that it need not fit into memory.

        Raises:
            EvaluationError: at the first malformed line.
        """
        for place, entry in _entries(self.corpus_path):
            title, metadata = entry.get("title") or "", entry.get("metadata") or {}
            if not isinstance(title, str) or not isinstance(metadata, dict):
                raise EvaluationError(f'{place}: expected "title" to be a string and "metadata" an object.')
            yield CorpusEntry(entry["_id"], title, entry["text"], metadata)


@dataclass(frozen=True)
class Measurement:
    """A metric over a set of queries.

    Attributes:
        mean: over all queries of the qrels, those without a ranking counted as 0.
        low: lower end of the 95 % interval of the mean, from a percentile bootstrap over queries.
        high: its upper end.
        per_query: query_id -> value, in ascending order of query_id.
    """

    mean: float
    low: float
    high: float
    per_query: dict[str, float]


@dataclass(frozen=True)
class Difference:
    """By how much one run is better than another in a metric.

    Attributes:
        mean: of the differences over the queries; below 0 where the other run is better.
        low: lower end of the 95 % interval of the mean, from a paired percentile bootstrap over queries.
        high: its upper end.
        p_value: how often a mean this far from 0 comes about when the runs do not differ.
    """

    mean: float
    low: float
    high: float
    p_value: float


def read_dataset(folder: Path, *, split: str | None = None) -> Dataset:
    """Read queries and qrels of a data set; the corpus is read later, by `Dataset.corpus`.

    Args:
        folder: in BEIR layout.
        split: name of a qrels file without its ending; None for "test", or else the only one there is.

    Raises:
        EvaluationError: a file is missing or a line is malformed; the text names file and line.
    """
    qrels_path = _choose_qrels(folder, split)
    qrels = _read_qrels(qrels_path)
    queries = {
        entry["_id"]: entry["text"]
        for _, entry in _entries(_find_file(folder, "queries.jsonl"))
        if entry["_id"] in qrels
    }
    if missing := sorted(qrels.keys() - queries.keys()):
        raise EvaluationError(f"{qrels_path} judges query {missing[0]!r}, which queries.jsonl does not have.")
    return Dataset(_find_file(folder, "corpus.jsonl"), _split_name(qrels_path), queries, qrels)


def evaluate(qrels: Qrels, run: Run, *, seed: int = 0) -> dict[str, Measurement]:
    """Compute all `METRICS` of a run.

    Documents of equal score are ranked as trec_eval does: by document id, descending.

    Args:
        qrels: the judgements; a query without a relevant document scores 0.
        run: queries that are not in `qrels` are left out.
        seed: of the bootstrap, whose resamples are the same for every metric.

    Returns:
        Name of the metric -> measurement, in the order of `METRICS`.

    Raises:
        EvaluationError: there are no qrels.
    """
    if not qrels:
        raise EvaluationError("There are no qrels to evaluate with. Give at least one judged query.")
    query_ids = sorted(qrels)
    values = _values_per_query(qrels, run, query_ids)
    lows, highs = _bootstrap_interval(values, seed)
    return {
        name: Measurement(
            mean=float(column.mean()),
            low=float(low),
            high=float(high),
            per_query=dict(zip(query_ids, column.tolist(), strict=True)),
        )
        for name, column, low, high in zip(METRICS, values.T, lows, highs, strict=True)
    }


def compare(
    measured: Mapping[str, Measurement], other: Mapping[str, Measurement], *, seed: int = 0
) -> dict[str, Difference]:
    """Compare two runs over the same qrels, metric by metric.

    The p-value is that of a two-sided paired randomization test (Fisher's): the values of a query are exchanged
    between the runs at random, all metrics alike. It assumes no distribution, and Smucker, Allan & Carterette 2007,
    "A Comparison of Statistical Significance Tests for Information Retrieval Evaluation", recommend it. Each p-value
    stands alone, not corrected for how many metrics or runs are looked at.

    Args:
        measured: of the one run, by `evaluate`.
        other: of the other, with the same qrels.
        seed: of the bootstrap and of the test.

    Returns:
        Name of the metric -> difference, in the order of `measured`.
    """
    values = np.array(
        [
            [value - other[name].per_query[query_id] for query_id, value in figure.per_query.items()]
            for name, figure in measured.items()
        ]
    ).T
    lows, highs = _bootstrap_interval(values, seed)
    return {
        name: Difference(float(mean), float(low), float(high), float(p_value))
        for name, mean, low, high, p_value in zip(
            measured, values.mean(axis=0), lows, highs, _p_values(values, seed), strict=True
        )
    }


def unranked(qrels: Qrels, run: Run) -> list[str]:
    """Return the judged queries for which a run has no document, in the order of the qrels."""
    return [query_id for query_id in qrels if not run.get(query_id)]


def write_run(run: Run, path: Path, *, tag: str) -> None:
    """Write a run in TREC format: query_id, Q0, doc_id, rank from 1, score, tag.

    Raises:
        EvaluationError: an id or the tag is empty or holds white space, which the format cannot carry.
    """
    _check_columns("tag", [tag])
    _check_columns("query id", run)
    for scores in run.values():
        _check_columns("document id", scores)
    with path.open("w", encoding="utf-8") as stream:
        for query_id, scores in run.items():
            for rank, doc_id in enumerate(_ranking(scores), 1):
                stream.write(f"{query_id} Q0 {doc_id} {rank} {float(scores[doc_id])!r} {tag}\n")


def read_run(path: Path) -> Run:
    """Read a run in TREC format, compressed if its name ends in .gz; ranks and tag are ignored.

    Raises:
        EvaluationError: the file cannot be read or a line is malformed; the text names file and line.
    """
    run: Run = {}
    for place, line in _lines(path):
        columns = line.split()
        if len(columns) != 6:
            raise EvaluationError(
                f"{place}: expected 6 columns (query_id Q0 doc_id rank score tag), found {len(columns)}."
            )
        query_id, _, doc_id, _, score, _ = columns
        scores = run.setdefault(query_id, {})
        if doc_id in scores:
            raise EvaluationError(f"{place}: document {doc_id!r} is ranked twice for query {query_id!r}.")
        scores[doc_id] = _parse_score(place, score)
    return run


def _choose_qrels(folder: Path, split: str | None) -> Path:
    paths = {_split_name(path): path for path in sorted(folder.glob("qrels/*.tsv*")) if _is_qrels(path)}
    if not paths:
        raise EvaluationError(f"No qrels in {folder}. {_LAYOUT}")
    wanted = split or ("test" if len(paths) > 1 else next(iter(paths)))
    if wanted not in paths:
        raise EvaluationError(f"No split {wanted!r} in {folder / 'qrels'}. Choose one of: {', '.join(paths)}.")
    return paths[wanted]


def _is_qrels(path: Path) -> bool:
    return path.name.endswith((".tsv", ".tsv.gz"))


def _split_name(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".tsv")


def _find_file(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise EvaluationError(f"No {name} in {folder}. {_LAYOUT}")


def _read_qrels(path: Path) -> Qrels:
    lines = _lines(path)
    place, header = next(lines, (str(path), ""))
    if header.split("\t") != _QRELS_HEADER:
        raise EvaluationError(f"{place}: expected the header query-id, corpus-id, score between tabs.")
    qrels: Qrels = {}
    for place, line in lines:
        query_id, doc_id, relevance = _parse_judgement(place, line)
        known = qrels.setdefault(query_id, {}).setdefault(doc_id, relevance)
        if known != relevance:
            raise EvaluationError(f"{place}: {doc_id!r} was judged {known} for {query_id!r} further up.")
    return qrels


def _parse_judgement(place: str, line: str) -> tuple[str, str, int]:
    columns = line.split("\t")
    try:
        query_id, doc_id, relevance = columns
        return query_id, doc_id, int(relevance)
    except ValueError as exc:
        raise EvaluationError(
            f"{place}: expected query-id, corpus-id and a whole number between tabs, found {line!r:.80}."
        ) from exc


def _entries(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the place and the object of each line, with a new `_id` and a `text`, both strings."""
    seen: set[str] = set()
    for place, line in _lines(path):
        entry = _parse_entry(place, line)
        if entry["_id"] in seen:
            raise EvaluationError(f'{place}: "_id" {entry["_id"]!r} was used further up.')
        seen.add(entry["_id"])
        yield place, entry


def _parse_entry(place: str, line: str) -> dict[str, Any]:
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError) as exc:
        raise EvaluationError(f"{place}: not JSON ({exc}).") from exc
    if not isinstance(entry, dict) or not all(isinstance(entry.get(key), str) for key in ("_id", "text")):
        raise EvaluationError(f'{place}: expected an object with "_id" and "text", both strings.')
    if any(isinstance(value, str) and HALF_SURROGATE.search(value) for value in entry.values()):
        raise EvaluationError(f"{place}: half of a surrogate pair, which is no text. Write the file as UTF-8.")
    return entry


def _parse_score(place: str, text: str) -> float:
    try:
        score = float(text)
    except ValueError as exc:
        raise EvaluationError(f"{place}: expected a number as the score, found {text!r}.") from exc
    if not math.isfinite(score):
        raise EvaluationError(f"{place}: expected a finite score, found {text!r}.")
    return score


def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """Yield "path line n" and the line, for lines that are not blank."""
    number = 0
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            for number, raw in enumerate(stream, 1):
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
                if line.strip():
                    yield f"{path} line {number}", line
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as exc:
        raise EvaluationError(f"{path} cannot be read as UTF-8 text after line {number}: {exc}.") from exc


def _check_columns(name: str, values: Iterable[str]) -> None:
    for value in values:
        if value.split() != [value]:
            raise EvaluationError(
                f"The {name} {value!r} cannot stand in a TREC run, whose columns are not empty and hold no "
                "white space. Rename it, or write another format."
            )


def _ranking(scores: Mapping[str, float]) -> list[str]:
    return sorted(scores, key=lambda doc_id: (scores[doc_id], doc_id), reverse=True)


def _values_per_query(qrels: Qrels, run: Run, query_ids: list[str]) -> np.ndarray:
    """Return float64 of shape (queries, metrics)."""
    # Ranks stand in for scores: the library's providers order equal scores differently, and see float32.
    ranked = {
        query_id: {doc_id: float(-rank) for rank, doc_id in enumerate(_ranking(run[query_id]))}
        for query_id in query_ids
        if run.get(query_id)
    }
    column = {measure: number for number, measure in enumerate(METRICS.values())}
    row = {query_id: number for number, query_id in enumerate(query_ids)}
    values = np.zeros((len(row), len(column)))
    for metric in ir_measures.iter_calc(list(column), qrels, ranked):
        values[row[metric.query_id], column[metric.measure]] = metric.value
    return values


def _bootstrap_interval(values: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the 2.5 % and 97.5 % points of the means of resampled rows, one for each column."""
    random = np.random.default_rng(seed)
    means = [values[random.integers(len(values), size=len(values))].mean(axis=0) for _ in range(RESAMPLES)]
    low, high = np.percentile(means, [2.5, 97.5], axis=0)
    return low, high


def _p_values(differences: np.ndarray, seed: int) -> np.ndarray:
    """Test for each column, float64 of shape (queries, metrics), whether its mean is 0."""
    from scipy.stats import permutation_test  # type: ignore[import-untyped]  # takes a second to load

    if len(differences) < 2:  # whichever way round, one query differs as much
        return np.ones(differences.shape[1])
    tested = permutation_test(
        (differences,),
        np.mean,
        permutation_type="samples",  # for differences: their signs are turned at random
        vectorized=True,
        n_resamples=PERMUTATIONS,
        batch=max(1, _VALUES_AT_ONCE // differences.size),
        rng=seed,
    )
    return np.asarray(tested.pvalue)
