"""What the tools of the Model Context Protocol take and give."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from index.answers import MAX_QUESTION_CHARS, MAX_TOP_K, Answer, CitedPassage
from index.citations import Citation
from index.corpus import DocumentRecord
from service.filter_syntax import parse_filters
from service.schemas.answers import CitationJson, QuoteJson
from service.schemas.base import Schema, Score

Address = Callable[[str, str], str]
"""Makes an address absolute: takes the id of a document and an address of it as citations have it."""

PART_CHARS = 30_000
MAX_PART_CHARS = 200_000


def _from_text(filters: Any) -> Any:
    """Read filters that came as a text: some programs write every object so."""
    return parse_filters([filters]) if isinstance(filters, str) else filters


class _Arguments(BaseModel):
    # Models write a number as a text now and then: it is read. A name that they made up is refused.
    model_config = ConfigDict(extra="forbid", frozen=True)


class SearchArguments(_Arguments):
    """What `search` takes."""

    query: str = Field(
        description="One question or the words to look for, complete in itself: nothing of earlier calls is known.",
        json_schema_extra={"minLength": 1, "maxLength": MAX_QUESTION_CHARS},
    )
    top_k: int | None = Field(None, description="Passages wanted; 5 unless set otherwise.", ge=1, le=MAX_TOP_K)
    filters: Annotated[dict[str, Any] | None, BeforeValidator(_from_text)] = Field(
        None,
        description=(
            "Only documents for which all of these hold, each a field of their metadata, doc_id, title or media_type "
            'with a value, a list of values, a range such as {"gte": 2024}, or {"prefix": "guide/"}.'
        ),
        examples=[{"doc_id": {"prefix": "guide/"}}],
    )


class FetchArguments(_Arguments):
    """What `fetch` takes."""

    id: str = Field(description="Of a document, as in the results of search.")
    start: int = Field(0, description="Where to begin, in characters of the document's text.", ge=0)
    max_chars: int = Field(PART_CHARS, description="Characters wanted at most.", ge=1, le=MAX_PART_CHARS)


class ResultJson(Schema):
    """A passage that was found."""

    id: str = Field(description="Of the document; fetch takes it.")
    title: str
    url: str = Field(description="Opens the document at the passage. Cite it.")
    text: str = Field(description="Exact words of the document.")
    score: Score = Field(description="Relevance from 0 to 1, higher is better.")
    citation: CitationJson

    @classmethod
    def of(cls, passage: CitedPassage, address: Address) -> ResultJson:
        """Convert from the library's record."""
        citation = _cited(passage.citation, address)
        return cls(
            id=citation.document.id,
            title=citation.document.title,
            url=citation.url,
            text=passage.text,
            score=passage.score,
            citation=citation,
        )


class SearchJson(Schema):
    """What `search` gives."""

    answered: bool = Field(description="Whether the documents answer. If not, the results are only the nearest.")
    confidence: Score = Field(description="Probability that the first result answers, from 0 to 1.")
    answer: QuoteJson | None = Field(description="Exact words that answer, with their citation.")
    results: list[ResultJson] = Field(description="Passages, best first.")

    @classmethod
    def of(cls, answer: Answer, address: Address) -> SearchJson:
        """Convert from the library's record."""
        quote = answer.answer
        return cls(
            answered=answer.answered,
            confidence=answer.confidence,
            answer=quote and QuoteJson(text=quote.text, citation=_cited(quote.citation, address)),
            results=[ResultJson.of(passage, address) for passage in answer.passages],
        )


class FetchedJson(Schema):
    """What `fetch` gives: a document, or a part of it. Offsets are Unicode code points of its text."""

    id: str
    title: str
    text: str = Field(description="Exact words, from start to end.")
    url: str = Field(description="Opens the document. Cite it.")
    metadata: dict[str, Any] = Field(description="As the document gives it.")
    media_type: str = Field(description="Of the source; the text is plain.")
    start: int
    end: int
    next_start: int | None = Field(description="The start to go on reading with; null at the end of the document.")
    length: int = Field(description="Of the whole text.")

    @classmethod
    def of(cls, record: DocumentRecord, text: str, asked: FetchArguments, url: str) -> FetchedJson:
        """Cut out of a document's text what was asked for."""
        start = min(asked.start, len(text))
        end = min(start + asked.max_chars, len(text))
        return cls(
            id=record.doc_id,
            title=record.title,
            text=text[start:end],
            url=url,
            metadata=dict(record.metadata),
            media_type=record.media_type,
            start=start,
            end=end,
            next_start=end if end < len(text) else None,
            length=len(text),
        )


def _cited(citation: Citation, address: Address) -> CitationJson:
    url = address(citation.document.id, citation.url)
    return CitationJson.of(citation).model_copy(update={"url": url})
