"""Programs that bring a model of their own, with the requests that they send: Dify and Open WebUI."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import httpx
import pytest
from handbook import Handbook
from live import serving

from index.build import sync
from index.embeddings import Encoder
from index.generations import Home
from index.state import State
from service.auth import KeyStore, Scope

RED = "What does the red light mean?"
NOWHERE = "How do I file my taxes in Portugal?"
TIPS = "guide/router reset & tips (ä).md"


@pytest.fixture(scope="module")
def handbook_home(encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with the handbook."""
    home = Home(tmp_path_factory.mktemp("served"))
    sync(home, [Handbook()], encoder)
    return home.path


@pytest.fixture(scope="module")
def client(handbook_home: Path, cache_folder: Path) -> Iterator[httpx.Client]:
    """A client of the service over the handbook."""
    with serving(handbook_home, cache_folder) as client:
        yield client


@pytest.fixture(scope="module")
def guarded(handbook_home: Path, cache_folder: Path) -> Iterator[httpx.Client]:
    """A client of a service that asks for keys."""
    with serving(handbook_home, cache_folder, require_key=True) as client:
        yield client


def from_dify(client: httpx.Client, query: str = RED, *, key: str | None = None, **given: Any) -> httpx.Response:
    """Ask as Dify does."""
    setting = {"top_k": given.pop("top_k", 4), "score_threshold": given.pop("score_threshold", 0.0)}
    body = {
        "retrieval_setting": setting,
        "query": query,
        "knowledge_id": "whence",
        "metadata_condition": None,
        **given,
    }
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    return client.post("/retrieval", content=json.dumps(body), headers=headers)


def records(client: httpx.Client, query: str = RED, **given: Any) -> list[dict[str, Any]]:
    """Ask as Dify does, and return what was found."""
    response = from_dify(client, query, **given)
    assert response.status_code == 200, response.text
    found: list[dict[str, Any]] = response.json()["records"]
    return found


def where(*conditions: tuple[str, str, Any], operator: str = "and") -> dict[str, Any]:
    """Return conditions on metadata as Dify sends them."""
    named = [{"name": name, "comparison_operator": kind, "value": value} for name, kind, value in conditions]
    return {"logical_operator": operator, "conditions": named}


def ids(found: list[dict[str, Any]]) -> set[str]:
    return {record["metadata"]["document_id"] for record in found}


def test_dify_gets_the_passages_that_asking_gives(client: httpx.Client) -> None:
    found = records(client, top_k=3)
    asked = client.post("/v1/ask", json={"question": RED, "top_k": 3}).json()
    assert [record["content"] for record in found] == [passage["text"] for passage in asked["passages"]]
    assert [record["score"] for record in found] == [passage["score"] for passage in asked["passages"]]
    citation = asked["passages"][0]["citation"]
    assert set(found[0]) == {"content", "score", "title", "metadata"}
    assert found[0]["title"] == "Router"
    assert found[0]["metadata"] == {
        "product": "router",
        "year": 2024,
        "beta": True,
        "document_id": "router.md",
        "url": str(client.base_url).rstrip("/") + citation["url"],
        "headings": ["Router", "Lights"],
        "page": None,
        "start": citation["start"],
        "end": citation["end"],
        "answered": True,
        "confidence": asked["confidence"],
    }


def test_dify_gets_nothing_below_the_score_that_it_wants(client: httpx.Client) -> None:
    scores = [record["score"] for record in records(client)]
    assert len(scores) == 4
    threshold = (scores[0] + scores[1]) / 2
    assert [record["score"] for record in records(client, score_threshold=threshold)] == scores[:1]
    assert records(client, NOWHERE, score_threshold=1.0) == []


def test_dify_can_leave_out_what_it_has_switched_off(client: httpx.Client) -> None:
    body = {"knowledge_id": "*", "query": RED, "retrieval_setting": {"top_k": None}, "user": "somebody"}
    assert len(client.post("/retrieval", json=body).json()["records"]) == 5


def test_the_knowledge_of_dify_is_a_part_of_the_documents(client: httpx.Client) -> None:
    assert ids(records(client, "How is the router reset?", knowledge_id="guide/")) == {TIPS}
    assert ids(records(client, "How is the router reset?", knowledge_id="router.md")) == {"router.md"}
    for unknown in ("manuals/", ""):
        response = from_dify(client, knowledge_id=unknown)
        assert (response.status_code, response.json()["error_code"]) == (404, 2001)
        assert "For all documents the External Knowledge ID is whence." in response.json()["error_msg"]


