"""Folders are watched: a change in one of them enqueues a sync, and what is no document does not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event

import pytest
from waiting import until

from index.build import sync
from index.embeddings import Encoder
from index.generations import Home
from index.sources import Source
from index.state import State
from service.tasks import TaskKind, TaskQueue
from service.watching import Watcher

QUIET_S = 2.5  # longer than changes are gathered


class Folder:
    """An indexed folder, and the tasks that watching it enqueues."""

    def __init__(self, path: Path, home: Home, encoder: Encoder) -> None:
        self.path = path
        self.home = home
        self.encoder = encoder
        self.woken = Event()
        self.state = State(home.path)
        self.tasks = TaskQueue(self.state)

    def index(self, *paths: Path) -> None:
        """Index the folder, or others."""
        sync(self.home, [Source(path) for path in paths or [self.path]], self.encoder)

    @contextmanager
    def watched(self, *, is_wanted: bool = True) -> Iterator[None]:
        """Watch until the end of the block."""
        watcher = Watcher(self.home, self.tasks, wake=self.woken.set, is_wanted=is_wanted)
        watcher.start()
        try:
            yield
        finally:
            watcher.close()

    def is_to_be_synced(self, *, seconds: float = 10.0) -> bool:
        """Wait for a sync to be enqueued, claim it, and tell whether there was one."""
        woken = self.woken.wait(seconds)
        self.woken.clear()
        claimed = self.tasks.claim()
        self.tasks.finish(claimed, generation="g", refused={})
        assert all(task.kind is TaskKind.SYNC for task in claimed)
        return woken and len(claimed) == 1


@pytest.fixture
def folder(tmp_path: Path, encoder: Encoder) -> Iterator[Folder]:
    path = tmp_path / "docs"
    (path / "guide").mkdir(parents=True)
    (path / "guide" / "intro.md").write_text("An introduction.")
    folder = Folder(path, Home(path / "home"), encoder)  # inside of what it indexes, which is the harder case
    folder.index()
    yield folder
    folder.state.close()


def test_a_sync_is_enqueued_at_first_and_when_a_file_is_added_changed_or_removed(folder: Folder) -> None:
    file = folder.path / "guide" / "new.md"
    with folder.watched():
        assert folder.is_to_be_synced()
        for change in (lambda: file.write_text("New."), lambda: file.write_text("Newer."), file.unlink):
            change()
            assert folder.is_to_be_synced()


def test_the_index_itself_and_hidden_files_are_no_change(folder: Folder) -> None:
    with folder.watched():
        assert folder.is_to_be_synced()
        (folder.path / ".git").mkdir()
        (folder.path / ".git" / "index").write_text("hidden")
        (folder.home.path / "notes.txt").write_text("not a document")
        assert not folder.is_to_be_synced(seconds=QUIET_S)
        (folder.path / ".whenceignore").write_text("*.txt\n")
        assert folder.is_to_be_synced()


def test_a_source_that_is_one_file_is_followed_when_it_is_replaced(folder: Folder, tmp_path: Path) -> None:
    file, beside = tmp_path / "note.md", tmp_path / "note.md~"
    file.write_text("A note.")
    folder.index(folder.path, file)
    with folder.watched():
        assert folder.is_to_be_synced()
        for text in ("Another note.", "One more."):
            beside.write_text(text)
            beside.replace(file)
            assert folder.is_to_be_synced()
            folder.is_to_be_synced(seconds=QUIET_S)  # the file is watched anew, and what happened meanwhile is synced


def test_a_folder_that_is_indexed_later_is_watched_as_well(folder: Folder, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.md").write_text("A text.")
    with folder.watched():
        assert folder.is_to_be_synced()
        folder.index(tmp_path / "other")
        assert folder.is_to_be_synced()
        (tmp_path / "other" / "b.md").write_text("Another text.")
        assert folder.is_to_be_synced()


def test_of_two_workers_one_watches_and_the_other_goes_on_when_it_ends(folder: Folder) -> None:
    with folder.watched():
        with folder.watched():
            assert folder.is_to_be_synced()
            assert not folder.is_to_be_synced(seconds=QUIET_S)
        (folder.path / "new.md").write_text("New.")
        assert folder.is_to_be_synced()


def test_nothing_is_watched_unless_it_is_wanted(folder: Folder) -> None:
    with folder.watched(is_wanted=False):
        (folder.path / "new.md").write_text("New.")
        assert not folder.is_to_be_synced(seconds=QUIET_S)


def test_a_watcher_ends_at_once_where_there_is_nothing_to_watch(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    with State(home.path) as state:
        watcher = Watcher(home, TaskQueue(state), wake=lambda: None, is_wanted=True)
        watcher.start()
        until(lambda: (home.path / "watch.lock").exists())
        watcher.close()
