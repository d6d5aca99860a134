"""DOCX: the body of a Word document in order, with its notes, text boxes and running heads."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass

import docx
from docx.document import Document as WordDocument
from docx.opc.constants import RELATIONSHIP_TYPE
from docx.opc.exceptions import OpcError
from docx.oxml.ns import qn
from docx.styles.style import BaseStyle, ParagraphStyle
from lxml import etree

from index.documents import BlockKind, Content
from index.readers.archives import core_properties, damage_reported, open_archive
from index.readers.builder import ContentBuilder
from index.readers.limits import Limits

_HEADING_STYLE = re.compile(r"heading ([1-9])", re.IGNORECASE)
_CODE_STYLE = re.compile(r"code|preformatted|macro|listing", re.IGNORECASE)
_BREAKS = {qn("w:tab"): "\t", qn("w:br"): "\n", qn("w:cr"): "\n", qn("w:noBreakHyphen"): "-"}
_NOT_SHOWN = frozenset(
    [
        *map(qn, ["w:del", "w:moveFrom", "w:instrText", "w:txbxContent", "w:rPr", "w:pPr"]),
        "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback",  # repeats its neighbour
    ]
)
_TEXTS = frozenset([qn("w:t"), "{http://schemas.openxmlformats.org/officeDocument/2006/math}t"])
_WRAPPERS = frozenset(
    [qn("w:sdt"), qn("w:sdtContent"), qn("w:customXml"), qn("w:ins"), qn("w:moveTo"), qn("w:smartTag")]
)
_OUTLINE_LEVELS = {"0": 1, "1": 2, "2": 3, "3": 4, "4": 5, "5": 6}  # of a paragraph -> of a heading
_LOOK_FIRST_ROW = 0x20  # bit of a table's look: its first row is a header
_STYLE_DEPTH = 20  # styles based on each other in a circle end here
_NOTE_SEPARATORS = frozenset(["separator", "continuationSeparator", "continuationNotice"])


def read_docx(data: bytes, limits: Limits) -> Content:
    """Read a Word document; deleted and hidden revisions, comments and macros are left out.

    Raises:
        DocumentError: the file is damaged, protected, or crosses a limit.
    """
    with open_archive(data, limits) as archive:
        title, metadata = core_properties(archive)
    with damage_reported("Word document", OpcError):
        document = docx.Document(io.BytesIO(data))
        reader = _Reader(document, ContentBuilder(limits))
        reader.read()
        return reader.builder.content(title=title or reader.title, metadata=metadata)


@dataclass(frozen=True)
class _Style:
    """What a paragraph style makes of its paragraphs."""

    kind: BlockKind
    level: int = 0
    is_title: bool = False
    furniture: bool = False  # a table of contents


_PLAIN = _Style(BlockKind.PARAGRAPH)


class _Reader:
    """Writes the parts of one document."""

    def __init__(self, document: WordDocument, builder: ContentBuilder) -> None:
        self.builder = builder
        self.title: str | None = None
        self._document = document
        self._styles = {style.style_id: _style(style) for style in document.styles}
        self._open_kind: BlockKind | None = None
        self._open_parts: list[str] = []

    def read(self) -> None:
        """Write the body, the notes and the running heads."""
        self._blocks(self._document.element.body)
        for relationship in (RELATIONSHIP_TYPE.FOOTNOTES, RELATIONSHIP_TYPE.ENDNOTES):
            self._notes(relationship)
        self._flush()
        for text in _running_heads(self._document):
            self.builder.add(BlockKind.PARAGRAPH, text, furniture=True)

    def _blocks(self, parent: etree._Element) -> None:
        for child in parent:
            if child.tag == qn("w:p"):
                self._paragraph(child)
            elif child.tag == qn("w:tbl"):
                self._table(child)
            elif child.tag in _WRAPPERS:
                self._blocks(child)

    def _paragraph(self, paragraph: etree._Element) -> None:
        text = _text(paragraph)
        style = self._style_of(paragraph)
        if style.kind in (BlockKind.LIST, BlockKind.CODE):
            self._join(style.kind, text)
        else:
            self._flush()
            self.builder.add(style.kind, text, level=style.level, furniture=style.furniture)
            if style.is_title and text.strip():
                self.title = self.title or " ".join(text.split())
        for box in paragraph.iter(qn("w:txbxContent")):
            if not _is_within(box, _NOT_SHOWN, paragraph):
                self._blocks(box)

    def _style_of(self, paragraph: etree._Element) -> _Style:
        outline = paragraph.find(f"{qn('w:pPr')}/{qn('w:outlineLvl')}")
        level = outline.get(qn("w:val"), "") if outline is not None else ""
        if level in _OUTLINE_LEVELS:
            return _Style(BlockKind.HEADING, _OUTLINE_LEVELS[level])
        named = paragraph.find(f"{qn('w:pPr')}/{qn('w:pStyle')}")
        style = self._styles.get(named.get(qn("w:val")), _PLAIN) if named is not None else _PLAIN
        is_numbered = paragraph.find(f"{qn('w:pPr')}/{qn('w:numPr')}") is not None
        return _Style(BlockKind.LIST) if is_numbered and style.kind is BlockKind.PARAGRAPH else style

    def _join(self, kind: BlockKind, text: str) -> None:
        """Collect a list item or a line of code until something else comes."""
        if kind is not self._open_kind:
            self._flush()
        self._open_kind = kind
        self._open_parts.append(text)

    def _flush(self) -> None:
        if self._open_kind is BlockKind.LIST:
            self.builder.add_parts(BlockKind.LIST, self._open_parts)
        elif self._open_kind is BlockKind.CODE:
            self.builder.add(BlockKind.CODE, "\n".join(self._open_parts))
        self._open_kind, self._open_parts = None, []

    def _table(self, table: etree._Element) -> None:
        rows = [list(_direct(row, qn("w:tc"))) for row in _direct(table, qn("w:tr"))]
        if max(map(len, rows), default=0) < 2:  # a frame around text
            for row in rows:
                for cell in row:
                    self._blocks(cell)
            return
        self._flush()
        lines = [[_cell_text(cell) for cell in row] for row in rows]
        texts = [" | ".join(line) if any(line) else "" for line in lines]
        self.builder.add_parts(BlockKind.TABLE, texts, header_rows=_header_rows(table, len(rows)))

    def _notes(self, relationship: str) -> None:
        for related in self._document.part.rels.values():
            if related.reltype != relationship or related.is_external:
                continue
            for note in _parse(related.target_part.blob):
                if note.get(qn("w:type")) not in _NOTE_SEPARATORS:
                    self._blocks(note)


def _style(style: BaseStyle) -> _Style:
    """Tell what a style makes of its paragraphs, from its name or that of a style it is based on."""
    found = (_named_style(ancestor) for ancestor in _with_bases(style))
    return next((known for known in found if known is not None), _PLAIN)


def _with_bases(style: BaseStyle) -> Iterator[BaseStyle]:
    ancestor: BaseStyle | None = style
    for _ in range(_STYLE_DEPTH):
        if ancestor is None:
            return
        yield ancestor
        ancestor = ancestor.base_style if isinstance(ancestor, ParagraphStyle) else None


def _named_style(style: BaseStyle) -> _Style | None:
    name = (style.name or "").lower()
    heading = _HEADING_STYLE.match(name)
    if heading:
        return _Style(BlockKind.HEADING, min(int(heading[1]), 6))
    if name == "title":
        return _Style(BlockKind.HEADING, 1, is_title=True)
    if name == "caption":
        return _Style(BlockKind.CAPTION)
    if name.startswith("toc "):
        return _Style(BlockKind.PARAGRAPH, furniture=True)
    if "quote" in name:
        return _Style(BlockKind.QUOTE)
    if _CODE_STYLE.search(name):
        return _Style(BlockKind.CODE)
    is_list = name.startswith("list ") and name != "list paragraph"
    is_list |= style.element.find(f"{qn('w:pPr')}/{qn('w:numPr')}") is not None
    return _Style(BlockKind.LIST) if is_list else None


def _text(element: etree._Element) -> str:
    """Return the text of a paragraph or of anything in it, as it reads with all changes accepted."""
    return "".join(_strings(element))


def _strings(element: etree._Element) -> Iterator[str]:
    for child in element:
        if child.tag in _TEXTS:
            yield child.text or ""
        elif child.tag in _BREAKS:
            yield _BREAKS[child.tag]
        elif child.tag not in _NOT_SHOWN:
            yield from _strings(child)


def _is_within(element: etree._Element, tags: frozenset[str], top: etree._Element) -> bool:
    """Tell whether an element stands in one of those tags, below another element."""
    for ancestor in element.iterancestors():
        if ancestor is top:
            return False
        if ancestor.tag in tags:
            return True
    return False


def _direct(parent: etree._Element, tag: str) -> Iterator[etree._Element]:
    """Yield the children of a tag, looking through content controls and accepted changes."""
    for child in parent:
        if child.tag == tag:
            yield child
        elif child.tag in _WRAPPERS:
            yield from _direct(child, tag)


def _cell_text(cell: etree._Element) -> str:
    paragraphs = (_text(paragraph) for paragraph in cell.iter(qn("w:p")))
    return " ".join(" ".join(paragraphs).split())


def _header_rows(table: etree._Element, rows: int) -> int:
    """Count the rows that name the columns: those repeated on every page, or a first row set apart."""
    repeated = sum(1 for _ in table.iterfind(f"{qn('w:tr')}/{qn('w:trPr')}/{qn('w:tblHeader')}"))
    look = table.find(f"{qn('w:tblPr')}/{qn('w:tblLook')}")
    is_set_apart = look is not None and (
        look.get(qn("w:firstRow")) == "1" or bool(int(look.get(qn("w:val"), "0"), 16) & _LOOK_FIRST_ROW)
    )
    return min(repeated or int(is_set_apart), rows - 1)


def _running_heads(document: WordDocument) -> list[str]:
    """Return the texts of the headers and footers, each once."""
    texts: dict[str, None] = {}
    for section in document.sections:
        for part in (section.header, section.footer):
            if not part.is_linked_to_previous:
                texts["\n".join(filter(None, (_text(p._p) for p in part.paragraphs)))] = None
    return list(texts)


def _parse(blob: bytes) -> etree._Element:
    return etree.fromstring(blob, etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False))
