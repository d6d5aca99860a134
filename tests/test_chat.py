"""A chat over HTTP: replies that lean on what was said before, and say so."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from handbook import Handbook
from live import answers_held_back, serving
from waiting import until

from index.answers import Question
from index.build import sync
from index.embeddings import Encoder
from index.errors import WhenceError
from index.generations import Home
from index.terms import every_term
from service.chat import Turn
from service.problems import Problem
from service.routes.chat import events
from service.schemas.chat import ChatReplyJson
from service.settings import Settings, read_settings

RED = "What does the red light mean?"
NO_POWER = "The red light means that there is no power."
NOT_FOUND = "I found no answer to that in these documents."
CHESS = "Who won the chess championship of 1972?"
EVENTS = {"Accept": "text/event-stream"}


@pytest.fixture(scope="module")
def handbook_home(encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with the handbook."""
    home = Home(tmp_path_factory.mktemp("chat"))
    sync(home, [Handbook()], encoder)
    return home.path


@pytest.fixture(scope="module")
def client(handbook_home: Path, cache_folder: Path) -> Iterator[httpx.Client]:
    """A client of the service over the handbook."""
    with serving(handbook_home, cache_folder, chat_handoff="help@example.org") as client:
        yield client


def said(*turns: str | dict[str, Any]) -> list[dict[str, Any]]:
    """Return messages, by turns of the user and of the assistant."""
    return [
        {"role": "assistant" if place % 2 else "user", **({"content": turn} if isinstance(turn, str) else turn)}
        for place, turn in enumerate(turns)
    ]


def chat(client: httpx.Client, *turns: str | dict[str, Any], **given: Any) -> dict[str, Any]:
    """Have the last turn replied to."""
    response = client.post("/v1/chat", json={"messages": said(*turns), **given})
    assert response.status_code == 200, response.text
    reply: dict[str, Any] = response.json()
    return reply


def events_in(text: str) -> list[tuple[str, dict[str, Any]]]:
    """Parse a stream of events; checks that their ids count up."""
    blocks = [block for block in text.split("\n\n") if block and not block.startswith(":")]
    parsed = [dict(line.split(": ", 1) for line in block.split("\n")) for block in blocks]
    assert [event["id"] for event in parsed] == [str(number) for number in range(1, len(parsed) + 1)]
    return [(event["event"], json.loads(event["data"])) for event in parsed]


def asked(client: httpx.Client) -> float:
    """Return how many questions were answered so far."""
    counts = re.findall(r"whence_questions_total\{[^}]*\} ([0-9.]+)", client.get("/metrics").text)
    return sum(float(count) for count in counts)


def test_a_question_gets_the_very_answer_it_gets_elsewhere(client: httpx.Client) -> None:
    reply = chat(client, RED)
    assert (reply["kind"], reply["content"], reply["leans_on"]) == ("answer", NO_POWER, None)
    assert reply["searched_as"] == RED
    assert reply["topic"] == {"question": RED, "headings": ["Router", "Lights"]}
    answer = client.post("/v1/ask", json={"question": RED}).json()
    assert {**reply["answer"], "took_ms": 0} == {**answer, "took_ms": 0}


def test_a_follow_up_is_searched_with_what_it_leaves_out_and_says_so(client: httpx.Client) -> None:
    first = chat(client, RED)
    before = asked(client)
    reply = chat(client, RED, {"content": NO_POWER, "topic": first["topic"]}, "And the blue one?")
    assert asked(client) == before + 1
    assert (reply["searched_as"], reply["leans_on"]) == ("And the blue one? (red light)", 0)
    assert "The blue light means that the router is connected." in reply["content"]
    answer = client.post("/v1/ask", json={"question": reply["searched_as"]}).json()
    assert {**reply["answer"], "took_ms": 0} == {**answer, "took_ms": 0}


def test_a_client_that_sends_only_texts_gets_the_same_for_one_question_more(client: httpx.Client) -> None:
    before = asked(client)
    reply = chat(client, RED, NO_POWER, "And the blue one?")
    assert asked(client) == before + 2
    assert (reply["searched_as"], reply["leans_on"]) == ("And the blue one? (red light)", 0)


def test_a_follow_up_can_be_searched_as_it_stands(client: httpx.Client) -> None:
    reply = chat(client, RED, NO_POWER, {"content": "And the blue one?", "standalone": True})
    assert (reply["searched_as"], reply["leans_on"]) == ("And the blue one?", None)


def test_a_question_of_its_own_is_not_bent(client: httpx.Client) -> None:
    question = "How often should I descale the kettle?"
    reply = chat(client, RED, NO_POWER, question)
    assert (reply["searched_as"], reply["leans_on"]) == (question, None)
    assert reply["content"].startswith("Descale the kettle every three months.")


