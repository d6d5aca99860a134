"""A chat in the format of deep-chat, and the component itself on a page of another origin."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from browser import DESK, PATIENCE_MS, ROOT, launched, need, take_picture
from fastapi import FastAPI
from fastapi.responses import FileResponse, HTMLResponse
from fastapi.sse import EventSourceResponse
from handbook import Handbook
from live import running, serving
from playwright.sync_api import Browser, Locator, Page, expect
from waiting import until

from index.build import sync
from index.documents import BlockKind, Document
from index.embeddings import Encoder
from index.generations import Home
from index.readers.builder import ContentBuilder
from index.readers.limits import Limits
from index.sources import Rejected, Unchanged
from service.markdown import MarkdownReply
from service.problems import Problem
from service.routes.deep_chat import error_event, events
from service.streaming import streamed

RED = "What does the red light mean?"
NO_POWER = "The red light means that there is no power."
NOT_FOUND = "I found no answer to that in these documents."
CHESS = "Who won the chess championship of 1972?"
EVENTS = {"Accept": "text/event-stream"}
HOSTILE = {
    "How is the lighthouse painted?": (
        "The lighthouse is painted with <img src=/pixel.png onerror=alert(1)> and <script>alert(2)</script> in red."
    ),
    "Who feeds the seagulls?": (
        "Seagulls are fed by [the keeper](javascript:alert(3)) and ![a picture](http://127.0.0.1:9/pixel.png) daily."
    ),
    "When does the foghorn sound?": "The foghorn sounds at \u202enoon \u2066and at *midnight* `only`.",
}
BUNDLE = ROOT / "node_modules" / "deep-chat" / "dist" / "deepChat.bundle.js"
PAGE = """<!doctype html>
<meta charset="utf-8">
<title>Somebody's page</title>
<link rel="icon" href="data:,">
<script type="module" src="/deepChat.bundle.js"></script>
<h1>Somebody's page</h1>
<deep-chat
  requestBodyLimits='{"maxMessages": 20}'
  errorMessages='{"displayServiceErrorMessages": true}'
  style="width: 560px; height: 640px; font-family: system-ui, sans-serif"
></deep-chat>
<script>
  const asked = new URLSearchParams(location.search);
  const connect = { url: asked.get("url"), stream: asked.has("stream"), additionalBodyProps: { top_k: 3 } };
  document.querySelector("deep-chat").setAttribute("connect", JSON.stringify(connect));
</script>
"""


@dataclass(frozen=True)
class Lighthouse:
    """A corpus of which every sentence would act in a page if it could."""

    key: str = "lighthouse"
    prefix: str = ""
    is_bundled: bool = False

    def read(self, known: Mapping[str, str]) -> Iterator[Document | Unchanged | Rejected]:
        """Yield its documents."""
        for number, text in enumerate(HOSTILE.values()):
            builder = ContentBuilder(Limits())
            builder.add(BlockKind.HEADING, f"<b>Part</b> [{number}](x) \u202e*", level=1)
            builder.add(BlockKind.PARAGRAPH, text)
            content = builder.content()
            sha256 = hashlib.sha256(content.text.encode()).hexdigest()
            yield Document(f"{number}.txt", "<i>Light</i>house", "text/plain", sha256, len(content.text), content)


@pytest.fixture(scope="module")
def home_path(encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with the handbook, and a corpus that would do harm."""
    home = Home(tmp_path_factory.mktemp("deep-chat"))
    sync(home, [Handbook(), Lighthouse()], encoder)
    return home.path


def slowly(reply: MarkdownReply | Problem) -> Callable[[], Awaitable[EventSourceResponse]]:
    """Return a route that makes a reply for a while, as events."""

    async def route() -> EventSourceResponse:
        replying: asyncio.Future[MarkdownReply] = asyncio.get_running_loop().create_future()
        end = replying.set_exception if isinstance(reply, Problem) else replying.set_result
        asyncio.get_running_loop().call_later(0.2, end, reply)
        return EventSourceResponse(streamed(replying, events, partial(error_event, request_id="an-id"), ping_s=0.02))

    return route


@pytest.fixture(scope="module")
def host() -> Iterator[str]:
    """The address of somebody's page, with the component in it."""
    app = FastAPI(openapi_url=None)
    app.add_api_route("/", lambda: HTMLResponse(PAGE))
    app.add_api_route("/deepChat.bundle.js", lambda: FileResponse(BUNDLE, media_type="text/javascript"))
    app.add_api_route(
        "/slow", slowly(MarkdownReply(("At *last*. ", "[Here](https://example.org/)."), ())), methods=["POST"]
    )
    app.add_api_route("/late", slowly(Problem("deadline", "No answer in time.")), methods=["POST"])
    with running(app) as address:
        yield address


