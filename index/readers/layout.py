"""Layout: the lines of printed pages put together again into paragraphs, lists, tables and headings.

A printed page says where a line stands and how it is set, but not what it is. The rules are plain: a gap, an
indentation, a bullet or another size of type begins something new; larger or bold type is a heading; what
stands at the edge of page after page is furniture.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median

from index.documents import BlockKind
from index.readers.builder import ContentBuilder

HYPHEN = "\x02"  # stands for a hyphen at the end of a line, whether it belongs to the word or only to the line

CELL_GAP = 1.1  # heights of a line; a wider gap between words is one between cells
SIZE_STEP = 0.08  # heights that differ by less are one size of type
WIDE_GAP = 0.4  # heights of a line, beyond the usual gap between lines
INDENT = 0.7  # heights of a line
SHORT_LINE = 0.85  # of the width of its paragraph
HYPHENATING = 0.03  # broken words per line, above which a document is taken to hyphenate
HEADING_CHARS = 160
EDGE_LINES = 2  # at the top and the bottom of a page, where running heads are looked for
RUNNING_SHARE = 0.4  # of the pages, on which a running head stands

_BULLET = re.compile(r"[•▪◦‣●○■□➢✓∙·](?:\s+|$)")
_MARKER = re.compile(r"(?:[-–—*]|\(?(?:\d{1,3}|[a-zA-Z]|[ivx]{1,4})[.)])(?:\s+|$)")
_SENTENCE_END = re.compile(r"[.!?:;…。！？][\"'”’»)\]]*$")
_FIRST_SENTENCE = re.compile(r".*?(?:[.!?…][\"'”’»)\]]*(?=\s+[^\s\da-z])|[。！？])", re.DOTALL)
_CAPTION = re.compile(r"(?:fig(?:ure|\.)?|table|tab\.|abb(?:ildung|\.)|tabelle|listing)\s*\d+", re.IGNORECASE)
_NUMBERED_TITLE = re.compile(r"\d{1,2}(?:\.\d{1,2}){1,3}\.?\s+[^\W\d_]")
_PAGE_NUMBER = re.compile(
    r"(?:page|seite|p\.)?\s*+[-–—]?\s*+(?:\d{1,4}|[ivxl]{1,6})\s*+[-–—]?\s*+(?:(?:of|von|/)\s*+\d{1,4})?",
    re.IGNORECASE,
)
# The bound is beyond any word: looking ahead from every letter of a line without spaces would take long.
_BROKEN_WORD = re.compile(rf"([^\s{HYPHEN}]{{0,100}}+){HYPHEN}\s*([^\s{HYPHEN}]*)")
_WORD = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)*")
_UNSPACED = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\uff00-\uffef]")  # Chinese and Japanese


@dataclass(frozen=True)
class Line:
    """A line of a page.

    Attributes:
        cells: its text, split where a gap is wider than any between words; none is empty.
        page: from 1.
        left: of its first character, in points from the left.
        right: of its last character.
        top: in points from the bottom.
        bottom: of its last character, which is lower than the first where pdfium joined lines at a hyphen.
        height: of its type.
        is_bold: whether it begins and ends in bold type.
        is_code: whether it is set in a font with one width for all characters.
    """

    cells: tuple[str, ...]
    page: int
    left: float
    right: float
    top: float
    bottom: float
    height: float
    is_bold: bool = False
    is_code: bool = False

    @property
    def text(self) -> str:
        return " ".join(self.cells)


@dataclass(frozen=True)
class Region:
    """What belongs together on a page.

    Attributes:
        kind: of the block that it becomes.
        parts: of a list its items, of a table its rows, otherwise one text.
        page: on which it starts, from 1.
        level: of a heading, 1 to 6.
        header_rows: of a table.
        furniture: whether it is a running head or a page number.
    """

    kind: BlockKind
    parts: tuple[str, ...]
    page: int
    level: int = 0
    header_rows: int = 0
    furniture: bool = False


def lay_out(pages: Sequence[Sequence[Line]]) -> list[Region]:
    """Put the lines of a document together; running heads and page numbers follow the text of their page.

    Args:
        pages: the lines of each page in reading order.
    """
    pages = [_joined_rows(page) for page in pages]
    running = _running_heads(pages)
    bodies = [[line for line in page if line not in running] for page in pages]
    typography = _Typography.of([line for body in bodies for line in body])
    grouped = [list(_groups(body, typography)) for body in bodies]
    headings = [group[0] for groups in grouped for group in groups if _is_heading(group, typography)]
    sizes = sorted({_size(line, typography) for line in headings}, reverse=True)
    texts = [_with_whole_lists(_region(group, typography, sizes) for group in groups) for groups in grouped]
    _carry_sentences(texts)
    for page, regions in zip(pages, texts, strict=True):
        heads = (line for line in page if line in running)
        regions += [Region(BlockKind.PARAGRAPH, (line.text,), line.page, furniture=True) for line in heads]
    return typography.mend(region for regions in texts for region in regions)


def write(builder: ContentBuilder, regions: Iterable[Region]) -> None:
    """Append the regions to a document."""
    for region in regions:
        if region.kind in (BlockKind.LIST, BlockKind.TABLE):
            builder.add_parts(region.kind, region.parts, header_rows=region.header_rows, page=region.page)
        else:
            text = region.parts[0]
            builder.add(region.kind, text, level=region.level, page=region.page, furniture=region.furniture)


def _joined_rows(lines: Sequence[Line]) -> list[Line]:
    """Join lines that stand beside each other, as around a raised figure or after a bullet."""
    joined: list[Line] = []
    for line in lines:
        if joined and _stands_beside(joined[-1], line):
            joined[-1] = _beside(joined[-1], line)
        else:
            joined.append(line)
    return [_with_marker(line) for line in joined]


def _stands_beside(left: Line, right: Line) -> bool:
    overlap = min(left.bottom + left.height, right.top) - max(left.bottom, right.bottom)
    return right.left > left.right - 1 and overlap > 0.5 * min(left.height, right.height)


def _beside(left: Line, right: Line) -> Line:
    gap = (right.left - left.right) / max(left.height, right.height)
    if gap > CELL_GAP:
        cells = (*left.cells, *right.cells)
    else:
        space = " " if gap > 0.15 else ""
        cells = (*left.cells[:-1], left.cells[-1] + space + right.cells[0], *right.cells[1:])
    return replace(
        left,
        cells=cells,
        right=right.right,
        top=max(left.top, right.top),
        bottom=min(left.bottom, right.bottom),
        height=max(left.height, right.height),
        is_bold=left.is_bold and right.is_bold,
        is_code=left.is_code and right.is_code,
    )


def _with_marker(line: Line) -> Line:
    """Take a bullet or number that stands apart from its item as part of the item."""
    first = line.cells[0]
    if len(line.cells) > 1 and (_BULLET.fullmatch(first) or _MARKER.fullmatch(first)):
        return replace(line, cells=(f"{first} {line.cells[1]}", *line.cells[2:]))
    return line


def _running_heads(pages: Sequence[Sequence[Line]]) -> set[Line]:
    """Find the lines at the edges of pages that are page numbers or come again on other pages."""
    edges = [_edge_lines(page) for page in pages]
    seen = Counter(form for edge in edges for form in {_form(line) for line in edge})
    needed = max(2, RUNNING_SHARE * len(pages))
    return {
        line
        for edge in edges
        for line in edge
        if _PAGE_NUMBER.fullmatch(line.text) or (seen[_form(line)] >= needed and len(line.cells) < 4)
    }


def _edge_lines(page: Sequence[Line]) -> list[Line]:
    """Return the uppermost and lowest lines of a page; none of a page that has no others."""
    ordered = sorted(page, key=lambda line: -line.top)
    if len(ordered) <= 2 * EDGE_LINES:
        return [line for line in (*ordered[:1], *ordered[-1:]) if len(ordered) > 2]
    return ordered[:EDGE_LINES] + ordered[-EDGE_LINES:]


def _form(line: Line) -> str:
    """Return a line without its figures, so that "Page 3" is the same on every page."""
    return re.sub(r"\d+", "0", line.text.casefold())


@dataclass(frozen=True)
class _Typography:
    """How a document is set.

    Attributes:
        height: of its body type.
        gap: between two lines of a paragraph; negative where the cells of the type overlap.
        is_typewritten: whether its body type has one width for all characters.
        hyphenates: whether words are broken at the ends of lines.
        words: all unbroken words in lower case.
    """

    height: float
    gap: float
    is_typewritten: bool
    hyphenates: bool
    words: frozenset[str]

    @classmethod
    def of(cls, lines: Sequence[Line]) -> _Typography:
        letters: Counter[float] = Counter()
        for line in lines:
            letters[round(line.height, 1)] += len(line.text)
        height = letters.most_common(1)[0][0] if letters else 1.0
        gaps = [above.bottom - below.top for above, below in pairwise(lines)]
        code = sum(len(line.text) for line in lines if line.is_code)
        broken = sum(line.text.count(HYPHEN) for line in lines)
        return cls(
            height,
            median([gap for gap in gaps if abs(gap) < height] or [0.0]),
            is_typewritten=code > 0.5 * letters.total(),
            hyphenates=broken > HYPHENATING * (len(lines) + broken),
            words=frozenset(
                word.lower() for line in lines for word in _WORD.findall(_BROKEN_WORD.sub(" ", line.text))
            ),
        )

    def is_larger(self, line: Line) -> bool:
        return line.height > self.height * (1 + SIZE_STEP)

    def is_code(self, line: Line) -> bool:
        return line.is_code and not self.is_typewritten

    def mend(self, regions: Iterable[Region]) -> list[Region]:
        """Put words together that were broken at the end of a line."""
        return [
            replace(region, parts=tuple(_BROKEN_WORD.sub(self._mended, part) for part in region.parts))
            for region in regions
        ]

    def _mended(self, match: re.Match[str]) -> str:
        left, right = match.groups()
        whole, compound = left + right, f"{left}-{right}"
        if not (left and right and left[-1].isalpha() and right[0].islower()) or "-" in left:
            return compound
        if _is_known(whole, self.words):
            return whole
        return whole if self.hyphenates and not _is_known(compound, self.words) else compound


def _is_known(word: str, words: frozenset[str]) -> bool:
    match = _WORD.search(word)
    return match is not None and match[0].lower() in words


def _groups(lines: Sequence[Line], typography: _Typography) -> Iterator[list[Line]]:
    """Split the lines of a page into those that belong together."""
    group: list[Line] = []
    rows = _table_rows(lines)
    for position, line in enumerate(lines):
        is_row = position in rows
        if group and (is_row != (position - 1 in rows) or (not is_row and _begins(line, group, typography))):
            yield group
            group = []
        group.append(line)
    if group:
        yield group


def _table_rows(lines: Sequence[Line]) -> set[int]:
    """Find the positions of lines with several cells that have another such line above or below."""
    rows = set()
    for position, (above, below) in enumerate(pairwise(lines)):
        is_near = -below.height < above.bottom - below.top < 2 * below.height
        if is_near and len(above.cells) > 1 and len(below.cells) > 1:
            rows |= {position, position + 1}
    return rows


def _begins(line: Line, group: Sequence[Line], typography: _Typography) -> bool:
    """Tell whether a line begins something new after the lines of a group."""
    last = group[-1]
    if _is_set_otherwise(line, last, typography) or _BULLET.match(line.text):
        return True
    is_ended = _SENTENCE_END.search(last.text) is not None
    gap = last.bottom - line.top
    if typography.is_code(line):  # an empty line does not end it
        return not -line.height < gap < 2 * line.height
    if gap < -line.height:  # the line stands higher: another column has begun
        return is_ended or _is_item(group[0])
    if gap > typography.gap + WIDE_GAP * line.height:
        return True
    if _MARKER.match(line.text) and (is_ended or _is_item(group[0])):
        return True
    shift = line.left - last.left
    if shift < -INDENT * line.height and (_is_item(group[0]) or len(group) > 1):
        return True
    return is_ended and not _is_item(group[0]) and (shift > INDENT * line.height or _is_short(last, group))


def _is_set_otherwise(line: Line, last: Line, typography: _Typography) -> bool:
    return (
        abs(line.height - last.height) > SIZE_STEP * last.height
        or line.is_bold != last.is_bold
        or typography.is_code(line) != typography.is_code(last)
    )


def _is_short(last: Line, group: Sequence[Line]) -> bool:
    """Tell whether the last line of a group leaves much of its width empty."""
    left, right = min(line.left for line in group), max(line.right for line in group)
    return last.right - left < SHORT_LINE * (right - left)


def _is_item(line: Line) -> bool:
    return _BULLET.match(line.text) is not None or _MARKER.match(line.text) is not None


def _is_heading(group: Sequence[Line], typography: _Typography) -> bool:
    text = " ".join(line.text for line in group)
    if len(group) > 3 or len(text) > HEADING_CHARS or not _WORD.search(text) or _CAPTION.match(text):
        return False
    if _BULLET.match(text) or (_SENTENCE_END.search(text) and not text.endswith("?")):
        return False
    first = group[0]
    is_numbered = len(group) == 1 and _NUMBERED_TITLE.match(text) is not None
    return typography.is_larger(first) or first.is_bold or is_numbered


def _size(line: Line, typography: _Typography) -> float:
    """Round the height of a heading's type; all that is not larger than the body counts as one size."""
    return round(2 * line.height) / 2 if typography.is_larger(line) else 0.0


