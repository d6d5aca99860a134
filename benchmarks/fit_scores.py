"""Fit the weights of a passage's score on data sets in BEIR layout, and say how well they hold on one left out.

    python benchmarks/fit_scores.py FOLDER [FOLDER ...] [--weight FOLDER=3 ...] [--write FILE]

The candidates of a question get probabilities, by a softmax over their scores; the loss is the negative logarithm of
what the relevant ones get together, which for one relevant candidate is the listwise cross entropy of ListNet (Cao et
al. 2007, "Learning to Rank: From Pairwise Approach to Listwise Approach"). The weights that make its mean least, none
of them below 0, are scaled to add up to 1, which changes no order. A question without a relevant candidate teaches
nothing.

Each set counts the same however many questions it has, or as much as --weight says; the figures beside the joint fit
come from fits that left out the set they are measured on. `furniture`, a factor for navigation and repeated headers,
is not fitted: no such data set has any.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from figures import measured, print_figures, table
from indexes import default_encoder, open_dataset, progress_bars
from machine import machine
from scipy.optimize import minimize

from index.draft import Progress
from index.embeddings import Encoder, QueryEncoder
from index.evaluation import Dataset, Qrels, evaluate
from index.generations import Generation
from index.retrieval import RESCORED, score_candidates
from index.runs import QUERIES_AT_ONCE
from index.weights import PARTS, default_weights

DECIMALS = 2
FIRST_GUESS = 5.0  # for each part; what it is makes no difference to where the search ends
# Keeps the weights finite where they order everything rightly, and too small to matter where they do not.
PENALTY = 1e-6


@dataclass(frozen=True)
class Sample:
    """The candidates of a data set's questions, one question's after another's.

    Attributes:
        name: of the data set's folder.
        qrels: of its questions.
        query_ids: of the questions, in the order of their candidates.
        bounds: int64, shape (questions + 1,): where each question's candidates begin, and the end.
        parts: float64, shape (candidates, parts), in the order of `PARTS`.
        doc_ids: of the candidates' documents.
        relevant: bool, shape (candidates,).
    """

    name: str
    qrels: Qrels
    query_ids: list[str]
    bounds: np.ndarray
    parts: np.ndarray
    doc_ids: np.ndarray
    relevant: np.ndarray


def main() -> None:
    """Collect, fit, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument(
        "--weight", action="append", default=[], metavar="FOLDER=NUMBER", help="of a set, 1 if not given"
    )
    parser.add_argument("--write", type=Path, help="file for the tables; what stands above them there stays")
    arguments = parser.parse_args()
    try:
        importance = read_importance(arguments.folders, arguments.weight)
    except ValueError as exc:
        parser.error(str(exc))
    encoder = default_encoder()
    samples = [collect(folder, encoder) for folder in arguments.folders]
    print_figures(report(samples, importance), arguments.write)


def read_importance(folders: Sequence[Path], given: Sequence[str]) -> dict[str, float]:
    """Return the weight of each set, by name.

    Raises:
        ValueError: what was given names no set or no number above 0.
    """
    importance = {folder.resolve().name: 1.0 for folder in folders}
    for option in given:
        folder, _, number = option.rpartition("=")
        name = Path(folder).resolve().name
        if name not in importance or not float(number) > 0:
            raise ValueError(f"--weight {option}: expected one of {', '.join(importance)}, = and a number above 0")
        importance[name] = float(number)
    return importance


def collect(folder: Path, encoder: Encoder) -> Sample:
    """Score the candidates of all questions of a data set."""
    with progress_bars() as progress, open_dataset(folder, encoder, progress) as (dataset, generation):
        return sample_of(folder.resolve().name, dataset, generation, encoder, progress)


def sample_of(
    name: str, dataset: Dataset, generation: Generation, encoder: QueryEncoder, progress: Progress
) -> Sample:
    """Score the candidates of all questions of a data set that is open already."""
    found = candidates(generation, encoder, dataset, progress)
    documents = np.array([record.doc_id for record in generation.document_records], dtype=object)
    first_rows = np.array([record.first_row for record in generation.document_records], dtype=np.int64)
    counts = [len(rows) for rows, _ in found.values()]
    rows = np.concatenate([rows for rows, _ in found.values()])
    doc_ids = documents[np.searchsorted(first_rows, rows, side="right") - 1]
    asked = np.repeat(list(found), counts)
    return Sample(
        name=name,
        qrels=dataset.qrels,
        query_ids=list(found),
        bounds=np.cumsum([0, *counts]),
        parts=np.concatenate([parts for _, parts in found.values()], dtype=np.float64),
        doc_ids=doc_ids,
        relevant=np.array(
            [dataset.qrels[query_id].get(doc_id, 0) > 0 for query_id, doc_id in zip(asked, doc_ids, strict=True)]
        ),
    )


