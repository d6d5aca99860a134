"""How far a batch is can be seen in a terminal, and read in a log."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from service import batch_progress
from service.batch_progress import BatchProgress


def test_a_terminal_shows_a_bar_with_rate_and_failures() -> None:
    written = io.StringIO()
    console = Console(file=written, force_terminal=True, width=120, color_system=None)
    with BatchProgress(console, total=1_000, done=200, failed=3) as progress:
        progress.advance(50)
        progress.advance(1, failed=1)
        progress.failure(7, "The line \x1b[31m is not JSON.")
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written.getvalue())
    assert "200/1000" in shown
    assert "251/1000" in shown
    assert "4 failed" in shown
    assert "Line 7: The line \N{REPLACEMENT CHARACTER}[31m is not JSON." in shown


def test_a_log_has_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    with BatchProgress(Console(file=written, width=120), total=1_000, done=200, failed=3) as progress:
        progress.advance(50)
        assert written.getvalue() == ""
        monkeypatch.setattr(batch_progress, "LINE_S", 0.0)
        progress.advance(50, failed=1)
    assert re.fullmatch(r"300 of 1,000 rows, \d+/s, 0:00:0\d left, 4 failed\n", written.getvalue())
    written = io.StringIO()
    with BatchProgress(Console(file=written, width=120), total=None, done=0, failed=0) as progress:
        progress.advance(50)
    assert re.fullmatch(r"50 rows, \d+/s, 0 failed\n", written.getvalue())
