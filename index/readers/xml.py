"""XML of any vocabulary, with the elements that DocBook, JATS, TEI and feeds share known by name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from html import unescape

from lxml import etree

from index.documents import BlockKind, Content
from index.errors import DocumentError
from index.readers.builder import ContentBuilder
from index.readers.limits import Limits
from index.readers.text import clean, decode

_HEADINGS = ("title", "article-title", "head", "heading")
_FRONTS = (  # where the title of a document stands when it is not a child of the root
    "info articleinfo bookinfo front article-meta title-group teiheader filedesc titlestmt channel prolog header"
    " metadata"
)
_CODE = frozenset(["programlisting", "screen", "literallayout", "synopsis", "code", "codeblock", "pre", "verbatim"])
_LISTS = frozenset(["list", "itemizedlist", "orderedlist", "simplelist", "variablelist", "ul", "ol", "dl"])
_TABLES = frozenset(["table", "informaltable", "tgroup", "table-wrap", "simpletable"])
_ROWS = frozenset(["row", "tr", "strow", "sthead"])
_HEADS = frozenset(["thead", "sthead"])
_PLAIN = {
    "blockquote": BlockKind.QUOTE,
    "disp-quote": BlockKind.QUOTE,
    "epigraph": BlockKind.QUOTE,
    "caption": BlockKind.CAPTION,
    "figcaption": BlockKind.CAPTION,
    "figdesc": BlockKind.CAPTION,
}
_PROSE = frozenset(["p", "para", "simpara", "abstract", "note", "label", "l", "lb", "pb", *_CODE, *_LISTS, *_PLAIN])
_SPACE = re.compile(r"\s+")
_TAG = re.compile(r"<[^<>]*>")


def read_xml(data: bytes, limits: Limits) -> Content:
    """Read the text of XML: titles as headings, lists, tables, code and quotes where they are known by name.

    An element whose children each hold one value becomes lines of `name: value`. Attributes and comments are
    not read; no entity is fetched, and an unknown one stays as it is written.

    Raises:
        DocumentError: it is not well-formed, expands without measure, or is nested deeper than `Limits.nesting`.
    """
    root = _parse(data)
    writer = _Writer(root, limits)
    writer.write(root, 0, 1)
    return replace(writer.builder.content(), title=writer.title)


def _parse(data: bytes) -> etree._Element:
    try:
        return etree.fromstring(data, _parser())
    except etree.XMLSyntaxError:
        return _parse_decoded(data)


def _parse_decoded(data: bytes) -> etree._Element:
    """Parse what cannot be parsed as it declares itself, mostly for its encoding."""
    try:
        return etree.fromstring(decode(data).encode(), _parser("utf-8"))
    except etree.XMLSyntaxError as exc:
        raise DocumentError(f"it is not well-formed XML: {exc.msg}; correct it") from exc


def _parser(encoding: str | None = None) -> etree.XMLParser:
    return etree.XMLParser(
        encoding=encoding,
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
    )


class _Writer:
    """Writes the elements below a root as blocks."""

    def __init__(self, root: etree._Element, limits: Limits) -> None:
        self.builder = ContentBuilder(limits)
        self._nesting = limits.nesting
        self._entities = _declared(root)
        self._title = _title_element(root)
        self.title = None if self._title is None else self._line(self._title) or None

    def write(self, element: etree._Element, section: int, depth: int) -> None:
        """Add the blocks of an element.

        Args:
            element: read with all below it.
            section: how many sections with a title it stands in.
            depth: of its nesting.
        """
        if depth > self._nesting:
            raise DocumentError(f"its elements are nested deeper than {self._nesting} levels; flatten them")
        name = _name(element)
        if name in _HEADINGS:
            self._add_heading(element, section)
        elif name in _CODE:
            self.builder.add(BlockKind.CODE, clean(self._text(element)))
        elif name in _LISTS and not _has_text(element):
            self._add_list(element)
        elif name in _TABLES and _holds_rows(element):
            self._add_table(element)
        elif name in _PLAIN or _has_text(element) or len(element) == 0:
            self.builder.add(_PLAIN.get(name, BlockKind.PARAGRAPH), self._line(element))
        elif _is_record(element):
            self._add_record(element, section)
        else:
            has_heading = any(_name(child) in _HEADINGS and child is not self._title for child in element)
            for child in element:
                self.write(child, section + has_heading, depth + 1)

    def _add_heading(self, element: etree._Element, section: int) -> None:
        below_title = int(self._title is not None)
        level = 1 if element is self._title else max(1, section) + below_title
        self.builder.add(BlockKind.HEADING, self._line(element), level=min(level, 6))

    def _add_list(self, element: etree._Element) -> None:
        for child in element:
            if _name(child) in _HEADINGS:
                self.builder.add(BlockKind.CAPTION, self._line(child))
        items = [self._line(child) for child in element if _name(child) not in _HEADINGS]
        self.builder.add_parts(BlockKind.LIST, items)

    def _add_table(self, element: etree._Element) -> None:
        found = list(self._in_table(element, is_head=False))
        for kind, line in found:
            if kind == "caption":
                self.builder.add(BlockKind.CAPTION, line)
        kinds = [kind for kind, _ in found if kind != "caption"]
        rows = [line for kind, line in found if kind != "caption"]
        self.builder.add_parts(BlockKind.TABLE, rows, header_rows=kinds.index("row") if "row" in kinds else 0)

    def _in_table(self, element: etree._Element, *, is_head: bool) -> Iterator[tuple[str, str]]:
        """Yield the lines of a table, each a "head", a "row" or, where there is something else, a "caption"."""
        for child in element:
            is_in_head = is_head or _name(child) in _HEADS
            if _name(child) in _ROWS:
                cells = [self._line(cell) for cell in child]
                yield "head" if is_in_head else "row", " | ".join(cells) if any(cells) else ""
            elif _holds_rows(child):
                yield from self._in_table(child, is_head=is_in_head)
            else:
                yield "caption", self._line(child)

    def _add_record(self, element: etree._Element, section: int) -> None:
        lines: list[str] = []
        for child in element:
            if _name(child) in _HEADINGS:
                self._add_heading(child, section + 1)
            elif self._line(child):
                lines.append(f"{_name(child)}: {self._line(child)}")
        self.builder.add_parts(BlockKind.LIST, lines)

    def _line(self, element: etree._Element) -> str:
        return _SPACE.sub(" ", clean(self._text(element))).strip()

    def _text(self, element: etree._Element) -> str:
        """Return the text of an element; children without text between them are set apart."""
        if not _name(element):
            return self._entity(element)
        between = "" if _has_text(element) else " "
        pieces = [element.text or ""]
        for child in element:
            pieces += [self._text(child), child.tail or "", between]
        return "".join(pieces)

    def _entity(self, entity: etree._Element) -> str:
        """Return what an entity stands for: text that the document itself declares, or a named character."""
        written = entity.text or ""
        return self._entities.get(written.strip("&;"), unescape(written))


def _declared(root: etree._Element) -> dict[str, str]:
    """Return the entities that a document declares itself, without markup."""
    declaration = root.getroottree().docinfo.internalDTD
    if declaration is None:
        return {}
    contents = ((entity.name, entity.content) for entity in declaration.iterentities())  # type: ignore[attr-defined]
    return {name: _TAG.sub("", content) for name, content in contents if content is not None}


def _title_element(root: etree._Element) -> etree._Element | None:
    """Find the title of the whole document."""
    for child in root:
        if _name(child) in _HEADINGS:
            return child
        if _name(child) in _FRONTS.split():
            return _title_element(child)
    return None


def _name(element: etree._Element) -> str:
    """Return the name of an element without its namespace; empty for an entity."""
    return etree.QName(element).localname.lower() if isinstance(element.tag, str) else ""


def _has_text(element: etree._Element) -> bool:
    """Whether text, or an entity that stands for some, is directly in an element."""
    if element.text and not element.text.isspace():
        return True
    return any(not _name(child) or (child.tail and not child.tail.isspace()) for child in element)


def _holds_rows(element: etree._Element) -> bool:
    return any(_name(below) in _ROWS for below in element.iter())


def _is_record(element: etree._Element) -> bool:
    """Whether the children of an element are values of different names."""
    names = {_name(child) for child in element}
    return len(names) > 1 and all(len(child) == 0 for child in element) and not names & _PROSE
