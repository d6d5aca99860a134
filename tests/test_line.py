"""Questions wait in a bounded line, are answered together, and are dropped when nobody waits for them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest

from index.answers import Answer, Question, answer_questions
from index.embeddings import Embeddings, Encoder
from index.errors import ModelError
from index.generations import Generation
from index.instant import instant_encoder
from index.weights import default_weights
from service import line as module
from service.departures import ClientGoneError
from service.line import MAX_TOGETHER, Line
from service.metrics import Metrics
from service.problems import Problem
from service.serving import Served

RED = Question("What does the red light mean?")
DESCALE = Question("How often should I descale the kettle?")


class Gate:
    """An encoder that holds every question until it is opened, and notes what came together."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self.identity, self.tokenizer = encoder.identity, encoder.tokenizer
        self.opened, self.entered = threading.Event(), threading.Event()
        self.seen: list[list[str]] = []
        self.failing = ""

    def encode_documents(self, texts: Sequence[str], *, on_progress: object = None) -> Embeddings:
        """See `Encoder`."""
        return self._encoder.encode_documents(texts)

    def encode_queries(self, texts: Sequence[str]) -> Embeddings:
        """See `Encoder`."""
        self.seen.append(list(texts))
        self.entered.set()
        assert self.opened.wait(timeout=30)
        if self.failing in texts:
            raise ValueError("the model stumbles over this one")
        return np.asarray(self._encoder.encode_queries(texts))


class Handbooks:
    """What the line needs to know of what is served: one generation, always the same."""

    def __init__(self, generation: Generation, encoder: Encoder) -> None:
        self._served = Served(generation, encoder, default_weights(), None)
        self.manifest = generation.manifest

    @contextmanager
    def lease(self) -> Iterator[Served]:
        """See `Serving`."""
        yield self._served

    def close(self) -> None:
        """Close what was opened here."""
        self._served.corpus.close()


@pytest.fixture
def gate(encoder: Encoder) -> Gate:
    """An encoder that is closed to begin with."""
    return Gate(encoder)


@contextmanager
def line_of(
    generation: Generation, gate: Gate, *, bound: int = 100, deadline_s: float = 30.0, at_once: bool = False
) -> Iterator[Line]:
    """Run a line over a generation."""
    served = Handbooks(generation, gate)
    line = Line(served, Metrics(), bound=bound, deadline_s=deadline_s, at_once=at_once)  # type: ignore[arg-type]
    line.start()
    try:
        yield line
    finally:
        gate.opened.set()
        line.close()
        served.close()


async def never() -> None:
    """Stay: this client does not leave."""
    await asyncio.Event().wait()


async def entered(gate: Gate) -> None:
    """Wait until the answering thread is busy."""
    assert await asyncio.to_thread(gate.entered.wait, 30)


def watch(monkeypatch: pytest.MonkeyPatch, note: Callable[[Sequence[module._Waiting]], None]) -> None:
    """Have each batch noted before it is answered, in the thread that answers it."""
    outcomes = Line._outcomes

    def noted(line: Line, batch: Sequence[module._Waiting], encoder: module.EncoderName) -> Sequence[object]:
        note(batch)
        return outcomes(line, batch, encoder)

    monkeypatch.setattr(Line, "_outcomes", noted)


def test_an_answer_is_the_one_that_the_library_gives(handbook: Generation, encoder: Encoder, gate: Gate) -> None:
    gate.opened.set()
    with line_of(handbook, gate) as line:
        answers = asyncio.run(line.ask([RED, DESCALE], gone=never))
    assert answers == answer_questions(handbook, encoder, [RED, DESCALE])


def test_what_waits_is_answered_together(handbook: Generation, gate: Gate) -> None:
    async def ask_while_busy(line: Line) -> None:
        first = asyncio.ensure_future(line.ask([RED], gone=never))
        await entered(gate)
        others = [asyncio.ensure_future(line.ask([DESCALE], gone=never)) for _ in range(5)]
        await asyncio.sleep(0)
        assert len(line) == 5
        gate.opened.set()
        await asyncio.gather(first, *others)

    with line_of(handbook, gate) as line:
        asyncio.run(ask_while_busy(line))
    assert gate.seen == [[RED.text], [DESCALE.text] * 5]


