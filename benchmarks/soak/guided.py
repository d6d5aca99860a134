"""Let the coverage of the readers decide how samples are damaged further.

    pip install --editable '.[fuzz]'
    PYTHONPATH=benchmarks python -m soak.guided --seconds 30 --write benchmarks/results/guided.md
    PYTHONPATH=benchmarks python -m soak.guided --seconds 600 --format pdf --keep corpus

Each format gets a process of its own for so many seconds (soak/guided_reader.py), in which libFuzzer (by atheris)
keeps every file that reaches a branch which none before it reached, and damages those further. It begins with
the sample of the format. Branches are counted in the readers and in the libraries in
Python beneath them; in what is written in C (lxml, PDFium) none are seen. What must come of a file is what soak.fuzz
asks for. A process that dies, or that takes longer than a file may, is replaced, and counts as a failure.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from figures import print_figures, table
from machine import machine
from soak.fuzz import OUTCOMES
from soak.guided_counts import Counts
from soak.samples import samples

ROOT = Path(__file__).parents[2]
STARTING_S = 300.0  # to import what is instrumented, beyond the time that was asked for
SHOWN = 10  # failures of a format

_STATUS = re.compile(rb"^#\d+\s+(?P<event>\w+)\s+cov: (?P<branches>\d+) ft: \d+ corp: (?P<files>\d+)/", re.MULTILINE)


@dataclass
class Course:
    """How the files of one format fared.

    Attributes:
        outcomes: how many files had which.
        branches: reached by the samples, and by all files.
        files: that are kept, because each reached something new.
        failures: what a reader stumbled over, each place once.
    """

    outcomes: dict[str, int] = field(default_factory=dict)
    branches: tuple[int, int] = (0, 0)
    files: int = 0
    failures: list[str] = field(default_factory=list)


def guided(name: str, *, seconds: float, seed: int, corpus: Path) -> Course:
    """Read damaged files of one format until the time is up.

    Args:
        name: of the sample, whose suffix all files have.
        seconds: of reading.
        seed: of the damages; how far they get depends on the machine.
        corpus: folder for the files that are kept, which are begun with; those that failed lie in a folder beside it.
    """
    corpus.mkdir(parents=True, exist_ok=True)
    failed = corpus.with_name(f"{corpus.name}-failed")
    failed.mkdir(exist_ok=True)
    (corpus / f"sample-{name}").write_bytes(samples()[name])
    course, end = Course(), time.monotonic() + seconds
    with tempfile.TemporaryDirectory(prefix="guided-") as scratch:
        folder = Path(scratch)
        with Counts(folder / "counts", OUTCOMES) as counts:
            while (left := end - time.monotonic()) > 1:
                _run((name, str(corpus), str(failed), str(folder), f"{left:.0f}", str(seed)), left, course)
                seed += 1
            course.outcomes = counts.all()
        found = folder / "failures"
        course.failures += found.read_text(encoding="utf-8").splitlines() if found.exists() else []
    course.outcomes["failed"] = len(course.failures)
    return course


def _run(arguments: tuple[str, ...], seconds: float, course: Course) -> None:
    """Let one process read until the time is up or it dies; add what became of it to the course."""
    name, _, _, folder, *_ = arguments
    log = Path(folder, "log")
    with log.open("wb") as errors, ExitStack() as stack:
        process = subprocess.Popen(
            [sys.executable, "-m", "soak.guided_reader", *arguments],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )
        stack.callback(process.wait)
        stack.callback(process.kill)
        code = process.wait(seconds + STARTING_S)
    said = log.read_bytes()
    statuses = list(_STATUS.finditer(said))
    if not statuses:
        raise SystemExit(f"{name} was not begun with:\n{said.decode(errors='replace')[-2_000:]}")
    first = next((int(each["branches"]) for each in statuses if each["event"] == b"INITED"), 0)
    course.branches = (course.branches[0] or first, max(course.branches[1], int(statuses[-1]["branches"])))
    course.files = max(course.files, int(statuses[-1]["files"]))
    if code != 0:
        course.failures.append(f"exit code {code}: {_last_words(said)}")


def _last_words(said: bytes) -> str:
    found = re.findall(r"^(?:ALARM|==\d+==|SUMMARY|Fatal).*|^artifact.*", said.decode(errors="replace"), re.MULTILINE)
    return json.dumps("; ".join(found[-3:])[-300:])


def report(courses: dict[str, Course], *, seconds: float, seed: int) -> Iterator[str]:
    """Write what became of the files as Markdown."""
    executions = sum(sum(course.outcomes.values()) for course in courses.values())
    failed = sum(course.outcomes["failed"] for course in courses.values())
    yield f"## {machine()}"
    yield ""
    command = f"PYTHONPATH=benchmarks python -m soak.guided --seconds {seconds:g} --seed {seed}"
    yield f"`{command}`, {seconds:g} s for each format."
    yield ""
    rows = [
        [
            name.partition(".")[2],
            *(f"{course.outcomes[kind]:,}" for kind in OUTCOMES),
            f"{course.branches[0]:,}",
            f"{course.branches[1]:,}",
            f"{course.files:,}",
        ]
        for name, course in courses.items()
    ]
    yield from table(["format", *OUTCOMES, "branches of the sample", "of all files", "files kept"], rows)
    yield f"{executions:,} executions, {failed:,} failed."
    for name, course in courses.items():
        for failure in course.failures[:SHOWN]:
            yield f"\n- {name}: `{failure}`"


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, read damaged files, and print what became of them; exit code 1 when one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60, help="for each format (default: 60)")
    parser.add_argument("--seed", type=int, default=1, help="of the damages (default: 1)")
    parser.add_argument("--format", action="append", help="only samples with this suffix, such as pdf")
    parser.add_argument("--keep", type=Path, help="folder for the files that reached something new, or failed")
    parser.add_argument("--write", type=Path, help="Markdown file for the table")
    args = parser.parse_args(arguments)
    names = [name for name in samples() if not args.format or name.partition(".")[2] in args.format]
    with tempfile.TemporaryDirectory(prefix="guided-") as scratch:
        corpus = args.keep.resolve() if args.keep else Path(scratch)
        courses = {}
        for name in names:
            folder = corpus / name.partition(".")[2]
            courses[name] = guided(name, seconds=args.seconds, seed=args.seed, corpus=folder)
            print(name, courses[name], file=sys.stderr)
    print_figures(list(report(courses, seconds=args.seconds, seed=args.seed)), args.write)
    sys.exit(any(course.failures for course in courses.values()))


if __name__ == "__main__":
    main()
