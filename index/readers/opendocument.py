"""ODT: the body of an OpenDocument text in order."""

from __future__ import annotations

from collections.abc import Iterator

from lxml import etree

from index.documents import BlockKind, Content, MetadataValue
from index.errors import DocumentError
from index.readers.archives import damage_reported, open_archive, read_xml
from index.readers.builder import ContentBuilder
from index.readers.limits import Limits

_NAMESPACES = {
    "office": "urn:oasis:names:tc:opendocument:xmlns:office:1.0",
    "text": "urn:oasis:names:tc:opendocument:xmlns:text:1.0",
    "table": "urn:oasis:names:tc:opendocument:xmlns:table:1.0",
    "style": "urn:oasis:names:tc:opendocument:xmlns:style:1.0",
    "draw": "urn:oasis:names:tc:opendocument:xmlns:drawing:1.0",
    "meta": "urn:oasis:names:tc:opendocument:xmlns:meta:1.0",
    "manifest": "urn:oasis:names:tc:opendocument:xmlns:manifest:1.0",
    "dc": "http://purl.org/dc/elements/1.1/",
}
_MAX_SPACES = 1_000  # a run of spaces is stored as a number, which may be anything


def _tag(name: str) -> str:
    prefix, local = name.split(":")
    return f"{{{_NAMESPACES[prefix]}}}{local}"


_HEADING, _PARAGRAPH, _LIST = _tag("text:h"), _tag("text:p"), _tag("text:list")
_ITEMS = frozenset([_tag("text:list-item"), _tag("text:list-header")])
_TABLE, _ROW, _HEADER_ROWS = _tag("table:table"), _tag("table:table-row"), _tag("table:table-header-rows")
_CELL, _TEXT_BOX, _SPACES = _tag("table:table-cell"), _tag("draw:text-box"), _tag("text:s")
_NOTE, _NOTE_BODY, _CONTENTS = _tag("text:note"), _tag("text:note-body"), _tag("text:table-of-content")
_NOT_SHOWN = frozenset(
    map(_tag, ["text:note", "text:tracked-changes", "office:annotation", "draw:text-box", "text:sequence-decls"])
)
_BREAKS = {_tag("text:tab"): "\t", _tag("text:line-break"): "\n"}
_STYLES = {"Title": BlockKind.HEADING, "Quotations": BlockKind.QUOTE, "Preformatted_20_Text": BlockKind.CODE}
_METADATA = {
    "author": ["meta:initial-creator", "dc:creator"],
    "date": ["meta:creation-date", "dc:date"],
    "language": ["dc:language"],
    "subject": ["dc:subject"],
    "description": ["dc:description"],
    "keywords": ["meta:keyword"],
}


def read_odt(data: bytes, limits: Limits) -> Content:
    """Read an OpenDocument text; comments, deleted changes and macros are left out.

    Raises:
        DocumentError: the file is damaged, protected, or crosses a limit.
    """
    with open_archive(data, limits) as archive, damage_reported("OpenDocument text"):
        names = archive.namelist()
        if "META-INF/manifest.xml" in names and _is_encrypted(read_xml(archive, "META-INF/manifest.xml")):
            raise DocumentError("is protected by a password; remove the protection and add it again")
        content = read_xml(archive, "content.xml")
        meta = read_xml(archive, "meta.xml") if "meta.xml" in names else None
    body = content.find(".//office:body/office:text", _NAMESPACES)
    if body is None:
        raise DocumentError("is no OpenDocument text: it has no text body; save it as ODT")
    builder = ContentBuilder(limits)
    _Reader(builder, _parents_of_styles(content)).blocks(body)
    title, metadata = _metadata(meta) if meta is not None else (None, {})
    return builder.content(title=title, metadata=metadata)


def _is_encrypted(manifest: etree._Element) -> bool:
    return manifest.find(".//manifest:encryption-data", _NAMESPACES) is not None


def _parents_of_styles(content: etree._Element) -> dict[str, str]:
    """Map the automatic styles, which have meaningless names, to those that they are based on."""
    styles = content.iterfind(".//office:automatic-styles/style:style", _NAMESPACES)
    return {style.get(_tag("style:name"), ""): style.get(_tag("style:parent-style-name"), "") for style in styles}


def _metadata(meta: etree._Element) -> tuple[str | None, dict[str, MetadataValue]]:
    texts: dict[str, str] = {}
    for element in meta.iter("{*}*"):
        texts.setdefault(element.tag, " ".join((element.text or "").split()))
    found = {
        key: next((texts[_tag(name)] for name in names if texts.get(_tag(name))), "")
        for key, names in _METADATA.items()
    }
    return texts.get(_tag("dc:title")) or None, {key: value for key, value in found.items() if value}


