"""An answer that is kept is the one that would be given, and is not asked for again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace

import pytest
from sources_in_memory import MemorySource

from index.answers import Answer, Question, answer_questions
from index.build import sync
from index.embeddings import Encoder
from index.generations import Generation, Home
from service.answer_cache import AnswerCache

RED, KETTLE = "What does the red light mean?", "How is the kettle descaled?"


class Asker:
    """Answers from a generation, and counts what it is asked."""

    def __init__(self, generation: Generation, encoder: Encoder) -> None:
        self._generation, self._encoder = generation, encoder
        self.asked: list[str] = []

    def __call__(self, questions: Sequence[Question]) -> list[Answer]:
        self.asked += [question.text for question in questions]
        return answer_questions(self._generation, self._encoder, questions)


@contextmanager
def opened(home: Home, encoder: Encoder) -> Iterator[Asker]:
    texts = {
        "router.md": "# Router\n\nThe red light means that there is no power.\n",
        "kettle.md": "# Kettle\n\nDescale the kettle with vinegar.\n",
    }
    sync(home, [MemorySource(texts)], encoder)
    with closing(home.open_current()) as generation:
        yield Asker(generation, encoder)


@pytest.fixture
def asker(home: Home, encoder: Encoder) -> Iterator[Asker]:
    with opened(home, encoder) as asker:
        yield asker


def test_a_question_is_asked_once_whatever_its_white_space(asker: Asker) -> None:
    cache = AnswerCache(10)
    (first,) = cache.answer([Question(RED)], "full", asker)
    (again,) = cache.answer([Question(f"  {RED.replace(' ', chr(10))} ")], "full", asker)
    assert asker.asked == [RED]
    assert again == replace(first, question=f"  {RED.replace(' ', chr(10))} ")
    assert again.took_ms < first.took_ms


def test_whatever_else_is_asked_for_makes_another_question(asker: Asker) -> None:
    cache = AnswerCache(10)
    wanted = [
        Question(RED),
        Question(RED.lower()),
        Question(RED, top_k=1),
        Question(RED, min_confidence=1.0),
        Question(RED, filters={"doc_id": "kettle.md"}),
    ]
    answers = cache.answer(wanted, "full", asker)
    assert cache.answer([Question(RED)], "instant", asker) == answers[:1]
    assert len(asker.asked) == len(wanted) + 1
    assert cache.answer(wanted, "full", asker) == answers
    assert len(asker.asked) == len(wanted) + 1


def test_of_several_only_new_ones_are_asked_and_all_come_in_order(asker: Asker) -> None:
    cache = AnswerCache(10)
    cache.answer([Question(RED)], "full", asker)
    answers = cache.answer([Question(KETTLE), Question(RED), Question(KETTLE, top_k=1)], "full", asker)
    assert asker.asked == [RED, KETTLE, KETTLE]
    assert [answer.question for answer in answers] == [KETTLE, RED, KETTLE]
    assert [len(answer.passages) for answer in answers] == [2, 2, 1]


def test_so_many_are_kept_those_asked_last(asker: Asker) -> None:
    cache = AnswerCache(2)
    for question in (RED, KETTLE, RED, "Who wrote it?"):
        cache.answer([Question(question)], "full", asker)
    assert len(cache) == 2
    cache.answer([Question(RED)], "full", asker)
    assert asker.asked == [RED, KETTLE, "Who wrote it?"]
    cache.answer([Question(KETTLE)], "full", asker)
    assert asker.asked[-1] == KETTLE


def test_none_are_kept_when_none_are_wanted(asker: Asker) -> None:
    cache = AnswerCache(0)
    for _ in range(2):
        cache.answer([Question(RED)], "full", asker)
    assert asker.asked == [RED, RED]
    assert len(cache) == 0
