"""OpenAI's clients against the service: the official ones for Python and Node, and what Open WebUI does with them."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from browser import ROOT, need
from fastapi import FastAPI, Request
from fastapi.sse import EventSourceResponse
from handbook import Handbook
from live import answers_held_back, running, serving
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from starlette.responses import Response
from waiting import until

from index.build import sync
from index.embeddings import Encoder
from index.generations import Home
from index.state import State
from service.auth import KeyStore, Scope
from service.logs import RequestLog
from service.metrics import Metrics
from service.open_webui import question_in, task_reply
from service.problems import Problem, handle_problems
from service.routes.openai import error_event
from service.streaming import streamed

RED = "What does the red light mean?"
NO_POWER = "The red light means that there is no power."
BLUE = "And the blue one?"
CHESS = "Who won the chess championship of 1972?"
NOT_FOUND = "I found no answer to that in these documents."
NODE_CLIENT = ROOT / "tests" / "clients" / "openai.mjs"


@pytest.fixture(scope="module")
def handbook_home(encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with the handbook."""
    home = Home(tmp_path_factory.mktemp("openai"))
    sync(home, [Handbook()], encoder)
    return home.path


@pytest.fixture(scope="module")
def http(handbook_home: Path, cache_folder: Path) -> Iterator[httpx.Client]:
    """A plain client of the service over the handbook."""
    with serving(handbook_home, cache_folder, chat_handoff="help@example.org") as client:
        yield client


@pytest.fixture(scope="module")
def client(http: httpx.Client) -> Iterator[OpenAI]:
    """OpenAI's client of the same service."""
    with openai_client(http) as client:
        yield client


def openai_client(http: httpx.Client, key: str = "sk-anything") -> OpenAI:
    """Return OpenAI's client of a service, as its documentation has it made."""
    return OpenAI(base_url=f"{http.base_url}/v1", api_key=key, max_retries=0)


def said(*turns: Any) -> list[Any]:
    """Return messages, by turns of the user and of the assistant."""
    roles = ("user", "assistant")
    return [{"role": roles[place % 2], "content": turn} for place, turn in enumerate(turns)]


def complete(client: OpenAI, *turns: Any, **given: Any) -> Any:
    """Have the last turn replied to."""
    return client.chat.completions.create(model="whence", messages=said(*turns), **given)


def stream(client: OpenAI, *turns: Any, **given: Any) -> list[ChatCompletionChunk]:
    """Have the last turn replied to, chunk by chunk."""
    return list(complete(client, *turns, stream=True, **given))


def content(reply: ChatCompletion) -> str:
    """Return the text of a reply."""
    text = reply.choices[0].message.content
    assert text is not None
    return text


def extras(reply: ChatCompletion) -> dict[str, Any]:
    """Return what our replies have beyond OpenAI's."""
    return reply.choices[0].message.model_extra or {}


def joined(chunks: list[ChatCompletionChunk]) -> str:
    """Return the text of all chunks."""
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)


def asked(http: httpx.Client) -> float:
    """Return how many questions were answered so far."""
    counts = re.findall(r"whence_questions_total\{[^}]*\} ([0-9.]+)", http.get("/metrics").text)
    return sum(float(count) for count in counts)


def raw(http: httpx.Client, *turns: Any, **given: Any) -> httpx.Response:
    """Have the last turn replied to, without a client's own ideas."""
    return http.post("/v1/chat/completions", json={"model": "whence", "messages": said(*turns), **given})


def test_there_is_one_model_as_old_as_the_generation(client: OpenAI, http: httpx.Client) -> None:
    (model,) = client.models.list()
    generations = http.get("/v1/generations").json()["generations"]
    created = datetime.fromisoformat(generations[0]["created"])
    assert (model.id, model.object, model.owned_by) == ("whence", "model", "whence")
    assert model.created == int(created.timestamp())
    assert client.models.retrieve("whence") == model


def test_a_reply_has_the_exact_words_and_all_that_the_client_knows(client: OpenAI, http: httpx.Client) -> None:
    started = int(time.time())
    reply = complete(client, RED)
    answer = http.post("/v1/ask", json={"question": RED}).json()
    assert reply.id.startswith("chatcmpl-")
    assert (reply.object, reply.model, reply.system_fingerprint) == (
        "chat.completion",
        "whence",
        answer["generation"],
    )
    assert started <= reply.created <= int(time.time())
    (choice,) = reply.choices
    assert (choice.index, choice.finish_reason, choice.logprobs) == (0, "stop", None)
    assert (choice.message.role, choice.message.refusal) == ("assistant", None)
    assert content(reply).startswith(f"{NO_POWER} [(1)](")
    assert extras(reply)["whence"] == {
        "kind": "answer",
        "confidence": answer["confidence"],
        "searched_as": RED,
        "leans_on": None,
        "generation": answer["generation"],
    }


