"""The Model Context Protocol, with its own client: over HTTP against the service, over stdio against the command."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
import httpx2
import pytest
from handbook import ADDRESS, Handbook
from live import serving
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS
from sources_in_memory import MemorySource
from tiny_models import write_tiny_model
from waiting import until

from index.build import sync
from index.embeddings import Encoder, load_encoder
from index.generations import Home
from index.sources import Source
from index.state import State
from service import mcp_server
from service.auth import KeyStore, Scope

ROOT = Path(__file__).parents[1]
RED = "What does the red light mean?"
NO_POWER = "The red light means that there is no power."
NOWHERE = "How do I file my taxes in Portugal?"
TIPS = "guide/router reset & tips (ä).md"
COMMAND = "from service.cli import main; main()"
NEWEST, HANDSHAKE = "2026-07-28", "2025-11-25"
DOCS = "https://docs.example.com"
PING = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
ENDING_S = 60.0
BUILDING_S = 120.0
ACCEPT = {"Accept": "application/json, text/event-stream"}

T = TypeVar("T")


@pytest.fixture(scope="module")
def handbook_home(encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with the handbook."""
    home = Home(tmp_path_factory.mktemp("served"))
    sync(home, [Handbook()], encoder)
    return home.path


@pytest.fixture(scope="module")
def client(handbook_home: Path, cache_folder: Path) -> Iterator[httpx.Client]:
    """A plain HTTP client of the service over the handbook, in which questions are logged."""
    with serving(handbook_home, cache_folder, question_log_days=1) as client:
        yield client


def address(client: httpx.Client) -> str:
    """Return where a service speaks the protocol."""
    return str(client.base_url).rstrip("/") + "/mcp"


def talk(client: httpx.Client, say: Callable[[Client], Awaitable[T]], *, mode: str = "auto") -> T:
    """Connect the protocol's own client to the service, and let it say something."""

    async def talking() -> T:
        async with Client(address(client), mode=mode) as connected:
            return await say(connected)

    return asyncio.run(talking())


def call(client: httpx.Client, tool: str, **arguments: Any) -> dict[str, Any]:
    """Call a tool, and return what it gives; the same must be in the text."""

    async def calling(connected: Client) -> dict[str, Any]:
        result = await connected.call_tool(tool, arguments)
        (content,) = result.content
        assert content.type == "text"
        assert not result.is_error, content.text
        assert result.structured_content == json.loads(content.text)
        return result.structured_content or {}

    return talk(client, calling)


def refused(client: httpx.Client, tool: str, arguments: dict[str, Any]) -> str:
    """Call a tool in a way that it does not take, and return what it says."""

    async def calling(connected: Client) -> str:
        result = await connected.call_tool(tool, arguments)
        (content,) = result.content
        assert result.is_error and content.type == "text" and result.structured_content is None
        return content.text

    return talk(client, calling)


def error_of(client: httpx.Client, say: Callable[[Client], Awaitable[object]], *, mode: str = "auto") -> MCPError:
    """Let the client say something that is an error of the protocol, and return the error."""

    async def failing(connected: Client) -> MCPError:
        with pytest.raises(MCPError) as error:
            await say(connected)
        return error.value

    return talk(client, failing, mode=mode)


def post(client: httpx.Client, message: Any, **headers: str) -> httpx.Response:
    """Send a message as bare HTTP."""
    return client.post("/mcp", json=message, headers={**ACCEPT, **headers})


@pytest.mark.parametrize(("mode", "version"), [("auto", NEWEST), ("legacy", HANDSHAKE)])
def test_the_server_introduces_itself(client: httpx.Client, mode: str, version: str) -> None:
    async def introduced(connected: Client) -> tuple[Any, ...]:
        info, offered = connected.server_info, connected.server_capabilities
        assert info is not None and offered.tools is not None and offered.resources is not None
        return connected.protocol_version, info.name, info.title, info.version, connected.instructions or ""

    protocol, name, title, number, instructions = talk(client, introduced, mode=mode)
    assert (protocol, name, title, number) == (version, "whence", "Whence", "0.1.0")
    assert "When `answered` is false" in instructions


