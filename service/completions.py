"""Chat completions: what OpenAI's clients send as a conversation, and what a reply is to them."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from index.answers import Answer
from index.citations import Citation
from service.addresses import Link
from service.chat import Message, Reply
from service.markdown import Annotation, in_markdown
from service.serving import Served


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