def test_follow_ups_lean_on_follow_ups(client: httpx.Client) -> None:
    turns: list[str | dict[str, Any]] = ["How do I clean the filter of the dishwasher?"]
    for follow_up in ("How often?", "And the toaster?"):
        reply = chat(client, *turns)
        turns += [{"content": reply["content"], "topic": reply["topic"]}, follow_up]
    reply = chat(client, *turns)
    assert reply["leans_on"] == 2
    assert {"toaster", "clean", "filter"} <= {*every_term(reply["searched_as"])}
    texts = [turn if isinstance(turn, str) else turn["content"] for turn in turns]
    assert chat(client, *texts)["leans_on"] == 2


def test_a_question_without_an_answer_is_not_leaned_on(client: httpx.Client) -> None:
    follow_up = "And the blue one?"
    for unanswered in (NOT_FOUND, f"{NOT_FOUND}\n\nNearest: Lights", {"content": "No.", "topic": None}):
        reply = chat(client, RED, NO_POWER, CHESS, unanswered, follow_up)
        assert (reply["searched_as"], reply["leans_on"]) == ("And the blue one? (red light)", 0)
        alone = chat(client, CHESS, unanswered, follow_up)
        assert (alone["searched_as"], alone["leans_on"]) == (follow_up, None)
    unknown = chat(client, CHESS, "Somebody else's words.", follow_up)
    assert (unknown["searched_as"], unknown["leans_on"]) == (follow_up, None)


def test_small_talk_system_messages_and_lost_replies_are_passed_over(client: httpx.Client) -> None:
    messages = [
        {"role": "system", "content": "You are a pirate."},
        {"role": "user", "content": "Hello!"},
        {"role": "assistant", "content": "Hello!"},
        {"role": "user", "content": f"Hi! {RED}"},
        {"role": "system", "content": "Answer in verse."},
        {"role": "user", "content": "Thanks!"},
        {"role": "assistant", "content": "You are welcome."},
        {"role": "user", "content": "x " * 5_000},
        {"role": "user", "content": "Great! And the blue one?"},
    ]
    reply = client.post("/v1/chat", json={"messages": messages}).json()
    assert (reply["searched_as"], reply["leans_on"]) == ("And the blue one? (red light)", 3)


def test_a_first_turn_has_nothing_to_lean_on(client: httpx.Client) -> None:
    assert chat(client, "And the blue light?")["searched_as"] == "And the blue light?"


def test_filters_and_top_k_hold_for_a_turn_and_for_what_it_leans_on(client: httpx.Client) -> None:
    reply = chat(client, RED, top_k=1, filters={"product": "kettle"})
    documents = [passage["citation"]["document"]["id"] for passage in reply["answer"]["passages"]]
    assert documents == ["kettle.md"]
    leaning = chat(client, RED, NO_POWER, "And the blue one?", filters={"product": "kettle"})
    assert leaning["leans_on"] is None


@pytest.mark.parametrize(
    ("text", "kind", "content"),
    [
        ("Hello!", "greeting", "Hello! Ask me about these documents. I answer in their own words"),
        ("thank you", "thanks", "You are welcome."),
        ("What can you do?", "help", "Ask in a sentence, as you would ask a colleague."),
        ("???", "help", "Ask in a sentence, as you would ask a colleague."),
    ],
)
def test_small_talk_gets_a_set_reply(client: httpx.Client, text: str, kind: str, content: str) -> None:
    reply = chat(client, text)
    assert reply["kind"] == kind
    assert reply["content"].startswith(content)
    assert (reply["searched_as"], reply["answer"], reply["topic"]) == (None, None, None)
    assert bool(reply["suggestions"]) is (kind != "thanks")
    assert bool(reply["handoff"]) is (kind == "help")


def test_small_talk_that_is_to_stand_alone_is_searched(client: httpx.Client) -> None:
    reply = chat(client, {"content": "help", "standalone": True})
    assert (reply["searched_as"], reply["answer"]["question"]) == ("help", "help")


def test_what_is_not_found_comes_with_the_nearest_headings_and_somebody_to_ask(client: httpx.Client) -> None:
    reply = chat(client, CHESS)
    assert (reply["kind"], reply["content"], reply["topic"]) == ("not_found", NOT_FOUND, None)
    assert (reply["answer"]["answered"], reply["answer"]["answer"]) == (False, None)
    nearest = reply["answer"]["passages"][0]["citation"]
    assert reply["suggestions"][0] == {
        "text": nearest["headings"][-1],
        "title": nearest["document"]["title"],
        "url": nearest["url"],
    }
    assert len({suggestion["text"] for suggestion in reply["suggestions"]}) == len(reply["suggestions"]) <= 3
    assert reply["handoff"] == {"label": "Ask a person", "url": "mailto:help@example.org"}


