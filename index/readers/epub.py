"""EPUB: the chapters of an e-book in the order of its spine."""

from __future__ import annotations

import posixpath
import zipfile
from collections.abc import Iterator
from urllib.parse import unquote

from lxml import etree

from index.documents import Content, MetadataValue
from index.errors import DocumentError
from index.readers.archives import open_archive, read_entry, read_xml
from index.readers.builder import ContentBuilder
from index.readers.html import parse
from index.readers.limits import Limits
from index.readers.pieces import Zone, pieces, write

_CONTAINER = "META-INF/container.xml"
_ENCRYPTION = "META-INF/encryption.xml"
_CHAPTER_TYPES = frozenset(["application/xhtml+xml", "text/html", "application/x-dtbook+xml"])
_DUBLIN_CORE = "{http://purl.org/dc/elements/1.1/}"
_METADATA = {"creator": "author", "date": "date", "language": "language", "publisher": "publisher",
             "description": "description", "subject": "subject"}  # fmt: skip


def read_epub(data: bytes, limits: Limits) -> Content:
    """Read an e-book: all that its spine names, without its navigation.

    Raises:
        DocumentError: the file is damaged or protected, names a chapter that it does not hold, or crosses a
            limit.
    """
    builder = ContentBuilder(limits)
    with open_archive(data, limits) as archive:
        package_name = _package_name(archive)
        package = read_xml(archive, package_name)
        encrypted = _encrypted_names(archive)
        for name in _chapters(package, posixpath.dirname(package_name)):
            if name in encrypted:
                raise DocumentError("is protected by digital rights management; add a copy without it")
            root = parse(read_entry(archive, name), limits)
            if root is not None:
                write(builder, (piece for piece in pieces(root) if piece.zone is not Zone.NAVIGATION))
    title, metadata = _described(package)
    return builder.content(title=title, metadata=metadata)


def _package_name(archive: zipfile.ZipFile) -> str:
    """Return the name of the file that describes the book."""
    rootfile = read_xml(archive, _CONTAINER).find(".//{*}rootfile")
    name = rootfile.get("full-path", "") if rootfile is not None else ""
    if not name:
        raise DocumentError(f"is damaged: {_CONTAINER} names no package; get a fresh copy")
    return name


def _chapters(package: etree._Element, folder: str) -> Iterator[str]:
    """Yield the names of the chapters in reading order, each once."""
    items = {item.get("id"): item for item in package.iterfind("{*}manifest/{*}item")}
    names: dict[str, None] = {}
    for reference in package.iterfind("{*}spine/{*}itemref"):
        item = items.get(reference.get("idref"))
        if item is None or item.get("media-type") not in _CHAPTER_TYPES:
            continue
        if "nav" not in item.get("properties", "").split():
            names[posixpath.normpath(posixpath.join(folder, unquote(item.get("href", ""))))] = None
    yield from names


def _encrypted_names(archive: zipfile.ZipFile) -> frozenset[str]:
    """Return the names of the files that cannot be read without a key; fonts are often among them."""
    if _ENCRYPTION not in archive.namelist():
        return frozenset()
    references = read_xml(archive, _ENCRYPTION).iterfind(".//{*}CipherReference")
    return frozenset(unquote(reference.get("URI", "")) for reference in references)


def _described(package: etree._Element) -> tuple[str | None, dict[str, MetadataValue]]:
    """Return the title and the metadata of a book; several authors or subjects are a list."""
    found: dict[str, list[str]] = {}
    for element in package.iterfind("{*}metadata/{*}*"):
        text = " ".join((element.text or "").split())
        if element.tag.startswith(_DUBLIN_CORE) and text:
            found.setdefault(element.tag.removeprefix(_DUBLIN_CORE), []).append(text)
    metadata: dict[str, MetadataValue] = {
        key: found[name] if len(found[name]) > 1 else found[name][0]
        for name, key in _METADATA.items()
        if name in found
    }
    return found.get("title", [None])[0], metadata
