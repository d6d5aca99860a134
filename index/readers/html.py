"""HTML: web pages and fragments of them."""

from __future__ import annotations

import codecs
import re

from lxml import etree
from lxml.html import HtmlElement, HTMLParser, document_fromstring

from index.documents import Content, MetadataValue
from index.errors import DocumentError
from index.readers.builder import ContentBuilder
from index.readers.furniture import judge
from index.readers.limits import Limits
from index.readers.pieces import pieces, shown_text, write
from index.readers.text import decode

_BYTE_ORDER_MARKS = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_CHARSET = re.compile(rb"""(?:charset|encoding)\s*=\s*["']?\s*([\w.:-]+)""", re.IGNORECASE)
_LATIN = frozenset(["iso-8859-1", "latin1", "latin-1", "us-ascii", "ascii"])  # what browsers read as cp1252
_CHARSET_BYTES = 4096  # how far into a page its encoding may be declared
_NOT_IN_MARKUP = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")
_METADATA = {
    "author": ("author", "article:author", "dc.creator", "citation_author"),
    "date": ("article:published_time", "date", "dc.date", "dcterms.date", "citation_publication_date"),
    "description": ("description", "og:description", "dc.description"),
    "sitename": ("og:site_name", "application-name"),
}


def read_html(data: bytes, limits: Limits) -> Content:
    """Read a web page or a fragment of one.

    Raises:
        DocumentError: its elements are nested deeper than `Limits.nesting`, or its text is too long.
    """
    builder = ContentBuilder(limits)
    root = parse(data, limits)
    if root is None:
        return builder.content()
    write(builder, judge(pieces(root), root))
    return builder.content(title=title_of(root), metadata=metadata_of(root))


def parse(data: bytes, limits: Limits) -> HtmlElement | None:
    """Parse a page leniently, without fetching or expanding anything; None when there is no element in it.

    Raises:
        DocumentError: its elements are nested deeper than `Limits.nesting`.
    """
    text = _NOT_IN_MARKUP.sub("", decode_page(data))
    # The parser's own limit on depth would silently cut a page off: it is lifted and the depth measured.
    parser = HTMLParser(encoding="utf-8", remove_comments=True, remove_pis=True, huge_tree=True, no_network=True)
    try:
        root = document_fromstring(text.encode(), parser=parser)
    except etree.ParserError:
        return None
    if is_nested_deeper(root, limits.nesting):
        raise DocumentError(
            f"its elements are nested more than {limits.nesting} deep; simplify the page or save it as text"
        )
    return root


def is_nested_deeper(root: etree._Element, depth: int) -> bool:
    """Tell whether any element has `depth` or more ancestors; a hostile tree is not recursed into."""
    level = 0
    for event, _ in etree.iterwalk(root, events=("start", "end")):
        level += 1 if event == "start" else -1
        if level > depth:
            return True
    return False


def decode_page(data: bytes) -> str:
    """Decode a page: as UTF-8 if it is valid, else as declared, else as any other text.

    UTF-8 goes first because pages are often re-encoded without changing what they declare, and text in
    another encoding is hardly ever valid UTF-8.
    """
    if not data.startswith(_BYTE_ORDER_MARKS):
        for encoding in ("utf-8", _declared_encoding(data)):
            try:
                return data.decode(encoding).replace("\r\n", "\n").replace("\r", "\n")
            except (UnicodeError, LookupError):
                continue
    return decode(data)


def _declared_encoding(data: bytes) -> str:
    """Return the encoding that a page declares; empty when there is none or it cannot be that one."""
    match = _CHARSET.search(data, 0, _CHARSET_BYTES)
    declared = match[1].decode().lower() if match else ""
    if declared.startswith(("utf-16", "utf-32", "ucs")):  # the declaration could not have been read
        return ""
    return "cp1252" if declared in _LATIN else declared


def title_of(root: HtmlElement) -> str | None:
    """Return the title of a page: its own, the one for social networks, or its first top heading."""
    candidates = [root.findtext(".//title"), _meta(root).get("og:title"), *map(shown_text, root.iter("h1"))]
    return next((" ".join(title.split()) for title in candidates if title and title.strip()), None)


def metadata_of(root: HtmlElement) -> dict[str, MetadataValue]:
    """Return what a page declares of itself: author, date, description, sitename, language and url.

    Nothing is guessed from its text, so that the same page always says the same.
    """
    meta = _meta(root)
    found = {key: next((meta[name] for name in names if name in meta), "") for key, names in _METADATA.items()}
    found["language"] = root.get("lang") or root.get("xml:lang") or ""
    addresses = (link.get("href", "") for link in root.iter("link") if link.get("rel") == "canonical")
    found["url"] = next((url for url in addresses if url.startswith(("http://", "https://"))), "")
    return {key: value for key, value in found.items() if value}


def _meta(root: HtmlElement) -> dict[str, str]:
    """Map the lower-case names of the page's meta elements to their values; the first of a name counts."""
    found: dict[str, str] = {}
    for element in root.iter("meta"):
        name = (element.get("name") or element.get("property") or "").lower()
        value = " ".join(element.get("content", "").split())
        if name and value:
            found.setdefault(name, value)
    return found