def test_questions_asked_alone_overtake_a_batch_which_still_goes_on(handbook: Generation, gate: Gate) -> None:
    batch = [Question(f"What is the use of salt number {number}?") for number in range(20)]
    single = Question("Does the handle stay cool?")

    async def ask_while_busy(line: Line) -> None:
        first = asyncio.ensure_future(line.ask([RED], gone=never))
        await entered(gate)
        others = [asyncio.ensure_future(line.ask(batch, gone=never))]
        await asyncio.sleep(0)
        others += [asyncio.ensure_future(line.ask([single], gone=never)) for _ in range(15)]
        await asyncio.sleep(0)
        gate.opened.set()
        await asyncio.gather(first, *others)

    with line_of(handbook, gate) as line:
        asyncio.run(ask_while_busy(line))
    assert gate.seen[1] == [single.text] * 12 + [question.text for question in batch[:4]]
    assert all(len(together) <= MAX_TOGETHER for together in gate.seen)
    assert [text for together in gate.seen[2:] for text in together] == [single.text] * 3 + [
        question.text for question in batch[4:]
    ]


def test_a_full_line_turns_questions_away(handbook: Generation, gate: Gate) -> None:
    async def ask_too_much(line: Line) -> None:
        first = asyncio.ensure_future(line.ask([RED], gone=never))
        await entered(gate)
        waiting = asyncio.ensure_future(line.ask([DESCALE, DESCALE], gone=never))
        await asyncio.sleep(0)
        with pytest.raises(Problem, match="2 questions wait already, and 2 may") as refusal:
            await line.ask([RED], gone=never)
        assert (refusal.value.code, refusal.value.status) == ("overloaded", 503)
        assert refusal.value.headers["Retry-After"] == "1"
        gate.opened.set()
        await asyncio.gather(first, waiting)

    with line_of(handbook, gate, bound=2) as line:
        asyncio.run(ask_too_much(line))


def test_a_question_that_waits_past_the_deadline_is_given_up_and_never_encoded(
    handbook: Generation, gate: Gate
) -> None:
    async def ask_slowly(line: Line) -> None:
        first = asyncio.ensure_future(line.ask([RED], gone=never))
        await entered(gate)
        with pytest.raises(Problem, match="No answer within") as refusal:
            await line.ask([DESCALE], gone=never)
        assert refusal.value.code == "deadline"
        with pytest.raises(Problem):
            await first

    with line_of(handbook, gate, deadline_s=0.2) as line:
        asyncio.run(ask_slowly(line))
    assert gate.seen == [[RED.text]]


def test_a_question_whose_client_has_left_is_never_encoded(handbook: Generation, gate: Gate) -> None:
    async def leave(line: Line) -> None:
        first = asyncio.ensure_future(line.ask([RED], gone=never))
        await entered(gate)
        left = asyncio.Event()
        second = asyncio.ensure_future(line.ask([DESCALE], gone=left.wait))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        left.set()
        with pytest.raises(ClientGoneError):
            await second
        gate.opened.set()
        await first

    with line_of(handbook, gate) as line:
        asyncio.run(leave(line))
    assert gate.seen == [[RED.text]]


def test_one_question_that_cannot_be_answered_does_not_cost_the_others(handbook: Generation, gate: Gate) -> None:
    bad = Question("What breaks the model?")
    gate.failing = bad.text

    async def ask_both(line: Line) -> list[object]:
        first = asyncio.ensure_future(line.ask([RED], gone=never))
        await entered(gate)
        others = [asyncio.ensure_future(line.ask([question], gone=never)) for question in (bad, DESCALE)]
        await asyncio.sleep(0)
        gate.opened.set()
        await first
        return list(await asyncio.gather(*others, return_exceptions=True))

    with line_of(handbook, gate) as line:
        failure, (answer,) = asyncio.run(ask_both(line))  # type: ignore[misc]
    assert isinstance(failure, ValueError)
    assert answer.question == DESCALE.text


def test_a_model_that_does_not_fit_is_said_to_everyone(handbook: Generation, gate: Gate) -> None:
    gate.identity = replace(gate.identity, files_sha256="0" * 64)
    with line_of(handbook, gate) as line, pytest.raises(ModelError, match="built with the model"):
        asyncio.run(line.ask([RED], gone=never))