@pytest.mark.parametrize("version", ["2024-11-05", "2025-03-26", "2025-06-18"])
def test_older_clients_are_answered_too(client: httpx.Client, version: str) -> None:
    params = {"protocolVersion": version, "capabilities": {}, "clientInfo": {"name": "old", "version": "1"}}
    begun = post(client, {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params})
    assert begun.status_code == 200
    assert begun.json()["result"]["protocolVersion"] == version
    assert "mcp-session-id" not in begun.headers
    noted = post(client, {"jsonrpc": "2.0", "method": "notifications/initialized"})
    assert (noted.status_code, noted.text) == (202, "")
    called = {"name": "search", "arguments": {"query": RED}}
    answered = post(
        client,
        {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": called},
        **{"MCP-Protocol-Version": version},
    )
    assert answered.headers["content-type"] == "application/json"
    assert answered.json()["result"]["structuredContent"]["answer"]["text"] == NO_POWER


def test_the_tools_say_what_they_take_and_give_and_that_they_only_read(client: httpx.Client) -> None:
    async def listed(connected: Client) -> list[dict[str, Any]]:
        tools = (await connected.list_tools()).tools
        return [tool.model_dump(by_alias=True, mode="json", exclude_none=True) for tool in tools]

    search, fetch = talk(client, listed)
    for tool in (search, fetch):
        hints = {name: tool["annotations"][name] for name in tool["annotations"] if name.endswith("Hint")}
        assert hints == {
            "readOnlyHint": True,
            "destructiveHint": False,
            "idempotentHint": True,
            "openWorldHint": False,
        }
        assert tool["title"] == tool["annotations"]["title"]
        assert all("description" in field for field in tool["inputSchema"]["properties"].values())
    assert (search["name"], fetch["name"]) == ("search", "fetch")
    assert list(search["inputSchema"]["properties"]) == ["query", "top_k", "filters"]
    assert search["inputSchema"]["required"] == ["query"]
    assert list(search["outputSchema"]["properties"]) == ["answered", "confidence", "answer", "results"]
    assert "say that the documents do not answer" in search["description"]
    assert fetch["inputSchema"]["required"] == ["id"]
    assert {"id", "title", "text", "url", "metadata"} <= set(fetch["outputSchema"]["required"])


def test_search_gives_what_asking_gives(client: httpx.Client) -> None:
    found = call(client, "search", query=RED, top_k=3)
    asked = client.post("/v1/ask", json={"question": RED, "top_k": 3}).json()
    assert found["answered"] is asked["answered"] is True
    assert found["confidence"] == asked["confidence"]
    assert found["answer"]["text"] == asked["answer"]["text"] == NO_POWER
    assert [result["text"] for result in found["results"]] == [passage["text"] for passage in asked["passages"]]
    assert [result["score"] for result in found["results"]] == [passage["score"] for passage in asked["passages"]]
    first, passage = found["results"][0], asked["passages"][0]
    assert (first["id"], first["title"]) == ("router.md", "Router")
    url = str(client.base_url).rstrip("/") + passage["citation"]["url"]
    assert first["url"] == first["citation"]["url"] == url
    assert first["citation"] == {**passage["citation"], "url": url}


def test_a_document_with_an_address_of_its_own_is_linked_there(client: httpx.Client) -> None:
    found = call(client, "search", query="Where does the filter of the dishwasher sit?")
    own = ADDRESS.partition("#")[0]
    assert found["results"][0]["url"].startswith(f"{own}#:~:text=")
    assert call(client, "fetch", id="dishwasher.html")["url"] == ADDRESS


def test_what_the_documents_do_not_answer_is_not_answered(client: httpx.Client) -> None:
    found = call(client, "search", query=NOWHERE)
    assert found["answered"] is False
    assert found["answer"] is None
    assert len(found["results"]) == 5


def test_a_search_can_be_narrowed_also_by_programs_that_write_objects_as_texts(client: httpx.Client) -> None:
    filters = {"product": "kettle"}
    for given in (filters, json.dumps(filters), "product=kettle"):
        found = call(client, "search", query="What is hot?", filters=given, top_k="2")
        assert [result["id"] for result in found["results"]] == ["kettle.md", "kettle.md"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "query: Field required"),
        ({"query": ""}, "The question is empty. Ask something."),
        ({"query": "?!"}, "The question '?!' has no word in it. Ask in words."),
        ({"query": RED, "top_k": 0}, "top_k: Input should be greater than or equal to 1"),
        ({"query": RED, "top_k": 101}, "top_k: Input should be less than or equal to 100"),
        ({"query": RED, "limit": 3}, "limit: Extra inputs are not permitted"),
        ({"query": RED, "filters": {"year": {"from": 2024}}}, "The filter on 'year' has ['from']. It takes gt"),
        ({"query": RED, "filters": "the new ones"}, "The filter 'the new ones' is not FIELD=VALUE"),
        ({"query": RED, "filters": 3}, "filters: Input should be a valid dictionary"),
        ({"query": "w" * 4001}, "The question has 4,001 characters; at most 4,000 can be asked"),
    ],
)
def test_what_makes_no_sense_is_told_to_the_model(client: httpx.Client, arguments: dict[str, Any], said: str) -> None:
    assert said in refused(client, "search", arguments)