def _region(group: Sequence[Line], typography: _Typography, sizes: Sequence[float]) -> Region:
    first = group[0]
    if len(group) > 1 and all(len(line.cells) > 1 for line in group):
        rows = tuple(" | ".join(line.cells) for line in group)
        has_header = first.is_bold and not all(line.is_bold for line in group)
        return Region(BlockKind.TABLE, rows, first.page, header_rows=int(has_header))
    if typography.is_code(first):
        return Region(BlockKind.CODE, (_code(group),), first.page)
    if _is_heading(group, typography):
        level = min(sizes.index(_size(first, typography)) + 1, 6)
        return Region(BlockKind.HEADING, (_flowing(group),), first.page, level=level)
    if _CAPTION.match(first.text) and len(group) <= 4:
        return Region(BlockKind.CAPTION, (_flowing(group),), first.page)
    kind = BlockKind.LIST if _is_item(first) else BlockKind.PARAGRAPH
    return Region(kind, (_flowing(group),), first.page)


def _code(group: Sequence[Line]) -> str:
    """Return code line by line, indented as it stands on the page."""
    widths = [(line.right - line.left) / len(line.text) for line in group if len(line.text) > 3]
    width, margin = (median(widths) if widths else 0.0), min(line.left for line in group)
    indents = [round((line.left - margin) / width) if width > 0 else 0 for line in group]
    return "\n".join(" " * indent + line.text for indent, line in zip(indents, group, strict=True))


