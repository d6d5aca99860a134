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
calibration error over ten bins (Guo et al. 2017, "On Calibration of Modern Neural Networks").

A second table is of `whence calibrate`: the same fits, adapted to some questions of the set that was left out, and
measured on the rest of it. It is what a team gains by labelling so many questions of its own.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, astuple, dataclass, fields, replace
from datetime import date
from pathlib import Path
from typing import get_args

import numpy as np
from rich.console import Console
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedShuffleSplit

from index.build import sync
from index.confidence import adapt, calibration_error, fit, measure, probabilities
from index.draft import NoProgress
from index.embeddings import Encoder, QueryEncoder, load_encoder
from index.evaluation import Dataset, read_dataset
from index.generations import Generation, Home
from index.instant import instant_encoder
from index.labels import Outcomes, ask_labelled, first_passages, read_labels
from index.models import DEFAULT_MODEL
from index.runs import index_dataset
from index.sources import Source
from index.weights import ConfidenceWeights, EncoderName, Evidence, default_weights
from service.display import TerminalProgress
from service.settings import read_settings

SILENCED_SHARE = 0.08  # of the questions that something answers, at most, the sets counting the same
# What a service is asked: mostly what its documents answer. It decides how sure a middling passage is.
KIND_SHARES = {"asked": 0.7, "held out": 0.15, "unseen": 0.15}
QUESTIONS_PER_KIND = 2_000
FULL_WEIGHT_QUESTIONS = 300  # a set with fewer weighs less
# With few parameters and thousands of questions a prior changes nothing; this only keeps the solver stable.
NOTHING_KNOWN = ConfidenceWeights(**{field.name: 0.0 for field in fields(ConfidenceWeights)})
PRIOR_STRENGTH = 0.01
ADAPTED_TO = (50, 100, 300)  # labelled questions, of which a third has no answer
SILENCE = 0.08
DRAWS = 5

Row = tuple[Evidence, bool, str]  # for the first passage, whether it answers, and the kind of question


@dataclass(frozen=True)
class Sample:
    """Questions of one data set: evidence for the first passage, a row each, whether it answers, and the kind."""

    name: str
    evidence: np.ndarray
    answers: np.ndarray
    kinds: np.ndarray

    @classmethod
    def of(cls, name: str, rows: list[Row]) -> Sample:
        """Make columns of rows."""
        evidence, answers, kinds = zip(*rows, strict=True)
        return cls(name, np.array([astuple(each) for each in evidence]), np.array(answers), np.array(kinds))


def main() -> None:
    """Fit, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--labels", type=Path, help="labelled questions")
    parser.add_argument("--documents", type=Path, help="the documents that --labels is about")
    parser.add_argument("--encoder", choices=get_args(EncoderName), default="full", help="of the questions")
    parser.add_argument("--write", type=Path, help="file for the tables")
    arguments = parser.parse_args()
    samples = [collect(folder, arguments.encoder) for folder in arguments.folders]
    if arguments.labels:
        samples.append(collect_labelled(arguments.labels, arguments.documents, arguments.encoder))
    lines = [*report(samples), "", *report_adapted(samples), "", *coefficients(fit_all(samples), arguments.encoder)]
    print("\n".join(lines))
    if arguments.write:
        arguments.write.write_text("\n".join(["# Confidence", "", *lines, ""]), encoding="utf-8")


def collect(folder: Path, name: EncoderName) -> Sample:
    """Ask the questions of a data set in all three ways."""
    settings = read_settings()
    dataset = read_dataset(folder)
    encoder = load_encoder(DEFAULT_MODEL, cache_folder=settings.cache / "models")
    home = Home(settings.cache / "fits" / folder.resolve().name)
    with TerminalProgress(Console(stderr=True)) as progress:
        generation = index_dataset(dataset, folder, home, encoder, progress)
    with closing(generation):
        asking = query_encoder(generation, encoder, name)
        rows = [
            *asked(generation, asking, dataset, hold_out=False),
            *asked(generation, asking, dataset, hold_out=True),
            *unseen(generation, asking, folder),
        ]
    return Sample.of(folder.resolve().name, rows)


def collect_labelled(labels: Path, documents: Path, name: EncoderName) -> Sample:
    """Ask labelled questions about a folder of documents."""
    settings = read_settings()
    encoder = load_encoder(DEFAULT_MODEL, cache_folder=settings.cache / "models")
    home = Home(settings.cache / "fits" / documents.resolve().name)
    sync(home, [Source(documents.resolve())], encoder)
    with closing(home.open_current()) as generation:
        questions = read_labels(labels, generation).questions
        asking = query_encoder(generation, encoder, name)
        outcomes = ask_labelled(generation, asking, questions, NoProgress())
    kinds = np.where(outcomes.is_answerable, "asked", "unseen")
    return Sample(documents.resolve().name, outcomes.evidence, outcomes.is_right, kinds)


def query_encoder(generation: Generation, encoder: Encoder, name: EncoderName) -> QueryEncoder:
    """Return what encodes the questions."""
    return encoder if name == "full" else instant_encoder(generation)


def asked(generation: Generation, encoder: QueryEncoder, dataset: Dataset, *, hold_out: bool) -> Iterator[Row]:
    """Ask the data set's own questions, with or without the passages that answer them."""
    records = {record.doc_id: record for record in generation.document_records}
    for query_id in thinned(list(dataset.queries)):
        relevant = {doc_id for doc_id, grade in dataset.qrels[query_id].items() if grade > 0}
        allowed = None
        if hold_out:
            allowed = np.ones(generation.manifest.chunks, dtype=np.bool_)
            for record in (records[doc_id] for doc_id in relevant if doc_id in records):
                allowed[record.first_row : record.first_row + record.chunk_count] = False
        (passage,) = first_passages(generation, encoder, [dataset.queries[query_id]], allowed=allowed)
        is_right = passage.chunk.document.doc_id in relevant
        yield passage.evidence, is_right, "held out" if hold_out else "asked"