def test_a_document_is_read_in_parts_that_make_the_whole(client: httpx.Client) -> None:
    whole = client.get(f"/v1/documents/{quote(TIPS)}/text").text
    parts, start = [], 0
    while start is not None:
        part = call(client, "fetch", id=TIPS, start=start, max_chars=100)
        assert (part["start"], part["end"], part["length"]) == (start, start + len(part["text"]), len(whole))
        parts.append(part["text"])
        start = part["next_start"]
    assert "".join(parts) == whole
    assert len(parts) == -(-len(whole) // 100)
    read = call(client, "fetch", id=TIPS)
    assert (read["id"], read["title"], read["text"], read["next_start"]) == (TIPS, "Tips", whole, None)
    assert read["metadata"] == {"product": "router", "year": 2025}
    assert client.get(read["url"]).status_code == 200
    assert call(client, "fetch", id=TIPS, start=10_000)["text"] == ""


def test_offsets_of_a_citation_are_those_of_fetch(client: httpx.Client) -> None:
    citation = call(client, "search", query="Where is the password of the café network?")["answer"]["citation"]
    length = citation["end"] - citation["start"]
    read = call(client, "fetch", id=citation["document"]["id"], start=citation["start"], max_chars=length)
    assert read["text"] == citation["quote"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"id": "none.md"}, "There is no document 'none.md'. Take the id from a result of search"),
        ({"id": "router.md", "start": -1}, "start: Input should be greater than or equal to 0"),
        ({"id": "router.md", "max_chars": 0}, "max_chars: Input should be greater than or equal to 1"),
    ],
)
def test_what_cannot_be_read_is_told(client: httpx.Client, arguments: dict[str, Any], said: str) -> None:
    assert said in refused(client, "fetch", arguments)


def test_half_a_character_is_no_mistake_of_ours(client: httpx.Client) -> None:
    envelope = {
        "io.modelcontextprotocol/protocolVersion": NEWEST,
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    for arguments in ({"id": "\ud800"}, {"\ud800": 1, "id": "x"}):
        params = {"name": "fetch", "arguments": arguments, "_meta": envelope}
        message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        headers = {
            **ACCEPT,
            "Content-Type": "application/json",
            "MCP-Protocol-Version": NEWEST,
            "Mcp-Method": "tools/call",
            "Mcp-Name": "fetch",
        }
        answered = client.post("/mcp", content=json.dumps(message), headers=headers)
        assert answered.status_code == 200, answered.text
        assert answered.json()["result"]["isError"] is True


def test_a_tool_that_is_not_there_is_an_error_of_the_protocol(client: httpx.Client) -> None:
    error = error_of(client, lambda connected: connected.call_tool("delete", {}))
    assert (error.code, str(error)) == (INVALID_PARAMS, "There is no tool 'delete'. There are: search, fetch.")


def test_documents_are_listed_page_by_page_and_read_by_their_uri(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mcp_server, "RESOURCES_AT_ONCE", 4)

    async def everything(connected: Client) -> tuple[list[list[Any]], dict[str, Any]]:
        pages, cursor = [], None
        while not pages or cursor:
            page = await connected.list_resources(cursor=cursor)
            pages.append(page.resources)
            cursor = page.next_cursor
        read = {each.name: await connected.read_resource(each.uri) for each in pages[0]}
        return pages, read

    pages, read = talk(client, everything)
    assert [len(page) for page in pages] == [4, 2]
    listed = [resource for page in pages for resource in page]
    documents = client.get("/v1/documents").json()["documents"]
    assert [(each.name, each.title) for each in listed] == [(each["id"], each["title"]) for each in documents]
    assert listed[1].uri == "whence://documents/guide%2Frouter%20reset%20%26%20tips%20%28%C3%A4%29.md"
    assert {each.mime_type for each in listed} == {"text/plain"}
    for doc_id, result in read.items():
        (content,) = result.contents
        assert content.text == client.get(f"/v1/documents/{quote(doc_id)}/text").text


def test_the_uri_of_a_document_can_be_made_from_its_id(client: httpx.Client) -> None:
    async def templates(connected: Client) -> list[str]:
        return [each.uri_template for each in (await connected.list_resource_templates()).resource_templates]

    assert talk(client, templates) == ["whence://documents/{id}"]


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("whence://documents/none.md", "There is no document 'none.md'"),
        ("file:///etc/passwd", "Documents are at whence://documents/ID"),
        ("whence://documents/", "There is no document ''"),
    ],
)
def test_a_resource_that_is_not_there_is_an_error(client: httpx.Client, uri: str, said: str) -> None:
    error = error_of(client, lambda connected: connected.read_resource(uri))
    assert error.code == INVALID_PARAMS
    assert said in str(error)


