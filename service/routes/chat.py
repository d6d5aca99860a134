"""A turn of a chat, as JSON or as events, and what a chat begins with."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator
from itertools import count

from fastapi import APIRouter, Request
from fastapi.sse import EventSourceResponse, format_sse_event
from pydantic import BaseModel
from starlette.responses import Response

from index.conversation import Outcome, Topic
from service.chat import Message, Role, Turn, Wanted, handoff, opening_questions, reply_to, understand
from service.departures import departure
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
from service.streaming import EVENTS, PING_S, UNBUFFERED, VARY, started, streamed, wants_events

router = APIRouter(tags=["chat"])

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
    gone = departure(request.receive)
    messages = [_message(message) for message in body.messages]
    wanted = Wanted(top_k=body.top_k, filters=body.filters, encoder=body.encoder)
    turn = await understand(messages, services, wanted, gone=gone)
    if not wants_events(request):
        reply = await _reply(turn, request, services)
        return Response(reply.model_dump_json(), headers=VARY, media_type="application/json")
    replying = await started(_reply(turn, request, services))
    return EventSourceResponse(events(turn, replying, request_id(request)), headers={**VARY, **UNBUFFERED})


@router.get("/v1/chat/suggestions", response_model=ChatOpeningJson, responses=documented(*WAITING))
async def suggestions(request: Request, services: Here) -> ChatOpeningJson:
    """Say what a chat begins with: a greeting, questions to choose from, and where people get help otherwise."""
    place = handoff(services.settings)
    return ChatOpeningJson(
        greeting=services.settings.chat_greeting,
        questions=list(await opening_questions(services, gone=departure(request.receive))),
        handoff=None if place is None else HandoffJson.model_validate(place),
    )


def events(
    turn: Turn, replying: asyncio.Future[ChatReplyJson], request_id: str, *, ping_s: float = PING_S
) -> AsyncGenerator[bytes, None]:
    """Return a reply event by event, the first one before there is an answer; arguments as for `streamed`."""
    numbers = count(1)

    def write(reply: ChatReplyJson) -> Iterator[bytes]:
        return (_event(name, part, numbers) for name, part in _parts(reply))

    def write_problem(problem: Problem) -> bytes:
        body = bytes(problem_response(problem, request_id).body).decode()
        return format_sse_event(event="problem", data_str=body, id=str(next(numbers)))

    searched = [] if turn.searched_as is None else [_event("searched", ChatSearchedJson.of(turn), numbers)]
    return streamed(replying, write, write_problem, before=searched, ping_s=ping_s)


def _message(message: MessageJson) -> Message:
    topic = message.topic
    if topic is not None:
        return Message(Role(message.role), message.content, topic=Topic(topic.question, tuple(topic.headings)))
    outcome = Outcome.UNANSWERED if "topic" in message.model_fields_set else Outcome.UNKNOWN
    return Message(Role(message.role), message.content, is_standalone=message.standalone, topic=outcome)


async def _reply(turn: Turn, request: Request, services: Services) -> ChatReplyJson:
    reply = await reply_to(turn, services, gone=departure(request.receive))
    if reply.answer is not None:
        log_questions([reply.answer], request.scope, services)
    return ChatReplyJson.of(reply)


def _parts(reply: ChatReplyJson) -> Iterator[tuple[str, BaseModel]]:
    yield "answer", ChatAnswerJson.of(reply)
    if reply.answer is not None:
        yield "passages", ChatPassagesJson.model_validate(reply.answer)
    yield "suggestions", ChatSuggestionsJson.model_validate(reply)
    yield "done", ChatDoneJson.model_validate(reply)


def _event(name: str, data: BaseModel, numbers: Iterator[int]) -> bytes:
    return format_sse_event(event=name, data_str=data.model_dump_json(), id=str(next(numbers)))
