"""Work whose system calls fail: a child process does it under strace, which makes one call fail or kills it there.

strace stands between the process and the kernel, so it reaches what SQLite, FAISS and NumPy write in C as well as
what Python writes. The child is a fork of this process, which has loaded everything already: a run takes a tenth of
a second.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from index.errors import WhenceError

# Calls that change a disk, and those that make the change last.
CALLS = (
    *("write", "pwrite64", "writev", "ftruncate", "fallocate"),
    *("fsync", "fdatasync", "msync"),
    *("openat", "mkdir", "mkdirat", "rename", "renameat", "renameat2", "link", "unlink", "unlinkat", "rmdir"),
)
KINDS = {
    "ENOSPC": "error=ENOSPC",  # the disk is full
    "EIO": "error=EIO",  # the disk is broken
    "EINTR": "error=EINTR",  # a signal came in between
    "kill": "signal=SIGKILL",  # kill -9, before the call takes effect
}
RUN_S = 60.0
DONE, REFUSED, FAILED = 0, 3, 4

_CALL = re.compile(r"(\w+)\(")
_OPEN_FILE = re.compile(r"\(\d+<([^>]+)>")
_NAMED = re.compile(r'"([^"]+)"')


class Ended(Enum):
    """How a run ended: as if nothing had happened, with an error that a person can read, otherwise, or killed."""

    DONE = "done"
    REFUSED = "refused"
    FAILED = "failed"
    KILLED = "killed"


@dataclass(frozen=True)
class Call:
    """A system call of a piece of work.

    Attributes:
        name: of the call.
        number: among all calls of this name, from 1.
        line: of the trace.
    """

    name: str
    number: int
    line: str


@dataclass(frozen=True)
class Run:
    """A run of a piece of work.

    Attributes:
        ended: how.
        said: what it said on standard error, and the error with which it ended.
        trace: lines of strace; None of a run without it.
        is_injected: whether the fault struck.
    """

    ended: Ended
    said: str
    trace: tuple[str, ...] = ()
    is_injected: bool = False


def missing() -> str | None:
    """Say why no fault can be injected here, None if one can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    tried = subprocess.run(["strace", "-qq", "-e", "trace=none", "true"], capture_output=True, text=True, check=False)
    return f"strace may not trace here: {tried.stderr.strip()}" if tried.returncode else None


def calls_below(folder: Path, trace: tuple[str, ...]) -> list[Call]:
    """Return the calls of a trace that change something in a folder, in their order."""
    numbers: Counter[str] = Counter()
    found = []
    for line in trace:
        match = _CALL.match(line)
        if match is None:
            continue
        name = match[1]
        numbers[name] += 1
        if str(folder) in line and (name != "openat" or "O_CREAT" in line):
            found.append(Call(name, numbers[name], line))
    return found


def unflushed(calls: list[Call]) -> list[str]:
    """Return the renames of files that were written and not flushed before: a power cut may leave them empty."""
    written: set[str] = set()
    found = []
    for call in calls:
        open_file, named = _OPEN_FILE.search(call.line), _NAMED.findall(call.line)
        if call.name in ("write", "pwrite64", "writev", "ftruncate", "fallocate") and open_file:
            written.add(open_file[1])
        elif call.name == "openat":
            written.add(named[-1])
        elif call.name in ("fsync", "fdatasync") and open_file:
            written.discard(open_file[1])
        elif call.name == "unlink":
            written.discard(named[0])
        elif call.name.startswith("rename"):
            found += [f"{call.line}: {path}" for path in written if f"{path}/".startswith(f"{named[0]}/")]
    return found


def watched(work: Callable[[], object]) -> Run:
    """Run a piece of work and trace it."""
    return _run(work, [])


def struck(work: Callable[[], object], call: Call, kind: str) -> Run:
    """Run a piece of work, one call of which fails.

    Args:
        work: to do.
        call: that fails.
        kind: how, one of `KINDS`.
    """
    return _run(work, ["-e", f"inject={call.name}:{KINDS[kind]}:when={call.number}"])


def undisturbed(work: Callable[[], object]) -> Run:
    """Run a piece of work in a child of its own, untraced."""
    with tempfile.TemporaryFile() as said:
        pid, go = _forked(work, said.fileno())
        os.write(go, b"g")
        os.close(go)
        return _result(pid, said.fileno())


def _run(work: Callable[[], object], options: list[str]) -> Run:
    with tempfile.TemporaryDirectory() as scratch, tempfile.TemporaryFile() as said:
        log = Path(scratch) / "trace"
        pid, go = _forked(work, said.fileno())
        # Only this thread, which does all the writing: a reader of documents that fails is another matter.
        trace = ["strace", "-qq", "-y", "-s", "0", "-e", f"trace={','.join(CALLS)}", *options]
        with subprocess.Popen([*trace, "-o", str(log), "-p", str(pid)]) as strace:
            try:
                _wait_for_tracer(pid, strace)
                os.write(go, b"g")
                os.close(go)
                run = _result(pid, said.fileno())
                strace.wait(RUN_S)
            finally:
                strace.kill()
        lines = tuple(log.read_text(errors="replace").splitlines())
    is_injected = run.ended is Ended.KILLED or any(line.endswith("(INJECTED)") for line in lines)
    return Run(run.ended, run.said, lines, is_injected)


def _forked(work: Callable[[], object], said: int) -> tuple[int, int]:
    """Fork a child that does a piece of work as soon as something is written to the pipe that is returned."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid:
        os.close(reading)
        return pid, writing
    code = FAILED
    try:
        os.dup2(said, sys.stderr.fileno())
        os.close(writing)
        os.read(reading, 1)
        work()
        code = DONE
    except WhenceError:
        traceback.print_exc()
        code = REFUSED
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(OSError):
            sys.stderr.flush()
        os._exit(code)


def _wait_for_tracer(pid: int, strace: subprocess.Popen[bytes]) -> None:
    status = Path(f"/proc/{pid}/status")
    deadline = time.monotonic() + RUN_S
    while "TracerPid:\t0" in status.read_text():
        if strace.poll() is not None or time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            raise RuntimeError("strace could not attach")
        time.sleep(0.001)


def _result(pid: int, said: int) -> Run:
    deadline = time.monotonic() + RUN_S
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            break
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return Run(Ended.FAILED, f"did not end within {RUN_S:g} s")
        time.sleep(0.001)
    text = os.pread(said, 1 << 20, 0).decode(errors="replace")
    if os.WIFSIGNALED(status):
        return Run(Ended.KILLED, text)
    codes = {DONE: Ended.DONE, REFUSED: Ended.REFUSED}
    return Run(codes.get(os.WEXITSTATUS(status), Ended.FAILED), text)