def test_annotations_are_the_links_of_the_text_in_code_points(client: OpenAI) -> None:
    reply = complete(client, RED)
    annotations = reply.choices[0].message.annotations
    assert annotations is not None and len(annotations) == 5
    places = [annotation.url_citation for annotation in annotations]
    assert "\N{CRAB}" in content(reply)[: places[-1].start_index]
    for place in places:
        linked = content(reply)[place.start_index : place.end_index]
        assert linked.startswith("[") and linked.endswith(f"]({place.url})")
    assert [place.title for place in places] == ["Router", "Router", "Router", "Tips", "Kettle"]


def test_sources_are_the_citations_in_full(client: OpenAI, http: httpx.Client) -> None:
    reply = complete(client, RED)
    annotations = reply.choices[0].message.annotations or []
    sources = extras(reply)["sources"]
    assert [source["number"] for source in sources] == [1, 2, 3, 4, 5]
    assert [source["citation"]["url"] for source in sources] == [each.url_citation.url for each in annotations]
    answer = http.post("/v1/ask", json={"question": RED}).json()
    assert [source["text"] for source in sources] == [passage["text"] for passage in answer["passages"]]
    first = {**sources[0]["citation"], "url": answer["answer"]["citation"]["url"]}
    assert first == answer["answer"]["citation"]
    for source in sources:
        citation = source["citation"]
        text = http.get(f"/v1/documents/{citation['document']['id']}/text").text
        assert text[citation["start"] : citation["end"]] == citation["quote"]
        assert citation["quote"] in source["text"]
        assert citation["url"].startswith(f"{http.base_url}/documents/")
        assert http.get(citation["url"]).status_code == 200


def test_a_stream_has_the_same_text_in_sentences_and_one_id(client: OpenAI) -> None:
    plain = complete(client, RED, NO_POWER, BLUE)
    first, *chunks, citing, last = stream(client, RED, NO_POWER, BLUE)
    assert {chunk.id for chunk in (*chunks, citing, last)} == {first.id}
    assert {chunk.object for chunk in (first, *chunks, citing, last)} == {"chat.completion.chunk"}
    assert (first.choices[0].delta.role, first.choices[0].delta.content) == ("assistant", "")
    assert chunks[0].choices[0].delta.content == f"{NO_POWER} "
    assert joined(chunks) == content(plain)
    assert [chunk.choices[0].finish_reason for chunk in (first, *chunks, citing)] == [None] * (len(chunks) + 2)
    assert (last.choices[0].finish_reason, last.choices[0].delta.content) == ("stop", None)
    message = plain.choices[0].message.model_dump(include={"annotations", "sources", "whence"})
    assert citing.choices[0].delta.model_extra == message
    assert last.usage is None


def test_the_clients_own_collector_makes_the_plain_reply_of_a_stream(client: OpenAI) -> None:
    with client.chat.completions.stream(model="whence", messages=said(RED)) as events:
        collected = events.get_final_completion().choices[0]
    plain = complete(client, RED).choices[0]
    assert collected.message.content == plain.message.content
    assert collected.message.annotations == plain.message.annotations
    assert (collected.message.model_extra or {})["sources"] == (plain.message.model_extra or {})["sources"]
    assert collected.finish_reason == "stop"


def test_a_stream_is_as_clients_that_read_line_by_line_expect(http: httpx.Client) -> None:
    response = raw(http, RED, stream=True)
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["x-accel-buffering"] == "no"
    assert response.content.isascii()
    lines = response.text.split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]
    assert all(line.startswith("data: {") for line in lines[:-2])
    assert not any("usage" in chunk or "event" in chunk for chunk in chunks)
    assert [chunk["choices"][0]["delta"] for chunk in (chunks[0], chunks[-1])] == [
        {"role": "assistant", "content": ""},
        {},
    ]


