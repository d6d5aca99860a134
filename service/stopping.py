"""Being asked to stop, by Ctrl-C or by the system, at a moment when that does no harm."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self, TypeVar

from index.errors import WhenceError

T = TypeVar("T")

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StoppedError(WhenceError):
    """A command was asked to stop.

    Attributes:
        exit_code: that says by which signal, as shells have it.
    """

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number


class Stopping:
    """Turns SIGINT and SIGTERM into a `StoppedError`: at once, or within `deferred` when the block is ready for it.

    Asked a second time it does not wait. For the main thread.

    Attributes:
        message: what is said when it stops.
    """

    def __init__(self, message: str) -> None:
        self.message = message
        self._is_deferred = False
        self._asked: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._ask) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @property
    def is_asked(self) -> bool:
        """Whether a signal has come."""
        return self._asked is not None

    def now(self) -> None:
        """Stop if that was asked for.

        Raises:
            StoppedError: it was.
        """
        if self._asked is not None:
            raise StoppedError(self.message, self._asked)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Let a signal wait until the block asks for it."""
        self._is_deferred = True
        try:
            yield
        finally:
            self._is_deferred = False

    def interruptible(self, items: Iterator[T]) -> Iterator[T]:
        """Pass items on; while one is waited for, a signal is not deferred."""
        while True:
            was_deferred, self._is_deferred = self._is_deferred, False
            try:
                item = next(items)
            except StopIteration:
                return
            finally:
                self._is_deferred = was_deferred
            yield item

    def _ask(self, number: int, frame: FrameType | None) -> None:
        is_first, self._asked = self._asked is None, number
        if not self._is_deferred or not is_first:
            raise StoppedError(self.message, number)
