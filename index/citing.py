"""Citing: what a chunk or a part of it is quoted with, so that anyone can find and check it."""

from __future__ import annotations

from urllib.parse import quote as percent_encode

from index.citations import Citation, CitedDocument
from index.corpus import SURROUNDING_CHARS, ChunkRecord, Corpus, keep
from index.documents import page_at

# A text fragment finds its place by the first and last words of a long quote.
FRAGMENT_WORDS = 8
# Kept with a chunk: it is cited as a whole, and by the few sentences that answer most questions about it.
CITATIONS_OF_CHUNK = 8


def cite(corpus: Corpus, chunk: ChunkRecord, start: int = 0, end: int | None = None) -> Citation:
    """Cite a chunk, or a part of it; a chunk that was cited before knows how.

    Args:
        corpus: that holds the chunk.
        chunk: to cite.
        start: of the part, in code points from the start of the chunk.
        end: of the part; None for the end of the chunk.
    """
    span = start, len(chunk.text) if end is None else end
    citation = chunk.citations.get(span)
    if citation is None:
        citation = _cite(corpus, chunk, *span)
        keep(chunk.citations, span, citation, most=CITATIONS_OF_CHUNK)
    return citation


def _cite(corpus: Corpus, chunk: ChunkRecord, start: int, end: int) -> Citation:
    quote = chunk.text[start:end]
    prefix, suffix = chunk.text[:start], chunk.text[end:]
    if len(prefix) < SURROUNDING_CHARS:
        prefix = corpus.text_before(chunk, SURROUNDING_CHARS - len(prefix)) + prefix
    if len(suffix) < SURROUNDING_CHARS:
        suffix += corpus.text_after(chunk, SURROUNDING_CHARS - len(suffix))
    record = chunk.document
    first_line = chunk.first_line + chunk.text.count("\n", 0, start)
    return Citation(
        document=CitedDocument(
            id=record.doc_id,
            title=record.title,
            uri=record.uri,
            media_type=record.media_type,
            sha256=record.sha256,
            metadata=record.metadata,
        ),
        start=chunk.start + start,
        end=chunk.start + end,
        first_line=first_line,
        last_line=first_line + quote.count("\n"),
        page=page_at(record.page_starts, chunk.start + start),
        headings=chunk.headings,
        quote=quote,
        prefix=prefix[-SURROUNDING_CHARS:],
        suffix=suffix[:SURROUNDING_CHARS],
        url=_url(record.doc_id, record.uri, chunk.start + start, chunk.start + end, quote),
    )


def _url(doc_id: str, uri: str | None, start: int, end: int, quote: str) -> str:
    if uri is None:
        return f"/documents/{percent_encode(doc_id)}?start={start}&end={end}"
    return f"{uri.partition('#')[0]}#:~:text={_text_fragment(quote)}"


def _text_fragment(quote: str) -> str:
    """Return the directive value of a URL text fragment (WICG, "URL Fragment Text Directives")."""
    words = quote.split()
    if len(words) <= 2 * FRAGMENT_WORDS:
        return _fragment_part(words)
    return f"{_fragment_part(words[:FRAGMENT_WORDS])},{_fragment_part(words[-FRAGMENT_WORDS:])}"


def _fragment_part(words: list[str]) -> str:
    # The hyphen is part of the directive's own syntax and must be encoded, too.
    return percent_encode(" ".join(words), safe="").replace("-", "%2D")