def candidates(
    generation: Generation, encoder: QueryEncoder, dataset: Dataset, progress: Progress
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return the rows and the parts of each question's candidates; a question without any is left out.

    Candidates are those that answers are ordered by: the first `RESCORED` of both searches.
    """
    found = {}
    query_ids = list(dataset.queries)
    progress.start("Collecting", len(query_ids))
    for first in range(0, len(query_ids), QUERIES_AT_ONCE):
        batch = query_ids[first : first + QUERIES_AT_ONCE]
        embeddings = encoder.encode_queries([dataset.queries[query_id] for query_id in batch])
        for query_id, embedding in zip(batch, embeddings, strict=True):
            query = generation.lexical.query(dataset.queries[query_id])
            scored = score_candidates(generation, query, embedding, weights=default_weights().score)
            if len(scored.rows):
                parts = np.column_stack([scored.parts[part] for part in PARTS])
                found[query_id] = scored.rows[:RESCORED], parts[:RESCORED]
        progress.advance(len(batch))
    return found


def fit(samples: Sequence[Sample], importance: Mapping[str, float]) -> np.ndarray:
    """Fit on all samples, each with its weight; shape (parts,), rounded, adding up to 1."""
    lessons = [(*lesson(sample), importance[sample.name]) for sample in samples]

    def objective(weights: np.ndarray) -> tuple[float, np.ndarray]:
        losses = [(loss(weights, *of_set), importance) for *of_set, importance in lessons]
        total = sum(importance * value for (value, _), importance in losses)
        gradient = sum(importance * slope for (_, slope), importance in losses)
        return total + PENALTY * weights @ weights, gradient + 2 * PENALTY * weights

    guess = np.full(len(PARTS), FIRST_GUESS)
    found = minimize(objective, guess, jac=True, method="L-BFGS-B", bounds=[(0, None)] * len(PARTS))
    if not found.success:
        raise SystemExit(f"The fit did not converge: {found.message}")
    return rounded(found.x / found.x.sum())


def lesson(sample: Sample) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return parts, relevance and first candidates of the questions that have a relevant candidate."""
    counts = np.diff(sample.bounds)
    has_relevant = np.logical_or.reduceat(sample.relevant, sample.bounds[:-1])
    kept = np.repeat(has_relevant, counts)
    first = np.cumsum([0, *counts[has_relevant][:-1]])
    return sample.parts[kept], sample.relevant[kept], first


def loss(weights: np.ndarray, parts: np.ndarray, relevant: np.ndarray, first: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the mean loss over the questions, and its gradient."""
    scores = parts @ weights
    among_all, total = softmax(scores, first)
    among_relevant, of_relevant = softmax(np.where(relevant, scores, -np.inf), first)
    return float(np.mean(total - of_relevant)), (among_all - among_relevant) @ parts / len(first)


def softmax(scores: np.ndarray, first: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return each candidate's probability among those of its question, and the logarithm of each question's sum."""
    counts = np.diff(first, append=len(scores))
    highest = np.maximum.reduceat(scores, first)
    powers = np.exp(scores - np.repeat(highest, counts))
    sums = np.add.reduceat(powers, first)
    return powers / np.repeat(sums, counts), highest + np.log(sums)


def rounded(weights: np.ndarray) -> np.ndarray:
    """Round weights so that they still add up to 1."""
    result = np.round(weights, DECIMALS)
    result[result.argmax()] += 1 - result.sum()
    return np.round(result, DECIMALS)


def report(samples: Sequence[Sample], importance: Mapping[str, float]) -> list[str]:
    """Fit on all samples and without each of them, and measure."""
    shipped = np.array([getattr(default_weights().score, part) for part in PARTS])
    joint = fit(samples, importance)
    without = {
        left_out.name: fit([sample for sample in samples if sample is not left_out], importance)
        for left_out in samples
        if len(samples) > 1
    }
    rows = [
        [
            sample.name,
            f"{len(sample.qrels):,}",
            f"{importance[sample.name]:g}",
            *(quality_of(sample, weights) for weights in (shipped, joint)),
            quality_of(sample, without[sample.name]) if without else "",
        ]
        for sample in samples
    ]
    fits = {
        "shipped": shipped,
        "all sets": joint,
        **{f"without {name}": weights for name, weights in without.items()},
    }
    return [
        "## nDCG@10 and recall@1",
        "",
        *table(["data set", "questions", "weight", "shipped", "fit on all", "fit without it"], rows),
        "## Weights",
        "",
        *table(["fit", *PARTS], [[name, *map("{:.2f}".format, weights)] for name, weights in fits.items()]),
        *toml(joint),
        "",
        machine(),
    ]


def quality_of(sample: Sample, weights: np.ndarray) -> str:
    """Measure the ranking of a sample by some weights."""
    metrics = evaluate(sample.qrels, ranked(sample, weights))
    return f"{measured(metrics['ndcg@10'])}, {metrics['recall@1'].mean:.3f}"


def ranked(sample: Sample, weights: np.ndarray) -> dict[str, dict[str, float]]:
    """Score documents as their best candidates."""
    scores = sample.parts @ weights
    run = {}
    for query_id, first, end in zip(sample.query_ids, sample.bounds, sample.bounds[1:], strict=False):
        ascending = first + np.argsort(scores[first:end], kind="stable")
        # Of several candidates of a document the last one, which is the best, counts.
        run[query_id] = dict(zip(sample.doc_ids[ascending], scores[ascending].tolist(), strict=True))
    return run


def toml(weights: np.ndarray, name: str = "score") -> list[str]:
    """Return the table of `index/weights.toml`."""
    return [
        "```toml",
        f"[{name}]",
        *(f"{part} = {weight:.{DECIMALS}f}" for part, weight in zip(PARTS, weights, strict=True)),
        f"furniture = {default_weights().score.furniture:.2f}",
        "```",
    ]


if __name__ == "__main__":
    main()
