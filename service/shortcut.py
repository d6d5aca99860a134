"""The short way of a question: what is asked most is answered without the machinery that every other route needs."""

from __future__ import annotations

import json

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from index.answers import Question
from index.errors import QuestionError, WhenceError
from service.departures import ClientGoneError, departure, gone
from service.headers import header
from service.problems import Problem, answer_to, problem_of
from service.routes.asking import log_questions, question_of
from service.schemas.answers import AskJson, answer_json
from service.services import Services

ASKING = "/v1/ask"
JSON = b"application/json"


class Shortcut:
    """Middleware that answers `POST /v1/ask` as the route does, in a part of the time.

    It stands directly before the routes. A request that is not as it should be goes on to its route, with all of its
    body, and is refused there.

    Args:
        app: what stands behind it.
        services: of the app.
    """

    def __init__(self, app: ASGIApp, *, services: Services) -> None:
        self._app = app
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a question, or pass a request on."""
        if not _asks(scope):
            await self._app(scope, receive, send)
            return
        body = await _whole(receive)
        question = self._question(body)
        if question is None:
            await self._app(scope, _once_more(body, receive), send)
            return
        response = await self._answer(question, scope, receive)
        if isinstance(response, Response):
            await response(scope, receive, send)
            return
        headers = [(b"content-length", b"%d" % len(response)), (b"content-type", JSON)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": response})

    def _question(self, body: bytes) -> Question | None:
        """Read a question as the route does; None if it would refuse it."""
        try:
            return question_of(AskJson.model_validate(json.loads(body)), self._services)
        except (ValueError, QuestionError, RecursionError):
            return None

    async def _answer(self, question: Question, scope: Scope, receive: Receive) -> bytes | Response:
        try:
            (answer,) = await self._services.line.ask([question], gone=departure(receive))
        except (Problem, WhenceError) as error:
            request = Request(scope)
            return answer_to(request, problem_of(error, request))
        except ClientGoneError:
            return gone()
        log_questions([answer], scope, self._services)
        return answer_json(answer)


def _asks(scope: Scope) -> bool:
    if scope["type"] != "http" or scope["method"] != "POST":
        return False
    path: str = scope["path"].removeprefix(scope.get("root_path", ""))
    return path == ASKING and header(scope, b"content-type") == JSON.decode()


async def _whole(receive: Receive) -> bytes:
    """Receive a body.

    Raises:
        ClientDisconnect: the connection is closed before its end.
    """
    parts = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


def _once_more(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that gives a body which was received already, and then what follows it."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def received() -> Message:
        return messages.pop() if messages else await receive()

    return received
