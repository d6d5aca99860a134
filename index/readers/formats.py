"""The formats that can be read: how each is recognised and which function reads it.

To add one, write `read_NAME(data, limits) -> Content` in a module beside this one and a line in `FORMATS`. If its
files can be told by their content, add how to `_from_text` or `_from_archive`.
"""

from __future__ import annotations

import codecs
import io
import lzma
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib import import_module
from itertools import pairwise
from pathlib import PurePath
from typing import cast

from index.documents import HALF_SURROGATE, Block, BlockKind, Content, MetadataValue
from index.errors import DocumentError
from index.readers.limits import Limits

Reader = Callable[[bytes, Limits], Content]


@dataclass(frozen=True)
class Format:
    """A format.

    Attributes:
        name: by which it is looked up in code and shown.
        media_type: of the source bytes.
        suffixes: of file names, in lower case with the dot.
        reader: `module:function`, imported when the first file of the format is read.
        is_text: whether the bytes are text, so that any text can carry its suffix by mistake.
    """

    name: str
    media_type: str
    suffixes: tuple[str, ...]
    reader: str
    is_text: bool = True

    def load(self) -> Reader:
        """Import the function that reads the format."""
        module, function = self.reader.split(":")
        return cast(Reader, getattr(import_module(f"index.readers.{module}"), function))


_OPEN_XML = "application/vnd.openxmlformats-officedocument"
_OPEN_DOCUMENT = "application/vnd.oasis.opendocument"
_CODE_SUFFIXES = (
    ".py .pyi .js .mjs .jsx .ts .tsx .java .kt .scala .c .h .cc .cpp .hpp .cs .go .rs .rb .php .pl .lua .r .jl .swift"
    " .sh .bash .zsh .ps1 .bat .sql .css .scss .less .vue .svelte .yaml .yml .toml .ini .cfg .conf .env .properties"
    " .tf .proto .graphql .gradle .cmake .mk .hs .ml .ex .exs .erl .clj .el .vim .dart .asm .f90 .m"
)

FORMATS = (
    Format("text", "text/plain", (".txt", ".text", ".log"), "text:read_text"),
    Format("code", "text/plain", tuple(_CODE_SUFFIXES.split()), "text:read_code"),
    Format("markdown", "text/markdown", (".md", ".markdown", ".mdown", ".mkd", ".mdx"), "markdown:read_markdown"),
    Format("rst", "text/x-rst", (".rst", ".rest"), "rst:read_rst"),
    Format("asciidoc", "text/asciidoc", (".adoc", ".asciidoc"), "asciidoc:read_asciidoc"),
    Format("latex", "text/x-tex", (".tex", ".ltx"), "latex:read_latex"),
    Format("html", "text/html", (".html", ".htm", ".xhtml"), "html:read_html"),
    Format("xml", "application/xml", (".xml", ".dbk", ".jats", ".tei", ".rss", ".atom"), "xml:read_xml"),
    Format("csv", "text/csv", (".csv",), "tables:read_csv"),
    Format("tsv", "text/tab-separated-values", (".tsv", ".tab"), "tables:read_csv"),
    Format("json", "application/json", (".json",), "structured:read_json"),
    Format("jsonl", "application/jsonl", (".jsonl", ".ndjson"), "structured:read_jsonl"),
    Format("notebook", "application/x-ipynb+json", (".ipynb",), "notebook:read_notebook"),
    Format("mail", "message/rfc822", (".eml",), "mail:read_mail"),
    Format("vtt", "text/vtt", (".vtt",), "subtitles:read_vtt"),
    Format("srt", "application/x-subrip", (".srt",), "subtitles:read_srt"),
    Format("pdf", "application/pdf", (".pdf",), "pdf:read_pdf", is_text=False),
    Format("docx", f"{_OPEN_XML}.wordprocessingml.document", (".docx",), "word:read_docx", is_text=False),
    Format("pptx", f"{_OPEN_XML}.presentationml.presentation", (".pptx",), "slides:read_pptx", is_text=False),
    Format("xlsx", f"{_OPEN_XML}.spreadsheetml.sheet", (".xlsx",), "sheets:read_xlsx", is_text=False),
    Format("odt", f"{_OPEN_DOCUMENT}.text", (".odt",), "opendocument:read_odt", is_text=False),
    Format("epub", "application/epub+zip", (".epub",), "epub:read_epub", is_text=False),
)

