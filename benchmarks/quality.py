"""Measure retrieval, answers and silence, on data sets in BEIR layout and on labelled questions.

    python benchmarks/quality.py [FOLDER ...] [--labels FILE --documents FOLDER] [--write FILE]

Retrieval: the metrics of dense search alone, BM25 alone and Whence over each data set, with 95 % intervals, and how
much better Whence is than each of the two (see `index.evaluation.compare`).

Answers: where a data set has answers.jsonl, {"_id": query, "answers": [{"text": "..."}, ...]}, the share of its
questions whose answer holds one of these, whatever the confidence. Texts are normalised as in the evaluation of SQuAD
(lower case, without punctuation and articles; Rajpurkar et al. 2016, "SQuAD: 100,000+ Questions for Machine
Comprehension of Text"), and an answer holds only whole words.

Silence: for a row of thresholds, the share of the questions with a right first passage that are not answered, and of
those that nothing in the corpus answers: those of queries-offcorpus.jsonl, or labelled so. AUROC: how well confidence
orders all that is asked before these.

Labels: FILE has one JSON object a line about the documents of --documents, {"question": "...", "documents":
["guide.md", ...], "evidence": ["...", ...]}: the documents that answer it, none where nothing does, and quotes of
what answers, which may be left out.
"""

from __future__ import annotations

import argparse
import json
import re
import string
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from figures import compared, measured, print_figures, share, table
from indexes import default_encoder, open_dataset, open_documents, progress_bars
from machine import machine
from sklearn.metrics import roc_auc_score

from index.answers import Answer, Question, answer_questions
from index.draft import Progress
from index.embeddings import Encoder
from index.evaluation import METRICS, Dataset, Run, compare, evaluate
from index.generations import Generation
from index.runs import QUERIES_AT_ONCE, rank_queries
from index.weights import default_weights

TOP_K = 100  # documents ranked for a query
PASSAGES = 3  # among which a labelled question's right document should be
ARTICLES = re.compile(r"\b(?:a|an|the)\b")
THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True)
class SetResult:
    """What a data set gave.

    Attributes:
        name: of its folder.
        dataset: its queries and judgements.
        documents: how many were indexed.
        runs: by way of retrieval.
        answers: query_id -> what it gets without a threshold.
        off_corpus: answers to questions that nothing in the corpus answers.
        golds: query_id -> texts that answer it, normalised.
    """

    name: str
    dataset: Dataset
    documents: int
    runs: dict[str, Run]
    answers: dict[str, Answer]
    off_corpus: list[Answer]
    golds: dict[str, list[str]]


@dataclass(frozen=True)
class Labelled:
    """A labelled question, without `documents` if nothing answers it, and what it gets without a threshold."""

    documents: frozenset[str]
    evidence: tuple[str, ...]
    answer: Answer


@dataclass(frozen=True)
class Confidences:
    """Of the first passages for questions of one corpus.

    Attributes:
        name: of the corpus.
        asked: for questions that it answers.
        right: whether the first passage does.
        off_corpus: for questions that it does not answer; may be empty.
    """

    name: str
    asked: np.ndarray
    right: np.ndarray
    off_corpus: np.ndarray