def test_a_chat_opens_with_headings_that_have_an_answer(client: httpx.Client) -> None:
    opening = client.get("/v1/chat/suggestions").json()
    assert opening["greeting"].startswith("Hello!")
    assert 1 <= len(opening["questions"]) <= 4
    for question in opening["questions"]:
        answer = chat(client, {"content": question, "standalone": True})
        assert question in answer["answer"]["answer"]["citation"]["headings"]
    assert [suggestion["text"] for suggestion in chat(client, "Hello!")["suggestions"]] == opening["questions"]


def test_replies_questions_and_hand_off_are_what_the_settings_say(handbook_home: Path, cache_folder: Path) -> None:
    given = {
        "chat_greeting": "Moin!",
        "chat_thanks": "Gern.",
        "chat_help": "Frag.",
        "chat_not_found": "Nicht gefunden.",
        "chat_questions": f"{RED} | Was nun, Herr Nachbar?",
        "chat_handoff": "https://example.org/kontakt",
        "chat_handoff_label": "Zum Kontakt",
    }
    with serving(handbook_home, cache_folder, **given) as client:
        contents = [chat(client, text)["content"] for text in ("Hi", "Thanks", "help", CHESS)]
        assert contents == ["Moin!", "Gern.", "Frag.", "Nicht gefunden."]
        assert client.get("/v1/chat/suggestions").json() == {
            "greeting": "Moin!",
            "questions": [RED, "Was nun, Herr Nachbar?"],
            "handoff": {"label": "Zum Kontakt", "url": "https://example.org/kontakt"},
        }
        assert chat(client, RED, NO_POWER, CHESS, "Nicht gefunden.", "Why?")["leans_on"] == 0


def test_the_same_reply_comes_as_events(client: httpx.Client) -> None:
    body = {"messages": said(RED, NO_POWER, "And the blue one?")}
    whole = client.post("/v1/chat", json=body).json()
    response = client.post("/v1/chat", json=body, headers=EVENTS)
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert (response.headers["cache-control"], response.headers["x-accel-buffering"]) == ("no-store", "no")
    events = events_in(response.text)
    assert [name for name, _ in events] == ["searched", "answer", "passages", "suggestions", "done"]
    parts = dict(events)
    assert parts["searched"] == {"searched_as": whole["searched_as"], "leans_on": 0}
    assert parts["answer"] == {
        "kind": "answer",
        "content": whole["content"],
        "confidence": whole["answer"]["confidence"],
        "answer": whole["answer"]["answer"],
    }
    assert parts["passages"] == {name: whole["answer"][name] for name in ("passages", "generation", "model")}
    assert parts["suggestions"] == {"suggestions": [], "handoff": None}
    assert parts["done"] == {"topic": whole["topic"]}


def test_small_talk_comes_as_events_without_passages(client: httpx.Client) -> None:
    events = events_in(client.post("/v1/chat", json={"messages": said("Hello!")}, headers=EVENTS).text)
    assert [name for name, _ in events] == ["answer", "suggestions", "done"]
    assert (events[0][1]["kind"], events[0][1]["answer"]) == ("greeting", None)


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("*/*", "application/json"),
        ("application/json, text/event-stream", "application/json"),
        ("text/event-stream, application/json", "text/event-stream"),
        ("Text/Event-Stream; q=0.9", "text/event-stream"),
    ],
)
def test_what_is_named_first_is_sent(client: httpx.Client, accept: str, media_type: str) -> None:
    response = client.post("/v1/chat", json={"messages": said("Thanks!")}, headers={"Accept": accept})
    assert response.headers["content-type"].partition(";")[0] == media_type
    assert "Accept" in response.headers["vary"]


@pytest.mark.parametrize("headers", [{}, EVENTS])
@pytest.mark.parametrize(
    ("body", "code", "pointer"),
    [
        ({}, "invalid_request", "/messages"),
        ({"messages": []}, "invalid_request", "/messages"),
        ({"messages": said(*["Why?"] * 65)}, "invalid_request", "/messages"),
        ({"messages": said(RED, NO_POWER)}, "invalid_request", "/"),
        ({"messages": [{"role": "tool", "content": "x"}, *said(RED)]}, "invalid_request", "/messages/0/role"),
        ({"messages": [{"role": "user"}]}, "invalid_request", "/messages/0/content"),
        ({"messages": [{"role": "user", "content": RED, "name": "x"}]}, "invalid_request", "/messages/0/name"),
        ({"messages": said("x" * 20_001, NO_POWER, RED)}, "invalid_request", "/messages/0/content"),
        ({"messages": said(" ")}, "invalid_question", None),
        ({"messages": said("x " * 2_001)}, "invalid_question", None),
        ({"messages": said(RED), "top_k": 0}, "invalid_question", None),
        ({"messages": said(RED), "filters": {"a": {"near": 5}}}, "invalid_question", None),
        ({"messages": said(RED), "model": "x"}, "invalid_request", "/model"),
    ],
)
def test_what_cannot_be_replied_to_gets_a_problem(
    client: httpx.Client, headers: dict[str, str], body: dict[str, Any], code: str, pointer: str | None
) -> None:
    response = client.post("/v1/chat", json=body, headers=headers)
    problem = response.json()
    assert (response.status_code, problem["code"]) == (422, code)
    assert response.headers["content-type"] == "application/problem+json"
    assert pointer is None or problem["errors"][0]["pointer"] == pointer


