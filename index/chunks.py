"""Chunks: slices of a document that follow its structure and fit the embedding model.

A heading starts a new chunk. Short neighbours under one heading join; what is too long is divided where its
kind allows it (between sentences, items, rows, groups of lines), and inside a sentence only when nothing else
is left. Every length is measured with the model's own tokenizer.
"""

from __future__ import annotations

import hashlib
import json
import re
from array import array
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise, zip_longest
from operator import itemgetter
from typing import Protocol

import regex

from index.documents import Block, BlockKind, Document, Span
from index.errors import ModelError
from index.sentences import cut_levels, cut_span, sentences_of, with_markup

TARGET_TOKENS = 160
MIN_MODEL_TOKENS = 32

# A word that the model does not know is one token to it, whatever its length. Measured in steps of this many
# characters, such words cannot make a chunk without end.
_TOKEN_CHARS = 32
# Far enough before a cut for the grapheme clusters around it to be recognised.
_GRAPHEME_WINDOW = 256

_WORD = re.compile(r"\S+")
_GRAPHEME = regex.compile(r"\X")


class Tokenizer(Protocol):
    """The tokenizer of an embedding model."""

    @property
    def max_tokens(self) -> int:
        """Tokens that a text may have, special tokens counted."""

    def count(self, texts: Sequence[str]) -> list[int]:
        """Count the tokens of each text, special tokens included."""

    def spans(self, text: str) -> list[Span]:
        """Return where each token of a text lies, in code points and in order, without special tokens."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A slice of a document: what is embedded, found and quoted.

    Attributes:
        chunk_id: 32 hexadecimal digits made of `doc_id`, heading path and quoted text, and of a number among
            chunks that share all three. It does not depend on where in the document the chunk stands.
        start: first code point in the document's text; the chunk begins and ends with a visible character.
        end: one past the last code point.
        headings: titles of the headings above, outermost first.
        context: what stands before the quoted text when it is embedded: title and headings, a line each, and
            the header rows of a table that began in an earlier chunk.
        sentences: spans of the document's text, in order and not overlapping; together they hold every
            visible character of the chunk. A heading, a list item, a table row, a piece of code is one each.
        row_headers: runs of sentences that are rows of a table: first, one past the last, and the header under
            which they are read.
        kind: of the block that fills most of it.
        page: on which its first block starts, from 1; None where there are no pages.
        furniture: as of its blocks; content and furniture never share a chunk.
    """

    chunk_id: str
    start: int
    end: int
    headings: tuple[str, ...]
    context: str
    sentences: tuple[Span, ...]
    kind: BlockKind
    page: int | None = None
    furniture: bool = False
    row_headers: tuple[tuple[int, int, str], ...] = ()


def embedded_text(context: str, quoted: str) -> str:
    """Return what the model and the keyword index read of a chunk: its context, then its quoted text."""
    return f"{context}\n{quoted}" if context else quoted


def split(document: Document, tokenizer: Tokenizer, *, target_tokens: int = TARGET_TOKENS) -> list[Chunk]:
    """Split a document into chunks, in the order of its text.

    Args:
        document: with its blocks.
        tokenizer: of the model that will embed the chunks; no embedded text exceeds its `max_tokens`.
        target_tokens: up to which neighbours join, context not counted, at least 1. A block that is longer
            but fits the model stays whole.

    Raises:
        ModelError: the model takes too few tokens to hold a context and a chunk.
    """
    if tokenizer.max_tokens < MIN_MODEL_TOKENS:
        raise ModelError(
            f"The model takes {tokenizer.max_tokens} tokens, too few for a chunk with its headings. "
            f"Choose a model that takes {MIN_MODEL_TOKENS} or more."
        )
    chunks: list[Chunk] = []
    seen: Counter[str] = Counter()
    for section in _sections(document.content.blocks):
        splitter = _SectionSplitter(document, section, tokenizer, target_tokens)
        for start, end in splitter.spans():
            digest = _digest(document.doc_id, section.headings, document.text[start:end])
            chunks.append(splitter.chunk(_digest(digest, seen[digest])[:32], start, end))
            seen[digest] += 1
    return chunks


def _digest(*values: object) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()


@dataclass(frozen=True)
class _Section:
    """Neighbouring blocks that may share a chunk."""

    headings: tuple[str, ...]
    blocks: tuple[Block, ...]


