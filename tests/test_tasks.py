"""Tasks survive a restart, are claimed together and in order, and fail alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from putting import received

from index.errors import StateError
from index.generations import utc_now
from index.sources import Rejected
from index.state import State
from index.uploads import RefusedUpload, Removal, Upload, UploadClash, Uploads
from service.tasks import KEEP_FINISHED, MAX_REJECTED, Task, TaskDocument, TaskKind, TaskQueue, TaskStatus

GENERATION = "20261121T060001Z-3f9c2a"
REASON = "is damaged; save it anew"


class Queue:
    """A queue with the uploads beside it."""

    def __init__(self, folder: Path) -> None:
        self.state = State(folder)
        self.tasks = TaskQueue(self.state)
        self.uploads = Uploads(folder, self.state)

    def put(self, *doc_ids: str, **described: object) -> Task:
        """Enqueue documents."""
        uploads = [received(self.uploads, doc_id, f"Text of {doc_id}.", **described) for doc_id in doc_ids]
        return self.tasks.enqueue_puts(uploads, keep=self.uploads.keep)

    def finish(self, *tasks: Task, refused: dict[str, str] | None = None, rejected: Sequence[Rejected] = ()) -> None:
        """Note that tasks are done."""
        self.tasks.finish(tasks, generation=GENERATION, refused=refused or {}, rejected=rejected)

    def claim(self) -> list[str]:
        """Claim what is to be done, and return the ids."""
        return [task.id for task in self.tasks.claim()]

    def task(self, task: Task) -> Task:
        """Return a task as it is now."""
        found = self.tasks.get(task.id)
        assert found is not None
        return found

    def status(self, *tasks: Task) -> list[str]:
        """Return the status of each task."""
        return [self.task(task).status.value for task in tasks]

    def files(self) -> set[str]:
        """Return the names of the files of the uploads."""
        return {path.name for path in self.uploads.folder.iterdir()}


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[Queue]:
    queue = Queue(tmp_path / "home")
    yield queue
    queue.state.close()


def uploads_of(task: Task) -> list[Upload]:
    return [document.upload for document in task.documents if document.upload is not None]


# Enqueueing


def test_an_enqueued_put_says_what_is_put(queue: Queue) -> None:
    task = queue.put("a.md", "b.md", title="Title", metadata={"year": 2024, "tags": ["x"]})
    assert (task.kind, task.status, task.attempts) == (TaskKind.PUT, TaskStatus.ENQUEUED, 0)
    assert (task.started, task.finished, task.generation, task.error) == (None, None, None, None)
    assert [document.doc_id for document in task.documents] == ["a.md", "b.md"]
    assert [change.doc_id for change in task.changes] == ["a.md", "b.md"]
    assert uploads_of(task)[0].metadata == {"year": 2024, "tags": ["x"]}
    assert queue.task(task) == task
    assert queue.files() == {upload.file for upload in uploads_of(task)}


def test_a_put_whose_file_cannot_be_kept_is_not_enqueued(queue: Queue) -> None:
    upload = received(queue.uploads, "a.md", "Text.")

    def fail(_: Sequence[Upload]) -> None:
        raise StateError("There is no room.")

    with pytest.raises(StateError, match="no room"):
        queue.tasks.enqueue_puts([upload], keep=fail)
    assert not queue.tasks.has_unfinished()
    assert queue.tasks.page(limit=10) == []


def test_a_delete_says_what_is_deleted(queue: Queue) -> None:
    task = queue.tasks.enqueue_delete("a.md")
    assert task.documents == (TaskDocument("a.md", TaskKind.DELETE, TaskStatus.ENQUEUED),)
    assert task.changes == [Removal("a.md")]


def test_a_sync_that_waits_already_is_not_enqueued_twice(queue: Queue) -> None:
    first = queue.tasks.enqueue_sync()
    assert queue.tasks.enqueue_sync(bundled=True).id == first.id
    (claimed,) = queue.tasks.claim()
    assert claimed.is_bundled
    assert queue.tasks.enqueue_sync().id != first.id  # one that has begun may have read a file too early


def test_ids_sort_as_tasks_came(queue: Queue) -> None:
    ids = [queue.tasks.enqueue_delete(f"{number}.md").id for number in range(20)]
    assert ids == sorted(ids)
    assert len(set(ids)) == 20


# Claiming


def test_everything_that_waits_is_claimed_together_in_the_order_in_which_it_came(queue: Queue) -> None:
    tasks = [queue.put("a.md"), queue.tasks.enqueue_delete("a.md"), queue.tasks.enqueue_sync(), queue.put("b.md")]
    assert queue.claim() == [task.id for task in tasks]
    for task in map(queue.task, tasks):
        assert (task.status, task.attempts) == (TaskStatus.PROCESSING, 1)
        assert task.started is not None
        assert all(document.status is TaskStatus.PROCESSING for document in task.documents)


def test_nothing_is_claimed_where_nothing_waits(queue: Queue) -> None:
    queue.finish(*[queue.put("a.md")])
    assert queue.claim() == []


def test_tasks_survive_a_restart_and_an_interrupted_one_is_taken_up_again(queue: Queue, tmp_path: Path) -> None:
    interrupted = queue.put("a.md")
    queue.tasks.claim()
    waiting = queue.put("b.md")
    queue.state.close()
    again = Queue(tmp_path / "home")
    assert again.status(interrupted, waiting) == ["processing", "enqueued"]
    claimed = again.tasks.claim()
    assert [(task.id, task.attempts) for task in claimed] == [(interrupted.id, 2), (waiting.id, 1)]
    assert uploads_of(claimed[0]) == uploads_of(interrupted)
    again.state.close()


def test_what_ends_its_indexer_again_and_again_is_tried_alone_and_then_fails(queue: Queue) -> None:
    poison, good, late = queue.put("poison.pdf"), queue.put("a.md"), None
    for _ in range(2):
        assert queue.claim() == [poison.id, good.id]
    late = queue.put("b.md")
    assert queue.claim() == [poison.id]
    assert queue.claim() == [good.id]  # the poison has failed, and the other one is suspect as well
    assert queue.status(poison) == ["failed"]
    assert "ended 3 times" in str(queue.task(poison).error)
    assert queue.task(poison).documents[0].status is TaskStatus.FAILED
    queue.finish(good)
    assert queue.claim() == [late.id]


def test_what_is_released_counts_as_not_taken_up(queue: Queue) -> None:
    task = queue.put("a.md")
    for _ in range(5):
        queue.tasks.release(queue.tasks.claim())
    assert (queue.status(task), queue.task(task).attempts) == (["enqueued"], 0)
    assert queue.task(task).documents[0].status is TaskStatus.ENQUEUED


def test_what_is_finished_is_not_released_or_tried_again(queue: Queue) -> None:
    queue.put("a.md")
    claimed = queue.tasks.claim()
    queue.finish(*claimed)
    queue.tasks.release(claimed)
    queue.tasks.retry(claimed, "The disk is full.")
    assert queue.status(*claimed) == ["succeeded"]


def test_what_fails_for_a_reason_that_may_pass_is_tried_three_times(queue: Queue) -> None:
    task = queue.put("a.md")
    for attempt in range(1, 4):
        queue.tasks.retry(queue.tasks.claim(), f"The disk is full, {attempt}.")
        assert queue.task(task).error == f"The disk is full, {attempt}."
    assert queue.status(task) == ["failed"]
    assert queue.task(task).documents[0].reason == "The disk is full, 3."
    assert queue.claim() == []


# Ending


def test_a_finished_task_names_the_generation_and_forgets_what_was_put(queue: Queue) -> None:
    put, delete = queue.put("a.md", title="A secret title"), queue.tasks.enqueue_delete("b.md")
    queue.finish(*queue.tasks.claim())
    for task in map(queue.task, (put, delete)):
        assert (task.status, task.generation, task.error) == (TaskStatus.SUCCEEDED, GENERATION, None)
        assert task.finished is not None
        assert task.documents[0].status is TaskStatus.SUCCEEDED
        assert task.documents[0].upload is None
    assert any(b"A secret title" in path.read_bytes() for path in queue.state.path.parent.glob("state.sqlite*"))
    queue.state.truncate_log()
    assert all(b"A secret title" not in path.read_bytes() for path in queue.state.path.parent.glob("state.sqlite*"))


def test_a_document_that_is_refused_fails_its_task_but_not_the_others_in_it(queue: Queue) -> None:
    task, other = queue.put("a.md", "b.pdf", "c.md"), queue.put("d.md")
    queue.tasks.claim()
    queue.finish(task, other, refused={uploads_of(task)[1].file: REASON})
    assert queue.status(task, other) == ["failed", "succeeded"]
    found = queue.task(task)
    assert (found.error, found.generation) == (f"1 of 3 documents failed. b.pdf: {REASON}", GENERATION)
    assert [(document.status.value, document.reason) for document in found.documents] == [
        ("succeeded", None),
        ("failed", REASON),
        ("succeeded", None),
    ]


def test_a_sync_succeeds_and_names_what_it_could_not_read(queue: Queue) -> None:
    queue.tasks.enqueue_sync()
    (sync,) = queue.tasks.claim()
    of_folders = [Rejected(f"{number}.bin", REASON) for number in range(MAX_REJECTED + 1)]
    of_uploads = [RefusedUpload("x.md", REASON, "file"), UploadClash("y.md", REASON)]
    queue.finish(sync, rejected=[*of_uploads, *of_folders])
    found = queue.task(sync)
    assert found.status is TaskStatus.SUCCEEDED
    assert len(found.documents) == MAX_REJECTED
    assert found.documents[0] == TaskDocument("0.bin", TaskKind.SYNC, TaskStatus.FAILED, REASON)


def test_a_task_fails_as_a_whole(queue: Queue) -> None:
    sync, put = queue.tasks.enqueue_sync(), queue.put("a.md")
    queue.tasks.claim()
    queue.tasks.fail([sync], "There is no such folder.")
    assert queue.status(sync, put) == ["failed", "processing"]
    assert queue.task(sync).error == "There is no such folder."


def test_only_a_task_that_waits_can_be_canceled(queue: Queue) -> None:
    claimed = queue.put("a.md")
    queue.tasks.claim()
    waiting = queue.put("b.md")
    canceled = queue.tasks.cancel(waiting.id)
    assert canceled is not None
    assert (canceled.status, canceled.documents[0].status) == (TaskStatus.CANCELED, TaskStatus.CANCELED)
    still = queue.tasks.cancel(claimed.id)
    assert still is not None
    assert still.status is TaskStatus.PROCESSING
    assert queue.tasks.cancel("unknown") is None


def test_files_that_no_unfinished_task_needs_are_swept(queue: Queue) -> None:
    canceled, waiting = queue.put("a.md"), queue.put("b.md")
    queue.tasks.cancel(canceled.id)
    queue.tasks.sweep(queue.uploads)
    assert queue.files() == {upload.file for upload in uploads_of(waiting)}


# Looking


def test_tasks_are_listed_newest_first_page_by_page(queue: Queue) -> None:
    tasks = [queue.tasks.enqueue_delete(f"{number}.md") for number in range(5)]
    newest_first = [task.id for task in reversed(tasks)]
    first = queue.tasks.page(limit=2)
    assert [task.id for task in first] == newest_first[:2]
    assert first[0].documents[0].doc_id == "4.md"
    assert [task.id for task in queue.tasks.page(limit=9, before=first[-1].id)] == newest_first[2:]


def test_tasks_are_listed_by_status(queue: Queue) -> None:
    done, waiting = queue.put("a.md"), queue.put("b.md")
    queue.finish(done)
    assert [task.id for task in queue.tasks.page(limit=9, status=TaskStatus.ENQUEUED)] == [waiting.id]
    assert [task.id for task in queue.tasks.page(limit=9, status=TaskStatus.SUCCEEDED)] == [done.id]


def test_tasks_are_counted_by_status(queue: Queue) -> None:
    queue.finish(queue.put("a.md"))
    queue.put("b.md")
    assert {status.value: count for status, count in queue.tasks.counts().items()} == {
        "enqueued": 1,
        "processing": 0,
        "succeeded": 1,
        "failed": 0,
        "canceled": 0,
    }


def test_the_last_unfinished_task_says_what_is_to_become_of_a_document(queue: Queue) -> None:
    assert queue.tasks.pending("a.md") is None
    put = queue.put("a.md")
    assert queue.tasks.pending("a.md") is TaskKind.PUT
    delete = queue.tasks.enqueue_delete("a.md")
    assert queue.tasks.pending("a.md") is TaskKind.DELETE
    queue.finish(put, delete)
    assert queue.tasks.pending("a.md") is None


def test_finished_tasks_are_forgotten_after_a_while(queue: Queue) -> None:
    old, new, waiting = queue.put("a.md"), queue.put("b.md"), queue.put("c.md")
    queue.finish(old, new)
    long_ago = (utc_now() - timedelta(days=8)).isoformat(timespec="milliseconds")
    with queue.state.transaction() as connection:
        connection.execute("UPDATE tasks SET finished = ? WHERE id = ?", (long_ago, old.id))
        connection.execute("UPDATE tasks SET created = ? WHERE id = ?", (long_ago, waiting.id))
    queue.tasks.claim()
    assert queue.tasks.get(old.id) is None
    assert queue.status(new, waiting) == ["succeeded", "processing"]
    with queue.state.reading() as connection:
        assert connection.execute("SELECT count(*) FROM task_documents").fetchone()[0] == 2


def test_only_so_many_finished_tasks_are_kept(queue: Queue) -> None:
    with queue.state.transaction() as connection:
        connection.executemany(
            "INSERT INTO tasks (id, kind, status, created, finished) VALUES (?, 'sync', 'succeeded', ?, ?)",
            [(f"{number:05d}", *[utc_now().isoformat()] * 2) for number in range(KEEP_FINISHED + 3)],
        )
    queue.put("a.md")
    queue.tasks.claim()
    assert queue.tasks.counts()[TaskStatus.SUCCEEDED] == KEEP_FINISHED
    assert queue.tasks.get("00002") is None
    assert queue.tasks.get("00003") is not None
