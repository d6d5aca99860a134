"""Telling formats apart, and what is promised of every content."""

from __future__ import annotations

import io
import zipfile
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.documents import Block, BlockKind, Content, MetadataValue
from index.errors import DocumentError
from index.readers import formats
from index.readers.formats import FORMATS, check_content, detect, encodable, read
from index.readers.limits import Limits

LIMITS = Limits()
MAIL = b"Received: x\nFrom: a@example.org\nSubject: Hello\n\nText."


def archive(*names: str, mimetype: str | None = None) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        if mimetype:
            file.writestr("mimetype", mimetype)
        for name in names:
            file.writestr(name, "x")
    return buffer.getvalue()


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_every_format_has_a_reader_that_can_be_imported(form: formats.Format) -> None:
    assert callable(form.load())


def test_no_suffix_belongs_to_two_formats() -> None:
    suffixes = [suffix for form in FORMATS for suffix in form.suffixes]
    assert len(suffixes) == len(set(suffixes))


@pytest.mark.parametrize(
    ("data", "name", "expected"),
    [
        (b"%PDF-1.7\n", "a.bin", "pdf"),
        (b"junk %PDF-1.4", "a.pdf", "pdf"),
        (b"How %PDF- begins", "a.md", "markdown"),
        (b"<!DOCTYPE html><p>x", "a.pdf", "html"),
        (b"\xef\xbb\xbf\n<?xml version='1.0'?><!-- c --><html >x", "a", "html"),
        (b"<p>fragment", "a.htm", "html"),
        (b"<?xml version='1.0'?><a/>", "a.txt", "xml"),
        (b"<a/>", "a.xml", "xml"),
        (b'{"cells": [], "nbformat": 4}', "a.json", "notebook"),
        (b'{"text": "\\"nbformat\\": 4, \\"cells\\": ["}', "a.json", "json"),
        (b"WEBVTT\n\n", "a.txt", "vtt"),
        (b"WEBVTTs are text", "a.txt", "text"),
        (b"1\r\n00:00:01,000 --> 00:00:02,000\r\nx", "a.txt", "srt"),
        (b"% c\n\\documentclass{x}", "a.txt", "latex"),
        (MAIL, "a", "mail"),
        (MAIL.replace(b"\n", b"\r\n"), "a.txt", "mail"),
        (b"name: a\nkind: b\nage: c\n", "a.txt", "text"),
        (b"x", "A.MD", "markdown"),
        (b"x", "a.rst", "rst"),
        (b"x", "a.adoc", "asciidoc"),
        (b"x", "a.tex", "latex"),
        (b"x", "a.csv", "csv"),
        (b"x", "a.tsv", "tsv"),
        (b"x", "a.json", "json"),
        (b"x", "a.ndjson", "jsonl"),
        (b"x", "a.eml", "mail"),
        (b"x", "a.py", "code"),
        (b"x", "README", "text"),
        (b"x", "a.unheard-of", "text"),
        (b"plain words", "a.docx", "text"),
        (b"", "a.pdf", "text"),
        ("WEBVTT\n".encode("utf-16"), "a", "vtt"),
        (archive("[Content_Types].xml", "word/document.xml"), "a.zip", "docx"),
        (archive("[Content_Types].xml", "ppt/presentation.xml"), "a", "pptx"),
        (archive("[Content_Types].xml", "xl/workbook.xml"), "a.docx", "xlsx"),
        (archive("x", mimetype="application/epub+zip"), "a", "epub"),
        (archive("content.xml", mimetype="application/vnd.oasis.opendocument.text"), "a", "odt"),
        pytest.param(
            archive("[Content_Types].xml", "word/document.xml")[:60], "a.docx", "docx", id="the start of a docx"
        ),
    ],
)
def test_the_content_decides_before_the_suffix(data: bytes, name: str, expected: str) -> None:
    assert detect(data, name).name == expected


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1rest", "old or protected Office file .* save it as DOCX"),
        (b"{\\rtf1 text}", "RTF.* save it as DOCX or PDF"),
        (b"\x89PNG\r\n\x1a\n", "an image; add a transcript"),
        (b"\xff\xd8\xff\xe0", "an image"),
        (b"\x1f\x8b\x08", "an archive; unpack it"),
        (b"\0" * 257 + b"ustar", "an archive; unpack it"),
        (b"\x7fELF\x02", "a program"),
        (b"MZ\x90\0\x03", "a program"),
        (b"\0\0\0\x20ftypisom", "a film"),
        (b"SQLite format 3\0", "export its tables as CSV"),
        (archive("a.txt"), "an archive .ZIP.; unpack it"),
        pytest.param(archive("a.txt")[:20], "a damaged archive", id="the start of an archive"),
        (archive(mimetype="application/vnd.oasis.opendocument.spreadsheet"), "save it as XLSX"),
        (b"text \0 with a zero", "looks binary"),
    ],
)
def test_what_cannot_be_read_is_named_with_what_to_do(data: bytes, message: str) -> None:
    with pytest.raises(DocumentError, match=f"unsupported format: .*{message}"):
        detect(data, "a.dat")


