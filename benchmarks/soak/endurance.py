"""Let a service answer for an hour at four fifths of what it can bear, while a document is published every minute.

    PYTHONPATH=benchmarks python -m soak.endurance --write benchmarks/results/endurance.md
    PYTHONPATH=benchmarks python -m soak.endurance --minutes 10 --workers 2 --idle 2000

`whence serve` serves the bundled documents. What it can bear is measured first (wrk; apt-get install wrk), and then
so many clients ask, with a pause before each question, that four fifths of that are asked: the pause is set anew each
minute, by what an answer took in the last one. In each minute a document is put, and a question that only its new
text answers must find it. At the end connections are opened on which nothing is ever asked (--idle), and questions
must be answered beside them.

It fails when a request does, when the new text is not found, when memory grows by more than a tenth in an hour, as
the line through the second half of the minutes tells (and by more than a fiftieth in that half: in a short run a few
pages say nothing), or when the 99th percentile of the last quarter is more than three times that of the first.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import httpx
import numpy as np
from figures import print_figures, table
from machine import machine
from processes import HOST, ROOT, WHENCE, children, free_port, memory_of_all, running, wait_until, whence_environment
from wrk import Load, Request, measure, write_requests

from service.settings import read_settings

SEEDS = ROOT / "seeds"
CLIENTS = 16
SHARE = 0.8
CAPACITY_S = 10.0
START_S = 120.0
PUBLISH_S = 60.0
GROWTH = 0.1  # of the memory, in an hour
NOISE = 0.02  # of the memory, in the half of the time that is looked at
SLOWER = 3.0
IDLE = 10_000
IDLE_S = 5.0  # of questions beside idle connections; the service closes these after ten seconds
ATTEMPTS = 50


@dataclass(frozen=True)
class Minute:
    """A part of the time.

    Attributes:
        load: what was asked and answered.
        is_found: whether the document published in it was found by its new text.
        memory_mb: resident memory of what answers at its end, what several processes share counted once.
    """

    load: Load
    is_found: bool
    memory_mb: float


@dataclass(frozen=True)
class Idle:
    """Connections on which nothing was asked, and the questions asked beside them."""

    connections: int
    load: Load


@dataclass(frozen=True)
class Endured:
    """What a service went through.

    Attributes:
        capacity: answers a second that it can bear.
        minutes: one after another.
        seconds: of each of them.
        idle: None if no connections were left idle.
    """

    capacity: float
    minutes: Sequence[Minute]
    seconds: float
    idle: Idle | None

    @property
    def growth(self) -> float:
        """Growth of the memory in an hour as a share of it, by a line through the second half of the minutes."""
        return self._growth * 3600 / self.seconds

    @property
    def _growth(self) -> float:
        """Growth of the memory in one part of the time, as a share of it."""
        memory = [minute.memory_mb for minute in self._second_half]
        if len(memory) < 2:
            return 0.0
        slope, _ = np.polyfit(np.arange(len(memory)), memory, 1)
        return float(slope / median(memory))

    @property
    def _second_half(self) -> Sequence[Minute]:
        return self.minutes[len(self.minutes) // 2 :]

    @property
    def slower(self) -> float:
        """The 99th percentile of the last quarter of the minutes, as a multiple of that of the first."""
        quarter = max(1, len(self.minutes) // 4)
        first, last = self.minutes[:quarter], self.minutes[-quarter:]
        return median(each.load.p99_ms for each in last) / median(each.load.p99_ms for each in first)

    @property
    def failed(self) -> int:
        """Requests that were not answered."""
        loads = [minute.load for minute in self.minutes] + ([self.idle.load] if self.idle else [])
        return sum(load.failed for load in loads)

    @property
    def published(self) -> int:
        """Documents that were found when they had been published."""
        return sum(minute.is_found for minute in self.minutes)

    @property
    def is_sound(self) -> bool:
        """Whether nothing failed, nothing was missing, and neither memory nor time grew beyond the bounds."""
        return not self.failed and self.published == len(self.minutes) and self.is_steady

    @property
    def is_steady(self) -> bool:
        """Whether memory and time stayed within the bounds."""
        grows = self.growth > GROWTH and self._growth * len(self._second_half) > NOISE
        return not grows and self.slower <= SLOWER


class Endurance:
    """A service under test.

    Args:
        port: that it listens on.
        pids: of the processes that answer.
        client: of it.
        folder: for what wrk reads.
    """

    def __init__(self, port: int, pids: Sequence[int], client: httpx.Client, folder: Path) -> None:
        self._port = port
        self._pids = pids
        self._client = client
        self._folder = folder
        write_requests([_ask(question) for question in questions(SEEDS)], folder)

    def endure(self, *, minutes: int, seconds: float, idle: int, capacity_s: float) -> Endured:
        """Ask, publish and measure for so many parts of so many seconds."""
        capacity = self._load(capacity_s).rate
        parts: list[Minute] = []
        for number in range(minutes):
            answer_ms = parts[-1].load.p50_ms if parts else 0.0
            parts.append(self._minute(number, seconds, pause_ms(capacity, answer_ms)))
            print(_line(number, parts[-1]), file=sys.stderr, flush=True)
        return Endured(capacity, parts, seconds, self._idle(idle) if idle else None)

    def _minute(self, number: int, seconds: float, pause: int) -> Minute:
        self._put(number)
        load = self._load(seconds, pause_ms=pause)
        return Minute(load, self._finds(number), memory_of_all(self._pids).pss)

    def _load(self, seconds: float, *, pause_ms: int = 0) -> Load:
        return measure(self._port, self._folder, clients=CLIENTS, seconds=seconds, pause_ms=pause_ms)

    def _put(self, number: int) -> None:
        text = f"# The lamp\n\nIn week {number} the lamp of the lighthouse is cleaned by keeper number {number}."
        self._client.put("/v1/documents/lamp.md", json={"text": text}).raise_for_status()

    def _finds(self, number: int) -> bool:
        """Whether the service comes to answer from the text that was put last."""
        for _ in range(ATTEMPTS):
            answer = self._client.get("/v1/ask", params={"q": "Who cleans the lamp of the lighthouse?"}).json()
            if answer["passages"][0]["text"].endswith(f"keeper number {number}."):
                return True
            time.sleep(PUBLISH_S / ATTEMPTS)
        return False

    def _idle(self, count: int) -> Idle:
        with opened(self._port, count) as connections:
            return Idle(len(connections), self._load(IDLE_S))


def pause_ms(capacity: float, answer_ms: float) -> int:
    """Return how long each client waits before a question, so that all together ask their share of the capacity.

    Args:
        capacity: answers a second that the service can bear.
        answer_ms: what an answer takes, for which its client waits anyway.
    """
    return max(1, round(1000 * CLIENTS / (SHARE * capacity) - answer_ms))


@contextmanager
def opened(port: int, count: int) -> Iterator[list[socket.socket]]:
    """Open connections on which nothing is sent."""
    with ExitStack() as stack:
        yield [stack.enter_context(socket.create_connection((HOST, port), timeout=START_S)) for _ in range(count)]


@contextmanager
def service(folder: Path, cache: Path, *, workers: int) -> Iterator[Endurance]:
    """Serve a copy of the bundled documents.

    Args:
        folder: for all that is written.
        cache: where exported models are kept.
        workers: processes that answer.
    """
    port, log = free_port(), folder / "service.log"
    environment = whence_environment(folder / "home", cache)
    documents = shutil.copytree(SEEDS, folder / "documents")
    subprocess.run([*WHENCE, "index", str(documents)], cwd=ROOT, env=environment, check=True, capture_output=True)
    command = [*WHENCE, "serve", "--port", str(port), "--workers", str(workers)]
    address = f"http://{HOST}:{port}"
    with (
        running(command, environment=environment, log=log) as process,
        httpx.Client(base_url=address, timeout=PUBLISH_S) as client,
    ):
        wait_until(lambda: _is_ready(client), process, limit_s=START_S, log=log)
        pids = [process.pid] if workers == 1 else children(process.pid)
        yield Endurance(port, pids, client, folder)


def questions(folder: Path) -> list[str]:
    """Make questions of the headings of documents, and of sentences as people type them."""
    texts = [path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.md"))]
    headings = [heading for text in texts for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)]
    sentences = [sentence for text in texts for sentence in re.findall(r"[A-Z][^.!?\n#|]{40,160}(?=\.)", text)]
    return [*(f"What about {heading}?" for heading in headings), *sentences]


def report(endured: Endured, *, workers: int) -> list[str]:
    """Return the lines of the report."""
    loads = [minute.load for minute in endured.minutes]
    hours = len(loads) * endured.seconds / 3600
    rate = median(load.rate for load in loads)
    rows = [
        ("workers", str(workers)),
        ("minutes", f"{60 * hours:.0f}"),
        ("answers a second that it can bear", f"{endured.capacity:.0f}"),
        ("answers a second, asked with pauses", f"{rate:.0f}, {rate / endured.capacity:.0%} of that"),
        ("answers", f"{sum(load.rate for load in loads) * endured.seconds:,.0f}"),
        ("failed requests", str(endured.failed)),
        ("documents published, and found by their new text", f"{endured.published} of {len(loads)}"),
        ("p50 / p99, median of the minutes", f"{_median(loads, 'p50_ms'):.0f} / {_median(loads, 'p99_ms'):.0f} ms"),
        ("p99 of the last quarter over the first", f"{endured.slower:.2f}"),
        ("memory at the end", f"{endured.minutes[-1].memory_mb:.0f} MB"),
        ("growth of memory in an hour", f"{endured.growth:+.1%}"),
    ]
    if endured.idle:
        beside = f"{endured.idle.load.rate:.0f} answers a second, p99 {endured.idle.load.p99_ms:.0f} ms"
        rows.append((f"beside {endured.idle.connections:,} idle connections", beside))
    return [f"## {machine()}", "", *table(("", ""), rows), "Sound." if endured.is_sound else "NOT SOUND."]


def _median(loads: Sequence[Load], name: str) -> float:
    return median(getattr(load, name) for load in loads)


def _line(number: int, minute: Minute) -> str:
    load = minute.load
    return (
        f"{number + 1}: {load.rate:.0f}/s, p99 {load.p99_ms:.0f} ms, {load.failed} failed, "
        f"{minute.memory_mb:.0f} MB, {'found' if minute.is_found else 'NOT FOUND'}"
    )


def _ask(question: str) -> Request:
    return Request("POST", "/v1/ask", json.dumps({"question": question}))


def _is_ready(client: httpx.Client) -> bool:
    try:
        return client.get("/readyz").is_success
    except httpx.TransportError:
        return False


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=int, default=60)
    parser.add_argument("--seconds", type=float, default=60, help="of each of them (default: 60)")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--idle", type=int, default=IDLE, help=f"idle connections at the end (default: {IDLE:,})")
    parser.add_argument("--write", type=Path, help="Markdown file for the figures")
    args = parser.parse_args()
    cache = read_settings().cache
    with tempfile.TemporaryDirectory() as folder, service(Path(folder), cache, workers=args.workers) as under_test:
        endured = under_test.endure(minutes=args.minutes, seconds=args.seconds, idle=args.idle, capacity_s=CAPACITY_S)
    print_figures(report(endured, workers=args.workers), args.write)
    sys.exit(not endured.is_sound)


if __name__ == "__main__":
    main()
