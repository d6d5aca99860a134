"""Measure what a corpus costs as it grows: building, disk, opening, memory, answering, and adding one document.

    python benchmarks/scale.py --data FOLDER                    10,000 and 100,000 chunks
    python benchmarks/scale.py --data FOLDER --chunks 10000 100000 300000 1000000
                                                                all sizes; some hours, and 20 GB of disk
    python benchmarks/scale.py --chunks 2000 --seconds 2 --results FILE

The homes are made by homes.py of the passages of a data set in BEIR layout, or of the bundled documents: real text,
repeated with variation, and embeddings beside the model's own. Each is written by the library's own writers, opened,
served with the full and the instant encoder and loaded by wrk (apt-get install wrk), and then gets documents while
somebody asks all the time. Writes benchmarks/results/scale.md and scale.svg after each part, from the figures in
scale.json, where those of sizes that were measured before stay.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median

import numpy as np
from corpora import Corpus, read_corpus
from figures import table
from homes import IN_ALL, Pool, Single, VariedEncoder, documents, learn, write_home
from machine import machine
from peers import answers, ask_whence
from plot import Curves, curves
from processes import HOST, MEGABYTE, WHENCE, family, free_port, read_rollup, running, wait_until, whence_environment
from publish import SECTIONS, Stages, opening
from pydantic import TypeAdapter
from wrk import Load, Request, measure, write_requests, wrk_version

from index.build import BuildSettings, sync
from index.chunks import split
from index.embeddings import Encoder
from index.generations import Home
from index.manifest import Manifest
from index.models import DEFAULT_MODEL
from index.sketches import LISTS, DenseSearch
from service.models import load_model
from service.settings import read_settings

RESULTS = Path(__file__).parent / "results" / "scale.md"
SIZES = (10_000, 100_000)
PASSAGES = 10_000  # of the data set that homes are made of
ENCODERS = ("full", "instant")
CLIENTS = (1, 16)
SECONDS = 20.0
WARM_UP_S = 3.0
START_S = 600.0
OPENINGS = 3
ADDED = 3  # documents, one after another
SPLIT_DOCUMENTS = 20  # that are split anew to see what reading a corpus would take
KINDS = {
    "text": ("corpus.sqlite", "chunks/"),
    "chunk vectors": ("vectors.faiss",),
    "sketches": ("sketches.faiss",),
    "sentence vectors": ("sentences.npy", "sentence_lengths.npy", "sentence_starts.npy"),
    "keyword index": ("lexical/",),
    "sequences of terms": ("sequences/",),
}
INTRODUCTION = (
    "`python benchmarks/scale.py`; what is measured stands in it, and how the homes are made in `homes.py`. The text "
    "is real for the first 10,000 chunks and the",
    "model's embeddings with it; from there on sentences of the same texts in new company, each behind a made-up "
    "reference, with embeddings that are the model's and some noise.",
    "A service has one worker and keeps no answers. The files are in the system's cache.",
)
RECALL_NOTE = "Recall is what the build measured on 200 sentences of the corpus, and wrote into the manifest."
BUILD_NOTE = (
    "Splitting is not part of it: the documents come split, and a sample was split to estimate it. Encoding is a "
    "look into what was encoded before."
)
MEMORY_NOTE = "Own memory is what is no page of a file. Pages of files are the system's to take back."
LOAD_NOTE = "One client after another question, and 16 at once."
ADD_NOTE = (
    "A document of 20 chunks. By the library, in a process that serves nobody; over HTTP, by a service that answers "
    "a reader who asks again at each answer, on the same cores."
)


@dataclass(frozen=True)
class Resident:
    """Memory of a service's processes in MB, what is shared divided among those who share it.

    Attributes:
        pss: in all, files included that are mapped.
        own: without the pages of files.
        private: that no other process has mapped, pages of files included.
    """

    pss: float
    own: float
    private: float


@dataclass(frozen=True)
class Serving:
    """What a service did.

    Attributes:
        ready_s: from the start of its process to its first answer.
        at_ready, at_end: memory before and after the load.
        loads: number of clients, as text -> what it bore.
    """

    ready_s: float
    at_ready: Resident
    at_end: Resident
    loads: Mapping[str, Load]


@dataclass(frozen=True)
class Adding:
    """What it took to add one document over HTTP, while another client asked all the time.

    Attributes:
        took_s: from the request to the task's success, for each document.
        waits_ms: longest wait of the client that asked, at rest and while the documents were added.
        median_ms: its median wait, likewise.
        asked: how many questions it asked while they were added.
        failed: how many of them had no answer.
    """

    took_s: tuple[float, ...]
    waits_ms: tuple[float, float]
    median_ms: tuple[float, float]
    asked: int
    failed: int


@dataclass(frozen=True)
class Size:
    """What was measured of one size.

    Attributes:
        chunks, documents, sentences: counts.
        dense: how it is searched by embedding.
        split_ms: that it takes to split a document, for each chunk; the build gets documents that are split.
        build_s: seconds of each stage.
        disk: MB of each kind of file.
        open_s: with and without the check of all files.
        serving: encoder -> what a service with it did.
        conditions: machine, date, and its load in the quarter of an hour before the end.
        added_s: seconds of each stage of adding one document, by the library; empty as long as it is not measured.
        adding: the same over HTTP, while somebody asks; None as long as it is not measured.
    """

    chunks: int
    documents: int
    sentences: int
    dense: DenseSearch
    split_ms: float
    build_s: Mapping[str, float]
    disk: Mapping[str, float]
    open_s: tuple[float, float]
    serving: Mapping[str, Serving]
    conditions: str
    added_s: Mapping[str, float] = field(default_factory=dict)
    adding: Adding | None = None


def build(home: Home, pool: Pool, encoder: VariedEncoder, chunks: int) -> tuple[Manifest, dict[str, float]]:
    """Write a home, unless it is there from an earlier run; returns its manifest and the seconds of each stage."""
    kept = home.path / "build.json"
    manifest = home.known_manifest()
    if manifest is not None:
        return manifest, json.loads(kept.read_text())
    learn(encoder, pool)
    manifest, seconds = write_home(home, pool, encoder, chunks=chunks)
    kept.write_text(json.dumps(seconds))
    return manifest, seconds


def split_ms(pool: Pool, encoder: Encoder, chunks: int) -> float:
    """Return how many milliseconds it takes to split a document, for each chunk."""
    made = [document for document, _ in documents(pool, min(chunks, SPLIT_DOCUMENTS * SECTIONS))]
    started = time.perf_counter()
    found = sum(len(split(document, encoder.tokenizer)) for document in made)
    return 1_000 * (time.perf_counter() - started) / found


def disk(manifest: Manifest) -> dict[str, float]:
    """Return the MB of each kind of file."""
    found: dict[str, float] = defaultdict(float)
    for name, record in manifest.files.items():
        kind = next((kind for kind, starts in KINDS.items() if name.startswith(starts)), "the rest")
        found[kind] += record.size / MEGABYTE
    return dict(found)


def resident(pid: int) -> Resident:
    """Read the memory of a process and its children."""
    rollups = []
    for member in family(pid):
        with suppress(OSError):  # it has just ended
            rollups.append(read_rollup(Path(f"/proc/{member}/smaps_rollup").read_text()))
    return Resident(
        pss=sum(each["Pss"] for each in rollups),
        own=sum(each["Pss_Anon"] + each["Pss_Shmem"] for each in rollups),
        private=sum(each["Private_Clean"] + each["Private_Dirty"] for each in rollups),
    )


@contextmanager
def service(home: Home, encoder: str) -> Iterator[tuple[int, int, float]]:
    """Serve a home with one worker; gives port, process id, and the seconds to the first answer."""
    port = free_port()
    command = [*WHENCE, "serve", "--host", HOST, "--workers", "1", "--encoder", encoder, "--port", str(port)]
    environment, started = whence_environment(home.path, read_settings().cache), time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        log = Path(name) / "log"
        with running(command, environment=environment, log=log) as process:
            first = ask_whence("What is written here?")
            wait_until(lambda: answers(port, first) is not None, process, limit_s=START_S, log=log)
            yield port, process.pid, time.perf_counter() - started


def serve(home: Home, corpus: Corpus, encoder: str, *, seconds: float) -> Serving:
    """Load a service with the questions of a corpus."""
    with service(home, encoder) as (port, pid, ready_s), tempfile.TemporaryDirectory() as name:
        at_ready, folder = resident(pid), Path(name)
        write_requests([ask_whence(asked.text) for asked in corpus.questions], folder)
        measure(port, folder, clients=4, seconds=WARM_UP_S)
        loads = {str(clients): measure(port, folder, clients=clients, seconds=seconds) for clients in CLIENTS}
        return Serving(ready_s, at_ready, resident(pid), loads)


@dataclass
class Reader:
    """A client that asks over HTTP, each question when the last is answered."""

    port: int
    questions: Sequence[str]
    waits_s: list[float] = field(default_factory=list)
    failed: int = 0
    _stopping: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Let it ask during a block."""
        thread = threading.Thread(target=self._ask)
        thread.start()
        try:
            yield
        finally:
            self._stopping.set()
            thread.join()

    def _ask(self) -> None:
        while not self._stopping.is_set():
            request = ask_whence(self.questions[len(self.waits_s) % len(self.questions)])
            started = time.perf_counter()
            self.failed += answers(self.port, request) is None
            self.waits_s.append(time.perf_counter() - started)


