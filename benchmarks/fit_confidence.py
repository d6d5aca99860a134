"""Fit the confidence of an answer on labelled questions, and say how well it holds on a data set it has not seen.

    python benchmarks/fit_confidence.py FOLDER [FOLDER ...] [--labels FILE --documents FOLDER] [--write FILE]

Each FOLDER is a data set in BEIR layout whose passages are judged completely enough that a first passage without a
judgement does not answer. FILE has labelled questions about the documents of a folder, one JSON object a line:
{"question": "...", "documents": ["guide.md", ...]}, without documents where none answers. Kinds of questions:

    asked      the questions as they are; the first passage answers if it is judged relevant
    held out   the same questions with their relevant passages hidden: near the topic, but not answered
    unseen     questions that nothing answers: labelled so, or from queries-offcorpus.jsonl in the folder

The regression is fitted on all sets together, each with the same weight (a small one with less); the figures beside
it come from fits that left out the set they are measured on. AUROC: how well confidence orders; ECE: expected
calibration error over ten bins (Guo et al. 2017, "On Calibration of Modern Neural Networks"). scikit-learn comes with
sentence-transformers.
"""

from __future__ import annotations

import argparse
import json
import platform
from dataclasses import astuple, dataclass, fields
from datetime import date
from pathlib import Path

import numpy as np
from rich.console import Console
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from index.build import sync
from index.embeddings import Encoder, load_encoder
from index.evaluation import Dataset, read_dataset
from index.generations import Generation, Home
from index.models import DEFAULT_MODEL
from index.retrieval import retrieve
from index.runs import index_dataset
from index.sources import Source
from index.weights import Evidence, default_weights
from service.display import TerminalProgress
from service.settings import read_settings

FEATURES = tuple(field.name for field in fields(Evidence))
SILENCED_SHARE = 0.07  # of the asked questions whose first passage answers, at most, in any set
# What a service is asked: mostly what its documents answer. It decides how sure a middling passage is.
KIND_SHARES = {"asked": 0.7, "held out": 0.15, "unseen": 0.15}
QUESTIONS_PER_KIND = 2_000
FULL_WEIGHT_QUESTIONS = 300  # a set with fewer weighs less
# With few parameters and thousands of questions a penalty changes nothing; this only keeps the solver stable.
INVERSE_PENALTY = 100.0


@dataclass(frozen=True)
class Sample:
    """Questions of one data set: evidence for the first passage, shape (n, 6), whether it answers, and the kind."""

    name: str
    evidence: np.ndarray
    answers: np.ndarray
    kinds: np.ndarray


def main() -> None:
    """Fit, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--labels", type=Path, help="labelled questions")
    parser.add_argument("--documents", type=Path, help="the documents that --labels is about")
    parser.add_argument("--write", type=Path, help="file for the table")
    arguments = parser.parse_args()
    samples = [collect(folder) for folder in arguments.folders]
    if arguments.labels:
        samples.append(collect_labelled(arguments.labels, arguments.documents))
    lines = [*report(samples), "", *coefficients(fit(samples), samples)]
    print("\n".join(lines))
    if arguments.write:
        arguments.write.write_text("\n".join(["# Confidence", "", *lines, ""]), encoding="utf-8")


def collect(folder: Path) -> Sample:
    """Ask the questions of a data set in all three ways."""
    settings = read_settings()
    dataset = read_dataset(folder)
    encoder = load_encoder(DEFAULT_MODEL, cache_folder=settings.cache / "models")
    home = Home(settings.cache / "fits" / folder.resolve().name)
    with TerminalProgress(Console(stderr=True)) as progress:
        generation = index_dataset(dataset, folder, home, encoder, progress)
    rows = [
        *asked(generation, encoder, dataset, hold_out=False),
        *asked(generation, encoder, dataset, hold_out=True),
        *unseen(generation, encoder, folder),
    ]
    generation.close()
    evidence, answers, kinds = zip(*rows, strict=True)
    return Sample(folder.resolve().name, np.array(evidence), np.array(answers), np.array(kinds))


def collect_labelled(labels: Path, documents: Path) -> Sample:
    """Ask labelled questions about a folder of documents."""
    settings = read_settings()
    encoder = load_encoder(DEFAULT_MODEL, cache_folder=settings.cache / "models")
    home = Home(settings.cache / "fits" / documents.resolve().name)
    sync(home, [Source(documents.resolve())], encoder)
    generation = home.open_current()
    rows = []
    for line in labels.read_text(encoding="utf-8").splitlines():
        label = json.loads(line)
        evidence, doc_id = first_passage(generation, encoder, label["question"], None)
        kind = "asked" if label["documents"] else "unseen"
        rows.append((astuple(evidence), doc_id in label["documents"], kind))
    generation.close()
    evidence, answers, kinds = zip(*rows, strict=True)
    return Sample(documents.resolve().name, np.array(evidence), np.array(answers), np.array(kinds))


def asked(
    generation: Generation, encoder: Encoder, dataset: Dataset, *, hold_out: bool
) -> list[tuple[tuple[float, ...], bool, str]]:
    """Ask the data set's own questions, with or without the passages that answer them."""
    records = {record.doc_id: record for record in generation.document_records}
    rows = []
    for query_id in thinned(list(dataset.queries)):
        relevant = {doc_id for doc_id, grade in dataset.qrels[query_id].items() if grade > 0}
        allowed = None
        if hold_out:
            allowed = np.ones(generation.manifest.chunks, dtype=np.bool_)
            for record in (records[doc_id] for doc_id in relevant if doc_id in records):
                allowed[record.first_row : record.first_row + record.chunk_count] = False
        evidence, doc_id = first_passage(generation, encoder, dataset.queries[query_id], allowed)
        rows.append((astuple(evidence), doc_id in relevant, "held out" if hold_out else "asked"))
    return rows


