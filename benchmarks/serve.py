"""Measure how many questions a second are answered over HTTP, how fast, and with how much memory, beside peers.

    python benchmarks/serve.py --data FOLDER           a data set in BEIR layout; about an hour
    python benchmarks/serve.py                         the bundled documents
    python benchmarks/serve.py --services full-1 txtai-hybrid --rounds 1 --seconds 5 --results FILE

Whence with its full and its instant encoder and one and two workers, txtai's own API (dense and hybrid, in an
environment of its own), the service that one would write with sentence-transformers, FAISS and FastAPI, and an
endpoint that does nothing. They run one after another, in the reverse order every other round, answer the same
questions about the same documents, and are loaded by wrk (apt-get install wrk). Writes benchmarks/results/serve.md
and serve.svg after each round. What readers notice of an index that is rebuilt while it is served is measured by
serving.py.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median

from corpora import Corpus, read_corpus
from figures import table
from machine import machine, warning
from peers import (
    CHECKED,
    TOP_K,
    Service,
    answers,
    make_peers,
    peer_versions,
    prepare,
    services,
    share_found,
)
from plot import Panel, svg
from processes import Memory, free_port, memory_of, running, wait_until
from wrk import Load, Request, measure, write_requests, wrk_version

from service.settings import read_settings

RESULTS = Path(__file__).parent / "results" / "serve.md"
KEYS = ("full-1", "full-2", "instant-1", "instant-2", "txtai-dense", "txtai-hybrid", "plain", "empty")
BASE = "txtai-hybrid"  # what the others are compared with
CLIENTS = (1, 4, 16, 64)
ROUNDS = 5
SECONDS = 15.0
WARM_UP_S = 2.0
START_S = 60.0
VERSIONS = ("whence", "onnxruntime", "faiss-cpu", "sentence-transformers", "torch", "fastapi", "uvicorn")


@dataclass(frozen=True)
class Trial:
    """What a service did in one round.

    Attributes:
        ready_s: from the start of its process to its first answer.
        found: share of questions whose right document it found; None where it finds none by design.
        at_ready, at_end: memory before and after the load.
        loads: clients -> what it bore.
    """

    ready_s: float
    found: float | None
    at_ready: Memory
    at_end: Memory
    loads: Mapping[int, Load]


Trials = Mapping[str, Sequence[Trial]]
"""Key of a service -> its rounds, in their order."""


def try_out(service: Service, corpus: Corpus, *, clients: Sequence[int], seconds: float, number: int) -> Trial:
    """Start a service, see that it answers rightly, load it, and end it."""
    asked = corpus.questions
    requests = [service.request(each.text) for each in asked]
    with tempfile.TemporaryDirectory() as name:
        folder, port = Path(name), free_port()
        write_requests(requests, folder)
        log, started = folder / "log", time.perf_counter()
        with running(service.started_on(port), environment=service.environment, log=log) as process:
            wait_until(_answers_first(port, requests[0]), process, limit_s=START_S, log=log)
            ready_s, at_ready = time.perf_counter() - started, memory_of(process.pid)
            found = share_found(service, port, asked)
            measure(port, folder, clients=4, seconds=WARM_UP_S)
            first = number * len(asked) // ROUNDS
            loads = {count: measure(port, folder, clients=count, seconds=seconds, first=first) for count in clients}
            return Trial(ready_s, found, at_ready, memory_of(process.pid), loads)


def _answers_first(port: int, request: Request) -> Callable[[], bool]:
    return lambda: answers(port, request) is not None


def rounds(
    measured: Sequence[Service], corpus: Corpus, *, clients: Sequence[int], seconds: float, count: int
) -> Iterator[Trials]:
    """Try all services in each round, in the reverse order every other one; yields all trials after each round."""
    trials: dict[str, list[Trial]] = defaultdict(list)
    _print_row("round", "service", "ready s", "clients", "requests/s", "p50 ms", "p95 ms", "p99 ms", "failed")
    _print_row(*["---"] * 9)
    for number in range(count):
        for service in measured[:: 1 if number % 2 == 0 else -1]:
            trial = try_out(service, corpus, clients=clients, seconds=seconds, number=number)
            trials[service.key].append(trial)
            for load_clients, load in trial.loads.items():
                cells = (f"{load.rate:,.0f}", *_milliseconds(load), str(load.failed))
                _print_row(str(number + 1), service.name, f"{trial.ready_s:.1f}", str(load_clients), *cells)
        yield trials


def _print_row(*cells: str) -> None:
    print(f"| {' | '.join(cells)} |", flush=True)


def _milliseconds(load: Load) -> list[str]:
    return [f"{value:.1f}" if value >= 10 else f"{value:.2f}" for value in (load.p50_ms, load.p95_ms, load.p99_ms)]


def middle(loads: Sequence[Load]) -> Load:
    """Return the medians of rounds, and the failures of all."""
    return Load(
        rate=median(load.rate for load in loads),
        p50_ms=median(load.p50_ms for load in loads),
        p95_ms=median(load.p95_ms for load in loads),
        p99_ms=median(load.p99_ms for load in loads),
        failed=sum(load.failed for load in loads),
    )


def loads_of(trials: Sequence[Trial], clients: int) -> list[Load]:
    """Return what a service bore in each round."""
    return [trial.loads[clients] for trial in trials]


def ratios(of: Sequence[float], to: Sequence[float]) -> str:
    """Write the median of the ratios within rounds, and their range."""
    found = [one / other for one, other in zip(of, to, strict=True)]
    middle_one, least, most = (
        f"{each:.0f}" if each >= 10 else f"{each:.1f}" for each in (median(found), min(found), max(found))
    )
    return f"{middle_one} ({least}–{most})"


def load_rows(names: Mapping[str, str], trials: Trials) -> Iterator[list[str]]:
    """Yield a row for each service and number of clients, with its ratios to txtai hybrid in the same round."""
    for key, of_service in trials.items():
        for clients in of_service[0].loads:
            loads, base = loads_of(of_service, clients), loads_of(trials.get(BASE, ()), clients)
            load = middle(loads)
            faster = ratios([each.rate for each in loads], [each.rate for each in base]) if base else ""
            sooner = ratios([each.p50_ms for each in base], [each.p50_ms for each in loads]) if base else ""
            yield [
                names[key],
                str(clients),
                f"{load.rate:,.0f}",
                faster,
                *_milliseconds(load),
                sooner,
                str(load.failed),
            ]


def memory_rows(names: Mapping[str, str], trials: Trials) -> Iterator[list[str]]:
    """Yield a row for each service: time to ready, and memory."""
    for key, of_service in trials.items():
        shares = [trial.found for trial in of_service if trial.found is not None]
        at_end = [trial.at_end for trial in of_service]
        yield [
            names[key],
            f"{median(trial.ready_s for trial in of_service):.2f}",
            str(max(memory.processes for memory in at_end)),
            f"{median(trial.at_ready.rss for trial in of_service):,.0f}",
            *(
                f"{median(getattr(memory, part) for memory in at_end):,.0f}"
                for part in ("rss", "largest", "pss", "shared")
            ),
            f"{median(shares):.0%}" if shares else "",
        ]


def report(names: Mapping[str, str], trials: Trials, corpus: Corpus, conditions: Sequence[str]) -> list[str]:
    """Write all tables."""
    done = {len(of_service) for of_service in trials.values()}
    return [
        "# Serving beside peers",
        "",
        *conditions,
        "",
        f"Medians of {min(done)} rounds; ratios are to {names.get(BASE, BASE)} in the same round, and in brackets "
        "their range.",
        "",
        *table(
            [
                "service",
                "clients",
                "requests/s",
                "times",
                "p50 ms",
                "p95 ms",
                "p99 ms",
                "p50 shorter, times",
                "failed",
            ],
            load_rows(names, trials),
        ),
        f"Ready is the first answer after the start of the process. Memory in MB, of all of a service's processes: "
        "resident when ready, and after the load resident, of the largest process, proportional (what is shared "
        f"divided among those who share it), and shared. Found: questions of {min(CHECKED, len(corpus.questions))} "
        f"whose right document is among the first {TOP_K}.",
        "",
        *table(
            ["service", "ready s", "processes", "RSS ready", "RSS", "largest", "PSS", "shared", "found"],
            memory_rows(names, trials),
        ),
    ]


def plot_of(names: Mapping[str, str], trials: Trials) -> str:
    """Draw requests a second and medians of latency."""
    middles = {
        names[key]: {clients: middle(loads_of(of_service, clients)) for clients in of_service[0].loads}
        for key, of_service in trials.items()
    }
    rates = {name: {count: load.rate for count, load in loads.items()} for name, loads in middles.items()}
    latencies = {name: {count: load.p50_ms for count, load in loads.items()} for name, loads in middles.items()}
    return svg(
        "Whole answers over HTTP",
        [Panel("answers a second", rates), Panel("median time to an answer, ms", latencies)],
    )


def conditions_of(corpus: Corpus, peers: Path, *, seconds: float, busy: float) -> list[str]:
    """Say on what and with what is measured."""
    own = ", ".join(f"{name} {version(name)}" for name in VERSIONS)
    theirs = ", ".join(f"{name} {number}" for name, number in peer_versions(peers).items())
    return [
        f"{machine()}, {wrk_version()} on the same cores, {seconds:g} s for each number of clients.{warning(busy)}",
        "",
        f"{corpus.name}, {len(corpus.questions):,} questions, first {TOP_K} passages; `python benchmarks/serve.py`.",
        f"Ours: {own}. txtai's environment: {theirs}, with uvloop and httptools, too.",
    ]


def main() -> None:
    """Read the command line, measure, and keep the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="data set in BEIR layout; without it the bundled documents")
    parser.add_argument("--passages", type=int, help="only so many of its passages")
    parser.add_argument("--services", nargs="+", choices=KEYS, default=list(KEYS), help="what is measured")
    parser.add_argument("--clients", nargs="+", type=int, default=list(CLIENTS), help="connections")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for each number of clients")
    parser.add_argument(
        "--peers-folder", type=Path, help="virtual environment for txtai, made when missing; in the cache by default"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="file for the tables; the plot goes beside it")
    arguments = parser.parse_args()
    busy, _, _ = os.getloadavg()  # before the work of this script itself
    peers = (arguments.peers_folder or read_settings().cache / "benchmarks" / "txtai").absolute()
    make_peers(peers)
    corpus = read_corpus(arguments.data, passages=arguments.passages)
    prepare(corpus, peers, arguments.services)
    conditions = conditions_of(corpus, peers, seconds=arguments.seconds, busy=busy)
    known = services(corpus, peers)
    measured = [service for service in known if service.key in arguments.services]
    names = {service.key: service.name for service in measured}
    trials = rounds(measured, corpus, clients=arguments.clients, seconds=arguments.seconds, count=arguments.rounds)
    for so_far in trials:
        ordered = {key: so_far[key] for key in names}
        lines = report(names, ordered, corpus, conditions)
        arguments.results.parent.mkdir(exist_ok=True)
        arguments.results.write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")
        arguments.results.with_suffix(".svg").write_text(plot_of(names, ordered), encoding="utf-8")
    print("\n" + "\n".join(lines))


if __name__ == "__main__":
    main()
