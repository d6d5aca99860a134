"""Processes of a benchmark: starting one, waiting for it, its memory with that of its children, and its end."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
WHENCE = (sys.executable, "-c", "from service.command import main; main()")
HOST = "127.0.0.1"
MEGABYTE = 1_000_000
STOP_S = 30.0
POLL_S = 0.02
LOG_LINES = 10  # of each end of what a process that failed has said


@dataclass(frozen=True)
class Memory:
    """Memory of a process and its children in MB.

    Attributes:
        processes: how many they are.
        rss: resident memory, added up; what several of them share counts in each.
        largest: resident memory of the largest one.
        pss: resident memory, what is shared divided among those who share it.
        shared: the part of `rss` that another process has mapped, too.
    """

    processes: int
    rss: float
    largest: float
    pss: float
    shared: float


def family(pid: int) -> list[int]:
    """Return a process with its children and theirs; none when it has ended."""
    if not Path(f"/proc/{pid}/task").exists():
        return []
    return [pid, *(member for child in children(pid) for member in family(child))]


def children(pid: int) -> list[int]:
    """Return the children of a process."""
    found: list[int] = []
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):  # a thread that has just ended
            found += map(int, path.read_text().split())
    return found


def read_rollup(text: str) -> dict[str, float]:
    """Read /proc/PID/smaps_rollup: name -> MB."""
    rows = (line.split() for line in text.splitlines())
    return {row[0].rstrip(":"): 1024 * int(row[1]) / MEGABYTE for row in rows if len(row) == 3 and row[2] == "kB"}


def memory_of(pid: int) -> Memory:
    """Add up the memory of a process and its children."""
    return memory_of_all(family(pid))


def memory_of_all(pids: Sequence[int]) -> Memory:
    """Add up the memory of some processes."""
    found = []
    for member in pids:
        with suppress(OSError):  # it has just ended
            found.append(read_rollup(Path(f"/proc/{member}/smaps_rollup").read_text()))
    return Memory(
        processes=len(found),
        rss=sum(each["Rss"] for each in found),
        largest=max((each["Rss"] for each in found), default=0.0),
        pss=sum(each["Pss"] for each in found),
        shared=sum(each["Shared_Clean"] + each["Shared_Dirty"] for each in found),
    )


def whence_environment(home: Path, cache: Path) -> dict[str, str]:
    """Return the environment of a command that has Whence's defaults, but for its folders, and keeps no answers."""
    left_out = ("WHENCE_", "PYTHONDONTWRITEBYTECODE")  # else its modules are compiled at each start
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
    return {**inherited, "WHENCE_HOME": str(home), "WHENCE_CACHE": str(cache), "WHENCE_ANSWER_CACHE": "0"}


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def running(
    command: Sequence[str], *, environment: Mapping[str, str], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process during a block, and end it and its children after it.

    Args:
        command: its program and arguments.
        environment: of the process.
        log: file that gets what it prints.
    """
    with log.open("wb") as stream:
        process = subprocess.Popen(command, cwd=ROOT, env=dict(environment), stdout=stream, stderr=stream)
    try:
        yield process
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask a process to end, and end what is left of it and its children after a while."""
    members = family(process.pid)
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=STOP_S)
    for pid in members if process.poll() is None else []:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait(timeout=STOP_S)


def wait_until(is_so: Callable[[], bool], process: subprocess.Popen[bytes], *, limit_s: float, log: Path) -> None:
    """Wait until something is so.

    Raises:
        RuntimeError: the process has ended, or the time is over; the text has both ends of its log.
    """
    deadline = time.monotonic() + limit_s
    while not is_so():
        if process.poll() is not None or time.monotonic() > deadline:
            lines = log.read_text(errors="replace").splitlines()
            said = "\n".join([*lines[:LOG_LINES], "...", *lines[LOG_LINES:][-LOG_LINES:]])
            raise RuntimeError(f"no answer within {limit_s:g} s, or before its end, from {process.args!r}:\n{said}")
        time.sleep(POLL_S)
