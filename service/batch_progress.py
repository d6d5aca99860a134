"""How far a batch is: a bar in a terminal, a line now and then anywhere else."""

from __future__ import annotations

import time
from datetime import timedelta
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from service.display import visible

LINE_S = 60.0  # between two lines
SHOWN_FAILURES = 20


class BatchProgress:
    """Tells of rows that are done, how fast they are, how long it will take, and how many failed.

    Args:
        console: to write to.
        total: rows in all; None when nobody knows.
        done: rows that were done before.
        failed: how many of them failed.
    """

    def __init__(self, console: Console, *, total: int | None, done: int, failed: int) -> None:
        self._console = console
        self._total = total
        self._first = self._done = done
        self._failed = failed
        self._shown = 0
        self._is_stopping = False
        self._started = self._told = time.monotonic()
        self._bar = Progress(
            SpinnerColumn(),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[failed]} failed"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=total, completed=done, failed=failed)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    @property
    def rate(self) -> float:
        """Rows a second since it began."""
        return (self._done - self._first) / max(1e-9, time.monotonic() - self._started)

    def advance(self, rows: int, *, failed: int = 0) -> None:
        """Tell of rows that are done."""
        self._done += rows
        self._failed += failed
        self._bar.update(self._task, advance=rows, failed=self._failed)
        now = time.monotonic()
        if not self._console.is_terminal and now >= self._told + LINE_S:
            self._told = now
            self._console.print(Text(self._line()))

    def failure(self, line: int, error: str) -> None:
        """Tell of a row that failed, unless there were many already."""
        self._shown += 1
        if self._shown <= SHOWN_FAILURES:
            self._console.print(Text(visible(f"Line {line}: {error}")))
        elif self._shown == SHOWN_FAILURES + 1:
            self._console.print(Text("More rows fail; they are only counted."))

    def stopping(self) -> None:
        """Say once that it was asked to stop."""
        if not self._is_stopping:
            self._is_stopping = True
            self._console.print(Text("Stopping when the rows at hand are done; Ctrl-C once more stops at once."))

    def _line(self) -> str:
        if self._total is None:
            return f"{self._done:,} rows, {self.rate:.0f}/s, {self._failed} failed"
        left = timedelta(seconds=round((self._total - self._done) / max(1e-9, self.rate)))
        return f"{self._done:,} of {self._total:,} rows, {self.rate:.0f}/s, {left} left, {self._failed} failed"


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:.0f}/s")