_BY_NAME = {form.name: form for form in FORMATS}
_BY_SUFFIX = {suffix: form for form in FORMATS for suffix in form.suffixes}

_SAVE_ANEW = "remove its password or save it as DOCX, XLSX, PPTX or PDF, and add it again"
_TRANSCRIBE = "add a transcript or description as text"
_UNPACK = "unpack it and add the files inside"
_EXPORT = "export its tables as CSV and add those"

# How files begin that are not read, what they are, and what to do instead.
_UNSUPPORTED = tuple(
    (re.compile(beginning, re.DOTALL), what, advice)
    for beginning, what, advice in (
        (rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old or protected Office file (DOC, XLS, PPT, MSG)", _SAVE_ANEW),
        (rb"\{\\rtf", "a Rich Text file (RTF)", "save it as DOCX or PDF and add it again"),
        (rb"%!PS", "a PostScript file", "convert it to PDF and add it again"),
        (rb"\x89PNG|\xff\xd8\xff|GIF8[79]a|II\*\0|MM\0\*|RIFF.{4}WEBP|BM.{4}\0\0\0\0", "an image", _TRANSCRIBE),
        (rb"RIFF.{4}WAVE|ID3[\x02-\x04]|OggS\0|fLaC\0|\xff[\xfb\xf3\xf2]", "a sound recording", _TRANSCRIBE),
        (rb"RIFF.{4}AVI |\0\0.{2}ftyp|\x1a\x45\xdf\xa3", "a film or sound recording", _TRANSCRIBE),
        (rb"\x1f\x8b|BZh[1-9]1AY|\xfd7zXZ\0|7z\xbc\xaf|Rar!\x1a|\x28\xb5\x2f\xfd|.{257}ustar", "an archive", _UNPACK),
        (rb"SQLite format 3\0", "an SQLite database", _EXPORT),
        (rb"PAR1[\0-\x1f]", "a Parquet file", _EXPORT),
        (rb"\x7fELF|MZ.{1,3}\0|\xca\xfe\xba\xbe|\xcf\xfa\xed\xfe|\0asm", "a program", "it holds no document"),
    )
)
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
_ZIP_FOLDERS = {"word": "docx", "ppt": "pptx", "xl": "xlsx"}
_ZIP_TYPES = {b"application/epub+zip": "epub", f"{_OPEN_DOCUMENT}.text".encode(): "odt"}
_ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    OSError,
    OverflowError,
    NotImplementedError,
    RuntimeError,
    ValueError,
)

_HEAD_BYTES = 8_192
_PDF_MARK = b"%PDF-"
_PDF_MARK_WITHIN = 1_024
_WIDE_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
_BLANK = b" \t\r\n\v\f\0\xef\xbb\xbf\xff\xfe"
_HTML = re.compile(r"(?>\s+|<\?xml[^>]*>|<!--.*?-->)*+(?:<!doctype\s+html|<html[\s>])", re.IGNORECASE | re.DOTALL)
_XML = re.compile(r"\s*<\?xml\s")
_VTT = re.compile(r"WEBVTT(?:\s|\Z)")
_SRT = re.compile(r"\s*\d+[ \t]*\n\d+:\d\d:\d\d[,.]\d+[ \t]*-->[ \t]*\d+:\d\d:\d\d[,.]\d+")
_LATEX = re.compile(r"(?>[ \t]*(?:%[^\n]*)?\n)*+[ \t]*\\documentclass\b")
_MAIL_HEADERS = re.compile(r"(?:[!-9;-~]+:[^\n]*\n(?:[ \t][^\n]*\n)*+){3,}+")
_MAIL_ONLY = re.compile(
    r"^(?:Received|Return-Path|Message-ID|MIME-Version|Delivered-To):", re.IGNORECASE | re.MULTILINE
)
_NOTEBOOK_KEYS = (re.compile(rb'"nbformat"\s*:\s*\d'), re.compile(rb'"(?:cells|worksheets)"\s*:\s*\['))


