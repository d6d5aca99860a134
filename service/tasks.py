"""Tasks: what is to be written to the index, kept in the state of the home so that it survives whatever happens.

A task is enqueued by whoever answers a request, in the transaction that makes the request's effect certain. It is
claimed by an indexer, which must hold the writer's lock of the home: that lock is the lease. Who holds it and finds
tasks that are being processed knows that they were interrupted, and takes them up again.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import cast

from index.generations import utc_now
from index.sources import Rejected
from index.state import State
from index.uploads import Change, RefusedUpload, Removal, Upload, UploadClash, Uploads

MAX_ATTEMPTS = 3
KEEP_DAYS = 7  # for which finished tasks can be looked up
KEEP_FINISHED = 10_000  # of them at most
MAX_REJECTED = 100  # files that a sync could not read, named in its task

TABLES = (
    """
    CREATE TABLE IF NOT EXISTS tasks (
        number INTEGER PRIMARY KEY AUTOINCREMENT,  -- the order in which they came
        id TEXT NOT NULL UNIQUE,
        kind TEXT NOT NULL,
        status TEXT NOT NULL,
        created TEXT NOT NULL,                     -- UTC, ISO 8601, as all moments
        started TEXT,
        finished TEXT,
        generation TEXT,
        error TEXT,
        attempts INTEGER NOT NULL DEFAULT 0,       -- how often it was claimed
        is_bundled INTEGER NOT NULL DEFAULT 0
    )
    """,
    "CREATE INDEX IF NOT EXISTS tasks_by_status ON tasks (status, number)",
    """
    CREATE TABLE IF NOT EXISTS task_documents (
        number INTEGER NOT NULL REFERENCES tasks (number),
        position INTEGER NOT NULL,
        doc_id TEXT NOT NULL,
        action TEXT NOT NULL,
        status TEXT NOT NULL,
        reason TEXT,
        upload TEXT,                               -- JSON: what is put; NULL once the task is finished
        PRIMARY KEY (number, position)
    ) WITHOUT ROWID
    """,
    "CREATE INDEX IF NOT EXISTS task_documents_by_id ON task_documents (doc_id, number)",
)


class TaskKind(Enum):
    """What a task does."""

    PUT = "put"
    DELETE = "delete"
    SYNC = "sync"


class TaskStatus(Enum):
    """How far a task, or one document of it, is."""

    ENQUEUED = "enqueued"
    PROCESSING = "processing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"


@dataclass(frozen=True)
class TaskDocument:
    """A document of a task.

    Attributes:
        doc_id: of the document.
        action: what happens to it: it is put, deleted, or was met by a sync.
        status: of this document; another one of the same task may end otherwise.
        reason: why it failed.
        upload: what is put; None for other actions and once the task is finished.
    """

    doc_id: str
    action: TaskKind
    status: TaskStatus
    reason: str | None = None
    upload: Upload | None = None


@dataclass(frozen=True)
class Task:
    """Something to be written to the index.

    Attributes:
        id: sorts by the moment of creation.
        kind: what it does.
        status: how far it is.
        created, started, finished: moments in UTC, ISO 8601; None for what has not happened.
        generation: the one that first holds its effect; None until it succeeded.
        error: why it failed; of one that is enqueued again, why the last attempt did.
        attempts: how often it was taken up.
        is_bundled: of a sync, whether the bundled documents are indexed where nothing has been published.
        documents: put or deleted; of a sync those that could not be read.
    """

    id: str
    kind: TaskKind
    status: TaskStatus
    created: str
    started: str | None
    finished: str | None
    generation: str | None
    error: str | None
    attempts: int
    is_bundled: bool
    documents: tuple[TaskDocument, ...]

    @property
    def changes(self) -> list[Change]:
        """What it changes among the uploads, in order."""
        puts = [document.upload for document in self.documents if document.upload is not None]
        deletes = [Removal(each.doc_id) for each in self.documents if each.action is TaskKind.DELETE]
        return [*puts, *deletes]


class TaskQueue:
    """The tasks of a home, in the order in which they came; its methods may be called from any thread.

    Args:
        state: of the home.

    Raises:
        StateError: by every method, when the state cannot be read or written.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        state.create(*TABLES)

    def enqueue_puts(self, uploads: Sequence[Upload], *, keep: Callable[[Sequence[Upload]], None]) -> Task:
        """Enqueue documents to be put.

        Args:
            uploads: received in full.
            keep: makes their files stay; called before the task becomes visible, which it never does if that fails.
        """
        documents = [
            TaskDocument(upload.doc_id, TaskKind.PUT, TaskStatus.ENQUEUED, upload=upload) for upload in uploads
        ]
        with self._state.transaction() as connection:
            keep(uploads)
            return _insert(connection, TaskKind.PUT, documents)

    def enqueue_delete(self, doc_id: str) -> Task:
        """Enqueue a document to be deleted."""
        with self._state.transaction() as connection:
            document = TaskDocument(doc_id, TaskKind.DELETE, TaskStatus.ENQUEUED)
            return _insert(connection, TaskKind.DELETE, [document])

    def enqueue_sync(self, *, bundled: bool = False) -> Task:
        """Enqueue a sync of the known folders, or return the one that waits already.

        Args:
            bundled: whether to index the bundled documents where nothing has been published.
        """
        with self._state.transaction() as connection:
            waiting = _select(connection, "kind = 'sync' AND status = 'enqueued'", ())
            if not waiting:
                return _insert(connection, TaskKind.SYNC, [], is_bundled=bundled)
            if bundled:
                connection.execute("UPDATE tasks SET is_bundled = 1 WHERE id = ?", (waiting[0].id,))
            return waiting[0]

    def claim(self) -> list[Task]:
        """Take up what is to be done together, in the order in which it came; the writer's lock must be held.

        That is everything, but for a task that has ended its indexer again and again: that one is tried alone, so
        that no other fails with it, and then it fails.
        """
        with self._state.transaction() as connection:
            _prune(connection)
            interrupted = _select(connection, "status = 'processing'", ())
            _fail(connection, [task for task in interrupted if task.attempts >= MAX_ATTEMPTS], _ended_its_indexer())
            suspects = [task for task in interrupted if task.attempts == MAX_ATTEMPTS - 1]
            claimed = suspects[:1] or _select(connection, "status IN ('processing', 'enqueued')", ())
            connection.executemany(
                "UPDATE tasks SET status = 'processing', started = ?, attempts = attempts + 1, error = NULL "
                "WHERE id = ?",
                [(_now(), task.id) for task in claimed],
            )
            _set_documents(connection, claimed, TaskStatus.PROCESSING)
            return _still_processing(connection, claimed)

    def release(self, tasks: Iterable[Task]) -> None:
        """Put back what was claimed and is not finished, as if it had not been taken up."""
        with self._state.transaction() as connection:
            claimed = _still_processing(connection, tasks)
            _put_back(connection, claimed)
            connection.executemany(
                "UPDATE tasks SET attempts = attempts - 1 WHERE id = ?", [(task.id,) for task in claimed]
            )

    def finish(
        self,
        tasks: Iterable[Task],
        *,
        generation: str,
        refused: Mapping[str, str],
        rejected: Sequence[Rejected] = (),
    ) -> None:
        """Note that what was claimed is done.

        Args:
            tasks: as claimed.
            generation: that holds their effect.
            refused: file of an upload -> why it is no document.
            rejected: what a sync among them could not read.
        """
        with self._state.transaction() as connection:
            for task in tasks:
                _finish(connection, task, generation, refused)
                if task.kind is TaskKind.SYNC:
                    _add_rejected(connection, task, rejected)

    def fail(self, tasks: Iterable[Task], error: str) -> None:
        """Note that tasks failed as a whole."""
        with self._state.transaction() as connection:
            _fail(connection, tasks, error)

    def retry(self, tasks: Iterable[Task], error: str) -> None:
        """Put back what was claimed and failed for a reason that may pass; what was tried often enough fails."""
        with self._state.transaction() as connection:
            claimed = _still_processing(connection, tasks)
            _put_back(connection, [task for task in claimed if task.attempts < MAX_ATTEMPTS], error=error)
            _fail(connection, [task for task in claimed if task.attempts >= MAX_ATTEMPTS], error)

    def cancel(self, task_id: str) -> Task | None:
        """Cancel a task that is enqueued; return it as it is now, None when there is no such task."""
        with self._state.transaction() as connection:
            for task in _select(connection, "id = ? AND status = 'enqueued'", (task_id,)):
                _end(connection, task, TaskStatus.CANCELED)
                _set_documents(connection, [task], TaskStatus.CANCELED)
        return self.get(task_id)

    def get(self, task_id: str) -> Task | None:
        """Return a task, None when there is none of that id."""
        with self._state.reading() as connection:
            return next(iter(_select(connection, "id = ?", (task_id,))), None)

    def page(self, *, limit: int, before: str | None = None, status: TaskStatus | None = None) -> list[Task]:
        """List tasks, newest first.

        Args:
            limit: how many at most.
            before: id of a task, which need not be there any more; only older ones are listed. None for all.
            status: only these; None for all.
        """
        condition = "(?1 IS NULL OR id < ?1) AND (?2 IS NULL OR status = ?2)"
        values = (before, None if status is None else status.value)
        with self._state.reading() as connection:
            return _select(connection, condition, values, order="id DESC", limit=limit)

    def counts(self) -> dict[TaskStatus, int]:
        """Count the tasks of each status."""
        with self._state.reading() as connection:
            counted = dict(map(tuple, connection.execute("SELECT status, count(*) FROM tasks GROUP BY status")))
        return {status: counted.get(status.value, 0) for status in TaskStatus}

    def has_unfinished(self) -> bool:
        """Tell whether there is anything to do or being done."""
        with self._state.reading() as connection:
            found = connection.execute("SELECT 1 FROM tasks WHERE status IN ('enqueued', 'processing') LIMIT 1")
            return found.fetchone() is not None

    def pending(self, doc_id: str) -> TaskKind | None:
        """Tell what the last unfinished task that names a document does to it, None when none does."""
        with self._state.reading() as connection:
            row = connection.execute(
                "SELECT d.action FROM task_documents AS d JOIN tasks AS t USING (number) "
                "WHERE d.doc_id = ? AND t.status IN ('enqueued', 'processing') "
                "ORDER BY d.number DESC, d.position DESC LIMIT 1",
                (doc_id,),
            ).fetchone()
        return None if row is None else TaskKind(row["action"])

    def sweep(self, uploads: Uploads) -> None:
        """Remove files of uploads that are no document and are not to be one."""
        with self._state.transaction() as connection:  # so that none is kept meanwhile
            rows = connection.execute(
                "SELECT json_extract(d.upload, '$.file') FROM task_documents AS d JOIN tasks AS t USING (number) "
                "WHERE t.status IN ('enqueued', 'processing') AND d.upload IS NOT NULL"
            )
            uploads.sweep(needed=frozenset(file for (file,) in rows))


