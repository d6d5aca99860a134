"""Measure what one question costs on the command line: `whence ask` from its start to its end.

    python benchmarks/ask.py                      the bundled documents; writes benchmarks/results/ask.md
    python benchmarks/ask.py --chunks 100000 --data FOLDER
                                                  an index of so many chunks, too, made of the texts of a data set

Each run is a process of its own; the files that it reads are in the system's cache, as they are from the second
question of a day on.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from corpora import Corpus, read_corpus
from figures import table
from large import large_home
from machine import machine
from peers import index_with_whence
from processes import MEGABYTE, ROOT, WHENCE, whence_environment

from index.generations import Home
from service.settings import read_settings

RESULTS = Path(__file__).parent / "results" / "ask.md"
RUNS = 20
LIMIT_S = 120
UNWANTED = ("torch", "transformers", "sentence_transformers")
# As the command, and then the modules that it has loaded.
WATCHED = """
import atexit, json, sys
from service.command import main
atexit.register(lambda: print(json.dumps(sorted(sys.modules)), file=sys.stderr))
main()
"""


@dataclass(frozen=True)
class Run:
    """One question: seconds from start to end, and the peak of resident memory in MB."""

    took_s: float
    peak: float


@dataclass(frozen=True)
class Asking:
    """A home that is asked.

    Attributes:
        name: in the table.
        runs: one for each question.
        loaded: which of the modules that it should do without it has loaded.
    """

    name: str
    runs: Sequence[Run]
    loaded: Sequence[str]


def ask(question: str, home: Path) -> Run:
    """Ask a question by the command."""
    started = time.perf_counter()
    environment = whence_environment(home, read_settings().cache)
    process = subprocess.Popen([*WHENCE, "ask", "--", question], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    limit = threading.Timer(LIMIT_S, process.kill)
    limit.start()
    _, status, usage = os.wait4(process.pid, 0)  # which has the memory of this process alone
    took_s = time.perf_counter() - started
    limit.cancel()
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"whence ask ended with {process.returncode} for {question!r}")
    return Run(took_s, 1024 * usage.ru_maxrss / MEGABYTE)


def unwanted_modules(question: str, home: Path) -> list[str]:
    """Return which unwanted packages the command has loaded when it ends."""
    environment = whence_environment(home, read_settings().cache)
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, "ask", "--", question],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=True,
    )
    modules = json.loads(done.stderr.splitlines()[-1])
    return [name for name in UNWANTED if name in modules]


def measure(name: str, home: Path, questions: Sequence[str]) -> Asking:
    """Ask questions, after one that fills the system's cache."""
    ask(questions[0], home)
    return Asking(name, [ask(question, home) for question in questions], unwanted_modules(questions[0], home))


def homes(corpus: Corpus, sizes: Sequence[int], given: Sequence[Path]) -> Iterator[tuple[str, Path]]:
    """Yield what is asked: the documents of a corpus, larger indexes made of its texts, and homes that are there."""
    index_with_whence(corpus, corpus.kept / "home")
    yield corpus.name, corpus.kept / "home"
    for size in sizes:
        yield f"{size:,} chunks, made up", large_home(corpus, size)
    for home in given:
        manifest = Home(home).known_manifest()
        if manifest is None:
            raise SystemExit(f"There is no index in {home}.")
        yield f"{home.name}, {manifest.chunks:,} chunks", home


def row(asking: Asking) -> list[str]:
    """Write what was measured."""
    times = [run.took_s for run in asking.runs]
    return [
        asking.name,
        str(len(times)),
        f"{median(times):.2f}",
        f"{min(times):.2f}–{max(times):.2f}",
        f"{max(run.peak for run in asking.runs):,.0f}",
        ", ".join(asking.loaded) or "none",
    ]


def main() -> None:
    """Read the command line, print the table, and keep it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="data set in BEIR layout; without it the bundled documents")
    parser.add_argument("--chunks", type=int, nargs="*", default=[], help="sizes of larger indexes")
    parser.add_argument("--home", type=Path, nargs="*", default=[], help="other homes to ask")
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--results", type=Path, default=RESULTS, help="file the table is written to")
    arguments = parser.parse_args()
    corpus = read_corpus(arguments.data)
    questions = [asked.text for asked in corpus.questions[: arguments.runs]]
    rows = [row(measure(name, home, questions)) for name, home in homes(corpus, arguments.chunks, arguments.home)]
    lines = [
        "# Asking on the command line",
        "",
        f"{machine()}; `python benchmarks/ask.py`. Each run is a process of its own.",
        "",
        *table(["index", "runs", "seconds", "range", "peak RSS, MB", "torch and transformers loaded"], rows),
    ]
    print("\n".join(lines), end="")
    arguments.results.parent.mkdir(exist_ok=True)
    arguments.results.write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
