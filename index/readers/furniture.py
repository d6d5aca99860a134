"""Which pieces of a web page are its content, by the judgement of an extractor (trafilatura)."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import compress

from lxml import etree
from lxml.html import HtmlElement
from trafilatura import bare_extraction
from trafilatura.settings import Document

from index.documents import BlockKind
from index.readers.pieces import Piece, Zone

# The extractor logs each page it gives up on; without a handler of its own Python would print that.
logging.getLogger("trafilatura").addHandler(logging.NullHandler())

EXTRACTOR_ELEMENTS = 60_000  # on larger pages the extractor takes too long
TRUSTED_SHARE = 1 / 3  # of the page's words; an extractor that found less than that is not believed
VOUCHED_SHARE = 0.5  # of a piece's runs of words
LINKED_SHARE = 0.5  # of a piece's letters
RUN_WORDS = 4

_WORD = re.compile(r"\w+")
_INLINE = frozenset(["hi", "ref", "del", "graphic", "lb", "cell"])  # of the extractor's own elements


def judge(found: Sequence[Piece], root: HtmlElement) -> list[Piece]:
    """Leave out navigation, and tell the rest of a page's pieces into content and furniture.

    What the extractor found is content, and so is what stands among it unless it is in a margin or mostly
    links. Other text of the body is kept as furniture; other margins are left out. Where the extractor
    found much less than the page holds, the whole body is content and the margins are furniture. A page
    that is nothing but navigation is kept whole.

    Args:
        found: all pieces of the page.
        root: the page; it is not changed.
    """
    extract = _Extract.of(root)
    vouched = [extract.holds(piece) for piece in found]
    kept = _by_extract(found, vouched) if _is_trusted(found, vouched) else _by_zone(found)
    return kept if any(not piece.furniture for piece in kept) else list(found)


def _by_extract(found: Sequence[Piece], vouched: Sequence[bool]) -> list[Piece]:
    anchors = [
        position
        for position, piece in enumerate(found)
        if piece.zone is Zone.MAIN or (piece.zone is not Zone.NAVIGATION and (vouched[position] or piece.level == 1))
    ]
    kept = []
    for position, piece in enumerate(found):
        is_among_content = anchors[0] <= position <= anchors[-1] and not _is_linked(piece)
        if piece.zone is Zone.NAVIGATION or (piece.zone is Zone.MARGIN and not vouched[position]):
            continue
        kept.append(replace(piece, furniture=not (vouched[position] or is_among_content)))
    return kept


def _is_linked(piece: Piece) -> bool:
    """Tell whether a piece is a row or list of links, such as related pages or share buttons."""
    return piece.kind in (BlockKind.PARAGRAPH, BlockKind.LIST) and piece.link_share >= LINKED_SHARE


def _by_zone(found: Sequence[Piece]) -> list[Piece]:
    shown = [piece for piece in found if piece.zone is not Zone.NAVIGATION]
    return [replace(piece, furniture=piece.zone is Zone.MARGIN) for piece in shown]


def _is_trusted(found: Sequence[Piece], vouched: Sequence[bool]) -> bool:
    """Tell whether the extractor found enough of the body to be believed about the rest."""
    sizes = [sum(map(len, piece.parts)) if piece.zone <= Zone.BODY else 0 for piece in found]
    return sum(compress(sizes, vouched)) > TRUSTED_SHARE * sum(sizes)


@dataclass(frozen=True)
class _Extract:
    """What the extractor found, as hashes of runs of words; a line of fewer words is one run."""

    runs: frozenset[int]

    @classmethod
    def of(cls, root: HtmlElement) -> _Extract:
        """Extract the content of a page; empty where that fails or would take too long."""
        if sum(1 for _ in root.iter()) > EXTRACTOR_ELEMENTS:
            return cls(frozenset())
        try:
            extracted = bare_extraction(root, favor_recall=True, include_comments=True)
        except (etree.LxmlError, AttributeError, IndexError, KeyError, RecursionError, TypeError, ValueError):
            # It is only asked for its opinion: a page that it stumbles over is judged by its zones.
            return cls(frozenset())
        bodies = [extracted.body, extracted.commentsbody] if isinstance(extracted, Document) else []
        return cls(frozenset(run for body in bodies for line in _lines(body) for run in _runs(line)))

    def holds(self, piece: Piece) -> bool:
        """Tell whether most of a piece was extracted."""
        runs = [run for part in piece.parts for line in part.split("\n") for run in _runs(line)]
        return sum(run in self.runs for run in runs) >= VOUCHED_SHARE * len(runs) if runs else False


def _lines(body: etree._Element) -> list[str]:
    """Return the text of an extracted tree, a line for each paragraph, item or row."""
    return "".join(_strings(body)).split("\n")


def _strings(element: etree._Element) -> Iterator[str]:
    edge = " " if element.tag in ("lb", "cell") else "" if element.tag in _INLINE else "\n"
    yield edge
    yield element.text or ""
    for child in element:
        yield from _strings(child)
        yield child.tail or ""
    yield edge


def _runs(line: str) -> Iterator[int]:
    """Yield a hash of every run of consecutive words, whatever their case and punctuation."""
    words = _WORD.findall(line.casefold())
    for start in range(max(1, len(words) - RUN_WORDS + 1) if words else 0):
        yield hash(tuple(words[start : start + RUN_WORDS]))
