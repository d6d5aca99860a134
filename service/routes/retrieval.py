"""Passages for programs that bring a model of their own, each in the form that it expects: Dify, Open WebUI."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from anyio import to_thread
from fastapi import APIRouter, Request

from index.answers import Answer, Question
from index.errors import QuestionError
from index.filters import Filters
from service.addresses import linking
from service.departures import departure
from service.filter_syntax import readings
from service.problems import Problem, documented
from service.routes.asking import REFUSED, WAITING, log_questions
from service.schemas.dify import (
    DifyConditionJson,
    DifyConditionsJson,
    DifyQueryJson,
    DifyRecordJson,
    DifyRecordsJson,
)
from service.schemas.open_webui import WebResultJson, WebResultsJson, WebSearchJson
from service.services import Here, Services

router = APIRouter(tags=["retrieval"])

EVERYTHING = ("whence", "*")  # as a knowledge_id
BOUNDS = {">": "gt", "<": "lt", "≥": "gte", "≤": "lte", "after": "gt", "before": "lt"}
EQUALITIES = ("is", "=", "in")
BEGINNING = "start with"


@router.post(
    "/retrieval",
    responses=documented("invalid_question", "knowledge_unknown", *REFUSED, *WAITING),
)
async def retrieve(body: DifyQueryJson, request: Request, services: Here) -> DifyRecordsJson:
    """Find passages for Dify, as an external knowledge base: those that have at least the score that it wants."""
    setting = body.retrieval_setting
    filters = _filters(body)
    await to_thread.run_sync(_check_knowledge, body.knowledge_id, services)
    answer = await _answer(body.query, setting.top_k, filters, request, services)
    link = linking(request, services.settings)
    threshold = setting.score_threshold or 0.0
    found = [passage for passage in answer.passages if passage.score >= threshold]
    return DifyRecordsJson(records=[DifyRecordJson.of(passage, answer, link) for passage in found])


@router.post("/v1/web-search", responses=documented("invalid_question", *REFUSED, *WAITING))
async def web_search(body: WebSearchJson, request: Request, services: Here) -> WebResultsJson:
    """Find passages for Open WebUI, as an external web search: none when the documents do not answer."""
    answer = await _answer(body.query, body.count, None, request, services)
    link = linking(request, services.settings)
    return WebResultsJson([WebResultJson.of(passage, link) for passage in answer.passages if answer.answered])


async def _answer(
    query: str, top_k: int | None, filters: Filters | None, request: Request, services: Services
) -> Answer:
    settings = services.settings
    question = Question(
        query,
        top_k=settings.top_k if top_k is None else top_k,
        filters=filters,
        min_confidence=settings.min_confidence,
    )
    (answer,) = await services.line.ask([question], gone=departure(request.receive))
    log_questions([answer], request.scope, services)
    return answer


def _check_knowledge(knowledge_id: str, services: Services) -> None:
    """Refuse a knowledge_id with which the id of no document begins."""
    with services.serving.corpus() as corpus:
        if knowledge_id not in EVERYTHING and not (knowledge_id and corpus.page(prefix=knowledge_id, limit=1)):
            raise Problem(
                "knowledge_unknown",
                f"The id of no document begins with {knowledge_id!r}. For all documents the External Knowledge ID is "
                f"{EVERYTHING[0]}.",
            )


def _filters(body: DifyQueryJson) -> Filters:
    filters: dict[str, Any] = {}
    if body.knowledge_id not in EVERYTHING:
        filters["doc_id"] = {"prefix": body.knowledge_id}
    for condition in _conditions(body.metadata_condition):
        name = _name(condition)
        before, more = filters.get(name, {}), _filter(condition)
        if name in filters and not _are_bounds(before, more):
            raise QuestionError(f"There are two conditions on {name!r} that cannot be combined. Send one of them.")
        filters[name] = {**before, **more} if name in filters else more
    return filters


def _conditions(given: DifyConditionsJson | None) -> Iterable[DifyConditionJson]:
    conditions = given.conditions or [] if given else []
    if given and given.logical_operator == "or" and len(conditions) > 1:
        raise QuestionError("Conditions are joined by 'or', and only 'and' is known. For any of several values: in")
    return conditions


def _name(condition: DifyConditionJson) -> str:
    names = [condition.name] if isinstance(condition.name, str) else condition.name
    if len(names) != 1:
        raise QuestionError(f"A condition is on {len(names)} fields at a time. Make a condition for each of them.")
    return names[0]


def _filter(condition: DifyConditionJson) -> Any:
    """Return the filter that a condition is.

    Raises:
        QuestionError: there is none.
    """
    kind, values = condition.comparison_operator, _values(condition)
    if kind in EQUALITIES and values:
        return [reading for value in values for reading in _readings(value)]
    if kind in BOUNDS and len(values) == 1:
        return {BOUNDS[kind]: _readings(values[0])[-1]}
    if kind == BEGINNING and len(values) == 1:
        return {"prefix": values[0]}
    known = ", ".join((*EQUALITIES, BEGINNING, *BOUNDS))
    raise QuestionError(
        f"The condition {kind!r} on {_name(condition)!r} with {condition.value!r} has no counterpart here. There are "
        f"{known}, each with a value."
    )


def _values(condition: DifyConditionJson) -> Sequence[str | int | float]:
    if condition.value is None:
        return []
    return condition.value if isinstance(condition.value, list) else [condition.value]


def _readings(value: str | int | float) -> list[str | int | float | bool]:
    return readings(value) if isinstance(value, str) else [value]


def _are_bounds(before: Any, more: Any) -> bool:
    return isinstance(before, dict) and isinstance(more, dict) and not before.keys() & more.keys()
