"""AsciiDoc: sections, lists, tables and delimited blocks, found by line."""

from __future__ import annotations

import re

from index.documents import BlockKind, Content, Span
from index.errors import DocumentError
from index.readers.blocks import Blocks, Lines
from index.readers.front_matter import front_matter, front_title
from index.readers.limits import Limits
from index.readers.text import canonical_text

_HEADING = re.compile(r"(={1,6}|#{1,6})[ \t]+(\S.*?)(?:[ \t]+\1)?[ \t]*")
_UNDERLINES = {"=": 1, "-": 2, "~": 3, "^": 4, "+": 5}
_UNDERLINE = re.compile(r"([=\-~^+])\1{2,}[ \t]*")
_ATTRIBUTE = re.compile(r":!?[\w-]+!?:(?:[ \t].*)?")
_BLOCK_ATTRIBUTES = re.compile(r"\[(.*)\][ \t]*")
_BLOCK_TITLE = re.compile(r"\.(?![. \t])(.+)")
_UNSEEN = re.compile(r"//(?!/).*|<<<|'{3,}|-{3}|\*{3}|(?:include|ifdef|ifndef|ifeval|endif|toc)::.*")
_PICTURE = re.compile(r"(?:image|video|audio)::[^\[]*\[(.*)\][ \t]*")
_ALTERNATIVE = re.compile(r'"[^"]*"|[^,"=]*(?=,|$)')
_DELIMITER = re.compile(r"(-{4,}|\.{4,}|={4,}|\*{4,}|_{4,}|\+{4,}|/{4,}|--|```\S*|[|,:!]={3,})[ \t]*")
_MARKER = re.compile(
    r"[ \t]*(\*{1,6}|-|\.{1,6}|\d{1,3}\.|[a-zA-Z]\.|<(?:\d+|\.)>)[ \t]+\S|[ \t]*\S.*?(::|;;)(?:[ \t]|$)"
)
_CELL = re.compile(r"(?<!\\)\|")
_COLUMNS = re.compile(r"""\bcols\s*=\s*(?:"([^"]*)"|([^,\]]+))""")
_REPEAT = re.compile(r"\s*(\d{1,3})\*")
_MARKUP = re.compile(r"(\*\*?|__?|``?|##?)(?=\S)(.+?)(?<=\S)\1")

_TITLE_CHARS = 300


def read_asciidoc(data: bytes, limits: Limits) -> Content:
    """Read AsciiDoc; the canonical text is the file with its marks.

    Comments, attributes, conditions and includes are in no block; nothing is included from another file.

    Raises:
        DocumentError: blocks are nested deeper than `Limits.nesting`.
    """
    text = canonical_text(data, limits)
    metadata, start = front_matter(text)
    parser = _Parser(text, start, limits)
    parser.read(0, len(parser.lines))
    return parser.blocks.content(title=front_title(metadata), metadata=metadata)


