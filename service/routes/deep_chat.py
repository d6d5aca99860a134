"""A chat in the format of the deep-chat component, as JSON or as events."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from fastapi import APIRouter, Depends, Request
from fastapi.sse import EventSourceResponse, format_sse_event
from starlette.responses import Response

from service.addresses import linking
from service.chat import Message, Role, Wanted, take_turn
from service.departures import departure
from service.markdown import MarkdownReply, in_markdown
from service.problems import Problem, deep_chat_error, documented, request_id
from service.routes.asking import REFUSED, WAITING, log_questions
from service.schemas.chat import MAX_MESSAGE, MAX_MESSAGES
from service.schemas.deep_chat import DeepChatJson, DeepChatMessageJson, DeepChatReplyJson
from service.services import Here, Services
from service.streaming import EVENTS, UNBUFFERED, VARY, started, streamed, wants_events

router = APIRouter(tags=["chat"])

EVENTS_EXAMPLE = 'data: {"text":"It saved 67% of the memory."}\n\n'


def refuse_files(request: Request) -> None:
    """Turn away a form: the component sends one when files are attached.

    Raises:
        Problem: the body is a form.
    """
    if request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise Problem("content_type", "Files are not read here. Send your question without them.")


@router.post(
    "/v1/deep-chat",
    response_model=DeepChatReplyJson,
    responses={
        200: {"content": {EVENTS: {"schema": {"type": "string"}, "example": EVENTS_EXAMPLE}}},
        **documented("invalid_question", *REFUSED, *WAITING),
    },
    dependencies=[Depends(refuse_files)],
)
async def deep_chat(body: DeepChatJson, request: Request, services: Here) -> Response:
    """Reply to the last message of a conversation, for the deep-chat component: Markdown with links to the sources.

    With `Accept: text/event-stream` the reply comes as events, each with a part of the text, or at last with an
    error if something goes wrong on the way.
    """
    replying = _reply(body, request, services)
    if not wants_events(request):
        whole = DeepChatReplyJson(text=(await replying).text)
        return Response(whole.model_dump_json(), headers=VARY, media_type="application/json")
    write_error = partial(error_event, request_id=request_id(request))
    return EventSourceResponse(streamed(await started(replying), events, write_error), headers={**VARY, **UNBUFFERED})


def events(reply: MarkdownReply) -> Iterator[bytes]:
    """Yield a reply part by part."""
    for part in reply.parts:
        yield format_sse_event(data_str=DeepChatReplyJson(text=part).model_dump_json())


def error_event(problem: Problem, *, request_id: str) -> bytes:
    """Return the event for what went wrong, which is the last one."""
    return format_sse_event(data_str=deep_chat_error(problem, request_id).model_dump_json())


async def _reply(body: DeepChatJson, request: Request, services: Services) -> MarkdownReply:
    *earlier, last = [_message(message) for message in body.messages]
    # The component sends as much as the page lets it; of that the newest is read, as much as a chat may have.
    read = [message for message in earlier if message.content][1 - MAX_MESSAGES :]
    wanted = Wanted(top_k=body.top_k, filters=body.filters)
    reply = await take_turn([*read, last], services, wanted, gone=departure(request.receive))
    if reply.answer is not None:
        log_questions([reply.answer], request.scope, services)
    return in_markdown(reply, linking(request, services.settings))


def _message(message: DeepChatMessageJson) -> Message:
    role = Role.USER if message.role == "user" else Role.ASSISTANT
    return Message(role, message.text[:MAX_MESSAGE])
