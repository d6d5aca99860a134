"""A Ray cluster: jobs done by its workers, a block at a time, with the results in order.

Blocks go out in waves, each of which is a run of Ray Data over a pool of actors. The pool grows with the work, up to
one processor less than the cluster has: with all of them taken, Ray could not do again what is lost with a machine.
A block whose worker dies is done again by another one, and every result comes back with the number of its block, so
that none is lost or counted twice unnoticed.

Ray is an extra: it is loaded when a cluster is opened, and never by anything else.
"""

from __future__ import annotations

import logging
import os
import pickle
import platform
import signal
import socket
import sqlite3
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from queue import Empty, Full, Queue
from threading import Event, Thread, current_thread, main_thread
from types import ModuleType, TracebackType
from typing import Any, Self, TypeVar, cast

from index.cpus import usable_cpus
from index.errors import ClusterError, WhenceError
from index.jobs import Job

TIME_LIMIT_S = 86_400.0
# Blocks of a wave for each worker: so many that the start of its workers does not count, and that they can be held.
WAVE_BLOCKS = 128

_CONNECTING_S = 5.0
_POLLING_S = 0.2
_LEAVING_S = 5.0  # for a thread to notice that nobody wants its results any more
_AHEAD = 4  # results that wait to be taken
_CLIENT = "ray://"

Block = TypeVar("Block")
Result = TypeVar("Result")


@dataclass(frozen=True)
class ClusterSettings:
    """Which cluster, and how much of it.

    Attributes:
        address: host and port of its head, or "auto" for the one that this machine is part of; None starts one on
            this machine, for as long as it is open.
        workers: at most so many; None for as many as there is room for.
        time_limit_s: from opening it to the last result.
    """

    address: str | None = None
    workers: int | None = None
    time_limit_s: float = TIME_LIMIT_S