def _insert(
    connection: sqlite3.Connection, kind: TaskKind, documents: Sequence[TaskDocument], *, is_bundled: bool = False
) -> Task:
    cursor = connection.execute(
        "INSERT INTO tasks (id, kind, status, created, is_bundled) VALUES (?, ?, 'enqueued', ?, ?)",
        (secrets.token_hex(8), kind.value, _now(), is_bundled),
    )
    number = cast(int, cursor.lastrowid)
    # The number comes first, so that ids sort as tasks came, whatever the clock does.
    connection.execute("UPDATE tasks SET id = printf('%010x', number) || id WHERE number = ?", (number,))
    _insert_documents(connection, number, documents)
    (task,) = _select(connection, "number = ?", (number,))
    return task


def _insert_documents(connection: sqlite3.Connection, number: int, documents: Iterable[TaskDocument]) -> None:
    connection.executemany(
        "INSERT INTO task_documents (number, position, doc_id, action, status, reason, upload) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        [
            (number, position, each.doc_id, each.action.value, each.status.value, each.reason, _as_json(each.upload))
            for position, each in enumerate(documents)
        ],
    )


def _select(
    connection: sqlite3.Connection,
    condition: str,
    values: Sequence[object],
    *,
    order: str = "number",
    limit: int = -1,
) -> list[Task]:
    """Read tasks with their documents; condition and order are constants of this module."""
    found = f"SELECT * FROM tasks WHERE {condition} ORDER BY {order} LIMIT {limit:d}"  # noqa: S608
    rows = connection.execute(found, values).fetchall()
    documents: dict[int, list[TaskDocument]] = {row["number"]: [] for row in rows}
    for row in connection.execute(
        "SELECT d.* FROM json_each(?) AS wanted JOIN task_documents AS d ON d.number = wanted.value "
        "ORDER BY d.number, d.position",
        (json.dumps(list(documents)),),
    ):
        documents[row["number"]].append(_document(row))
    return [_task(row, documents[row["number"]]) for row in rows]


