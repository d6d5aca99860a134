"""Measure where the time of a question goes, from the bytes that come in to those that go out.

    python benchmarks/stages.py --data FOLDER             a data set, and 1,000 and 100,000 chunks made of its texts;
                                                          writes benchmarks/results/stages.md
    python benchmarks/stages.py --chunks --seconds 5      the bundled documents alone

The real service answers one client (wrk; apt-get install wrk), once as it is and once with the functions of `STAGES`
timed. Time in one of them does not count for those that call it. Encoder and search alone are a loop of three calls.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from statistics import median
from types import ModuleType
from typing import Any

from corpora import Corpus, read_corpus
from figures import table
from large import large_home
from machine import machine, warning
from peers import answers, ask_whence, index_with_whence
from processes import HOST, WHENCE, free_port, running, wait_until, whence_environment
from wrk import Load, measure, write_requests

from index.generations import Home
from index.store import CANDIDATES
from service.models import load_query_encoder
from service.settings import read_settings

# Stage -> what is timed as a part of it, under the name by which it is defined: module:name.
STAGES = {
    "encoding the question": (
        "index.embeddings:OnnxEncoder.encode_queries",
        "index.embeddings:TorchEncoder.encode_queries",
        "index.instant:InstantEncoder.encode_queries",
    ),
    "dense candidates": (
        "index.vectors:ChunkVectors.query",
        "index.vectors:Compared.search",
        "index.vectors:Searched.search",
    ),
    "keyword candidates": (
        "index.lexical:LexicalIndex.query",
        "index.lexical:LexicalIndex.scores",
        "index.lexical:best_rows",
    ),
    "chunk similarities": ("index.vectors:ChunkVectors.similarities", "index.vectors:Compared.similarities"),
    "sentence similarities": (
        "index.vectors:SentenceVectors.similarities",
        "index.vectors:SentenceVectors.of_chunks",
    ),
    "wording": ("index.sequences:TermSequences.wording",),
    "the rest of retrieval": ("index.retrieval:retrieve",),
    "near-duplicates": ("index.duplicates:groups_of_duplicates",),
    "reading chunks": ("index.corpus:Corpus.chunks",),
    "best sentences": ("index.answers:best_sentences",),
    "citing": ("index.citing:cite",),
    "the rest of the answer": ("index.answers:answer_questions",),
    "JSON": ("service.schemas.answers:answer_json",),
}
BEGINS = "index.answers:answer_questions"  # called once for each question of a lone client
ENCODER_AND_SEARCH = ("encoding the question", "dense candidates", "keyword candidates")
THIS = (sys.executable, __file__)
OURS = ("index", "service")
RESULTS = Path(__file__).parent / "results" / "stages.md"
CHUNKS = (1_000, 100_000)
SECONDS = 15.0
START_S = 120.0
LIMIT_S = 600
SKIPPED = 20  # questions at the start, while everything warms up
ALONE = 500  # questions for encoder and search alone


class Stopwatch:
    """Adds up the time in functions for each question, without that in others of its functions."""

    def __init__(self) -> None:
        self.questions: list[dict[str, float]] = []
        self._running = threading.local()

    def timed(self, function: Callable[..., Any], stage: str, *, begins: bool) -> Callable[..., Any]:
        """Return a function that does the same and is timed; one that begins a question starts a new record."""

        @functools.wraps(function)
        def wrapper(*arguments: Any, **named: Any) -> Any:
            if begins:
                self.questions.append(defaultdict(float))
            stack = self._running.__dict__.setdefault("stack", [])
            stack.append(0.0)
            started = time.perf_counter()
            try:
                return function(*arguments, **named)
            finally:
                took = time.perf_counter() - started
                inner = stack.pop()
                if stack:
                    stack[-1] += took
                if self.questions:
                    self.questions[-1][stage] += took - inner

        return wrapper


def install(stopwatch: Stopwatch, stages: Mapping[str, Sequence[str]], begins: str) -> list[str]:
    """Time the functions of stages; returns the names that there are not."""
    missing = []
    for stage, names in stages.items():
        for name in names:
            try:
                _replace(name, functools.partial(stopwatch.timed, stage=stage, begins=name == begins))
            except (ModuleNotFoundError, AttributeError):
                missing.append(name)
    return missing


def find(name: str) -> tuple[Any, str]:
    """Return module or class and attribute of a name in `STAGES`.

    Raises:
        ModuleNotFoundError, AttributeError: there is no such thing.
    """
    module, _, path = name.partition(":")
    *owners, attribute = path.split(".")
    owner = functools.reduce(getattr, owners, import_module(module))
    getattr(owner, attribute)
    return owner, attribute


def _replace(name: str, change: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Replace a method, a class method, or a function wherever it has been imported."""
    owner, attribute = find(name)
    found = vars(owner).get(attribute) or getattr(owner, attribute)
    changed = classmethod(change(found.__func__)) if isinstance(found, classmethod) else change(found)
    owners = [owner, *_importers(found)] if isinstance(owner, ModuleType) else [owner]
    for each in owners:
        setattr(each, attribute, changed)