class Cluster:
    """A cluster, open. Use it as a context manager.

    Args:
        settings: which one.

    Attributes:
        workers: that there may be at the same time.

    Raises:
        ClusterError: Ray is not installed, no cluster answers at the address, or it is too small.
    """

    def __init__(self, settings: ClusterSettings) -> None:
        self._settings = settings
        self._deadline = time.monotonic() + settings.time_limit_s
        self._ray = _load_ray()
        _connect(self._ray, settings.address)
        try:
            self.workers = self._room()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Leave the cluster, which ends what its workers still do for this process."""
        self._ray.shutdown()

    def map(self, job: Job[Block, Result], blocks: Iterable[Block]) -> Iterator[Result]:
        """Have blocks worked on.

        Args:
            job: for each worker.
            blocks: a wave of them is taken at a time, see `WAVE_BLOCKS`.

        Returns:
            The result of each block, in order.

        Raises:
            WhenceError: a worker cannot do it, and says why.
            ClusterError: the cluster gave up, or the time is over.
        """
        remaining = iter(blocks)
        pickled = pickle.dumps(job)
        while wave := list(islice(remaining, WAVE_BLOCKS * self.workers)):
            number = 0
            for number, row in enumerate(self._rows(partial(self._dataset, pickled, wave)), start=1):
                yield cast(Result, _result(row, number - 1))
            if number != len(wave):
                raise ClusterError(f"The cluster gave back {number} of {len(wave)} blocks. Run the command again.")

    def _room(self) -> int:
        cpus = int(self._ray.cluster_resources().get("CPU", 0))
        if cpus < 2:
            raise ClusterError(
                f"The cluster has {cpus} processors, and takes two or more: one is left free, so that what is lost "
                "with a machine can be done again."
            )
        return min(cpus - 1, self._settings.workers or cpus)

    def _dataset(self, job: bytes, wave: Sequence[object]) -> Any:
        """Describe a wave: a row for each block, worked on by a pool that grows up to its most."""
        arrow, data = import_module("pyarrow"), self._ray.data
        tables = [
            arrow.table({"number": [number], "block": arrow.array([pickle.dumps(block)], arrow.large_binary())})
            for number, block in enumerate(wave)
        ]
        return data.from_arrow(tables).map_batches(
            Worker,
            fn_constructor_args=(version("whence"), job),
            batch_size=1,
            batch_format="pyarrow",
            compute=data.ActorPoolStrategy(min_size=1, max_size=min(self.workers, len(wave))),
            num_cpus=1,
        )

    def _rows(self, describe: Callable[[], Any]) -> Iterator[dict[str, Any]]:
        """Pass on the rows of a dataset as they come; it is described and run in another thread, which can be left.

        Raises:
            ClusterError: Ray gave up, or the time is over.
        """
        inbox: Queue[dict[str, Any] | BaseException | None] = Queue(_AHEAD)
        is_over = Event()
        drain = Thread(target=_drain, args=(describe, inbox, is_over), daemon=True)
        self._check_time()
        drain.start()
        try:
            while (row := self._next(inbox)) is not None:
                yield row
        finally:
            is_over.set()
            drain.join(_LEAVING_S)  # a cluster that is left while it is given work ends this process

    def _next(self, inbox: Queue[dict[str, Any] | BaseException | None]) -> dict[str, Any] | None:
        while True:
            self._check_time()
            try:
                item = inbox.get(timeout=_POLLING_S)
            except Empty:
                continue
            if isinstance(item, BaseException):
                raise _given_up(item) from item
            return item

    def _check_time(self) -> None:
        if time.monotonic() > self._deadline:
            raise ClusterError(
                f"The cluster was not done after {self._settings.time_limit_s:g} s. Run the command again with more "
                "time (--time-limit) or more machines."
            )


class Worker:
    """One of the pool, in a process on one of the machines: does one block after another.

    Args:
        of_version: of Whence on the machine that runs the command.
        job: pickled; it is opened with the first block, so that what is wrong can be said.
    """

    def __init__(self, of_version: str, job: bytes) -> None:
        self._version = of_version
        self._job = job
        self._opened = ExitStack()
        self._function: Callable[[Any], Any] | None = None

    def __call__(self, batch: Any) -> Any:
        """Do a block.

        Args:
            batch: an Arrow table with one row: `number` and pickled `block`.

        Returns:
            One row: `number`, pickled `result`, and `failure`, which is empty when there is a result.
        """
        arrow = import_module("pyarrow")
        result, failure = b"", ""
        try:
            result = self._done(batch["block"][0].as_py())
        except (WhenceError, OSError, sqlite3.Error, MemoryError) as exc:
            failure = f"A worker on {platform.node()} cannot do its part. {exc or type(exc).__name__}"
        return arrow.table(
            {"number": batch["number"], "result": arrow.array([result], arrow.large_binary()), "failure": [failure]}
        )

    def close(self) -> None:
        """Close the job, where the process does not end with it."""
        self._opened.close()

    def _done(self, block: bytes) -> bytes:
        if self._function is None:
            self._function = self._open()
        return pickle.dumps(self._function(pickle.loads(block)))  # noqa: S301 - from our own process

    def _open(self) -> Callable[[Any], Any]:
        if version("whence") != self._version:
            raise ClusterError(
                f"Whence {version('whence')} is installed there, and {self._version} runs the command. Install the "
                "same version on every machine."
            )
        job: Job[Any, Any] = pickle.loads(self._job)  # noqa: S301 - from our own process
        return self._opened.enter_context(job.open())


def _result(row: dict[str, Any], number: int) -> object:
    """Return the result in a row.

    Raises:
        ClusterError: there is none, or it is of another block than the one that is due.
    """
    if row["failure"]:
        raise ClusterError(row["failure"])
    if row["number"] != number:
        raise ClusterError(f"The cluster gave back block {row['number']} for block {number}. Run the command again.")
    return pickle.loads(row["result"])  # noqa: S301 - from our own workers


def _drain(describe: Callable[[], Any], inbox: Queue[dict[str, Any] | BaseException | None], is_over: Event) -> None:
    """Put the rows of a dataset into an inbox, then None, or the error that ended it."""
    try:
        for row in describe().iter_rows():
            if not _put(inbox, row, is_over):
                return
        _put(inbox, None, is_over)
    except BaseException as exc:  # the edge of a thread: it is raised again where the rows are taken
        _put(inbox, exc, is_over)


def _put(inbox: Queue[Any], item: object, is_over: Event) -> bool:
    """Put something into an inbox when there is room; return False when nobody takes it any more."""
    while not is_over.is_set():
        try:
            inbox.put(item, timeout=_POLLING_S)
        except Full:
            continue
        return True
    return False


def _given_up(error: BaseException) -> ClusterError:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = lines[-1] if lines else type(error).__name__
    if ModuleNotFoundError.__name__ in reason:
        return ClusterError(
            f"A machine of the cluster lacks Whence, or something it needs ({reason}). Install the same version on "
            "every machine: pip install 'whence[ray]'"
        )
    return ClusterError(f"The cluster gave up: {reason}. Run the command again.")


def _load_ray() -> ModuleType:
    """Return `ray`, which is an extra.

    Raises:
        ClusterError: it is not installed.
    """
    # Read by Ray and by what it starts: it must not report to anybody, and not talk to the terminal.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    # Nor may it start a cluster of its own when a thread still asks it for something while this one is left.
    os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"
    try:
        ray = import_module("ray")
        data = import_module("ray.data")
    except ImportError as exc:
        raise ClusterError(f"A cluster needs Ray, which is not installed ({exc}): pip install 'whence[ray]'") from exc
    context = data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    for handler in logging.getLogger("ray.data").handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setLevel(logging.CRITICAL)  # what goes wrong is raised; the files of the session have the rest
    return ray


def _connect(ray: ModuleType, address: str | None) -> None:
    if address is not None:
        _check_address(address)
    # One more processor than there is: one that is left free, and all others busy.
    local = {} if address is not None else {"num_cpus": usable_cpus() + 1, "include_dashboard": False}
    try:
        with _own_signals(), _silence():
            ray.init(address=address or "local", log_to_driver=False, logging_level=logging.ERROR, **local)
    except (OSError, RuntimeError, ValueError, AssertionError) as exc:
        raise ClusterError(
            f"No work can be given to the Ray cluster at {address or 'this machine'}: {exc}. Run the command on a "
            "machine that is part of the cluster (ray start --address=HOST:PORT), with the cluster's versions of Ray "
            "and Python."
        ) from exc


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep the handler of SIGTERM, which Ray would replace."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if current_thread() is main_thread():
            signal.signal(signal.SIGTERM, before)


@contextmanager
def _silence() -> Iterator[None]:
    """Let what Ray's core writes to standard error when it starts go nowhere; its errors are raised as well."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _check_address(address: str) -> None:
    """Look whether somebody answers: Ray would wait for minutes, and not say for what.

    Raises:
        ClusterError: nobody does, or it is no address.
    """
    if address == "auto":
        return
    host, _, port = address.rpartition(":")
    if address.startswith(_CLIENT) or not host or not port.isdecimal():
        raise ClusterError(
            f"{address!r} is not the address of a Ray cluster. Give HOST:PORT of its head, such as 10.0.0.1:6379, or "
            "auto on a machine that is part of it."
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECTING_S).close()
    except (OSError, OverflowError) as exc:
        raise ClusterError(
            f"No Ray cluster answers at {address}: {exc}. Start one (ray start --head --port=PORT), or check "
            "--address."
        ) from exc