def _sections(blocks: Sequence[Block]) -> Iterator[_Section]:
    """Group blocks by the heading above them, furniture and pages apart.

    A chunk that ran on to the next page would be cited with the page on which it began.

    A heading is part of the path of what follows it. Only one with nothing below it is content itself, so
    that its words are not lost.
    """
    for _, group in groupby(_placed(blocks), key=itemgetter(0)):
        members = list(group)
        yield _Section(members[0][1], tuple(block for _, _, block in members))


def _placed(blocks: Sequence[Block]) -> Iterator[tuple[tuple[object, ...], tuple[str, ...], Block]]:
    """Yield each block that a chunk quotes, with a key that it shares with its section, and its path."""
    bare = _bare_headings(blocks)
    path: list[Block] = []
    for block in blocks:
        is_heading = block.kind is BlockKind.HEADING and not block.furniture
        while is_heading and path and path[-1].level >= block.level:
            path.pop()
        if not is_heading or block.start in bare:
            # Bare headings at the top stay apart, below another heading they may join.
            place = path[-1].start if path else block.start if is_heading else -1
            yield (place, block.page, block.furniture, is_heading), tuple(above.title for above in path), block
        if is_heading:
            path.append(block)


def _bare_headings(blocks: Sequence[Block]) -> set[int]:
    """Find the headings that have neither content nor a deeper heading below them; return their offsets."""
    content = [block for block in blocks if not block.furniture]
    return {
        block.start
        for block, following in zip_longest(content, content[1:])
        if block.kind is BlockKind.HEADING
        and (following is None or (following.kind is BlockKind.HEADING and following.level <= block.level))
    }


@dataclass(frozen=True)
class _Piece:
    """A block, or a part of one that is too long; `first` and `last` are the blocks it begins and ends in."""

    start: int
    end: int
    first: Block
    last: Block


