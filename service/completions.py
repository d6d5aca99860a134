"""Chat completions: what OpenAI's clients send as a conversation, and what a reply is to them."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from index.answers import Answer
from index.citations import Citation
from service.addresses import Link
from service.chat import Message, Reply, Role
from service.markdown import Annotation, in_markdown
from service.open_webui import question_in
from service.problems import invalid_field
from service.schemas.chat import MAX_MESSAGE, MAX_MESSAGES
from service.schemas.openai import CompletionMessageJson
from service.serving import Served

_SAID_BY = {"user": Role.USER, "assistant": Role.ASSISTANT}
_INSTRUCTING = ("system", "developer")


@dataclass(frozen=True)
class Conversation:
    """What is read of a conversation.

    Attributes:
        messages: oldest first; the last one is the user's.
        places: of each in what was sent, from 0.
    """

    messages: tuple[Message, ...]
    places: tuple[int, ...]


@dataclass(frozen=True)
class Source:
    """A passage that a reply was found in.

    Attributes:
        number: of its link among the annotations, from 1; None when the text does not cite it.
        text: of the passage.
        citation: that is linked; of the whole passage when the text does not cite it.
    """

    number: int | None
    text: str
    citation: Citation


@dataclass(frozen=True)
class Completion:
    """A reply, as OpenAI's clients take it.

    Attributes:
        id: that no other has.
        created: when it was made, in seconds since 1970.
        generation: name of the one that was asked.
        parts: of the text, about a sentence each.
        prompt_tokens: of the question as it was searched; 0 when nothing was searched.
        completion_tokens: of the text.
        reply: to a person; None for what a program asked for itself.
        leans_on: place in the messages that were sent of the question that was carried over.
        annotations: links in the text.
        sources: what the text cites, in its order; the nearest passages when nothing was found.
    """

    id: str
    created: int
    generation: str
    parts: tuple[str, ...]
    prompt_tokens: int
    completion_tokens: int
    reply: Reply | None = None
    leans_on: int | None = None
    annotations: tuple[Annotation, ...] = ()
    sources: tuple[Source, ...] = ()

    @property
    def text(self) -> str:
        """All parts together."""
        return "".join(self.parts)


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


def completion_of_task(text: str, served: Served) -> Completion:
    """Return the reply to what a program asked for itself."""
    return _completion((text,), None, served)


def completion_of(reply: Reply, said: Conversation, served: Served, link: Link) -> Completion:
    """Return the reply to a conversation.

    Args:
        reply: to the last message.
        said: the conversation.
        served: whose tokenizer counts.
        link: makes the addresses of citations absolute.
    """
    markdown = in_markdown(reply, link)
    turn = reply.turn
    return replace(
        _completion(markdown.parts, turn.searched_as, served),
        generation=served.generation.name if reply.answer is None else reply.answer.generation,
        reply=reply,
        leans_on=None if turn.leans_on is None else said.places[turn.leans_on],
        annotations=markdown.annotations,
        sources=() if reply.answer is None else tuple(_sources(reply.answer, markdown.annotations)),
    )


def _completion(parts: tuple[str, ...], question: str | None, served: Served) -> Completion:
    tokenizer = served.encoder.tokenizer
    return Completion(
        id=f"chatcmpl-{secrets.token_hex(12)}",
        created=int(time.time()),
        generation=served.generation.name,
        parts=parts,
        prompt_tokens=len(tokenizer.spans(question or "")),
        completion_tokens=len(tokenizer.spans("".join(parts))),
    )


def _sources(answer: Answer, annotations: Sequence[Annotation]) -> Iterator[Source]:
    for number, annotation in enumerate(annotations, start=1):
        yield Source(number, _passage_text(answer, annotation.citation), annotation.citation)
    if not annotations:
        yield from (Source(None, passage.text, passage.citation) for passage in answer.passages)


def _passage_text(answer: Answer, citation: Citation) -> str:
    """Return the text of the passage that has the words of a citation."""
    around = (
        passage.text
        for passage in answer.passages
        if passage.citation.document.id == citation.document.id
        and passage.citation.start <= citation.start
        and citation.end <= passage.citation.end
    )
    return next(around, citation.quote)


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
