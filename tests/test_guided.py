"""Fuzzing that coverage guides: what its processes say, count and leave to each other."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from soak.fuzz import OUTCOMES
from soak.guided import Course, guided, report
from soak.guided_counts import Counts
from soak.samples import samples

COUNTING = """
import os, signal, sys
from pathlib import Path
from soak.guided_counts import Counts

with Counts(Path(sys.argv[1]), ("read", "failed")) as counts:
    for _ in range(3):
        counts.add("failed")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_was_counted_outlives_the_process_that_counted(tmp_path: Path) -> None:
    with Counts(tmp_path / "counts", ("read", "failed")) as counts:
        counts.add("read")
        for _ in range(2):
            done = subprocess.run(
                [sys.executable, "-c", COUNTING, str(tmp_path / "counts")],
                cwd=Path(__file__).parents[1] / "benchmarks",
                check=False,
            )
            assert done.returncode == -9
        assert counts.all() == {"read": 1, "failed": 6}


def test_the_report_has_a_row_for_each_format_and_what_failed() -> None:
    courses = {
        "a.md": Course({"read": 1_200, "rejected": 30, "killed by limit": 0, "failed": 0}, (400, 520), 61),
        "a.pdf": Course(
            {"read": 5, "rejected": 6, "killed by limit": 1, "failed": 1}, (90, 90), 2, ["KeyError at a.py:1"]
        ),
    }
    lines = list(report(courses, seconds=30, seed=1))
    assert "| md | 1,200 | 30 | 0 | 0 | 400 | 520 | 61 |" in lines
    assert "| pdf | 5 | 6 | 1 | 1 | 90 | 90 | 2 |" in lines
    assert lines[-2:] == ["1,243 executions, 1 failed.", "\n- a.pdf: `KeyError at a.py:1`"]


def test_coverage_leads_to_files_that_the_sample_did_not_have(tmp_path: Path) -> None:
    pytest.importorskip("atheris", reason="For guided fuzzing: pip install 'whence[fuzz]'")
    course = guided("a.srt", seconds=3, seed=1, corpus=tmp_path)
    assert course.failures == []
    assert course.outcomes["read"] > 10
    assert course.outcomes.keys() == set(OUTCOMES)
    assert course.branches[1] > course.branches[0] > 100
    assert (tmp_path / "sample-a.srt").read_bytes() == samples()["a.srt"]
    assert course.files > 3