def add_one(home: Home, pool: Pool, encoder: Encoder, number: int) -> dict[str, float]:
    """Add one document by the library, and return the seconds of each stage."""
    stages, source = Stages(), Single(pool.document(number, doc_id="0000001a.txt")[0])
    sync(home, [source], encoder, settings=BuildSettings(keep_generations=1), progress=stages)
    stages.start(IN_ALL, None)
    return {**stages.seconds, IN_ALL: sum(stages.seconds.values())}


def add(home: Home, corpus: Corpus, pool: Pool, number: int, *, seconds: float) -> Adding:
    """Add documents to a home that is served, and let a reader ask before and meanwhile."""
    questions = [asked.text for asked in corpus.questions]
    with service(home, "full") as (port, _, _):
        before, meanwhile = Reader(port, questions), Reader(port, questions)
        with before.asking():
            time.sleep(seconds)
        with meanwhile.asking():
            took_s = [_put(port, pool, number + place) for place in range(ADDED)]
    return Adding(
        took_s=tuple(took_s),
        waits_ms=(1_000 * max(before.waits_s), 1_000 * max(meanwhile.waits_s)),
        median_ms=(1_000 * median(before.waits_s), 1_000 * median(meanwhile.waits_s)),
        asked=len(meanwhile.waits_s),
        failed=before.failed + meanwhile.failed,
    )


