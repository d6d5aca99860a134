"""PDF: the lines of its pages as pdfium finds them, put together again by `layout.py`."""

from __future__ import annotations

import ctypes
import re
import sys
import unicodedata
from collections.abc import Iterator

import pypdfium2 as pdfium  # type: ignore[import-untyped]
import pypdfium2.raw as raw  # type: ignore[import-untyped]

from index.documents import Content, MetadataValue
from index.errors import DocumentError
from index.readers.builder import ContentBuilder
from index.readers.layout import CELL_GAP, HYPHEN, Line, lay_out, write
from index.readers.limits import Limits

BOLD_WEIGHT = 500  # of 100 to 900

_FIXED_PITCH = 1 << 0  # font flags of the PDF specification, table 121
_FORCE_BOLD = 1 << 18
_PDFIUM_HYPHEN = "\x02"  # what pdfium writes for a hyphen that ends a line, whose line break it drops
_JOINED_HYPHEN = "\ufffe"  # the same where it is asked for text rather than characters
_BOLD_NAME = re.compile(r"bold|black|heavy|semibold|demi", re.IGNORECASE)
_FIXED_NAME = re.compile(r"mono|courier|consol|menlo|typewriter|cmtt", re.IGNORECASE)
_LIGATURE = re.compile("[\ufb00-\ufb06]")
_SYMBOL_BULLETS = str.maketrans({"\uf0b7": "•", "\uf0a7": "▪", "\uf0d8": "➢", "\uf0fc": "✓", "\xa0": " "})
_NO_TEXT = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u200b\ue000-\uf8ff\ufeff\ufffe\uffff\U0010ffff]")
_DATE = re.compile(r"D:(\d{4})(\d\d)(\d\d)")
_JUNK_TITLE = re.compile(r"^(microsoft|untitled|slide 1$)|\.(docx?|tex|dvi|indd|pptx?|xlsx?|qxd|pdf)$", re.IGNORECASE)


def read_pdf(data: bytes, limits: Limits) -> Content:
    """Read the text of a PDF; every block knows its page.

    The pictures of a scanned document are not recognised as text: such a file comes out without blocks and
    has to be put through OCR before it is added.

    Raises:
        DocumentError: the file is damaged or protected by a password, or crosses a limit.
    """
    with _open(data) as document:
        if len(document) > limits.pages:
            raise DocumentError(
                f"it has {len(document):,} pages, more than {limits.pages:,}; split it into smaller files"
            )
        pages = [_lines(document, number) for number in range(len(document))]
        metadata = _metadata(document)
        title = _value(document, "Title")
    builder = ContentBuilder(limits)
    write(builder, lay_out(pages))
    return builder.content(title=None if _JUNK_TITLE.search(title) else title, metadata=metadata)


def _open(data: bytes) -> pdfium.PdfDocument:
    try:
        return pdfium.PdfDocument(data)
    except pdfium.PdfiumError as exc:
        if exc.err_code == raw.FPDF_ERR_PASSWORD:
            raise DocumentError("is protected by a password; remove the protection and add it again") from exc
        if exc.err_code == raw.FPDF_ERR_SECURITY:
            raise DocumentError("is encrypted in an unsupported way; remove the protection and add it again") from exc
        raise DocumentError("is damaged or cut short: no PDF can be read from it; get a fresh copy") from exc


def _metadata(document: pdfium.PdfDocument) -> dict[str, MetadataValue]:
    found = {key.lower(): _value(document, key) for key in ("Author", "Subject", "Keywords")}
    created = _DATE.match(_value(document, "CreationDate"))
    found["date"] = "-".join(created.groups()) if created else ""
    return {key: value for key, value in found.items() if value}


def _value(document: pdfium.PdfDocument, key: str) -> str:
    """Return a property of the document on one line; empty when it is missing or no text."""
    try:
        return " ".join(_clean(document.get_metadata_value(key)).split())
    except UnicodeDecodeError:
        return ""


def _lines(document: pdfium.PdfDocument, index: int) -> list[Line]:
    """Return the lines of a page in the order in which its text was written."""
    try:
        page = document[index]
        text_page = page.get_textpage()
    except pdfium.PdfiumError as exc:
        raise DocumentError(f"is damaged: its page {index + 1} cannot be read; get a fresh copy") from exc
    try:
        return list(_Page(text_page, index + 1).lines())
    finally:
        text_page.close()
        page.close()


