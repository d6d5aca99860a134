"""A Ray cluster of two nodes on this machine, in a process of its own.

    python tests/ray_nodes.py FOLDER

It prints the address of its head, then obeys a line at a time, and answers each: `kill` ends a worker that has work,
`remove` a whole node, without a goodbye. Without more lines it ends all that it has started.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from ray.cluster_utils import Cluster

NODE = {"num_cpus": 2, "include_dashboard": False, "object_store_memory": 100_000_000}
WORKER = b"ray::MapWorker"  # as the processes of a pool call themselves


def pids_of_workers(above: int) -> list[int]:
    """Find the workers among the processes that come from one of ours."""
    found, waiting = [], [above]
    while waiting:
        for pid in _children(waiting.pop()):
            waiting.append(pid)
            if _command(pid).startswith(WORKER):
                found.append(pid)
    return found


def _children(pid: int) -> list[int]:
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
        return [int(child) for task in tasks for child in (task / "children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def kill() -> str:
    """End a worker."""
    pids = pids_of_workers(os.getpid())
    if pids:
        os.kill(pids[0], signal.SIGKILL)
    return "killed" if pids else "none"


def remove(cluster: Any) -> str:
    """End the node that is not the head, if it has a worker, with all that runs on it."""
    (node,) = cluster.worker_nodes
    (raylet,) = node.all_processes["raylet"]
    if not pids_of_workers(raylet.process.pid):
        return "none"
    cluster.remove_node(node, allow_graceful=False)
    cluster.add_node(**NODE)
    return "removed"


def say(line: str) -> None:
    """Write a line to whoever has started this."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    """Obey until there is nothing more to read."""
    os.environ["RAY_TMPDIR"] = sys.argv[1]  # under which it makes all its folders, also where none has ever run
    cluster = Cluster(initialize_head=True, head_node_args=NODE)
    cluster.add_node(**NODE)
    say(cluster.address)
    for line in sys.stdin:
        say(kill() if line.strip() == "kill" else remove(cluster))
    cluster.shutdown()


if __name__ == "__main__":
    main()
