"""The indexer: a process of its own that does what the tasks of a home ask for.

A worker starts it when there is something to do. It takes the writer's lock of the home, claims every task that waits
and makes one generation of them all; what comes meanwhile waits for the next one. Without work for a while it ends.
Workers of one home agree by a lock on who of them starts it, and when an indexer or its worker dies, the next one
takes up what was left.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, cast

import filelock

from index.build import BuildSettings, SyncReport, sync
from index.embeddings import Encoder
from index.engines import DocumentSource
from index.errors import SourceError, StateError, WhenceError, WriterBusyError
from index.generations import Home
from index.models import DEFAULT_MODEL
from index.sources import Source
from index.state import State
from index.uploads import UPLOADS, Change, Uploads, refusals
from service.bundled import seeds_folder
from service.logs import configure_logging
from service.models import load_model
from service.settings import Settings
from service.tasks import Task, TaskKind, TaskQueue

logger = logging.getLogger("service.indexer")  # run as a program, it would be called otherwise

IDLE_S = 60.0  # after which an indexer without work ends
POLL_S = 0.25  # how often it looks for work that another worker enqueued
WATCH_S = 1.0  # how often a worker looks whether somebody does the work
LOCK_WAIT_S = 60.0  # for another writer, before it is tried again
RETRY_S = (1.0, 10.0)  # before what failed as a whole is tried again, and before it is tried once more
BACKOFF_S = (1.0, 30.0)  # before an indexer that failed is started again: at first, and at most
GRACE_S = 5.0  # for an indexer to end
NICENESS = 5  # questions are answered first

_ROOT = Path(__file__).parents[1]  # the folder that holds the packages, installed or not


class Indexer:
    """Sees to it that an indexer runs when there is something to do, as long as its worker lives.

    Args:
        settings: of the service.
        tasks: of the home.
    """

    def __init__(self, settings: Settings, tasks: TaskQueue) -> None:
        self._tasks = tasks
        self._command = [sys.executable, "-m", "service.indexer", _settings_of_child(settings)]
        self._lock = filelock.FileLock(settings.home / "indexer.lock")
        self._guard = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._woken = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="indexer", daemon=True)

    def start(self) -> None:
        """Begin to look after the tasks, in a thread of its own."""
        self._woken.set()
        self._thread.start()

    def wake(self) -> None:
        """Say that there is something to do; returns at once."""
        self._woken.set()
        with self._guard:
            if self._child is not None and not self._closing.is_set():
                with suppress(OSError):  # it has just ended, or has been told often enough
                    os.write(_input_of(self._child).fileno(), b"\n")

    def close(self) -> None:
        """End the indexer; what it was doing is taken up again by the next one."""
        self._closing.set()
        self._woken.set()
        with self._guard:
            if self._child is not None:
                _input_of(self._child).close()
        if self._thread.ident is None:
            return
        self._thread.join(GRACE_S)
        with self._guard:
            if self._child is not None:
                self._child.kill()
        self._thread.join()

    def _run(self) -> None:
        backoff_s = BACKOFF_S[0]
        while not self._closing.is_set():
            self._woken.wait(WATCH_S)
            self._woken.clear()
            if self._does_its_work():
                backoff_s = BACKOFF_S[0]
            else:
                self._closing.wait(backoff_s)
                backoff_s = min(2 * backoff_s, BACKOFF_S[1])

    def _does_its_work(self) -> bool:
        """Let an indexer do what there is to do; return whether none failed."""
        try:
            if self._closing.is_set() or not self._tasks.has_unfinished():
                return True
            with self._lock.acquire(blocking=False):
                code = self._run_child()
        except filelock.Timeout:  # another worker's indexer is at it
            return True
        except (StateError, OSError) as exc:
            logger.error("The indexer could not be started: %s", exc)
            return False
        if code and not self._closing.is_set():
            logger.error("The indexer ended unexpectedly (%s); it is started again", code)
        return code == 0

    def _run_child(self) -> int:
        """Start an indexer and wait for its end; return its exit code."""
        child = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            self._command,
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            bufsize=0,
            process_group=0,  # Ctrl-C is for the worker
        )
        os.set_blocking(_input_of(child).fileno(), False)
        with self._guard:
            self._child = child
            if self._closing.is_set():
                _input_of(child).close()
        code = child.wait()
        with self._guard:
            self._child = None
            _input_of(child).close()
        return code


def _input_of(child: subprocess.Popen[bytes]) -> BinaryIO:
    return cast(BinaryIO, child.stdin)


def _settings_of_child(settings: Settings) -> str:
    # The child works in another folder.
    folders = {"home": settings.home.absolute(), "cache": settings.cache.absolute()}
    return settings.model_copy(update=folders).model_dump_json()


class _Indexing:
    """What the child process does.

    Args:
        settings: of the service.
        state: of the home.
    """

    def __init__(self, settings: Settings, state: State) -> None:
        self._settings = settings
        self._home = Home(settings.home)
        self._state = state
        self._tasks = TaskQueue(state)
        self._uploads = Uploads(settings.home, state)
        self._encoders: dict[str, Encoder] = {}
        self._claimed: list[Task] = []
        self._is_forgotten = True
        self._prune_at = 0.0
        self._woken = threading.Event()

    def run(self) -> None:
        """Do what there is to do, until there is nothing for a while or the worker is gone."""
        threading.Thread(target=self._listen, name="listening", daemon=True).start()
        idle_since = time.monotonic()
        while time.monotonic() < idle_since + IDLE_S:
            if self._tasks.has_unfinished():
                self._work()
                idle_since = time.monotonic()
            else:
                self._is_forgotten = self._is_forgotten or self._forgets()
                self._woken.wait(POLL_S)
                self._woken.clear()

    def _listen(self) -> None:
        """Be woken by what the worker writes; when the worker is gone, leave."""
        while os.read(0, 1024):
            self._woken.set()
        try:
            self._tasks.release(self._claimed)
        except StateError as exc:
            logger.error("What was claimed could not be put back: %s", exc)
        os._exit(0)  # whatever the main thread is writing: it is published whole or not at all

    def _work(self) -> None:
        """Do what waits, as the only writer of the home; wait a while if that failed."""
        attempts = 0
        try:
            with self._home.writer(wait_s=LOCK_WAIT_S):
                self._claimed = self._tasks.claim()
                attempts = max((task.attempts for task in self._claimed), default=0)
                try:
                    self._write(self._claimed)
                except WhenceError as exc:
                    self._tasks.retry(self._claimed, str(exc))
                    raise
                finally:
                    self._claimed = []
                self._forget()
        except WriterBusyError as exc:
            logger.info("%s", exc)
        except WhenceError as exc:
            logger.error("The index could not be written: %s", exc)
            time.sleep(RETRY_S[0] if attempts <= 1 else RETRY_S[1])

    def _write(self, tasks: Sequence[Task]) -> None:
        """Make one generation of all that tasks ask for; a folder that cannot be synced fails only its own task."""
        changes = [change for task in tasks for change in task.changes]
        syncs = [task for task in tasks if task.kind is TaskKind.SYNC]
        rest = [task for task in tasks if task.kind is not TaskKind.SYNC]
        if syncs:
            try:
                self._finish(tasks, changes, self._publish(changes, self._folders(syncs)))
                return
            except SourceError as exc:
                logger.error("The folders could not be synced: %s", exc)
                self._tasks.fail(syncs, str(exc))
        if rest:
            self._finish(rest, changes, self._publish(changes, []))

    def _folders(self, syncs: Iterable[Task]) -> list[Source]:
        """Return the folders that the index knows; where there is no index yet, the bundled one if that is wanted."""
        manifest = self._home.known_manifest()
        if manifest is not None:
            return [record.source() for record in manifest.sources if record.path != UPLOADS]
        is_bundled = any(task.is_bundled for task in syncs)
        return [Source(seeds_folder(), is_bundled=True)] if is_bundled else []

    def _publish(self, changes: Sequence[Change], folders: Sequence[Source]) -> SyncReport:
        sources: list[DocumentSource] = [*folders]
        if changes:
            sources.append(self._uploads.planned(changes))
        manifest = self._home.known_manifest()
        settings = BuildSettings(
            keep_generations=self._settings.keep_generations,
            # An index may begin empty, but no folder may become so unnoticed.
            allow_empty=manifest is None and not sources,
        )
        encoder = self._encoder(self._settings.model or (DEFAULT_MODEL if manifest is None else manifest.model.name))
        report = sync(self._home, sources, encoder, settings=settings)
        logger.info(
            "Generation %s: %d documents added, %d changed, %d removed, %d rejected",
            report.generation,
            len(report.added),
            len(report.changed),
            len(report.removed),
            len(report.rejected),
        )
        return report

    def _finish(self, tasks: Iterable[Task], changes: Sequence[Change], report: SyncReport) -> None:
        """Make permanent what was published, then say so; each step may be repeated after a crash."""
        refused = refusals(changes, report.rejected)
        self._uploads.apply(changes, refused=refused)
        self._forget()
        self._tasks.finish(tasks, generation=report.generation, refused=refused, rejected=report.rejected)

    def _forget(self) -> None:
        """Remove what nothing needs any more: a document whose deletion has succeeded is gone from here, too."""
        self._tasks.sweep(self._uploads)
        self._is_forgotten = self._forgets()

    def _forgets(self) -> bool:
        """Return whether the log of the state holds nothing any more, and no generation too many is left."""
        is_truncated = self._state.truncate_log()
        return self._is_pruned() and is_truncated

    def _is_pruned(self) -> bool:
        """Return whether no generation too many is left; one that a failing disk kept is tried now and then."""
        keep = self._settings.keep_generations
        if not self._home.surplus(keep):
            return True
        if time.monotonic() < self._prune_at:
            return False
        self._prune_at = time.monotonic() + RETRY_S[1]
        with suppress(WhenceError), self._home.writer(wait_s=0):
            self._home.prune(keep)
        return not self._home.surplus(keep)

    def _encoder(self, model: str) -> Encoder:
        if model not in self._encoders:
            self._encoders = {model: load_model(self._settings, model)}
        return self._encoders[model]


def main() -> None:
    """Be the child process; its settings are the argument."""
    settings = Settings(**json.loads(sys.argv[1]))
    configure_logging(settings)
    os.nice(NICENESS)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the worker gets it too, and says when it is time to leave
    with State(settings.home) as state:
        _Indexing(settings, state).run()


if __name__ == "__main__":
    main()
