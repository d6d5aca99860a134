"""Archives: the zip containers of office documents and e-books, checked before anything opens them.

Nothing is ever extracted to disk, archives inside an archive are never opened, and XML is parsed without
document types, entities or network.
"""

from __future__ import annotations

import io
import lzma
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from lxml import etree

from index.documents import MetadataValue
from index.errors import DocumentError
from index.readers.limits import Limits

INFLATION_RATIO = 200  # times the size of the archive; real documents stay far below
HARMLESS_BYTES = 10_000_000  # a small archive may inflate to this whatever its ratio

_ENCRYPTED = 1 << 0  # flag bit of a zip entry
_ABSOLUTE = re.compile(r"[/\\]|[A-Za-z]:")
_DAMAGE: tuple[type[Exception], ...] = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    KeyError,
    NotImplementedError,
    OSError,
    OverflowError,
    ValueError,
    lzma.LZMAError,
    struct.error,
)
# The libraries have no errors of their own for most damage: what comes out is whatever they stumble over.
_STUMBLES: tuple[type[Exception], ...] = (
    etree.LxmlError,
    SyntaxError,
    AttributeError,
    IndexError,
    TypeError,
    ValueError,
    AssertionError,
)
_DUBLIN_CORE = "{http://purl.org/dc/elements/1.1/}"
_DUBLIN_TERMS = "{http://purl.org/dc/terms/}"
_CORE_PROPERTIES = "{http://schemas.openxmlformats.org/package/2006/metadata/core-properties}"
_TEMPLATE_TITLE = re.compile(
    r"(?:microsoft )?(?:word |powerpoint |excel )?(?:document|presentation|workbook|untitled)\s*\d*", re.IGNORECASE
)


def open_archive(data: bytes, limits: Limits) -> zipfile.ZipFile:
    """Open an archive after checking what it claims to hold; it cannot inflate to more than that.

    Raises:
        DocumentError: it is damaged or protected by a password, holds too much, or names a path outside itself.
    """
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except _DAMAGE as exc:
        raise damaged(exc) from exc
    _check_entries(archive.infolist(), len(data), limits)
    return archive


def _check_entries(entries: list[zipfile.ZipInfo], size: int, limits: Limits) -> None:
    if len(entries) > limits.archive_entries:
        raise DocumentError(
            f"it holds {len(entries):,} files, more than {limits.archive_entries:,}; split it into smaller files"
        )
    total = sum(entry.file_size for entry in entries)
    if total > limits.inflated_bytes:
        raise DocumentError(
            f"it would inflate to {total:,} bytes, more than {limits.inflated_bytes:,}; split it into smaller files"
        )
    if total > max(HARMLESS_BYTES, INFLATION_RATIO * size):
        raise DocumentError(
            f"it would inflate from {size:,} to {total:,} bytes, as only a harmful file does; save it anew"
        )
    for entry in entries:
        if entry.flag_bits & _ENCRYPTED:
            raise DocumentError("is protected by a password; remove the protection and add it again")
        if _ABSOLUTE.match(entry.filename) or ".." in re.split(r"[/\\]", entry.filename):
            raise DocumentError(f"it names a path outside itself ({entry.filename!r}); save it anew")


def read_entry(archive: zipfile.ZipFile, name: str) -> bytes:
    """Inflate one file of an archive.

    Raises:
        DocumentError: it is missing or damaged; the text names it.
    """
    try:
        return archive.read(name)
    except KeyError as exc:
        raise DocumentError(f"is damaged: {name} is missing inside; get a fresh copy") from exc
    except _DAMAGE as exc:
        raise DocumentError(f"is damaged: {name} inside it cannot be read ({exc}); get a fresh copy") from exc


def read_xml(archive: zipfile.ZipFile, name: str) -> etree._Element:
    """Parse one file of an archive as XML.

    Raises:
        DocumentError: it is missing, damaged, or not well formed; the text names it.
    """
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, remove_comments=True)
    try:
        return etree.fromstring(read_entry(archive, name), parser)
    except etree.XMLSyntaxError as exc:
        raise DocumentError(f"is damaged: {name} inside it is not valid XML ({exc}); get a fresh copy") from exc


def core_properties(archive: zipfile.ZipFile) -> tuple[str | None, dict[str, MetadataValue]]:
    """Return the title and the metadata of a DOCX, PPTX or XLSX; a title left by the program is none.

    A file is read even when they are missing or damaged.
    """
    try:
        properties = {element.tag: element.text or "" for element in read_xml(archive, "docProps/core.xml")}
    except DocumentError:
        return None, {}
    names = {
        "author": f"{_DUBLIN_CORE}creator",
        "date": f"{_DUBLIN_TERMS}created",
        "modified": f"{_DUBLIN_TERMS}modified",
        "language": f"{_DUBLIN_CORE}language",
        "subject": f"{_DUBLIN_CORE}subject",
        "description": f"{_DUBLIN_CORE}description",
        "keywords": f"{_CORE_PROPERTIES}keywords",
    }
    found = {key: " ".join(properties.get(tag, "").split()) for key, tag in names.items()}
    title = " ".join(properties.get(f"{_DUBLIN_CORE}title", "").split())
    return None if _TEMPLATE_TITLE.fullmatch(title) else title or None, {k: v for k, v in found.items() if v}


@contextmanager
def damage_reported(kind: str, *errors: type[Exception]) -> Iterator[None]:
    """Turn what a library raises on a damaged file into a `DocumentError` that says so.

    Args:
        kind: what the file was taken for, such as "Word document".
        errors: the library's own.
    """
    try:
        yield
    except (*_DAMAGE, *errors, *_STUMBLES) as exc:
        raise DocumentError(f"is damaged or no {kind}: {exc or type(exc).__name__}; get a fresh copy") from exc


def damaged(exc: Exception) -> DocumentError:
    """Return the error for an archive that cannot be opened at all."""
    return DocumentError(f"is damaged or cut short: {exc}; get a fresh copy")