def detect(data: bytes, name: str) -> Format:
    """Tell the format of a file, from its content first and the suffix of its name second.

    What carries no sign of another format and is text is read as text.

    Raises:
        DocumentError: the format is not supported; the message says which it is and what to do.
    """
    suffix = PurePath(name).suffix.lower()
    for beginning, what, advice in _UNSUPPORTED:
        if beginning.match(data):
            raise DocumentError(f"unsupported format: it is {what}; {advice}")
    if data.startswith(_ZIP):
        return _from_archive(data, suffix)
    if _is_pdf(data, suffix):
        return _BY_NAME["pdf"]
    by_suffix = _BY_SUFFIX.get(suffix, _BY_NAME["text"])
    if not by_suffix.is_text:  # what belongs to the name is not there
        by_suffix = _BY_NAME["text"]
    return _from_text(data, _head(data), by_suffix)


def read(data: bytes, name: str, limits: Limits) -> tuple[Format, Content]:
    """Read a file of any supported format.

    Args:
        data: its bytes.
        name: its name or path, for the suffix.
        limits: of what is taken in.

    Returns:
        The format, and the content; one without blocks when the file holds no text.

    Raises:
        DocumentError: the file is too large, not supported or damaged; the message says what to do.
    """
    if len(data) > limits.source_bytes:
        raise DocumentError(
            f"it has {len(data):,} bytes, more than {limits.source_bytes:,}; split it into smaller files"
        )
    found = detect(data, name)
    is_blank = found.is_text and not data.strip(_BLANK)
    content = (_BY_NAME["text"] if is_blank else found).load()(data, limits)
    content = encodable(content)
    check_content(content)
    return found, content


def encodable(content: Content) -> Content:
    """Replace halves of surrogate pairs, which have no place in UTF-8, one for one."""
    if not any(map(HALF_SURROGATE.search, _strings(content))):
        return content
    return replace(
        content,
        text=_whole(content.text),
        blocks=tuple(replace(block, title=_whole(block.title)) for block in content.blocks),
        title=None if content.title is None else _whole(content.title),
        metadata={name: _whole_value(value) for name, value in content.metadata.items()},
    )


def check_content(content: Content) -> None:
    """Check what every reader promises about offsets; a failure is a mistake in the reader.

    Raises:
        AssertionError: a block, part or title does not hold what `Block` and `Content` say.
    """
    text = content.text
    _require(not HALF_SURROGATE.search(text), "the text cannot be encoded", content.title)
    _require(content.title is None or content.title.strip() != "", "the title is empty", content.title)
    for before, after in pairwise(content.blocks):
        _require(before.end <= after.start, "blocks overlap or are not in order", (before, after))
    for block in content.blocks:
        _require(_is_visible(text, block.start, block.end), "a block begins or ends with nothing visible", block)
        _check_heading(block)
        _check_parts(text, block)


def _check_heading(block: Block) -> None:
    if block.kind is BlockKind.HEADING:
        _require(1 <= block.level <= 6 and block.title.strip() != "", "a heading lacks level or title", block)
    else:
        _require(block.level == 0 and block.title == "", "only headings have level and title", block)
    _require(block.page is None or block.page >= 1, "pages count from 1", block)


def _check_parts(text: str, block: Block) -> None:
    edges = [block.start, *(offset for part in block.parts for offset in part), block.end]
    _require(edges == sorted(edges), "the parts overlap, are not in order, or lie outside their block", block)
    visible = all(_is_visible(text, *part) for part in block.parts)
    _require(visible, "a part begins or ends with nothing visible", block)
    _require(0 <= block.header_rows <= len(block.parts), "there are more header rows than rows", block)


