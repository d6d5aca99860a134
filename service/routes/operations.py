"""What those who run the service ask it: whether it lives, whether it is ready, and its metrics."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from service.metrics import MEDIA_TYPE
from service.problems import Problem, documented
from service.schemas.answers import ModelJson
from service.schemas.operations import HealthJson, ReadyJson
from service.services import Here

router = APIRouter(tags=["operations"])


@router.get("/livez")
async def live() -> HealthJson:
    """Say that the process lives; if it does not answer, start it anew."""
    return HealthJson(status="ok")


@router.get("/readyz", responses=documented("starting"))
async def ready(services: Here) -> ReadyJson:
    """Say whether questions are answered: not before the index and the model are loaded."""
    if not services.serving.is_ready:
        raise Problem("starting", "The index and the model are not loaded yet. Ask again in a moment.")
    with services.serving.lease() as served:
        reranker = served.reranker and ModelJson.model_validate(served.reranker.model)
    return ReadyJson(status="ok", reranker=reranker)


@router.get(
    "/metrics",
    response_class=Response,
    responses={
        200: {"description": "Metrics for Prometheus", "content": {MEDIA_TYPE: {}}},
        **documented("storage_unavailable"),
    },
)
def metrics(services: Here) -> Response:
    """Give counts and times in the text format of Prometheus."""
    tasks = {status.value: count for status, count in services.tasks.counts().items()}
    return Response(services.metrics.render(tasks=tasks), media_type=MEDIA_TYPE)