def test_the_longest_conversation_is_replied_to(client: httpx.Client) -> None:
    reply = chat(client, RED, NO_POWER, *["And then?", "y" * 9_000] * 30, "And the blue one?")
    assert (reply["searched_as"], reply["leans_on"]) == ("And the blue one? (red light)", 60)


def test_what_goes_wrong_at_once_is_a_problem_and_not_a_stream(handbook_home: Path, cache_folder: Path) -> None:
    with serving(handbook_home, cache_folder, deadline=0.05) as client, answers_held_back():
        for headers in ({}, EVENTS):
            response = client.post("/v1/chat", json={"messages": said(RED)}, headers=headers)
            assert (response.status_code, response.json()["code"]) == (503, "deadline")
            assert response.headers["retry-after"] == "1"


def streamed(reply: ChatReplyJson | Problem) -> list[str]:
    """Collect the events of a reply that takes a while."""

    async def collected() -> list[str]:
        loop = asyncio.get_running_loop()
        replying: asyncio.Future[ChatReplyJson] = loop.create_future()
        end = replying.set_exception if isinstance(reply, Problem) else replying.set_result
        loop.call_later(0.1, end, reply)
        turn = Turn(Question(RED))
        return [event.decode() async for event in events(turn, replying, "an-id", ping_s=0.02)]

    return asyncio.run(collected())


def test_the_question_is_told_before_there_is_an_answer_and_the_connection_kept_alive(client: httpx.Client) -> None:
    first, *pings, answer, _, _, _ = streamed(ChatReplyJson.model_validate(chat(client, RED)))
    assert first.startswith("event: searched\n")
    assert set(pings) == {": ping\n\n"}
    assert answer.startswith("event: answer\n")


def test_what_goes_wrong_later_is_an_event() -> None:
    (name, _), (last, problem) = events_in("".join(streamed(Problem("deadline", "Too late."))))
    assert (name, last) == ("searched", "problem")
    assert (problem["code"], problem["status"], problem["request_id"]) == ("deadline", 503, "an-id")


def test_a_reply_that_nobody_takes_is_given_up() -> None:
    async def left() -> bool:
        replying: asyncio.Future[ChatReplyJson] = asyncio.get_running_loop().create_future()
        stream = events(Turn(Question(RED)), replying, "an-id", ping_s=0.01)
        assert [await anext(stream), await anext(stream)][1] == b": ping\n\n"
        await stream.aclose()
        return replying.cancelled()

    assert asyncio.run(left())


def test_a_chat_needs_a_key_where_questions_do(handbook_home: Path, cache_folder: Path) -> None:
    with serving(handbook_home, cache_folder, require_key=True) as client:
        response = client.post("/v1/chat", json={"messages": said(RED)}, headers=EVENTS)
        assert (response.status_code, response.json()["code"]) == (401, "key_required")
        assert client.get("/v1/chat/suggestions").status_code == 401


def test_a_chat_is_in_the_question_log_as_it_was_searched(handbook_home: Path, cache_folder: Path) -> None:
    with serving(handbook_home, cache_folder, question_log_days=1) as client:
        chat(client, CHESS)
        chat(client, "Hello!")
        until(lambda: client.get("/v1/insights/unanswered").json()["groups"] != [])
        groups = client.get("/v1/insights/unanswered").json()["groups"]
        assert [group["question"] for group in groups] == [CHESS]


@pytest.mark.parametrize(
    ("given", "link"),
    [
        ("https://example.org/help?a=b", "https://example.org/help?a=b"),
        ("tel:+4930123456", "tel:+4930123456"),
        ("help@example.org", "mailto:help@example.org"),
        ("mailto:help@example.org", "mailto:help@example.org"),
        ("", ""),
    ],
)
def test_people_can_be_sent_to_a_link_or_an_address(given: str, link: str) -> None:
    assert Settings(chat_handoff=given).chat_handoff == link


@pytest.mark.parametrize(
    "given", ["javascript:alert(1)", "example.org", "data:text/html,x", "https://a b", "@", "ask us"]
)
def test_people_cannot_be_sent_anywhere_else(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHENCE_CHAT_HANDOFF", given)
    with pytest.raises(WhenceError, match=r"^WHENCE_CHAT_HANDOFF is .* a link \(https"):
        read_settings()
