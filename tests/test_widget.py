"""The chat widget in Chromium, in pages of another origin whose policy allows nothing but the service."""

from __future__ import annotations

import gzip
import json
import os
import re
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from live import serving

from index.answers import MAX_QUESTION_CHARS
from index.build import sync
from index.embeddings import Encoder
from index.generations import Home
from index.sources import Source
from index.state import STATE, State
from service.auth import KeyStore, Scope
from service.problems import CODES
from service.routes.pages import STATIC
from service.schemas.chat import MAX_MESSAGE, MAX_MESSAGES
from service.schemas.feedback import MAX_REASON

if os.environ.get("CI_BROWSER") != "1":
    pytest.importorskip("playwright", reason="playwright is not installed. Install it: pip install '.[test]'")

from browser import barriers, launched, tab, take_picture
from playwright.sync_api import Browser, Locator, Page, Route, expect

WIDGET = STATIC / "widget.js"
LARGEST = 15_000  # bytes, compressed
PATIENCE_S = 10
NARROW = {"width": 320, "height": 640}
RED = "What does the red light mean?"
NO_POWER = "The red light means that there is no power."
BLUE = "And what does the blue one mean?"
AS_SEARCHED = f"{BLUE} (red light)"
DESCALE = "How often should I descale the kettle?"
UNKNOWN = "Who composed the opera about the barber of Seville?"
TURNED = "\N{RIGHT-TO-LEFT EMBEDDING}\N{RIGHT-TO-LEFT OVERRIDE}"
HOSTILE = f"<img src=x onerror=\"window.hacked = 'img'\"><script>window.hacked = 'script'</script>{TURNED}"
TEXTS = {
    "router.md": """---
title: Router
---
# Router

## The lights

The red light means that there is no power. The blue light means that the router is connected.

## Reset

Hold the button on the back of the router for ten seconds until the lights go out.
""",
    "kettle.md": """---
title: Kettle
---
# Kettle

## Removing limescale

Descale the kettle every three months. Fill it with equal parts of water and vinegar, boil it twice, and leave it to
stand for an hour before you rinse it three times under cold water.
""",
    "dishwasher.md": """---
title: Dishwasher
url: https://example.org/dishwasher?lang=en#top
---
# Dishwasher

The filter of the dishwasher sits under the lower basket: turn it to the left, and lift it out.
""",
    "hostile.md": f"""---
title: "<b onmouseover='hacked=1'>Bobby</b> {TURNED}"
url: "javascript:window.hacked='address'"
---
# {HOSTILE}

## <svg onload="window.hacked='heading'">Tables</svg> of Bobby {TURNED}

Bobby Tables drops the students table. {HOSTILE} [click](javascript:window.hacked='link') &lt;b&gt;
""",
}
WORDS = {"title": "اسأل الوثائق", "placeholder": "اكتب سؤالك", "send": "إرسال", "searchedAs": "البحث عن: {question}"}


@dataclass
class Pages:
    """The pages of somebody else's site, by path: what stands in the head, in the body, and the policy."""

    address: str
    pages: dict[str, tuple[str, str]] = field(default_factory=dict)
    blocks: list[str] = field(default_factory=list)  # events of a reply, sent one by one when the test goes on
    steps: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def hold(self, *blocks: str) -> None:
        """Take the events of the next reply."""
        self.blocks = list(blocks)
        self.steps = threading.Semaphore(0)

    def go_on(self) -> None:
        """Send the next event."""
        self.steps.release()

    def add(self, path: str, html: str, policy: str = "") -> str:
        """Add a page; return its address."""
        self.pages[path] = (f'<!doctype html><html lang="en"><title>Docs</title>{html}', policy)
        return f"{self.address}{path}"


@contextmanager
def site() -> Iterator[Pages]:
    """Serve pages of somebody else, in a thread of the test."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/slow/widget.js":
                return self.answer("text/javascript", WIDGET.read_bytes())
            if self.path == "/slow/v1/chat/suggestions":
                return self.answer("application/json", b'{"greeting": "Hello!", "questions": [], "handoff": null}')
            html, policy = pages.pages.get(self.path, ("", ""))
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Referrer-Policy", "no-referrer")  # the widget names its origin all the same
            if policy:
                self.send_header("Content-Security-Policy", policy)
            self.end_headers()
            self.wfile.write(html.encode())

        def do_POST(self) -> None:
            self.answer("text/event-stream", b"")
            for block in pages.blocks:
                assert pages.steps.acquire(timeout=PATIENCE_S)
                self.wfile.write(block.encode())

        def answer(self, media_type: str, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Type", media_type)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        pages = Pages(f"http://127.0.0.1:{server.server_address[1]}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield pages
        server.shutdown()
        thread.join(timeout=10)


@dataclass(frozen=True)
class Stage:
    """A service that needs a key, and somebody else's pages that have one."""

    client: httpx.Client
    pages: Pages
    home: Path
    key: str

    @property
    def service(self) -> str:
        """Its address, without a slash at the end."""
        return str(self.client.base_url).rstrip("/")

    @property
    def policy(self) -> str:
        """As strict as a page's policy can be that lets the widget in."""
        return (
            f"default-src 'none'; script-src {self.service}; connect-src {self.service}; base-uri 'none'; "
            "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
        )

    def script(self, **data: str) -> str:
        """Return the line that puts the widget into a page."""
        said = {"key": self.key, "title": "Ask the handbook", **data}
        attributes = " ".join(f'data-{name}="{escape(value)}"' for name, value in said.items())
        return f'<script src="{self.service}/widget.js" {attributes} async></script>'

    def page(self, path: str = "/", *, before: str = "", body: str = "", **data: str) -> str:
        """Add a page with the widget; return its address."""
        html = f"{before}{self.script(**data)}<body><main><h1>Handbook</h1><p>Welcome.</p>{body}</main>"
        return self.pages.add(path, html, self.policy)

    @contextmanager
    def tab(self, browser: Browser, **options: Any) -> Iterator[Page]:
        """Open a tab for pages with the widget."""
        with tab(browser, self.pages.address, also=(self.service,), **options) as page:
            yield page

    def feedback(self) -> list[dict[str, Any]]:
        """Read what was kept, the latest last."""
        with closing(sqlite3.connect(self.home / STATE)) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute("SELECT * FROM feedback ORDER BY number")]


