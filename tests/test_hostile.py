"""Hostile input: damaged files, bombs, names and words that would act, addresses that would be fetched."""

from __future__ import annotations

import importlib
import io
import json
import os
import pkgutil
import re
import socket
import stat
import threading
import time
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from functools import cache
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st
from live import serving
from markdown_it import MarkdownIt
from markdown_it.token import Token
from rich.console import Console
from soak.fuzz import DAMAGES, Damage, Fuzzer, damaged, fuzz
from soak.samples import samples, unzipped, zipped
from starlette.types import Receive, Scope, Send
from wire import connected, everything, listening

import index
import service
from index.answers import Question, answer_questions
from index.build import sync
from index.documents import Document
from index.embeddings import Encoder
from index.generations import Home
from index.readers.limits import Limits
from index.readers.worker import ReaderProcess, Reading
from index.sources import Rejected, Source, read_source
from service.display import show_answer, show_report

EXAMPLES = int(os.environ.get("EXAMPLES", "15"))  # of damages to each sample
LIMITS = Limits(seconds=20, memory_bytes=1_000_000_000)
ARCHIVES = {"a.docx": "word/document.xml", "a.pptx": "ppt/slides/slide1.xml", "a.xlsx": "xl/worksheets/sheet1.xml"}
ARCHIVES |= {"a.odt": "content.xml", "a.epub": "a.xhtml"}


@pytest.fixture(scope="module")
def fuzzer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fuzzer]:
    with Fuzzer(tmp_path_factory.mktemp("damaged"), LIMITS) as fuzzer:
        yield fuzzer


@pytest.fixture(scope="module")
def reader() -> Iterator[ReaderProcess]:
    with ReaderProcess(LIMITS) as process:
        yield process


def read(reader: ReaderProcess, path: Path, data: bytes) -> Reading:
    path.write_bytes(data)
    return reader.read(path, path.name)


# Damaged files

DAMAGE = st.builds(
    Damage,
    kind=st.sampled_from(sorted(DAMAGES)),
    place=st.floats(0, 1, exclude_max=True),
    amount=st.floats(0, 1, exclude_max=True),
    choice=st.integers(0, 999),
)


@pytest.mark.parametrize("name", samples())
def test_every_sample_is_sound(name: str, reader: ReaderProcess, tmp_path: Path) -> None:
    reading = read(reader, tmp_path / name, samples()[name])
    assert reading.content.blocks
    assert reading.format == FORMATS_BY_SUFFIX.get(name.partition(".")[2], name.partition(".")[2])


FORMATS_BY_SUFFIX = {
    "txt": "text",
    "py": "code",
    "md": "markdown",
    "adoc": "asciidoc",
    "tex": "latex",
    "ipynb": "notebook",
    "eml": "mail",
}


@pytest.mark.parametrize("name", samples())
@given(damages=st.lists(DAMAGE, min_size=1, max_size=5), inside=st.none() | st.integers(0, 99))
@settings(max_examples=EXAMPLES, deadline=None)
def test_a_damaged_file_is_read_or_refused_with_a_reason(
    fuzzer: Fuzzer, name: str, damages: list[Damage], inside: int | None
) -> None:
    outcome = fuzzer.outcome(name, damaged(name, damages, inside=inside))
    assert outcome.kind in ("read", "rejected", "killed by limit"), outcome.reason


def test_the_same_seed_makes_the_same_files() -> None:
    first, second = (fuzz(["a.md", "a.odt"], seconds=0.01, seed=7)["a.odt"].outcomes for _ in range(2))
    assert first == second
    assert first.total() == 1


def test_a_mistake_of_a_reader_and_a_limit_are_told_apart(tmp_path: Path) -> None:
    with Fuzzer(tmp_path, Limits(seconds=0.1)) as hasty:
        assert hasty.outcome("a.html", ("<p>" + "<b>x</b>" * 90_000).encode()).kind == "killed by limit"
    with Fuzzer(tmp_path, Limits(memory_bytes=LIMITS.memory_bytes, nesting="deep")) as mistaken:  # type: ignore[arg-type]
        assert mistaken.outcome("a.html", b"<p>x").kind == "failed"


def heading_of(level: str) -> str:
    """Return a notebook of format 3 with a heading."""
    cell = {"cell_type": "heading", "level": level, "source": "x"}
    return json.dumps({"nbformat": 3, "worksheets": [{"cells": [cell]}]})


MAIL = "Received: x\nMIME-Version: 1.0\nDate: Sat, 21 Nov 2026 "
STUMBLES = {
    "a number of thousands of digits in front matter.md": f"---\na: 0x{'f' * 9_000}\n---\nx",
    "a name of thousands of digits in front matter.md": f"---\n0x{'f' * 9_000}: 1\n---\nx",
    "a number to the base of sixty.md": f"---\na: 1{':59' * 9_000}\n---\nx",
    "half a character as a name.md": '---\n"\\ud800x": 1\n---\nx',
    "a zone at the end of the world.eml": f"{MAIL}06:00:00 +99999999999999\n\nx",
    "an hour beyond measure.eml": f"{MAIL}99999999999:00:00 +0000\n\nx",
    "a level of many digits.ipynb": heading_of("9" * 5_000),
    "a level of zeros.ipynb": heading_of("00"),
    "half a character in json.json": '{"\\ud800": "\\udfff", "a": 1}',
    "an hour of many digits.srt": f"1\n00:00:00,000 --> {'9' * 400}:00:01,000\nx\n",
}


