"""Asked to stop, a command stops at once, or when it is ready; asked twice, at once."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from service.stopping import StoppedError, Stopping


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_at_once(number: signal.Signals, code: int) -> None:
    with pytest.raises(StoppedError, match="Enough") as stopped, Stopping("Enough."):
        signal.raise_signal(number)
    assert stopped.value.exit_code == code


def test_a_deferred_signal_waits_until_it_is_asked_for() -> None:
    with Stopping("Enough.") as stopping, stopping.deferred():
        stopping.now()
        assert not stopping.is_asked
        signal.raise_signal(signal.SIGINT)
        assert stopping.is_asked
        with pytest.raises(StoppedError):
            stopping.now()


def test_a_second_signal_does_not_wait() -> None:
    with Stopping("Enough.") as stopping, stopping.deferred():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(StoppedError):
            signal.raise_signal(signal.SIGTERM)


def test_waiting_for_an_item_is_interrupted_even_when_signals_are_deferred() -> None:
    def items() -> Iterator[int]:
        yield 1
        signal.raise_signal(signal.SIGINT)
        yield 2

    with Stopping("Enough.") as stopping, stopping.deferred():
        waited = stopping.interruptible(items())
        assert next(waited) == 1
        with pytest.raises(StoppedError):
            next(waited)
    with Stopping("Enough.") as stopping, stopping.deferred():
        assert list(stopping.interruptible(iter([1, 2]))) == [1, 2]
        signal.raise_signal(signal.SIGINT)
        assert stopping.is_asked


def test_handlers_are_put_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with Stopping("Enough."):
        pass
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
