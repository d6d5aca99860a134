"""Labelled questions: what a team asks of its documents, and which of them answer.

    {"question": "How do I reset the router?", "documents": ["router.md"]}
    {"question": "Who won the world cup in 1998?", "documents": []}

One JSON object a line; without documents where nothing answers. Other fields are left alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index.answers import Question, name_of
from index.documents import HALF_SURROGATE
from index.draft import Progress
from index.embeddings import QueryEncoder
from index.errors import CalibrationError, QuestionError
from index.reranking import RERANKED, Reranker
from index.retrieval import Passage, Wanted, retrieve
from index.store import OpenGeneration
from index.weights import default_weights

# A fit in the cross-validation sees four fifths of them. 8 % of 16 are one question; of much fewer they are none, and
# the lowest confidence alone would be the threshold. The fifth that it is measured on has two of the others.
MIN_ANSWERABLE, MIN_UNANSWERABLE = 20, 10
MIN_RIGHT = 10  # first passages that answer: what there is to learn from
SHOWN_PROBLEMS = 10
ASKED_AT_ONCE = 256


@dataclass(frozen=True)
class LabelledQuestion:
    """A question, and the ids of the documents that answer it; none where nothing does."""

    text: str
    documents: frozenset[str]


@dataclass(frozen=True)
class Labels:
    """Labelled questions, and the SHA-256 of their file."""

    questions: tuple[LabelledQuestion, ...]
    sha256: str


@dataclass(frozen=True)
class Outcomes:
    """What labelled questions find: arrays over questions.

    Attributes:
        evidence: float64, shape (questions, features): for the first passage, in the order of `Evidence`.
        is_right: bool: whether the first passage is of a document that answers.
        is_answerable: bool: whether there is one.
    """

    evidence: NDArray[np.float64]
    is_right: NDArray[np.bool_]
    is_answerable: NDArray[np.bool_]

    def part(self, places: NDArray[np.int64]) -> Outcomes:
        """Return those at some places."""
        return Outcomes(self.evidence[places], self.is_right[places], self.is_answerable[places])


def read_labels(path: Path, generation: OpenGeneration) -> Labels:
    """Read labelled questions about the documents of a generation.

    Raises:
        CalibrationError: lines are malformed, documents unknown, or questions too few; the text names the lines.
    """
    try:
        data = path.read_bytes()
        text = data.decode("utf-8-sig")
    except OSError as exc:
        raise CalibrationError(
            f"The labels {path} cannot be read: {exc.strerror or exc}. Name another file."
        ) from exc
    except UnicodeDecodeError as exc:
        raise CalibrationError(f"The labels {path} are not UTF-8 text: {exc}. Save the file as UTF-8.") from exc
    questions, problems = _parse(text, generation)
    if problems:
        raise CalibrationError(_listed(path, problems))
    _check_enough(path, questions)
    return Labels(tuple(questions), hashlib.sha256(data).hexdigest())


def ask_labelled(
    generation: OpenGeneration,
    encoder: QueryEncoder,
    questions: Sequence[LabelledQuestion],
    progress: Progress,
    *,
    reranker: Reranker | None = None,
) -> Outcomes:
    """Ask labelled questions.

    Args:
        generation: to ask.
        encoder: of the model that it was built with.
        questions: at least one.
        progress: told of each question.
        reranker: that questions are answered with; None when there is none.
    """
    progress.start("Asking", len(questions))
    evidence, is_right = [], []
    for first in range(0, len(questions), ASKED_AT_ONCE):
        batch = questions[first : first + ASKED_AT_ONCE]
        passages = first_passages(generation, encoder, [question.text for question in batch], reranker=reranker)
        for question, passage in zip(batch, passages, strict=True):
            evidence.append(astuple(passage.evidence))
            is_right.append(not question.documents.isdisjoint(_documents_of(passage)))
        progress.advance(len(batch))
    is_answerable = [bool(question.documents) for question in questions]
    return Outcomes(np.array(evidence), np.array(is_right), np.array(is_answerable))


def first_passages(
    generation: OpenGeneration,
    encoder: QueryEncoder,
    questions: Sequence[str],
    *,
    reranker: Reranker | None = None,
    allowed: NDArray[np.bool_] | None = None,
) -> Iterator[Passage]:
    """Yield the first passage for each question, by the weights that ship; the corpus must not be empty.

    Args:
        generation: to ask.
        encoder: of the model that it was built with.
        questions: what is asked.
        reranker: in whose order the passages are; None when there is none.
        allowed: see `Wanted`.
    """
    weights, top_k = default_weights(name_of(encoder)).score, 1 if reranker is None else RERANKED
    for text, embedding in zip(questions, encoder.encode_queries(questions), strict=True):
        wanted = Wanted(generation.lexical.query(text), embedding, top_k, allowed)
        (passages,) = retrieve(generation, [wanted], weights)
        yield passages[0] if reranker is None else reranker.rerank(text, passages)[0]


def check_outcomes(outcomes: Outcomes) -> None:
    """Refuse outcomes that nothing can be learned from.

    Raises:
        CalibrationError: hardly any first passage is of a document that answers.
    """
    right, answerable = int(outcomes.is_right.sum()), int(outcomes.is_answerable.sum())
    if right < MIN_RIGHT:
        raise CalibrationError(
            f"The first passage is of a document that answers for {right} of {answerable} questions, and at least "
            f"{MIN_RIGHT} are needed to learn from. Check the labels: whence ask shows what is found."
        )


def _parse(text: str, generation: OpenGeneration) -> tuple[list[LabelledQuestion], list[str]]:
    """Return the questions, and what is wrong with the lines that hold none."""
    questions: list[LabelledQuestion] = []
    problems: list[str] = []
    lines_of: dict[str, int] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            question = _parse_line(line, generation)
            earlier = lines_of.setdefault(" ".join(question.text.casefold().split()), number)
            if earlier != number:
                raise CalibrationError(f"the question of line {earlier} again")
            questions.append(question)
        except (CalibrationError, QuestionError) as exc:
            problems.append(f"line {number}: {exc}")
    return questions, problems


def _parse_line(line: str, generation: OpenGeneration) -> LabelledQuestion:
    try:
        label = json.loads(line)
    except (ValueError, RecursionError) as exc:
        raise CalibrationError(f"not JSON ({exc})") from exc
    if not isinstance(label, dict) or not isinstance(label.get("question"), str):
        raise CalibrationError('expected an object with "question", a string')
    documents = label.get("documents")
    if not isinstance(documents, list) or not all(isinstance(doc_id, str) for doc_id in documents):
        raise CalibrationError('expected "documents" to be a list of document ids, empty where none answers')
    unknown = [doc_id for doc_id in documents if _is_unknown(doc_id, generation)]
    if unknown:
        raise CalibrationError(f"there is no document {unknown[0]!r}")
    return LabelledQuestion(Question(label["question"]).text, frozenset(documents))


def _is_unknown(doc_id: str, generation: OpenGeneration) -> bool:
    is_text = not HALF_SURROGATE.search(doc_id)
    return not is_text or generation.corpus.document(doc_id) is None


def _listed(path: Path, problems: Sequence[str]) -> str:
    shown = "; ".join(problems[:SHOWN_PROBLEMS])
    more = f"; and {len(problems) - SHOWN_PROBLEMS} more" if len(problems) > SHOWN_PROBLEMS else ""
    return (
        f"The labels {path} cannot be used: {shown}{more}. A line is "
        '{"question": "...", "documents": ["guide.md", ...]}, with the ids under which answers cite documents.'
    )


def _check_enough(path: Path, questions: Sequence[LabelledQuestion]) -> None:
    answerable = sum(bool(question.documents) for question in questions)
    unanswerable = len(questions) - answerable
    if answerable < MIN_ANSWERABLE or unanswerable < MIN_UNANSWERABLE:
        raise CalibrationError(
            f"The labels {path} have {answerable} questions with documents that answer and {unanswerable} without. "
            f"At least {MIN_ANSWERABLE} and {MIN_UNANSWERABLE} are needed: with fewer, one question would "
            "decide the threshold. Label some more; a hundred of each are better."
        )


def _documents_of(passage: Passage) -> set[str]:
    """Return the documents that hold a passage: its own, and those that say the same."""
    return {chunk.document.doc_id for chunk in (passage.chunk, *passage.also_in)}
