"""The way of the questions of a batch: read, given to the processes that answer, put in order again.

A little is read ahead, so that no process waits for another one's part, and what is asked again is answered once;
both are bounded, so that memory does not grow with the file.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from index.errors import QuestionError, WhenceError
from service.batch_input import Row
from service.batch_journal import Counts
from service.batch_output import AnsweredRow
from service.batch_progress import BatchProgress
from service.batch_worker import BLOCK, Outcome
from service.stopping import Stopping

PART_ROWS = 1_000
PART_BYTES = 8_000_000  # of the input
# Passages in the answers of a part, and in those that are kept for when they are asked again.
PART_PASSAGES = 5_000
KEPT_PASSAGES = 20_000


class Answering(Protocol):
    """Something that can be asked a block of questions."""

    def ask(self, questions: Sequence[str], block: Sequence[Any]) -> None:
        """Give it questions, and what is to be put beside their outcomes; it must be idle."""


class Workforce(Protocol):
    """Those who answer."""

    def __len__(self) -> int:
        """Count the blocks that they may have at the same time."""

    def block_size(self, waiting: int) -> int:
        """Return how many questions a block has at most, of a part in which so many wait."""

    def idle(self) -> Sequence[Answering]:
        """Return those that have nothing to do."""

    def outcomes(self) -> Iterator[tuple[Sequence[Any], list[Outcome]]]:
        """Wait until some that were asked have answered, and yield what is put beside it, with its outcomes."""


@dataclass
class _Asked:
    """A question on its way; rows with the same one share it.

    Attributes:
        outcome: None until it comes back.
        rows: that wait for it.
    """

    text: str
    outcome: Outcome | None = None
    rows: int = 0


@dataclass
class _Part:
    """Rows that are written together.

    Attributes:
        rows: each with its question; None for one that cannot be asked.
        waiting: questions that no process has yet, those of similar length together.
        block: how many of them are given to a process at a time.
    """

    rows: list[tuple[Row, _Asked | None]] = field(default_factory=list)
    waiting: deque[_Asked] = field(default_factory=deque)
    block: int = 1

    @property
    def is_answered(self) -> bool:
        return all(asked is None or asked.outcome is not None for _, asked in self.rows)


def part_rows(top_k: int) -> int:
    """Return how many rows a part has at most: fewer when their answers are long."""
    return max(1, min(PART_ROWS, PART_PASSAGES // top_k))


class Pipeline:
    """Answers rows.

    Args:
        rows: to be answered.
        workers: who answer.
        check: raises `QuestionError` for a question that cannot be asked.
        top_k: passages in an answer.
        fails_fast: whether the first row that fails ends it all.
        progress: told of rows that are done.
        stopping: when it is asked for, the part at hand is the last.
    """

    def __init__(
        self,
        rows: Iterator[Row],
        workers: Workforce,
        *,
        check: Callable[[str], None],
        top_k: int,
        fails_fast: bool,
        progress: BatchProgress,
        stopping: Stopping,
    ) -> None:
        self._rows = rows
        self._workers = workers
        self._check = check
        self._part_rows = part_rows(top_k)
        self._fails_fast = fails_fast
        self._progress = progress
        self._stopping = stopping
        self._parts: deque[_Part] = deque()
        self._parts_ahead = 2 + len(workers) * BLOCK // self._part_rows
        self._kept: OrderedDict[str, _Asked] = OrderedDict()
        self._kept_at_most = max(1, KEPT_PASSAGES // top_k)
        self._has_more = True

    def parts(self) -> Iterator[tuple[list[AnsweredRow], Counts]]:
        """Yield parts in the order of the input, each answered and counted.

        Raises:
            WhenceError: the input cannot be read, the answers cannot be found, or a row failed and that ends it all.
            StoppedError: it was asked to stop, and the part at hand was yielded before.
        """
        while self._read_ahead():
            while not self._parts[0].is_answered:
                self._exchange()
            yield self._finished(self._parts.popleft())
            self._stopping.now()

    def _read_ahead(self) -> bool:
        """Read until there are parts enough; return whether there is one."""
        while self._has_more and len(self._parts) < self._parts_ahead and not self._stopping.is_asked:
            part = self._read_part()
            if part.rows:
                self._parts.append(part)
        return bool(self._parts)

    def _read_part(self) -> _Part:
        part, size = _Part(), 0
        while len(part.rows) < self._part_rows and size < PART_BYTES:
            row = next(self._rows, None)
            if row is None:
                self._has_more = False
                break
            size += row.size
            part.rows.append(self._with_question(row, part))
        # Questions of one length are encoded together.
        part.waiting = deque(sorted(part.waiting, key=lambda asked: len(asked.text)))
        part.block = self._workers.block_size(len(part.waiting))
        return part

    def _with_question(self, row: Row, part: _Part) -> tuple[Row, _Asked | None]:
        """Put a row beside its question; one that is new waits in the part."""
        try:
            if row.error is None:
                self._check(row.question or "")
        except QuestionError as error:
            row = replace(row, error=str(error))
        if row.error is not None:
            self._progress.advance(1, failed=1)
            return row, None
        asked = self._kept.get(row.question or "") or self._keep(_Asked(row.question or ""), part)
        self._kept.move_to_end(asked.text)
        asked.rows += 1
        if asked.outcome is not None:
            self._progress_of(asked)
        return row, asked

    def _keep(self, asked: _Asked, part: _Part) -> _Asked:
        part.waiting.append(asked)
        self._kept[asked.text] = asked
        if len(self._kept) > self._kept_at_most:
            self._kept.popitem(last=False)
        return asked

    def _exchange(self) -> None:
        """Give blocks of questions to those who have nothing to do, and wait for outcomes."""
        if self._stopping.is_asked:
            self._progress.stopping()
        for worker in self._workers.idle():
            block = self._next_block()
            if block:
                worker.ask([asked.text for asked in block], block)
        for answered, outcomes in self._workers.outcomes():
            for asked, outcome in zip(answered, outcomes, strict=True):
                asked.outcome = outcome
                self._progress_of(asked)

    def _next_block(self) -> list[_Asked]:
        parts = [self._parts[0]] if self._stopping.is_asked else self._parts
        part = next((part for part in parts if part.waiting), None)
        if part is None:
            return []
        return [part.waiting.popleft() for _ in range(min(part.block, len(part.waiting)))]

    def _progress_of(self, asked: _Asked) -> None:
        """Tell of the rows that have waited for a question."""
        is_failed = asked.outcome is not None and asked.outcome.payload is None
        self._progress.advance(asked.rows, failed=asked.rows if is_failed else 0)
        asked.rows = 0

    def _finished(self, part: _Part) -> tuple[list[AnsweredRow], Counts]:
        rows, counts = [], Counts()
        for row, asked in part.rows:
            outcome = asked.outcome if asked is not None and asked.outcome is not None else _refused(row)
            if outcome.error is not None:
                self._fail(row.line, outcome.error)
            rows.append(AnsweredRow(row, outcome.payload, outcome.error))
            counts += _count(outcome)
        return rows, counts

    def _fail(self, line: int, error: str) -> None:
        if self._fails_fast:
            raise WhenceError(f"Line {line}: {error}")
        self._progress.failure(line, error)


def _refused(row: Row) -> Outcome:
    return Outcome(None, error=row.error)


def _count(outcome: Outcome) -> Counts:
    is_failed = outcome.payload is None
    is_answered = outcome.is_answered and not is_failed
    return Counts(1, int(is_answered), int(not is_answered and not is_failed), int(is_failed))