def unseen(generation: Generation, encoder: Encoder, folder: Path) -> list[tuple[tuple[float, ...], bool, str]]:
    """Ask questions that nothing in the data set answers, where it has some."""
    path = folder / "queries-offcorpus.jsonl"
    if not path.exists():
        return []
    questions = [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()]
    found = (first_passage(generation, encoder, question, None) for question in thinned(questions))
    return [(astuple(evidence), False, "unseen") for evidence, _ in found]


def first_passage(
    generation: Generation, encoder: Encoder, question: str, allowed: np.ndarray | None
) -> tuple[Evidence, str]:
    """Return the evidence for the first passage and its document."""
    (embedding,) = encoder.encode_queries([question])
    query = generation.lexical.query(question)
    (passage,) = retrieve(generation, query, embedding, top_k=1, weights=default_weights().score, allowed=allowed)
    return passage.evidence, passage.chunk.document.doc_id


def thinned(items: list[str]) -> list[str]:
    """Take every n-th item so that no kind has more than `QUESTIONS_PER_KIND`."""
    return items[:: -(-len(items) // QUESTIONS_PER_KIND)]


def fit(samples: list[Sample]) -> LogisticRegression:
    """Fit on all samples, each with the same weight, and each kind of question with its share."""
    evidence = np.concatenate([sample.evidence for sample in samples])
    answers = np.concatenate([sample.answers for sample in samples])
    weights = np.concatenate([question_weights(sample) for sample in samples])
    model = LogisticRegression(C=INVERSE_PENALTY, max_iter=1_000)
    return model.fit(evidence, answers, sample_weight=weights * len(answers) / weights.sum())


def question_weights(sample: Sample) -> np.ndarray:
    """Weigh the questions of a sample so that they add up to 1, or to less if they are few."""
    counts = {kind: int((sample.kinds == kind).sum()) for kind in KIND_SHARES}
    weights = np.array([KIND_SHARES[kind] / counts[kind] for kind in sample.kinds])
    return weights / weights.sum() * min(1.0, len(weights) / FULL_WEIGHT_QUESTIONS)


def report(samples: list[Sample]) -> list[str]:
    """Measure each sample with a fit on the others, or on itself when it is the only one."""
    lines = [
        f"{date.today()}, {platform.machine()}, {default_weights().score}",
        "",
        "| left out | questions | AUROC | AUROC asked / unseen | ECE | silenced of answering | silenced of held out "
        "| silenced of unseen |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for sample in samples:
        others = [other for other in samples if other is not sample] or [sample]
        model = fit(others)
        lines.append(_row(sample, model.predict_proba(sample.evidence)[:, 1], threshold(model, others)))
    return lines


def _row(sample: Sample, confidence: np.ndarray, bound: float) -> str:
    silenced = confidence < bound
    asked_or_unseen = sample.kinds != "held out"
    kinds = set(sample.kinds.tolist())
    cells = [
        sample.name,
        str(len(sample.answers)),
        f"{roc_auc_score(sample.answers, confidence):.3f}",
        f"{roc_auc_score(sample.kinds[asked_or_unseen] == 'asked', confidence[asked_or_unseen]):.3f}"
        if "unseen" in kinds
        else "",
        f"{calibration_error(sample.answers, confidence):.3f}",
        f"{silenced[(sample.kinds == 'asked') & sample.answers].mean():.1%}",
        *(f"{silenced[sample.kinds == kind].mean():.1%}" if kind in kinds else "" for kind in ("held out", "unseen")),
    ]
    return f"| {' | '.join(cells)} |"


def threshold(model: LogisticRegression, samples: list[Sample]) -> float:
    """Return the confidence below which at most `SILENCED_SHARE` of the answering first passages of any set lie."""
    bounds = []
    for sample in samples:
        confidence = model.predict_proba(sample.evidence)[:, 1]
        answering = (sample.kinds == "asked") & sample.answers
        bounds.append(float(np.quantile(confidence[answering], SILENCED_SHARE)))
    return min(bounds)


def calibration_error(answers: np.ndarray, confidence: np.ndarray) -> float:
    """Return the expected calibration error over ten bins of equal width."""
    bins = np.minimum((confidence * 10).astype(int), 9)
    gaps = [
        abs(answers[bins == place].mean() - confidence[bins == place].mean()) * (bins == place).mean()
        for place in np.unique(bins)
    ]
    return float(sum(gaps))


def coefficients(model: LogisticRegression, samples: list[Sample]) -> list[str]:
    """Return the `[confidence]` table of `index/weights.toml`."""
    values = dict(zip(FEATURES, model.coef_[0], strict=True))
    return [
        "```toml",
        "[confidence]",
        f"intercept = {model.intercept_[0]:.3f}",
        *(f"{name} = {value:.3f}" for name, value in values.items()),
        f"threshold = {threshold(model, samples):.3f}",
        "```",
    ]


if __name__ == "__main__":
    main()
