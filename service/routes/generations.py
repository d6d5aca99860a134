"""The generations of the index: listing them, and rolling back or forward."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from index.errors import GenerationError, WriterBusyError
from service.problems import Problem, documented
from service.schemas.operations import GenerationJson, GenerationsJson, PublishedJson
from service.services import Here

router = APIRouter(tags=["generations"])

WAIT_S = 2.0  # for a writer


@router.get("/v1/generations", responses=documented("index_unavailable"))
def list_generations(services: Here) -> GenerationsJson:
    """List the generations that are kept, newest first."""
    published = services.store.published_name()
    return GenerationsJson(
        generations=[
            GenerationJson.of(manifest, published=manifest.name == published)
            for manifest in services.store.manifests()
        ]
    )


@router.post(
    "/v1/generations/{name}/publish",
    responses=documented("generation_unknown", "generation_damaged", "writer_busy", "index_unavailable"),
)
def publish_generation(
    name: Annotated[str, Path(description="Of a generation in the list.")], services: Here
) -> PublishedJson:
    """Roll back to an earlier generation, or forward again, after checking that it is whole.

    Documents that were put since then come back with the next document that is put.
    """
    try:
        services.home.folder(name)
    except GenerationError as exc:
        raise Problem(
            "generation_unknown", f"There is no generation {name!r}. The list is at /v1/generations."
        ) from exc
    try:
        return PublishedJson(published=services.home.roll_back(name, wait_s=WAIT_S))
    except WriterBusyError as exc:
        raise Problem("writer_busy", "The index is being written. Try again when the task is finished.") from exc