@pytest.mark.parametrize("name", STUMBLES)
def test_numbers_and_characters_beyond_measure_stop_no_reader(name: str, fuzzer: Fuzzer) -> None:
    outcome = fuzzer.outcome(name, STUMBLES[name].encode())
    assert outcome.kind in ("read", "rejected"), outcome.reason


def test_an_archive_whose_index_is_elsewhere_is_refused(fuzzer: Fuzzer) -> None:
    for name in ARCHIVES:
        data = samples()[name]
        outcome = fuzzer.outcome(name, data[:40] + data[40 + len(data) // 3 :])
        assert outcome.kind == "rejected", outcome.reason


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
@pytest.mark.parametrize("name", ARCHIVES)
def test_any_way_to_compress_is_read_or_refused(method: int, name: str, fuzzer: Fuzzer) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as archive:
        for entry, data in unzipped(samples()[name]).items():
            archive.writestr(entry, data)
    assert fuzzer.outcome(name, packed.getvalue()).kind == "read"
    entry = entry_of(packed.getvalue(), b"PK\x03\x04", ARCHIVES[name].encode())
    # Whatever stands there may make a dictionary of any size, which is beyond the limit of memory.
    for place in range(entry + 30, entry + 90, 3):
        broken = bytearray(packed.getvalue())
        broken[place] ^= 0xFF
        outcome = fuzzer.outcome(name, bytes(broken))
        assert outcome.kind in ("read", "rejected", "killed by limit"), (
            outcome.reason
        )  # a dictionary may be of any size


# Bombs


def laughs(levels: int = 11) -> tuple[str, str]:
    entities = "".join(f'<!ENTITY e{level} "{f"&e{level - 1};" * 10}">' for level in range(1, levels))
    return f'<!DOCTYPE a [<!ENTITY e0 "lol">{entities}]>', f"&e{levels - 1};"


BOMBS = {
    "billion laughs": laughs(),
    "quadratic blow-up": (f'<!DOCTYPE a [<!ENTITY e "{"x" * 100_000}">]>', "&e;" * 20_000),
    "parameter entities": ("<!DOCTYPE a [<!ENTITY % p \"<!ENTITY e 'boom'>\"> %p;]>", "&e;"),
    "an entity of itself": ('<!DOCTYPE a [<!ENTITY e "&e;">]>', "&e;"),
    "a file": ('<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/passwd">]>', "&e;"),
    "a device": ('<!DOCTYPE a [<!ENTITY e SYSTEM "file:///dev/zero">]>', "&e;"),
}


@pytest.mark.parametrize("bomb", BOMBS)
@pytest.mark.parametrize("name", ["a.xml", "a.html", *ARCHIVES])
def test_an_entity_never_becomes_more_than_is_written(name: str, bomb: str, fuzzer: Fuzzer, tmp_path: Path) -> None:
    doctype, use = BOMBS[bomb]
    data = with_entity(name, doctype, use)
    outcome = fuzzer.outcome(name, data)
    assert outcome.kind in ("read", "rejected"), outcome.reason
    if outcome.kind == "read":
        with ReaderProcess(LIMITS) as process:
            text = read(process, tmp_path / name, data).content.text
        assert "root:" not in text
        assert "lollol" not in text
        assert len(text) < 200_000


def with_entity(name: str, doctype: str, use: str) -> bytes:
    """Return a sample that declares an entity and uses it, in the file of an archive that holds the text."""
    if name not in ARCHIVES:
        text = samples()[name].decode()
        start = text.index("<book>" if name == "a.xml" else "<html")
        return f"<?xml version='1.0'?>{doctype}{text[start:].replace('Kettle', use)}".encode()
    files = unzipped(samples()[name])
    text = re.sub(r"^<\?xml[^>]*\?>", "", files[ARCHIVES[name]].decode())
    changed = text.replace("Kettle", use)
    assert changed != text
    return zipped({**files, ARCHIVES[name]: f"{doctype}{changed}".encode()})


@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_that_lies_about_its_size_inflates_to_no_more(name: str, fuzzer: Fuzzer) -> None:
    files = unzipped(samples()[name])
    data = bytearray(zipped({**files, ARCHIVES[name]: b"<a>" + b" " * 60_000_000 + b"</a>"}))
    for signature, offset in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        place = entry_of(data, signature, ARCHIVES[name].encode())
        data[place + offset : place + offset + 4] = (1_000).to_bytes(4, "little")
    outcome = fuzzer.outcome(name, bytes(data))
    assert outcome.kind == "rejected", outcome
    assert "damaged" in outcome.reason


def entry_of(data: bytes, signature: bytes, name: bytes) -> int:
    length = {b"PK\x03\x04": 30, b"PK\x01\x02": 46}[signature]
    starts = (match.start() for match in re.finditer(re.escape(signature), data))
    return next(start for start in starts if data[start + length :].startswith(name))


@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_that_inflates_beyond_reason_is_refused(name: str, fuzzer: Fuzzer) -> None:
    files = unzipped(samples()[name])
    outcome = fuzzer.outcome(name, zipped({**files, ARCHIVES[name]: b" " * 60_000_000}))
    assert "as only a harmful file does" in outcome.reason


DEEP = {
    "a.html": "<div>" * 20_000,
    "b.html": "<table><tr><td>" * 3_000,
    "c.html": "<select><option>" * 20_000,
    "a.xml": "<a>" * 20_000,
    "a.md": "> " * 20_000 + "x",
    "b.md": "- " * 20_000 + "x",
    "c.md": "[" * 50_000,
    "d.md": "---\na: " + "[" * 5_000 + "\n---\nx",
    "a.json": "[" * 100_000,
    "a.tex": "{" * 100_000,
    "b.tex": "\\begin{itemize}\\item " * 5_000,
    "a.adoc": "====\n" * 20_001,
    "a.rst": "".join(f"{' ' * depth}.. note::\n\n" for depth in range(1_000)),
    "a.vtt": "WEBVTT\n\n00:00.000 --> 00:01.000\n" + "<v " * 30_000,
    "b.vtt": "WEBVTT\n\n00:00.000 --> 00:01.000\n<v" + " " * 30_000,
    "a.eml": "Received: x\nMIME-Version: 1.0\nTo: " + "(" * 50_000 + "\n\nx",
    "b.eml": "Received: x\nMIME-Version: 1.0\n"
    + "".join(f"Content-Type: multipart/mixed; boundary=b{depth}\n\n--b{depth}\n" for depth in range(1_000)),
}


@pytest.mark.parametrize("name", DEEP)
def test_what_is_opened_without_end_is_read_or_refused_in_time(name: str, fuzzer: Fuzzer) -> None:
    outcome = fuzzer.outcome(name, DEEP[name].encode())
    assert outcome.kind in ("read", "rejected"), outcome.reason


# Files that are none, and names that are none


def test_nothing_in_a_folder_keeps_the_rest_from_being_read(tmp_path: Path) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "good.md").write_text("# Good\n\nStill read.")
    with (folder / "sparse.txt").open("wb") as sparse:
        sparse.truncate(1 << 30)
    with (folder / "zeros.pdf").open("wb") as sparse:
        sparse.truncate(100 << 20)
    os.mkfifo(folder / "pipe.md")
    for name, target in {"zero.md": "/dev/zero", "out.md": "/etc/passwd", "up": "..", "me.md": "me.md"}.items():
        (folder / name).symlink_to(target)
    (folder / "self").symlink_to(folder)
    (folder / os.fsdecode(b"\xff\xfe.md")).write_text("x")
    (folder / "bell\a.md").write_text("x")
    begun = time.monotonic()
    found = {each.path if isinstance(each, Rejected) else each.doc_id: each for each in read_source(Source(folder))}
    assert time.monotonic() - begun < LIMITS.seconds
    assert {name for name, each in found.items() if isinstance(each, Document)} == {"good.md"}
    reasons = {name: each.reason for name, each in found.items() if isinstance(each, Rejected)}
    assert reasons["sparse.txt"] == "has 1,073,741,824 bytes, more than 200,000,000; split it into smaller files"
    assert reasons["zero.md"] == reasons["out.md"] == reasons["up"]
    assert set(reasons) == {
        *("sparse.txt", "zeros.pdf", "pipe.md", "zero.md", "out.md", "up", "me.md", "self"),
        *("\\udcff\\udcfe.md", "bell\\x07.md"),
    }


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make devices")
def test_a_device_is_named_and_never_opened(tmp_path: Path) -> None:
    try:
        os.mknod(tmp_path / "zero.md", 0o666 | stat.S_IFCHR, os.makedev(1, 5))
    except PermissionError:
        pytest.skip("this machine lets nobody make devices")
    (found,) = read_source(Source(tmp_path))
    assert found == Rejected("zero.md", "is a device; only files with text can be added")


# Words that would act

LINK_TEXT = "[click](javascript:alert(1))"
SCRIPT = "</script><script>alert(1)</script>"
HANDLER = "\"><img src=x onerror=alert('1')>"
MARKS = "${alert(1)} {{alert(1)}} ]]> --> </textarea></title> `code` &lt;b&gt; <svg/onload=alert(1)>"
BREAKS = "\u2028\u2029\u0085\x0b\x0c data: {} event: done"
TURNED = "\N{RIGHT-TO-LEFT OVERRIDE}\N{RIGHT-TO-LEFT ISOLATE}\x1b[31m\x9b2J\a"
PAYLOAD = f"{SCRIPT} {HANDLER} {LINK_TEXT} {MARKS} ![x](https://evil.example/pixel) {BREAKS} {TURNED}"
ADDRESS = 'https://evil.example/)"><script>alert(1)</script>[x](javascript:alert(1))?<b>'
QUESTION = "Which table does Bobby Tables drop?"
DOC_ID = 'x"><img src=x onerror=alert(1)>/</script><script>alert(1)<`script`>](javascript:alert(1)).md'
OTHER_ID = "{{base}}${x}]]>\N{RIGHT-TO-LEFT OVERRIDE}.md"


def hostile(url: str) -> str:
    """Return a document that has payloads wherever it can have text."""
    quoted = json.dumps(f"Bobby {PAYLOAD}")
    return f"""---
title: {quoted}
author: {quoted}
tags: [{quoted}]
{json.dumps(PAYLOAD)}: 1
url: {json.dumps(url)}
---
# Bobby {PAYLOAD}

## Tables {PAYLOAD}

Bobby Tables drops the students table {PAYLOAD} of the school.
"""


@pytest.fixture(scope="module")
def hostile_home(encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Home:
    """A home with two documents full of payloads; one has an address of its own."""
    folder = tmp_path_factory.mktemp("hostile")
    for doc_id, url in ((DOC_ID, ADDRESS), (OTHER_ID, "javascript:alert(1)")):
        path = folder / doc_id
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(hostile(url).replace("students", "teachers" if doc_id == OTHER_ID else "students"), "utf-8")
    home = Home(tmp_path_factory.mktemp("hostile-home"))
    assert len(sync(home, [Source(folder)], encoder).added) == 2
    return home


@pytest.fixture(scope="module")
def client(hostile_home: Home, cache_folder: Path) -> Iterator[httpx.Client]:
    with serving(hostile_home.path, cache_folder) as client:
        yield client


class Tags(HTMLParser):
    """Collects what would act in a page: tags with their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, tuple[tuple[str, str | None], ...]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, tuple(attrs)))


def tags(page: str) -> list[tuple[str, tuple[tuple[str, str | None], ...]]]:
    parser = Tags()
    parser.feed(page)
    return parser.found


@pytest.mark.parametrize("path", ["/", "/documents/{}", "/docs", "/demo"])
def test_a_page_is_the_same_whatever_is_asked_of_it(client: httpx.Client, path: str) -> None:
    plain = client.get(path.format("a.md"))
    for payload in (re.sub("[\x00-\x1f]", "", PAYLOAD), DOC_ID, OTHER_ID):
        quoted = str(httpx.URL("http://x/").copy_with(path="/" + payload).raw_path, "ascii")[1:]
        headers = {"Referer": ADDRESS.encode(), "X-Forwarded-Prefix": HANDLER, "X-Forwarded-Host": HANDLER}
        response = client.get(path.format(quoted), params={"q": payload, "start": payload}, headers=headers)
        assert response.text == plain.text
    assert not [attributes for _, attributes in tags(plain.text) for name, _ in attributes if name.startswith("on")]
    assert all(dict(attributes).get("src") for tag, attributes in tags(plain.text) if tag == "script")


def asked(client: httpx.Client) -> list[httpx.Response]:
    """Return the responses of everything that carries words of documents."""
    said = {"messages": [{"role": "user", "content": QUESTION}]}
    text = {"messages": [{"role": "user", "text": QUESTION}]}
    events = {"Accept": "text/event-stream"}
    dify = {"knowledge_id": "whence", "query": QUESTION, "retrieval_setting": {"top_k": 5}}
    return [
        client.get("/v1/ask", params={"q": QUESTION}),
        client.post("/v1/chat", json=said),
        client.post("/v1/chat", json=said, headers=events),
        client.get("/v1/chat/suggestions"),
        client.post("/v1/deep-chat", json=text),
        client.post("/v1/deep-chat", json=text, headers=events),
        client.post("/v1/chat/completions", json={"model": "whence", **said}),
        client.post("/v1/chat/completions", json={"model": "whence", "stream": True, **said}),
        client.post("/retrieval", json=dify),
        client.post("/v1/web-search", json={"query": QUESTION}),
        client.get("/v1/documents"),
        client.get(document_path(DOC_ID)),
        client.get(document_path(OTHER_ID)),
        client.get("/v1/generations"),
    ]


def document_path(doc_id: str, rest: str = "") -> str:
    return "/v1" + str(httpx.URL("http://x/").copy_with(path=f"/documents/{doc_id}{rest}").raw_path, "ascii")


def test_words_of_documents_are_never_served_as_a_page(client: httpx.Client) -> None:
    for response in asked(client):
        assert response.status_code == httpx.codes.OK, response.text
        kind = response.headers["content-type"].partition(";")[0]
        assert kind in ("application/json", "text/event-stream")
        assert response.headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in response.headers["content-security-policy"]


def test_every_place_is_really_met(client: httpx.Client) -> None:
    """The payload comes through whole where it is data, so that the other tests look at something."""
    quoted = client.get("/v1/ask", params={"q": QUESTION}).json()
    assert quoted["answered"]
    passage = quoted["passages"][0]
    for payload in (SCRIPT, HANDLER, LINK_TEXT, "${alert(1)}", "]]>"):
        assert payload in passage["text"]
        assert payload in passage["citation"]["document"]["title"]
    assert {each["citation"]["document"]["id"] for each in quoted["passages"]} == {DOC_ID, OTHER_ID}


def test_lines_of_events_are_only_those_of_the_service(client: httpx.Client) -> None:
    streams = [each for each in asked(client) if each.headers["content-type"].startswith("text/event-stream")]
    assert len(streams) == 3
    for response in streams:
        assert not re.search("[\x0b\x0c\x1b\x07\x85\u2028\u2029\x9b\r]", response.text) or "/completions" not in str(
            response.url
        )
        for line in re.split("\r\n|\r|\n", response.text):
            name, _, value = line.partition(": ")
            assert name in ("", "event", "data", "id"), line
            if name == "data" and value != "[DONE]":
                assert isinstance(json.loads(value), dict)
            if name == "event":
                assert re.fullmatch(r"[a-z_]+", value)


def replies(client: httpx.Client) -> Iterator[str]:
    """Yield what is Markdown in the replies, whole and put together from parts."""
    for response in asked(client):
        path = response.url.path
        if path == "/v1/deep-chat":
            yield "".join(part["text"] for part in parts(response))
        elif path == "/v1/chat/completions":
            choices = [choice for part in parts(response) for choice in part["choices"]]
            yield "".join((choice.get("message") or choice.get("delta")).get("content") or "" for choice in choices)


def parts(response: httpx.Response) -> list[Any]:
    if not response.headers["content-type"].startswith("text/event-stream"):
        return [response.json()]
    data = [line.removeprefix("data: ") for line in response.text.split("\n") if line.startswith("data: ")]
    return [json.loads(each) for each in data if each != "[DONE]"]


def every(tokens: Iterable[Token]) -> Iterator[Token]:
    for token in tokens:
        yield token
        yield from every(token.children or ())


def test_replies_in_markdown_have_links_to_the_documents_and_nothing_else_that_acts(client: httpx.Client) -> None:
    texts = list(replies(client))
    assert len(texts) == 4
    for text in texts:
        assert "students table" in text or "teachers table" in text
        for reader in (MarkdownIt("commonmark", {"html": True}), MarkdownIt("gfm-like", {"html": True})):
            if reader.linkify is not None:
                reader.linkify.set({"fuzzy_link": False})
            found = list(every(reader.parse(text)))
            assert not {token.type for token in found} & {
                "html_block",
                "html_inline",
                "image",
                "code_inline",
                "fence",
            }
            links = [str(token.attrs["href"]) for token in found if token.type == "link_open"]
            assert links
            for href in links:
                assert href.startswith(
                    (f"{client.base_url}documents/", f"{client.base_url}/documents/", "https://evil.example/")
                )
                assert not re.search(r"[\s<>\"`]", href)
            rendered = tags(reader.render(text))
            assert {tag for tag, _ in rendered} <= {"p", "ol", "li", "ul", "a", "br"}
            assert {name for _, attributes in rendered for name, _ in attributes} <= {"href", "start"}


def addresses(value: Any) -> Iterator[str]:
    """Yield whatever is called an address in JSON."""
    if isinstance(value, dict):
        for name, each in value.items():
            if name in ("url", "uri", "link", "href") and isinstance(each, str):
                yield each
            elif name != "metadata":
                yield from addresses(each)
    elif isinstance(value, list):
        for each in value:
            yield from addresses(each)


def test_no_address_of_a_document_runs_anything(client: httpx.Client) -> None:
    found = {address for response in asked(client) for part in parts(response) for address in addresses(part)}
    assert len(found) > 2
    for address in found:
        assert re.match(r"(https?://|/|documents/|[a-zA-Z0-9%._/-]+(\?|#|$))", address), address
        assert not address.lower().startswith(("javascript:", "data:", "vbscript:", "//")), address


def test_a_document_is_served_as_text_or_as_a_download(client: httpx.Client) -> None:
    for doc_id in (DOC_ID, OTHER_ID):
        text = client.get(document_path(doc_id, "/text"))
        assert text.headers["content-type"] == "text/plain; charset=utf-8"
        original = client.get(document_path(doc_id, "/original"))
        assert original.headers["content-disposition"].startswith("attachment; filename*=UTF-8''")
        assert re.fullmatch(r"[!#-~]+", original.headers["content-disposition"].partition("''")[2])
        for response in (text, original):
            assert SCRIPT in response.text
            assert response.headers["x-content-type-options"] == "nosniff"
            assert response.headers["content-security-policy"].startswith("sandbox")


def test_problems_say_what_was_sent_only_as_json(client: httpx.Client) -> None:
    path = document_path(f"nothing{HANDLER}")
    for response in (
        client.get(path),
        client.get("/v1/ask", params={"q": ""}),
        client.post("/v1/chat", content=SCRIPT),
    ):
        assert response.status_code in (404, 422, 400, 415)
        assert response.headers["content-type"].partition(";")[0] in ("application/problem+json", "application/json")
        assert response.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "doc_id",
    ["..", "../x.md", "a/../../x.md", "a/./x.md", "/etc/x.md", "a//x.md", "a\\..\\x.md", "a\0.md", "a\nb.md"],
)
def test_no_document_is_put_outside_its_home(client: httpx.Client, hostile_home: Home, doc_id: str) -> None:
    before = {path.name for path in hostile_home.path.parent.iterdir()}
    path = "/v1/documents/" + "".join(f"%{byte:02X}" for byte in doc_id.encode())
    response = client.put(path, content="# X\n\nText.", headers={"Content-Type": "text/markdown"})
    assert response.status_code in (httpx.codes.BAD_REQUEST, httpx.codes.UNPROCESSABLE_ENTITY), response.text
    assert {path.name for path in hostile_home.path.parent.iterdir()} == before


def test_a_terminal_shows_words_that_would_act_on_it(hostile_home: Home, encoder: Encoder, tmp_path: Path) -> None:
    (tmp_path / "bad\N{RIGHT-TO-LEFT OVERRIDE}\x9b.md").write_text("x")
    (tmp_path / "good.md").write_text("# Good\n\nText.")
    report = sync(Home(tmp_path / "home"), [Source(tmp_path)], encoder)
    shown = Console(file=io.StringIO(), width=200)
    show_report(shown, report)
    with closing(hostile_home.open_current()) as generation:
        (answer,) = answer_questions(generation, encoder, [Question(QUESTION)])
    show_answer(shown, answer)
    text = shown.file.getvalue()  # type: ignore[attr-defined]
    assert "Bobby" in text
    assert "students" in text
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text)


# Addresses that would be fetched


@dataclass
class Listener:
    """A server of another machine, as it were, that notes who comes."""

    port: int
    requests: list[str] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def listener() -> Iterator[Listener]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.requests.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<!ENTITY e 'fetched'>")

        do_HEAD = do_GET  # noqa: N815 - the name that the server looks for

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found = Listener(server.server_port)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield found
        finally:
            server.shutdown()
            thread.join()


def fetching(to: str) -> dict[str, bytes]:
    """Return documents in which everything points to an address."""
    page = f"""<!doctype html><html><head><base href="{to}/base/"><link rel="stylesheet" href="{to}/s.css">
<link rel="canonical" href="{to}/c"><meta http-equiv="refresh" content="0;url={to}/r">
<style>@import "{to}/i.css";</style>
<script src="{to}/x.js"></script></head>
<body background="{to}/b"><h1>Page</h1><img src="{to}/i.png" srcset="{to}/j 2x">
<iframe src="{to}/f"></iframe><object data="{to}/o"></object><p>Text of the page.</p>
<video src="{to}/v"></video></body></html>"""
    doctype = f'<!DOCTYPE a SYSTEM "{to}/a.dtd" [<!ENTITY e SYSTEM "{to}/e"><!ENTITY % p SYSTEM "{to}/p"> %p;]>'
    texts = {
        "a.html": page,
        "a.xhtml": f'<?xml version="1.0"?><?xml-stylesheet href="{to}/s.xsl" type="text/xsl"?>{page}',
        "a.xml": f"<?xml version='1.0'?><?xml-stylesheet href='{to}/s.xsl'?>{doctype}<a xmlns:xi="
        f"'http://www.w3.org/2001/XInclude'><p>Text &e;</p><xi:include href='{to}/x'/></a>",
        "b.xml": f"<!DOCTYPE a PUBLIC 'x' '{to}/b.dtd'><a xmlns:xsi='http://www.w3.org/2001/XMLSchema-instance' "
        f"xsi:schemaLocation='x {to}/x.xsd'><p>Text</p></a>",
        "a.md": f"---\nurl: {to}/u\n---\n# Text\n\n![i]({to}/i) [l]({to}/l) <{to}/a>\n\n<img src='{to}/h'>\n",
        "a.rst": f"T\n=\n\n.. image:: {to}/i\n\n.. include:: {to}/n\n\n.. csv-table:: T\n   :url: {to}/t\n\n"
        f".. raw:: html\n   :url: {to}/w\n\nText.\n",
        "a.adoc": f"= T\n\ninclude::{to}/i[]\n\nimage::{to}/p[]\n\nText.\n",
        "a.tex": f"\\documentclass{{article}}\\begin{{document}}\\input{{{to}/i}}"
        f"\\includegraphics{{{to}/g}}Text.\\end{{document}}",
        "a.eml": f"Received: x\nMIME-Version: 1.0\nContent-Type: text/html\nContent-Location: {to}/l\n\n{page}",
        "b.eml": "Received: x\nMIME-Version: 1.0\nContent-Type: message/external-body; access-type=URL;\n"
        f' URL="{to}/e"\n\nText.\n',
        "a.ipynb": json.dumps(
            {
                "nbformat": 4,
                "metadata": {},
                "cells": [
                    {"cell_type": "markdown", "source": f"# T\n\n![i]({to}/i)"},
                    {
                        "cell_type": "code",
                        "source": f"open('{to}')",
                        "outputs": [{"output_type": "display_data", "data": {"text/html": page}}],
                    },
                ],
            }
        ),
        "a.json": json.dumps({"$schema": f"{to}/s", "$ref": f"{to}/r", "text": "Text."}),
        "a.vtt": f"WEBVTT\n\nSTYLE\n@import url({to}/s);\n\n00:01.000 --> 00:02.000\nText.\n",
    }
    found = {name: text.encode() for name, text in texts.items()}
    stream = f"/AA << /O << /S /URI /URI ({to}/o) >> >> /OpenAction << /S /SubmitForm /F ({to}/s) >>".encode()
    found["a.pdf"] = samples()["a.pdf"].replace(b"/Type /Catalog", b"/Type /Catalog " + stream)
    for name, entry in ARCHIVES.items():
        found[name] = _fetching_archive(name, entry, doctype, to)
    return found


def _fetching_archive(name: str, entry: str, doctype: str, to: str) -> bytes:
    files = unzipped(samples()[name])
    relation = (
        f'<Relationship Id="rId99" TargetMode="External" Target="{to}/t" Type="http://schemas.openxmlformats.org/'
    )
    for path in [each for each in files if each.endswith(".rels")]:
        kinds = ("attachedTemplate", "image", "hyperlink", "externalLink")
        added = "".join(
            f'{relation.replace("rId99", f"rId9{place}")}officeDocument/2006/relationships/{kind}"/>'
            for place, kind in enumerate(kinds)
        )
        files[path] = files[path].replace(b"</Relationships>", f"{added}</Relationships>".encode())
    if name == "a.epub":
        files[entry] = files[entry].replace(
            b"<h1>", f'<img src="{to}/i"/><link rel="stylesheet" href="{to}/s"/><h1>'.encode()
        )
        files["b.opf"] = files["b.opf"].replace(
            b"</manifest>", f'<item id="r" href="{to}/r" media-type="text/css"/></manifest>'.encode()
        )
    if name == "a.odt":
        text = re.sub(r"^<\?xml[^>]*\?>", "", files[entry].decode())
        files[entry] = f"{doctype}{text.replace('Fill it', '&e;')}".encode()
    return zipped(files)


def test_nothing_that_a_document_points_to_is_fetched(encoder: Encoder, tmp_path: Path) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    with listener() as server:
        documents = fetching(server.address)
        for name, data in documents.items():
            (folder / name).write_bytes(data)
        report = sync(Home(tmp_path / "home"), [Source(folder)], encoder)
        assert httpx.get(f"{server.address}/heard").status_code == httpx.codes.OK
        assert server.requests == ["/heard"]
    assert len(report.added) + len(report.rejected) == len(documents)
    assert len(report.added) >= len(documents) - 4, report.rejected


# Requests inside requests, and connections that only wait


async def telling(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the path, after the whole body."""
    while (await receive()).get("more_body"):
        pass
    body = scope["path"].encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with listening(telling) as port:
        yield port


HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.mark.parametrize(
    "fields",
    [
        b"Content-Length: 0\r\nContent-Length: 48\r\n",
        b"Content-Length: 48, 0\r\n",
        b"Content-Length: +0\r\n",
        b"Content-Length: 0x0\r\n",
        b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        b"Transfer-Encoding: xchunked\r\n",
        b"Transfer-Encoding : chunked\r\n",
        b"Content-Length : 48\r\n",
        b"X: y\rContent-Length: 48\r\n",
    ],
)
def test_a_request_whose_end_is_in_doubt_is_not_followed_by_another(port: int, fields: bytes) -> None:
    with connected(port) as connection:
        connection.sendall(b"POST /first HTTP/1.1\r\nHost: localhost\r\n" + fields + b"\r\n" + HIDDEN)
        connection.shutdown(socket.SHUT_WR)
        assert b"/hidden" not in everything(connection)


def test_a_client_that_has_said_all_still_gets_its_answer(port: int) -> None:
    with connected(port) as connection:
        connection.sendall(b"GET /half HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        connection.shutdown(socket.SHUT_WR)
        assert everything(connection).endswith(b"/half")


def test_many_connections_that_wait_keep_nobody_from_being_answered(port: int) -> None:
    with ExitStack() as stack:
        for _ in range(300):
            stack.enter_context(connected(port)).sendall(b"GET / HTTP/1.1\r\nHost: ")
        begun = time.monotonic()
        assert httpx.get(f"http://127.0.0.1:{port}/prompt").text == "/prompt"
        assert time.monotonic() - begun < 5


# Regular expressions

CHEAP = 1_500, 0.001  # characters, and the seconds of the processor that are not worth a closer look
LENGTHS = (6_000, 12_500, 50_000)
S_PER_CHAR = 1e-5
BOUNDED = {"index.readers.asciidoc._MARKUP": 300}  # those that see no more characters than that
Pattern = re.Pattern[Any] | regex.Pattern[Any]
ALL = {"sub": "finditer", "split": "finditer", "findall": "finditer", "subn": "finditer"}


@dataclass(frozen=True)
class Used:
    """A regular expression, where it is kept, and the methods by which it is used."""

    name: str
    pattern: Pattern
    methods: tuple[str, ...]


@cache
def expressions() -> tuple[Used, ...]:
    """Return the regular expressions that the modules keep."""
    found: dict[tuple[Any, int], Used] = {}
    for package in (index, service):
        for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            module = importlib.import_module(info.name)
            for name, value in vars(module).items():
                for pattern in _patterns(value):
                    methods = _methods(module, name, is_alone=pattern is value)
                    found.setdefault((pattern.pattern, pattern.flags), Used(f"{info.name}.{name}", pattern, methods))
    return tuple(found.values())


def _patterns(value: object, depth: int = 0) -> Iterator[Pattern]:
    if isinstance(value, (re.Pattern, regex.Pattern)):
        yield value
    elif depth < 4 and isinstance(value, (tuple, list, set, frozenset)):
        for each in value:
            yield from _patterns(each, depth + 1)
    elif depth < 4 and isinstance(value, dict):
        for pair in value.items():
            yield from _patterns(pair, depth + 1)


def _methods(module: ModuleType, name: str, *, is_alone: bool) -> tuple[str, ...]:
    assert module.__file__ is not None
    used = re.findall(rf"\b{name}\)?\.(\w+)", Path(module.__file__).read_text("utf-8")) if is_alone else ["match"]
    methods = {ALL.get(each, each) for each in used} & {"match", "fullmatch", "search", "finditer"}
    return tuple(sorted(methods or {"search"}))


def attacks(pattern: Pattern) -> Iterator[tuple[str, str, str]]:
    """Yield beginnings, units to repeat, and ends, made of what the expression itself has."""
    source = pattern.pattern if isinstance(pattern.pattern, str) else pattern.pattern.decode("latin-1")
    literal = re.sub(r"\(\?(?:P?<\w+>|[:=!>]|<[=!])|\\[wsdWSDbBAZ]|[()|?*+^$]", "", source).replace("\\", "")[:120]
    characters = dict.fromkeys([*literal, " ", "\n", "\t", "0", "a", "\\"])
    windows = dict.fromkeys(
        literal[place : place + size] for size in (2, 3, 4) for place in range(len(literal) - size)
    )
    units = [*characters, *list(windows)[:40], *(f"{each} " for each in list(characters)[:30])]
    units += [f"{each}\n" for each in list(characters)[:30]]
    units += [f"{each} " for each in list(windows)[:20]]
    yield from (("", unit, "") for unit in units)
    for before in (*list(characters)[:1], *list(windows)[:2]):
        yield from ((before, unit, "\0") for unit in list(characters)[:20])


def seconds(pattern: Pattern, method: str, text: str) -> float:
    """Match a text in every place that the method looks at; returns the time of the processor."""
    given = text if isinstance(pattern.pattern, str) else text.encode("latin-1", "replace")
    begun = time.thread_time()
    found = getattr(pattern, method)(given)
    if method == "finditer":
        for _ in found:
            pass
    return time.thread_time() - begun


def slow(used: Used) -> str | None:
    """Say by what an expression takes longer than in proportion to the length; None if by nothing tried."""
    longest = BOUNDED.get(used.name, max(LENGTHS))
    for method in used.methods:
        for before, unit, after in attacks(used.pattern):
            size, least = min(CHEAP[0], longest), CHEAP[1]
            if seconds(used.pattern, method, before + (unit * size)[:size] + after) < least:
                continue
            for length in (length for length in LENGTHS if length <= longest):
                text = before + (unit * length)[:length] + after
                bound = S_PER_CHAR * length
                taken = seconds(used.pattern, method, text)
                if taken > bound and (taken := seconds(used.pattern, method, text)) > bound:  # not by chance
                    return f"{used.name}.{method}: {before!a} + {unit!a} * n + {after!a}: {taken:.2f} s for {length}"
    return None


def test_the_regular_expressions_are_found() -> None:
    names = {used.name for used in expressions()}
    assert len(names) > 100
    assert {
        "index.readers.subtitles._VOICE",
        "service.markdown._ACTING",
        "index.readers.formats._UNSUPPORTED",
    } <= names


def test_a_regular_expression_that_takes_long_is_noticed() -> None:
    assert slow(Used("tag", re.compile(r"<v\s+([^>]+)>"), ("search",))) is not None
    assert slow(Used("tail", re.compile(r"\s+$"), ("search",))) is not None
    assert slow(Used("tag", re.compile(r"<v\s++([^<>]++)>"), ("search",))) is None


def test_no_regular_expression_takes_long_over_any_text() -> None:
    assert [found for used in expressions() if (found := slow(used)) is not None] == []