def test_usage_counts_the_question_as_searched_and_the_text(client: OpenAI, encoder: Encoder) -> None:
    reply = complete(client, RED, NO_POWER, BLUE)
    assert reply.usage is not None
    counts = [len(encoder.tokenizer.spans(text)) for text in (extras(reply)["whence"]["searched_as"], content(reply))]
    assert [reply.usage.prompt_tokens, reply.usage.completion_tokens] == counts
    assert reply.usage.total_tokens == sum(counts)
    *chunks, last = stream(client, RED, NO_POWER, BLUE, stream_options={"include_usage": True})
    assert (last.choices, last.usage) == ([], reply.usage)
    assert all(chunk.usage is None and "usage" in chunk.model_fields_set for chunk in chunks)


def test_the_asynchronous_client_gets_the_same(http: httpx.Client, client: OpenAI) -> None:
    async def texts() -> tuple[str | None, str]:
        async with AsyncOpenAI(base_url=f"{http.base_url}/v1", api_key="sk-anything") as client:
            ask = partial(client.chat.completions.create, model="whence", messages=said(RED))
            plain = await ask()
            chunks: AsyncIterator[ChatCompletionChunk] = await ask(stream=True)
            return plain.choices[0].message.content, joined([chunk async for chunk in chunks])

    expected = content(complete(client, RED))
    assert asyncio.run(texts()) == (expected, expected)


def test_a_follow_up_leans_on_an_earlier_question_and_says_so(client: OpenAI) -> None:
    first = complete(client, RED)
    instructed = [{"role": "system", "content": "Be brief."}, *said(RED, content(first), BLUE)]
    reply = client.chat.completions.create(model="whence", messages=instructed)
    assert "The blue light means that the router is connected." in content(reply)
    assert content(reply).endswith("\n\nSearched as: And the blue one? (red light)")
    whence = extras(reply)["whence"]
    assert (whence["searched_as"], whence["leans_on"]) == ("And the blue one? (red light)", 1)


def test_a_follow_up_can_be_searched_as_it_stands(client: OpenAI) -> None:
    messages = [*said(RED, NO_POWER), {"role": "user", "content": BLUE, "standalone": True}]
    reply = client.chat.completions.create(model="whence", messages=messages)
    assert (extras(reply)["whence"]["searched_as"], extras(reply)["whence"]["leans_on"]) == (BLUE, None)
    assert "Searched as" not in content(reply)


def test_what_is_not_found_is_said_with_the_nearest_headings(client: OpenAI) -> None:
    reply = complete(client, CHESS)
    assert content(reply).startswith(NOT_FOUND)
    assert "(mailto:help@example.org)" in content(reply)
    assert reply.choices[0].message.annotations == []
    assert extras(reply)["whence"]["kind"] == "not_found"
    assert [source["number"] for source in extras(reply)["sources"]] == [None] * 5
    after = complete(client, RED, NO_POWER, CHESS, content(reply), BLUE)
    assert (extras(after)["whence"]["searched_as"], extras(after)["whence"]["leans_on"]) == (
        "And the blue one? (red light)",
        0,
    )


def test_small_talk_is_not_searched(client: OpenAI) -> None:
    reply = complete(client, "Hello!")
    whence = extras(reply)["whence"]
    assert (whence["kind"], whence["searched_as"], whence["confidence"]) == ("greeting", None, None)
    assert extras(reply)["sources"] == []
    assert reply.usage is not None and reply.usage.prompt_tokens == 0
    assert joined(stream(client, "Hello!")) == content(reply)


def test_passages_can_be_counted_and_filtered(client: OpenAI) -> None:
    given = {"top_k": 2, "filters": {"doc_id": {"prefix": "guide/"}}}
    reply = complete(client, "How do I reset the router?", extra_body=given)
    sources = extras(reply)["sources"]
    assert len(sources) == 2
    assert {source["citation"]["document"]["title"] for source in sources} == {"Tips"}


def test_fields_that_say_nothing_here_are_ignored(client: OpenAI) -> None:
    tool = {"type": "function", "function": {"name": "search", "parameters": {}}}
    reply = complete(
        client,
        RED,
        temperature=0.2,
        seed=1,
        user="me",
        max_tokens=5,
        tools=[tool],
        n=1,
        response_format={"type": "json_object"},
        extra_body={"mirostat": 1, "chat_id": "x", "stream_options": None},
    )
    assert content(reply) == content(complete(client, RED))


