"""Building the canonical text of a converted format, with the offsets of its blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from index.documents import Block, BlockKind, Content, MetadataValue, Span
from index.errors import DocumentError
from index.readers.limits import Limits

BLOCK_SEPARATOR = "\n\n"


class ContentBuilder:
    """Collects blocks one after another and keeps their offsets as the text grows.

    Blocks are set apart by an empty line, list items and table rows by a line break.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._pieces: list[str] = []
        self._blocks: list[Block] = []
        self._length = 0

    def add(
        self,
        kind: BlockKind,
        text: str,
        *,
        level: int = 0,
        page: int | None = None,
        furniture: bool = False,
    ) -> None:
        """Append a block; one without a visible character is left out.

        Raises:
            DocumentError: the text grew past `Limits.text_chars`.
        """
        text = text.strip()
        if not text:
            return
        start, end = self._append(text, BLOCK_SEPARATOR)
        title = " ".join(text.split()) if kind is BlockKind.HEADING else ""
        self._blocks.append(Block(kind, start, end, level=level, title=title, page=page, furniture=furniture))

    def add_parts(
        self,
        kind: BlockKind,
        parts: Sequence[str],
        *,
        header_rows: int = 0,
        page: int | None = None,
        furniture: bool = False,
    ) -> None:
        """Append a list or a table, one part a line; parts without a visible character are left out.

        Raises:
            DocumentError: the text grew past `Limits.text_chars`.
        """
        header = sum(1 for part in parts[:header_rows] if part.strip())
        visible = [part.strip() for part in parts if part.strip()]
        spans: list[Span] = []
        for part in visible:
            spans.append(self._append(part, "\n" if spans else BLOCK_SEPARATOR))
        if spans:
            self._blocks.append(
                Block(
                    kind,
                    spans[0][0],
                    spans[-1][1],
                    page=page,
                    parts=tuple(spans),
                    header_rows=header,
                    furniture=furniture,
                )
            )

    def content(self, *, title: str | None = None, metadata: Mapping[str, MetadataValue] | None = None) -> Content:
        """Return what was collected, as the content of a converted format."""
        return Content(
            text="".join(self._pieces),
            blocks=tuple(self._blocks),
            title=title or first_heading(self._blocks),
            metadata=metadata or {},
            is_converted=True,
        )

    def _append(self, text: str, separator: str) -> Span:
        if self._pieces:
            self._pieces.append(separator)
            self._length += len(separator)
        start = self._length
        self._pieces.append(text)
        self._length += len(text)
        if self._length > self._limits.text_chars:
            raise DocumentError(
                f"its text is longer than {self._limits.text_chars:,} characters; split it into smaller files"
            )
        return start, self._length


def first_heading(blocks: Sequence[Block]) -> str | None:
    """Return the words of the first heading, or None when there is none."""
    return next((block.title for block in blocks if block.kind is BlockKind.HEADING), None)