def _put(port: int, pool: Pool, number: int) -> float:
    """Put a document of passages, and return after how many seconds its task has succeeded."""
    document, _ = pool.document(number, is_plain=True)  # of which the next writer, too, knows the embeddings
    body, started = json.dumps({"text": document.text, "title": "Added"}), time.perf_counter()
    task = _call(port, Request("PUT", f"/v1/documents/added/{number}.txt", body), http.client.ACCEPTED)
    while task["status"] in ("enqueued", "processing"):
        time.sleep(0.1)
        task = _call(port, Request("GET", f"/v1/tasks/{task['id']}"), http.client.OK)
    if task["status"] != "succeeded":
        raise RuntimeError(f"The document was not added: {task['error']}")
    return time.perf_counter() - started


def _call(port: int, request: Request, status: int) -> dict[str, str]:
    connection = http.client.HTTPConnection(HOST, port, timeout=START_S)
    try:
        connection.request(request.method, request.path, request.body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        content = response.read()
    finally:
        connection.close()
    if response.status != status:
        raise RuntimeError(f"{request.method} {request.path} was answered with {response.status}: {content!r}")
    found: dict[str, str] = json.loads(content)
    return found


def measured(home: Home, corpus: Corpus, encoder: VariedEncoder, chunks: int, *, seconds: float) -> Iterator[Size]:
    """Make a home of a size, and measure everything about it; yields what is known when a long part is done."""
    pool = Pool.of(corpus)
    manifest, build_s = build(home, pool, encoder, chunks)
    open_s = np.median([opening(home) for _ in range(OPENINGS)], axis=0)
    size = Size(
        chunks=manifest.chunks,
        documents=manifest.documents,
        sentences=manifest.sentences,
        dense=manifest.dense,
        split_ms=split_ms(pool, encoder, chunks),
        build_s=build_s,
        disk=disk(manifest),
        open_s=(float(open_s[0]), float(open_s[1])),
        serving={name: serve(home, corpus, name, seconds=seconds) for name in ENCODERS},
        conditions=conditions(),
    )
    yield size
    number = chunks * (1 + manifest.number)  # of a document that a home which was kept does not have yet
    size = replace(size, added_s=add_one(home, pool, encoder, number), conditions=conditions())
    yield size
    yield replace(size, adding=add(home, corpus, pool, number + 1, seconds=seconds), conditions=conditions())


def conditions() -> str:
    """Say on what machine this runs, and how busy it was in the last quarter of an hour."""
    return f"{machine()}, load {os.getloadavg()[2]:.1f}"


def report(sizes: Sequence[Size]) -> Iterator[str]:
    """Write everything that is known, a table for each subject and a column for each size."""
    yield "# Cost against size\n"
    yield from INTRODUCTION
    yield f"\n{wrk_version()} on the same cores. Measured on:\n"
    yield from (f"- {size.chunks:,} chunks: {size.conditions}" for size in sizes)
    for heading, note, rows in (
        ("Corpus and dense search", RECALL_NOTE, _corpus_rows),
        ("Building: seconds", BUILD_NOTE, _build_rows),
        ("Disk: MB", "", _disk_rows),
        ("Opening and memory", MEMORY_NOTE, _memory_rows),
        ("Answering", LOAD_NOTE, _load_rows),
        ("Adding one document", ADD_NOTE, _adding_rows),
    ):
        yield f"\n## {heading}\n"
        yield from table(["", *(f"{size.chunks:,}" for size in sizes)], _columns([rows(size) for size in sizes]))
        yield note


def _columns(sizes: Sequence[Mapping[str, str]]) -> Iterator[list[str]]:
    """Put what was measured of each size side by side, under names that any of them has."""
    for name in dict.fromkeys(name for size in sizes for name in size):
        yield [name, *(size.get(name, "") for size in sizes)]


def _corpus_rows(size: Size) -> dict[str, str]:
    dense = size.dense
    lists = f" in {dense.probes} of {LISTS} lists" if dense.probes else ""
    return {
        "documents": f"{size.documents:,}",
        "sentences": f"{size.sentences:,}",
        "dense search": f"{dense.oversampling} × as many sketches{lists}" if dense.oversampling else "exact",
        "recall@10 of exact search": f"{dense.recall:.4f}",
    }


def _build_rows(size: Size) -> dict[str, str]:
    split_s = {"splitting, estimated": _number(size.split_ms * size.chunks / 1_000)}
    return split_s | {name: _number(seconds) for name, seconds in size.build_s.items()}


def _disk_rows(size: Size) -> dict[str, str]:
    return {name: _number(size.disk[name]) for name in [*KINDS, "the rest"] if name in size.disk} | {
        "in all": _number(sum(size.disk.values())),
        "kB a chunk": _number(1_000 * sum(size.disk.values()) / size.chunks),
    }


def _memory_rows(size: Size) -> dict[str, str]:
    checked, unchecked = size.open_s
    rows = {"open, s": _number(checked), "open without the check of digests, s": _number(unchecked)}
    for name, serving in size.serving.items():
        rows |= {
            f"{name}: first answer after, s": _number(serving.ready_s),
            f"{name}: MB, own when ready": _number(serving.at_ready.own),
            f"{name}: MB, own after the load": _number(serving.at_end.own),
            f"{name}: MB, with pages of files": _number(serving.at_end.pss),
        }
    return rows


def _load_rows(size: Size) -> dict[str, str]:
    rows = {}
    for name, serving in size.serving.items():
        for clients, load in serving.loads.items():
            who = f"{name}, {clients} client{'s' if clients != '1' else ''}"
            rows[f"{who}: p50 ms"] = _number(load.p50_ms)
            rows[f"{who}: p95 ms"] = _number(load.p95_ms)
            rows[f"{who}: answers/s"] = _number(load.rate)
    return rows | {"failed": str(sum(load.failed for each in size.serving.values() for load in each.loads.values()))}


def _adding_rows(size: Size) -> dict[str, str]:
    rows = {f"library, {name}": _number(seconds) for name, seconds in size.added_s.items()}
    adding = size.adding
    if adding is None:
        return rows
    return rows | {
        "HTTP, from request to success, s": ", ".join(map(_number, adding.took_s)),
        "reader at rest: median and longest, ms": " / ".join(map(_number, (adding.median_ms[0], adding.waits_ms[0]))),
        "reader meanwhile: median and longest, ms": " / ".join(
            map(_number, (adding.median_ms[1], adding.waits_ms[1]))
        ),
        "asked meanwhile, failed": f"{adding.asked:,}, {adding.failed}",
    }


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def plotted(sizes: Sequence[Size]) -> str:
    """Draw what grows with the corpus."""
    waits = {
        f"{name}, {clients} client{'s' if clients != '1' else ''}": {
            size.chunks: size.serving[name].loads[clients].p95_ms for size in sizes
        }
        for name in ENCODERS
        for clients in map(str, CLIENTS)
    }
    seconds = {
        "build, embeddings at hand": {size.chunks: size.build_s[IN_ALL] for size in sizes},
        "add one document": {size.chunks: size.added_s[IN_ALL] for size in sizes if size.added_s},
        "open": {size.chunks: size.open_s[0] for size in sizes},
    }
    megabytes = {
        "disk": {size.chunks: sum(size.disk.values()) for size in sizes},
        "memory of a service, with pages of files": {size.chunks: size.serving["full"].at_end.pss for size in sizes},
        "memory of its own": {size.chunks: size.serving["full"].at_end.own for size in sizes},
    }
    seconds = {name: points for name, points in seconds.items() if points}
    panels = [Curves("p95 of an answer, ms", waits), Curves("seconds", seconds), Curves("MB", megabytes)]
    return curves("What a corpus costs as it grows", "chunks", panels)


def keep(size: Size, results: Path) -> None:
    """Add what was measured of a size to the figures that are kept, and write the report anew."""
    figures, kind = results.with_suffix(".json"), TypeAdapter(list[Size])
    known = kind.validate_json(figures.read_bytes()) if figures.exists() else []
    others = [each for each in known if each.chunks != size.chunks]
    sizes = sorted([*others, size], key=lambda each: each.chunks)
    figures.write_bytes(kind.dump_json(sizes, indent=1) + b"\n")
    results.write_text("\n".join(report(sizes)).rstrip() + "\n", encoding="utf-8")
    results.with_suffix(".svg").write_text(plotted(sizes), encoding="utf-8")


def main() -> None:
    """Read the command line, and measure one size after another."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="data set in BEIR layout; without it the bundled documents")
    parser.add_argument("--chunks", type=int, nargs="+", default=SIZES, help="sizes of indexes")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each load, and of the reader at rest")
    parser.add_argument(
        "--homes", type=Path, help="folder where homes are kept and taken from; else they are removed"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="file the tables are written to")
    arguments = parser.parse_args()
    corpus = read_corpus(arguments.data, passages=PASSAGES if arguments.data else None)
    encoder = VariedEncoder(load_model(read_settings(), DEFAULT_MODEL), corpus.kept / "embeddings.npz")
    arguments.results.parent.mkdir(exist_ok=True)
    for chunks in arguments.chunks:
        with tempfile.TemporaryDirectory(dir=corpus.kept) as removed:
            folder = Path(removed) if arguments.homes is None else arguments.homes
            home = Home(folder / f"varied-{chunks}")
            for size in measured(home, corpus, encoder, chunks, seconds=arguments.seconds):
                keep(size, arguments.results)
    print(arguments.results.read_text(encoding="utf-8"), end="")


if __name__ == "__main__":
    main()