def _importers(function: Callable[..., Any]) -> Iterator[ModuleType]:
    """Yield our modules that have imported a function by its name."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in OURS and vars(module).get(function.__name__) is function:
            yield module


@dataclass(frozen=True)
class Figures:
    """What was measured of one index.

    Attributes:
        name: of the index.
        stages: stage -> median in ms.
        missing: names in `STAGES` that there are not.
        timed: what one client noticed while stages were timed.
        plain: what it noticed without.
        alone_ms: median of encoder and search alone.
    """

    name: str
    stages: Mapping[str, float]
    missing: Sequence[str]
    timed: Load
    plain: Load
    alone_ms: float


def medians(questions: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return the median of each stage in ms, over questions; where a stage has no part it took no time."""
    return {stage: 1000 * median(each.get(stage, 0.0) for each in questions) for stage in STAGES}


def measure_home(name: str, home: Path, corpus: Corpus, *, seconds: float, encoder: str) -> Figures:
    """Measure one index, asked with the full or the instant encoder."""
    environment = {**whence_environment(home, read_settings().cache), "WHENCE_ENCODER": encoder}
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "stages.json"
        alone_ms = _alone(corpus, environment)
        plain = _load(WHENCE, corpus, environment, Path(folder), seconds)
        timed = _load([*THIS, "--timed", str(written)], corpus, environment, Path(folder), seconds)
        found = json.loads(written.read_text())
    if BEGINS in found["missing"]:
        raise SystemExit(f"There is no {BEGINS}: name in BEGINS what is called once for each question.")
    return Figures(name, medians(found["questions"][SKIPPED:]), found["missing"], timed, plain, alone_ms)


def _alone(corpus: Corpus, environment: Mapping[str, str]) -> float:
    """Measure encoder and search alone, in a process of its own."""
    command = [*THIS, "--alone", str(_questions_file(corpus))]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LIMIT_S, check=True)
    return float(done.stdout)


def _questions_file(corpus: Corpus) -> Path:
    return corpus.kept / "questions.json"


def _load(
    program: Sequence[str], corpus: Corpus, environment: Mapping[str, str], folder: Path, seconds: float
) -> Load:
    """Serve, and let one client ask."""
    requests, port, log = [ask_whence(asked.text) for asked in corpus.questions], free_port(), folder / "log"
    write_requests(requests, folder)
    command = [*program, "serve", "--host", HOST, "--port", str(port)]
    with running(command, environment=environment, log=log) as process:
        wait_until(lambda: answers(port, requests[0]) is not None, process, limit_s=START_S, log=log)
        measure(port, folder, clients=1, seconds=2)
        return measure(port, folder, clients=1, seconds=seconds)


def serve_timed(written: Path, arguments: Sequence[str]) -> None:
    """Run the command with its stages timed, and write the times when it ends."""
    from service.cli import main as run_command

    stopwatch = Stopwatch()
    import_module("service.app")  # which imports all that answers, so that every name is replaced
    missing = install(stopwatch, STAGES, BEGINS)
    sys.argv = ["whence", *arguments]
    try:
        run_command()
    finally:
        written.write_text(json.dumps({"missing": missing, "questions": stopwatch.questions}))


