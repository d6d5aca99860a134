"""Measure what those who ask notice of an index that is rebuilt: latency at rest and during builds.

    python benchmarks/serving.py                      20,000 chunks, 3 rebuilds; writes benchmarks/results/serving.md
    python benchmarks/serving.py --chunks 2000 --results FILE

`whence serve --watch` serves a folder of documents put together from sentences of the bundled ones, so that the text
is real and the embeddings are the model's own. Clients ask all the time; each rebuild follows a change to every
document. How much load the service bears, beside peers, is measured by serve.py.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine

ROOT = Path(__file__).parents[1]
SEEDS = ROOT / "seeds"
RESULTS = Path(__file__).parent / "results" / "serving.md"
SECTIONS = 20  # of a document; each becomes a chunk
CLIENTS = 8
PAUSE_S = 0.25  # between the answer and the next question of a client
REBUILDS = 3
REST_S = 20.0
LIMIT_S = 3_600.0
QUIET_S = 3.0  # without a task after which a rebuild counts as done
UNFINISHED = ("enqueued", "processing")
COMMAND = [sys.executable, "-c", "from service.cli import main; main()"]


@dataclass
class Clients:
    """Clients that ask over HTTP, each when its last question is answered and a pause has passed.

    Attributes:
        latencies_s: for each phase, of the questions asked in it.
        failures: statuses other than 200, and errors.
        phase: the present one.
    """

    port: int
    questions: list[str]
    phase: str = "at rest"
    latencies_s: dict[str, list[float]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    generations: set[str] = field(default_factory=set)
    _stopping: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Let the clients ask during a block."""
        threads = [threading.Thread(target=self._ask, args=(number,)) for number in range(CLIENTS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stopping.set()
            for thread in threads:
                thread.join()

    def _ask(self, number: int) -> None:
        chosen, connection = random.Random(number), http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        while not self._stopping.wait(PAUSE_S):
            body = json.dumps({"question": chosen.choice(self.questions)})
            phase, started = self.phase, time.perf_counter()
            try:
                connection.request("POST", "/v1/ask", body, {"Content-Type": "application/json"})
                response = connection.getresponse()
                answer = json.loads(response.read())
            except (OSError, http.client.HTTPException) as exc:
                self.failures.append(repr(exc))
                connection.close()
                continue
            self.latencies_s.setdefault(phase, []).append(time.perf_counter() - started)
            if response.status == http.client.OK:
                self.generations.add(answer["generation"])
            else:
                self.failures.append(f"{response.status} {answer}")


def sentences() -> list[str]:
    """Return the sentences of the bundled documents, roughly: lines of prose cut at full stops."""
    prose = [
        line
        for path in sorted(SEEDS.glob("*.md"))
        for line in path.read_text(encoding="utf-8").splitlines()
        if line[:1].isalpha() and len(line) > 80
    ]
    return [sentence for line in prose for sentence in re.split(r"(?<=[.!?]) ", line) if len(sentence) > 40]


def write_documents(folder: Path, count: int) -> None:
    """Write documents of sections of two sentences each."""
    chosen, pool = random.Random(1), sentences()
    for number in range(count):
        sections = [
            f"## Part {place} of {number}\n\n{chosen.choice(pool)} {chosen.choice(pool)}\n"
            for place in range(SECTIONS)
        ]
        (folder / f"{number:05d}.md").write_text("\n".join([f"# Report {number}\n", *sections]), encoding="utf-8")


def change_documents(folder: Path, rebuild: int) -> None:
    """Change the first section of every document."""
    for path in sorted(folder.glob("*.md")):
        text = path.read_text(encoding="utf-8")
        path.write_text(
            text.replace("\n\n## Part 0", f"\n\nRevision {rebuild} of it.\n\n## Part 0", 1), encoding="utf-8"
        )


def environment(folder: Path) -> dict[str, str]:
    """Return the settings of the service."""
    return {**os.environ, "WHENCE_HOME": str(folder / "home"), "WHENCE_CACHE": str(folder / "cache")}


@contextmanager
def service(folder: Path) -> Iterator[int]:
    """Run the service; gives its port."""
    command = [*COMMAND, "serve", "--watch", "--port", "0"]
    process = subprocess.Popen(
        command, cwd=ROOT, env={**environment(folder), "WHENCE_LOG_FORMAT": "json"}, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    lines = iter(process.stderr.readline, "")
    try:
        port = next(int(found[1]) for line in lines if (found := re.search(r"http://127\.0\.0\.1:(\d+)/", line)))
        threading.Thread(target=lambda: [None for _ in lines], daemon=True).start()  # or the pipe would fill
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)


def get(port: int, path: str) -> tuple[int, dict[str, Any]]:
    """Return status and JSON of an address."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", path)
    response = connection.getresponse()
    return response.status, json.loads(response.read())


def newest(port: int) -> dict[str, Any]:
    """Return the newest generation."""
    generation: dict[str, Any] = get(port, "/v1/generations")[1]["generations"][0]
    return generation


def wait_for_rest(port: int, *, after: int) -> dict[str, Any]:
    """Wait until a generation newer than the one of a number is there and nothing more is to be done; return it."""
    deadline, quiet_since = time.monotonic() + LIMIT_S, None
    while time.monotonic() < deadline:
        tasks = get(port, "/v1/tasks?limit=100")[1]["tasks"]
        assert not [task for task in tasks if task["status"] == "failed"], tasks
        generation, now = newest(port), time.monotonic()
        is_busy = generation["number"] <= after or any(task["status"] in UNFINISHED for task in tasks)
        quiet_since = None if is_busy else quiet_since or now
        if quiet_since is not None and now >= quiet_since + QUIET_S:
            return generation
        time.sleep(0.5)
    raise TimeoutError("a build did not end in time")


def run(folder: Path, chunks: int) -> tuple[Clients, list[float], dict[str, Any]]:
    """Build an index, serve it, and rebuild it under load; returns the clients and the seconds of each rebuild."""
    documents = folder / "documents"
    documents.mkdir()
    write_documents(documents, chunks // SECTIONS)
    subprocess.run([*COMMAND, "index", str(documents)], cwd=ROOT, env=environment(folder), check=True)
    builds_s = []
    with service(folder) as port:
        while get(port, "/readyz")[0] != http.client.OK:
            time.sleep(0.2)
        generation = wait_for_rest(port, after=0)  # after the sync with which watching begins
        clients = Clients(port, [text for text in sentences() if len(text) < 200])
        with clients.asking():
            time.sleep(REST_S)
            for rebuild in range(1, REBUILDS + 1):
                clients.phase, started = "during a rebuild", time.perf_counter()
                change_documents(documents, rebuild)
                generation = wait_for_rest(port, after=generation["number"])
                builds_s.append(time.perf_counter() - started - QUIET_S)
                clients.phase = "at rest"
                time.sleep(REST_S)
    return clients, builds_s, generation


def report(chunks: int) -> Iterator[str]:
    """Measure, and yield the lines of the report."""
    with tempfile.TemporaryDirectory() as folder:
        clients, builds_s, status = run(Path(folder), chunks)
    yield (
        f"{status['documents']:,} documents, {status['chunks']:,} chunks; {CLIENTS} clients, each asking again "
        f"{PAUSE_S:g} s after its answer; `python benchmarks/serving.py`."
    )
    yield f"{machine()}; clients, service and build share the machine.\n"
    seconds = ", ".join(f"{build_s:.0f}" for build_s in builds_s)
    yield f"{len(builds_s)} rebuilds after a change to every document: {seconds} s."
    yield f"Failed requests: {len(clients.failures)}. Generations that answered: {len(clients.generations)}.\n"
    yield "| | questions | p50 ms | p95 ms | p99 ms |"
    yield "|---|---|---|---|---|"
    for phase, latencies_s in clients.latencies_s.items():
        p50, p95, p99 = (1_000 * float(value) for value in np.percentile(latencies_s, [50, 95, 99]))
        yield f"| {phase} | {len(latencies_s):,} | {p50:.0f} | {p95:.0f} | {p99:.0f} |"
    yield from (f"\nFailed: {failure}" for failure in clients.failures[:5])


def main() -> None:
    """Read the command line, print the report, and keep it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, default=20_000, help="chunks in the index")
    parser.add_argument("--results", type=Path, default=RESULTS, help="file the table is written to")
    arguments = parser.parse_args()
    lines = []
    for line in report(arguments.chunks):
        print(line, flush=True)
        lines.append(line)
    arguments.results.parent.mkdir(exist_ok=True)
    arguments.results.write_text(
        "# Serving while the index is rebuilt\n\n" + "\n".join(lines) + "\n", encoding="utf-8"
    )


if __name__ == "__main__":
    main()