def main() -> None:
    """Ask everything, then print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--labels", type=Path, help="labelled questions")
    parser.add_argument("--documents", type=Path, help="the documents that --labels is about")
    parser.add_argument("--write", type=Path, help="file for the tables; what stands above them there stays")
    arguments = parser.parse_args()
    if (arguments.labels is None) != (arguments.documents is None):
        parser.error("--labels and --documents go together")
    if not arguments.folders and arguments.labels is None:
        parser.error("name a data set or --labels")
    encoder = default_encoder()
    results = [ask_dataset(folder, encoder) for folder in arguments.folders]
    labelled = ask_labels(arguments.labels, arguments.documents, encoder) if arguments.labels else []
    confidences = [confidences_of_set(result) for result in results]
    if labelled:
        confidences.append(confidences_of_labels(arguments.documents.resolve().name, labelled))
    lines = [
        *(line for result in results for line in retrieval_lines(result)),
        *answer_lines(results),
        *label_lines(labelled),
        *silence_lines(confidences),
        *conditions(),
    ]
    print_figures(lines, arguments.write)


def ask_dataset(folder: Path, encoder: Encoder) -> SetResult:
    """Rank and answer the questions of a data set."""
    with progress_bars() as progress, open_dataset(folder, encoder, progress) as (dataset, generation):
        off_corpus = [entry["text"] for entry in entries(folder / "queries-offcorpus.jsonl")]
        answers = ask(generation, encoder, list(dataset.queries.values()), progress)
        return SetResult(
            name=folder.resolve().name,
            dataset=dataset,
            documents=generation.manifest.documents,
            runs=rank_queries(generation, encoder, dataset.queries, top_k=TOP_K, progress=progress),
            answers=dict(zip(dataset.queries, answers, strict=True)),
            off_corpus=ask(generation, encoder, off_corpus, progress),
            golds={
                entry["_id"]: [normalised(answer["text"]) for answer in entry["answers"]]
                for entry in entries(folder / "answers.jsonl")
            },
        )


def ask_labels(labels: Path, documents: Path, encoder: Encoder) -> list[Labelled]:
    """Answer labelled questions about a folder of documents."""
    records = list(entries(labels))
    with progress_bars() as progress, open_documents(documents, encoder, progress) as generation:
        answers = ask(generation, encoder, [record["question"] for record in records], progress)
    return [
        Labelled(frozenset(record["documents"]), tuple(map(normalised, record.get("evidence", ()))), answer)
        for record, answer in zip(records, answers, strict=True)
    ]


def ask(generation: Generation, encoder: Encoder, texts: Sequence[str], progress: Progress) -> list[Answer]:
    """Answer questions, whatever the confidence."""
    questions = [Question(text, top_k=PASSAGES, min_confidence=0) for text in texts]
    answers = []
    progress.start("Asking", len(questions))
    for first in range(0, len(questions), QUERIES_AT_ONCE):
        batch = questions[first : first + QUERIES_AT_ONCE]
        answers += answer_questions(generation, encoder, batch)
        progress.advance(len(batch))
    return answers


def entries(path: Path) -> Iterator[dict[str, Any]]:
    """Read a file of JSON objects, one a line; nothing where there is no such file."""
    if path.exists():
        with path.open(encoding="utf-8") as lines:
            yield from map(json.loads, lines)


def normalised(text: str) -> str:
    """Reduce a text to what the evaluation of SQuAD compares, with a space around each word."""
    bare = "".join(character for character in text.lower() if character not in string.punctuation)
    return f" {' '.join(ARTICLES.sub(' ', bare).split())} "


def holds(text: str, quotes: Sequence[str]) -> bool:
    """Tell whether a text holds one of the normalised quotes; one without a word is held by none."""
    words = normalised(text)
    return any(quote.strip() and quote in words for quote in quotes)


def first_document(answer: Answer) -> str | None:
    """Return the document of the first passage."""
    return answer.passages[0].citation.document.id if answer.passages else None


def retrieval_lines(result: SetResult) -> list[str]:
    """Return the metrics of each way of retrieval, and how Whence compares."""
    figures = {name: evaluate(result.dataset.qrels, run) for name, run in result.runs.items()}
    *others, (_, ours) = figures.items()
    rows = [[name, *map(measured, figure.values())] for name, figure in figures.items()]
    rows += [[f"whence − {name}", *map(compared, compare(ours, other).values())] for name, other in others]
    questions, documents = len(result.dataset.queries), result.documents
    heading = f"## Retrieval: {result.name}, {questions:,} questions on {documents:,} passages"
    return [heading, "", *table(["retrieval", *METRICS], rows)]


def answer_lines(results: Sequence[SetResult]) -> list[str]:
    """Return how many answers hold a gold answer, for the data sets that have some."""
    rows = [answer_row(result) for result in results if result.golds]
    header = [
        "data set",
        "questions",
        "answer holds a gold answer",
        "first passage holds one",
        "characters of an answer, mean",
        "of a first passage",
    ]
    return ["## Answers", "", *table(header, rows)] if rows else []


def answer_row(result: SetResult) -> list[str]:
    """Count the answers of a data set that hold a gold answer."""
    asked = [
        (result.answers[query_id], golds) for query_id, golds in result.golds.items() if query_id in result.answers
    ]
    quotes = [(answer.answer.text if answer.answer else "", golds) for answer, golds in asked]
    passages = [(answer.passages[0].text if answer.passages else "", golds) for answer, golds in asked]
    return [
        result.name,
        f"{len(asked):,}",
        *(share(sum(holds(text, golds) for text, golds in pairs), len(pairs)) for pairs in (quotes, passages)),
        *(f"{np.mean([len(text) for text, _ in pairs]):.0f}" for pairs in (quotes, passages)),
    ]


def label_lines(labelled: Sequence[Labelled]) -> list[str]:
    """Return how many labelled questions get the right documents, and how many the right silence."""
    if not labelled:
        return []
    threshold = default_weights().confidence.threshold
    answerable = [each for each in labelled if each.documents]
    others = [each for each in labelled if not each.documents]
    quoted = [each for each in answerable if each.evidence]
    row = [
        f"{len(answerable)} + {len(others)}",
        *(share(sum(is_right(each, within) for each in answerable), len(answerable)) for within in (1, PASSAGES)),
        f"{share(sum(holds_evidence(each) for each in quoted), len(quoted))} of {len(quoted)}" if quoted else "",
        share(sum(each.answer.confidence >= threshold for each in answerable), len(answerable)),
        share(sum(each.answer.confidence < threshold for each in others), len(others)),
    ]
    header = [
        "questions",
        "right document first",
        "among the first three",
        "evidence among the first three",
        "answered",
        "of others not answered",
    ]
    return ["## Labelled questions", "", *table(header, [row])]


def is_right(labelled: Labelled, within: int) -> bool:
    """Tell whether one of the first passages is of a right document."""
    passages = labelled.answer.passages[:within]
    return any(passage.citation.document.id in labelled.documents for passage in passages)


def holds_evidence(labelled: Labelled) -> bool:
    """Tell whether one of the passages holds one of the quotes of what answers."""
    return any(holds(passage.text, labelled.evidence) for passage in labelled.answer.passages)


def confidences_of_set(result: SetResult) -> Confidences:
    """Return how sure the answers to a data set's questions are."""
    judged = [(answer, result.dataset.qrels[query_id]) for query_id, answer in result.answers.items()]
    return Confidences(
        name=result.name,
        asked=np.array([answer.confidence for answer, _ in judged]),
        right=np.array([qrels.get(first_document(answer) or "", 0) > 0 for answer, qrels in judged]),
        off_corpus=np.array([answer.confidence for answer in result.off_corpus]),
    )


