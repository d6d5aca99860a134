"""What is read of a conversation that a client of OpenAI sends."""

from __future__ import annotations

from collections.abc import Sequence

from service.chat import Message, Role
from service.completions import Conversation
from service.open_webui import question_in
from service.problems import invalid_field
from service.schemas.chat import MAX_MESSAGE, MAX_MESSAGES
from service.schemas.openai import CompletionMessageJson

_SAID_BY = {"user": Role.USER, "assistant": Role.ASSISTANT}
_INSTRUCTING = ("system", "developer")


def conversation(said: Sequence[CompletionMessageJson]) -> Conversation:
    """Return what is read of the messages of a client: the newest 64 of the user and the assistant.

    Clients send all there is. What instructs or serves a language model says nothing here.

    Raises:
        Problem: the last message is not the user's, or something else than text.
    """
    last_place, last = _last(said)
    earlier = [
        (place, Message(_SAID_BY[message.role], _text(message)[:MAX_MESSAGE], is_standalone=message.standalone))
        for place, message in enumerate(said[:last_place])
        if message.role in _SAID_BY
    ]
    kept = [(place, message) for place, message in earlier if message.content][1 - MAX_MESSAGES :]
    kept.append((last_place, Message(Role.USER, _text(last), is_standalone=last.standalone)))
    return Conversation(tuple(message for _, message in kept), tuple(place for place, _ in kept))


def _last(said: Sequence[CompletionMessageJson]) -> tuple[int, CompletionMessageJson]:
    """Return the message that is to be replied to, and its place; instructions may come after it."""
    read = [place for place, message in enumerate(said) if message.role not in _INSTRUCTING]
    place = read[-1] if read else len(said) - 1
    if said[place].role != "user":
        wrong = "the last message is not the user's; replies are not continued, and no tools are called"
        raise invalid_field(f"/messages/{place}/role", wrong)
    for number, part in enumerate(said[place].content):
        if part.type != "text":
            wrong = f"a part of type {part.type} is not read, only text"
            raise invalid_field(f"/messages/{place}/content/{number}", wrong)
    return place, said[place]


def _text(message: CompletionMessageJson) -> str:
    text = "\n".join(part.text for part in message.content if part.type == "text" and part.text)
    return question_in(text) if message.role == "user" else text