@pytest.mark.parametrize("form", [form for form in FORMATS if form.is_text], ids=lambda form: form.name)
@pytest.mark.parametrize("data", [b"", b" \n\t\r\n", b"\xef\xbb\xbf", b"\xff\xfe \0\n\0"])
def test_a_file_without_a_visible_character_has_no_blocks(form: formats.Format, data: bytes) -> None:
    found, content = read(data, f"a{form.suffixes[0]}", LIMITS)
    assert found == form
    assert content.blocks == ()


def test_a_file_larger_than_the_limit_is_refused() -> None:
    with pytest.raises(DocumentError, match="it has 11 bytes, more than 10; split it"):
        read(b"a" * 11, "a.txt", Limits(source_bytes=10))


def test_reading_gives_format_and_content() -> None:
    found, content = read(b"# Title\r\n\r\nText.", "folder/a.md", LIMITS)
    assert (found.name, found.media_type) == ("markdown", "text/markdown")
    assert content == Content(
        text="# Title\n\nText.",
        blocks=(
            Block(BlockKind.HEADING, 2, 7, level=1, title="Title"),
            Block(BlockKind.PARAGRAPH, 9, 14),
        ),
        title="Title",
    )


@given(st.binary(max_size=200), st.sampled_from([form.suffixes[0] for form in FORMATS if form.is_text]))
@settings(max_examples=200, deadline=None)
def test_any_bytes_under_any_name_are_read_or_refused(data: bytes, suffix: str) -> None:
    try:
        _, content = read(data, f"a{suffix}", LIMITS)
    except DocumentError as exc:
        assert str(exc)
    else:
        content.text.encode()


SOUND = Content(
    text="Title\n\none two\n\na\nb",
    blocks=(
        Block(BlockKind.HEADING, 0, 5, level=1, title="Title"),
        Block(BlockKind.PARAGRAPH, 7, 14),
        Block(BlockKind.TABLE, 16, 19, parts=((16, 17), (18, 19)), header_rows=1),
    ),
    title="Title",
)


def altered(number: int, **changes: Any) -> Content:
    blocks = list(SOUND.blocks)
    blocks[number] = replace(blocks[number], **changes)
    return replace(SOUND, blocks=tuple(blocks))


def test_sound_content_passes_the_check() -> None:
    check_content(SOUND)


@pytest.mark.parametrize(
    "content",
    [
        altered(0, end=8),
        altered(0, level=0),
        altered(0, level=7),
        altered(0, title=" "),
        altered(1, start=6),
        altered(1, end=15),
        altered(1, start=9, end=9),
        altered(1, level=1),
        altered(1, page=0),
        altered(2, end=99),
        altered(2, parts=((16, 17), (16, 19))),
        altered(2, parts=((16, 18),)),
        altered(2, parts=((10, 17),)),
        altered(2, header_rows=3),
        replace(SOUND, blocks=SOUND.blocks[::-1]),
        replace(SOUND, title=""),
        replace(SOUND, text=SOUND.text[:-3] + "\ud800\nb"),
    ],
)
def test_content_that_breaks_a_promise_fails_the_check(content: Content) -> None:
    with pytest.raises(AssertionError):
        check_content(content)


def test_half_surrogates_are_replaced_one_for_one() -> None:
    block = Block(BlockKind.HEADING, 0, 2, level=1, title="\ud800a")
    metadata: dict[str, MetadataValue] = {"a": "\ud800", "b": ["\ud800", "x"], "c": 1}
    mark = "\N{REPLACEMENT CHARACTER}"
    assert encodable(Content("\ud800a", (block,), title="\udc00", metadata=metadata)) == Content(
        f"{mark}a",
        (replace(block, title=f"{mark}a"),),
        title=mark,
        metadata={"a": mark, "b": [mark, "x"], "c": 1},
    )