def confidences_of_labels(name: str, labelled: Sequence[Labelled]) -> Confidences:
    """Return how sure the answers to labelled questions are."""
    answerable = [each for each in labelled if each.documents]
    return Confidences(
        name=name,
        asked=np.array([each.answer.confidence for each in answerable]),
        right=np.array([is_right(each, 1) for each in answerable], dtype=np.bool_),
        off_corpus=np.array([each.answer.confidence for each in labelled if not each.documents]),
    )


def silence_lines(confidences: Sequence[Confidences]) -> list[str]:
    """Return how well confidence orders, and how many questions each threshold silences."""
    shipped = default_weights().confidence.threshold
    header = ["threshold", *chain.from_iterable(silence_header(each) for each in confidences)]
    rows = [
        [f"{bound:.3f}" + (" (shipped)" if bound == shipped else ""), *silence_cells(confidences, bound)]
        for bound in sorted({*THRESHOLDS, shipped})
    ]
    return ["## Silence", "", *auroc_lines(confidences), *table(header, rows)]


def silence_header(each: Confidences) -> list[str]:
    """Name the columns of one corpus."""
    return [f"{each.name}, right first"] + [f"{each.name}, off-corpus"] * bool(len(each.off_corpus))


def silence_cells(confidences: Sequence[Confidences], threshold: float) -> Iterator[str]:
    """Yield the shares of questions below a threshold, in the order of `silence_header`."""
    for each in confidences:
        right = each.asked[each.right]
        yield share(int((right < threshold).sum()), len(right))
        if len(each.off_corpus):
            yield share(int((each.off_corpus < threshold).sum()), len(each.off_corpus))


def auroc_lines(confidences: Sequence[Confidences]) -> list[str]:
    """Return the AUROC of asked against off-corpus questions, where there are both."""
    rows = [
        [each.name, f"{len(each.asked):,}", f"{len(each.off_corpus):,}", f"{auroc(each):.3f}"]
        for each in confidences
        if len(each.asked) and len(each.off_corpus)
    ]
    return table(["data set", "asked", "off-corpus", "AUROC"], rows) if rows else []


def auroc(each: Confidences) -> float:
    """Return the chance that a question that is answered has a higher confidence than one that is not."""
    is_asked = np.repeat([True, False], [len(each.asked), len(each.off_corpus)])
    return float(roc_auc_score(is_asked, np.concatenate([each.asked, each.off_corpus])))


def conditions() -> list[str]:
    """Return on what and with what all this was measured."""
    weights = default_weights()
    lines = [
        f"- {name}: {', '.join(f'{key} {value}' for key, value in part.items())}"
        for name, part in asdict(weights).items()
    ]
    return ["## Measured on", "", f"{machine()}, with the weights", "", *lines]


if __name__ == "__main__":
    main()