def test_content_may_come_in_parts(client: OpenAI) -> None:
    halves = [{"type": "text", "text": "What does the red"}, {"type": "text", "text": "light mean?"}]
    assert content(complete(client, halves)).startswith(NO_POWER)
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
    earlier = [{"type": "text", "text": RED}, picture]
    assert extras(complete(client, earlier, NO_POWER, BLUE))["whence"]["leans_on"] == 0
    with pytest.raises(openai.BadRequestError, match="image_url") as refused:
        complete(client, [*halves, picture])
    assert (refused.value.param, refused.value.code) == ("messages[0].content[2]", "invalid_request")


def test_what_a_language_model_would_need_is_passed_over(client: OpenAI) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "search", "arguments": "{}"}}
    messages = [
        {"role": "developer", "content": [{"type": "text", "text": "Be brief."}]},
        *said(RED),
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "Nothing."},
        {"role": "function", "name": "search", "content": "Nothing."},
        {"role": "assistant", "content": NO_POWER},
        *said(BLUE),
        {"role": "system", "content": "Answer in German."},
    ]
    reply = client.chat.completions.create(model="whence", messages=messages)
    assert extras(reply)["whence"]["leans_on"] == 1


def test_of_a_long_conversation_the_newest_messages_are_read(client: OpenAI) -> None:
    long = said(
        *[CHESS, "z" * 30_000] * 10, *["y " * 9_000, "And then?"] * 10, *[CHESS, NOT_FOUND] * 30, RED, NO_POWER, BLUE
    )
    reply = client.chat.completions.create(model="whence", messages=long)
    assert extras(reply)["whence"]["leans_on"] == len(long) - 3
    forgotten = said(RED, NO_POWER, *[CHESS, NOT_FOUND] * 40, BLUE)
    reply = client.chat.completions.create(model="whence", messages=forgotten)
    assert extras(reply)["whence"]["leans_on"] is None


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize(
    ("given", "code", "param"),
    [
        ({"messages": []}, "invalid_request", "messages"),
        ({"messages": [{"role": "robot", "content": RED}]}, "invalid_request", "messages[0].role"),
        ({"messages": [{"role": "user", "content": 5}]}, "invalid_request", "messages[0].content"),
        ({"messages": [{"role": "user", "content": [5]}]}, "invalid_request", "messages[0].content[0]"),
        ({"messages": [{"role": "system", "content": RED}]}, "invalid_request", "messages[0].role"),
        ({"messages": said(RED, NO_POWER)}, "invalid_request", "messages[1].role"),
        ({"messages": [*said(RED), {"role": "tool", "content": "x"}]}, "invalid_request", "messages[1].role"),
        ({"messages": said(RED), "n": 2}, "invalid_request", "n"),
        ({"messages": said("")}, "invalid_question", None),
        ({"messages": said(None)}, "invalid_question", None),
        ({"messages": said("x " * 2_001)}, "invalid_question", None),
        ({"messages": said(RED), "extra_body": {"top_k": 0}}, "invalid_question", None),
        ({"messages": said(RED), "extra_body": {"filters": {"a": {"near": 5}}}}, "invalid_question", None),
    ],
)
def test_a_request_that_makes_no_sense_is_a_bad_request(
    client: OpenAI, streams: bool, given: dict[str, Any], code: str, param: str | None
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="whence", stream=streams, **given)
    error = refused.value
    assert (error.code, error.param, error.type) == (code, param, "invalid_request_error")
    assert error.request_id and error.request_id == error.body["request_id"]


def test_another_model_is_not_found(client: OpenAI) -> None:
    for ask in (
        partial(client.models.retrieve, "gpt-5"),
        partial(client.chat.completions.create, model="gpt-5", messages=said(RED)),
    ):
        with pytest.raises(openai.NotFoundError, match=r"There is no model 'gpt-5'. Ask for whence\.") as refused:
            ask()
        assert (refused.value.code, refused.value.type) == ("model_not_found", "invalid_request_error")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/models/a/b", 404, "not_found"),
        ("GET", "/v1/chat/completions/1", 404, "not_found"),
        ("GET", "/v1/chat/completions", 405, "method_not_allowed"),
        ("DELETE", "/v1/models/whence", 405, "method_not_allowed"),
    ],
)
def test_what_is_not_there_is_said_in_openais_form(
    http: httpx.Client, method: str, path: str, status: int, code: str
) -> None:
    response = http.request(method, path)
    assert (response.status_code, response.json()["error"]["code"]) == (status, code)
    assert response.headers["content-type"] == "application/json"


