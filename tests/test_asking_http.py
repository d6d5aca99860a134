"""Asking over HTTP: the same bytes as on the command line, and a clear problem for everything that is wrong."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from handbook import RESET, Handbook
from live import answers_held_back, serving
from waiting import until

from index.build import sync
from index.embeddings import Encoder
from index.generations import Home

ROOT = Path(__file__).parents[1]
RED = "What does the red light mean?"
PROBLEM = "application/problem+json"


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


def ask(client: httpx.Client, question: str, **given: Any) -> dict[str, Any]:
    """Ask, and return the answer."""
    response = client.post("/v1/ask", json={"question": question, **given})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def without_time(text: str) -> str:
    """Return an answer without how long it took."""
    return re.sub(r'"took_ms":[0-9.]+', '"took_ms":0', text)


def test_http_and_command_line_give_the_same_bytes(
    client: httpx.Client, handbook_home: Path, cache_folder: Path
) -> None:
    printed = subprocess.run(
        [sys.executable, "-c", "from service.cli import main; main()", "ask", RED, "--json", "--top-k", "3"],
        cwd=ROOT,
        env={**os.environ, "WHENCE_HOME": str(handbook_home), "WHENCE_CACHE": str(cache_folder)},
        capture_output=True,
        timeout=60,
        check=True,
    ).stdout.decode()
    posted = client.post("/v1/ask", json={"question": RED, "top_k": 3})
    got = client.get("/v1/ask", params={"q": RED, "top_k": 3})
    assert posted.headers["content-type"] == got.headers["content-type"] == "application/json"
    assert without_time(posted.text) == without_time(got.text) == without_time(printed.rstrip("\n"))


def test_an_answer_cites_its_words(client: httpx.Client) -> None:
    answer = ask(client, RED)
    assert answer["answered"] is True
    assert answer["answer"]["text"] == "The red light means that there is no power."
    citation = answer["answer"]["citation"]
    text = client.get(f"/v1/documents/{citation['document']['id']}/text").text
    assert text[citation["start"] : citation["end"]] == citation["quote"] == answer["answer"]["text"]


def test_what_is_not_in_the_documents_is_not_answered(client: httpx.Client) -> None:
    answer = ask(client, "Who won the chess championship of 1972?")
    assert (answer["answered"], answer["answer"]) == (False, None)
    assert answer["passages"]


@pytest.mark.parametrize(
    ("body", "query"),
    [
        ({"filters": {"product": "kettle"}}, {"filter": "product=kettle"}),
        ({"filters": {"year": {"lt": 2024}}}, {"filter": '{"year": {"lt": 2024}}'}),
        ({"filters": {"doc_id": {"prefix": "kettle"}}}, {"filter": '{"doc_id": {"prefix": "kettle"}}'}),
    ],
)
def test_filters_hold_in_a_body_and_in_an_address(
    client: httpx.Client, body: dict[str, Any], query: dict[str, str]
) -> None:
    posted = client.post("/v1/ask", json={"question": RED, **body})
    got = client.get("/v1/ask", params={"q": RED, **query})
    assert without_time(posted.text) == without_time(got.text)
    documents = {passage["citation"]["document"]["id"] for passage in posted.json()["passages"]}
    assert documents == {"kettle.md"}


def test_a_threshold_of_ones_own_decides(client: httpx.Client) -> None:
    assert ask(client, RED, min_confidence=1.0)["answered"] is False
    assert ask(client, "Who won the chess championship of 1972?", min_confidence=0)["answered"] is True


def test_a_batch_gives_each_question_the_answer_it_gets_alone(client: httpx.Client) -> None:
    questions: list[Any] = [
        RED,
        {"question": "How often should I descale the kettle?", "top_k": 1},
        {"question": RED, "filters": {"product": "kettle"}},
    ]
    together = client.post("/v1/ask/batch", json={"questions": questions})
    alone = [
        client.post("/v1/ask", json=question if isinstance(question, dict) else {"question": question}).text
        for question in questions
    ]
    assert without_time(together.text) == without_time('{"answers":[' + ",".join(alone) + "]}")


def test_the_largest_batch_is_answered_in_order(client: httpx.Client) -> None:
    questions = [f"What is the use of salt number {number}?" for number in range(256)]
    answers = client.post("/v1/ask/batch", json={"questions": questions}).json()["answers"]
    assert [answer["question"] for answer in answers] == questions


@pytest.mark.parametrize(
    ("body", "status", "code", "said"),
    [
        (b'{"question": ', 400, "malformed_json", "The body is not JSON"),
        (b"\x80", 400, "malformed_body", "cannot be read"),
        (b'{"question": "' + b"\xff" + b'"}', 400, "malformed_body", "cannot be read"),
        (b"[" * 100_000, 400, "malformed_body", "cannot be read"),
        (b"", 422, "invalid_request", "/: Field required"),
        (b"[]", 422, "invalid_request", "/: "),
        (b"{}", 422, "invalid_request", "/question: Field required"),
        (b'{"question": 5}', 422, "invalid_request", "/question: Input should be a valid string"),
        (b'{"question": "What?", "top_k": "5"}', 422, "invalid_request", "/top_k: Input should be a valid integer"),
        (b'{"question": "What?", "top_k": true}', 422, "invalid_request", "/top_k"),
        (b'{"question": "What?", "topk": 5}', 422, "invalid_request", "/topk: Extra inputs are not permitted"),
        (b'{"question": "What?", "top_k": 0}', 422, "invalid_question", "top_k is 0"),
        (b'{"question": "What?", "top_k": 101}', 422, "invalid_question", "top_k is 101"),
        (b'{"question": " "}', 422, "invalid_question", "The question is empty"),
        (b'{"question": "?!"}', 422, "invalid_question", "has no word in it"),
        (b'{"question": "' + b"a" * 4_001 + b'"}', 422, "invalid_question", "4,001 characters"),
        (b'{"question": "What?", "min_confidence": NaN}', 422, "invalid_question", "min_confidence is nan"),
        (b'{"question": "What?", "filters": {"a": {"near": 5}}}', 422, "invalid_question", "The filter on 'a'"),
        (b'{"question": "What?", "filters": {"\\ud800": {}}}', 422, "invalid_question", "The filter on"),
        (b'{"question": "\\ud800"}', 422, "invalid_question", "half a character"),
    ],
)
def test_a_bad_question_gets_a_problem_that_says_what_was_wrong(
    client: httpx.Client, body: bytes, status: int, code: str, said: str
) -> None:
    response = client.post("/v1/ask", content=body, headers={"content-type": "application/json"})
    problem = response.json()
    assert (response.status_code, problem["code"], response.headers["content-type"]) == (status, code, PROBLEM)
    assert said in problem["detail"]
    assert problem["status"] == status
    assert problem["type"] == f"urn:whence:problem:{code}"
    assert problem["request_id"] == response.headers["x-request-id"] != ""


def test_the_place_of_what_was_wrong_is_a_pointer(client: httpx.Client) -> None:
    problem = client.post("/v1/ask", json={"question": 5, "a/b~c": 1}).json()
    assert [error["pointer"] for error in problem["errors"]] == ["/question", "/a~1b~0c"]
    problem = client.post("/v1/ask/batch", json={"questions": [RED, " "]}).json()
    assert (problem["code"], problem["errors"][0]["pointer"]) == ("invalid_question", "/questions/1")
    problem = client.get("/v1/ask", params={"q": RED, "top": 5}).json()
    assert (problem["code"], problem["errors"][0]["pointer"]) == ("invalid_request", "query/top")


ODD_BODIES = [
    b'{"question": "What does the red light mean?"}',
    b'{"question": "Wof\\u00fcr ist \\u201eEntkalken\\u201c gut?\\n\\u2028", "top_k": 3, "encoder": "instant"}',
    b'{"question": "the kettle", "question": "the toaster", "min_confidence": 1}',
    b'{"question": "the kettle", "min_confidence": 0.25, "filters": {"doc_id": {"prefix": "h"}}}',
    json.dumps({"question": "the kettle"}).encode("utf-16"),
    b'\xef\xbb\xbf{"question": "the kettle"}',
    b'{"question": "the kettle", "min_confidence": "1"}',
    b'{"question": "the kettle", "top_k": 2.0}',
    b'{"question": "the kettle", "filters": []}',
    b'{"question": null}',
    b'{"question": "the \xff"}',
    b'{"question": "the kettle"',
    b"[" * 3_000,
    b"null",
]


@pytest.mark.parametrize("body", ODD_BODIES)
def test_the_short_way_of_a_question_gives_what_its_route_gives(client: httpx.Client, body: bytes) -> None:
    # Only the plain content type takes the short way.
    short, long = (
        client.post("/v1/ask", content=body, headers={"content-type": f"application/json{parameter}"})
        for parameter in ("", "; charset=utf-8")
    )
    assert (short.status_code, short.headers.keys()) == (long.status_code, long.headers.keys())
    ids = [response.headers["x-request-id"] for response in (short, long)]
    said = [without_time(response.text).replace(own, "") for response, own in zip((short, long), ids, strict=True)]
    assert said[0] == said[1]


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_only_json_is_taken_for_json(client: httpx.Client, content_type: str) -> None:
    response = client.post("/v1/ask", content=b'{"question": "What?"}', headers={"content-type": content_type})
    assert (response.status_code, response.json()["code"]) == (415, "content_type")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/asks", 404, "not_found"),
        ("GET", "/v2/ask", 404, "not_found"),
        ("DELETE", "/v1/ask", 405, "method_not_allowed"),
        ("GET", "/v1/ask", 422, "invalid_request"),
        ("GET", "/v1/ask%0A?q=What", 400, "malformed_request"),
        ("PUT", "/v1/documents/a%0A", 400, "malformed_request"),
        ("GET", "/v1/documents/a%0Ab", 400, "malformed_request"),
        ("GET", "/v1/ask?q=", 422, "invalid_question"),
        ("GET", "/v1/ask?q=What&filter=nothing", 422, "invalid_question"),
        ("GET", "/v1/ask?q=What&top_k=many", 422, "invalid_request"),
    ],
)
def test_every_wrong_address_gets_a_problem(
    client: httpx.Client, method: str, path: str, status: int, code: str
) -> None:
    response = client.request(method, path)
    assert (response.status_code, response.json()["code"]) == (status, code)
    assert response.headers["content-type"] == PROBLEM
    assert ("allow" in response.headers) == (status == 405)


@pytest.mark.parametrize("count", [0, 257])
def test_a_batch_has_bounds(client: httpx.Client, count: int) -> None:
    response = client.post("/v1/ask/batch", json={"questions": [RED] * count})
    assert (response.status_code, response.json()["errors"][0]["pointer"]) == (422, "/questions")


def test_citations_are_found_moved_changed_or_gone(client: httpx.Client) -> None:
    answer = ask(client, "How do I reset the router?")
    citation = answer["passages"][0]["citation"]
    moved = {**citation, "start": citation["start"] + 5, "end": citation["end"] + 5}
    changed = {**citation, "quote": "Hold the button for a year."}
    gone = {**citation, "document": {"id": "toaster-manual.md"}}
    response = client.post("/v1/verify", json={"citations": [answer, moved, changed, gone]})
    results = response.json()["results"]
    assert response.json()["generation"] == answer["generation"]
    by_status: dict[str, list[str]] = {}
    for result in results:
        by_status.setdefault(result["status"], []).append(result["document"])
    assert by_status["moved"] == [citation["document"]["id"]]
    assert by_status["changed"] == [citation["document"]["id"]]
    assert by_status["gone"] == ["toaster-manual.md"]
    assert (results[0]["status"], results[0]["same_source"]) == ("found", True)
    assert results[0]["quote"] in RESET.upper()


@pytest.mark.parametrize(
    ("citations", "code"),
    [
        ([], "invalid_request"),
        ([{}], "invalid_citation"),
        ([{"document": {}, "quote": "a", "start": 0, "end": 1}], "invalid_citation"),
        ([{"document": {"id": "a"}, "quote": 1, "start": 0, "end": 1}], "invalid_citation"),
        ([{"document": {"id": str(n)}, "quote": "a", "start": 0, "end": 1} for n in range(100)], None),
        ([[{"document": {"id": "a"}, "quote": "a", "start": 0, "end": 1}]], "invalid_request"),
        (
            [{"a": [{"document": {"id": str(n)}, "quote": "a", "start": 0, "end": 1} for n in range(101)]}],
            "invalid_citation",
        ),
    ],
)
def test_only_whole_citations_are_checked(client: httpx.Client, citations: list[Any], code: str | None) -> None:
    response = client.post("/v1/verify", json={"citations": citations})
    assert (response.status_code, response.json().get("code")) == ((200, None) if code is None else (422, code))


def test_a_full_line_answers_with_when_to_come_back(handbook_home: Path, cache_folder: Path) -> None:
    with serving(handbook_home, cache_folder, queue=1) as client:
        response = client.post("/v1/ask/batch", json={"questions": [RED, RED]})
        assert (response.status_code, response.json()["code"]) == (503, "overloaded")
        assert response.headers["retry-after"] == "1"
        assert ask(client, RED)["answered"] is True


def test_a_question_past_its_deadline_is_given_up(handbook_home: Path, cache_folder: Path) -> None:
    with serving(handbook_home, cache_folder, deadline=0.05) as client:
        with answers_held_back():
            response = client.post("/v1/ask/batch", json={"questions": [RED] * 256})
        assert (response.status_code, response.json()["code"]) == (503, "deadline")
        until(lambda: client.post("/v1/ask", json={"question": RED}).status_code == 200)


def test_the_work_of_a_client_that_left_is_dropped(client: httpx.Client) -> None:
    def gone() -> float:
        found = re.search(r'whence_questions_total\{outcome="gone"\} ([0-9.]+)', client.get("/metrics").text)
        return float(found[1]) if found else 0.0

    before = gone()
    body = json.dumps({"questions": [RED] * 256}).encode()
    request = (
        b"POST /v1/ask/batch HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n" % len(body)
    )
    with answers_held_back():
        with socket.create_connection((client.base_url.host, client.base_url.port or 80), timeout=10) as connection:
            connection.sendall(request + body)
        until(lambda: gone() == before + 256)
    assert ask(client, RED)["answered"] is True


def test_settings_change_what_is_asked_for_by_default(handbook_home: Path, cache_folder: Path) -> None:
    with serving(handbook_home, cache_folder, top_k=2, min_confidence=1.0) as client:
        answer = ask(client, RED)
        assert (len(answer["passages"]), answer["answered"]) == (2, False)
        assert ask(client, RED, min_confidence=0.1)["answered"] is True