@pytest.mark.parametrize(
    ("conditions", "found"),
    [
        ([("product", "is", "kettle")], {"kettle.md"}),
        ([("tags", "is", "safety")], {"kettle.md"}),
        ([("year", "=", 2023)], {"kettle.md"}),
        ([("year", "=", "2023")], {"kettle.md"}),
        ([("product", "in", ["kettle", "toaster"])], {"kettle.md"}),
        ([("product", "start with", "ket")], {"kettle.md"}),
        ([("year", ">", "2024")], {TIPS}),
        ([("year", "≥", 2023), ("year", "<", 2024)], {"kettle.md"}),
        ([("year", "after", 2023), ("year", "before", 2025)], {"router.md"}),
        ([("year", "≤", 2024), ("product", "is", "router")], {"router.md"}),
        ([(["product"], "is", "kettle")], {"kettle.md"}),
    ],
)
def test_conditions_of_dify_become_filters(client: httpx.Client, conditions: Any, found: set[str]) -> None:
    assert ids(records(client, "What is it?", top_k=20, metadata_condition=where(*conditions))) == found


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        (where(("product", "contains", "ket")), "'contains' on 'product' with 'ket' has no counterpart here"),
        (where(("product", "is not", "kettle")), "There are is, =, in, start with, >"),
        (where(("product", "empty", None)), "each with a value"),
        (where(("product", "is", None)), "each with a value"),
        (where(("year", ">", "2023"), ("year", ">", "2024")), "two conditions on 'year'"),
        (where(("product", "is", "a"), ("product", "is", "b")), "two conditions on 'product'"),
        (where(("product", "is", "a"), ("year", "is", "b"), operator="or"), "joined by 'or'"),
        (where((["product", "tags"], "is", "a")), "A condition is on 2 fields at a time"),  # type: ignore[arg-type]
    ],
)
def test_what_dify_cannot_have_is_told(client: httpx.Client, condition: Any, said: str) -> None:
    response = from_dify(client, metadata_condition=condition)
    assert (response.status_code, response.json()["error_code"]) == (422, 422)
    assert said in response.json()["error_msg"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"query": ""}, "The question is empty."),
        ({"top_k": 0}, "top_k is 0. Ask for 1 to 100 passages."),
        ({"query": None}, "/query: Input should be a valid string"),
        ({"knowledge_id": "\ud800"}, "/knowledge_id: Value error, has half a character"),
    ],
)
def test_errors_have_the_form_that_dify_knows(client: httpx.Client, given: dict[str, Any], said: str) -> None:
    response = from_dify(client, **given)
    assert response.headers["content-type"] == "application/json"
    assert (response.status_code, set(response.json())) == (422, {"error_code", "error_msg"})
    assert said in response.json()["error_msg"]


def test_dify_can_add_the_service(guarded: httpx.Client, handbook_home: Path) -> None:
    """It posts nothing, and takes 403 for a wrong key, 404 and 502 for a wrong address."""
    with State(handbook_home) as state, closing(KeyStore(state)) as keys:
        key = keys.create("dify", Scope.ASK)[1]
    added = guarded.post("/retrieval", headers={"Authorization": f"Bearer {key}"})
    assert added.status_code == 415
    wrong = guarded.post("/retrieval", headers={"Authorization": "Bearer wrong"})
    assert (wrong.status_code, wrong.json()["error_code"]) == (403, 1002)
    none = guarded.post("/retrieval", headers={"Authorization": key})
    assert (none.status_code, none.json()["error_code"]) == (403, 1001)
    assert records(guarded, key=key)[0]["title"] == "Router"


def test_only_what_belongs_to_dify_has_its_errors(client: httpx.Client) -> None:
    other = client.post("/retrieval/more")
    assert (other.status_code, other.json()["code"]) == (404, "not_found")
    wrong_method = client.get("/retrieval")
    assert (wrong_method.status_code, wrong_method.json()["error_code"]) == (405, 405)
    large = client.post("/retrieval", content=b" " * 1_000_001)
    assert (large.status_code, large.json()["error_code"]) == (413, 413)


def test_open_webui_gets_the_passages_when_the_documents_answer(client: httpx.Client) -> None:
    headers = {
        "User-Agent": "Open WebUI (https://github.com/open-webui/open-webui) RAG Bot",
        "Authorization": "Bearer ",  # what it sends when it was given no key
        "Content-Type": "application/json",
    }
    body = json.dumps({"query": RED, "count": 2}).encode()
    with urlopen(Request(f"{client.base_url}/v1/web-search", body, headers)) as response:
        first, second = json.load(response)
    (passage,) = client.post("/v1/ask", json={"question": RED, "top_k": 1}).json()["passages"]
    assert first == {
        "link": f"{client.base_url}{passage['citation']['url']}",
        "title": "Router",
        "snippet": passage["text"],
    }
    assert set(second) == {"link", "title", "snippet"}


def test_open_webui_gets_nothing_when_the_documents_do_not_answer(client: httpx.Client) -> None:
    assert client.post("/v1/web-search", json={"query": NOWHERE, "count": 3}).json() == []


def test_what_open_webui_cannot_have_is_a_problem(client: httpx.Client, guarded: httpx.Client) -> None:
    assert client.post("/v1/web-search", json={"query": RED, "count": 101}).json()["code"] == "invalid_question"
    assert client.post("/v1/web-search", json={"count": 3}).json()["code"] == "invalid_request"
    assert guarded.post("/v1/web-search", json={"query": RED, "count": 3}).json()["code"] == "key_required"
