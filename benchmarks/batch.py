"""Measure `whence batch`: questions a second beside the loop that one would write, and memory.

    python benchmarks/batch.py                        writes benchmarks/results/batch.md; about 12 minutes
    python benchmarks/batch.py --most 200000          memory at 200,000 questions, too: 25 minutes more
    python benchmarks/batch.py --chunks 2000 --rounds 1 --most 2000 --results FILE

The loop encodes one question after another with sentence-transformers and searches a FAISS index of the same
embeddings: it finds rows, and nothing more. The command does all of its work, and its start-up counts. Both get the
same questions in turn, in each round some that nobody asked before.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import faiss
import numpy as np
from machine import machine
from publish import SECTIONS, DigestEncoder, MadeUpSource

from index.build import BuildSettings, sync
from index.documents import Document
from index.embeddings import load_encoder
from index.generations import Home
from index.models import find_model, load_reference
from index.sources import Source

ROOT = Path(__file__).parents[1]
SEEDS = ROOT / "seeds"
RESULTS = Path(__file__).parent / "results" / "batch.md"
COMMAND = [sys.executable, "-c", "from service.cli import main; main()", "batch"]
TOP_K = 5
ROUNDS = 3
LOOPED = 200  # questions of a round for the loop, which are also among those of the command
WORDS = (5, 12)  # of a question
BATCHED = 64  # questions that the faster loop encodes and searches together
SAMPLE_S = 0.2
MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Bench:
    """An index to ask, and words to ask with.

    Attributes:
        name: of the corpus.
        home: of its index.
        cache: of exported models.
        texts: of documents, from which questions are made.
    """

    name: str
    home: Home
    cache: Path
    texts: Sequence[str]

    def questions(self, count: int, *, seed: int) -> list[str]:
        """Make distinct questions, each of some words that stand together in a document."""
        chosen, words = random.Random(seed), [text.split() for text in self.texts]
        made: dict[str, None] = {}
        while len(made) < count:
            document, length = chosen.choice(words), chosen.randint(*WORDS)
            first = chosen.randrange(max(1, len(document) - length))
            made[f"What is said of {' '.join(document[first : first + length])} ({len(made) % 97})?"] = None
        return list(made)

    def run(self, questions: Sequence[str], folder: Path) -> Run:
        """Answer questions by the command."""
        asked, answers = folder / "questions.jsonl", folder / "answers.jsonl"
        asked.write_text("".join(json.dumps({"question": text}) + "\n" for text in questions), encoding="utf-8")
        environment = {**os.environ, "WHENCE_HOME": str(self.home.path), "WHENCE_CACHE": str(self.cache)}
        started = time.perf_counter()
        command = [*COMMAND, str(asked), str(answers), "--restart", "--top-k", str(TOP_K)]
        with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL) as process:
            peaks: dict[int, float] = {}
            while process.poll() is None:
                peaks |= {pid: peak for pid in family(process.pid) if (peak := peak_of(pid)) > peaks.get(pid, 0)}
                time.sleep(SAMPLE_S)
        assert process.returncode == 0
        own = peaks.pop(process.pid)
        return Run(len(questions) / (time.perf_counter() - started), own, max(peaks.values()), answers.stat().st_size)


@dataclass(frozen=True)
class Run:
    """What a run of the command took.

    Attributes:
        rate: questions a second, from start to end of the command.
        own, worker: peak of resident memory in MB, of the command itself and of the largest process that answers.
        size: of the answers, in bytes.
    """

    rate: float
    own: float
    worker: float
    size: int


def family(pid: int) -> list[int]:
    """Return a process and its children."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []
    return [pid, *map(int, children)]


