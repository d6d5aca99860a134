"""reStructuredText, with the directives of Sphinx and others.

The reference parser knows the line of a block only roughly and drops what an unknown directive holds, so the
blocks are found here, by line and indentation.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from index.documents import BlockKind, Content, Span
from index.errors import DocumentError
from index.readers.blocks import Blocks, Lines
from index.readers.front_matter import front_matter, front_title
from index.readers.limits import Limits
from index.readers.text import canonical_text

_RULER = re.compile(r"([!-/:-@\[-`{-~])\1+\s*")
_EXPLICIT = re.compile(r"\s*(?:\.\.(?:\s|$)|__(?:\s|$))")
_FOOTNOTE = re.compile(r"\s*\.\.\s+(?=\[[^\[\]]+\]\s)")
_DIRECTIVE = re.compile(r"\s*\.\.\s+([\w:.+-]+?)\s?::(?:\s+|$)")
_OPTION = re.compile(r"\s*:([\w-]+):(?:\s+|$)")
_FIELD = re.compile(r"\s*:(?![:\s])((?:[^:]|:(?=\S))+):(?:\s+|$)")
_BULLET = re.compile(r"\s*[-*+•‣⁃](?:\s+|$)")
_ENUMERATOR = re.compile(r"\s*\(?(?:\d+|#|[a-zA-Z]|[ivxlcdm]+|[IVXLCDM]+)[.)]\s+\S")
_SIMPLE_BORDER = re.compile(r"\s*=+(?:[ \t]+=+)+\s*")
_SIMPLE_RULE = re.compile(r"\s*(?:=[ \t=]*|-[ \t-]*)")
_GRID_RULE = re.compile(r"\s*\+(?:[-=]+\+)+\s*")
_GRID_LINE = re.compile(r"\s*[+|]")
_MARKUP = (
    (re.compile(r"``(.+?)``"), r"\1"),
    (re.compile(r"(?::[\w:+-]+:)?`([^`<]+?)\s*(?:<[^`]*>)?`_{0,2}"), r"\1"),
    (re.compile(r"(\*\*?)(\S(?:.*?\S)?)\1"), r"\2"),
)

_TITLE_CHARS = 300

_CODE = (
    "code code-block sourcecode parsed-literal doctest testcode testoutput testsetup prompt console ipython math"
    " graphviz digraph mermaid productionlist command-output"
)
_UNSEEN = (
    "toctree contents include literalinclude raw index highlight module currentmodule py:module py:currentmodule"
    " meta title default-role role sectnum section-numbering target-notes tabularcolumns automodule testcleanup"
)
_UNSEEN_FIELDS = frozenset(["orphan", "nosearch", "nocomments", "tocdepth"])
_PICTURES = frozenset(["image", "figure", "thumbnail", "video", "youtube"])


def read_rst(data: bytes, limits: Limits) -> Content:
    """Read reStructuredText; the canonical text is the file with its marks.

    Comments, targets, substitution definitions, options of directives and raw parts for one output format are
    in no block, nor is anything included from another file. The text of an admonition, tab or unknown directive
    is read like any other.

    Raises:
        DocumentError: directives are nested deeper than `Limits.nesting`.
    """
    text = canonical_text(data, limits)
    metadata, start = front_matter(text)
    parser = _Parser(text, start, limits)
    parser.read(0, len(parser.lines))
    return parser.blocks.content(title=front_title(metadata), metadata=metadata)


@dataclass(frozen=True)
class _Directive:
    """A directive: its name, the offset of its argument, its options, and the lines of its body."""

    name: str
    argument: Span
    options: dict[str, Span]
    body: int
    end: int


class _Parser:
    """Finds the blocks of a region of lines; regions within are read by recursion."""

    def __init__(self, text: str, start: int, limits: Limits) -> None:
        self.lines = Lines(text, start)
        self.blocks = Blocks(text)
        self._nesting = limits.nesting
        self._depth = 0
        self._styles: list[tuple[str, bool]] = []

    def read(self, first: int, end: int) -> None:
        """Add the blocks of the lines from `first` up to `end`."""
        if self._depth > self._nesting:
            raise DocumentError(f"its directives are nested deeper than {self._nesting} levels; flatten them")
        self._depth += 1
        number = self.lines.skip_blank(first, end)
        base = self.lines.indent(number) if number < end else 0
        while number < end:
            number = self.lines.skip_blank(self._take(number, end, base), end)
        self._depth -= 1

    def _take(self, number: int, end: int, base: int) -> int:
        """Add the block that begins on a line; returns the line after it."""
        line = self.lines[number]
        if _EXPLICIT.match(line):
            return self._take_explicit(number, end)
        if _GRID_RULE.fullmatch(line):
            return self._take_grid(number, end)
        if _SIMPLE_BORDER.fullmatch(line):
            return self._take_simple_table(number, end)
        heading = self._take_heading(number, end)
        if heading is not None:
            return heading
        if _BULLET.match(line) or self._is_enumerated(number, end):
            return self._take_list(number, end)
        if _FIELD.match(line):
            return self._take_fields(number, end)
        if line.lstrip().startswith(">>> "):
            return self._take_run(BlockKind.CODE, number, end)
        return self._take_paragraph(number, end, base)

    def _inner_end(self, number: int, end: int, indent: int) -> int:
        """Return the line after those from `number` on that are blank or indented deeper."""
        last = number
        for current in range(number, end):
            if self.lines.is_blank(current):
                continue
            if self.lines.indent(current) <= indent:
                break
            last = current + 1
        return last

    def _take_run(self, kind: BlockKind, number: int, end: int) -> int:
        after = self.lines.until_blank(number, end)
        self.blocks.add(kind, self.lines.span(number, after))
        return after

    # Sections

    def _take_heading(self, number: int, end: int) -> int | None:
        overline = _RULER.fullmatch(self.lines[number])
        title = number + 1 if overline else number
        underline = _RULER.fullmatch(self.lines[title + 1]) if title + 1 < end else None
        if underline is None or (overline and overline[1] != underline[1]) or self.lines.is_blank(title):
            return number + 1 if overline and len(overline[0].strip()) >= 4 else None  # a transition
        width = len(underline[0].rstrip())
        if width < min(4, len(self.lines[title].strip())) or len(self.lines[title]) > _TITLE_CHARS:
            return None
        style = (underline[1], overline is not None)
        if style not in self._styles:
            self._styles.append(style)
        words = self.lines[title]
        for pattern, replacement in _MARKUP:
            words = pattern.sub(replacement, words)
        self.blocks.add_heading(self.lines.span(title, title + 1), self._styles.index(style) + 1, words)
        return title + 2

    # Paragraphs and literal blocks

    def _take_paragraph(self, number: int, end: int, base: int) -> int:
        after = self.lines.until_blank(number, end)
        indent = self.lines.indent(number)
        is_definition = after > number + 1 and self.lines.indent(number + 1) > indent
        kind = BlockKind.QUOTE if indent > base else BlockKind.PARAGRAPH
        literal = self._add_paragraph(kind, self.lines.start(number), after, end)
        if not is_definition:
            return literal
        body_end = max(literal, self._inner_end(literal, end, indent))
        self.read(literal, body_end)
        return body_end

    def _add_paragraph(self, kind: BlockKind, start: int, after: int, end: int) -> int:
        """Add the paragraph from an offset to a line, and the literal block that `::` announces.

        Returns:
            The line after both.
        """
        stop = self.lines.span(after - 1, after)[1]
        words = self.blocks.text[start:stop].rstrip()
        literal_end = after
        if words.endswith("::"):
            literal_end = self._inner_end(after, end, self.lines.indent(after - 1))
        if literal_end > after:
            words = words[:-2] if words[:-2] != words[:-2].rstrip() else words[:-1]
        if words.strip(":"):
            self.blocks.add(kind, (start, start + len(words)))
        self.blocks.add(BlockKind.CODE, self.lines.span(after, literal_end))
        return literal_end

    # Lists

    def _is_enumerated(self, number: int, end: int) -> bool:
        """Whether a line begins an enumerated list, and not a sentence such as one with initials."""
        if not _ENUMERATOR.match(self.lines[number]):
            return False
        if number + 1 >= end or self.lines.is_blank(number + 1):
            return True
        is_deeper = self.lines.indent(number + 1) > self.lines.indent(number)
        return is_deeper or _ENUMERATOR.match(self.lines[number + 1]) is not None

    def _take_list(self, number: int, end: int) -> int:
        items, after = self._items(number, end, _BULLET if _BULLET.match(self.lines[number]) else _ENUMERATOR)
        self.blocks.add_parts(BlockKind.LIST, items)
        return after

    def _take_fields(self, number: int, end: int) -> int:
        items, after = self._items(number, end, _FIELD)
        named = ((_FIELD.match(self.blocks.text[start:stop]), (start, stop)) for start, stop in items)
        kept = [item for name, item in named if name is None or name[1] not in _UNSEEN_FIELDS]
        self.blocks.add_parts(BlockKind.LIST, kept)
        return after

    def _items(self, number: int, end: int, marker: re.Pattern[str]) -> tuple[list[Span], int]:
        """Return the items of the list that begins on a line, and the line after it."""
        indent = self.lines.indent(number)
        items: list[Span] = []
        while number < end and self.lines.indent(number) == indent and marker.match(self.lines[number]):
            after = self._inner_end(number + 1, end, indent)
            items.append(self.lines.span(number, after))
            number = self.lines.skip_blank(after, end)
        return items, after

    # Tables

    def _take_grid(self, number: int, end: int) -> int:
        rows: list[Span] = []
        header = 0
        first = after = number + 1
        while after < end and _GRID_LINE.match(self.lines[after]):
            if _GRID_RULE.fullmatch(self.lines[after]):
                rows.append(self.lines.span(first, after))
                header = len(rows) if "=" in self.lines[after] else header
                first = after + 1
            after += 1
        self.blocks.add_parts(BlockKind.TABLE, rows, header_rows=header)
        return after

    def _take_simple_table(self, number: int, end: int) -> int:
        after = self._simple_table_end(number, end)
        second_column = re.search(r"=[ \t]+=", self.lines[number])
        margin = second_column.start() + 1 if second_column else 0
        rows: list[Span] = []
        header = 0
        for current in range(number + 1, after):
            line = self.lines[current]
            if _SIMPLE_BORDER.fullmatch(line) and current < after - 1:
                header = len(rows)
            if self.lines.is_blank(current) or _SIMPLE_RULE.fullmatch(line):
                continue
            row = self.lines.span(current, current + 1)
            if rows and not line[:margin].strip():
                row = (rows.pop()[0], row[1])
            rows.append(row)
        self.blocks.add_parts(BlockKind.TABLE, rows, header_rows=header)
        return after

    def _simple_table_end(self, number: int, end: int) -> int:
        for current in range(number + 1, end):
            is_last = current + 1 >= end or self.lines.is_blank(current + 1)
            if is_last and _SIMPLE_BORDER.fullmatch(self.lines[current]):
                return current + 1
        return self.lines.until_blank(number, end)

    # Explicit markup

    def _take_explicit(self, number: int, end: int) -> int:
        line = self.lines[number]
        after = self._inner_end(number + 1, end, self.lines.indent(number))
        footnote, directive = _FOOTNOTE.match(line), _DIRECTIVE.match(line)
        if footnote:
            start, stop = self.lines.span(number, after)
            self.blocks.add(BlockKind.PARAGRAPH, (start + footnote.end(), stop))
        elif directive:
            self._read_directive(self._directive(number, after, directive))
        return after

    def _directive(self, number: int, after: int, match: re.Match[str]) -> _Directive:
        body = number + 1
        while body < after and not self.lines.is_blank(body) and not _OPTION.match(self.lines[body]):
            body += 1
        argument = (self.lines.start(number) + match.end(), self.lines.span(number, body)[1])
        options: dict[str, Span] = {}
        while body < after and (option := _OPTION.match(self.lines[body])):
            value = self._inner_end(body + 1, after, self.lines.indent(body))
            start, stop = self.lines.span(body, value)
            options[option[1]] = (start + option.end(), stop)
            body = value
        return _Directive(match[1].lower(), argument, options, body, after)

    def _read_directive(self, directive: _Directive) -> None:
        if directive.name in _UNSEEN.split():
            return
        if directive.name in _CODE.split():
            self._read_code(directive)
        elif directive.name in _PICTURES:
            self._read_picture(directive)
        elif directive.name == "csv-table":
            self._read_csv(directive)
        elif directive.name == "list-table":
            self._read_list_table(directive)
        else:
            kind = BlockKind.CAPTION if directive.name == "table" else BlockKind.PARAGRAPH
            self.blocks.add(kind, directive.argument)
            self.read(directive.body, directive.end)

    def _read_code(self, directive: _Directive) -> None:
        start, stop = directive.argument
        newline = self.blocks.text.find("\n", start, stop)
        if newline >= 0 and not directive.options:  # code that follows without an empty line
            self.blocks.add(BlockKind.CODE, (newline, self.lines.span(directive.body - 1, directive.end)[1]))
        elif directive.name == "math":
            self.blocks.add(BlockKind.CODE, (start, self.lines.span(directive.body - 1, directive.end)[1]))
        else:
            self.blocks.add(BlockKind.CODE, self.lines.span(directive.body, directive.end))

    def _read_picture(self, directive: _Directive) -> None:
        if "alt" in directive.options:
            self.blocks.add(BlockKind.CAPTION, directive.options["alt"])
        self.blocks.add(BlockKind.CAPTION, self.lines.span(directive.body, directive.end))

    def _read_csv(self, directive: _Directive) -> None:
        self.blocks.add(BlockKind.CAPTION, directive.argument)
        header = [directive.options["header"]] if "header" in directive.options else []
        rows = [self.lines.span(number, number + 1) for number in range(directive.body, directive.end)]
        header_rows = len(header) or self._number(directive, "header-rows")
        self.blocks.add_parts(BlockKind.TABLE, [*header, *rows], header_rows=header_rows)

    def _read_list_table(self, directive: _Directive) -> None:
        self.blocks.add(BlockKind.CAPTION, directive.argument)
        first = self.lines.skip_blank(directive.body, directive.end)
        if first == directive.end:
            return
        if not _BULLET.match(self.lines[first]):
            self.read(first, directive.end)
            return
        rows, after = self._items(first, directive.end, _BULLET)
        header_rows = self._number(directive, "header-rows")
        self.blocks.add_parts(BlockKind.TABLE, rows, header_rows=header_rows)
        self.read(after, directive.end)

    def _number(self, directive: _Directive, option: str) -> int:
        start, stop = directive.options.get(option, (0, 0))
        value = self.blocks.text[start:stop].strip()
        return int(value) if re.fullmatch(r"\d{1,3}", value, re.ASCII) else 0
