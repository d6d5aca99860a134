"""What is to be written to the index, and how far it is."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query

from service.problems import Problem, documented
from service.schemas.documents import TaskJson, TasksJson, TasksQuery, TaskSummaryJson
from service.services import Here
from service.tasks import Task, TaskStatus

router = APIRouter(tags=["tasks"])

TaskId = Annotated[str, Path(description="Of a task, as the answer of a write gives it.")]


@router.get("/v1/tasks", responses=documented("invalid_request", "storage_unavailable"))
def list_tasks(asked: Annotated[TasksQuery, Query()], services: Here) -> TasksJson:
    """List tasks, newest first. Finished ones are kept for 7 days."""
    status = None if asked.status is None else TaskStatus(asked.status)
    found = services.tasks.page(limit=asked.limit + 1, before=asked.cursor, status=status)
    page = found[: asked.limit]
    return TasksJson(
        tasks=[TaskSummaryJson.of(task) for task in page],
        next_cursor=page[-1].id if len(found) > asked.limit else None,
    )


@router.get("/v1/tasks/{task_id}", responses=documented("task_unknown", "storage_unavailable"))
def task(task_id: TaskId, services: Here) -> TaskJson:
    """Say how far a task is, and why what failed did."""
    return TaskJson.of(_known(services.tasks.get(task_id), task_id))


@router.delete("/v1/tasks/{task_id}", responses=documented("task_unknown", "task_started", "storage_unavailable"))
def cancel_task(task_id: TaskId, services: Here) -> TaskJson:
    """Cancel a task that is enqueued; what was sent with it is removed."""
    canceled = _known(services.tasks.cancel(task_id), task_id)
    if canceled.status is not TaskStatus.CANCELED:
        raise Problem(
            "task_started", f"The task is {canceled.status.value}. Only one that is enqueued can be canceled."
        )
    services.tasks.sweep(services.uploads)
    return TaskJson.of(canceled)


def _known(task: Task | None, task_id: str) -> Task:
    if task is None:
        raise Problem("task_unknown", f"There is no task {task_id!r}, or it finished more than 7 days ago.")
    return task