def test_an_instant_question_is_answered_at_once_while_nothing_waits(handbook: Generation, gate: Gate) -> None:
    instant = [replace(question, encoder="instant") for question in (RED, DESCALE)]

    async def ask_alone_and_while_busy(line: Line) -> list[Answer]:
        asking = asyncio.ensure_future(line.ask([instant[0]], gone=never))
        await asyncio.sleep(0)
        assert asking.done()
        first = asyncio.ensure_future(line.ask([RED], gone=never))
        await entered(gate)
        waiting = asyncio.ensure_future(line.ask([instant[1]], gone=never))
        await asyncio.sleep(0)
        assert len(line) == 1
        gate.opened.set()
        await first
        return [*asking.result(), *await waiting]

    with line_of(handbook, gate, at_once=True) as line:
        answers = asyncio.run(ask_alone_and_while_busy(line))
    assert answers == answer_questions(handbook, instant_encoder(handbook), instant)


def test_instant_questions_that_wait_are_answered_by_the_event_loop(
    handbook: Generation, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AT_ONCE_S", 60.0)
    threads: list[tuple[int, str]] = []
    instant = [replace(question, encoder="instant") for question in (RED, DESCALE)]

    watch(monkeypatch, lambda batch: threads.append((len(batch), threading.current_thread().name)))

    async def ask_while_busy(line: Line) -> list[list[Answer]]:
        first = asyncio.ensure_future(line.ask([RED], gone=never))
        await entered(gate)
        waiting = [asyncio.ensure_future(line.ask([question], gone=never)) for question in instant]
        await asyncio.sleep(0)
        gate.opened.set()
        await first
        return await asyncio.gather(*waiting)

    with line_of(handbook, gate, at_once=True) as line:
        answers = asyncio.run(ask_while_busy(line))
    assert [answer for (answer,) in answers] == answer_questions(handbook, instant_encoder(handbook), instant)
    assert threads == [(1, "answers"), (2, threading.main_thread().name)]


@pytest.mark.parametrize("name", ["instant", "full"])
def test_an_event_loop_that_has_ended_is_not_told(
    handbook: Generation, gate: Gate, name: module.EncoderName, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AT_ONCE_S", 60.0)
    gate.opened.set()
    ended = asyncio.new_event_loop()
    lost = module._Waiting(replace(RED, encoder=name), name, ended.create_future(), 0.0)
    ended.close()

    async def ask_after(line: Line) -> list[Answer]:
        with line._changed:
            line._singles.append(lost)
            line._changed.notify()
        while len(line):
            await asyncio.sleep(0.001)
        return await line.ask([DESCALE], gone=never)

    with line_of(handbook, gate, at_once=True) as line:
        (answer,) = asyncio.run(ask_after(line))
    assert answer.question == DESCALE.text
    assert not lost.future.done()


@pytest.mark.parametrize(
    "question",
    [
        RED,
        replace(RED, encoder="instant", text=f"{RED.text} " * 20),
        replace(RED, encoder="instant", top_k=21),
        replace(RED, encoder="instant", filters={"doc_id": "handbook.md"}),
    ],
)
def test_what_may_take_longer_waits_for_the_thread(handbook: Generation, gate: Gate, question: Question) -> None:
    async def ask(line: Line) -> list[Answer]:
        asking = asyncio.ensure_future(line.ask([question], gone=never))
        await asyncio.sleep(0)
        assert not asking.done()
        return await asking

    gate.opened.set()
    with line_of(handbook, gate, at_once=True) as line:
        (answer,) = asyncio.run(ask(line))
    assert answer.question == question.text


def test_what_comes_in_one_round_of_the_event_loop_is_answered_together_there(
    handbook: Generation, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AT_ONCE_IN_A_ROUND", 3)
    monkeypatch.setattr(module, "AT_ONCE_S", 60.0)
    monkeypatch.setattr(module, "AT_ONCE_SHARE_S", 60.0)
    question = replace(RED, encoder="instant")
    together: list[int] = []

    def note(batch: Sequence[module._Waiting]) -> None:
        assert threading.current_thread() is threading.main_thread()
        together.append(len(batch))

    watch(monkeypatch, note)

    async def ask(line: Line, count: int) -> tuple[int, list[int]]:
        together.clear()
        asking = [asyncio.ensure_future(line.ask([question], gone=never)) for _ in range(count)]
        await asyncio.sleep(0)
        at_once = sum(each.done() for each in asking)
        answers = await asyncio.gather(*asking)
        assert all(answer == expected for (answer,) in answers)
        return at_once, list(together)

    async def ask_again_and_again(line: Line) -> list[tuple[int, list[int]]]:
        return [await ask(line, count) for count in (1, 1, 6, 3, 1, 1)]

    (expected,) = answer_questions(handbook, instant_encoder(handbook), [question])
    with line_of(handbook, gate, at_once=True) as line:
        found = asyncio.run(ask_again_and_again(line))
    # One that comes alone is answered at once, unless there were several in the round before.
    assert found == [(1, []), (1, []), (1, [3, 2]), (0, [3]), (0, [1]), (1, [])]


def test_what_waits_for_the_event_loop_is_answered_however_long_the_one_before_took(
    handbook: Generation, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AT_ONCE_IN_A_ROUND", 1)
    monkeypatch.setattr(module, "AT_ONCE_S", 60.0)
    monkeypatch.setattr(module, "AT_ONCE_SHARE_S", 60.0)
    question = replace(RED, encoder="instant")

    watch(monkeypatch, lambda _batch: monkeypatch.setattr(module, "AT_ONCE_SHARE_S", 1e-9))

    async def ask_several(line: Line) -> list[list[Answer]]:
        asking = asyncio.gather(*(line.ask([question], gone=never) for _ in range(4)))
        return await asyncio.wait_for(asking, timeout=20)

    with line_of(handbook, gate, at_once=True) as line:
        answers = asyncio.run(ask_several(line))
    assert answers == [answer_questions(handbook, instant_encoder(handbook), [question])] * 4


def test_what_the_event_loop_was_to_answer_goes_to_the_thread_while_that_answers(
    handbook: Generation, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AT_ONCE_S", 60.0)
    instant = [replace(question, encoder="instant") for question in (RED, DESCALE)]

    async def ask_both_ways(line: Line) -> list[list[Answer]]:
        waiting = [asyncio.ensure_future(line.ask([question], gone=never)) for question in (RED, *instant)]
        line._came_before = 2
        await asyncio.sleep(0)
        await entered(gate)  # before the loop comes to what it was to answer, or just after
        await asyncio.sleep(0)
        gate.opened.set()
        return await asyncio.gather(*waiting)

    with line_of(handbook, gate, at_once=True) as line:
        _, *answers = asyncio.run(ask_both_ways(line))
    assert [answer for (answer,) in answers] == answer_questions(handbook, instant_encoder(handbook), instant)


@pytest.mark.parametrize(("limit_s", "is_at_once"), [(60.0, True), (0.0, False)])
def test_the_full_encoder_answers_at_once_when_it_was_quick_enough_before(
    handbook: Generation,
    encoder: Encoder,
    gate: Gate,
    monkeypatch: pytest.MonkeyPatch,
    limit_s: float,
    is_at_once: bool,
) -> None:
    monkeypatch.setattr(module, "AT_ONCE_S", limit_s)

    async def ask(line: Line, question: Question) -> tuple[bool, list[Answer]]:
        asking = asyncio.ensure_future(line.ask([question], gone=never))
        await asyncio.sleep(0)
        was_at_once = asking.done()
        answers = await asking
        await idle(line)
        return was_at_once, answers

    async def ask_twice(line: Line) -> list[tuple[bool, list[Answer]]]:
        return [await ask(line, RED), await ask(line, DESCALE)]

    gate.opened.set()
    with line_of(handbook, gate, at_once=True) as line:
        (first, _), (second, answers) = asyncio.run(ask_twice(line))
    assert (first, second) == (False, is_at_once)
    assert answers == answer_questions(handbook, encoder, [DESCALE])


async def idle(line: Line) -> None:
    """Wait until the thread has delivered its answers, and has looked whether there is more."""
    while line._is_busy:
        await asyncio.sleep(0.001)


def test_closing_answers_what_waits(handbook: Generation, gate: Gate) -> None:
    async def ask_and_close(line: Line) -> None:
        first = asyncio.ensure_future(line.ask([RED], gone=never))
        await entered(gate)
        second = asyncio.ensure_future(line.ask([DESCALE], gone=never))
        await asyncio.sleep(0)
        closing = asyncio.ensure_future(asyncio.to_thread(line.close))
        await asyncio.sleep(0.05)
        gate.opened.set()
        answers = await asyncio.gather(first, second)
        assert [answer.question for (answer,) in answers] == [RED.text, DESCALE.text]
        await closing

    with line_of(handbook, gate) as line:
        asyncio.run(ask_and_close(line))
