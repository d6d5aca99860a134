"""`whence serve` as a process: its address, its workers, its end, and what it refuses."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from handbook import Handbook
from waiting import until

from index.build import sync
from index.embeddings import Encoder
from index.generations import Home

ROOT = Path(__file__).parents[1]
COMMAND = [sys.executable, "-c", "from service.cli import main; main()", "serve"]
RED = {"question": "What does the red light mean?"}
KETTLE_DUTY = "# Rota\n\nMarlene descales the kettle on every second Thursday."


@pytest.fixture
def served_home(home: Home, encoder: Encoder) -> Path:
    """A home with the handbook."""
    sync(home, [Handbook()], encoder)
    return home.path


class Process:
    """A running `whence serve`.

    Attributes:
        address: of the service.
        log: lines that it wrote so far.
    """

    def __init__(self, home: Path, cache: Path, *options: str) -> None:
        self.log: list[str] = []
        self.process = subprocess.Popen(
            [*COMMAND, "--home", str(home), "--port", "0", *options],
            cwd=ROOT,
            env={**os.environ, "WHENCE_CACHE": str(cache), "WHENCE_LOG_FORMAT": "json"},
            stderr=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        until(lambda: self._said() is not None or self.process.poll() is not None, seconds=30)
        found = self._said()
        assert found is not None, self.log
        self.address = found[1]

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line)

    def _said(self) -> re.Match[str] | None:
        return re.search(r"Whence is at (http://[0-9.:]+)/", "".join(self.log))

    def end(self, number: int = signal.SIGTERM) -> int:
        """Tell it to end, and return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(timeout=60)
        self._reader.join(timeout=30)
        assert self.process.stderr is not None
        self.process.stderr.close()
        return code


@contextmanager
def serving(home: Path, cache: Path, *options: str) -> Iterator[tuple[Process, httpx.Client]]:
    """Run the command until the end of the block; gives it with a client when it is ready."""
    process = Process(home, cache, *options)
    try:
        with httpx.Client(base_url=process.address, timeout=30) as client:
            until(lambda: is_ready(client), seconds=60)
            yield process, client
    finally:
        process.end()


def is_ready(client: httpx.Client) -> bool:
    """Tell whether the service is ready."""
    try:
        return client.get("/readyz").status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def refused(cache: Path, *options: str) -> str:
    """Run the command where it cannot serve, and return what it says."""
    done = subprocess.run(
        [*COMMAND, *options],
        cwd=ROOT,
        env={**os.environ, "WHENCE_CACHE": str(cache)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_when_it_is_told_to(served_home: Path, cache_folder: Path, number: int) -> None:
    with serving(served_home, cache_folder) as (process, client):
        assert client.post("/v1/ask", json=RED).json()["answered"] is True
        assert process.end(number) == 0
    assert any("Application shutdown complete" in line for line in process.log)
    assert not any("Traceback" in line for line in process.log)


def test_requests_under_way_are_finished_before_it_ends(served_home: Path, cache_folder: Path) -> None:
    with serving(served_home, cache_folder) as (process, client):
        questions = {"questions": [f"What is the use of salt number {number}?" for number in range(256)]}
        answered: list[httpx.Response] = []
        asking = threading.Thread(target=lambda: answered.append(client.post("/v1/ask/batch", json=questions)))
        asking.start()
        until(lambda: 'whence_requests_total{method="POST"' in metrics(process) or queue(process) > 0)
        assert process.end() == 0
        asking.join(timeout=60)
    assert [len(response.json()["answers"]) for response in answered] == [256]


def metrics(process: Process) -> str:
    """Read the metrics of a service."""
    return httpx.get(f"{process.address}/metrics", timeout=30).text


def queue(process: Process) -> float:
    """Read how many questions wait."""
    found = re.search(r"^whence_queue_questions(?:\{[^}]*\})? ([0-9.e+]+)$", metrics(process), re.MULTILINE)
    return float(found[1]) if found else 0.0


def test_two_workers_answer_from_a_document_within_two_seconds_of_its_task(
    served_home: Path, cache_folder: Path
) -> None:
    with serving(served_home, cache_folder, "--workers", "2") as (process, client):
        task = client.put("/v1/documents/rota.md", content=KETTLE_DUTY).json()
        until(lambda: client.get(f"/v1/tasks/{task['id']}").json()["status"] == "succeeded", seconds=60)
        deadline = time.monotonic() + 2
        generation = client.get(f"/v1/tasks/{task['id']}").json()["generation"]
        while time.monotonic() < deadline and generations_that_answer(process) != {generation}:
            time.sleep(0.05)
        assert generations_that_answer(process, times=30) == {generation}
        assert len(workers(process)) == 2
        assert process.end() == 0


def generations_that_answer(process: Process, *, times: int = 10) -> set[str]:
    """Ask over new connections, which the workers share out."""
    question = {"question": "Who descales the kettle?", "top_k": 1}
    return {
        httpx.post(f"{process.address}/v1/ask", json=question, timeout=30).json()["generation"] for _ in range(times)
    }


def workers(process: Process) -> set[str]:
    """Return the process ids of the workers, as they say them in the log."""
    return set(re.findall(r"Started server process \[(\d+)\]", "".join(process.log)))


def test_a_worker_that_is_killed_is_replaced(served_home: Path, cache_folder: Path) -> None:
    with serving(served_home, cache_folder, "--workers", "2") as (process, client):
        until(lambda: len(workers(process)) == 2)
        os.kill(int(min(workers(process))), signal.SIGKILL)
        until(lambda: len(workers(process)) == 3, seconds=30)
        assert client.post("/v1/ask", json=RED).json()["answered"] is True


def test_workers_are_copies_of_the_process_that_starts_them(served_home: Path, cache_folder: Path) -> None:
    with serving(served_home, cache_folder, "--workers", "2") as (process, _):
        pid = process.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        assert len(children) == 2
        commands = {Path(f"/proc/{each}/cmdline").read_bytes() for each in (str(pid), *children)}
        assert len(commands) == 1
        assert process.end() == 0
    assert not any("Traceback" in line for line in process.log)


def test_counts_of_all_workers_are_put_together(served_home: Path, cache_folder: Path) -> None:
    with serving(served_home, cache_folder, "--workers", "2") as (process, _):
        for _ in range(20):
            assert httpx.post(f"{process.address}/v1/ask", json=RED, timeout=30).status_code == 200
        answered = r'whence_questions_total\{outcome="answered"\} 20\.0'
        until(lambda: re.search(answered, metrics(process)) is not None)


def test_an_address_that_others_reach_needs_a_key(served_home: Path, cache_folder: Path) -> None:
    said = refused(cache_folder, "--home", str(served_home), "--host", "0.0.0.0", "--port", "0")
    assert "there is no valid key" in said
    assert "whence keys create" in said


def test_a_port_that_is_taken_is_named(served_home: Path, cache_folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        said = refused(cache_folder, "--home", str(served_home), "--port", port)
    assert f"127.0.0.1 port {port} cannot be listened on" in said
    assert "--port" in said


def test_a_home_that_cannot_be_written_is_named(cache_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    assert "It must be a folder that this user may read" in refused(cache_folder, "--home", str(tmp_path / "file"))