class _SectionSplitter:
    """Splits one section of a document."""

    def __init__(self, document: Document, section: _Section, tokenizer: Tokenizer, target_tokens: int) -> None:
        self._text = document.text
        self._section = section
        self._tokenizer = tokenizer
        self._target = target_tokens
        self._path = _path_context(document.title, section.headings, tokenizer)
        self._marks = _token_marks(document.text, section.blocks, tokenizer)
        self._block_starts = [block.start for block in section.blocks]
        self._table_headers: dict[int, str] = {}
        self._rooms: dict[str, int] = {}
        language = _language(document)
        self._levels = {block.start: cut_levels(self._text, block, language) for block in section.blocks}
        self._sentences = with_markup(
            self._text,
            [span for block in section.blocks for span in sentences_of(self._text, block, self._levels[block.start])],
        )
        self._sentence_ends = [end for _, end in self._sentences]

    def spans(self) -> list[Span]:
        """Return where the chunks of the section lie."""
        pieces = [piece for block in self._section.blocks for piece in self._pieces(block)]
        for may_join in (self._belong_together, self._are_short, self._one_is_small):
            pieces = self._merge(pieces, may_join)
        return self._fit([(piece.start, piece.end) for piece in pieces])

    def chunk(self, chunk_id: str, start: int, end: int) -> Chunk:
        """Describe the chunk that lies at a span."""
        blocks = self._blocks_in(start, end)
        largest = max(blocks, key=lambda block: min(block.end, end) - max(block.start, start))
        sentences = self._sentences_in(start, end)
        return Chunk(
            chunk_id,
            start,
            end,
            headings=self._section.headings,
            context=self._context(start),
            sentences=tuple(sentences),
            kind=largest.kind,
            page=blocks[0].page,
            furniture=blocks[0].furniture,
            row_headers=tuple(self._row_headers(sentences)),
        )

    # What stands before a chunk, and how much room that leaves.

    def _context(self, start: int) -> str:
        header = self._table_header(self._block_at(start), start)
        return f"{self._path}\n{header}" if header else self._path

    def _table_header(self, block: Block, start: int) -> str:
        """Return the header rows of a table that lie before `start`, in at most a quarter of the model."""
        if not block.header_rows or start < block.parts[block.header_rows - 1][1]:
            return ""
        if block.start not in self._table_headers:
            header = " ".join(self._text[block.start : block.parts[block.header_rows - 1][1]].split())
            self._table_headers[block.start] = _shorten(header, self._tokenizer.max_tokens // 4, self._tokenizer)
        return self._table_headers[block.start]

    def _row_headers(self, sentences: Sequence[Span]) -> Iterator[tuple[int, int, str]]:
        headers = (self._table_header(self._block_at(start), start) for start, _ in sentences)
        position = 0
        for header, run in groupby(headers):
            length = len(list(run))
            if header:
                yield position, position + length, header
            position += length

    def _room(self, start: int) -> int:
        """Return how many tokens a chunk that begins at `start` may have."""
        context = self._context(start)
        if context not in self._rooms:
            used = self._tokenizer.count([f"{context}\n"])[0]
            self._rooms[context] = self._tokenizer.max_tokens - used
        return self._rooms[context]

    def _length(self, start: int, end: int) -> int:
        """Return how many tokens a span has."""
        return bisect_left(self._marks, end) - bisect_left(self._marks, start)

    # Blocks into pieces.

    def _pieces(self, block: Block) -> list[_Piece]:
        if self._length(block.start, block.end) <= self._room(block.start):
            return [_Piece(block.start, block.end, block, block)]
        room = self._room(block.end - 1)  # of a table with its header before it
        spans = self._divide(block.start, block.end, self._levels[block.start], room)
        return [_Piece(start, end, block, block) for start, end in spans]

    def _divide(self, start: int, end: int, levels: Sequence[Sequence[int]], room: int) -> list[Span]:
        """Divide what is too long at the first level of cuts, its parts at the next, and at last at words."""
        spans = cut_span(self._text, start, end, levels[0]) if levels else self._halves(start, end)
        divided: list[Span] = []
        for fits, run in groupby(spans, key=lambda span: self._length(*span) <= room or span[1] - span[0] == 1):
            if fits:
                divided.extend(self._group(list(run), min(self._target, room)))
            else:
                divided.extend(part for span in run for part in self._divide(*span, levels[1:], room))
        return divided

    def _halves(self, start: int, end: int) -> list[Span]:
        """Cut a span in two between words near its middle; inside a word only when it is a single one."""
        first, last = bisect_left(self._marks, start), bisect_left(self._marks, end)
        middle = self._marks[(first + last) // 2] if last - first > 1 else (start + end) // 2
        cuts = [match.start() for match in _WORD.finditer(self._text, start, end)][1:]
        cuts = cuts or _grapheme_cuts(self._text, start, end, middle) or [max(middle, start + 1)]
        return cut_span(self._text, start, end, [min(cuts, key=lambda cut: abs(cut - middle))])

    def _group(self, units: Sequence[Span], limit: int) -> list[Span]:
        """Join neighbouring units up to a length, the last two groups so that they are about equally long."""
        firsts = [0]
        for position, (_, end) in enumerate(units):
            if position and self._length(units[firsts[-1]][0], end) > limit:
                firsts.append(position)
        if len(firsts) > 1:
            firsts[-1] = self._even_cut(units, firsts[-2])
        bounds = pairwise([*firsts, len(units)])
        return [(units[first][0], units[following - 1][1]) for first, following in bounds]

    def _even_cut(self, units: Sequence[Span], first: int) -> int:
        """Return the position after `first` that cuts the units from there on into the most even halves."""

        def unevenness(cut: int) -> int:
            before = self._length(units[first][0], units[cut][0])
            return abs(before - self._length(units[cut][0], units[-1][1]))

        return min(range(first + 1, len(units)), key=unevenness)

    # Pieces into chunks.

    def _merge(self, pieces: Iterable[_Piece], may_join: Callable[[_Piece, _Piece], bool]) -> list[_Piece]:
        """Join neighbours that may, from the first on, as long as they fit the model together."""
        merged: list[_Piece] = []
        for piece in pieces:
            room = self._room(merged[-1].start) if merged else 0
            if merged and self._length(merged[-1].start, piece.end) <= room and may_join(merged[-1], piece):
                merged[-1] = _Piece(merged[-1].start, piece.end, merged[-1].first, piece.last)
            else:
                merged.append(piece)
        return merged

    def _belong_together(self, piece: _Piece, following: _Piece) -> bool:
        """Tell whether a caption meets its table or code, or a piece introduces what follows."""
        if piece.last is following.first:
            return False
        kinds = {piece.last.kind, following.first.kind}
        is_captioned = BlockKind.CAPTION in kinds and bool(kinds & {BlockKind.TABLE, BlockKind.CODE})
        return is_captioned or self._text[piece.start : piece.end].rstrip("*_").endswith((":", "："))

    def _are_short(self, piece: _Piece, following: _Piece) -> bool:
        return self._length(piece.start, following.end) <= self._target

    def _one_is_small(self, piece: _Piece, following: _Piece) -> bool:
        shorter = min(self._length(piece.start, piece.end), self._length(following.start, following.end))
        return shorter < self._target // 4

    def _fit(self, spans: list[Span]) -> list[Span]:
        """Count once more what the model will read, and halve the rare span that is too long.

        A tokenizer may cut a text differently on its own than inside a longer one.
        """
        texts = [embedded_text(self._context(start), self._text[start:end]) for start, end in spans]
        counts = self._tokenizer.count(texts)
        fitting: list[Span] = []
        for (start, end), count in zip(spans, counts, strict=True):
            if count <= self._tokenizer.max_tokens or end - start == 1:
                fitting.append((start, end))
            else:
                fitting.extend(self._fit(self._sentence_halves(start, end)))
        return fitting

    def _sentence_halves(self, start: int, end: int) -> list[Span]:
        """Cut a span in two between sentences near its middle, or between words when it is a single one."""
        starts = [first for first, _ in self._sentences_in(start, end)][1:]
        if not starts:
            return self._halves(start, end)
        middle = (start + end) // 2
        return cut_span(self._text, start, end, [min(starts, key=lambda cut: abs(cut - middle))])

    # What lies in a span.

    def _block_at(self, offset: int) -> Block:
        return self._section.blocks[bisect_right(self._block_starts, offset) - 1]

    def _blocks_in(self, start: int, end: int) -> tuple[Block, ...]:
        first = bisect_right(self._block_starts, start) - 1
        return self._section.blocks[first : bisect_left(self._block_starts, end)]

    def _sentences_in(self, start: int, end: int) -> list[Span]:
        inside: list[Span] = []
        for position in range(bisect_right(self._sentence_ends, start), len(self._sentences)):
            first, last = self._sentences[position]
            if first >= end:
                break
            inside.extend(cut_span(self._text, max(first, start), min(last, end), []))
        return inside


def _token_marks(text: str, blocks: Sequence[Block], tokenizer: Tokenizer) -> array[int]:
    """Return the offsets at which the tokens of a section begin; a very long token counts several times."""
    marks = array("q")
    reached = blocks[0].start
    for block in blocks:
        for start, end in tokenizer.spans(text[reached : block.end]):
            marks.extend(range(reached + start, reached + max(end, start + 1), _TOKEN_CHARS))
        reached = block.end
    return marks


def _path_context(title: str, headings: tuple[str, ...], tokenizer: Tokenizer) -> str:
    """Put title and headings on a line each; the outermost go first when they fill a quarter of the model."""
    room = tokenizer.max_tokens // 4
    lines = [" ".join(line.split()) for line in (title, *headings) if line]
    if len(lines) > 1 and lines[0] == lines[1]:
        del lines[0]
    while len(lines) > 1 and len(tokenizer.spans("\n".join(lines))) > room:
        del lines[0]
    return _shorten("\n".join(lines), room, tokenizer)


def _shorten(line: str, room: int, tokenizer: Tokenizer) -> str:
    """Cut a line after as many of its words as fit."""
    spans = tokenizer.spans(line)
    if len(spans) <= room:
        return line
    head = line[: spans[room][0]]
    return (head if head.endswith(" ") else head.rpartition(" ")[0] or head).rstrip()


def _language(document: Document) -> str:
    language = document.content.metadata.get("language")
    return language.replace("_", "-").partition("-")[0].lower() if isinstance(language, str) else "en"


def _grapheme_cuts(text: str, start: int, end: int, middle: int) -> list[int]:
    """Return offsets around the middle of a span at which no grapheme cluster is torn."""
    first = max(start, middle - _GRAPHEME_WINDOW)
    matches = _GRAPHEME.finditer(text, first, min(end, middle + _GRAPHEME_WINDOW))
    return [match.start() for match in matches][1:]
