"""Chat completions and models, as OpenAI's clients expect them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from functools import partial

from fastapi import APIRouter, Request
from fastapi.sse import EventSourceResponse, format_sse_event
from starlette.responses import Response

from service.addresses import Link, linking
from service.chat import Wanted, take_turn
from service.completions import Completion, completion_of, completion_of_task
from service.departures import departure
from service.open_webui import task_reply
from service.openai_messages import conversation
from service.problems import Problem, documented, invalid_field, openai_error, request_id
from service.routes.asking import REFUSED, WAITING, log_questions
from service.schemas.openai import (
    MODEL,
    ChunkJson,
    CompletionJson,
    CompletionRequestJson,
    DeltaJson,
    ModelCardJson,
    ModelCardsJson,
    OpenWebUiEventJson,
    UsageJson,
)
from service.schemas.problems import FieldProblemJson
from service.services import Here, Services
from service.streaming import EVENTS, UNBUFFERED, started, streamed

router = APIRouter(tags=["chat"])

DONE = format_sse_event(data_str="[DONE]")
EVENTS_EXAMPLE = (
    'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"whence",'
    '"choices":[{"index":0,"delta":{"content":"It saved 67% of the memory."},"finish_reason":null}]}\n\n'
)


@router.get("/v1/models", response_model=ModelCardsJson, responses=documented("starting"))
def list_models(services: Here) -> ModelCardsJson:
    """List the models: the only one is `whence`, which answers from the documents."""
    return ModelCardsJson(object="list", data=[_card(services)])


@router.get(
    "/v1/models/{model}",
    response_model=ModelCardJson,
    responses=documented("model_not_found", "invalid_request", "starting"),
)
def describe_model(model: str, services: Here) -> ModelCardJson:
    """Describe a model."""
    _check_model(model)
    return _card(services)


@router.post(
    "/v1/chat/completions",
    response_model=CompletionJson,
    responses={
        200: {"content": {EVENTS: {"schema": {"type": "string"}, "example": EVENTS_EXAMPLE}}},
        **documented("model_not_found", "invalid_question", *REFUSED, *WAITING),
    },
)
async def complete(body: CompletionRequestJson, request: Request, services: Here) -> Response:
    """Reply to the last message of a conversation, as OpenAI's clients expect it; no language model is asked.

    The content is Markdown with links to the documents, which are `annotations`, too. `sources` has the full
    citations, and `whence` tells how the reply came about. With `stream` it comes as events, these three at the end.
    """
    _check_model(body.model)
    _check_count(body.n)
    link = linking(request, services.settings)
    completing = _completion(body, request, services, link)
    if not body.stream:
        whole = CompletionJson.of(await completing, link)
        return Response(whole.model_dump_json(), media_type="application/json")
    write = partial(
        chunks,
        link=link,
        with_usage=body.wants_usage,
        for_open_webui=services.settings.open_webui_sources,
    )
    write_error = partial(error_event, request_id=request_id(request))
    return EventSourceResponse(streamed(await started(completing), write, write_error), headers=UNBUFFERED)


def chunks(completion: Completion, *, link: Link, with_usage: bool, for_open_webui: bool) -> Iterator[bytes]:
    """Yield a reply chunk by chunk.

    Args:
        completion: the reply.
        link: makes the addresses of citations absolute.
        with_usage: whether its last chunk tells the usage, which all others then have as null.
        for_open_webui: whether sources come as Open WebUI's events rather than as annotations; it would show both.
    """
    for chunk in _chunks(completion, link, with_usage=with_usage, for_open_webui=for_open_webui):
        if with_usage and chunk.usage is None:
            chunk = chunk.model_copy(update={"usage": None})  # so that it is written out
        # In ASCII: a document may have characters at which some clients wrongly end a line.
        yield format_sse_event(data_str=chunk.model_dump_json(exclude_unset=True, ensure_ascii=True))
    yield DONE


def _chunks(completion: Completion, link: Link, *, with_usage: bool, for_open_webui: bool) -> Iterator[ChunkJson]:
    chunk = partial(ChunkJson.of, completion)
    yield chunk(DeltaJson(role="assistant", content=""))
    for part in completion.parts:
        yield chunk(DeltaJson(content=part))
    if for_open_webui:
        for source in (each for each in completion.sources if each.number is not None):
            yield chunk(DeltaJson()).model_copy(update={"event": OpenWebUiEventJson.of(source, link)})
    yield chunk(DeltaJson.citing(completion, link, is_annotated=not for_open_webui))
    yield chunk(DeltaJson(), is_last=True)
    if with_usage:
        yield chunk(None).model_copy(update={"usage": UsageJson.of(completion)})


def error_event(problem: Problem, *, request_id: str) -> bytes:
    """Return the event for what goes wrong on the way."""
    return format_sse_event(data_str=openai_error(problem, request_id).model_dump_json(ensure_ascii=True))


async def _completion(body: CompletionRequestJson, request: Request, services: Services, link: Link) -> Completion:
    said = conversation(body.messages)
    task = task_reply(said.messages[-1].content)
    if task is not None:
        with services.serving.lease() as served:
            return completion_of_task(task, served)
    wanted = Wanted(top_k=body.top_k, filters=body.filters)
    reply = await take_turn(said.messages, services, wanted, gone=departure(request.receive))
    if reply.answer is not None:
        log_questions([reply.answer], request.scope, services)
    with services.serving.lease() as served:
        return completion_of(reply, said, served, link)


def _card(services: Services) -> ModelCardJson:
    made = datetime.fromisoformat(services.serving.manifest.created)
    return ModelCardJson(id=MODEL, object="model", created=int(made.timestamp()), owned_by=MODEL)


def _check_model(name: str) -> None:
    if name != MODEL:
        fields = [FieldProblemJson(pointer="/model", detail="There is no such model.")]
        raise Problem("model_not_found", f"There is no model {name[:100]!r}. Ask for {MODEL}.", fields=fields)


def _check_count(wanted: int | None) -> None:
    if wanted not in (None, 1):
        raise invalid_field("/n", f"{wanted} replies are wanted, and there is only ever one; leave n out")
