"""What the endurance test makes of its figures, and a short run of it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from browser import need
from soak.endurance import Endured, Idle, Minute, pause_ms, questions, report, service
from wrk import Load

LOAD = Load(rate=100.0, p50_ms=5.0, p95_ms=8.0, p99_ms=10.0, failed=0)
MINUTE = Minute(LOAD, is_found=True, memory_mb=200.0)
STEADY = Endured(capacity=125.0, minutes=[MINUTE] * 8, seconds=60.0, idle=Idle(10, LOAD))


def test_a_service_that_stays_as_it_was_is_sound() -> None:
    assert (STEADY.growth, STEADY.slower, STEADY.failed, STEADY.published) == (pytest.approx(0), 1, 0, 8)
    assert STEADY.is_sound


@pytest.mark.parametrize(
    "minute",
    [
        replace(MINUTE, load=replace(LOAD, failed=1)),
        replace(MINUTE, is_found=False),
        replace(MINUTE, load=replace(LOAD, p99_ms=80.0)),
        replace(MINUTE, memory_mb=230.0),
    ],
    ids=["failed", "not found", "slow", "large"],
)
def test_one_that_fails_loses_or_grows_is_not(minute: Minute) -> None:
    assert not replace(STEADY, minutes=[MINUTE] * 6 + [minute] * 2).is_sound


def test_a_request_that_fails_beside_idle_connections_counts() -> None:
    assert not replace(STEADY, idle=Idle(10, replace(LOAD, failed=1))).is_sound


def test_growth_is_that_of_an_hour_in_the_second_half() -> None:
    # What is taken in the first half is the warm-up; then 0.1 MB more in each minute.
    memory = [100, 150, 180, 199, 200, 200.1, 200.2, 200.3]
    grown = replace(STEADY, minutes=[replace(MINUTE, memory_mb=each) for each in memory])
    assert grown.growth == pytest.approx(6 / 200.15)
    assert grown.is_sound


def test_a_few_pages_more_in_a_short_time_are_no_growth() -> None:
    memory = [150.0, 150.0, 150.0, 150.6]
    short = replace(STEADY, seconds=15.0, minutes=[replace(MINUTE, memory_mb=each) for each in memory])
    assert short.growth == pytest.approx(0.6 / 150.3 * 240)
    assert short.is_sound
    assert not replace(short, minutes=[replace(MINUTE, memory_mb=each) for each in (150, 150, 150, 154)]).is_sound


def test_clients_pause_so_long_that_with_the_answers_they_ask_four_fifths_of_the_capacity() -> None:
    assert pause_ms(100.0, answer_ms=0.0) == 200  # 16 clients, 80 questions a second
    assert pause_ms(100.0, answer_ms=150.0) == 50
    assert pause_ms(100.0, answer_ms=900.0) == 1


def test_the_report_says_what_was_asked_and_whether_it_is_sound() -> None:
    lines = report(STEADY, workers=2)
    assert "| minutes | 8 |" in lines
    assert "| answers a second, asked with pauses | 100, 80% of that |" in lines
    assert "| answers | 48,000 |" in lines
    assert "| documents published, and found by their new text | 8 of 8 |" in lines
    assert "| beside 10 idle connections | 100 answers a second, p99 10 ms |" in lines
    assert lines[-1] == "Sound."


def test_a_service_endures(tmp_path: Path, cache_folder: Path) -> None:
    need(Path(shutil.which("wrk") or "wrk"), "apt-get install wrk")
    with service(tmp_path, cache_folder, workers=1) as under_test:
        endured = under_test.endure(minutes=1, seconds=1, idle=500, capacity_s=1)
    assert len(questions(Path("seeds"))) > 100
    assert (endured.failed, endured.published) == (0, 1)
    assert endured.idle is not None
    assert endured.idle.connections == 500
    assert endured.idle.load.rate > 0
    assert all(50 < minute.memory_mb < 2_000 for minute in endured.minutes)