def peak_of(pid: int) -> float:
    """Return the peak of a process's resident memory in MB, 0 when it has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) / MEGABYTE for line in lines if line.startswith("VmHWM")), 0)


class Loop:
    """The loop that one would write: sentence-transformers and an exact FAISS index in single precision."""

    def __init__(self, bench: Bench) -> None:
        self._model = load_reference(find_model())
        with closing(bench.home.open_current()) as generation:
            embeddings = generation.vectors.halves.astype(np.float32)
        self._index = faiss.IndexFlatIP(embeddings.shape[1])
        self._index.add(embeddings)
        self.rate(bench.questions(8, seed=0))  # the first ones are slower

    def rate(self, questions: Sequence[str]) -> float:
        """Return questions a second, one after another."""
        started = time.perf_counter()
        for question in questions:
            embedding = self._model.encode([question], normalize_embeddings=True, show_progress_bar=False)
            self._index.search(embedding, TOP_K)
        return len(questions) / (time.perf_counter() - started)

    def batched_rate(self, questions: Sequence[str]) -> float:
        """Return questions a second, many at a time."""
        started = time.perf_counter()
        for first in range(0, len(questions), BATCHED):
            batch = list(questions[first : first + BATCHED])
            embeddings = self._model.encode(
                batch, batch_size=BATCHED, normalize_embeddings=True, show_progress_bar=False
            )
            self._index.search(embeddings, TOP_K)
        return len(questions) / (time.perf_counter() - started)


def seeds_bench(folder: Path) -> Bench:
    """Index the bundled documents."""
    home = Home(folder / "seeds")
    encoder = load_encoder(find_model().name, cache_folder=folder / "cache" / "models")
    sync(home, [Source(SEEDS, is_bundled=True)], encoder)
    texts = [path.read_text(encoding="utf-8") for path in sorted(SEEDS.glob("*.md"))]
    return Bench("seeds", home, folder / "cache", texts)


def made_up_bench(folder: Path, chunks: int) -> Bench:
    """Index made-up text with made-up embeddings, which say that they are those of the default model."""
    encoder = DigestEncoder()
    encoder.identity = load_encoder(find_model().name, cache_folder=folder / "cache" / "models").identity
    home, source = Home(folder / "made-up"), MadeUpSource(range(chunks // SECTIONS))
    sync(home, [source], encoder, settings=BuildSettings(allow_empty=True))
    some = replace(source, numbers=range(20)).read({})
    texts = [document.content.text for document in some if isinstance(document, Document)]
    return Bench(f"{chunks:,} chunks, made up", home, folder / "cache", texts)


def speed(bench: Bench, folder: Path, *, rounds: int, asked: int) -> Iterator[str]:
    """Yield a row of the table for a corpus: medians over rounds, ratios of the same round."""
    loop = Loop(bench)
    loops, batched, runs = [], [], []
    for seed in range(1, rounds + 1):
        questions = bench.questions(asked, seed=seed)
        loops.append(loop.rate(questions[:LOOPED]))
        batched.append(loop.batched_rate(questions[: 5 * LOOPED]))
        runs.append(bench.run(questions, folder).rate)
    ratios = [run / rate for run, rate in zip(runs, loops, strict=True)]
    over_batched = [run / rate for run, rate in zip(runs, batched, strict=True)]
    yield (
        f"| {bench.name} | {median(runs):.0f} | {median(loops):.0f} | **{median(ratios):.1f}** "
        f"({min(ratios):.1f}–{max(ratios):.1f}) | {median(batched):.0f} | {median(over_batched):.1f} |"
    )


def memory(bench: Bench, folder: Path, counts: Sequence[int]) -> Iterator[str]:
    """Yield the rows of the table of memory."""
    for count in counts:
        run = bench.run(bench.questions(count, seed=9), folder)
        yield f"| {count:,} | {run.own:.0f} | {run.worker:.0f} | {run.size / MEGABYTE:,.0f} | {run.rate:.0f} |"


def report(arguments: argparse.Namespace) -> Iterator[str]:
    """Measure, and yield the lines of the report."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        seeds = seeds_bench(folder)
        yield (
            f"`python benchmarks/batch.py --chunks {arguments.chunks} --asked {arguments.asked} "
            f"--most {arguments.most}`, {machine()}. Questions of some 14 words, none twice; top {TOP_K}."
        )
        yield f"Medians of {arguments.rounds} rounds; ratios are of the same round, and in brackets the range.\n"
        yield "| questions a second | `whence batch` | loop | ratio | loop in batches | ratio |"
        yield "|---|---|---|---|---|---|"
        for bench in (seeds, made_up_bench(folder, arguments.chunks)):
            yield from speed(bench, folder, rounds=arguments.rounds, asked=arguments.asked)
        yield "\nOver the seeds, peak of resident memory in MB:\n"
        yield "| questions | command | largest process that answers | answers, MB | questions a second |"
        yield "|---|---|---|---|---|"
        yield from memory(seeds, folder, sorted({min(10_000, arguments.most), arguments.most}))


def main() -> None:
    """Read the command line, print the report, and keep it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, default=100_000, help="chunks in the large index")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="for the speed")
    parser.add_argument("--asked", type=int, default=3_000, help="questions of a round for the command")
    parser.add_argument("--most", type=int, default=50_000, help="questions for the memory")
    parser.add_argument("--results", type=Path, default=RESULTS, help="file the tables are written to")
    arguments = parser.parse_args()
    lines = []
    for line in report(arguments):
        print(line, flush=True)
        lines.append(line)
    arguments.results.parent.mkdir(exist_ok=True)
    arguments.results.write_text("# Answering a batch\n\n" + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