class _Parser:
    """Finds the blocks of a region of lines; regions within delimiters are read by recursion."""

    def __init__(self, text: str, start: int, limits: Limits) -> None:
        self.lines = Lines(text, start)
        self.blocks = Blocks(text)
        self._nesting = limits.nesting
        self._depth = 0
        self._attributes = ""

    def read(self, first: int, end: int) -> None:
        """Add the blocks of the lines from `first` up to `end`."""
        if self._depth > self._nesting:
            raise DocumentError(f"its blocks are nested deeper than {self._nesting} levels; flatten them")
        self._depth += 1
        number = self.lines.skip_blank(first, end)
        while number < end:
            number = self.lines.skip_blank(self._take(number, end), end)
        self._depth -= 1

    def _take(self, number: int, end: int) -> int:
        """Add the block that begins on a line; returns the line after it."""
        line = self.lines[number]
        attributes = _BLOCK_ATTRIBUTES.fullmatch(line)
        if attributes:
            self._attributes += f",{attributes[1]}" if self._attributes else attributes[1]
            self._add_attribution(number, attributes)
            return number + 1
        if _BLOCK_TITLE.fullmatch(line):
            self.blocks.add(BlockKind.CAPTION, (self.lines.start(number) + 1, self.lines.span(number, number + 1)[1]))
            return number + 1
        block_attributes, self._attributes = self._attributes, ""
        return self._take_content(number, end, block_attributes)

    def _take_content(self, number: int, end: int, attributes: str) -> int:
        line = self.lines[number]
        heading = self._take_heading(number, end)
        if heading is not None:
            return heading
        delimiter = _DELIMITER.fullmatch(line)
        if delimiter:
            return self._take_delimited(number, end, delimiter[1], attributes)
        if _UNSEEN.fullmatch(line) or _ATTRIBUTE.fullmatch(line):
            return number + 1
        picture = _PICTURE.fullmatch(line)
        if picture:
            self._add_alternative(number, picture)
            return number + 1
        if _MARKER.match(line):
            return self._take_list(number, end)
        return self._take_paragraph(number, end, attributes)

    def _add_attribution(self, number: int, attributes: re.Match[str]) -> None:
        """Add who is quoted, which stands beside the style of a quote: `[quote, author, work]`."""
        style, _, attribution = attributes[1].partition(",")
        if style.strip() in ("quote", "verse"):
            end = self.lines.start(number) + attributes.end(1)
            self.blocks.add(BlockKind.CAPTION, (end - len(attribution), end))

    def _add_alternative(self, number: int, picture: re.Match[str]) -> None:
        text = _ALTERNATIVE.match(picture[1])
        if text:
            start = self.lines.start(number) + picture.start(1)
            quoted = int(text[0].startswith('"'))
            self.blocks.add(BlockKind.CAPTION, (start + quoted, start + text.end() - quoted))

    def _take_heading(self, number: int, end: int) -> int | None:
        line, start = self.lines[number], self.lines.start(number)
        match = _HEADING.fullmatch(line) if len(line) <= _TITLE_CHARS else None
        if match:
            self.blocks.add_heading((start + match.start(2), start + match.end(2)), len(match[1]), _words(match[2]))
            return number + 1
        underline = _UNDERLINE.fullmatch(self.lines[number + 1]) if number + 1 < end else None
        width = len(line.rstrip())
        if underline is None or abs(len(underline[0].rstrip()) - width) > 1 or not line[:1].isalnum():
            return None
        self.blocks.add_heading((start, start + width), _UNDERLINES[underline[1]], _words(line[:_TITLE_CHARS]))
        return number + 2

    def _take_delimited(self, number: int, end: int, delimiter: str, attributes: str) -> int:
        closing = "```" if delimiter.startswith("```") else delimiter
        stop = self._find(closing, number + 1, end)
        after = min(stop + 1, end)
        mark = delimiter[0]
        inside = self.lines.span(number + 1, stop) if stop > number + 1 else (0, 0)
        if mark in "|,:!":
            self._add_table(number + 1, stop, mark, attributes)
        elif mark in "`." or delimiter.startswith("----") or attributes.startswith(("source", "listing", "literal")):
            self.blocks.add(BlockKind.CODE, inside)
        elif mark == "_":
            self.blocks.add(BlockKind.QUOTE, inside)
        elif mark == "+":
            self.blocks.add(BlockKind.PARAGRAPH, inside)
        elif mark != "/":
            self.read(number + 1, stop)
        return after

    def _find(self, delimiter: str, number: int, end: int) -> int:
        while number < end and self.lines[number].rstrip() != delimiter:
            number += 1
        return number

    def _add_table(self, first: int, end: int, mark: str, attributes: str) -> None:
        filled = [number for number in range(first, end) if not self.lines.is_blank(number)]
        if not filled:
            return
        columns = self._columns(attributes, filled[0]) if mark in "|!" else 0
        rows: list[Span] = []
        cells = 0
        for number in filled:
            row = self.lines.span(number, number + 1)
            own = len(_CELL.findall(self.lines[number].replace("!", "|") if mark == "!" else self.lines[number]))
            if not rows or cells + own > columns:
                rows.append(row)
                cells = own
            else:
                rows[-1] = (rows[-1][0], row[1])
                cells += own
        names_columns = "header" in attributes or (first == filled[0] and self.lines.is_blank(first + 1))
        header = int(names_columns and "noheader" not in attributes and len(rows) > 1)
        self.blocks.add_parts(BlockKind.TABLE, rows, header_rows=header)

    def _columns(self, attributes: str, first: int) -> int:
        """Count the columns of a table: as its attributes say, or as many as its first line has cells."""
        match = _COLUMNS.search(attributes)
        if match is None:
            return max(1, len(_CELL.findall(self.lines[first])))
        specifiers = re.split("[,;]", match[1] or match[2] or "")
        repeats = (_REPEAT.match(specifier) for specifier in specifiers)
        return sum(int(repeat[1]) if repeat else 1 for repeat in repeats)

    def _take_list(self, number: int, end: int) -> int:
        kind = self._marker_kind(number)
        firsts, after = [number], number + 1
        while after < end:
            following = self.lines.skip_blank(after, end)
            if following == end or not self._continues_list(after, following):
                break
            delimiter = _DELIMITER.fullmatch(self.lines[following])
            if delimiter:
                following = min(self._find(delimiter[1], following + 1, end), end - 1)
            elif self._marker_kind(following) == kind:
                firsts.append(following)
            after = following + 1
        ends = [*firsts[1:], after]
        parts = [self.lines.span(first, stop) for first, stop in zip(firsts, ends, strict=True)]
        self.blocks.add_parts(BlockKind.LIST, parts)
        return after

    def _continues_list(self, after: int, following: int) -> bool:
        line = self.lines[following]
        if _MARKER.match(line) and not _BLOCK_TITLE.fullmatch(line):
            return True
        above = self.lines[after - 1].strip()
        if following > after:  # after an empty line: what is attached, or the definition of a term
            return line.strip() == "+" or above == "+" or above.endswith(("::", ";;"))
        if above == "+":
            return True
        return not (_DELIMITER.fullmatch(line) or _BLOCK_ATTRIBUTES.fullmatch(line) or line.startswith("//"))

    def _marker_kind(self, number: int) -> str:
        """Return what tells a list from those nested in it: its marker, a number like any other."""
        match = _MARKER.match(self.lines[number])
        if match is None:
            return ""
        marker = match[1] or match[2]
        return re.sub(r"\d+", "1", marker)

    def _take_paragraph(self, number: int, end: int, attributes: str) -> int:
        after = number + 1
        while after < end and not self.lines.is_blank(after) and not self._ends_paragraph(after):
            after += 1
        style = re.split(r"[,%#.]", attributes, maxsplit=1)[0].strip()
        is_code = style in ("source", "listing", "literal") or self.lines[number][:1].isspace()
        is_quote = style in ("quote", "verse")
        kind = BlockKind.CODE if is_code else BlockKind.QUOTE if is_quote else BlockKind.PARAGRAPH
        self.blocks.add(kind, self.lines.span(number, after))
        return after

    def _ends_paragraph(self, number: int) -> bool:
        line = self.lines[number]
        return bool(_DELIMITER.fullmatch(line) or _UNSEEN.fullmatch(line) or _ATTRIBUTE.fullmatch(line))


def _words(title: str) -> str:
    return _MARKUP.sub(r"\2", title)
