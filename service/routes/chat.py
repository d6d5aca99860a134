"""A turn of a chat, as JSON or as events, and what a chat begins with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from itertools import count

from fastapi import APIRouter, Request
from fastapi.sse import KEEPALIVE_COMMENT, EventSourceResponse, format_sse_event
from pydantic import BaseModel
from starlette.responses import Response

from index.conversation import Outcome, Topic
from index.errors import WhenceError
from service.chat import Message, Role, Turn, Wanted, handoff, opening_questions, reply_to, understand
from service.departures import ClientGoneError, departure
from service.problems import Problem, documented, problem_response, request_id
from service.routes.asking import REFUSED, WAITING, log_questions
from service.schemas.chat import (
    ChatAnswerJson,
    ChatDoneJson,
    ChatJson,
    ChatOpeningJson,
    ChatPassagesJson,
    ChatReplyJson,
    ChatSearchedJson,
    ChatSuggestionsJson,
    HandoffJson,
    MessageJson,
)
from service.services import Here, Services

router = APIRouter(tags=["chat"])

EVENTS = "text/event-stream"
VARY = {"Vary": "Accept"}
UNBUFFERED = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
AT_ONCE_S = 0.25  # what fails so soon is answered with its status; later it is an event
PING_S = 15.0
EVENTS_EXAMPLE = 'event: searched\ndata: {"searched_as":"And fd? (faster, ripgrep)","leans_on":0}\nid: 1\n\n'


@router.post(
    "/v1/chat",
    response_model=ChatReplyJson,
    responses={
        200: {"content": {EVENTS: {"schema": {"type": "string"}, "example": EVENTS_EXAMPLE}}},
        **documented("invalid_question", *REFUSED, *WAITING),
    },
)
async def chat(body: ChatJson, request: Request, services: Here) -> Response:
    """Reply to the last message of a conversation; a follow-up is searched with what it leaves out, and says so.

    With `Accept: text/event-stream` the reply comes as events, each with JSON: `searched` (only of a question),
    `answer`, `passages` (only of a question), `suggestions`, `done`; `problem` instead of the rest if something
    goes wrong on the way.
    """
    gone = departure(request)
    messages = [_message(message) for message in body.messages]
    turn = await understand(messages, services, Wanted(top_k=body.top_k, filters=body.filters), gone=gone)
    if not _wants_events(request):
        reply = await _reply(turn, request, services)
        return Response(reply.model_dump_json(), headers=VARY, media_type="application/json")
    replying = asyncio.ensure_future(_reply(turn, request, services))
    replying.add_done_callback(_seen)
    await asyncio.wait({replying}, timeout=AT_ONCE_S)
    if replying.done():
        replying.result()
    return EventSourceResponse(events(turn, replying, request_id(request)), headers={**VARY, **UNBUFFERED})


@router.get("/v1/chat/suggestions", response_model=ChatOpeningJson, responses=documented(*WAITING))
async def suggestions(request: Request, services: Here) -> ChatOpeningJson:
    """Say what a chat begins with: a greeting, questions to choose from, and where people get help otherwise."""
    place = handoff(services.settings)
    return ChatOpeningJson(
        greeting=services.settings.chat_greeting,
        questions=list(await opening_questions(services, gone=departure(request))),
        handoff=None if place is None else HandoffJson.model_validate(place),
    )


async def events(
    turn: Turn, replying: asyncio.Future[ChatReplyJson], request_id: str, *, ping_s: float = PING_S
) -> AsyncIterator[bytes]:
    """Yield a reply event by event, the first one before there is an answer.

    Args:
        turn: that is replied to.
        replying: to be cancelled when nobody takes the events any more.
        request_id: for a problem.
        ping_s: seconds after which a comment is sent while there is no answer, so that nobody closes the connection.
    """
    numbers = count(1)
    try:
        if turn.searched_as is not None:
            yield _event("searched", ChatSearchedJson.of(turn), numbers)
        while not (await asyncio.wait({replying}, timeout=ping_s))[0]:
            yield KEEPALIVE_COMMENT
        for name, part in _parts(replying.result()):
            yield _event(name, part, numbers)
    except (Problem, WhenceError) as error:
        problem = error if isinstance(error, Problem) else Problem.of(error)
        body = bytes(problem_response(problem, request_id).body).decode()
        yield format_sse_event(event="problem", data_str=body, id=str(next(numbers)))
    except ClientGoneError:
        pass  # nobody is there to be told
    finally:
        replying.cancel()


def _message(message: MessageJson) -> Message:
    topic = message.topic
    if topic is not None:
        return Message(Role(message.role), message.content, topic=Topic(topic.question, tuple(topic.headings)))
    outcome = Outcome.UNANSWERED if "topic" in message.model_fields_set else Outcome.UNKNOWN
    return Message(Role(message.role), message.content, is_standalone=message.standalone, topic=outcome)


def _wants_events(request: Request) -> bool:
    """Return whether a client names events before JSON among what it takes."""
    named = (part.partition(";")[0].strip().lower() for part in request.headers.get("accept", "").split(","))
    return next((name for name in named if name in (EVENTS, "application/json")), None) == EVENTS


async def _reply(turn: Turn, request: Request, services: Services) -> ChatReplyJson:
    reply = await reply_to(turn, services, gone=departure(request))
    if reply.answer is not None:
        log_questions([reply.answer], request, services)
    return ChatReplyJson.of(reply)


def _parts(reply: ChatReplyJson) -> Iterator[tuple[str, BaseModel]]:
    yield "answer", ChatAnswerJson.of(reply)
    if reply.answer is not None:
        yield "passages", ChatPassagesJson.model_validate(reply.answer)
    yield "suggestions", ChatSuggestionsJson.model_validate(reply)
    yield "done", ChatDoneJson.model_validate(reply)


def _event(name: str, data: BaseModel, numbers: Iterator[int]) -> bytes:
    return format_sse_event(event=name, data_str=data.model_dump_json(), id=str(next(numbers)))


def _seen(replying: asyncio.Future[ChatReplyJson]) -> None:
    """Look at how a reply ended, also when nobody waits for it any more."""
    if not replying.cancelled():
        replying.exception()