def _still_processing(connection: sqlite3.Connection, tasks: Iterable[Task]) -> list[Task]:
    task_ids = json.dumps([task.id for task in tasks])
    return _select(connection, "status = 'processing' AND id IN (SELECT value FROM json_each(?))", (task_ids,))


def _put_back(connection: sqlite3.Connection, tasks: Iterable[Task], *, error: str | None = None) -> None:
    for task in tasks:
        connection.execute("UPDATE tasks SET status = 'enqueued', error = ? WHERE id = ?", (error, task.id))
        _set_documents(connection, [task], TaskStatus.ENQUEUED)


def _task(row: sqlite3.Row, documents: Iterable[TaskDocument]) -> Task:
    return Task(
        id=row["id"],
        kind=TaskKind(row["kind"]),
        status=TaskStatus(row["status"]),
        created=row["created"],
        started=row["started"],
        finished=row["finished"],
        generation=row["generation"],
        error=row["error"],
        attempts=row["attempts"],
        is_bundled=bool(row["is_bundled"]),
        documents=tuple(documents),
    )


def _document(row: sqlite3.Row) -> TaskDocument:
    upload = None if row["upload"] is None else Upload(**json.loads(row["upload"]))
    return TaskDocument(row["doc_id"], TaskKind(row["action"]), TaskStatus(row["status"]), row["reason"], upload)


