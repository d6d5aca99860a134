"""The line in which questions wait: bounded, answered together, given up when nobody waits any more.

One thread answers. While it is busy questions gather, and it then takes what is there together; nothing waits on
purpose. Questions asked alone go before those of a batch, of which some are taken each time all the same.

Handing a question over to that thread and back takes most of a millisecond. One that comes alone while nothing waits
is answered where it came in, in the thread of the event loop, unless it may take longer than most. Questions for the
instant encoder are answered there, too, when several come in one round of the loop: together, at its end, and only so
many, so that the loop comes to its other work. A thread of their own and the loop would hold up one another at each
step, as Python runs one at a time. The full encoder runs beside the loop.

Where the line is full a question is turned away, or it is answered by the instant encoder, if that is wanted. Some
times as many may wait for that, because it takes a fraction of the time.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from index.answers import Answer, Question
from index.errors import WhenceError
from index.weights import EncoderName
from service.departures import ClientGoneError
from service.metrics import Metrics
from service.problems import Problem
from service.serving import Serving
from service.settings import Overload, Settings

logger = logging.getLogger(__name__)

ENCODERS: tuple[EncoderName, ...] = ("instant", "full")  # in the order in which they answer: the quicker one first
OVERFLOW = 4  # times the bound of the line
MAX_TOGETHER = 16
# Bounds of a question that is answered at once: its characters and passages, and what the last one for its encoder
# took, by which a large model or index is known.
AT_ONCE_CHARS, AT_ONCE_TOP_K, AT_ONCE_S = 300, 20, 0.01
# How many of them are answered in one round of the event loop, which accepts only one new connection, so that long
# rounds keep clients waiting. One counts as one more for each so many seconds that the last one took.
AT_ONCE_IN_A_ROUND, AT_ONCE_SHARE_S = 16, 0.0025
SOON_S = 0.05  # within which most are answered; only then it is watched whether a client leaves
RESERVED_FOR_BATCHES = 4


@dataclass(frozen=True, eq=False)
class _Waiting:
    question: Question
    encoder: EncoderName
    future: asyncio.Future[Answer]
    since: float


class Line:
    """Answers questions in their turn.

    Args:
        serving: the generation to ask.
        metrics: told of outcomes and times.
        bound: questions that may wait.
        deadline_s: after which a question is given up.
        encoder: of questions that name none.
        overload: what becomes of a question when the line is full.
        at_once: whether questions may be answered in the thread of the event loop: neither a reranker nor a store
            beyond this machine must be waited for there.
    """

    def __init__(
        self,
        serving: Serving,
        metrics: Metrics,
        *,
        bound: int,
        deadline_s: float,
        encoder: EncoderName = "full",
        overload: Overload = "refuse",
        at_once: bool = False,
    ) -> None:
        self._serving = serving
        self._metrics = metrics
        self._bound = bound
        self._deadline_s = deadline_s
        self._encoder = encoder
        self._overload = overload
        self._at_once_allowed = at_once
        # What the last question took, in seconds. How long the full encoder takes is only known then.
        self._took_s: dict[EncoderName, float] = {"instant": 0.0, "full": math.inf}
        self._came, self._came_before = 0, 0  # quick questions in this round of the event loop, and in the one before
        self._gathered: deque[_Waiting] = deque()  # which the event loop answers
        self._singles: deque[_Waiting] = deque()
        self._batches: deque[_Waiting] = deque()
        self._overflow: deque[_Waiting] = deque()
        self._changed = threading.Condition()
        self._is_busy = False  # whether the thread has questions to answer
        self._answering = threading.Lock()  # held by whoever asks the generation
        self._is_closed = False
        self._thread = threading.Thread(target=self._work, name="answers", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def close(self) -> None:
        """Answer what waits, then end."""
        with self._changed:
            self._is_closed = True
            self._singles.extend(_first(self._gathered, len(self._gathered)))
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join()

    def __len__(self) -> int:
        return len(self._gathered) + len(self._singles) + len(self._batches) + len(self._overflow)

    @property
    def _waits_for_thread(self) -> bool:
        return bool(self._singles or self._batches or self._overflow)

    async def ask(
        self, questions: Sequence[Question], *, gone: Callable[[], Awaitable[None]], is_counted: bool = True
    ) -> list[Answer]:
        """Wait for the answers to questions.

        Args:
            questions: at least one.
            gone: returns when whoever asked has left; what still waits is then dropped.
            is_counted: whether the metrics count whether they were answered; not where nobody asked them.

        Returns:
            One answer for each question, in their order.

        Raises:
            Problem: too many wait, the deadline has passed, or nothing is served yet.
            ClientGoneError: whoever asked has left.
        """
        self._serving.manifest  # noqa: B018 (raises when nothing is served: no use in waiting for that)
        answer = self._at_once(questions[0]) if len(questions) == 1 else None
        answers = await self._wait(self._admit(questions), gone) if answer is None else [answer]
        for answer in answers if is_counted else ():
            self._metrics.question("answered" if answer.answered else "unanswered")
        return answers

    async def _wait(
        self, futures: Sequence[asyncio.Future[Answer]], gone: Callable[[], Awaitable[None]]
    ) -> list[Answer]:
        answering: asyncio.Future[Any] = futures[0] if len(futures) == 1 else asyncio.ensure_future(_all(futures))
        soon_s = min(SOON_S, self._deadline_s)
        leaving = None
        try:
            done, _ = await asyncio.wait({answering}, timeout=soon_s)
            if not done:
                leaving = asyncio.ensure_future(gone())
                done, _ = await asyncio.wait(
                    {answering, leaving}, timeout=self._deadline_s - soon_s, return_when=asyncio.FIRST_COMPLETED
                )
            if answering in done:
                return [await future for future in futures]
            raise self._given_up(len(futures), has_left=leaving in done)
        finally:
            if leaving is not None:
                leaving.cancel()
            answering.cancel()
            for future in futures:
                future.cancel()

    def _at_once(self, question: Question) -> Answer | None:
        """Answer a question in this thread; None if it has to wait in the line."""
        if not self._may_answer_at_once(question) or not self._answering.acquire(blocking=False):
            return None
        started = time.monotonic()
        encoder = self._encoder_of(question)
        try:
            with self._serving.lease() as served:
                (answer,) = served.answer([question], encoder)
        finally:
            self._answering.release()
        took_s = self._took_s[encoder] = time.monotonic() - started
        self._metrics.stage("waiting", 0.0)
        self._metrics.stage("answering", took_s)
        self._metrics.batch(1)
        return answer

    def _may_answer_at_once(self, question: Question) -> bool:
        if not self._is_quick(question, self._encoder_of(question)):
            return False
        if not self._came:
            asyncio.get_running_loop().call_soon(self._end_round)
        self._came += 1
        return self._came == 1 and self._came_before <= 1 and not self._is_busy and not len(self)

    def _end_round(self) -> None:
        self._came, self._came_before = 0, self._came

    def _is_quick(self, question: Question, encoder: EncoderName) -> bool:
        """Whether a question may be answered in the thread of the event loop."""
        return (
            self._at_once_allowed
            and self._took_s[encoder] <= AT_ONCE_S
            and not question.filters  # which look at every document
            and len(question.text) <= AT_ONCE_CHARS
            and question.top_k <= AT_ONCE_TOP_K
        )

    def _encoder_of(self, question: Question) -> EncoderName:
        return question.encoder or self._encoder

    def _admit(self, questions: Sequence[Question]) -> list[asyncio.Future[Answer]]:
        loop, now = asyncio.get_running_loop(), time.monotonic()
        waiting = [
            _Waiting(question, self._encoder_of(question), loop.create_future(), now) for question in questions
        ]
        with self._changed:
            if len(self) - len(self._overflow) + len(waiting) > self._bound:
                self._admit_overflow(waiting)
            elif not self._is_busy and not self._waits_for_thread and self._belongs_in_the_loop(waiting):
                self._gather(waiting)
            else:
                (self._singles if len(waiting) == 1 else self._batches).extend(waiting)
            self._metrics.queue(len(self))
            if self._waits_for_thread:
                self._changed.notify()
        return [each.future for each in waiting]

    def _admit_overflow(self, waiting: Sequence[_Waiting]) -> None:
        """Let questions that have no place in the line wait for the instant encoder.

        Raises:
            Problem: that is not wanted, there is none, or too many wait for it, too.
        """
        has_room = len(self._overflow) + len(waiting) <= OVERFLOW * self._bound
        if self._overload == "refuse" or not has_room or not self._serving.has_instant:
            self._metrics.question("overloaded", len(waiting))
            may = self._bound if self._overload == "refuse" else (1 + OVERFLOW) * self._bound
            raise Problem("overloaded", f"{len(self)} questions wait already, and {may} may. Ask again in a moment.")
        self._overflow.extend(replace(each, encoder="instant") for each in waiting)

    def _given_up(self, count: int, *, has_left: bool) -> Exception:
        self._metrics.question("gone" if has_left else "deadline", count)
        if has_left:
            return ClientGoneError()
        return Problem(
            "deadline", f"No answer within {self._deadline_s:g} s: too much is asked. Ask again in a moment."
        )

    def _belongs_in_the_loop(self, batch: Sequence[_Waiting]) -> bool:
        return len(batch) <= self._most_in_a_round and all(
            each.encoder == "instant" and self._is_quick(each.question, "instant") for each in batch
        )

    @property
    def _most_in_a_round(self) -> int:
        return max(1, AT_ONCE_IN_A_ROUND // (1 + int(self._took_s["instant"] / AT_ONCE_SHARE_S)))

    def _gather(self, waiting: Sequence[_Waiting]) -> None:
        """Let the event loop answer questions, in whose thread this runs."""
        with self._changed:
            if not self._gathered:
                asyncio.get_running_loop().call_soon(self._answer_gathered)
            self._gathered.extend(waiting)

    def _answer_gathered(self) -> None:
        with self._changed:
            batch = _wanted(_first(self._gathered, self._most_in_a_round))
            if self._gathered:
                asyncio.get_running_loop().call_soon(self._answer_gathered)
        if not batch:
            return
        if not self._answering.acquire(blocking=False):  # the thread is answering, and takes these next
            with self._changed:
                self._singles.extend(batch)
                self._changed.notify()
            return
        try:
            for of_encoder, outcomes in self._answered(batch):
                _deliver(of_encoder, outcomes)
        finally:
            self._answering.release()

    def _work(self) -> None:
        while batch := self._take():
            if self._belongs_in_the_loop(batch) and not self._is_closed:
                _in_the_loop(batch, self._gather, batch)
                continue
            with self._answering:
                for of_encoder, outcomes in self._answered(batch):
                    _in_the_loop(of_encoder, _deliver, of_encoder, outcomes)

    def _take(self) -> list[_Waiting]:
        """Wait for questions that somebody still waits for; return none when the line is closed."""
        while True:
            with self._changed:
                self._is_busy = False
                while not self._waits_for_thread and not self._is_closed:
                    self._changed.wait()
                taken = self._next()
                self._is_busy = bool(taken)
                self._metrics.queue(len(self))
            if not taken:
                return []
            if wanted := _wanted(taken):
                return wanted

    def _next(self) -> list[_Waiting]:
        reserved = min(RESERVED_FOR_BATCHES, len(self._batches))
        singles = _first(self._singles, MAX_TOGETHER - reserved)
        batches = _first(self._batches, MAX_TOGETHER - len(singles))
        return _first(self._overflow, MAX_TOGETHER) + singles + batches

    def _answered(
        self, batch: Sequence[_Waiting]
    ) -> Iterator[tuple[Sequence[_Waiting], Sequence[Answer | Exception]]]:
        """Answer questions, those for each encoder together."""
        started = time.monotonic()
        for each in batch:
            self._metrics.stage("waiting", started - each.since)
        for encoder in ENCODERS:
            of_encoder = [each for each in batch if each.encoder == encoder]
            if of_encoder:
                begun = time.monotonic()
                outcomes = self._outcomes(of_encoder, encoder)
                self._took_s[encoder] = (time.monotonic() - begun) / len(of_encoder)
                yield of_encoder, outcomes
        self._metrics.batch(len(batch))
        self._metrics.stage("answering", time.monotonic() - started)

    def _outcomes(self, batch: Sequence[_Waiting], encoder: EncoderName) -> Sequence[Answer | Exception]:
        try:
            with self._serving.lease() as served:
                return served.answer([each.question for each in batch], encoder)
        except (WhenceError, Problem) as error:
            return [error] * len(batch)
        except Exception as error:  # the edge of the thread: a mistake met by one question must not cost the others
            logger.exception("%d questions could not be answered", len(batch))
            return [error] if len(batch) == 1 else [self._outcomes([each], encoder)[0] for each in batch]


def _first(waiting: deque[_Waiting], count: int) -> list[_Waiting]:
    """Take so many from the front, or what there is."""
    return [waiting.popleft() for _ in range(min(count, len(waiting)))]


def _wanted(waiting: Sequence[_Waiting]) -> list[_Waiting]:
    """Return those for which somebody still waits."""
    return [each for each in waiting if not each.future.cancelled()]


def line_of(settings: Settings, serving: Serving, metrics: Metrics) -> Line:
    """Make a line as the settings want it."""
    return Line(
        serving,
        metrics,
        bound=settings.queue,
        deadline_s=settings.deadline,
        encoder=settings.encoder,
        overload=settings.overload,
        at_once=settings.store is None and settings.reranker is None,
    )


async def _all(futures: Sequence[asyncio.Future[Answer]]) -> None:
    for future in futures:
        await future


def _in_the_loop(waiting: Sequence[_Waiting], callback: Callable[..., None], *arguments: object) -> None:
    """Call something in the thread of the event loop in which questions were asked."""
    with suppress(RuntimeError):  # the loop has ended, and with it whoever waits
        waiting[0].future.get_loop().call_soon_threadsafe(callback, *arguments)


def _deliver(batch: Sequence[_Waiting], outcomes: Sequence[Answer | Exception]) -> None:
    for each, outcome in zip(batch, outcomes, strict=True):
        if each.future.done():
            continue
        if isinstance(outcome, Exception):
            each.future.set_exception(outcome)
            each.future.exception()  # only the first of a batch is raised; the others count as seen
        else:
            each.future.set_result(outcome)