def test_a_document_too_long_to_be_read_at_once_is_left_to_fetch(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mcp_server, "MAX_RESOURCE_CHARS", 100)
    error = error_of(client, lambda connected: connected.read_resource("whence://documents/router.md"))
    assert re.match(r"router\.md has \d+ characters, .* Read it in parts with the tool fetch\.", str(error))


def test_a_cursor_that_is_none_is_an_error(client: httpx.Client) -> None:
    error = error_of(client, lambda connected: connected.list_resources(cursor="!"))
    assert (error.code, str(error)) == (INVALID_PARAMS, "'!' is no cursor. Take it from nextCursor.")


def test_a_mistake_of_ours_is_told_without_saying_which(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(mcp_server, "RESOURCES_AT_ONCE", "many")
    for mode in ("auto", "legacy"):
        error = error_of(client, lambda connected: connected.list_resources(), mode=mode)
        assert str(error) == "Something went wrong here. It is in the log."
    assert "TypeError" in caplog.text


def test_many_call_at_the_same_time(client: httpx.Client) -> None:
    async def all_at_once(connected: Client) -> list[Any]:
        questions = [RED, "How often is the kettle descaled?"] * 8
        return await asyncio.gather(*(connected.call_tool("search", {"query": text}) for text in questions))

    answers = [result.structured_content["answer"]["text"] for result in talk(client, all_at_once)]
    assert answers == [NO_POWER, "Descale the kettle every three months."] * 8


def test_questions_are_counted_and_logged_as_any_others(client: httpx.Client) -> None:
    def counted() -> float:
        found = re.search(r'whence_questions_total\{outcome="unanswered"\} ([0-9.]+)', client.get("/metrics").text)
        return float(found[1]) if found else 0.0

    def logged() -> int:
        groups = client.get("/v1/insights/unanswered").json()["groups"]
        return next((group["count"] for group in groups if group["question"] == question), 0)

    question, before = "Who painted the ceiling of the chapel?", counted()
    call(client, "search", query=question)
    assert counted() == before + 1
    until(lambda: logged() == 1)


@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT"])
def test_there_are_no_streams_to_open_and_no_sessions_to_end(client: httpx.Client, method: str) -> None:
    response = client.request(method, "/mcp", headers=ACCEPT)
    assert (response.status_code, response.headers["allow"]) == (405, "POST")
    assert response.json()["code"] == "method_not_allowed"


def test_what_is_no_message_is_refused(client: httpx.Client) -> None:
    broken = client.post("/mcp", content=b"{", headers={**ACCEPT, "Content-Type": "application/json"})
    assert (broken.status_code, broken.json()["error"]["code"]) == (400, -32700)
    batch = post(client, [PING])
    assert batch.status_code == 400
    plain = client.post("/mcp", content=b"{}", headers={**ACCEPT, "Content-Type": "text/plain"})
    assert plain.status_code == 400
    large = client.post("/mcp", content=b" " * 1_000_001, headers={**ACCEPT, "Content-Type": "application/json"})
    assert (large.status_code, large.json()["code"]) == (413, "body_too_large")


def test_no_page_of_another_origin_asks_an_open_service(client: httpx.Client) -> None:
    foreign = post(client, PING, Origin="https://evil.example")
    assert (foreign.status_code, foreign.json()["code"]) == (403, "origin_refused")
    rebound = post(client, PING, Host="evil.example")
    assert (rebound.status_code, rebound.json()["code"]) == (400, "host_refused")
    assert post(client, PING, Origin=str(client.base_url).rstrip("/")).status_code == 200


def test_the_work_of_a_client_that_left_is_dropped(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def gone() -> float:
        found = re.search(r'whence_questions_total\{outcome="gone"\} ([0-9.]+)', client.get("/metrics").text)
        return float(found[1]) if found else 0.0

    before = gone()
    arguments = {"name": "search", "arguments": {"query": RED}}
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": arguments}).encode()
    head = "\r\n".join(
        (
            "POST /mcp HTTP/1.1",
            "Host: localhost",
            f"Accept: {ACCEPT['Accept']}",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
            "\r\n",
        )
    ).encode()
    many = {"questions": [f"What does the red light mean, {number}?" for number in range(256)]}
    with socket.create_connection((client.base_url.host, client.base_url.port or 0)) as busy:
        batch = json.dumps(many).encode()
        busy.sendall(
            b"POST /v1/ask/batch HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            + f"Content-Length: {len(batch)}\r\n\r\n".encode()
            + batch
        )
        with socket.create_connection((client.base_url.host, client.base_url.port or 0)) as leaving:
            leaving.sendall(head + body)
        with socket.create_connection((client.base_url.host, client.base_url.port or 0)) as halfway:
            halfway.sendall(head + body[:10])
        until(lambda: gone() >= before + 1)
    until(lambda: gone() >= before + 257)
    assert "Traceback" not in caplog.text


def test_a_line_that_is_too_slow_is_an_error_of_the_tool(handbook_home: Path, cache_folder: Path) -> None:
    with serving(handbook_home, cache_folder, deadline=1e-6) as client:
        assert "Ask again in a moment." in refused(client, "search", {"query": RED})


@dataclass(frozen=True)
class Guarded:
    """A service that asks for keys, behind a proxy that serves it under a path; with a key, and one for a page."""

    client: httpx.Client
    key: str
    page_key: str


@pytest.fixture(scope="module")
def guarded(handbook_home: Path, cache_folder: Path) -> Iterator[Guarded]:
    """The handbook, guarded."""
    with State(handbook_home) as state, closing(KeyStore(state)) as keys:
        _, key = keys.create("a program", Scope.ASK)
        _, page_key = keys.create("a page", Scope.ASK, origins=[DOCS])
    with serving(handbook_home, cache_folder, require_key=True, root_path="/whence") as client:
        yield Guarded(client, key, page_key)


def test_a_key_is_asked_for_as_everywhere(guarded: Guarded) -> None:
    keyless = post(guarded.client, PING)
    assert (keyless.status_code, keyless.json()["code"]) == (401, "key_required")
    assert keyless.headers["www-authenticate"] == "Bearer"
    wrong = post(guarded.client, PING, Authorization="Bearer whence_0_0")
    assert (wrong.status_code, wrong.json()["code"]) == (401, "key_unknown")
    assert wrong.headers["www-authenticate"] == 'Bearer error="invalid_token"'
    with pytest.RaisesGroup(MCPError, flatten_subgroups=True):
        talk(guarded.client, lambda connected: connected.list_tools())
    assert asyncio.run(searched_with(address(guarded.client), guarded.key)) == NO_POWER


def test_a_key_for_a_page_works_in_that_page_alone(guarded: Guarded) -> None:
    key = f"Bearer {guarded.page_key}"
    elsewhere = post(guarded.client, PING, Authorization=key, Origin="https://evil.example")
    assert (elsewhere.status_code, elsewhere.json()["code"]) == (403, "origin_refused")
    at_home = post(guarded.client, PING, Authorization=key, Origin=DOCS)
    assert at_home.status_code == 200
    assert at_home.headers["access-control-allow-origin"] == DOCS
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "mcp-protocol-version"}
    assert guarded.client.options("/mcp", headers={"Origin": DOCS, **asked}).status_code == 200


async def searched_with(url: str, key: str) -> str:
    """Search with a key, as a program does that is configured with headers."""
    async with (
        httpx2.AsyncClient(headers={"Authorization": f"Bearer {key}"}) as http,
        Client(streamable_http_client(url, http_client=http)) as connected,
    ):
        result = await connected.call_tool("search", {"query": RED})
        return str((result.structured_content or {})["answer"]["text"])


def test_behind_a_proxy_links_begin_with_what_it_is_called_by(guarded: Guarded) -> None:
    fetch = {**PING, "method": "tools/call", "params": {"name": "fetch", "arguments": {"id": "router.md"}}}
    headers = {**ACCEPT, "Authorization": f"Bearer {guarded.key}"}
    for path in ("/mcp", "/whence/mcp"):
        result = guarded.client.post(path, json=fetch, headers=headers).json()["result"]
        assert result["structuredContent"]["url"] == f"{guarded.client.base_url}/whence/documents/router.md"


def test_a_new_generation_is_searched_without_connecting_again(
    home: Home, encoder: Encoder, cache_folder: Path
) -> None:
    sync(home, [MemorySource({"lamp.md": "The lamp costs five euros."})], encoder)
    with serving(home.path, cache_folder) as client:

        async def before_and_after(connected: Client) -> list[str]:
            texts = []
            for price in ("five", "nine"):
                await asyncio.to_thread(
                    sync, home, [MemorySource({"lamp.md": f"The lamp costs {price} euros."})], encoder
                )
                await asyncio.to_thread(
                    until, lambda: client.get("/v1/documents").json()["generation"] == home.published_name()
                )
                result = await connected.call_tool("search", {"query": "How much does the lamp cost?"})
                texts.append(result.structured_content["results"][0]["text"])
            return texts

        assert talk(client, before_and_after) == ["The lamp costs five euros.", "The lamp costs nine euros."]


# Over standard input and output

LIGHTS = "# Router\n\nThe red light means that there is no power. The blue light means that it is connected.\n"
MANUAL = "---\nurl: https://example.org/manual\n---\n# Manual\n\nThe green light means that an update is loaded.\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two documents, one of which has an address of its own."""
    folder = tmp_path / "documents"
    folder.mkdir()
    (folder / "router lights.md").write_text(LIGHTS, encoding="utf-8")
    (folder / "manual.md").write_text(MANUAL, encoding="utf-8")
    return folder


def environment(home: Path, cache: Path, **settings: str) -> dict[str, str]:
    """Return the environment of a command: nothing of ours but what is given."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WHENCE_")}
    return {**kept, "WHENCE_HOME": str(home), "WHENCE_CACHE": str(cache), **settings}


@asynccontextmanager
async def command(given: dict[str, str], log: Path, *, mode: str = "auto") -> AsyncIterator[Client]:
    """Start `whence mcp` as a program does, and connect to it."""
    parameters = StdioServerParameters(command=sys.executable, args=["-c", COMMAND, "mcp"], env=given, cwd=ROOT)
    with log.open("w", encoding="utf-8") as errlog:
        async with Client(stdio_client(parameters, errlog=errlog), mode=mode) as connected:
            yield connected


def test_a_program_starts_the_command_and_asks_it(
    folder: Path, home: Home, encoder: Encoder, cache_folder: Path, tmp_path: Path
) -> None:
    sync(home, [Source(folder)], encoder)

    async def asking() -> None:
        async with command(environment(home.path, cache_folder), tmp_path / "log") as connected:
            assert connected.protocol_version == NEWEST
            lights = await connected.call_tool("search", {"query": RED})
            found = lights.structured_content or {}
            assert found["answer"]["text"] == NO_POWER
            file = (folder / "router lights.md").as_uri()
            assert found["results"][0]["url"] == found["answer"]["citation"]["url"] == file
            manual = await connected.call_tool("fetch", {"id": "manual.md"})
            assert (manual.structured_content or {})["url"] == "https://example.org/manual"
            listed = (await connected.list_resources()).resources
            assert [each.uri for each in listed] == [
                "whence://documents/manual.md",
                "whence://documents/router%20lights.md",
            ]
            (content,) = (await connected.read_resource(listed[1].uri)).contents
            assert content.text == LIGHTS

            (folder / "router lights.md").unlink()
            lost = await connected.call_tool("fetch", {"id": "router lights.md"})
            assert (lost.structured_content or {})["url"] == listed[1].uri
            (folder / "new.md").write_text("A white light means that the router is starting.", encoding="utf-8")
            await asyncio.to_thread(sync, home, [Source(folder)], encoder)
            async with asyncio.timeout(10):
                while "new.md" not in [each.name for each in (await connected.list_resources()).resources]:
                    await asyncio.sleep(0.1)

    asyncio.run(asking())
    assert "Traceback" not in (tmp_path / "log").read_text(encoding="utf-8")


def test_nothing_but_the_protocol_goes_to_standard_output_and_its_end_ends_the_command(
    folder: Path, home: Home, encoder: Encoder, cache_folder: Path
) -> None:
    sync(home, [Source(folder)], encoder)
    given = environment(home.path, cache_folder, WHENCE_PUBLIC_URL="https://docs.example.com/w")
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, "mcp", "--top-k", "1"],
        cwd=ROOT,
        env=given,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None

    def exchanged(message: dict[str, Any]) -> dict[str, Any]:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
        process.stdin.flush()
        answer: dict[str, Any] = json.loads(process.stdout.readline())
        assert answer["id"] == message["id"]
        return answer

    try:
        params = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
        begun = exchanged({"id": 1, "method": "initialize", "params": params})
        assert begun["result"]["protocolVersion"] == "2025-06-18"
        process.stdin.write('{"jsonrpc": "2.0", "method": "notifications/initialized"}\nno message\n')
        called = {"name": "search", "arguments": {"query": RED}}
        found = exchanged({"id": 2, "method": "tools/call", "params": called})["result"]["structuredContent"]
        assert found["answer"]["text"] == NO_POWER
        assert [result["url"] for result in found["results"]] == [
            "https://docs.example.com/w/documents/router%20lights.md?start=10&end=96"
        ]
        rest, log = process.communicate(timeout=ENDING_S)
        assert (rest, process.returncode) == ("", 0)
        assert "Traceback" not in log
        assert [json.loads(line)["event"] for line in log.splitlines()][-1].endswith("is served")
    finally:
        process.kill()
        process.wait()


def test_a_client_that_leaves_in_the_middle_leaves_no_traceback(
    home: Home, encoder: Encoder, cache_folder: Path
) -> None:
    sync(home, [MemorySource({"lamp.md": "The lamp costs five euros."})], encoder)
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, "mcp"],
        cwd=ROOT,
        env=environment(home.path, cache_folder),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    try:
        process.stdout.close()
        process.stdin.write(b'{"jsonrpc": "2.0", "id": 1, "method": "ping"}\n' * 3)
        process.stdin.close()
        assert process.wait(timeout=ENDING_S) == 0
        assert "Traceback" not in process.stderr.read().decode()
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def test_a_home_without_an_index_gets_one_while_the_protocol_already_answers(
    home: Home, cache_folder: Path, tmp_path: Path
) -> None:
    model = str(write_tiny_model(tmp_path / "tiny"))
    load_encoder(model, cache_folder=cache_folder / "models")
    given = environment(home.path, cache_folder, WHENCE_MODEL=model)

    async def starting() -> None:
        async with command(given, tmp_path / "log", mode="legacy") as connected:
            assert connected.protocol_version == HANDSHAKE
            assert home.published_name() is None
            async with asyncio.timeout(BUILDING_S):
                while (result := await connected.call_tool("search", {"query": "What is Pingora?"})).is_error:
                    assert "is being opened or built" in result.content[0].text  # type: ignore[union-attr]
            assert len((result.structured_content or {})["results"]) == 5
            assert len((await connected.list_resources()).resources) > 3

    asyncio.run(starting())
    assert "building one from the bundled documents" in (tmp_path / "log").read_text(encoding="utf-8")
