"""The line in which questions wait: bounded, answered together, given up when nobody waits any more.

One thread answers. While it is busy questions gather, and it then takes what is there together; nothing waits on
purpose. Questions asked alone go before those of a batch, of which some are taken each time all the same.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from index.answers import Answer, Question, answer_questions
from index.errors import WhenceError
from service.departures import ClientGoneError
from service.metrics import Metrics
from service.problems import Problem
from service.serving import Serving

logger = logging.getLogger(__name__)

MAX_TOGETHER = 16
RESERVED_FOR_BATCHES = 4


@dataclass(frozen=True, eq=False)
class _Waiting:
    question: Question
    future: asyncio.Future[Answer]
    since: float


class Line:
    """Answers questions in their turn.

    Args:
        serving: the generation to ask.
        metrics: told of outcomes and times.
        bound: questions that may wait.
        deadline_s: after which a question is given up.
    """

    def __init__(self, serving: Serving, metrics: Metrics, *, bound: int, deadline_s: float) -> None:
        self._serving = serving
        self._metrics = metrics
        self._bound = bound
        self._deadline_s = deadline_s
        self._singles: deque[_Waiting] = deque()
        self._batches: deque[_Waiting] = deque()
        self._changed = threading.Condition()
        self._is_closed = False
        self._thread = threading.Thread(target=self._work, name="answers", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def close(self) -> None:
        """Answer what waits, then end."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join()

    def __len__(self) -> int:
        return len(self._singles) + len(self._batches)

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
        futures = self._admit(questions)
        answering = asyncio.ensure_future(_all(futures))
        leaving = asyncio.ensure_future(gone())
        try:
            done, _ = await asyncio.wait(
                {answering, leaving}, timeout=self._deadline_s, return_when=asyncio.FIRST_COMPLETED
            )
            if answering in done:
                answers = answering.result()
                for answer in answers if is_counted else ():
                    self._metrics.question("answered" if answer.answered else "unanswered")
                return answers
            raise self._given_up(len(questions), has_left=leaving in done)
        finally:
            leaving.cancel()
            answering.cancel()
            for future in futures:
                future.cancel()

    def _admit(self, questions: Sequence[Question]) -> list[asyncio.Future[Answer]]:
        loop, now = asyncio.get_running_loop(), time.monotonic()
        waiting = [_Waiting(question, loop.create_future(), now) for question in questions]
        with self._changed:
            if len(self) + len(waiting) > self._bound:
                self._metrics.question("overloaded", len(waiting))
                raise Problem(
                    "overloaded", f"{len(self)} questions wait already, and {self._bound} may. Ask again in a moment."
                )
            (self._singles if len(waiting) == 1 else self._batches).extend(waiting)
            self._metrics.queue(len(self))
            self._changed.notify()
        return [each.future for each in waiting]

    def _given_up(self, count: int, *, has_left: bool) -> Exception:
        self._metrics.question("gone" if has_left else "deadline", count)
        if has_left:
            return ClientGoneError()
        return Problem(
            "deadline", f"No answer within {self._deadline_s:g} s: too much is asked. Ask again in a moment."
        )

    def _work(self) -> None:
        while batch := self._take():
            self._answer(batch)

    def _take(self) -> list[_Waiting]:
        """Wait for questions that somebody still waits for; return none when the line is closed."""
        while True:
            with self._changed:
                while not len(self) and not self._is_closed:
                    self._changed.wait()
                taken = self._next()
                self._metrics.queue(len(self))
            if not taken:
                return []
            wanted = [each for each in taken if not each.future.cancelled()]
            if wanted:
                return wanted

    def _next(self) -> list[_Waiting]:
        reserved = min(RESERVED_FOR_BATCHES, len(self._batches))
        singles = [self._singles.popleft() for _ in range(min(MAX_TOGETHER - reserved, len(self._singles)))]
        return singles + [
            self._batches.popleft() for _ in range(min(MAX_TOGETHER - len(singles), len(self._batches)))
        ]

    def _answer(self, batch: Sequence[_Waiting]) -> None:
        started = time.monotonic()
        for each in batch:
            self._metrics.stage("waiting", started - each.since)
        outcomes = self._outcomes(batch)
        self._metrics.batch(len(batch))
        self._metrics.stage("answering", time.monotonic() - started)
        if not all(each.future.done() for each in batch):
            batch[0].future.get_loop().call_soon_threadsafe(_deliver, batch, outcomes)

    def _outcomes(self, batch: Sequence[_Waiting]) -> Sequence[Answer | Exception]:
        try:
            with self._serving.lease() as served:
                questions = [each.question for each in batch]
                return answer_questions(
                    served.generation, served.encoder, questions, weights=served.weights, reranker=served.reranker
                )
        except (WhenceError, Problem) as error:
            return [error] * len(batch)
        except Exception as error:  # the edge of the thread: a mistake met by one question must not cost the others
            logger.exception("%d questions could not be answered", len(batch))
            return [error] if len(batch) == 1 else [self._outcomes([each])[0] for each in batch]


async def _all(futures: Sequence[asyncio.Future[Answer]]) -> list[Answer]:
    return [await future for future in futures]


def _deliver(batch: Sequence[_Waiting], outcomes: Sequence[Answer | Exception]) -> None:
    for each, outcome in zip(batch, outcomes, strict=True):
        if each.future.done():
            continue
        if isinstance(outcome, Exception):
            each.future.set_exception(outcome)
            each.future.exception()  # only the first of a batch is raised; the others count as seen
        else:
            each.future.set_result(outcome)
