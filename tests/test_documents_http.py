"""Documents over HTTP: put, replaced, deleted, listed and read, and a clear problem for everything that is wrong."""

from __future__ import annotations

import hashlib
import http.client
import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from full_disk import largest_file
from live import running, serving
from waiting import until

from index.build import sync
from index.embeddings import Encoder
from index.generations import Home
from index.sources import Source
from service.app import create_app
from service.settings import Settings

DONE_S = 30.0
ROUTER = "---\nproduct: router\n---\n# Router\n\nThe red light means that there is no power.\n"
KETTLE = b"# Kettle\r\n\r\nDescale the kettle every three months.\r\n"
NOTE = "# Note\n\nThe spare key hangs behind the door of the cellar.\n"
POISON = b"\x7fELF" + bytes(200)
BOUNDARY = "boundary"
MULTIPART = f"multipart/form-data; boundary={BOUNDARY}"


@pytest.fixture(scope="module")
def docs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that is synced."""
    folder = tmp_path_factory.mktemp("docs")
    (folder / "router.md").write_text(ROUTER)
    (folder / "kettle.md").write_bytes(KETTLE)
    (folder / "text").mkdir()
    (folder / "text" / "original").write_text("A document with a tricky name.")
    (folder / "odd \\ name?#%.md").write_text("A document with an odd name.")
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, docs: Path, encoder: Encoder) -> Home:
    """A home with that folder."""
    home = Home(tmp_path_factory.mktemp("served"))
    sync(home, [Source(docs)], encoder)
    return home


@pytest.fixture(scope="module")
def client(home: Home, cache_folder: Path) -> Iterator[httpx.Client]:
    """A client of the service over that home, with small limits."""
    with serving(home.path, cache_folder, max_upload=400_000, root_path="/whence") as client:
        yield client


def done(client: httpx.Client, response: httpx.Response) -> dict[str, Any]:
    """Wait until the task of a response is finished and its generation is served; return the task."""
    assert response.status_code == 202, response.text
    address = response.headers["location"].removeprefix("/whence")
    assert address == f"/v1/tasks/{response.json()['id']}"
    until(lambda: client.get(address).json()["finished"] is not None, seconds=DONE_S)
    task: dict[str, Any] = client.get(address).json()
    until(lambda: client.get("/v1/documents").json()["generation"] == published(client))
    return task


def published(client: httpx.Client) -> str:
    """Return the name of the published generation."""
    (name,) = (each["name"] for each in client.get("/v1/generations").json()["generations"] if each["published"])
    return str(name)


def put(client: httpx.Client, doc_id: str, **sent: Any) -> dict[str, Any]:
    """Put a document and wait for it."""
    return done(client, client.put(f"/v1/documents/{quote(doc_id)}", **sent))


def delete(client: httpx.Client, doc_id: str) -> dict[str, Any]:
    """Delete a document and wait for it."""
    return done(client, client.delete(f"/v1/documents/{quote(doc_id)}"))


def described(client: httpx.Client, doc_id: str) -> dict[str, Any]:
    """Return what is said of a document."""
    response = client.get(f"/v1/documents/{quote(doc_id)}")
    assert response.status_code == 200, response.text
    document: dict[str, Any] = response.json()
    return document


def ids(client: httpx.Client, **asked: Any) -> list[str]:
    """List the ids of documents."""
    return [document["id"] for document in client.get("/v1/documents", params=asked).json()["documents"]]


def refused(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Check that a request was refused with a problem, and return it."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert (problem["status"], problem["code"]) == (status, code)
    return problem


def leftovers(home: Home) -> list[str]:
    """Return the names of files that are being received."""
    return [path.name for path in (home.path / "uploads").glob(".part-*")]


# Reading


def test_documents_are_listed_in_order_and_by_prefix(client: httpx.Client) -> None:
    listed = client.get("/v1/documents").json()
    assert ids(client) == ["kettle.md", "odd \\ name?#%.md", "router.md", "text/original"]
    assert listed["next_cursor"] is None
    assert listed["documents"][2] == {
        "id": "router.md",
        "title": "Router",
        "uri": None,
        "media_type": "text/markdown",
        "sha256": hashlib.sha256(ROUTER.encode()).hexdigest(),
        "size": len(ROUTER),
        "source": "folder",
        "chunks": 1,
    }
    assert ids(client, prefix="text/") == ["text/original"]
    assert ids(client, prefix="nothing") == []


def test_a_cursor_leads_through_the_list_also_when_the_index_changes(client: httpx.Client) -> None:
    first = client.get("/v1/documents", params={"limit": 2}).json()
    client.put("/v1/documents/a-note.md", content=NOTE)
    put(client, "p-note.md", content=NOTE)
    second = client.get("/v1/documents", params={"limit": 2, "cursor": first["next_cursor"]}).json()
    assert [document["id"] for document in second["documents"]] == ["p-note.md", "router.md"]
    assert second["generation"] != first["generation"]
    last = client.get("/v1/documents", params={"cursor": second["next_cursor"]}).json()
    assert [document["id"] for document in last["documents"]] == ["text/original"]


@pytest.mark.parametrize(
    "asked", [{"limit": 0}, {"limit": 1001}, {"cursor": "!"}, {"cursor": "4pyT4pyT4"}, {"cursor": "_w"}, {"page": 2}]
)
def test_a_list_that_makes_no_sense_is_refused(client: httpx.Client, asked: dict[str, Any]) -> None:
    refused(client.get("/v1/documents", params=asked), 422, "invalid_request")


def test_a_document_is_described_without_its_place_on_the_disk(client: httpx.Client, docs: Path) -> None:
    response = client.get("/v1/documents/router.md")
    assert response.json() == {
        "id": "router.md",
        "title": "Router",
        "uri": None,
        "media_type": "text/markdown",
        "sha256": hashlib.sha256(ROUTER.encode()).hexdigest(),
        "size": len(ROUTER),
        "source": "folder",
        "chunks": 1,
        "metadata": {"product": "router"},
        "pages": None,
        "outline": [{"text": "Router", "level": 1, "start": ROUTER.index("The red")}],
        "text_url": "/whence/v1/documents/router.md/text",
        "original_url": "/whence/v1/documents/router.md/original",
        "page_url": "/whence/documents/router.md",
        "generation": client.get("/v1/documents").json()["generation"],
    }
    assert str(docs) not in response.text


def test_the_canonical_text_is_plain_text_and_is_not_sent_twice(client: httpx.Client) -> None:
    response = client.get("/v1/documents/kettle.md/text")
    assert response.text == KETTLE.decode().replace("\r\n", "\n")
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["content-security-policy"] == "sandbox; default-src 'none'"
    for known in (response.headers["etag"], f'"other", W/{response.headers["etag"]}'):
        again = client.get("/v1/documents/kettle.md/text", headers={"If-None-Match": known})
        assert (again.status_code, again.content) == (304, b"")
    assert client.get("/v1/documents/kettle.md/text", headers={"If-None-Match": '"other"'}).status_code == 200


def test_the_original_of_a_folder_is_given_as_long_as_it_is_the_one_that_was_indexed(
    client: httpx.Client, docs: Path
) -> None:
    response = client.get("/v1/documents/kettle.md/original")
    assert response.content == KETTLE
    assert response.headers["content-type"] == "text/markdown"
    assert response.headers["content-disposition"] == "attachment; filename*=UTF-8''kettle.md"
    assert response.headers["content-length"] == str(len(KETTLE))
    assert response.headers["content-security-policy"] == "sandbox; default-src 'none'"
    assert response.headers["etag"] == f'"{hashlib.sha256(KETTLE).hexdigest()}"'
    again = client.get("/v1/documents/kettle.md/original", headers={"If-None-Match": response.headers["etag"]})
    assert again.status_code == 304
    try:
        (docs / "kettle.md").write_bytes(KETTLE + b"!")
        problem = refused(client.get("/v1/documents/kettle.md/original"), 409, "original_changed")
        assert str(docs) not in problem["detail"]
        (docs / "kettle.md").unlink()
        refused(client.get("/v1/documents/kettle.md/original"), 409, "original_changed")
    finally:
        (docs / "kettle.md").write_bytes(KETTLE)


def test_an_id_may_end_like_the_address_of_a_text_or_an_original(client: httpx.Client) -> None:
    assert described(client, "text/original")["title"] == "original"
    assert client.get("/v1/documents/text/original/text").text == "A document with a tricky name."
    assert client.get("/v1/documents/text/original/original").text == "A document with a tricky name."
    put(client, "text", content="Another one, whose original this is.")
    assert client.get("/v1/documents/text/original").text == "Another one, whose original this is."
    assert client.get("/v1/documents/text/text").text == "Another one, whose original this is."
    delete(client, "text")
    assert described(client, "text/original")["title"] == "original"


def test_a_document_with_an_odd_name_is_reached(client: httpx.Client) -> None:
    document = described(client, "odd \\ name?#%.md")
    path = document["text_url"].removeprefix("/whence")
    assert client.get(path).text == "A document with an odd name."
    original = client.get(document["original_url"].removeprefix("/whence"))
    assert original.headers["content-disposition"] == "attachment; filename*=UTF-8''odd%20%5C%20name%3F%23%25.md"


@pytest.mark.parametrize("part", ["", "/text", "/original"])
@pytest.mark.parametrize(
    "path",
    ["unknown.md", "%2e%2e/router.md", "..%2Frouter.md", "router.md%00", "%ED%A0%80", "x" * 6000, "%2Fetc%2Fpasswd"],
)
def test_an_unknown_document_is_not_found_however_it_is_written(client: httpx.Client, path: str, part: str) -> None:
    refused(raw(client, "GET", f"/v1/documents/{path}{part}"), 404, "document_unknown")


def raw(client: httpx.Client, method: str, target: str, body: bytes = b"", **headers: str) -> httpx.Response:
    """Send a request whose target is exactly what is given."""
    connection = http.client.HTTPConnection("127.0.0.1", client.base_url.port, timeout=DONE_S)
    try:
        connection.request(method, target, body, headers)
        answer = connection.getresponse()
        return httpx.Response(answer.status, headers=dict(answer.getheaders()), content=answer.read())
    finally:
        connection.close()


# Putting and deleting


def test_a_document_that_is_put_is_answered_from_until_it_is_deleted(client: httpx.Client, home: Home) -> None:
    text = "# Umbrella\n\nThe green umbrella belongs to the porter.\n"
    question = {"q": "Whom does the green umbrella belong to?"}
    assert client.get("/v1/ask", params=question).json()["answered"] is False
    task = put(client, "things/umbrella.md", content=text)
    assert (task["kind"], task["status"], task["error"]) == ("put", "succeeded", None)
    assert task["documents"] == [{"id": "things/umbrella.md", "action": "put", "status": "succeeded", "reason": None}]
    answer = client.get("/v1/ask", params=question).json()
    assert answer["answer"]["text"] == "The green umbrella belongs to the porter."
    assert answer["answer"]["citation"]["document"]["id"] == "things/umbrella.md"
    assert described(client, "things/umbrella.md")["source"] == "upload"
    assert client.get("/v1/documents/things/umbrella.md/original").text == text
    assert delete(client, "things/umbrella.md")["status"] == "succeeded"
    assert client.get("/v1/ask", params=question).json()["answered"] is False
    refused(client.get("/v1/documents/things/umbrella.md"), 404, "document_unknown")
    assert text not in [path.read_text(errors="replace") for path in (home.path / "uploads").iterdir()]


def test_a_document_is_put_as_json_with_what_is_said_of_it(client: httpx.Client) -> None:
    sent = {
        "text": NOTE,
        "title": "  The\tkey ",
        "url": "https://example.org/key",
        "metadata": {"year": 2024, "of": ["a"]},
    }
    put(client, "key", json=sent)
    document = described(client, "key")
    assert (document["title"], document["uri"], document["metadata"]) == (
        "The key",
        "https://example.org/key",
        {"year": 2024, "of": ["a"]},
    )
    assert document["media_type"] == "text/plain"
    assert client.get("/v1/documents/key/text").text == NOTE
    first = published(client)
    put(client, "key", json={**sent, "title": "Another title"})
    assert described(client, "key")["title"] == "Another title"
    assert published(client) != first
    put(client, "key", content=NOTE, headers={"Content-Type": "text/markdown; charset=utf-8"})
    document = described(client, "key")
    assert (document["title"], document["uri"], document["media_type"]) == ("Note", None, "text/markdown")


def test_a_document_is_put_as_a_form(client: httpx.Client) -> None:
    put(
        client,
        "forms/key",
        files={"file": ("key.md", NOTE)},
        data={"title": "A key", "metadata": '{"beta": true, "ratio": 0.5}'},
    )
    document = described(client, "forms/key")
    assert (document["title"], document["media_type"], document["metadata"]) == (
        "A key",
        "text/markdown",
        {"beta": True, "ratio": 0.5},
    )


def test_a_json_file_is_put_as_it_is(client: httpx.Client) -> None:
    data = b'{"lamp": "The lamp glows green when the door is shut."}'
    put(client, "lamp.json", content=data, headers={"Content-Type": "application/octet-stream"})
    assert client.get("/v1/documents/lamp.json/original").content == data
    assert described(client, "lamp.json")["media_type"] == "application/json"


def test_several_documents_are_posted_at_once_and_one_that_is_none_fails_alone(client: httpx.Client) -> None:
    files = [("file", ("a.md", NOTE)), ("file", ("ü/b.txt", "Another text.")), ("file", ("c.bin", POISON))]
    response = client.post("/v1/documents", files=files, data={"prefix": "many/", "metadata": '{"of": "many"}'})
    task = done(client, response)
    assert (task["status"], task["document_count"], task["failed_count"]) == ("failed", 3, 1)
    assert task["error"] == (
        "1 of 3 documents failed. many/c.bin: unsupported format: it is a program; it holds no document"
    )
    assert [(each["id"], each["status"]) for each in task["documents"]] == [
        ("many/a.md", "succeeded"),
        ("many/ü/b.txt", "succeeded"),
        ("many/c.bin", "failed"),
    ]
    assert ids(client, prefix="many/") == ["many/a.md", "many/ü/b.txt"]
    assert described(client, "many/ü/b.txt")["metadata"] == {"of": "many"}


def test_writes_that_come_while_the_index_is_written_make_one_generation(client: httpx.Client, home: Home) -> None:
    with home.writer():
        responses = [
            client.put(f"/v1/documents/at-once/{number}.md", content=f"Text {number}.") for number in range(6)
        ]
        assert client.delete("/v1/documents/at-once/0.md").status_code == 202  # one that still waits
        refused(client.delete("/v1/documents/at-once/0.md"), 404, "document_unknown")
        waiting = client.get("/v1/tasks", params={"status": "enqueued", "limit": 3}).json()
        assert [task["kind"] for task in waiting["tasks"]] == ["delete", "put", "put"]
        more = client.get("/v1/tasks", params={"status": "enqueued", "cursor": waiting["next_cursor"]}).json()
        assert ([task["kind"] for task in more["tasks"]], more["next_cursor"]) == (["put"] * 4, None)
    tasks = [done(client, response) for response in responses]
    assert {task["status"] for task in tasks} == {"succeeded"}
    assert len({task["generation"] for task in tasks}) == 1
    assert ids(client, prefix="at-once/") == [f"at-once/{number}.md" for number in range(1, 6)]


def test_a_task_that_waits_is_canceled_and_leaves_nothing(client: httpx.Client, home: Home) -> None:
    with home.writer():
        response = client.put("/v1/documents/never.md", content=NOTE)
        address = f"/v1/tasks/{response.json()['id']}"
        before = len(list((home.path / "uploads").iterdir()))
        for _ in range(2):
            assert client.delete(address).json()["status"] == "canceled"
        assert len(list((home.path / "uploads").iterdir())) == before - 1
    finished = client.get("/v1/tasks", params={"status": "succeeded"}).json()["tasks"][0]["id"]
    problem = refused(client.delete(f"/v1/tasks/{finished}"), 409, "task_started")
    assert problem["detail"].startswith("The task is succeeded.")
    refused(client.delete("/v1/documents/never.md"), 404, "document_unknown")
    refused(client.get("/v1/tasks/unknown"), 404, "task_unknown")
    refused(client.delete("/v1/tasks/unknown"), 404, "task_unknown")
    refused(client.get("/v1/tasks", params={"status": "done"}), 422, "invalid_request")
    refused(client.get("/v1/tasks", params={"cursor": "zzz"}), 422, "invalid_request")


def test_a_document_of_a_folder_is_neither_replaced_nor_deleted(client: httpx.Client, docs: Path) -> None:
    for response in (
        client.put("/v1/documents/router.md", content=NOTE),
        client.post("/v1/documents", files={"file": ("router.md", NOTE)}),
        client.delete("/v1/documents/router.md"),
    ):
        problem = refused(response, 409, "document_synced")
        assert str(docs) not in problem["detail"]
    assert client.get("/v1/documents/router.md/text").text == ROUTER


@pytest.mark.parametrize(
    "path",
    ["", "/", "a/", "a//b", "%2e%2e/a", "a/%2e%2e", "a/%2e/b", "a%00", "a%5Cb", "x" * 513, "..%2Fa", "../a"],
)
def test_an_id_that_is_no_plain_path_is_refused(client: httpx.Client, home: Home, path: str) -> None:
    refused(raw(client, "PUT", f"/v1/documents/{path}", NOTE.encode()), 422, "invalid_document")
    assert leftovers(home) == []


@pytest.mark.parametrize(
    ("sent", "code", "status"),
    [
        ({"content": b""}, "invalid_document", 422),
        ({"content": b"{", "headers": {"Content-Type": "application/json"}}, "malformed_json", 400),
        ({"content": b"\xff", "headers": {"Content-Type": "application/json"}}, "malformed_json", 400),
        ({"content": b'{"text": "\\ud800"}', "headers": {"Content-Type": "application/json"}}, "malformed_json", 400),
        ({"json": {"text": ""}}, "invalid_request", 422),
        ({"json": {"text": 1}}, "invalid_request", 422),
        ({"json": {"content": "x"}}, "invalid_request", 422),
        ({"json": ["x"]}, "invalid_request", 422),
        ({"json": {"text": "x", "title": " "}}, "invalid_request", 422),
        ({"json": {"text": "x", "title": "a\0b"}}, "invalid_request", 422),
        ({"json": {"text": "x", "title": "x" * 501}}, "invalid_request", 422),
        ({"json": {"text": "x", "url": "javascript:alert(1)"}}, "invalid_request", 422),
        ({"json": {"text": "x", "url": "https://"}}, "invalid_request", 422),
        ({"json": {"text": "x", "url": "https://[::1"}}, "invalid_request", 422),
        ({"json": {"text": "x", "metadata": {"a": {"b": 1}}}}, "invalid_request", 422),
        ({"json": {"text": "x", "metadata": {"a": [1, "b"]}}}, "invalid_request", 422),
        ({"json": {"text": "x", "metadata": {"a": None}}}, "invalid_request", 422),
        ({"json": {"text": "x", "metadata": {"a": 2**63}}}, "invalid_request", 422),
        ({"json": {"text": "x", "metadata": {str(n): n for n in range(101)}}}, "invalid_request", 422),
        ({"files": {"other": ("a.md", b"x")}}, "invalid_request", 422),
        ({"files": [("file", ("a.md", b"x")), ("file", ("b.md", b"x"))]}, "invalid_request", 422),
        ({"files": {"file": ("a.md", b"x")}, "data": {"colour": "red"}}, "invalid_request", 422),
        ({"files": {"file": ("a.md", b"x")}, "data": {"metadata": "{"}}, "invalid_request", 422),
        ({"files": {"file": ("a.md", b"x")}, "data": {"metadata": '{"a": NaN}'}}, "invalid_request", 422),
        ({"files": {"file": ("a.md", b"x")}, "data": {"metadata": "[1]"}}, "invalid_request", 422),
    ],
)
def test_what_makes_no_sense_is_refused_and_leaves_nothing(
    client: httpx.Client, home: Home, sent: dict[str, Any], code: str, status: int
) -> None:
    refused(client.put("/v1/documents/odd.md", **sent), status, code)
    assert leftovers(home) == []


def test_what_is_wrong_in_a_form_is_named_by_field(client: httpx.Client) -> None:
    sent = {"files": {"file": ("a.md", b"x")}, "data": {"url": "ftp://x", "metadata": '{"a": {}}'}}
    problem = refused(client.put("/v1/documents/odd.md", **sent), 422, "invalid_request")
    assert {error["pointer"].split("/")[1] for error in problem["errors"]} == {"url", "metadata"}


def part(disposition: str, content: str = "text") -> str:
    """Return a part of a multipart body."""
    return f"--{BOUNDARY}\r\nContent-Disposition: {disposition}\r\n\r\n{content}\r\n"


WHOLE = part('form-data; name="file"; filename="a.md"')
END = f"--{BOUNDARY}--\r\n"


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (WHOLE, MULTIPART),
        (WHOLE[:40], MULTIPART),
        ("", MULTIPART),
        (WHOLE + END, "multipart/form-data"),
        (WHOLE + END, "multipart/form-data; boundary="),
        ("no boundary at all", MULTIPART),
        (part("form-data") + END, MULTIPART),
        (part('form-data; name="title"') * 2 + WHOLE + END, MULTIPART),
        ("".join(part(f'form-data; name="{number}"') for number in range(30)) + END, MULTIPART),
        (f"--{BOUNDARY}\r\n{'X' * 100_000}: y\r\n\r\n{END}", MULTIPART),
    ],
)
def test_a_form_that_is_not_well_formed_is_refused_and_leaves_nothing(
    client: httpx.Client, home: Home, body: str, content_type: str
) -> None:
    headers = {"Content-Type": content_type}
    refused(client.put("/v1/documents/odd.md", content=body, headers=headers), 400, "malformed_body")
    refused(client.post("/v1/documents", content=body, headers=headers), 400, "malformed_body")
    assert leftovers(home) == []


@pytest.mark.parametrize(
    ("sent", "code", "status"),
    [
        ({"json": {"text": "x"}}, "content_type", 415),
        ({"content": b"x"}, "content_type", 415),
        ({"files": {"other": ("a.md", b"x")}}, "invalid_request", 422),
        ({"files": {"file": (None, b"x")}}, "invalid_request", 422),
        ({"files": {"file": ("a.md", b"x")}, "data": {"title": "x"}}, "invalid_request", 422),
        ({"files": {"file": ("../a.md", b"x")}}, "invalid_document", 422),
        ({"files": {"file": ("a.md", b"x")}, "data": {"prefix": "/"}}, "invalid_document", 422),
        ({"files": [("file", ("a.md", b"x")), ("file", ("a.md", b"y"))]}, "invalid_document", 422),
    ],
)
def test_a_post_that_makes_no_sense_is_refused_and_leaves_nothing(
    client: httpx.Client, home: Home, sent: dict[str, Any], code: str, status: int
) -> None:
    refused(client.post("/v1/documents", **sent), status, code)
    assert leftovers(home) == []


def test_an_upload_that_is_too_large_is_refused_and_leaves_nothing(client: httpx.Client, home: Home) -> None:
    large = b"x" * 400_001
    refused(client.put("/v1/documents/large.txt", content=large), 413, "body_too_large")
    refused(client.put("/v1/documents/large.txt", content=iter([large[:300_000], large])), 413, "body_too_large")
    refused(client.post("/v1/documents", files={"file": ("a.md", large)}), 413, "body_too_large")
    assert leftovers(home) == []


def test_a_full_disk_while_uploading_is_said_and_leaves_nothing(client: httpx.Client, home: Home) -> None:
    large = b"x" * 390_000
    with largest_file(300_000):
        problem = refused(client.put("/v1/documents/large.txt", content=large), 507, "storage_unavailable")
        assert problem["detail"].startswith("The document cannot be stored: File too large. Nothing of it was kept.")
        refused(client.post("/v1/documents", files={"file": ("large.txt", large)}), 507, "storage_unavailable")
    assert leftovers(home) == []
    refused(client.get("/v1/documents/large.txt"), 404, "document_unknown")


@pytest.mark.parametrize("content_type", ["text/plain", "application/json", MULTIPART])
def test_a_client_that_leaves_half_way_leaves_nothing(client: httpx.Client, home: Home, content_type: str) -> None:
    head = f"PUT /v1/documents/half.md HTTP/1.1\r\nHost: localhost\r\nContent-Type: {content_type}\r\n"
    with socket.create_connection(("127.0.0.1", client.base_url.port), timeout=DONE_S) as connection:
        connection.sendall(f"{head}Content-Length: 100000\r\n\r\n{WHOLE}{'x' * 1000}".encode())
        if content_type != "application/json":
            until(lambda: leftovers(home) != [])
        time.sleep(0.1)
    until(lambda: leftovers(home) == [])
    refused(client.get("/v1/documents/half.md"), 404, "document_unknown")


def test_documents_are_put_before_there_is_an_index(tmp_path: Path, cache_folder: Path) -> None:
    home = Home(tmp_path / "home")
    settings = Settings(home=home.path, cache=cache_folder, bundled=False)
    with ExitStack() as writing:
        writing.enter_context(home.writer())
        with running(create_app(settings)) as address, httpx.Client(base_url=address, timeout=DONE_S) as client:
            refused(client.get("/v1/documents"), 503, "starting")
            refused(client.get("/v1/documents/key.md"), 503, "starting")
            response = client.put("/v1/documents/key.md", content=NOTE)
            refused(client.delete("/v1/documents/other.md"), 404, "document_unknown")
            writing.close()
            until(lambda: client.get("/readyz").status_code == 200, seconds=DONE_S)
            assert done(client, response)["status"] == "succeeded"
            assert ids(client) == ["key.md"]


# Generations


def test_generations_are_listed_and_published_again(client: httpx.Client, home: Home) -> None:
    before = published(client)
    put(client, "later.md", content="Something later.")
    listed = client.get("/v1/generations").json()["generations"]
    assert listed[0]["name"] == published(client)
    assert before in [each["name"] for each in listed]
    assert client.post(f"/v1/generations/{before}/publish").json() == {"published": before}
    until(lambda: client.get("/v1/documents").json()["generation"] == before)
    refused(client.get("/v1/documents/later.md"), 404, "document_unknown")
    client.post(f"/v1/generations/{listed[0]['name']}/publish")
    until(lambda: client.get("/v1/documents").json()["generation"] == listed[0]["name"])
    assert described(client, "later.md")["title"] == "later.md"


def test_only_a_whole_generation_that_is_there_is_published(
    client: httpx.Client, home: Home, encoder: Encoder
) -> None:
    for name in ("unknown", "..", "%2e%2e", "x" * 5000):
        assert raw(client, "POST", f"/v1/generations/{name}/publish").status_code == 404
    refused(client.post("/v1/generations/unknown/publish"), 404, "generation_unknown")
    put(client, "other.md", content="Something else.")
    damaged = client.get("/v1/generations").json()["generations"][1]["name"]
    path = home.folder(damaged) / "furniture.npy"
    data = path.read_bytes()
    path.write_bytes(data + b"\0")
    refused(client.post(f"/v1/generations/{damaged}/publish"), 409, "generation_damaged")
    path.write_bytes(data)
    with home.writer():
        response = client.post(f"/v1/generations/{damaged}/publish")
        problem = refused(response, 503, "writer_busy")
        assert response.headers["retry-after"] == "1"
        assert str(home.path) not in json.dumps(problem)