class _Page:
    """The characters of a page with their boxes and fonts."""

    def __init__(self, text_page: pdfium.PdfTextPage, number: int) -> None:
        self._raw = text_page.raw
        self._number = number
        self._rotation = text_page.page.get_rotation()
        self._size = raw.FPDF_GetPageWidthF(text_page.page), raw.FPDF_GetPageHeightF(text_page.page)
        self._characters = _characters(text_page)

    def lines(self) -> Iterator[Line]:
        """Yield the visible lines; where pdfium dropped a line break after a hyphen, several are one."""
        start = 0
        for end in [*self._breaks(), len(self._characters)]:
            line = self._line(start, end)
            if line is not None:
                yield line
            start = end + 1

    def _breaks(self) -> Iterator[int]:
        return (index for index, character in enumerate(self._characters) if character in "\r\n")

    def _line(self, start: int, end: int) -> Line | None:
        visible = [index for index in range(start, end) if not self._characters[index].isspace()]
        if not visible:
            return None
        first, last = visible[0], visible[-1]
        left, bottom, right, top = self._box(first)
        _, last_bottom, last_right, last_top = self._box(last)
        cells = tuple(filter(None, (cell.strip() for cell in self._cells(first, last + 1, top - bottom))))
        if not cells:
            return None
        fonts = [self._font(first), self._font(last)]
        return Line(
            cells,
            self._number,
            left=left,
            right=max(right, last_right),
            top=max(top, last_top) if last_bottom < top and last_top > bottom else top,
            bottom=min(bottom, last_bottom),
            height=max(top - bottom, last_top - last_bottom),
            is_bold=all(is_bold for is_bold, _ in fonts),
            is_code=all(is_fixed for _, is_fixed in fonts),
        )

    def _cells(self, start: int, end: int, height: float) -> Iterator[str]:
        """Yield the text between gaps that are wider than any between words."""
        cell_start = start
        for index in range(start, end):
            if self._characters[index] == " " and self._gap(index, start, end) > CELL_GAP * height:
                yield self._text(cell_start, index)
                cell_start = index
        yield self._text(cell_start, end)

    def _gap(self, space: int, start: int, end: int) -> float:
        """Measure how far apart the characters around a space stand; 0 when there is another one."""
        if space <= start or space + 1 >= end or self._characters[space + 1] == " ":
            return 0.0
        before = space - 1
        while before > start and self._characters[before] == " ":
            before -= 1
        return self._box(space + 1)[0] - self._box(before)[2]

    def _text(self, start: int, end: int) -> str:
        text = "".join(self._characters[start:end])
        return HYPHEN.join(_clean(piece) for piece in text.split(_PDFIUM_HYPHEN))

    def _box(self, index: int) -> tuple[float, float, float, float]:
        """Return left, bottom, right and top of a character's cell on the page as it is shown, in points."""
        box = raw.FS_RECTF()
        raw.FPDFText_GetLooseCharBox(self._raw, index, box)
        width, height = self._size
        if self._rotation == 90:
            return box.bottom, height - box.right, box.top, height - box.left
        if self._rotation == 180:
            return width - box.right, height - box.top, width - box.left, height - box.bottom
        if self._rotation == 270:
            return width - box.top, box.left, width - box.bottom, box.right
        return box.left, box.bottom, box.right, box.top

    def _font(self, index: int) -> tuple[bool, bool]:
        """Tell whether a character is bold and whether its font has one width for all."""
        buffer, flags = ctypes.create_string_buffer(128), ctypes.c_int()
        raw.FPDFText_GetFontInfo(self._raw, index, buffer, len(buffer), flags)
        name = buffer.value.decode("utf-8", "replace")
        is_bold = raw.FPDFText_GetFontWeight(self._raw, index) >= BOLD_WEIGHT or bool(flags.value & _FORCE_BOLD)
        is_fixed = bool(flags.value & _FIXED_PITCH) or _FIXED_NAME.search(name) is not None
        return is_bold or _BOLD_NAME.search(name) is not None, is_fixed


def _characters(text_page: pdfium.PdfTextPage) -> list[str]:
    """Return the characters of a page, one for each that pdfium counts."""
    characters = list(text_page.get_text_range().replace(_JOINED_HYPHEN, _PDFIUM_HYPHEN))
    if len(characters) == text_page.count_chars():
        return characters
    # Some are outside the basic plane; one by one they keep their count, but that is slower.
    indexes = range(text_page.count_chars())
    return [chr(min(raw.FPDFText_GetUnicode(text_page.raw, index), sys.maxunicode)) for index in indexes]


def _clean(text: str) -> str:
    """Spell ligatures out, compose accents, and drop what is no text."""
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "ignore").translate(_SYMBOL_BULLETS)
    text = _LIGATURE.sub(lambda match: unicodedata.normalize("NFKC", match[0]), text)
    return unicodedata.normalize("NFC", _NO_TEXT.sub("", text))