def encoder_and_search_alone(questions: Sequence[str]) -> float:
    """Return the median of encoding a question and finding the candidates of both searches, in ms."""
    settings = read_settings()
    with closing(Home(settings.home).open_current()) as generation:
        encoder = load_query_encoder(settings, generation)
        times = []
        for question in [*questions[:SKIPPED], *questions]:
            started = time.perf_counter()
            embedding = encoder.encode_queries([question])[0]
            generation.vectors.search(embedding, top_k=CANDIDATES)
            generation.lexical.query(question).search(top_k=CANDIDATES)
            times.append(time.perf_counter() - started)
    return 1000 * median(times[SKIPPED:])


def rows(figures: Sequence[Figures]) -> Iterator[list[str]]:
    """Yield the rows of the table: stages, what is around them, and the whole."""
    for stage in STAGES:
        yield [stage, *(f"{each.stages[stage]:.3f}" for each in figures)]
    yield [
        "HTTP, waiting, handing over",
        *(f"{each.timed.p50_ms - sum(each.stages.values()):.3f}" for each in figures),
    ]
    yield ["p50 while stages are timed", *(f"{each.timed.p50_ms:.2f}" for each in figures)]
    yield ["**p50**", *(f"**{each.plain.p50_ms:.2f}**" for each in figures)]
    yield ["p95", *(f"{each.plain.p95_ms:.2f}" for each in figures)]
    within = [sum(each.stages[stage] for stage in ENCODER_AND_SEARCH) for each in figures]
    yield ["encoder + search within the answer", *(f"{each:.2f}" for each in within)]
    yield ["encoder + search alone", *(f"{each.alone_ms:.2f}" for each in figures)]
    yield ["p50 / encoder + search alone", *(f"**{each.plain.p50_ms / each.alone_ms:.2f}**" for each in figures)]
    yield [
        "p50 / that of the first index",
        *(f"{each.plain.p50_ms / figures[0].plain.p50_ms:.2f}" for each in figures),
    ]


def report(figures: Sequence[Figures], encoder: str, *, busy: float) -> list[str]:
    """Write the table, and how to read it."""
    missing = sorted({name for each in figures for name in each.missing})
    return [
        "# Where the time of a question goes",
        "",
        f"One client, {encoder} encoder, whole answers, medians in ms; `python benchmarks/stages.py`, {machine()}."
        f"{warning(busy)}",
        "",
        *table(["stage", *(each.name for each in figures)], rows(figures)),
        *([f"There is no {', '.join(missing)}: what these did is in other rows.", ""] if missing else []),
    ]


def homes(corpus: Corpus, sizes: Sequence[int]) -> Iterator[tuple[str, Path]]:
    """Yield indexes of different sizes, those made of the corpus's sentences first."""
    for size in sizes:
        yield f"{size:,} chunks, made up", large_home(corpus, size)
    index_with_whence(corpus, corpus.kept / "home")
    yield corpus.name, corpus.kept / "home"


def main() -> None:
    """Read the command line, measure, and keep the table."""
    if len(sys.argv) > 2 and sys.argv[1] == "--timed":
        serve_timed(Path(sys.argv[2]), sys.argv[3:])
        return
    if len(sys.argv) > 2 and sys.argv[1] == "--alone":
        print(encoder_and_search_alone(json.loads(Path(sys.argv[2]).read_text())[:ALONE]))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="data set in BEIR layout; without it the bundled documents")
    parser.add_argument("--passages", type=int, help="only so many of its passages")
    parser.add_argument("--chunks", type=int, nargs="*", default=list(CHUNKS), help="sizes of made-up indexes")
    parser.add_argument("--encoder", choices=("full", "instant"), default="full", help="of the questions")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for each load")
    parser.add_argument("--results", type=Path, default=RESULTS, help="file the table is written to")
    arguments = parser.parse_args()
    busy, _, _ = os.getloadavg()  # before the work of this script itself
    corpus = read_corpus(arguments.data, passages=arguments.passages)
    texts = [asked.text for asked in corpus.questions]
    _questions_file(corpus).write_text(json.dumps(texts), encoding="utf-8")
    figures = [
        measure_home(name, home, corpus, seconds=arguments.seconds, encoder=arguments.encoder)
        for name, home in homes(corpus, arguments.chunks)
    ]
    lines = report(figures, arguments.encoder, busy=busy)
    print("\n".join(lines), end="")
    arguments.results.parent.mkdir(exist_ok=True)
    arguments.results.write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