@pytest.fixture(scope="module")
def client(home_path: Path, cache_folder: Path, host: str) -> Iterator[httpx.Client]:
    """A client of a service that the page may ask."""
    given = {"cors_origins": host, "chat_handoff": "help@example.org", "question_log_days": 1}
    with serving(home_path, cache_folder, **given) as client:
        yield client


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium."""
    need(BUNDLE, "For the tests of deep-chat: npm ci")
    with launched() as browser:
        yield browser


def said(*texts: str) -> list[dict[str, Any]]:
    """Return messages, by turns of the user and of the service."""
    return [{"role": "ai" if place % 2 else "user", "text": text} for place, text in enumerate(texts)]


def reply_to(client: httpx.Client, *texts: str, **given: Any) -> str:
    """Return the text of the reply to the last one."""
    response = client.post("/v1/deep-chat", json={"messages": said(*texts), **given})
    assert response.status_code == 200, response.text
    reply: dict[str, str] = response.json()
    assert list(reply) == ["text"]
    return reply["text"]


def test_an_answer_is_its_exact_words_and_links_to_them(client: httpx.Client) -> None:
    citation = client.post("/v1/ask", json={"question": RED}).json()["answer"]["citation"]
    url = f"{client.base_url}{citation['url']}"
    text = reply_to(client, RED, top_k=1)
    assert text == f"{NO_POWER} [(1)]({url})\n\n1. [Router › Lights, line 10]({url})"


def test_a_follow_up_says_what_it_was_searched_as(client: httpx.Client) -> None:
    text = reply_to(client, RED, reply_to(client, RED), "And what does the blue one mean?")
    assert "The blue light means that the router is connected." in text
    assert text.endswith("\n\nSearched as: And what does the blue one mean? (red light)")


def test_filters_hold(client: httpx.Client) -> None:
    text = reply_to(client, "How often should I descale it?", filters={"product": "kettle"})
    assert text.startswith("Descale the kettle every three months.")
    assert "router.md" not in text


def test_the_same_comes_as_events(client: httpx.Client) -> None:
    body = {"messages": said(RED)}
    response = client.post("/v1/deep-chat", json=body, headers=EVENTS)
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert (response.headers["cache-control"], response.headers["x-accel-buffering"]) == ("no-store", "no")
    events = [json.loads(block.removeprefix("data: ")) for block in response.text.split("\n\n") if block]
    assert events[0] == {"text": NO_POWER}
    assert "".join(event["text"] for event in events) == reply_to(client, RED)


def test_of_a_long_conversation_the_newest_is_read(client: httpx.Client) -> None:
    long = [*["Why?", "y" * 30_000] * 20, *["Why?", "Because."] * 20]
    assert reply_to(client, *long, RED, NO_POWER, "And the blue one?").endswith("(red light)")
    forgotten = reply_to(client, RED, NO_POWER, *["x" * 5_000, "No."] * 40, "And the blue one?")
    assert "Searched as" not in forgotten


def test_what_is_no_text_is_not_read(client: httpx.Client) -> None:
    messages = [
        {"role": "user", "files": [{"name": "a.png", "type": "image"}]},
        {"role": "ai", "html": "<b>Hello</b>", "_sessionId": "x"},
        *said(RED, NO_POWER, "And the blue one?"),
    ]
    reply = client.post("/v1/deep-chat", json={"messages": messages}).json()
    assert reply["text"].endswith("(red light)")


@pytest.mark.parametrize("headers", [{}, EVENTS])
@pytest.mark.parametrize(
    ("body", "code", "detail"),
    [
        ({}, "invalid_request", "/messages"),
        ({"messages": []}, "invalid_request", "/messages"),
        ({"messages": said(RED, NO_POWER)}, "invalid_request", "the last message is not the user's"),
        ({"messages": [{"role": "user", "text": RED, "files": [{}]}]}, "invalid_request", "has files"),
        ({"messages": said(RED), "filter": {}}, "invalid_request", "/filter"),
        ({"messages": said(RED), "top_k": 0}, "invalid_question", "top_k"),
        ({"messages": said("x " * 2_001)}, "invalid_question", "at most 4,000"),
        ({"messages": [{"role": "user"}]}, "invalid_question", "empty"),
    ],
)
def test_errors_have_the_form_that_the_component_shows(
    client: httpx.Client, headers: dict[str, str], body: dict[str, Any], code: str, detail: str
) -> None:
    response = client.post("/v1/deep-chat", json=body, headers=headers)
    assert (response.status_code, response.headers["content-type"]) == (422, "application/json")
    assert set(response.json()) == {"error", "code", "request_id"}
    assert response.json()["code"] == code
    assert detail in response.json()["error"]
    assert response.json()["request_id"] == response.headers["x-request-id"]


def test_files_are_turned_away(client: httpx.Client) -> None:
    response = client.post("/v1/deep-chat", data={"message1": json.dumps(said(RED)[0])}, files={"files": b"x"})
    assert (response.status_code, response.json()["code"]) == (415, "content_type")
    assert response.json()["error"] == "Files are not read here. Send your question without them."


def test_errors_from_before_the_route_have_its_form(
    client: httpx.Client, home_path: Path, cache_folder: Path
) -> None:
    too_large = client.post("/v1/deep-chat", json={"messages": said("x" * 1_100_000)})
    assert (too_large.status_code, too_large.json()["code"]) == (413, "body_too_large")
    assert client.get("/v1/deep-chat").json()["error"] == "/v1/deep-chat does not take GET."
    with serving(home_path, cache_folder, require_key=True, root_path="/whence") as locked:
        response = locked.post("/whence/v1/deep-chat", json={"messages": said(RED)}, headers=EVENTS)
        assert (response.status_code, response.json()["code"]) == (401, "key_required")
        assert response.json()["error"].startswith("A key is needed.")


def test_questions_are_in_the_question_log(client: httpx.Client) -> None:
    reply_to(client, CHESS)
    reply_to(client, "Hello!")
    until(lambda: client.get("/v1/insights/unanswered").json()["groups"] != [])
    questions = {group["question"] for group in client.get("/v1/insights/unanswered").json()["groups"]}
    assert CHESS in questions and "Hello!" not in questions


@contextmanager
def page_of(browser: Browser, host: str, url: str, *, is_streamed: bool) -> Iterator[Page]:
    """Open somebody's page that asks a URL; at the end nothing may have run, or been asked for but page and URL."""
    context = browser.new_context(viewport=DESK)
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    wrong: list[str] = []
    allowed = {"", urlsplit(host).netloc, urlsplit(url).netloc}
    page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
    page.on("dialog", lambda dialog: wrong.append(f"dialog: {dialog.message}"))
    page.on(
        "request",
        lambda request: urlsplit(request.url).netloc in allowed or wrong.append(f"asked {request.url}"),
    )
    page.goto(f"{host}/?url={url}{'&stream' if is_streamed else ''}")
    yield page
    context.close()
    assert wrong == []


