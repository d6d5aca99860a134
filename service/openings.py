"""What a chat can be opened with when nothing is set: headings of the documents that get an answer when asked."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from itertools import zip_longest

from starlette.concurrency import run_in_threadpool

from index.answers import Answer, Question
from index.conversation import without_numbering
from index.corpus import Corpus, DocumentRecord
from service.line import Line
from service.serving import Serving

WANTED = 4
DOCUMENTS_LOOKED_AT = 8
CHUNKS_LOOKED_AT = 100  # of each document
HEADINGS_LOOKED_AT = 3  # of each document
WORDS = range(2, 11)


class Openings:
    """Finds opening questions, once for each generation that is served."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._found: tuple[str, tuple[str, ...]] = ("", ())

    async def questions(
        self, serving: Serving, line: Line, *, gone: Callable[[], Awaitable[None]]
    ) -> tuple[str, ...]:
        """Return headings of several documents, each of which gets an answer from below itself when it is asked.

        Args:
            serving: whose documents are looked at.
            line: to ask.
            gone: see `Line.ask`.

        Raises:
            Problem, ClientGoneError: see `Line.ask`.
        """
        async with self._lock:
            name = serving.manifest.name
            if self._found[0] != name:
                headings = await run_in_threadpool(_headings, serving)
                self._found = (name, await _answered(headings, line, gone=gone))
            return self._found[1]


def _headings(serving: Serving) -> list[str]:
    """List a heading of each document, then a second one of each, and so on."""
    with serving.corpus() as corpus:
        by_document = [_headings_of(record, corpus) for record in corpus.page(limit=DOCUMENTS_LOOKED_AT)]
    in_turn = (heading for row in zip_longest(*by_document) for heading in row if heading is not None)
    return list(dict.fromkeys(in_turn))


def _headings_of(record: DocumentRecord, corpus: Corpus) -> list[str]:
    """List the first headings of a document that can be asked for, those first that are questions."""
    chunks = corpus.chunks(range(record.first_row, record.first_row + min(record.chunk_count, CHUNKS_LOOKED_AT)))
    headings = (chunk.headings[-1] for chunk in chunks if chunk.headings and not chunk.is_furniture)
    asked = (without_numbering(heading).strip() for heading in headings if heading != record.title)
    fitting = (heading for heading in dict.fromkeys(asked) if len(heading.split()) in WORDS)
    return sorted(fitting, key=lambda heading: not heading.endswith("?"))[:HEADINGS_LOOKED_AT]


async def _answered(headings: list[str], line: Line, *, gone: Callable[[], Awaitable[None]]) -> tuple[str, ...]:
    """Return the first headings that are answered from below themselves."""
    found: list[str] = []
    for heading in headings:
        if len(found) == WANTED:
            break
        (answer,) = await line.ask([Question(heading, top_k=1)], gone=gone)
        if _stands_below(answer, heading):
            found.append(heading)
    return tuple(found)


def _stands_below(answer: Answer, heading: str) -> bool:
    if answer.answer is None:
        return False
    return heading in (without_numbering(each).strip() for each in answer.answer.citation.headings)
