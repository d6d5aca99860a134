"""Measure how long indexing takes beside txtai, on the same passages.

    python benchmarks/indexing.py --data FOLDER     a data set in BEIR layout; writes results/indexing.md
    python benchmarks/indexing.py --data FOLDER --passages 200 --rounds 1 --results FILE

Whence embeds chunks and each of their sentences, and writes what citations need; txtai embeds the passages, and
writes them with its keyword index. Each run is a process of its own into an empty folder, the two in turns. Where the
machine is busy with other work, the time that the processors worked on it says more than the time that it took.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from subprocess import CompletedProcess

from corpora import Corpus, read_corpus
from figures import table
from machine import machine
from peers import index_with_txtai, index_with_whence, make_peers, peer_versions

from service.settings import read_settings

RESULTS = Path(__file__).parent / "results" / "indexing.md"
ROUNDS = 3
OURS, THEIRS = "Whence", "txtai hybrid"
Index = Callable[[Path], CompletedProcess[str]]


@dataclass(frozen=True)
class Run:
    """Seconds that one run took.

    Attributes:
        indexing_s: from the loaded model to the index on disk.
        processor_s: that the processors worked in this time, added up.
        process_s: from start to end of the process.
        sentences: that were embedded beside the chunks.
    """

    indexing_s: float
    processor_s: float
    process_s: float
    sentences: int


def run(index: Index) -> Run:
    """Index into an empty folder, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        printed = index(Path(folder) / "made").stdout
        process_s = time.perf_counter() - started
    figures = json.loads(printed.splitlines()[-1])
    return Run(figures["indexing_s"], figures["processor_s"], process_s, figures.get("sentences", 0))


def rounds(ways: Mapping[str, Index], count: int) -> dict[str, list[Run]]:
    """Index in each way in turns, in the reverse order every other round."""
    runs: dict[str, list[Run]] = {name: [] for name in ways}
    for number in range(count):
        for name in list(ways)[:: 1 if number % 2 == 0 else -1]:
            runs[name].append(run(ways[name]))
            print(f"round {number + 1}, {name}: {runs[name][-1].indexing_s:.1f} s", flush=True)
    return runs


def rows(runs: Mapping[str, Sequence[Run]], passages: int) -> list[list[str]]:
    """Write the medians of each way, and of the ratios within rounds."""
    written = [
        [
            name,
            f"{max(each.sentences for each in of_way):,}",
            f"{median(each.indexing_s for each in of_way):.1f}",
            f"{passages / median(each.indexing_s for each in of_way):,.0f}",
            f"{median(each.processor_s for each in of_way):.1f}",
            f"{median(each.process_s for each in of_way):.1f}",
        ]
        for name, of_way in runs.items()
    ]
    pairs = list(zip(runs[THEIRS], runs[OURS], strict=True))
    indexing = median(theirs.indexing_s / ours.indexing_s for theirs, ours in pairs)
    processor = median(theirs.processor_s / ours.processor_s for theirs, ours in pairs)
    process = median(theirs.process_s / ours.process_s for theirs, ours in pairs)
    return [*written, [f"{THEIRS} / {OURS}", "", f"**{indexing:.2f}**", "", f"{processor:.2f}", f"{process:.2f}"]]


def report(corpus: Corpus, peers: Path, runs: Mapping[str, Sequence[Run]], load: float) -> list[str]:
    """Write the table, and on what it was measured; `load` is the machine's before the first run."""
    return [
        "# Indexing",
        "",
        f"{corpus.name}; `python benchmarks/indexing.py`, {machine()}, txtai {peer_versions(peers)['txtai']}.",
        f"Medians of {len(runs[OURS])} rounds; the ratios are of the same round.",
        f"Load of the machine before the first: {load:.1f}.",
        "",
        *table(
            ["", "sentences", "indexing s", "passages/s", "processor s", "process s"],
            rows(runs, len(corpus.passages)),
        ),
    ]


def main() -> None:
    """Read the command line, measure, and keep the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="data set in BEIR layout; without it the bundled documents")
    parser.add_argument("--passages", type=int, help="only so many of its passages")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument(
        "--peers-folder", type=Path, help="virtual environment for txtai, made when missing; in the cache by default"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="file the table is written to")
    arguments = parser.parse_args()
    peers = (arguments.peers_folder or read_settings().cache / "benchmarks" / "txtai").absolute()
    make_peers(peers)
    corpus = read_corpus(arguments.data, passages=arguments.passages)
    with tempfile.TemporaryDirectory() as scratch:
        index_with_whence(read_corpus(None), Path(scratch) / "home")  # which exports the model, once
    ways: dict[str, Index] = {
        OURS: lambda folder: index_with_whence(corpus, folder),
        THEIRS: lambda folder: index_with_txtai(corpus, peers, folder, hybrid=True),
    }
    load, _, _ = os.getloadavg()
    lines = report(corpus, peers, rounds(ways, arguments.rounds), load)
    print("\n".join(lines), end="")
    arguments.results.parent.mkdir(exist_ok=True)
    arguments.results.write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
