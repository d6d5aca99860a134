"""Reading folders and files: what is found, what is left out and what is said of the rest."""

from __future__ import annotations

import hashlib
import os
import socket
from pathlib import Path

import pytest

from index.documents import Document
from index.errors import SourceError
from index.readers.limits import Limits
from index.sources import Rejected, Source, Unchanged, list_documents, read_source


def write(root: Path, files: dict[str, str | bytes]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
    return root


def documents(root: Path) -> dict[str, Document]:
    return {found.doc_id: found for found in read_source(Source(root)) if isinstance(found, Document)}


def rejected(root: Path) -> dict[str, str]:
    return {found.path: found.reason for found in read_source(Source(root)) if isinstance(found, Rejected)}


def test_documents_come_in_the_order_of_their_paths(tmp_path: Path) -> None:
    write(tmp_path, {"b.md": "b", "a/z.txt": "z", "a.txt": "a", "a/b/c.txt": "c", "B.md": "B"})
    assert list_documents(Source(tmp_path)) == ["B.md", "a.txt", "a/b/c.txt", "a/z.txt", "b.md"]
    assert list(documents(tmp_path)) == ["B.md", "a.txt", "a/b/c.txt", "a/z.txt", "b.md"]


def test_a_document_knows_its_title_digest_and_address(tmp_path: Path) -> None:
    text = "---\ntitle: Tides\nurl: https://sea.example/tides\n---\n\nThe sea rises.\n"
    write(
        tmp_path,
        {
            "guide/tides.md": text,
            "plain.txt": "Only this sentence stands here.",
            "bad.md": text.replace("https", "file"),
        },
    )
    found = documents(tmp_path)
    tides = found["guide/tides.md"]
    assert (tides.title, tides.uri, tides.media_type) == ("Tides", "https://sea.example/tides", "text/markdown")
    assert (tides.sha256, tides.size) == (hashlib.sha256(text.encode()).hexdigest(), len(text))
    assert found["plain.txt"].title == "plain.txt"
    assert found["bad.md"].uri is None


def test_a_file_can_be_a_source(tmp_path: Path) -> None:
    write(tmp_path, {"folder/.note.md": "A note."})
    source = Source(tmp_path / "folder" / ".note.md", prefix="notes/")
    assert [found.doc_id for found in read_source(source) if isinstance(found, Document)] == ["notes/.note.md"]


def test_a_prefix_keeps_two_sources_apart(tmp_path: Path) -> None:
    write(tmp_path, {"a.txt": "a", "empty.txt": ""})
    found = list(read_source(Source(tmp_path, prefix="docs/")))
    assert [getattr(one, "doc_id", None) or getattr(one, "path", None) for one in found] == [
        "docs/a.txt",
        "docs/empty.txt",
    ]


def test_a_missing_source_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"No source at .*/nowhere: there is no such file or folder"):
        list(read_source(Source(tmp_path / "nowhere")))


def test_an_index_inside_a_source_is_no_part_of_it(tmp_path: Path) -> None:
    write(
        tmp_path, {"a.txt": "a", "index/CURRENT": "name", "index/writer.lock": "", "index/generations/1/m.json": "{}"}
    )
    assert sorted(documents(tmp_path)) == ["a.txt"]
    assert list_documents(Source(tmp_path)) == ["a.txt"]


def test_an_empty_folder_gives_nothing(tmp_path: Path) -> None:
    assert list(read_source(Source(tmp_path))) == []
    assert list_documents(Source(tmp_path)) == []


def test_a_file_whose_bytes_are_known_is_not_read_again(tmp_path: Path) -> None:
    write(tmp_path, {"same.txt": "same", "changed.txt": "new", "broken.pdf": "%PDF-1.4 broken"})
    known = {
        name: hashlib.sha256(data).hexdigest() for name, data in {"same.txt": b"same", "changed.txt": b"old"}.items()
    }
    found = list(read_source(Source(tmp_path), known=known))
    assert isinstance(found[0], Rejected)
    assert isinstance(found[1], Document) and found[1].text == "new"
    assert found[2] == Unchanged("same.txt")


def test_a_file_without_text_is_named(tmp_path: Path) -> None:
    write(tmp_path, {"empty.txt": b"", "blank.md": b" \n\n\t", "good.txt": b"good"})
    reason = "holds no text; leave it out or fill it"
    assert rejected(tmp_path) == {"empty.txt": reason, "blank.md": reason}