def _is_visible(text: str, start: int, end: int) -> bool:
    is_inside = 0 <= start < end <= len(text)
    return is_inside and not text[start].isspace() and not text[end - 1].isspace()


def _require(holds: bool, rule: str, subject: object) -> None:
    if not holds:
        raise AssertionError(f"{rule}: {subject}")


def _is_pdf(data: bytes, suffix: str) -> bool:
    beginning = data[:_PDF_MARK_WITHIN]
    return beginning.lstrip().startswith(_PDF_MARK) or (suffix == ".pdf" and _PDF_MARK in beginning)


def _from_archive(data: bytes, suffix: str) -> Format:
    """Tell a container by what is in it; a damaged one by its suffix, so that its reader names the damage."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = set(archive.namelist())
            declared = archive.read("mimetype").strip() if _is_small(archive, "mimetype") else b""
    except _ZIP_ERRORS as exc:
        by_suffix = _BY_SUFFIX.get(suffix)
        if by_suffix is None or by_suffix.is_text:
            raise DocumentError(f"unsupported format: it is a damaged archive ({exc}); {_UNPACK}") from exc
        return by_suffix
    if declared in _ZIP_TYPES:
        return _BY_NAME[_ZIP_TYPES[declared]]
    if declared.startswith(_OPEN_DOCUMENT.encode()):
        raise DocumentError("unsupported format: it is an OpenDocument file other than ODT; save it as XLSX or PDF")
    folders = {name.split("/")[0] for name in names}
    for folder, form in _ZIP_FOLDERS.items():
        if "[Content_Types].xml" in names and folder in folders:
            return _BY_NAME[form]
    raise DocumentError(f"unsupported format: it is an archive (ZIP); {_UNPACK}")


def _is_small(archive: zipfile.ZipFile, name: str) -> bool:
    return name in archive.namelist() and archive.getinfo(name).file_size < 200


def _head(data: bytes) -> str:
    """Decode the beginning of a text roughly: enough to see its marks, which are ASCII."""
    for mark, encoding in _WIDE_MARKS.items():
        if data.startswith(mark):
            return data[len(mark) : _HEAD_BYTES].decode(encoding, errors="ignore")
    head = data[:_HEAD_BYTES]
    if b"\0" in head:
        raise DocumentError("unsupported format: it looks binary, not like text; save it in a supported format")
    return head.removeprefix(codecs.BOM_UTF8).decode("latin-1").replace("\r\n", "\n").replace("\r", "\n")


def _from_text(data: bytes, head: str, by_suffix: Format) -> Format:
    """Tell the format of a text by its marks, or take the one its suffix stands for."""
    if _HTML.match(head):
        return _BY_NAME["html"]
    if _VTT.match(head):
        return _BY_NAME["vtt"]
    if _SRT.match(head):
        return _BY_NAME["srt"]
    if _LATEX.match(head):
        return _BY_NAME["latex"]
    if _XML.match(head) and by_suffix.name != "html":
        return _BY_NAME["xml"]
    if head.lstrip().startswith("{") and all(key.search(data) for key in _NOTEBOOK_KEYS):
        return _BY_NAME["notebook"]
    headers = _MAIL_HEADERS.match(head)
    if headers and _MAIL_ONLY.search(headers[0]):
        return _BY_NAME["mail"]
    return by_suffix


def _strings(content: Content) -> Iterator[str]:
    yield content.text
    yield content.title or ""
    for value in content.metadata.values():
        for string in value if isinstance(value, list) else [value]:
            yield str(string)


def _whole_value(value: MetadataValue) -> MetadataValue:
    if isinstance(value, list) and value and isinstance(value[0], str):
        return [_whole(str(string)) for string in value]
    return _whole(value) if isinstance(value, str) else value


def _whole(text: str) -> str:
    return HALF_SURROGATE.sub("\N{REPLACEMENT CHARACTER}", text)
