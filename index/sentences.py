"""Sentences, and the places where a block of text may be cut."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

from sentencex import get_sentence_boundaries  # type: ignore[import-untyped]

from index.documents import Block, BlockKind, Span

# A short list item or piece of code is a sentence as it is; a longer one is divided.
_SHORT_CHARS = 320
# The sentence splitter's time grows faster than its text, so it sees this much at once.
_SENTENCE_WINDOW = 20_000

_LINE = re.compile(r"\n")
_BLANK_LINE = re.compile(r"\n[ \t]*\n")
_NESTED_ITEM = re.compile(r"\n(?=[ \t]*(?:[-*+•◦▪–]|(?:\d{1,3}|[A-Za-z]|[ivx]{1,4})[.)])[ \t])")
_WIDE_SPACE = re.compile(r"[^\S \t\n]")
# Quotes, emphasis, footnote marks and tags that close right after a full stop go with it.
_CLOSING = re.compile(r"""(?:[*_~`"'”’»)\]}]|\[\^?\w{1,8}\]|</\w+>)+(?=\s|$)""")


def cut_levels(text: str, block: Block, language: str) -> tuple[list[int], ...]:
    """Return the offsets at which a block may be cut, coarsest first; each level divides the one before."""
    parts = [start for start, _ in block.parts]
    if block.kind is BlockKind.TABLE:
        return (parts,)
    if block.kind is BlockKind.CODE:
        return _offsets_after(_BLANK_LINE, text, block), _offsets_after(_LINE, text, block)
    if block.kind is BlockKind.LIST:
        items = sorted({*parts, *_offsets_after(_NESTED_ITEM, text, block)})
        spans = cut_span(text, block.start, block.end, items)
        return parts, items, [cut for span in spans for cut in _sentence_cuts(text, *span, language)]
    return (_sentence_cuts(text, block.start, block.end, language),)


def _offsets_after(pattern: re.Pattern[str], text: str, block: Block) -> list[int]:
    return [match.end() for match in pattern.finditer(text, block.start, block.end)]


def sentences_of(text: str, block: Block, levels: Sequence[Sequence[int]]) -> list[Span]:
    """Return the sentences of a block; see `Chunk.sentences`."""
    if block.kind is BlockKind.HEADING:
        return [(block.start, block.end)]
    if block.kind is BlockKind.CODE:
        return _shortened(text, [(block.start, block.end)], levels[0])
    if block.kind is BlockKind.LIST:
        return _shortened(text, cut_span(text, block.start, block.end, levels[1]), levels[2])
    return cut_span(text, block.start, block.end, levels[0])


def _shortened(text: str, spans: Iterable[Span], cuts: Sequence[int]) -> list[Span]:
    """Cut the spans that are not short."""
    return [
        part
        for start, end in spans
        for part in (cut_span(text, start, end, cuts) if end - start > _SHORT_CHARS else [(start, end)])
    ]


def with_markup(text: str, sentences: list[Span]) -> list[Span]:
    """Stretch sentences over visible markup between blocks, such as the fences of code.

    What comes before an empty line goes to the sentence before, the rest to the one after.
    """
    starts = [start for start, _ in sentences]
    ends = [end for _, end in sentences]
    for position, ((_, end), (start, _)) in enumerate(pairwise(sentences)):
        if end == start or text[end:start].isspace():
            continue
        blank = _BLANK_LINE.search(text, end, start)
        middle = blank.start() if blank else end
        ends[position] = end + len(text[end:middle].rstrip())
        starts[position + 1] = start - len(text[middle:start].lstrip())
    return list(zip(starts, ends, strict=True))


def _sentence_cuts(text: str, start: int, end: int, language: str) -> list[int]:
    """Return the offsets between the sentences of running text."""
    # sentencex 1.0 panics on an initial after a no-break space; a plain one in its place keeps the offsets.
    plain = _WIDE_SPACE.sub(" ", text[start:end])
    cuts = [0]
    for boundary in _boundaries(plain, language):
        closing = None if plain[boundary - 1].isspace() else _CLOSING.match(plain, boundary)
        cut = closing.end() if closing else boundary
        if _is_apart(plain, cut) and _has_letter(plain[cuts[-1] : cut]):
            cuts.append(cut)
    if not _has_letter(plain[cuts[-1] :]):
        cuts.pop()
    return [start + cut for cut in cuts if cut]


def _boundaries(plain: str, language: str) -> Iterator[int]:
    """Yield the ends of sentences as the library sees them, window by window."""
    position = 0
    while position < len(plain):
        window = plain[position : position + _SENTENCE_WINDOW]
        ends = [position + boundary["end_index"] for boundary in get_sentence_boundaries(language, window)]
        if position + len(window) < len(plain):
            ends.pop()  # the last sentence may go on in the next window
        yield from ends
        position = ends[-1] if ends else position + len(window)


def _is_apart(plain: str, cut: int) -> bool:
    """Tell whether a cut lies between words: `System.IO` is one, but some scripts do without spaces."""
    around = plain[cut - 1 : cut + 1]
    return any(map(str.isspace, around)) or not around[0].isascii()


def _has_letter(plain: str) -> bool:
    """Tell whether there is a letter; a piece without one, such as `1.`, is no sentence."""
    return any(map(str.isalpha, plain))


def cut_span(text: str, start: int, end: int, cuts: Sequence[int]) -> list[Span]:
    """Cut a span at those ascending offsets that lie inside it, and leave out the space around each part."""
    inside = cuts[bisect_right(cuts, start) : bisect_left(cuts, end)]
    parts = (_visible(text, *part) for part in pairwise([start, *inside, end]))
    return [(first, last) for first, last in parts if first < last]


def _visible(text: str, start: int, end: int) -> Span:
    part = text[start:end]
    return end - len(part.lstrip()), start + len(part.rstrip())
