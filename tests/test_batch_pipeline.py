"""Rows come out in their order whoever answers them when, each question is asked once, and little is held."""

from __future__ import annotations

import gc
import io
import itertools
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from rich.console import Console

from index.answers import Question
from index.errors import WhenceError
from service.batch_input import Row
from service.batch_journal import Counts
from service.batch_output import AnsweredRow
from service.batch_pipeline import BLOCK, KEPT_PASSAGES, PART_BYTES, PART_ROWS, Pipeline, part_rows
from service.batch_progress import SHOWN_FAILURES, BatchProgress
from service.batch_worker import Outcome
from service.stopping import StoppedError, Stopping

WORKERS = 3


@dataclass
class Echo:
    """Answers with the question itself; "unknown" in it is not found, "mistake" has no answer."""

    is_busy: bool = False
    asked: list[list[str]] = field(default_factory=list)
    block: Sequence[Any] = ()

    def ask(self, questions: Sequence[str], block: Sequence[Any]) -> None:
        assert not self.is_busy
        self.is_busy, self.block = True, block
        self.asked.append(list(questions))

    def answer(self) -> tuple[Sequence[Any], list[Outcome]]:
        self.is_busy = False
        return self.block, [_echo(question) for question in self.asked[-1]]


def _echo(question: str) -> Outcome:
    if "mistake" in question:
        return Outcome(None, error="A mistake of ours.")
    return Outcome(question.encode(), is_answered="unknown" not in question)


