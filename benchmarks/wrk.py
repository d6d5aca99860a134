"""Load by wrk: requests sent in turn over a number of connections, each with the next when its last is answered."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from processes import HOST

ANSWER_LIMIT_S = 60  # after which wrk counts a request as failed

SCRIPT = """\
local lines, place = {}, 0

function init(arguments)
  for line in io.lines(arguments[1]) do
    local method, path, body = line:match("^(%u+) (%S+) ?(.*)$")
    lines[#lines + 1] = wrk.format(method, path, {["Content-Type"] = "application/json"}, body)
  end
  place = tonumber(arguments[2]) % #lines
  pause = tonumber(arguments[3])
end

function delay()
  return pause
end

function request()
  place = place % #lines + 1
  return lines[place]
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '\\n{"requests": %d, "duration_us": %d, "failed": %d, "p50_us": %d, "p95_us": %d, "p99_us": %d}\\n',
    summary.requests, summary.duration, errors.connect + errors.read + errors.write + errors.status + errors.timeout,
    latency:percentile(50), latency:percentile(95), latency:percentile(99)))
end
"""


@dataclass(frozen=True)
class Request:
    """What is sent: method, path with its query, and a body of JSON or none."""

    method: str
    path: str
    body: str = ""


@dataclass(frozen=True)
class Load:
    """What a service bore.

    Attributes:
        rate: answers a second.
        p50_ms, p95_ms, p99_ms: of the time to an answer.
        failed: answers other than 2xx and 3xx, and connections that broke or timed out.
    """

    rate: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    failed: int


def write_requests(requests: Sequence[Request], folder: Path) -> None:
    """Write what `measure` sends, and the script that makes wrk send it."""
    lines = [f"{each.method} {each.path} {each.body}".rstrip() for each in requests]
    (folder / "requests.txt").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    (folder / "requests.lua").write_text(SCRIPT, encoding="utf-8")


def measure(port: int, folder: Path, *, clients: int, seconds: float, first: int = 0, pause_ms: int = 0) -> Load:
    """Load a service of this machine.

    Args:
        port: that it listens on.
        folder: with what `write_requests` wrote.
        clients: connections.
        seconds: how long, at least 1; wrk takes whole ones.
        first: number of the request to begin with.
        pause_ms: before each request.
    """
    command = [wrk(), "-t1", f"-c{clients}", f"-d{round(seconds)}s", f"--timeout={ANSWER_LIMIT_S}s"]
    script = ["-s", str(folder / "requests.lua"), f"http://{HOST}:{port}/"]
    printed = subprocess.run(
        [*command, *script, "--", str(folder / "requests.txt"), str(first), str(pause_ms)],
        check=True,
        capture_output=True,
        text=True,
        timeout=seconds + 2 * ANSWER_LIMIT_S,
    )
    return read_load(printed.stdout)


def read_load(printed: str) -> Load:
    """Read what wrk printed: its last line, which the script wrote."""
    figures = json.loads(printed.strip().splitlines()[-1])
    return Load(
        rate=figures["requests"] / (figures["duration_us"] / 1e6),
        p50_ms=figures["p50_us"] / 1000,
        p95_ms=figures["p95_us"] / 1000,
        p99_ms=figures["p99_us"] / 1000,
        failed=figures["failed"],
    )


def wrk() -> str:
    """Return the path of wrk.

    Raises:
        SystemExit: it is not installed.
    """
    found = shutil.which("wrk")
    if found is None:
        raise SystemExit("wrk is not installed. Install it: apt-get install wrk")
    return found


def wrk_version() -> str:
    """Return name and version of wrk."""
    printed = subprocess.run([wrk(), "--version"], capture_output=True, text=True, check=False).stdout
    return " ".join(printed.split()[:2])