def test_bodies_are_refused_in_openais_form(http: httpx.Client) -> None:
    json_type = {"Content-Type": "application/json"}
    for body, headers, status, code in (
        (b"{", json_type, 400, "malformed_json"),
        (b"{}", {"Content-Type": "text/plain"}, 415, "content_type"),
        (b"x" * 1_000_001, json_type, 413, "body_too_large"),
    ):
        response = http.post("/v1/chat/completions", content=body, headers=headers)
        assert (response.status_code, response.json()["error"]["code"]) == (status, code)
        assert response.json()["error"]["type"] == "invalid_request_error"
    elsewhere = http.post("/v1/chat", content=b"{", headers=json_type)
    assert elsewhere.headers["content-type"] == "application/problem+json"


def test_keys_are_asked_for_as_openai_does(handbook_home: Path, cache_folder: Path) -> None:
    state = State(handbook_home)
    keys = KeyStore(state)
    (_, good), (_, rare), (_, bound) = (
        keys.create("program", Scope.ASK),
        keys.create("rare", Scope.ASK, rate="1/h"),
        keys.create("page", Scope.ASK, origins=["https://docs.example.com"]),
    )
    state.close()
    with serving(handbook_home, cache_folder, require_key=True, root_path="/docs") as http:
        none = http.get("/v1/models")
        assert (none.status_code, none.json()["error"]["code"]) == (401, "key_required")
        assert none.json()["error"]["type"] == "authentication_error"
        with pytest.raises(openai.AuthenticationError) as wrong:
            complete(openai_client(http, "sk-wrong"), RED)
        assert wrong.value.code == "key_unknown"
        assert content(complete(openai_client(http, good), RED)).startswith(NO_POWER)
        with openai_client(http, rare) as client, pytest.raises(openai.RateLimitError) as often:
            client.models.list()
            client.models.list()
        assert (often.value.code, often.value.type) == ("rate_exceeded", "rate_limit_error")
        assert 1 <= int(often.value.response.headers["retry-after"]) <= 3_600
        with pytest.raises(openai.PermissionDeniedError) as elsewhere:
            openai_client(http, bound).models.list()
        assert (elsewhere.value.code, elsewhere.value.type) == ("origin_refused", "permission_error")