def unseen(generation: Generation, encoder: QueryEncoder, folder: Path) -> Iterator[Row]:
    """Ask questions that nothing in the data set answers, where it has some."""
    path = folder / "queries-offcorpus.jsonl"
    if not path.exists():
        return
    questions = [json.loads(line)["text"] for line in path.read_text(encoding="utf-8").splitlines()]
    for passage in first_passages(generation, encoder, thinned(questions)):
        yield passage.evidence, False, "unseen"


def thinned(items: list[str]) -> list[str]:
    """Take every n-th item so that no kind has more than `QUESTIONS_PER_KIND`."""
    return items[:: -(-len(items) // QUESTIONS_PER_KIND)]


def fit_all(samples: list[Sample]) -> ConfidenceWeights:
    """Fit on all samples, each with the same weight, and each kind of question with its share."""
    evidence = np.concatenate([sample.evidence for sample in samples])
    answers = np.concatenate([sample.answers for sample in samples])
    weights = np.concatenate([question_weights(sample) for sample in samples])
    weights *= len(answers) / weights.sum()
    fitted = fit(evidence, answers, prior=NOTHING_KNOWN, strength=PRIOR_STRENGTH, question_weights=weights)
    return replace(fitted, threshold=threshold(fitted, samples))


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
        weights = fit_all(others_than(sample, samples))
        lines.append(_row(sample, probabilities(weights, sample.evidence), weights.threshold))
    return lines


def others_than(sample: Sample, samples: list[Sample]) -> list[Sample]:
    """Return all samples but one; that one when it is the only one."""
    return [other for other in samples if other is not sample] or [sample]


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


def report_adapted(samples: list[Sample]) -> list[str]:
    """Adapt a fit on the other samples to some questions of each, and measure on the rest of it; means of draws."""
    lines = [
        f"Adapted as by whence calibrate --silence {SILENCE}; before → after, on questions that are not the labelled "
        "ones:",
        "",
        "| left out | labelled | AUROC | ECE | silenced of answerable | silenced of unanswerable "
        "| answered at 90 % right | answered at 95 % right |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for sample in samples:
        prior, outcomes = fit_all(others_than(sample, samples)), outcomes_of(sample)
        counts = [count for count in ADAPTED_TO if 3 * count <= 2 * len(outcomes.is_right)]
        lines += [_adapted_row(sample.name, outcomes, prior, count) for count in counts]
    return lines


def outcomes_of(sample: Sample) -> Outcomes:
    """Return the questions of a sample, two that it answers for each that it does not."""
    unanswerable = np.flatnonzero(sample.kinds == ("unseen" if "unseen" in sample.kinds else "held out"))
    answerable = np.flatnonzero(sample.kinds == "asked")
    count = min(len(unanswerable), len(answerable) // 2)
    random = np.random.default_rng(0)
    places = np.concatenate(
        [random.choice(answerable, 2 * count, replace=False), random.choice(unanswerable, count, replace=False)]
    )
    return Outcomes(sample.evidence[places], sample.answers[places], sample.kinds[places] == "asked")


def _adapted_row(name: str, outcomes: Outcomes, prior: ConfidenceWeights, count: int) -> str:
    pairs = []
    for seed in range(DRAWS):
        draw = StratifiedShuffleSplit(1, train_size=count, random_state=seed)
        ((labelled, rest),) = draw.split(outcomes.evidence, outcomes.is_answerable)
        adapted = adapt(outcomes.part(labelled), prior=prior, silence=SILENCE)
        pairs.append([astuple(measure(outcomes.part(rest), weights)) for weights in (prior, adapted)])
    before, after = np.mean(pairs, axis=0)
    forms = (".3f", ".3f", ".1%", ".1%", ".1%", ".1%")
    cells = [f"{was:{form}} → {now:{form}}" for was, now, form in zip(before, after, forms, strict=True)]
    return f"| {' | '.join([name, str(count), *cells])} |"


def threshold(weights: ConfidenceWeights, samples: list[Sample]) -> float:
    """Return the highest confidence below which at most `SILENCED_SHARE` of the answerable questions lie.

    That is a mean over the sets. Questions whose first passage is a wrong one count, too.
    """
    asked = [np.sort(probabilities(weights, sample.evidence[sample.kinds == "asked"])) for sample in samples]
    bounds = np.floor(1_000 * np.unique(np.concatenate(asked))) / 1_000
    silenced = np.mean([np.searchsorted(each, bounds) / len(each) for each in asked], axis=0)
    return float(bounds[silenced <= SILENCED_SHARE].max())


def coefficients(weights: ConfidenceWeights, encoder: EncoderName) -> list[str]:
    """Return the table of `index/weights.toml`."""
    heading = "[confidence]" if encoder == "full" else f"[confidence_{encoder}]"
    return ["```toml", heading, *(f"{name} = {value:.3f}" for name, value in asdict(weights).items()), "```"]


if __name__ == "__main__":
    main()
