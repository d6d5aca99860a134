"""Documents and the blocks they are made of.

A reader turns the bytes of a file into `Content`: the canonical text and the blocks in it. A document is
content with an identity. All offsets are code points of the canonical text, so that
`text[block.start:block.end]` is always exactly what the block says.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

MetadataValue = str | int | float | bool | list[str] | list[int] | list[float]
Span = tuple[int, int]

# Half of a surrogate pair: escapes and damaged encodings can make one, but it is no text and has no place in UTF-8.
HALF_SURROGATE = re.compile("[\ud800-\udfff]")


class BlockKind(Enum):
    """What a block is in its document."""

    HEADING = "heading"
    PARAGRAPH = "paragraph"
    LIST = "list"
    TABLE = "table"
    CODE = "code"
    QUOTE = "quote"
    CAPTION = "caption"


@dataclass(frozen=True, slots=True)
class Block:
    """A structural piece of a document's canonical text.

    Attributes:
        kind: what it is.
        start: first code point; the block begins and ends with a visible character.
        end: one past the last code point.
        level: of a heading, 1 (top) to 6; 0 for every other kind.
        title: of a heading, its words without markup; empty for every other kind.
        page: the page on which it starts, from 1; None where there are no pages.
        parts: of a list its top-level items, of a table its rows: spans in order, inside the block,
            not overlapping. A chunk never ends inside a part that fits.
        header_rows: how many of a table's first parts name its columns.
        furniture: navigation, repeated headers or footers and the like, which must not win against content.
    """

    kind: BlockKind
    start: int
    end: int
    level: int = 0
    title: str = ""
    page: int | None = None
    parts: tuple[Span, ...] = ()
    header_rows: int = 0
    furniture: bool = False


@dataclass(frozen=True)
class Content:
    """What a reader makes of the bytes of a file.

    Attributes:
        text: the canonical text. For text formats the decoded file itself (byte order mark dropped, CRLF
            and CR made LF); for converted formats the extracted text.
        blocks: in order of `start`, not overlapping; together they hold every visible word of the text that
            is content and not markup.
        title: from front matter, the format's own metadata or the first heading; None when there is none.
        metadata: scalar or flat list values, usable as filters.
        is_converted: whether `text` was extracted rather than decoded.
    """

    text: str
    blocks: tuple[Block, ...]
    title: str | None = None
    metadata: Mapping[str, MetadataValue] = field(default_factory=dict)
    is_converted: bool = False


@dataclass(frozen=True)
class Document:
    """One source file or page, with its identity.

    Attributes:
        doc_id: the path relative to the root of its source with `/`, or the id given over HTTP.
        title: the file name when the content has none; empty only where there is no file name either.
        media_type: of the source bytes, as detected.
        sha256: hexadecimal digest of the source bytes.
        size: of the source in bytes.
        content: the canonical text, blocks and metadata.
        uri: where a reader can open the original, an http(s) address; None when only the file is known.
    """

    doc_id: str
    title: str
    media_type: str
    sha256: str
    size: int
    content: Content
    uri: str | None = None

    @property
    def text(self) -> str:
        """The canonical text."""
        return self.content.text


def page_at(page_starts: Mapping[int, int], offset: int) -> int | None:
    """Find the page that holds an offset.

    Args:
        page_starts: offset of the first block of a page -> page number, in ascending order of offset.
        offset: into the canonical text.

    Returns:
        The page, from 1; None when the document has no pages or the offset lies before the first.
    """
    starts = list(page_starts)
    position = bisect_right(starts, offset) - 1
    return page_starts[starts[position]] if position >= 0 else None


def page_starts(blocks: tuple[Block, ...]) -> dict[int, int]:
    """Map the offset at which each page begins to its number, in ascending order."""
    starts: dict[int, int] = {}
    current: int | None = None
    for block in blocks:
        if block.page is not None and block.page != current:
            starts[block.start] = current = block.page
    return starts
