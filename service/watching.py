"""Watching the folders of the index: when files in them change, a sync is enqueued."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import filelock
from watchfiles import Change, watch

from index.errors import WhenceError
from index.generations import Home
from index.sources import IGNORE_FILE
from index.uploads import UPLOADS
from service.tasks import TaskQueue

logger = logging.getLogger(__name__)

DEBOUNCE_MS = 1_000  # in which changes are gathered
LOOK_MS = 1_000  # how often it looks for a new generation, which may have other folders
LOCK_S = 1.0  # for another worker to end, before it is tried again
RETRY_S = 5.0  # before what could not be watched is tried again
ERRORS = (OSError, RuntimeError, WhenceError)  # watchfiles raises what the system says as RuntimeError


class Watcher:
    """Follows the folders that a home's published generation was made of; of all workers one does.

    Args:
        home: of the index.
        tasks: where syncs are enqueued.
        wake: called when one was.
        is_wanted: whether to watch at all.
    """

    def __init__(self, home: Home, tasks: TaskQueue, *, wake: Callable[[], None], is_wanted: bool) -> None:
        self._home = home
        self._tasks = tasks
        self._wake = wake
        self._is_wanted = is_wanted
        self._lock = filelock.FileLock(home.path / "watch.lock")
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)

    def start(self) -> None:
        """Begin to watch, in a thread of its own."""
        if self._is_wanted:
            self._thread.start()

    def close(self) -> None:
        """Stop watching."""
        self._closing.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._closing.is_set():
            try:
                with self._lock.acquire(timeout=LOCK_S):
                    self._watch()
            except filelock.Timeout:  # another worker does it
                continue
            except ERRORS as exc:
                logger.error("The folders cannot be watched: %s", exc)
                self._closing.wait(RETRY_S)

    def _watch(self) -> None:
        while not self._closing.is_set():
            folders = self._folders()
            if folders:
                self._follow(folders)
            else:
                self._closing.wait(LOOK_MS / 1000)

    def _follow(self, folders: list[Path]) -> None:
        """Enqueue a sync now and whenever something changes, until other folders are to be watched."""
        is_first = True
        changes = watch(
            *folders,
            watch_filter=self._filter(folders),
            debounce=DEBOUNCE_MS,
            stop_event=self._closing,
            rust_timeout=LOOK_MS,
            yield_on_timeout=True,
            raise_interrupt=False,
        )
        with closing(changes):
            for changed in changes:
                if changed or is_first:  # at first, too: for what changed while nobody watched
                    self._tasks.enqueue_sync()
                    self._wake()
                is_first = False
                # A file that is replaced is another one to the system; a folder goes on being watched.
                if self._folders() != folders or (changed and not all(path.is_dir() for path in folders)):
                    return

    def _folders(self) -> list[Path]:
        """Return the folders and files that are there now, without the bundled ones, which never change."""
        manifest = self._home.known_manifest()
        records = () if manifest is None else manifest.sources
        paths = [Path(record.path) for record in records if record.path != UPLOADS and not record.is_bundled]
        return [path.resolve() for path in paths if path.exists()]

    def _filter(self, folders: list[Path]) -> Callable[[Change, str], bool]:
        home = self._home.path.resolve()

        def is_of_a_document(_: Change, name: str) -> bool:
            path = Path(name)
            if path.is_relative_to(home):  # a home may lie in a folder that it indexes
                return False
            folder = next((folder for folder in folders if path.is_relative_to(folder)), path)
            hidden = [part for part in path.relative_to(folder).parts if part.startswith(".")]
            return not hidden or hidden == [IGNORE_FILE]

        return is_of_a_document