def _flowing(group: Sequence[Line]) -> str:
    """Join the lines of a paragraph; a break inside a word is marked for mending."""
    text = group[0].text
    for line in group[1:]:
        text = _continued(text, line.text)
    return text


def _continued(text: str, more: str) -> str:
    if text.endswith("-") and text[-2:-1].isalpha() and more[:1].islower():
        return f"{text[:-1]}{HYPHEN}{more}"
    if _UNSPACED.match(text[-1:]) and _UNSPACED.match(more):
        return text + more
    return text + more if text.endswith(HYPHEN) else f"{text} {more}"


def _with_whole_lists(regions: Iterable[Region]) -> list[Region]:
    """Join items that follow each other into one list."""
    joined: list[Region] = []
    for region in regions:
        if joined and region.kind is joined[-1].kind is BlockKind.LIST:
            joined[-1] = replace(joined[-1], parts=joined[-1].parts + region.parts)
        else:
            joined.append(region)
    return joined


def _carry_sentences(pages: Sequence[list[Region]]) -> None:
    """Bring the end of a sentence that runs on over a page break to the page on which it begins."""
    filled = [page for page in pages if page]
    for page, following in pairwise(filled):
        text, more = page[-1].parts[-1], following[0].parts[0]
        if following[0].kind is not BlockKind.PARAGRAPH or not _runs_on(page[-1], text, more):
            continue
        end = _FIRST_SENTENCE.match(more)
        cut = end.end() if end else len(more)
        page[-1] = replace(page[-1], parts=(*page[-1].parts[:-1], _continued(text, more[:cut])))
        following[0] = replace(following[0], parts=(more[cut:].strip(),))


def _runs_on(region: Region, text: str, more: str) -> bool:
    if region.kind not in (BlockKind.PARAGRAPH, BlockKind.LIST) or _SENTENCE_END.search(text):
        return False
    return more[:1].islower() or text.endswith((",", "-", HYPHEN))
