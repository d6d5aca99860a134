"""Retrieval and silence over the bundled documents, with a floor under both."""

from __future__ import annotations

import pytest
from conversations import CPP, DECADE, HYPE, STRUGGLED, SYSTEMS

from index.answers import Answer, Question, answer_questions
from index.embeddings import Encoder
from index.generations import Generation

ANSWERABLE = {
    "Which microVM runs AWS Lambda?": {SYSTEMS, STRUGGLED, CPP},
    "How many contributors send patches to Rust for Linux?": {SYSTEMS},
    "What replaced Fluentd and Logstash for many users?": {SYSTEMS},
    "Which crate should I use for errors in an application?": {SYSTEMS, DECADE},
    "Which async runtime fits embedded devices?": {SYSTEMS},
    "What does the global allocator jemalloc bring in throughput?": {SYSTEMS},
    "What should people coming from Java drop?": {SYSTEMS},
    "Who took the photo of the code on a screen?": {DECADE},
    "Which share of CVEs is due to memory safety?": {DECADE, CPP},
    "What is the most common complaint about Rust?": {STRUGGLED, CPP},
    "Which command tells where the build time goes?": {STRUGGLED},
    "Which machine learning frameworks are written in Rust?": {SYSTEMS, STRUGGLED, CPP},
    "How much memory did Pingora save?": {CPP},
    "How many requests per day pass through Pingora?": {CPP, HYPE},
    "What is the median salary of Rust engineers?": {CPP},
    "How long until an experienced C++ developer is productive in Rust?": {HYPE},
    "Which kernel drivers of Windows are written in Rust?": {STRUGGLED, HYPE, DECADE, CPP},
    "How are Python tokenizers sped up with PyO3?": {HYPE},
    "Which domains stay with Fortran?": {HYPE},
    "webasembly suport in cloudflare wokers": {CPP, STRUGGLED},
}
UNANSWERABLE = (
    "How do I bake sourdough bread?",
    "Who won the football world cup in 1998?",
    "What is the capital of Mongolia?",
    "How do I reset the password of my router?",
    "When was the Treaty of Westphalia signed?",
    "Which wine goes with salmon?",
    "How does photosynthesis work?",
    "What is the boiling point of nitrogen?",
)


@pytest.fixture(scope="module")
def answers(seeds: Generation, encoder: Encoder) -> dict[str, Answer]:
    """Every question's answer."""
    texts = [*ANSWERABLE, *UNANSWERABLE]
    found = answer_questions(seeds, encoder, [Question(text) for text in texts])
    return dict(zip(texts, found, strict=True))


def documents(answer: Answer) -> list[str]:
    return [passage.citation.document.id for passage in answer.passages]


def test_the_seeds_are_five_documents_and_no_readme(seeds: Generation) -> None:
    ids = [record.doc_id for record in seeds.document_records]
    assert ids == sorted([SYSTEMS, DECADE, STRUGGLED, CPP, HYPE])
    assert all({"seed", "source", "title"} <= record.metadata.keys() for record in seeds.document_records)


def test_the_right_document_comes_first_nearly_always(answers: dict[str, Answer]) -> None:
    wrong = [text for text, right in ANSWERABLE.items() if documents(answers[text])[0] not in right]
    assert len(wrong) <= 2, wrong


def test_the_right_document_is_among_the_first_three(answers: dict[str, Answer]) -> None:
    missing = [text for text, right in ANSWERABLE.items() if not right & set(documents(answers[text])[:3])]
    assert missing == []


def test_most_questions_are_answered(answers: dict[str, Answer]) -> None:
    silent = [text for text in ANSWERABLE if not answers[text].answered]
    assert len(silent) <= 2, silent


def test_questions_about_something_else_are_not_answered(answers: dict[str, Answer]) -> None:
    assert [text for text in UNANSWERABLE if answers[text].answered] == []


def test_an_answer_holds_the_figure_that_was_asked_for(answers: dict[str, Answer]) -> None:
    answer = answers["How much memory did Pingora save?"].answer
    assert answer is not None
    assert "70%" in answer.text