def test_a_refused_file_never_stops_the_rest(tmp_path: Path) -> None:
    write(tmp_path, {"a.docx": b"PK\x03\x04 broken", "b.exe": b"MZ\x90\x00\x03" + bytes(100), "c.txt": b"fine"})
    assert list(documents(tmp_path)) == ["c.txt"]
    assert set(rejected(tmp_path)) == {"a.docx", "b.exe"}


def test_hidden_and_ignored_files_are_left_out(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            ".whenceignore": "*.log\n/build/\n!keep.log\n# comment\n",
            ".hidden/a.txt": "a",
            ".b.txt": "b",
            "build/out.txt": "out",
            "x/build/in.txt": "in",
            "error.log": "error",
            "keep.log": "keep",
            "x/.whenceignore": "!error.log\nnested/\n",
            "x/error.log": "error",
            "x/nested/a.txt": "a",
            "nested/a.txt": "a",
        },
    )
    expected = ["keep.log", "nested/a.txt", "x/build/in.txt", "x/error.log"]
    assert list_documents(Source(tmp_path)) == expected
    assert list(documents(tmp_path)) == expected
    assert rejected(tmp_path) == {}


def test_links_are_followed_only_inside_the_source(tmp_path: Path) -> None:
    outside = write(tmp_path / "outside", {"secret.txt": "secret", "folder/secret.txt": "secret"})
    root = write(tmp_path / "root", {"a.txt": "a", "sub/b.txt": "b", ".data/c.txt": "c"})
    for link, target in {
        "file": root / "a.txt",
        "hidden": root / ".data",
        "twin": root / ".data",
        "out.txt": outside / "secret.txt",
        "out": outside,
        "up": root,
        "sub/up": "..",
        "broken": "nothing",
        "itself": "itself",
    }.items():
        (root / link).symlink_to(target)
    assert list(documents(root)) == ["a.txt", "file", "hidden/c.txt", "sub/b.txt"]
    out, known, nowhere = (
        "is a link out of its source",
        "is a link to a folder that is read",
        "is a link that leads nowhere",
    )
    reasons = {
        "out.txt": out,
        "out": out,
        "up": known,
        "sub/up": known,
        "twin": known,
        "broken": nowhere,
        "itself": nowhere,
    }
    found = rejected(root)
    assert set(found) == set(reasons)
    assert all(found[path].startswith(reason) for path, reason in reasons.items())


def test_folders_that_link_to_each_other_are_read_to_an_end(tmp_path: Path) -> None:
    for name in "abcde":
        write(tmp_path, {f"{name}/{name}.txt": name})
        for other in "abcde":
            (tmp_path / name / f"to {other}").symlink_to(tmp_path / other)
    found = list_documents(Source(tmp_path))
    assert {f"{name}/{name}.txt" for name in "abcde"} <= set(found)
    assert len(found) == 10


def test_special_files_are_named_and_never_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        assert rejected(tmp_path) == {
            "pipe": "is a named pipe; only files with text can be added",
            "socket": "is a socket; only files with text can be added",
        }


def test_names_that_cannot_be_shown_are_rejected_in_printable_form(tmp_path: Path) -> None:
    for name in (b"\xff.txt", b"line\nbreak.txt"):
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)).write_text("x")
    assert rejected(tmp_path) == {
        "\\udcff.txt": "has a name that is not valid UTF-8; rename it",
        "line\\nbreak.txt": "has a name with control characters; rename it",
    }


def test_a_file_that_is_too_large_is_refused(tmp_path: Path) -> None:
    write(tmp_path, {"a.txt": "12345"})
    for known in ({}, {"a.txt": "0" * 64}):
        (found,) = read_source(Source(tmp_path), limits=Limits(source_bytes=4), known=known)
        assert found == Rejected("a.txt", "has 5 bytes, more than 4; split it into smaller files")


def test_an_ignore_file_that_makes_no_sense_is_named(tmp_path: Path) -> None:
    write(tmp_path, {".whenceignore": "good\n!\n", "a.txt": "a"})
    with pytest.raises(SourceError, match=r"\.whenceignore has a pattern that makes no sense"):
        list_documents(Source(tmp_path))
