"""Rates: exact counts over a window of time, however many processes count."""

from __future__ import annotations

import multiprocessing
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from waiting import until

from index.errors import StateError, WhenceError
from service.rates import CLOCK_S, RATES, Allowance, Rates, Windows, parse_rate


@pytest.fixture
def rates(tmp_path: Path) -> Iterator[Rates]:
    """Counters of a home, at nothing."""
    with closing(Rates(tmp_path)) as rates:
        yield rates


def count_hits(home: Path, hits: int) -> int:
    """Return how many hits were allowed in a process of its own."""
    with closing(Rates(home)) as rates:
        return sum(not rates.hit("100/h", "shared").is_exceeded for _ in range(hits))


@pytest.mark.parametrize(
    ("text", "amount", "seconds"),
    [
        ("5/s", 5, 1),
        ("5/second", 5, 1),
        ("60/min", 60, 60),
        ("60/minute", 60, 60),
        ("1000/h", 1_000, 3_600),
        ("1/hour", 1, 3_600),
        ("10000/day", 10_000, 86_400),
        ("7/d", 7, 86_400),
    ],
)
def test_a_rate_is_a_number_and_a_unit_of_time(text: str, amount: int, seconds: int) -> None:
    rate = parse_rate(text)
    assert (rate.amount, rate.get_expiry()) == (amount, seconds)


@pytest.mark.parametrize(
    "text", ["", "60", "60/", "/min", "0/min", "-1/min", "1.5/s", "60/month", "60 / min", "٦/s", "1e3/s"]
)
def test_anything_else_is_no_rate(text: str) -> None:
    with pytest.raises(WhenceError, match="is not a rate"):
        parse_rate(text)


def test_hits_are_allowed_up_to_the_rate(rates: Rates) -> None:
    allowances = [rates.hit("2/h", "key", "a") for _ in range(4)]
    assert [(each.is_exceeded, each.limit, each.remaining) for each in allowances] == [
        (False, 2, 1),
        (False, 2, 0),
        (True, 2, 0),
        (True, 2, 0),
    ]
    assert {each.reset_s for each in allowances} <= {3_599, 3_600}


def test_names_are_counted_apart(rates: Rates) -> None:
    assert not rates.hit("1/h", "key", "a").is_exceeded
    assert not rates.hit("1/h", "key", "b").is_exceeded
    assert rates.hit("1/h", "key", "a").is_exceeded


@pytest.mark.parametrize(
    ("back_s", "is_exceeded"), [(0, True), (CLOCK_S / 2, True), (CLOCK_S + 1, False), (1e9, False)]
)
def test_a_clock_that_is_set_back_holds_no_key_back(
    rates: Rates, monkeypatch: pytest.MonkeyPatch, back_s: float, is_exceeded: bool
) -> None:
    moment = time.time()
    monkeypatch.setattr("service.rates.time.time", lambda: moment)
    assert not rates.hit("1/min", "key").is_exceeded
    moment -= back_s
    found = rates.hit("1/min", "key")
    assert found.is_exceeded == is_exceeded
    assert found.reset_s <= 60 + CLOCK_S


def test_after_the_window_the_count_starts_anew(rates: Rates) -> None:
    assert rates.hit("1/s", "key") == Allowance(is_exceeded=False, limit=1, remaining=0, reset_s=1)
    assert rates.hit("1/s", "key").is_exceeded
    until(lambda: not rates.hit("1/s", "key").is_exceeded, seconds=2)


def test_processes_count_together_and_miss_no_hit(tmp_path: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        allowed = pool.starmap(count_hits, [(tmp_path, 60)] * 3, chunksize=1)
    assert sum(allowed) == 100


def test_a_count_outlives_the_process(tmp_path: Path) -> None:
    for remaining in (2, 1, 0):
        with closing(Rates(tmp_path)) as rates:
            assert rates.hit("3/h", "key").remaining == remaining


def test_windows_that_ended_are_removed(rates: Rates, tmp_path: Path) -> None:
    for name in "abc":
        rates.hit("1/s", name)
    time.sleep(1.1)
    rates.hit("1/h", "d")
    with closing(sqlite3.connect(tmp_path / RATES)) as connection:
        assert [name for (name,) in connection.execute("SELECT name FROM windows")] == ["LIMITER/d/1/1/hour"]


def test_a_window_can_be_read_and_forgotten(tmp_path: Path) -> None:
    with closing(Windows(tmp_path / RATES)) as windows:
        assert windows.check()
        before = time.time()
        assert windows.get("a") == 0
        assert before <= windows.get_expiry("a") <= time.time()
        assert (windows.incr("a", 60, amount=2), windows.incr("a", 60), windows.incr("b", 60)) == (2, 3, 1)
        assert windows.get("a") == 3
        assert before + 60 <= windows.get_expiry("a") <= time.time() + 60
        windows.clear("a")
        assert (windows.get("a"), windows.get("b")) == (0, 1)
        assert (windows.reset(), windows.get("b")) == (1, 0)


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / RATES).write_text("something else, and long enough to be looked at as if it were a header of it" * 9)
    with closing(Rates(tmp_path)) as rates, pytest.raises(StateError, match=r"rates.sqlite cannot be used"):
        rates.hit("1/s", "key")


def test_only_the_owner_reads_the_counters(rates: Rates, tmp_path: Path) -> None:
    rates.hit("1/s", "key")
    assert (tmp_path / RATES).stat().st_mode & 0o077 == 0