@pytest.fixture(scope="module")
def stage(encoder: Encoder, cache_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """The documents above, behind a key that is bound to the pages."""
    folder = tmp_path_factory.mktemp("documents")
    for doc_id, text in TEXTS.items():
        (folder / doc_id).write_text(text, encoding="utf-8")
    home = Home(tmp_path_factory.mktemp("widget"))
    sync(home, [Source(folder)], encoder)
    with site() as pages:
        with State(home.path) as state, closing(KeyStore(state)) as keys:
            _, key = keys.create("docs", Scope.ASK, origins=[pages.address])
        given = {"require_key": True, "chat_handoff": "help@example.org", "chat_questions": f"{RED}|{DESCALE}"}
        with serving(home.path, cache_folder, **given) as client:
            yield Stage(client, pages, home.path, key)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser for all tests here."""
    with launched() as browser:
        yield browser


@pytest.fixture
def page(browser: Browser, stage: Stage) -> Iterator[Page]:
    """A page of somebody else with the chat open."""
    with stage.tab(browser) as page:
        page.goto(stage.page())
        open_chat(page)
        yield page


def open_chat(page: Page) -> None:
    """Open the chat as a person does, and wait for its greeting."""
    page.get_by_role("button", name="Ask the handbook").click()
    expect(page.get_by_text("Hello! Ask me about these documents.").first).to_be_visible()


def answering(body: str, *, headers: dict[str, str], status: int = 200) -> Callable[[Route], None]:
    """Return what answers in place of the service."""
    shown = {"Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": "*", **headers}
    return lambda route: route.fulfill(status=status, headers=shown, body=body)


def ask(page: Page, question: str) -> Locator:
    """Ask as a person does; return the reply when it is there."""
    before = page.locator(".turns > li").count()
    page.get_by_label("Your question").fill(question)
    page.keyboard.press("Enter")
    turn = page.locator(".turns > li").nth(before)
    expect(turn).to_contain_text(question)
    expect(page.locator(".turns")).to_have_attribute("aria-busy", "false")
    return turn.locator(".reply")


# Asking


def test_an_answer_comes_word_for_word_with_its_sources(page: Page) -> None:
    reply = ask(page, RED)
    expect(reply.locator(".answer")).to_contain_text(NO_POWER)
    expect(reply.get_by_role("link", name="Source 1: Router › The lights (opens in a new tab)")).to_be_visible()
    expect(page.get_by_role("log")).to_contain_text(
        f"Very likely the answer: {NO_POWER} Router › The lights, line 8."
    )
    take_picture(page, "widget")


def test_the_reply_is_shown_as_it_comes(browser: Browser, stage: Stage) -> None:
    question = {"messages": [{"role": "user", "content": RED}, {"role": "assistant", "content": NO_POWER}]}
    question["messages"].append({"role": "user", "content": BLUE})
    pages = {"Authorization": f"Bearer {stage.key}", "Origin": stage.pages.address}
    whole = stage.client.post("/v1/chat", json=question, headers={**pages, "Accept": "text/event-stream"})
    blocks = re.findall(r"event: (?s:.*?)\n\n", whole.text)
    stage.pages.hold(*blocks)
    assert [block.split("\n")[0] for block in blocks] == [
        f"event: {name}" for name in ("searched", "answer", "passages", "suggestions", "done")
    ]
    with tab(browser, stage.pages.address) as page:
        page.goto(stage.pages.add("/slow", '<script src="/slow/widget.js" data-open></script><body>'))
        page.get_by_label("Your question").fill(BLUE)
        page.keyboard.press("Enter")
        reply = page.locator(".turns .reply")
        expect(reply.get_by_text("Looking in the documents…")).to_be_visible()
        parts = [reply.locator(name) for name in (".searched", ".answer", ".chips", ".row")]
        for number, shown in ((1, 1), (2, 2), (3, 3), (4, 3), (5, 4)):
            stage.pages.go_on()
            for place, part in enumerate(parts):
                expect(part.first).to_be_visible(visible=place < shown)
            is_done = number == len(blocks)
            expect(page.locator(".turns")).to_have_attribute("aria-busy", str(not is_done).lower())
            assert bool(page.get_by_role("log").text_content()) is is_done


def test_a_follow_up_can_be_undone_before_its_reply_is_there(browser: Browser, stage: Stage) -> None:
    searched = 'event: searched\ndata: {"searched_as":"x","leans_on":0}\nid: 1\n\n'
    answer = 'event: answer\ndata: {"kind":"thanks","content":"This is late."}\nid: 2\n\n'
    stage.pages.hold(searched, answer)
    with tab(browser, stage.pages.address) as page:
        page.goto(stage.pages.add("/slow", '<script src="/slow/widget.js" data-open></script><body>'))
        page.get_by_label("Your question").fill(BLUE)
        page.keyboard.press("Enter")
        stage.pages.go_on()
        undo = page.get_by_role("button", name="Ask just what I wrote")
        expect(undo).to_be_visible()
        stage.pages.blocks = ['event: answer\ndata: {"kind":"thanks","content":"This is new."}\nid: 1\n\n']
        stage.pages.blocks.append('event: done\ndata: {"topic":null,"suggestions":[]}\nid: 2\n\n')
        undo.click()
        for _ in range(4):
            stage.pages.go_on()
        expect(page.locator(".reply")).to_have_text("This is new.")
        expect(page.locator(".turns")).to_have_attribute("aria-busy", "false")


def test_a_follow_up_shows_what_was_searched_and_can_be_undone(page: Page) -> None:
    ask(page, RED)
    reply = ask(page, BLUE)
    expect(reply.locator(".searched")).to_contain_text(f"Searched as: “{AS_SEARCHED}”")
    expect(reply.locator(".answer")).to_contain_text("The blue light means that the router is connected.")
    expect(page.get_by_role("log")).to_contain_text(f"Searched as: {AS_SEARCHED}")
    take_picture(page, "widget-follow-up")
    with page.expect_request("**/v1/chat") as sent:
        reply.get_by_role("button", name="Ask just what I wrote").click()
    first, answer, last = sent.value.post_data_json["messages"]
    assert (first["content"], answer["content"], answer["role"]) == (RED, NO_POWER, "assistant")
    assert answer["topic"] == {"question": RED, "headings": ["Router", "The lights"]}
    assert last == {"role": "user", "content": BLUE, "standalone": True}
    expect(page.locator(".turns > li")).to_have_count(2)
    expect(reply.locator(".searched")).to_have_count(0)
    expect(page.get_by_label("Your question")).to_be_focused()


def test_the_topic_of_a_reply_without_an_answer_is_sent_back_as_none(page: Page) -> None:
    ask(page, UNKNOWN)
    with page.expect_request("**/v1/chat") as sent:
        ask(page, BLUE)
    assert sent.value.post_data_json["messages"][1]["topic"] is None


def test_what_is_not_found_is_said_so_with_places_and_somebody_to_ask(page: Page) -> None:
    reply = ask(page, UNKNOWN)
    expect(reply).to_contain_text("I found no answer to that in these documents.")
    expect(reply).to_contain_text("These places come nearest:")
    expect(reply.get_by_role("link", name="Ask a person")).to_have_attribute("href", "mailto:help@example.org")
    places = reply.locator(".places a")
    assert places.count() >= 1
    assert reply.locator(".answer, .chips").count() == 0
    expect(page.get_by_role("log")).to_contain_text("I found no answer to that in these documents. These places")
    take_picture(page, "widget-not-found")


def test_the_chat_opens_with_questions_to_choose_from(page: Page) -> None:
    take_picture(page, "widget-greeting")
    page.get_by_role("button", name=DESCALE).click()
    expect(page.locator(".turns .answer")).to_contain_text("Descale the kettle every three months.")
    ask(page, "help")
    expect(page.locator(".turns .asks button")).to_have_count(2)


# Sources


def test_a_chip_opens_the_marked_source_and_its_address_keeps_no_key(page: Page, stage: Stage) -> None:
    reply = ask(page, RED)
    with page.context.expect_page() as opened:
        reply.get_by_role("link", name="Source 1: Router › The lights").click()
    source = opened.value
    mark = source.locator(".lines mark")
    expect(mark).to_have_text(NO_POWER)
    expect(mark).to_be_in_viewport()
    assert re.fullmatch(rf"{stage.service}/documents/router\.md\?start=\d+&end=\d+&sha256=[0-9a-f]{{16}}", source.url)
    assert source.evaluate("history.length") == 1
    source.reload()
    expect(mark).to_have_text(NO_POWER)
    expect(source.get_by_role("button", name="Forget key")).to_be_visible()
    source.goto(f"{stage.service}/?q={RED}")
    expect(source.locator(".answer blockquote")).to_have_text(NO_POWER)


def test_only_a_key_that_is_public_anyway_is_taken_out_of_an_address(browser: Browser, stage: Stage) -> None:
    known = "sessionStorage.getItem('whence-key')"
    secret = f"whence_{'0' * 12}_{'0' * 64}"
    with tab(browser, stage.service, statuses=(401,)) as page:
        for given in (secret, "whence_pub_ä", "x"):
            page.goto("about:blank")
            page.goto(f"{stage.service}/documents/router.md#key={given}")
            expect(page.get_by_role("heading", name="A key is needed")).to_be_visible()
            assert page.evaluate(known) is None
            assert page.url.endswith("/documents/router.md")
        page.evaluate(f"sessionStorage.setItem('whence-key', '{secret}')")
        page.goto("about:blank")
        page.goto(f"{stage.service}/documents/router.md#key={stage.key}")
        expect(page.get_by_role("heading", name="This key is not known")).to_be_visible()
        assert page.evaluate(known) == secret


def test_a_document_with_an_address_of_its_own_is_opened_there_without_the_key(page: Page) -> None:
    reply = ask(page, "Where is the filter of the dishwasher?")
    link = reply.get_by_role("link", name="Source 1").first
    href = str(link.get_attribute("href"))
    assert href.startswith("https://example.org/dishwasher?lang=en#:~:text=The%20filter")
    assert "key" not in href
    assert link.get_attribute("target") == "_blank"
    assert link.get_attribute("rel") == "noopener noreferrer"


def test_a_quote_can_be_looked_at_without_leaving_the_page(page: Page) -> None:
    reply = ask(page, DESCALE)
    more = reply.get_by_role("button", name="Show the quote of source 1")
    expect(more).to_have_attribute("aria-expanded", "false")
    more.focus()
    page.keyboard.press("Enter")
    expect(more).to_have_attribute("aria-expanded", "true")
    preview = reply.locator(".preview").first
    expect(preview).to_contain_text("Kettle › Removing limescale · line 8")
    expect(preview.locator("mark")).to_have_text("Descale the kettle every three months.")
    assert "leave it to stand for an hour" in str(preview.locator("blockquote").text_content())
    take_picture(page, "widget-preview")
    page.keyboard.press("Enter")
    expect(preview).not_to_be_visible()


@pytest.mark.parametrize("clipboard", [True, False], ids=["clipboard", "no clipboard"])
def test_a_quote_is_copied_with_its_citation_and_without_the_key(
    browser: Browser, stage: Stage, clipboard: bool
) -> None:
    with stage.tab(browser, permissions=["clipboard-read", "clipboard-write"]) as page:
        if not clipboard:
            page.add_init_script("navigator.clipboard.writeText = undefined")
        page.goto(stage.page())
        open_chat(page)
        reply = ask(page, RED)
        reply.get_by_role("button", name="Copy with citation").click()
        expect(reply.get_by_role("button", name="Copied")).to_be_focused()
        expect(page.get_by_role("log")).to_have_text("Copied")
        quote, place, address = page.evaluate("navigator.clipboard.readText()").splitlines()
        assert (quote, place) == (f"“{NO_POWER}”", "— Router › The lights, line 8 (router.md)")
        assert re.fullmatch(rf"{stage.service}/documents/router\.md\?start=\d+&end=\d+&sha256=\w{{16}}", address)


# Feedback


def test_thumbs_are_kept_with_the_reason(page: Page, stage: Stage) -> None:
    reply = ask(page, DESCALE)
    reply.get_by_role("button", name="This did not help").click()
    reply.get_by_label("Out of date").check()
    reply.get_by_label("In your own words").fill("There is a newer kettle")
    take_picture(page, "widget-reason")
    with page.expect_response("**/v1/feedback") as sent:
        reply.get_by_role("button", name="Send").click()
    assert sent.value.status == 201
    expect(reply.get_by_text("Thank you.")).to_be_focused()
    kept = stage.feedback()[-1]
    assert (kept["rating"], kept["reason"]) == ("down", "Out of date: There is a newer kettle")
    assert (kept["question"], kept["answered"], kept["doc_id"]) == (DESCALE, 1, "kettle.md")
    text = TEXTS["kettle.md"]
    assert text[kept["start"] : kept["end"]] == "Descale the kettle every three months."
    reply = ask(page, UNKNOWN)
    reply.get_by_role("button", name="This did not help").click()
    reply.get_by_role("button", name="Cancel").click()
    expect(reply.get_by_role("button", name="This did not help")).to_be_focused()
    with page.expect_response("**/v1/feedback"):
        reply.get_by_role("button", name="This helped").click()
    kept = stage.feedback()[-1]
    assert (kept["rating"], kept["reason"], kept["answered"]) == ("up", None, 0)
    page.reload()
    open_chat(page)
    expect(page.get_by_text("Thank you.")).to_have_count(2)


# What the tab remembers


def test_the_conversation_stays_in_this_tab_until_a_new_one_is_begun(page: Page, stage: Stage) -> None:
    ask(page, RED)
    page.goto(stage.page("/other"))
    open_chat(page)
    reply = ask(page, BLUE)
    expect(reply.locator(".searched")).to_contain_text("(red light)")
    expect(page.locator(".turns > li")).to_have_count(2)
    other = page.context.new_page()
    other.goto(stage.page("/other"))
    open_chat(other)
    expect(other.locator(".turns > li")).to_have_count(0)
    page.get_by_role("button", name="New chat").click()
    expect(page.locator(".turns > li")).to_have_count(0)
    expect(page.get_by_label("Your question")).to_be_focused()
    page.reload()
    open_chat(page)
    expect(page.locator(".turns > li")).to_have_count(0)


def test_nothing_is_needed_of_the_browser_to_keep_a_conversation(browser: Browser, stage: Stage) -> None:
    with stage.tab(browser) as page:
        page.add_init_script(
            "Object.defineProperty(window, 'sessionStorage', { get() { throw new DOMException('no'); } })"
        )
        page.goto(stage.page())
        open_chat(page)
        ask(page, RED)
        expect(ask(page, BLUE).locator(".searched")).to_be_visible()


def test_a_question_that_was_not_answered_before_the_page_was_left_can_be_asked_again(page: Page) -> None:
    # Held by the browser until the page is left: a route that is taken away lets its request go on.
    held: list[Route] = []
    page.route("**/v1/chat", lambda route: route.continue_() if held else held.append(route))
    page.get_by_label("Your question").fill(RED)
    page.keyboard.press("Enter")
    expect(page.get_by_text("Looking in the documents…")).to_be_visible()
    page.reload()
    open_chat(page)
    expect(page.locator(".problem")).to_contain_text("This was not answered yet.")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".turns .answer")).to_contain_text(NO_POWER)


def test_of_a_long_conversation_the_oldest_part_is_left_out(browser: Browser, stage: Stage) -> None:
    reply = {"kind": "thanks", "content": "🦀" * 30_000, "topic": None, "isDone": True, "suggestions": []}
    turns = [{"question": f"Why {number}?", "standalone": False, "reply": reply} for number in range(32)]
    with stage.tab(browser, statuses=(0,)) as page:
        page.goto(stage.page())
        open_chat(page)
        page.evaluate(
            """([turns]) => {
              const drawer = Object.keys(sessionStorage).find((name) => name.startsWith("whence-chat"));
              sessionStorage.setItem(drawer, JSON.stringify({ opening: null, turns }));
            }""",
            [turns],
        )
        page.route("**/v1/chat", lambda route: route.abort())
        page.reload()
        open_chat(page)
        with page.expect_request("**/v1/chat") as sent:
            page.get_by_label("Your question").fill(RED)
            page.keyboard.press("Enter")
        messages = sent.value.post_data_json["messages"]
        assert len(messages) == MAX_MESSAGES - 1
        assert [messages[0]["content"], messages[-1]["content"]] == ["Why 1?", RED]
        assert messages[1]["content"] == "🦀" * MAX_MESSAGE
        expect(page.locator(".turns .problem")).to_be_visible()
        expect(page.locator(".turns > li")).to_have_count(MAX_MESSAGES // 2)


def test_no_cookie_is_sent_or_kept(page: Page, stage: Stage) -> None:
    page.context.add_cookies([{"name": "session", "value": "secret", "url": stage.service}])
    with page.expect_request("**/v1/chat") as sent:
        ask(page, RED)
    headers = sent.value.all_headers()
    assert "cookie" not in headers
    assert headers["referer"] == f"{stage.pages.address}/"
    assert [cookie["name"] for cookie in page.context.cookies()] == ["session"]


# When something is wrong


def test_a_page_of_another_origin_is_refused_and_told_so(browser: Browser, stage: Stage) -> None:
    elsewhere = stage.page().replace("127.0.0.1", "localhost")
    with tab(browser, elsewhere, also=(stage.service,), statuses=(0,)) as page:
        page.goto(elsewhere)
        page.get_by_role("button", name="Ask the handbook").click()
        notice = page.locator(".problem").first
        expect(notice).to_contain_text("This page may not use this chat")
        page.get_by_label("Your question").fill(RED)
        page.keyboard.press("Enter")
        expect(page.locator(".turns .problem")).to_contain_text("This page may not use this chat")
        expect(page.locator(".turns .problem")).to_contain_text(elsewhere.rstrip("/"))
        expect(page.get_by_role("log")).to_contain_text("This page may not use this chat")
        take_picture(page, "widget-refused")


def test_without_a_connection_the_question_is_kept_and_asked_again(browser: Browser, stage: Stage) -> None:
    with stage.tab(browser, statuses=(0,)) as page:
        page.goto(stage.page())
        open_chat(page)
        page.context.set_offline(True)
        page.get_by_label("Your question").fill(RED)
        page.keyboard.press("Enter")
        expect(page.locator(".turns .problem")).to_contain_text("There is no connection to the service.")
        take_picture(page, "widget-offline")
        page.context.set_offline(False)
        page.get_by_role("button", name="Try again").click()
        expect(page.locator(".turns .answer")).to_contain_text(NO_POWER)
        expect(page.locator(".turns > li")).to_have_count(1)


PROBLEMS: tuple[tuple[int, str | None, str], ...] = (
    (429, "rate_exceeded", "Too many questions were asked."),
    (503, "overloaded", "The service is busy or just starting."),
    (401, "key_unknown", "This chat is not set up: its key is missing, unknown or expired."),
    (403, "origin_refused", "This page may not use this chat"),
    (422, "invalid_question", "This cannot be asked."),
    (502, None, "Something went wrong."),
)


def test_a_problem_is_named_and_the_question_asked_again(browser: Browser, stage: Stage) -> None:
    with stage.tab(browser, statuses=tuple(status for status, _, _ in PROBLEMS)) as page:
        page.goto(stage.page())
        open_chat(page)
        for status, code, words in PROBLEMS:
            problem = json.dumps({"code": code, "detail": "Why so?", "request_id": "abc"}) if code else "<h1>Oh</h1>"
            wait = {"Retry-After": "1"} if status == 429 else {}
            page.route("**/v1/chat", answering(problem, status=status, headers=wait), times=1)
            page.get_by_label("Your question").fill(RED)
            page.keyboard.press("Enter")
            notice = page.locator(".turns .problem")
            expect(notice).to_contain_text(words)
            if code:
                expect(notice).to_contain_text("Why so? · abc")
            if wait:
                expect(notice.get_by_role("button", name="Try again in 1 s")).to_be_disabled()
            notice.get_by_role("button", name="Try again", exact=True).click()
            expect(page.locator(".turns > li").last.locator(".answer")).to_contain_text(NO_POWER)
        expect(page.locator(".turns > li")).to_have_count(len(PROBLEMS))


def test_a_reply_that_breaks_off_is_not_taken_for_a_whole_one(page: Page) -> None:
    cut = 'event: searched\ndata: {"searched_as":"x","leans_on":null}\nid: 1\n\nevent: answer\nda'
    failed = 'event: problem\ndata: {"code":"deadline","detail":"It waited too long."}\nid: 1\n\n'
    for body, words in ((cut, "There is no connection"), (failed, "It waited too long.")):
        page.route("**/v1/chat", answering(body, headers={"Content-Type": "text/event-stream"}), times=1)
        expect(ask(page, RED).locator(".problem")).to_contain_text(words)


# Safety


def test_nothing_that_a_document_says_can_run_or_turn_what_stands_around_it(page: Page, stage: Stage) -> None:
    reply = ask(page, "Which table does Bobby Tables drop?")
    expect(reply.locator(".answer")).to_contain_text("Bobby Tables drops the students table.")
    for more in reply.get_by_role("button", name="Show the quote").all():
        more.click()
    preview = reply.locator(".preview").first
    expect(preview).to_contain_text("<script>window.hacked = 'script'</script>")
    expect(preview).to_contain_text("[click](javascript:window.hacked='link')")
    expect(preview).to_contain_text("<b onmouseover='hacked=1'>Bobby</b>")
    preview.hover()
    page.mouse.wheel(0, 200)
    take_picture(page, "widget-hostile")
    shadow = "document.querySelector('whence-chat').shadowRoot"
    assert page.evaluate(f"{shadow}.querySelectorAll('img, script, b, svg[onload], [onerror]').length") == 0
    addresses = page.evaluate(f"[...{shadow}.querySelectorAll('a')].map((link) => link.protocol)")
    assert set(addresses) == {"http:"} | ({"https:"} if "https:" in addresses else set())
    assert page.evaluate("window.hacked") is None
    # What is said of the place still reads from left to right behind a title that turns what follows it.
    measure = """(node) => {
      const at = (place) => {
        const range = new Range();
        range.setStart(node.lastChild, node.lastChild.length - place);
        range.setEnd(node.lastChild, node.lastChild.length - place + 1);
        return range.getBoundingClientRect().left;
      };
      return at(4) < at(2);
    }"""
    place = preview.locator("p.small")
    expect(place).to_have_text(re.compile(r" · line 9$"))
    assert place.evaluate(measure) is True
    place.evaluate("(node) => { node.textContent = node.textContent; }")
    assert place.evaluate(measure) is False


def test_an_address_that_is_none_of_the_web_is_no_link(page: Page, stage: Stage) -> None:
    urls = iter(
        ("javascript:window.hacked=1", "data:text/html,x", "//elsewhere.example/x", "https://[", "", "vbscript:x")
    )

    def bent(route: Route) -> None:
        response = route.fetch()
        route.fulfill(response=response, body=re.sub(r'"url":"[^"]*"', f'"url":"{next(urls)}"', response.text()))

    page.route("**/v1/chat", bent)
    for question in (RED, UNKNOWN) * 3:
        for link in ask(page, question).locator("a").all():
            assert str(link.get_attribute("href")).startswith(f"{stage.service}//elsewhere.example/x")
    assert next(urls, None) is None
    assert page.evaluate("window.hacked") is None


# Keyboard and screen reader


def test_everything_can_be_done_with_the_keyboard(browser: Browser, stage: Stage) -> None:
    with stage.tab(browser) as page:
        page.goto(stage.page(body='<a href="#x">Elsewhere</a>'))
        bubble = page.get_by_role("button", name="Ask the handbook")
        expect(bubble).to_have_attribute("aria-expanded", "false")
        page.keyboard.press("Tab")
        page.keyboard.press("Tab")
        expect(bubble).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.get_by_role("dialog", name="Ask the handbook")).to_be_visible()
        expect(page.get_by_label("Your question")).to_be_focused()
        page.keyboard.type("What does the red")
        page.keyboard.press("Shift+Enter")
        page.keyboard.type("light mean?")
        page.keyboard.press("Enter")
        reply = page.locator(".turns .reply")
        expect(reply.locator(".answer")).to_contain_text(NO_POWER)
        expect(page.locator(".asked")).to_contain_text("What does the red\nlight mean?")
        chip = reply.get_by_role("link", name="Source 1: Router")
        for _ in range(12):
            page.keyboard.press("Shift+Tab")
            if chip.evaluate("(node) => node.matches(':focus')"):
                break
        expect(chip).to_be_focused()
        for _ in range(30):
            page.keyboard.press("Tab")
            assert page.evaluate("document.activeElement.localName") in ("whence-chat", "body")
            assert page.evaluate("!document.activeElement.matches('a')")
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_have_count(0)
        expect(bubble).to_be_focused()
        expect(bubble).to_have_attribute("aria-expanded", "false")


def test_a_character_that_is_being_composed_is_not_sent(page: Page) -> None:
    box = page.get_by_label("Your question")
    box.fill("ねこ")
    box.dispatch_event("keydown", {"key": "Enter", "isComposing": True})
    box.dispatch_event("keydown", {"key": "Enter", "keyCode": 229})
    expect(box).to_have_value("ねこ")
    expect(page.locator(".turns > li")).to_have_count(0)


def test_shortcuts_of_the_page_do_not_see_what_is_typed(page: Page) -> None:
    page.evaluate("document.addEventListener('keydown', ({ key }) => { (window.keys ??= []).push(key); })")
    page.get_by_label("Your question").press_sequentially("s/k")
    expect(page.get_by_label("Your question")).to_have_value("s/k")
    assert page.evaluate("window.keys") is None


def test_a_click_beside_the_chat_closes_it(page: Page) -> None:
    page.mouse.click(100, 100)
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.evaluate("document.querySelector('whence-chat').open()")
    expect(page.get_by_role("dialog")).to_be_visible()


# Looks

SCENES: dict[str, dict[str, Any]] = {
    "light": {},
    "dark": {"color_scheme": "dark"},
    "rtl": {"lang": "ar", "dir": "rtl"},
    "chosen": {"theme": "dark", "position": "start"},
}


@pytest.mark.parametrize("scene", SCENES)
def test_nobody_is_kept_out(browser: Browser, stage: Stage, scene: str) -> None:
    data = {**SCENES[scene]}
    scheme = data.pop("color_scheme", "light")
    strings = json.dumps(WORDS) if scene == "rtl" else "{}"
    title = WORDS["title"] if scene == "rtl" else "Ask the handbook"
    options = {"color_scheme": scheme, "reduced_motion": "reduce"}
    with stage.tab(browser, **options) as page:
        page.goto(stage.page(strings=strings, **{**data, "title": title}))
        assert barriers(page) == []
        page.get_by_role("button", name=title).click()
        for question in (RED, BLUE, UNKNOWN):
            page.locator("textarea").fill(question)
            page.keyboard.press("Enter")
            expect(page.locator(".turns")).to_have_attribute("aria-busy", "false")
            expect(page.locator(".turns .row").last).to_be_visible()
        page.locator(".chip button").first.click()
        page.locator(".turns .row button").last.click()
        expect(page.locator(".why")).to_be_visible()
        assert barriers(page) == []
        page.locator(".log").evaluate("(node) => { node.scrollTop = 210; }")
        take_picture(page, f"widget-{scene}")
        panel = page.get_by_role("dialog")
        is_dark = panel.evaluate("(node) => getComputedStyle(node).backgroundColor") == "rgb(29, 27, 24)"
        assert is_dark is (scene in ("dark", "chosen"))
        left = panel.evaluate("(node) => node.getBoundingClientRect().left")
        assert (left < 100) is (scene in ("rtl", "chosen"))
        assert panel.evaluate("(node) => getComputedStyle(node).animationName") == "none"


def test_words_can_be_replaced_and_the_direction_of_the_page_is_followed(browser: Browser, stage: Stage) -> None:
    html = stage.script(title="", strings=json.dumps({**WORDS, "unknown": "x", "note": 7})).replace(">", ">", 1)
    address = stage.pages.add("/rtl", f'<html dir="rtl">{html}<body><main><h1>دليل</h1></main>', stage.policy)
    with stage.tab(browser) as page:
        page.goto(address)
        page.get_by_role("button", name=WORDS["title"]).click()
        expect(page.get_by_placeholder(WORDS["placeholder"])).to_be_focused()
        expect(page.get_by_text("Answers are quoted word for word.")).to_be_visible()
        assert page.get_by_role("dialog").evaluate("(node) => getComputedStyle(node).direction") == "rtl"


def test_words_that_are_no_json_are_named_in_the_console(browser: Browser, stage: Stage) -> None:
    with browser.new_context() as context:
        page = context.new_page()
        said: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        page.goto(stage.page(strings="{send: x}"))
        open_chat(page)
        assert len(said) == 1
        assert said[0].startswith("whence-chat: data-strings is no JSON object, so the words are English.")


def test_a_narrow_screen_is_filled_and_nothing_sticks_out(browser: Browser, stage: Stage) -> None:
    with stage.tab(browser, viewport=NARROW, has_touch=True) as page:
        page.goto(stage.page())
        open_chat(page)
        for question in (RED, BLUE, "Which table does Bobby Tables drop?", "w" * 200):
            ask(page, question)
        page.locator(".chip button").first.click()
        box = page.get_by_role("dialog").bounding_box()
        assert box == {"x": 0, "y": 0, **NARROW}
        assert page.evaluate("document.documentElement.scrollWidth") == NARROW["width"]
        assert page.locator(".log").evaluate("(node) => [node.scrollWidth - node.clientWidth]") == [0]
        page.locator(".log").evaluate("(node) => { node.scrollTop = 260; }")
        take_picture(page, "widget-small")
        page.get_by_role("button", name="Close").click()
        expect(page.get_by_role("button", name="Ask the handbook")).to_be_visible()


def test_the_page_sets_the_looks_by_custom_properties(browser: Browser, stage: Stage) -> None:
    style = (
        "<style>whence-chat { --whence-accent: rgb(11, 87, 208); --whence-radius: 3px; }"
        "* { letter-spacing: 1em; } body { font-size: 40px; text-transform: uppercase; display: grid; }</style>"
    )
    with stage.tab(browser) as page:
        page.goto(stage.pages.add("/styled", f"{style}{stage.script()}<body><main><h1>Docs</h1></main>"))
        bubble = page.get_by_role("button", name="Ask the handbook")
        assert bubble.evaluate("(node) => getComputedStyle(node).backgroundColor") == "rgb(11, 87, 208)"
        open_chat(page)
        looks = page.get_by_role("dialog").evaluate(
            "(node) => [getComputedStyle(node).fontSize, getComputedStyle(node).textTransform]"
        )
        assert looks == ["16px", "none"]


# Putting it into a page


def test_it_can_be_loaded_in_any_way_and_comes_once(browser: Browser, stage: Stage) -> None:
    with stage.tab(browser) as page:
        for how in ("async", "defer", 'type="module"', "crossorigin", ""):
            line = stage.script().replace("async", how)
            html = f"{line}{line}<body><main><h1>Docs</h1></main>{line}"
            page.goto(stage.pages.add("/any", html, stage.policy))
            expect(page.locator("whence-chat")).to_have_count(1)
            open_chat(page)
            expect(ask(page, RED).locator(".answer")).to_contain_text(NO_POWER)


def test_it_can_be_a_part_of_somebody_elses_script(browser: Browser, stage: Stage) -> None:
    chat = f'<whence-chat data-host="{stage.service}" data-key="{stage.key}"></whence-chat>'
    script = '<script type="module">import "/slow/widget.js";</script>'
    with stage.tab(browser) as page:
        page.goto(stage.pages.add("/bundled", f"{script}<body><main><h1>Docs</h1>{chat}</main>"))
        expect(ask(page, RED).locator(".answer")).to_contain_text(NO_POWER)


def test_it_can_stand_in_the_page_itself(browser: Browser, stage: Stage) -> None:
    with stage.tab(browser) as page:
        page.goto(stage.page(body="<whence-chat data-title='Ask here'></whence-chat><a href='#x'>Elsewhere</a>"))
        expect(page.get_by_role("region", name="Ask here")).to_be_visible()
        expect(page.get_by_role("dialog")).to_have_count(0)
        expect(page.get_by_role("button", name="Close")).to_have_count(0)
        expect(ask(page, RED).locator(".answer")).to_contain_text(NO_POWER)
        take_picture(page, "widget-inline")
        assert barriers(page) == []
        for _ in range(30):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.matches('a')"):
                break
        expect(page.get_by_role("link", name="Elsewhere")).to_be_focused()
        page.evaluate("document.body.append(document.querySelector('whence-chat'))")
        expect(page.locator(".turns .answer")).to_contain_text(NO_POWER)
    with stage.tab(browser) as page:
        page.goto(stage.page(inline=""))
        page.evaluate("document.body.append(document.createElement('whence-chat'))")
        expect(page.locator("whence-chat")).to_have_count(1)
        expect(page.get_by_role("region", name="Ask the handbook")).to_be_visible()


def test_it_opens_with_the_page_if_wanted_until_it_is_closed(browser: Browser, stage: Stage) -> None:
    with stage.tab(browser) as page:
        page.goto(stage.page(open=""))
        expect(page.get_by_role("dialog")).to_be_visible()
        page.get_by_role("button", name="Close").click()
        page.reload()
        expect(page.get_by_role("button", name="Ask the handbook")).to_be_visible()
        expect(page.get_by_role("dialog")).to_have_count(0)


@pytest.mark.parametrize("coding", ["gzip, br", "identity"])
def test_the_script_is_for_every_page_and_revalidated(stage: Stage, coding: str) -> None:
    headers = {"Origin": "https://anywhere.example", "Accept-Encoding": coding}
    first = stage.client.get("/widget.js", headers=headers)
    assert first.headers["content-type"] == "text/javascript; charset=utf-8"
    assert first.headers["cache-control"] == "no-cache"
    assert first.headers["cross-origin-resource-policy"] == "cross-origin"
    assert first.headers["access-control-allow-origin"] == "*"
    assert "Accept-Encoding" in first.headers["vary"]
    assert first.text == WIDGET.read_text(encoding="utf-8")
    length = int(first.headers["content-length"])
    assert length < LARGEST if coding != "identity" else length == WIDGET.stat().st_size
    again = stage.client.get("/widget.js", headers={**headers, "If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["cross-origin-resource-policy"] == "cross-origin"
    assert stage.client.head("/widget.js", headers=headers).headers["content-length"] == str(length)


def test_it_is_small_and_knows_the_bounds_and_codes_of_the_service() -> None:
    script = WIDGET.read_text(encoding="utf-8")
    assert len(gzip.compress(script.encode(), 9, mtime=0)) < LARGEST
    assert not re.search(r"innerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", script)
    bounds = dict(re.findall(r"const (MAX_[A-Z]+) = ([\d_]+);", script))
    assert {name: int(value) for name, value in bounds.items()} == {
        "MAX_MESSAGES": MAX_MESSAGES,
        "MAX_MESSAGE": MAX_MESSAGE,
        "MAX_QUESTION": MAX_QUESTION_CHARS,
        "MAX_REASON": MAX_REASON,
    }
    codes = re.findall(r"(\w+): \"", script.partition("const WORDS_OF")[2].partition("};")[0])
    assert set(codes) - CODES.keys() == {"offline", "interrupted"}


# The demo page


def test_the_demo_asks_for_a_key_and_shows_how_to_embed_the_chat(browser: Browser, stage: Stage) -> None:
    with tab(browser, stage.service, statuses=(401,)) as page:
        page.goto("/demo")
        expect(page.get_by_role("heading", name="A key is needed")).to_be_visible()
        expect(page.get_by_role("button", name="Open the chat")).to_be_disabled()
        page.get_by_label("Key", exact=True).fill(stage.key)
        page.keyboard.press("Enter")
        page.get_by_role("button", name="Open the chat").click()
        reply = ask(page, RED)
        expect(reply.locator(".answer")).to_contain_text(NO_POWER)
        take_picture(page, "demo")
        with page.context.expect_page() as opened:
            reply.get_by_role("link", name="Source 1: Router").click()
        expect(opened.value.locator(".lines mark")).to_have_text(NO_POWER)
        page.get_by_role("button", name="Close").click()
        expect(page.locator("#snippet")).to_contain_text(f'<script src="{stage.service}/widget.js"')
        expect(page.locator("#policy")).to_contain_text(f"script-src {stage.service}; connect-src {stage.service}")


def test_the_demo_keeps_nobody_out_and_works_below_a_prefix(
    browser: Browser, stage: Stage, cache_folder: Path
) -> None:
    with serving(stage.home, cache_folder, root_path="/tools/whence") as client:
        base = f"{client.base_url}/tools/whence/"
        for scheme in ("light", "dark"):
            with tab(browser, base, color_scheme=scheme, reduced_motion="reduce") as page:
                page.goto("./demo")
                take_picture(page, f"demo-{scheme}")
                assert barriers(page) == []
                page.get_by_role("button", name="Open the chat").click()
                reply = ask(page, RED)
                with page.context.expect_page() as opened:
                    reply.get_by_role("link", name="Source 1: Router").click()
                expect(opened.value.locator(".lines mark")).to_have_text(NO_POWER)
                assert urlsplit(opened.value.url).path == "/tools/whence/documents/router.md"
                page.get_by_role("button", name="Close").click()
                page.get_by_role("button", name="Dark colours").click()
                page.get_by_role("button", name="Open the chat").click()
                panel = page.get_by_role("dialog").evaluate("(node) => getComputedStyle(node).colorScheme")
                assert panel == ("light" if scheme == "dark" else "dark")
