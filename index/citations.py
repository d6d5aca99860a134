"""Citations: whence a quote comes, and checking that it is still there.

A citation holds the selectors of the W3C Web Annotation data model (2017): `quote`, `prefix` and `suffix` are its
text quote selector, `start` and `end` its text position selector, in code points of the canonical text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from itertools import islice, takewhile

from index.documents import MetadataValue

# Of a quote that is found more often than this, such as a single letter, only the first occurrences are looked at.
MAX_OCCURRENCES = 10_000


@dataclass(frozen=True)
class CitedDocument:
    """The document of a citation.

    Attributes:
        id: its doc_id.
        sha256: of the source bytes that were indexed.
        uri: http(s) address of the original; None when only the file is known.
    """

    id: str
    title: str
    uri: str | None
    media_type: str
    sha256: str
    metadata: Mapping[str, MetadataValue]


@dataclass(frozen=True)
class Citation:
    """Whence a quote comes.

    Attributes:
        start: first code point in the document's canonical text.
        end: one past the last; `text[start:end] == quote`.
        first_line: of the canonical text, from 1.
        last_line: the same or later.
        page: from 1; None where there are no pages.
        headings: above the quote, outermost first.
        prefix: up to 32 code points before the quote.
        suffix: up to 32 code points after it.
        url: opens the source at the quote: the document's own address with a text fragment where it has one, else
            the path of the source page of this service.
    """

    document: CitedDocument
    start: int
    end: int
    first_line: int
    last_line: int
    page: int | None
    headings: tuple[str, ...]
    quote: str
    prefix: str
    suffix: str
    url: str


class Standing(Enum):
    """How a citation stands against its document as it is now."""

    FOUND = "found"
    MOVED = "moved"
    CHANGED = "changed"
    GONE = "gone"


@dataclass(frozen=True)
class PresentText:
    """A document as it is now: canonical text, and SHA-256 of the source bytes."""

    text: str
    sha256: str


@dataclass(frozen=True)
class SavedCitation:
    """The part of a saved citation that is needed to check it."""

    doc_id: str
    sha256: str
    start: int
    end: int
    quote: str
    prefix: str = ""
    suffix: str = ""


@dataclass(frozen=True)
class Verification:
    """What became of a citation.

    Attributes:
        standing: found: at its place, word for word; moved: word for word at another place; changed: the document
            is there, the quote is not; gone: there is no such document.
        start, end: where the quote is now; None when it is not there.
        is_same_source: whether the source bytes are the ones that were cited.
    """

    citation: SavedCitation
    standing: Standing
    start: int | None
    end: int | None
    is_same_source: bool


def verify(citation: SavedCitation, present_text: Callable[[str], PresentText | None]) -> Verification:
    """Check a saved citation against its document as it is now.

    Args:
        citation: to check.
        present_text: gives the document of an id, None when it is gone.
    """
    present = present_text(citation.doc_id)
    if present is None:
        return Verification(citation, Standing.GONE, None, None, is_same_source=False)
    is_same_source = bool(citation.sha256) and present.sha256 == citation.sha256
    if citation.quote and present.text[citation.start : citation.end] == citation.quote:
        return Verification(citation, Standing.FOUND, citation.start, citation.end, is_same_source)
    start = _find(present.text, citation)
    if start is None:
        return Verification(citation, Standing.CHANGED, None, None, is_same_source)
    return Verification(citation, Standing.MOVED, start, start + len(citation.quote), is_same_source)


def _find(text: str, citation: SavedCitation) -> int | None:
    """Find where a quote is now: the occurrence whose surroundings fit best, and of those the nearest."""
    if not citation.quote:
        return None
    occurrences = re.finditer(f"(?={re.escape(citation.quote)})", text)
    places = [match.start() for match in islice(occurrences, MAX_OCCURRENCES)]
    return min(places, key=lambda start: (-_fit(text, citation, start), abs(start - citation.start)), default=None)


def _fit(text: str, citation: SavedCitation, start: int) -> int:
    """Count the code points of prefix and suffix that stand around a place, from the quote outwards."""
    end = start + len(citation.quote)
    before = text[max(0, start - len(citation.prefix)) : start]
    after = text[end : end + len(citation.suffix)]
    return _common(before[::-1], citation.prefix[::-1]) + _common(after, citation.suffix)


def _common(one: str, other: str) -> int:
    pairs = zip(one, other, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