def ask(page: Page, question: str) -> Locator:
    """Type a question into the component, and return the reply when there is one."""
    replies = page.locator("deep-chat .ai-message-text, deep-chat .error-message-text")
    before = replies.count()
    page.locator("deep-chat #text-input").fill(question)
    page.locator("deep-chat #text-input").press("Enter")
    expect(replies).to_have_count(before + 1)
    return replies.last


@pytest.mark.parametrize("is_streamed", [False, True])
def test_the_component_shows_answers_and_leads_to_their_source(
    browser: Browser, host: str, client: httpx.Client, is_streamed: bool
) -> None:
    citation = client.post("/v1/ask", json={"question": RED}).json()["answer"]["citation"]
    with page_of(browser, host, f"{client.base_url}/v1/deep-chat", is_streamed=is_streamed) as page:
        reply = ask(page, RED)
        expect(reply).to_contain_text(NO_POWER)
        expect(reply.get_by_role("link", name="(1)")).to_have_attribute("href", f"{client.base_url}{citation['url']}")
        expect(reply.get_by_role("link", name="Router › Lights, line 10")).to_be_visible()
        expect(ask(page, "And the blue one?")).to_contain_text("Searched as: And the blue one? (red light)")
        missed = ask(page, CHESS)
        expect(missed).to_contain_text(NOT_FOUND)
        expect(missed.get_by_role("link", name="Ask a person")).to_have_attribute("href", "mailto:help@example.org")
        assert missed.get_by_role("link").count() >= 2
        take_picture(page, f"deep-chat-{'streamed' if is_streamed else 'plain'}")


@pytest.mark.parametrize("is_streamed", [False, True])
def test_the_component_shows_what_went_wrong(
    browser: Browser, host: str, client: httpx.Client, is_streamed: bool
) -> None:
    with page_of(browser, host, f"{client.base_url}/v1/deep-chat", is_streamed=is_streamed) as page:
        expect(ask(page, "x " * 2_001)).to_contain_text("at most 4,000")
        take_picture(page, "deep-chat-error")


def test_the_component_waits_for_a_reply_that_takes_long(browser: Browser, host: str) -> None:
    with page_of(browser, host, f"{host}/slow", is_streamed=True) as page:
        expect(ask(page, RED)).to_have_text("At last. Here.")
    with page_of(browser, host, f"{host}/late", is_streamed=True) as page:
        expect(ask(page, RED)).to_have_text("No answer in time.")


@pytest.mark.parametrize("is_streamed", [False, True])
def test_in_the_component_documents_are_text(
    browser: Browser, host: str, client: httpx.Client, is_streamed: bool
) -> None:
    with page_of(browser, host, f"{client.base_url}/v1/deep-chat", is_streamed=is_streamed) as page:
        for question, text in HOSTILE.items():
            reply = ask(page, question)
            expect(reply).to_contain_text(text)
            expect(reply.locator("img, script, b, i, em, strong, code")).to_have_count(0)
            for link in reply.get_by_role("link").all():
                assert (link.get_attribute("href") or "").startswith(f"{client.base_url}/documents/")
        take_picture(page, "deep-chat-hostile")