def test_pages_of_allowed_origins_may_send_what_the_client_sends(handbook_home: Path, cache_folder: Path) -> None:
    origin = "https://docs.example.com"
    wanted = "authorization,content-type,x-stainless-lang,x-stainless-retry-count"
    asking = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": wanted}
    with serving(handbook_home, cache_folder, cors_origins=(origin,)) as http:
        allowed = http.options("/v1/chat/completions", headers={**asking, "Origin": origin})
        assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (200, origin)
        assert allowed.headers["access-control-allow-headers"] == wanted
        refused = http.options("/v1/chat/completions", headers={**asking, "Origin": "https://evil.example"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "origin_refused")
        written = http.post("/v1/chat/completions", json={}, headers={"Origin": "https://evil.example"})
        assert (written.status_code, written.json()["error"]["code"]) == (403, "origin_refused")


def test_a_service_that_cannot_keep_up_is_an_error_of_the_server(handbook_home: Path, cache_folder: Path) -> None:
    with serving(handbook_home, cache_folder, deadline=0.05) as http, answers_held_back():
        for given in ({}, {"stream": True}):
            with pytest.raises(openai.InternalServerError) as late:
                complete(openai_client(http), RED, **given)
            assert (late.value.status_code, late.value.code, late.value.type) == (503, "deadline", "server_error")
            assert late.value.response.headers["retry-after"] == "1"


@pytest.mark.parametrize("seconds", [0.0, 0.1])
def test_what_goes_wrong_in_a_stream_is_raised_by_the_client(seconds: float) -> None:
    app = FastAPI()

    @app.post("/v1/chat/completions")
    async def fail() -> Response:
        replying: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(seconds, replying.set_exception, Problem("deadline", "Too late."))
        write_error = partial(error_event, request_id="an-id")
        return EventSourceResponse(streamed(replying, lambda _: [], write_error, ping_s=0.02))

    with running(app) as address, httpx.Client(base_url=address) as http:
        with openai_client(http) as client, pytest.raises(openai.APIError, match="Too late") as late:
            stream(client, RED)
        assert (late.value.code, late.value.type) == ("deadline", "server_error")
        assert late.value.body["request_id"] == "an-id"
        text = raw(http, RED).text
        assert text.startswith(": ping") == bool(seconds)
        assert text.split("\n\n")[-2].startswith('data: {"error":{')


def test_a_mistake_of_ours_is_an_error_of_the_server() -> None:
    app = FastAPI()

    @app.post("/v1/chat/completions")
    async def fail(request: Request) -> Response:
        raise ZeroDivisionError

    handle_problems(app)
    app.add_middleware(RequestLog, metrics=Metrics())
    with running(app) as address, httpx.Client(base_url=address) as http, openai_client(http) as client:
        with pytest.raises(openai.InternalServerError) as failed:
            complete(client, RED)
        assert (failed.value.status_code, failed.value.code) == (500, "internal")


def test_questions_are_counted_and_logged_as_they_were_searched(handbook_home: Path, cache_folder: Path) -> None:
    with serving(handbook_home, cache_folder, question_log_days=1) as http:
        before = asked(http)
        for streams in (False, True):
            assert raw(http, CHESS, stream=streams).status_code == 200
        assert asked(http) == before + 2
        until(lambda: http.get("/v1/insights/unanswered").json()["groups"] != [])
        (group,) = http.get("/v1/insights/unanswered").json()["groups"]
        assert group["question"] == CHESS


def test_links_begin_with_the_public_address(handbook_home: Path, cache_folder: Path) -> None:
    with serving(handbook_home, cache_folder, public_url="https://help.example.com/whence") as http:
        reply = complete(openai_client(http), RED)
        (link, *_) = reply.choices[0].message.annotations or []
        assert link.url_citation.url.startswith("https://help.example.com/whence/documents/router.md?start=")
        assert extras(reply)["sources"][0]["citation"]["url"] == link.url_citation.url


# Prompts of the form that Open WebUI gives them.
HISTORY = f"""### Chat History:
<chat_history>
USER: {RED}
Is it "bad"? Don't say `yes`.
ASSISTANT: {NO_POWER}
USER: And {{blue}}?
</chat_history>"""


def task(wanted: str) -> str:
    """Return a prompt that asks for JSON."""
    return f"### Task:\nWrite what is wanted.\n\n### Output:\nJSON format: {wanted}\n\n{HISTORY}"


def parsed(text: str) -> Any:
    """Parse a reply as the pages of Open WebUI do."""
    doubled = re.sub("['\u2018\u2019`]", '"', text)
    return json.loads(doubled[doubled.index("{") : doubled.rindex("}") + 1])


@pytest.mark.parametrize(
    ("wanted", "reply"),
    [
        ('{ "title": "..." }', {"title": f'{RED} Is it "bad"? Don\'t say `yes`.'}),
        ('{ "tags": ["one", "two"] }', {"tags": []}),
        ('{ "follow_ups": ["One?", "Two?"] }', {"follow_ups": []}),
        ('{\n  "queries": ["one"]\n}', {"queries": ["And {blue}?"]}),
        ('{\n    "prompt": "..."\n}', {"prompt": "And {blue}?"}),
        ('{ "text": "..." }', {"text": ""}),
        ("a word", {}),
    ],
)
def test_what_open_webui_asks_for_itself_gets_a_small_reply_and_is_not_searched(
    client: OpenAI, http: httpx.Client, wanted: str, reply: dict[str, Any]
) -> None:
    before = asked(http)
    whole = complete(client, task(wanted))
    assert parsed(content(whole)) == reply
    assert (extras(whole)["whence"], extras(whole)["sources"]) == (None, [])
    assert joined(stream(client, task(wanted))) == content(whole)
    assert asked(http) == before


def test_an_emoji_is_an_emoji(client: OpenAI) -> None:
    prompt = (
        "Your task is to reflect the speaker's likely facial expression through a fitting emoji. Message: ```Hm```"
    )
    assert content(complete(client, prompt)) == "\N{SPEECH BALLOON}"


@pytest.mark.parametrize(
    ("first", "title"),
    [
        ("Why?", "Why?"),
        ("  many\n\nlines\tof it ", "many lines of it"),
        ("x" * 80, "x" * 59 + "…"),
        ("word " * 12 + "last", "word " * 11 + "word…"),
    ],
)
def test_a_title_is_the_first_question_shortened(first: str, title: str) -> None:
    reply = task_reply(f'### Task:\n{{ "title": "..." }}\n<chat_history>\nUSER: {first}\n</chat_history>')
    assert parsed(reply or "") == {"title": title}
    assert len(title) <= 60


def test_a_conversation_without_a_question_has_no_title() -> None:
    assert task_reply('### Task:\n{ "title": "..." }') == '{"title": ""}'
    assert task_reply('### Task:\n{ "queries": ["..."] }\n<chat_history>\n</chat_history>') == '{"queries": []}'


def test_people_may_write_about_tasks() -> None:
    assert task_reply("What does ### Task: mean?") is None
    assert task_reply(RED) is None
    assert question_in(RED) == RED


@pytest.mark.parametrize(
    "end", [f"</context>\n\n<user_query>\n{RED}\n</user_query>\n", f"</context>\n\n{RED}", f"</context>\n{RED}\n"]
)
def test_a_question_with_pages_attached_is_still_a_question(client: OpenAI, end: str) -> None:
    context = f'<context>\n<source id="1">{"Toast. " * 5_000}</context></source>\n'
    template = "### Task:\nRespond to the user query using the provided context, and cite.\n\n"
    reply = complete(client, template + context + end)
    assert extras(reply)["whence"]["searched_as"] == RED
    assert content(reply).startswith(NO_POWER)


def test_open_webui_can_have_sources_as_its_own_events(handbook_home: Path, cache_folder: Path) -> None:
    with serving(handbook_home, cache_folder, open_webui_sources=True) as http, openai_client(http) as client:
        plain = complete(client, RED)
        chunks = stream(client, RED)
        assert joined(chunks) == content(plain)
        events = [
            chunk.model_extra["event"] for chunk in chunks if chunk.model_extra and "event" in chunk.model_extra
        ]
        sources = extras(plain)["sources"]
        assert [event["type"] for event in events] == ["source"] * 5
        for event, source in zip(events, sources, strict=True):
            data, url = event["data"], source["citation"]["url"]
            assert data["document"] == [source["text"]]
            assert data["source"]["name"] == source["citation"]["document"]["title"]
            assert data["source"]["url"] == data["metadata"][0]["source_url"] == url
            assert data["source"]["id"] == data["metadata"][0]["source"]
        assert len({event["data"]["source"]["id"] for event in events}) == 5
        assert not any(
            "annotations" in (choice.delta.model_extra or {}) for each in chunks for choice in each.choices
        )
        assert len(plain.choices[0].message.annotations or []) == 5
        assert not any((chunk.model_extra or {}).get("event") for chunk in stream(client, CHESS))


@pytest.fixture(scope="module")
def node(http: httpx.Client) -> dict[str, Any]:
    """What the client for Node makes of the service."""
    need(ROOT / "node_modules" / "openai", "For the tests of the clients: npm ci")
    done = subprocess.run(
        ["node", str(NODE_CLIENT), f"{http.base_url}/v1", "sk-anything", RED],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def test_the_client_for_node_gets_the_same_reply(node: dict[str, Any], client: OpenAI) -> None:
    expected = complete(client, RED)
    assert [model["id"] for model in node["models"]] == ["whence"]
    assert node["plain"]["choices"][0] == json.loads(expected.choices[0].model_dump_json(exclude_unset=True))
    assert node["plain"]["usage"] == json.loads(expected.model_dump_json(exclude_unset=True))["usage"]


def test_the_client_for_node_reads_streams(node: dict[str, Any], client: OpenAI) -> None:
    text = content(complete(client, RED))
    *chunks, last = node["chunks"]
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert "".join(delta.get("content", "") for delta in deltas) == "".join(node["pieces"]) == text
    assert {chunk["id"] for chunk in node["chunks"]} == {last["id"]}
    assert (last["choices"], last["usage"]) == ([], node["plain"]["usage"])
    assert node["final"]["choices"][0]["message"]["content"] == text
    for name in ("annotations", "sources", "whence"):
        assert node["final"]["choices"][0]["message"][name] == node["plain"]["choices"][0]["message"][name]


def test_the_client_for_node_raises_its_errors(node: dict[str, Any]) -> None:
    assert [(each["name"], each["status"], each["code"], each["param"]) for each in node["failures"]] == [
        ("NotFoundError", 404, "model_not_found", "model"),
        ("BadRequestError", 400, "invalid_request", "messages"),
        ("BadRequestError", 400, "invalid_request", "messages[0].role"),
        ("AuthenticationError", 401, "key_unknown", None),
    ]
    assert all(each["requestID"] for each in node["failures"])