class Echoes(list[Echo]):
    """Several of them; the one that was asked last is done first."""

    def block_size(self, waiting: int) -> int:
        return min(BLOCK, -(-waiting // (2 * len(self))))

    def idle(self) -> list[Echo]:
        return [echo for echo in self if not echo.is_busy]

    def outcomes(self) -> Iterator[tuple[Sequence[Any], list[Outcome]]]:
        yield next(echo for echo in reversed(self) if echo.is_busy).answer()

    def asked(self) -> list[list[str]]:
        return [block for echo in self for block in echo.asked]


class Run:
    """A pipeline with what it works with."""

    def __init__(self, rows: Iterator[Row], *, top_k: int = 5, fails_fast: bool = False) -> None:
        self.workers = Echoes(Echo() for _ in range(WORKERS))
        self.told = io.StringIO()
        self.stopping = Stopping("Stopped.")
        self.counts = Counts()
        self.parts: list[list[AnsweredRow]] = []
        self.pipeline = Pipeline(
            rows,
            self.workers,  # type: ignore[arg-type]
            check=Question,
            top_k=top_k,
            fails_fast=fails_fast,
            progress=BatchProgress(Console(file=self.told, width=200), total=None, done=0, failed=0),
            stopping=self.stopping,
        )

    def run(self) -> list[AnsweredRow]:
        for rows, counts in self.pipeline.parts():
            self.parts.append(rows)
            self.counts += counts
        return list(itertools.chain.from_iterable(self.parts))


def rows_of(*questions: str) -> Iterator[Row]:
    return (Row(number, question) for number, question in enumerate(questions, start=1))


def many(count: int) -> list[str]:
    return [f"question {number} {'x' * (number % 7)}" for number in range(count)]


def test_rows_come_out_in_their_order() -> None:
    questions = many(3_500)
    run = Run(rows_of(*questions))
    assert [row.payload for row in run.run()] == [question.encode() for question in questions]
    assert [len(part) for part in run.parts] == [1_000, 1_000, 1_000, 500]
    assert run.counts == Counts(3_500, 3_500)
    assert all(echo.asked for echo in run.workers)


def test_without_rows_there_are_no_parts() -> None:
    assert Run(rows_of()).run() == []


def test_blocks_hold_questions_of_similar_length_and_give_everybody_something() -> None:
    run = Run(rows_of(*many(3_000)))
    run.run()
    assert max(map(len, run.workers.asked())) == BLOCK
    for block in run.workers.asked():
        lengths = list(map(len, block))
        assert lengths == sorted(lengths)
    few = Run(rows_of(*many(30)))
    few.run()
    assert [len(block) for block in few.workers.asked()] == [5] * 6


def test_a_question_is_asked_once_however_often_it_comes() -> None:
    questions = [f"question {number % 50}" for number in range(5_000)]
    run = Run(rows_of(*questions))
    assert [row.payload for row in run.run()] == [question.encode() for question in questions]
    asked = list(itertools.chain.from_iterable(run.workers.asked()))
    assert sorted(asked) == sorted(set(questions))
    assert run.counts == Counts(5_000, 5_000)


def test_a_row_that_fails_costs_only_itself() -> None:
    rows = [
        Row(1, "Why?"),
        Row(2, "", {"id": 2}),
        Row(5, None, error="The line is not JSON."),
        Row(6, "a mistake"),
        Row(7, "the unknown"),
        Row(8, "a mistake"),
    ]
    run = Run(iter(rows))
    errors = [row.error for row in run.run()]
    assert errors == [
        None,
        "The question is empty. Ask something.",
        "The line is not JSON.",
        "A mistake of ours.",
        None,
        "A mistake of ours.",
    ]
    assert run.counts == Counts(6, 1, 1, 4)
    assert run.told.getvalue().splitlines() == [
        "Line 2: The question is empty. Ask something.",
        "Line 5: The line is not JSON.",
        "Line 6: A mistake of ours.",
        "Line 8: A mistake of ours.",
    ]


def test_many_rows_that_fail_are_not_all_told() -> None:
    run = Run(rows_of(*[""] * 100))
    run.run()
    told = run.told.getvalue().splitlines()
    assert (len(told), told[-1]) == (SHOWN_FAILURES + 1, "More rows fail; they are only counted.")
    assert run.counts == Counts(100, 0, 0, 100)


@pytest.mark.parametrize(("text", "error"), [("", "The question is empty"), ("a mistake", "A mistake of ours")])
def test_the_first_row_that_fails_can_end_it_all(text: str, error: str) -> None:
    run = Run(rows_of(*many(1_500), text), fails_fast=True)
    with pytest.raises(WhenceError, match=f"Line 1501: {error}"):
        run.run()
    assert len(run.parts) == 1


def test_asked_to_stop_the_part_at_hand_is_the_last() -> None:
    def rows() -> Iterator[Row]:
        for row in rows_of(*many(5_000)):
            if row.line == 1_500:
                signal.raise_signal(signal.SIGINT)
            yield row

    run = Run(rows())
    with run.stopping, run.stopping.deferred(), pytest.raises(StoppedError) as stopped:
        run.run()
    assert stopped.value.exit_code == 130
    assert [row.row.line for row in run.parts[0]] == list(range(1, 1_001))
    assert (len(run.parts), sum(map(len, run.workers.asked()))) == (1, 1_000)
    assert "Stopping when the rows at hand are done" in run.told.getvalue()


def test_parts_are_shorter_when_rows_are_long() -> None:
    assert (part_rows(1), part_rows(5), part_rows(100)) == (PART_ROWS, PART_ROWS, 50)
    rows = (Row(number, "Why?", {"text": ""}, size=PART_BYTES // 4) for number in range(1, 11))
    run = Run(rows)
    run.run()
    assert [len(part) for part in run.parts] == [4, 4, 2]


def test_rows_and_answers_are_let_go_of() -> None:
    run = Run(rows_of(*many(30_000)), top_k=5)
    held = []
    for number, _ in enumerate(run.pipeline.parts()):
        if number % 10 == 9:
            gc.collect()
            held.append(sum(type(each) is Row for each in gc.get_objects()))  # isinstance asks the others
    assert len(held) == 3
    assert max(held) < 5 * PART_ROWS
    assert len(run.pipeline._kept) == KEPT_PASSAGES // 5
