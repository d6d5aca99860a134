"""Finding blocks in a text that is kept as it is, and carrying them over into a converted one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import accumulate

from index.documents import Block, BlockKind, Content, MetadataValue, Span
from index.readers.builder import ContentBuilder, first_heading

MAX_LEVEL = 6


def visible(text: str, start: int, end: int) -> Span | None:
    """Shrink a span until it begins and ends with a visible character; None when it holds none."""
    piece = text[start:end]
    stripped = piece.strip()
    if not stripped:
        return None
    start += len(piece) - len(piece.lstrip())
    return start, start + len(stripped)


class Lines:
    """The lines of a text from an offset on, numbered from 0, without their line breaks."""

    def __init__(self, text: str, start: int = 0) -> None:
        self._lines = text[start:].split("\n")
        lengths = (len(line) + 1 for line in self._lines)
        self._starts = list(accumulate(lengths, initial=start))

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, number: int) -> str:
        return self._lines[number]

    def is_blank(self, number: int) -> bool:
        """Whether a line holds nothing visible; what lies outside the text is blank, too."""
        return not 0 <= number < len(self) or not self._lines[number].strip()

    def indent(self, number: int) -> int:
        """Return the column at which the line begins to be visible, a tab reaching to the next eighth."""
        line = self._lines[number].expandtabs(8)
        return len(line) - len(line.lstrip())

    def start(self, number: int) -> int:
        """Return the offset of the first character of a line; `len(self)` is one past the end."""
        return self._starts[number]

    def span(self, first: int, end: int) -> Span:
        """Return the offsets of the lines from `first` up to, not including, `end`, without the last break."""
        return self._starts[first], max(self._starts[first], self._starts[end] - 1)

    def skip_blank(self, number: int, end: int) -> int:
        """Return the first line from `number` on that is not blank, or `end`."""
        while number < end and self.is_blank(number):
            number += 1
        return number

    def until_blank(self, number: int, end: int) -> int:
        """Return the first blank line from `number` on, or `end`."""
        while number < end and not self.is_blank(number):
            number += 1
        return number


class Blocks:
    """Collects the blocks of a text that is kept as it is; what has nothing visible is left out."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.found: list[Block] = []

    def add(self, kind: BlockKind, span: Span, parts: Iterable[Span] = (), *, header_rows: int = 0) -> None:
        """Append a block; its span and its parts are trimmed to what is visible.

        Args:
            kind: anything but a heading.
            span: with the parts, if there are any, inside.
            parts: list items or table rows, in order.
            header_rows: how many of the parts name columns.
        """
        edges = visible(self.text, *span)
        if edges is None:
            return
        trimmed = [visible(self.text, *part) for part in parts]
        kept = tuple(part for part in trimmed if part is not None)
        header = sum(1 for part in trimmed[:header_rows] if part is not None)
        self.found.append(Block(kind, *edges, parts=kept, header_rows=header))

    def add_parts(self, kind: BlockKind, parts: list[Span], *, header_rows: int = 0) -> None:
        """Append a list or table that reaches from its first part to its last."""
        if parts:
            self.add(kind, (parts[0][0], parts[-1][1]), parts, header_rows=header_rows)

    def add_heading(self, span: Span, level: int, title: str | None = None) -> None:
        """Append a heading.

        Args:
            span: the words, without the marks that make them a heading.
            level: from 1; cut at 6.
            title: the words without markup; None takes them as they stand.
        """
        edges = visible(self.text, *span)
        if edges is None:
            return
        words = " ".join((self.text[slice(*edges)] if title is None else title).split())
        if words:
            self.found.append(Block(BlockKind.HEADING, *edges, level=min(level, MAX_LEVEL), title=words))

    def content(self, *, title: str | None = None, metadata: Mapping[str, MetadataValue] | None = None) -> Content:
        """Return the text with its blocks, as the content of a text format."""
        return Content(
            text=self.text,
            blocks=tuple(self.found),
            title=title or first_heading(self.found),
            metadata=metadata or {},
        )


def copy_blocks(content: Content, builder: ContentBuilder) -> None:
    """Append the blocks of a content to a converted text; headings lose their markup."""
    for block in content.blocks:
        if block.parts:
            parts = [content.text[start:end] for start, end in block.parts]
            builder.add_parts(block.kind, parts, header_rows=block.header_rows)
        else:
            words = block.title or content.text[block.start : block.end]
            builder.add(block.kind, words, level=block.level)
