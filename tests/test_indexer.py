"""The indexer does what the tasks ask for, whatever happens to it: real child processes on real homes."""

from __future__ import annotations

import errno
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from putting import received
from tiny_models import write_tiny_model
from waiting import until

from index.build import sync
from index.embeddings import load_encoder
from index.generations import Home
from index.manifest import SourceRecord
from index.sources import Source
from index.state import State
from index.uploads import Uploads
from service import indexer as indexer_module
from service.indexer import Indexer, _Indexing
from service.settings import Settings
from service.tasks import Task, TaskQueue, TaskStatus

ROOT = Path(__file__).parents[1]
DONE_S = 30.0
POISON = b"\x7fELF" + bytes(200)
WORKER = """
import sys, time
from index.state import State
from service.indexer import Indexer
from service.settings import Settings
from service.tasks import TaskQueue
settings = Settings.model_validate_json(sys.argv[1])
Indexer(settings, TaskQueue(State(settings.home))).start()
print("started", flush=True)
time.sleep(60)
"""


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory, cache_folder: Path) -> str:
    """A model that loads at once, exported."""
    name = str(write_tiny_model(tmp_path_factory.mktemp("tiny")))
    load_encoder(name, cache_folder=cache_folder / "models")
    return name


class Service:
    """What a worker has of a home, without HTTP."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.home = Home(settings.home)
        self.state = State(settings.home)
        self.tasks = TaskQueue(self.state)
        self.uploads = Uploads(settings.home, self.state)

    @contextmanager
    def indexer(self) -> Iterator[Indexer]:
        """Run an indexer for the home."""
        indexer = Indexer(self.settings, self.tasks)
        indexer.start()
        try:
            yield indexer
        finally:
            indexer.close()

    def put(self, doc_id: str, data: str | bytes) -> Task:
        """Enqueue a document."""
        return self.tasks.enqueue_puts([received(self.uploads, doc_id, data)], keep=self.uploads.keep)

    def now(self, task: Task) -> Task:
        """Return a task as it is now."""
        found = self.tasks.get(task.id)
        assert found is not None
        return found

    def done(self, *tasks: Task) -> list[Task]:
        """Wait until tasks are finished."""
        until(lambda: all(self.now(task).finished is not None for task in tasks), seconds=DONE_S)
        return [self.now(task) for task in tasks]

    def status(self, *tasks: Task) -> list[str]:
        """Wait until tasks are finished, and return how they ended."""
        return [task.status.value for task in self.done(*tasks)]

    def texts(self) -> dict[str, str]:
        """Return the text of every published document."""
        with closing(self.home.open_current()) as generation:
            return {record.doc_id: generation.corpus.text(record) for record in generation.corpus.documents()}

    def sources(self) -> list[SourceRecord]:
        """Return the sources of the published generation."""
        with closing(self.home.open_current()) as generation:
            return list(generation.manifest.sources)

    def index_folder(self, folder: Path) -> None:
        """Index a folder as the command would."""
        assert self.settings.model is not None
        sync(
            self.home,
            [Source(folder)],
            load_encoder(self.settings.model, cache_folder=self.settings.cache / "models"),
        )


@pytest.fixture
def settings(tmp_path: Path, cache_folder: Path, tiny_model: str) -> Settings:
    return Settings(home=tmp_path / "home", cache=cache_folder, model=tiny_model)


@pytest.fixture
def service(settings: Settings) -> Iterator[Service]:
    service = Service(settings)
    yield service
    service.state.close()


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "router.md").write_text("# Router\n\nThe red light means no power.\n")
    return tmp_path / "docs"


def children() -> set[int]:
    """Return the ids of the indexers that run as children of this process."""
    listed = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    pids = {int(pid) for path in listed for pid in path.read_text().split()}
    return {pid for pid in pids if b"service.indexer" in Path(f"/proc/{pid}/cmdline").read_bytes()}


def test_what_waits_is_gathered_into_one_generation_and_what_is_no_document_fails_alone(
    service: Service, docs: Path
) -> None:
    service.index_folder(docs)
    (docs / "router.md").write_text("# Router\n\nThe blue light means power.\n")
    tasks = [
        service.tasks.enqueue_sync(),
        service.put("a.md", "# A\n\nThe switch."),
        service.put("poison.pdf", POISON),
        service.put("router.md", "# Router\n\nMine."),
        service.put("b.md", "# B\n\nThe light."),
        service.tasks.enqueue_delete("b.md"),
    ]
    with service.indexer() as indexer:
        synced, put, poison, clashing, first, deleted = service.done(*tasks)
        names = [manifest.name for manifest in service.home.manifests()]
        late = service.put("c.md", "# C\n\nThe power.")
        indexer.wake()
        assert service.status(late) == ["succeeded"]
    assert {task.status.value for task in (synced, put, first, deleted)} == {"succeeded"}
    assert {task.generation for task in (synced, put, poison, clashing, deleted)} == {names[0]}
    assert len(names) == 2
    assert poison.documents[0].reason == "unsupported format: it is a program; it holds no document"
    assert str(clashing.documents[0].reason).startswith(f"is the id of a document of {docs}")
    assert service.texts() == {
        "router.md": "# Router\n\nThe blue light means power.\n",
        "a.md": "# A\n\nThe switch.",
        "c.md": "# C\n\nThe power.",
    }
    assert len(list(service.uploads.folder.iterdir())) == 2


def test_a_home_without_an_index_gets_the_bundled_documents_or_none(service: Service, tmp_path: Path) -> None:
    bundled = service.tasks.enqueue_sync(bundled=True)
    other = Service(service.settings.model_copy(update={"home": tmp_path / "empty"}))
    empty = other.tasks.enqueue_sync()
    with service.indexer(), other.indexer():
        assert (service.status(bundled), other.status(empty)) == (["succeeded"], ["succeeded"])
        put = other.put("a.md", "# A\n\nThe switch.")
        assert other.status(put) == ["succeeded"]
    assert [(source.documents, source.is_bundled) for source in service.sources()] == [(5, True)]
    assert other.texts() == {"a.md": "# A\n\nThe switch."}
    other.state.close()


def test_a_folder_that_cannot_be_synced_fails_its_task_and_not_those_beside_it(service: Service, docs: Path) -> None:
    service.index_folder(docs)
    docs.rename(docs.with_name("elsewhere"))
    synced, put = service.tasks.enqueue_sync(), service.put("a.md", "# A\n\nThe switch.")
    with service.indexer():
        assert service.status(synced, put) == ["failed", "succeeded"]
    assert f"No source at {docs}" in str(service.now(synced).error)
    assert set(service.texts()) == {"router.md", "a.md"}


def test_an_indexer_that_is_killed_while_it_writes_is_replaced_and_the_task_succeeds(service: Service) -> None:
    text = "# Long\n\n" + "\n\n".join(f"The light number {number} means power." for number in range(1_000))
    task = service.put("long.md", text)
    with service.indexer():
        until(lambda: any(service.home.generations_path.glob(".building-*/staging.sqlite")), seconds=DONE_S)
        (child,) = children()
        os.kill(child, signal.SIGKILL)
        assert service.status(task) == ["succeeded"]
        assert children() - {child}
    assert service.now(task).attempts == 2
    assert service.texts() == {"long.md": text}


def test_what_an_indexer_was_doing_when_its_worker_ended_is_put_back(service: Service) -> None:
    text = "# Long\n\n" + "\n\n".join(f"The light number {number} means power." for number in range(1_000))
    task = service.put("long.md", text)
    with service.indexer():
        until(lambda: any(service.home.generations_path.glob(".building-*/staging.sqlite")), seconds=DONE_S)
        closing_since = time.monotonic()
    assert time.monotonic() < closing_since + 5
    assert (service.now(task).status, service.now(task).attempts) == (TaskStatus.ENQUEUED, 0)
    assert children() == set()


def test_an_indexer_ends_with_a_worker_that_is_killed_and_the_next_worker_goes_on(service: Service) -> None:
    task = service.put("a.md", "# A\n\nThe switch.")
    worker = subprocess.Popen(
        [sys.executable, "-c", WORKER, service.settings.model_dump_json()], cwd=ROOT, stdout=subprocess.PIPE
    )
    with worker:
        assert worker.stdout is not None
        worker.stdout.readline()
        until(lambda: bool(_children_of(worker.pid)), seconds=DONE_S)
        (child,) = _children_of(worker.pid)
        worker.kill()
    until(lambda: not Path(f"/proc/{child}").exists() or _is_zombie(child), seconds=DONE_S)
    with service.indexer():
        assert service.status(task) == ["succeeded"]


def _children_of(pid: int) -> list[int]:
    listed = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for path in listed for child in path.read_text().split()]


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_two_workers_of_a_home_have_one_indexer_which_does_the_work_of_both(service: Service) -> None:
    other = Service(service.settings)
    first = service.put("a.md", "# A\n\nThe switch.")
    with other.indexer():
        with service.indexer() as indexer:
            assert service.status(first) == ["succeeded"]
            assert len(children()) == 1
            puts = [
                worker.put(f"{name}.md", f"# {name}\n\nThe light.") for worker, name in ((service, "b"), (other, "c"))
            ]
            indexer.wake()
            assert service.status(*puts) == ["succeeded", "succeeded"]
            assert len(children()) == 1
        last = other.put("d.md", "# D\n\nThe power.")
        assert other.status(last) == ["succeeded"]
    assert set(service.texts()) == {"a.md", "b.md", "c.md", "d.md"}
    other.state.close()


def test_an_indexer_waits_for_another_writer(service: Service) -> None:
    task = service.put("a.md", "# A\n\nThe switch.")
    with service.indexer():
        with service.home.writer():
            until(lambda: bool(children()), seconds=DONE_S)
            time.sleep(1)
            assert service.now(task).status is TaskStatus.ENQUEUED
        assert service.status(task) == ["succeeded"]


def test_a_full_disk_is_tried_again_and_nothing_is_lost(service: Service) -> None:
    first = service.put("a.md", "# A\n\nThe switch.")
    with service.indexer():
        assert service.status(first) == ["succeeded"]
        (child,) = children()
        unlimited = resource.prlimit(child, resource.RLIMIT_FSIZE)
        resource.prlimit(child, resource.RLIMIT_FSIZE, (200_000, unlimited[1]))
        task = service.put("large.md", "The red light means no power. " * 6_000)
        until(lambda: service.now(task).error is not None, seconds=DONE_S)
        failed, published = service.now(task), service.home.published_name()
        resource.prlimit(child, resource.RLIMIT_FSIZE, unlimited)
        assert "cannot be written: " in str(failed.error)
        assert published == service.now(first).generation
        assert service.status(task) == ["succeeded"]
    assert set(service.texts()) == {"a.md", "large.md"}


def test_a_generation_that_a_failing_disk_kept_goes_when_the_disk_is_well_again(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexer_module, "RETRY_S", (0.0, 0.0))
    rename = Path.rename

    def fail(path: Path, target: Path) -> Path:
        if "pruned" in Path(target).name:
            raise OSError(errno.EIO, "Input/output error")
        return rename(path, target)

    service = Service(settings.model_copy(update={"keep_generations": 1}))
    with closing(service.state):
        indexing = _Indexing(service.settings, service.state)
        service.put("a.md", "# A\n\nThe switch.")
        indexing._work()
        monkeypatch.setattr(Path, "rename", fail)
        task = service.tasks.enqueue_delete("a.md")
        indexing._work()
        assert service.now(task).status is TaskStatus.SUCCEEDED
        assert not indexing._forgets()
        published, _ = (manifest.name for manifest in service.home.manifests())
        monkeypatch.setattr(Path, "rename", rename)
        assert indexing._forgets()
    assert [path.name for path in service.home.generations_path.iterdir()] == [published]
    assert service.home.published_name() == published