def _as_json(upload: Upload | None) -> str | None:
    return None if upload is None else json.dumps(asdict(upload), ensure_ascii=False)


def _finish(connection: sqlite3.Connection, task: Task, generation: str, refused: Mapping[str, str]) -> None:
    """End a task, with each of its documents as it turned out."""
    reasons = [None if each.upload is None else refused.get(each.upload.file) for each in task.documents]
    failed = [f"{each.doc_id}: {reason}" for each, reason in zip(task.documents, reasons, strict=True) if reason]
    if failed:
        error = f"{len(failed)} of {len(reasons)} documents failed. {failed[0]}"
        _end(connection, task, TaskStatus.FAILED, generation=generation, error=error)
    else:
        _end(connection, task, TaskStatus.SUCCEEDED, generation=generation)
    connection.executemany(
        "UPDATE task_documents SET status = ?, reason = ? "
        "WHERE number = (SELECT number FROM tasks WHERE id = ?) AND position = ?",
        [
            ((TaskStatus.FAILED if reason else TaskStatus.SUCCEEDED).value, reason, task.id, position)
            for position, reason in enumerate(reasons)
        ],
    )


def _add_rejected(connection: sqlite3.Connection, task: Task, rejected: Sequence[Rejected]) -> None:
    """Name what a sync could not read."""
    (number,) = connection.execute("SELECT number FROM tasks WHERE id = ?", (task.id,)).fetchone()
    documents = [
        TaskDocument(each.path, TaskKind.SYNC, TaskStatus.FAILED, each.reason)
        for each in rejected
        if not isinstance(each, RefusedUpload | UploadClash)
    ]
    _insert_documents(connection, number, documents[:MAX_REJECTED])


def _fail(connection: sqlite3.Connection, tasks: Iterable[Task], error: str) -> None:
    for task in tasks:
        _end(connection, task, TaskStatus.FAILED, error=error)
        _set_documents(connection, [task], TaskStatus.FAILED, reason=error)


def _end(
    connection: sqlite3.Connection,
    task: Task,
    status: TaskStatus,
    *,
    generation: str | None = None,
    error: str | None = None,
) -> None:
    """End a task, and forget what was put: from now on the uploads know it, or nobody should."""
    connection.execute(
        "UPDATE tasks SET status = ?, finished = ?, generation = ?, error = ? WHERE id = ?",
        (status.value, _now(), generation, error, task.id),
    )
    connection.execute(
        "UPDATE task_documents SET upload = NULL WHERE number = (SELECT number FROM tasks WHERE id = ?)", (task.id,)
    )


def _set_documents(
    connection: sqlite3.Connection, tasks: Iterable[Task], status: TaskStatus, *, reason: str | None = None
) -> None:
    connection.executemany(
        "UPDATE task_documents SET status = ?, reason = ? WHERE number = (SELECT number FROM tasks WHERE id = ?)",
        [(status.value, reason, task.id) for task in tasks],
    )


def _prune(connection: sqlite3.Connection) -> None:
    """Forget tasks that were finished long ago, or that are too many."""
    finished = "SELECT number FROM tasks WHERE finished IS NOT NULL"
    too_many = f"{finished} ORDER BY number DESC LIMIT -1 OFFSET {KEEP_FINISHED}"
    oldest = _moment(utc_now() - timedelta(days=KEEP_DAYS))
    condition = f"number IN ({finished} AND finished < ?) OR number IN ({too_many})"
    for table in ("task_documents", "tasks"):
        connection.execute(f"DELETE FROM {table} WHERE {condition}", (oldest,))  # noqa: S608 (constants)


def _now() -> str:
    return _moment(utc_now())


def _moment(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds")


def _ended_its_indexer() -> str:
    return (
        f"The indexer ended {MAX_ATTEMPTS} times while it worked on this. Nothing of it was kept. The log says more; "
        "a document that needs more memory than there is can be split."
    )