class _Reader:
    """Writes the blocks of a body."""

    def __init__(self, builder: ContentBuilder, styles: dict[str, str]) -> None:
        self._builder = builder
        self._styles = styles

    def blocks(self, parent: etree._Element, *, furniture: bool = False) -> None:
        """Write what stands in a body, a section, a note or a text box."""
        code: list[str] = []
        for child in parent:
            kind = self._kind(child)
            if kind is not BlockKind.CODE and code:
                self._builder.add(BlockKind.CODE, "\n".join(code))
                code = []
            if kind is BlockKind.CODE:
                code.append(_text(child))
            elif kind is not None:
                level = _number(child, "text:outline-level") if kind is BlockKind.HEADING else 0
                self._builder.add(kind, _text(child), level=min(level, 6), furniture=furniture)
                self._insets(child)
            elif child.tag == _LIST:
                self._builder.add_parts(BlockKind.LIST, list(_items(child)), furniture=furniture)
                self._insets(child)
            elif child.tag == _TABLE:
                self._table(child)
            elif child.tag not in _NOT_SHOWN:
                self.blocks(child, furniture=furniture or child.tag == _CONTENTS)
        self._builder.add(BlockKind.CODE, "\n".join(code))

    def _kind(self, element: etree._Element) -> BlockKind | None:
        """Tell what a paragraph or heading is; None for everything else."""
        if element.tag == _HEADING:
            return BlockKind.HEADING
        if element.tag != _PARAGRAPH:
            return None
        style = element.get(_tag("text:style-name"), "")
        return _STYLES.get(self._styles.get(style) or style, BlockKind.PARAGRAPH)

    def _insets(self, element: etree._Element) -> None:
        """Write the notes and text boxes of a paragraph after it."""
        for inset in element.iter(_NOTE_BODY, _TEXT_BOX):
            if not any(ancestor.tag in _NOT_SHOWN for ancestor in _ancestors(inset, element)):
                self.blocks(inset)

    def _table(self, table: etree._Element) -> None:
        rows = [list(row.iterchildren(_CELL)) for row in table.iter(_ROW) if _is_of(row, table)]
        if max(map(len, rows), default=0) < 2:  # a frame around text
            for row in rows:
                for cell in row:
                    self.blocks(cell)
            return
        texts = [[" ".join(_text(cell).split()) for cell in row] for row in rows]
        header_rows = sum(len(list(head.iter(_ROW))) for head in table.iterchildren(_HEADER_ROWS))
        lines = [" | ".join(text) if any(text) else "" for text in texts]
        self._builder.add_parts(BlockKind.TABLE, lines, header_rows=min(header_rows, len(lines) - 1))
        self._insets(table)


def _items(element: etree._Element) -> Iterator[str]:
    for item in element:
        if item.tag in _ITEMS:
            yield "\n".join(filter(None, (line.strip() for line in _text(item).split("\n"))))


def _text(element: etree._Element) -> str:
    """Return the text of an element; paragraphs inside it are lines of their own."""
    return "".join(_strings(element)).strip("\n")


def _strings(element: etree._Element) -> Iterator[str]:
    yield element.text or ""
    for child in element:
        if child.tag in _BREAKS:
            yield _BREAKS[child.tag]
        elif child.tag == _SPACES:
            yield " " * max(1, min(_number(child, "text:c"), _MAX_SPACES))
        elif child.tag not in _NOT_SHOWN:
            edge = "\n" if child.tag in (_PARAGRAPH, _HEADING) else ""
            yield edge
            yield from _strings(child)
            yield edge
        yield child.tail or ""


def _number(element: etree._Element, name: str) -> int:
    """Return a number attribute, at least 1."""
    value = element.get(_tag(name), "1")
    return max(1, int(value[:9])) if value.isdecimal() else 1


def _ancestors(element: etree._Element, top: etree._Element) -> Iterator[etree._Element]:
    """Yield the elements between one that holds a note's body or a box and one further out.

    The note around a body is left out: it belongs to the body.
    """
    for ancestor in element.iterancestors():
        if ancestor is top:
            return
        if not (ancestor.tag == _NOTE and ancestor is element.getparent()):
            yield ancestor


def _is_of(row: etree._Element, table: etree._Element) -> bool:
    return next(row.iterancestors(_TABLE)) is table
