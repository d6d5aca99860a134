"""Labelled questions are read whole, or what is wrong with them is said line by line."""

from __future__ import annotations

import hashlib
import json
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest
from labelled import ANSWERABLE, KETTLE, ROUTER, TIPS, UNANSWERABLE, write_labels
from tiny_models import write_tiny_cross_encoder

from index.answers import Question, answer_questions
from index.draft import NoProgress
from index.embeddings import Encoder
from index.errors import CalibrationError
from index.generations import Generation
from index.labels import LabelledQuestion, Outcomes, ask_labelled, check_outcomes, first_passages, read_labels
from index.reranking import load_reranker

RESET = "How do I reset the router?"


def refusal(path: Path, generation: Generation) -> str:
    with pytest.raises(CalibrationError) as error:
        read_labels(path, generation)
    return str(error.value)


def test_labels_are_questions_with_their_documents(handbook: Generation, tmp_path: Path) -> None:
    path = write_labels(tmp_path / "labels.jsonl")
    labels = read_labels(path, handbook)
    assert labels.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert labels.questions[0] == LabelledQuestion(RESET, frozenset({ROUTER, TIPS}))
    assert [question.text for question in labels.questions] == [*ANSWERABLE, *UNANSWERABLE]
    assert sum(not question.documents for question in labels.questions) == len(UNANSWERABLE)


def test_blank_lines_other_fields_a_byte_order_mark_and_line_ends_of_windows_do_not_matter(
    handbook: Generation, tmp_path: Path
) -> None:
    path = write_labels(tmp_path / "labels.jsonl")
    plain = read_labels(path, handbook).questions
    labels = [{"id": 7, **json.loads(line)} for line in path.read_text("utf-8").splitlines()]
    path.write_text("\r\n\r\n".join(json.dumps(label) for label in labels), encoding="utf-8-sig")
    assert read_labels(path, handbook).questions == plain


def test_what_is_wrong_is_said_with_its_line(handbook: Generation, tmp_path: Path) -> None:
    lines = [
        "{",
        '{"question": "A"}',
        '{"question": 7, "documents": []}',
        '["question"]',
        '{"question": "B?", "documents": "kettle.md"}',
        '{"question": "C?", "documents": ["kettle.md", "nowhere.md"]}',
        '{"question": " ", "documents": []}',
        '{"question": "How do I reset  the ROUTER?", "documents": []}',
        '{"question": "How do I reset the router?", "documents": ["router.md"]}',
        '{"question": "D?", "documents": ["\\ud83d"]}',
    ]
    path = tmp_path / "labels.jsonl"
    path.write_text("\n".join(lines))
    assert refusal(path, handbook) == (
        f"The labels {path} cannot be used: "
        "line 1: not JSON (Expecting property name enclosed in double quotes: line 1 column 2 (char 1)); "
        'line 2: expected "documents" to be a list of document ids, empty where none answers; '
        'line 3: expected an object with "question", a string; '
        'line 4: expected an object with "question", a string; '
        'line 5: expected "documents" to be a list of document ids, empty where none answers; '
        "line 6: there is no document 'nowhere.md'; "
        "line 7: The question is empty. Ask something.; "
        "line 9: the question of line 8 again; "
        "line 10: there is no document '\\ud83d'. "
        'A line is {"question": "...", "documents": ["guide.md", ...]}, with the ids under which answers cite '
        "documents."
    )


def test_of_many_problems_the_first_ten_are_said(handbook: Generation, tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    path.write_text("{\n" * 30)
    assert "line 10: not JSON" in refusal(path, handbook)
    assert "; and 20 more. A line is" in refusal(path, handbook)


@pytest.mark.parametrize(("answerable", "unanswerable"), [(19, 12), (24, 9), (0, 0)])
def test_too_few_questions_are_refused(
    answerable: int, unanswerable: int, handbook: Generation, tmp_path: Path
) -> None:
    path = write_labels(tmp_path / "labels.jsonl")
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:answerable], *lines[len(ANSWERABLE) :][:unanswerable]]))
    counted = f"{answerable} questions with documents that answer and {unanswerable} without"
    assert f"{counted}. At least 20 and 10 are needed" in refusal(path, handbook)


def test_a_file_that_cannot_be_read_is_named(handbook: Generation, tmp_path: Path) -> None:
    assert refusal(tmp_path, handbook) == f"The labels {tmp_path} cannot be read: Is a directory. Name another file."
    (tmp_path / "latin").write_bytes("Straße".encode("latin-1"))
    assert "are not UTF-8 text" in refusal(tmp_path / "latin", handbook)


def test_outcomes_are_those_of_the_first_passages(handbook: Generation, encoder: Encoder) -> None:
    questions = [
        LabelledQuestion(RESET, frozenset({ROUTER})),
        LabelledQuestion(RESET, frozenset({TIPS})),  # where the same is said
        LabelledQuestion(RESET, frozenset({KETTLE})),
        LabelledQuestion("Who won the world cup in 1998?", frozenset()),
    ]
    outcomes = ask_labelled(handbook, encoder, questions, NoProgress())
    assert outcomes.is_right.tolist() == [True, True, False, False]
    assert outcomes.is_answerable.tolist() == [True, True, True, False]
    (passage,) = first_passages(handbook, encoder, [RESET])
    assert passage.chunk.document.doc_id in (ROUTER, TIPS)
    assert outcomes.evidence[0].tolist() == list(astuple(passage.evidence))
    assert outcomes.part(np.array([3])).is_answerable.tolist() == [False]


def test_with_a_reranker_the_first_passage_is_the_one_that_is_answered_with(
    handbook: Generation, encoder: Encoder, tmp_path: Path
) -> None:
    reranker = load_reranker(str(write_tiny_cross_encoder(tmp_path)))
    questions = list(ANSWERABLE)[:6]
    answers = answer_questions(handbook, encoder, [Question(text) for text in questions], reranker=reranker)
    passages = list(first_passages(handbook, encoder, questions, reranker=reranker))
    assert [passage.chunk.text for passage in passages] == [answer.passages[0].text for answer in answers]
    plain = first_passages(handbook, encoder, questions)
    assert [passage.chunk.text for passage in plain] != [passage.chunk.text for passage in passages]


def test_labels_whose_documents_are_hardly_found_are_refused() -> None:
    found = np.arange(40) < 9
    with pytest.raises(CalibrationError, match="answers for 9 of 25 questions, and at least 10 are needed"):
        check_outcomes(Outcomes(np.zeros((40, 9)), found, np.arange(40) < 25))
    check_outcomes(Outcomes(np.zeros((40, 9)), np.arange(40) < 10, np.arange(40) < 25))
