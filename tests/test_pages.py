"""The pages in a real browser: ask, see the sentence, follow its citation to the source, and go back."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from live import serving

from index.build import BuildSettings, sync
from index.embeddings import Encoder
from index.generations import Home
from index.sources import Source
from index.state import State
from service.auth import KeyStore, Scope

if os.environ.get("CI_BROWSER") != "1":
    pytest.importorskip("playwright", reason="playwright is not installed. Install it: pip install '.[test]'")

from browser import PHONE, barriers, launched, tab, take_picture
from playwright.sync_api import Browser, Page, expect

QUESTION = "How often should I descale the kettle?"
SENTENCE = "Descale the kettle every three months."
UNKNOWN = "Who composed the opera about the barber of Seville?"
BLUE = "What does the blue light of the 🦀 router mean?"
SCRIPT = "<img src=x onerror=\"window.hacked = 'text'\"><script>window.hacked = 'script'</script>"
CRUMBS = "Empty the crumb tray of the toaster once a week, over a bin, and never while the toaster is plugged in."
TEXTS = {
    "kettle.md": f"""---
title: Kettle
product: kettle
---
# Kettle

## Removing limescale

{SENTENCE} Fill it with equal parts of water and vinegar, boil it twice, and leave it to
stand for an hour before you rinse it three times under cold water.

## Spare parts

Write down the number under the base of the kettle, and send it to the workshop with your address.
""",
    "guide/router & lights (ä) 50%?#1.md": """# Router 🦀🦀🦀

🎉🎉🎉 Thank you 👩‍👩‍👧‍👦 for choosing this router 🦀, and welcome 𝔱𝔬 𝔦𝔱𝔰 𝔪𝔞𝔫𝔲𝔞𝔩.

## The lights

The red light means that there is no power. The blue light of the 🦀 router means that it is connected.
All is well then.
""",
    "dishwasher.md": """---
url: https://example.org/dishwasher?lang=en#top
---
# Dishwasher

The filter of the dishwasher sits under the lower basket - turn it to the left, lift it out and rinse it under warm
water once a month.
""",
    "toaster.md": f"# Toaster\n\n## How to empty the crumb tray\n\n{CRUMBS}\n",
    "kitchen/toaster again.md": f"# Toaster\n\n{CRUMBS.upper()}\n",
    "עברית.md": "# מגהץ\n\nIroning אינו מותר על משי. המגהץ מתחמם תוך שתי דקות בלבד.\n",
    "hostile.md": f"""---
title: "<b onmouseover='hacked=1'>Bobby</b> <script>window.hacked = 'title'</script>"
author: "{SCRIPT.replace('"', "'")}"
homepage: "javascript:window.hacked='metadata'"
---
# {SCRIPT}

## <svg onload="window.hacked='heading'">Tables</svg> of Bobby

Bobby Tables drops the students table. {SCRIPT} [click](javascript:window.hacked='link') &lt;b&gt;
""",
}
HOSTILE_QUESTION = "Which table does Bobby Tables drop?"


@pytest.fixture(scope="module")
def pages_home(encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with the documents above."""
    folder = tmp_path_factory.mktemp("documents")
    for doc_id, text in TEXTS.items():
        path = folder / doc_id
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    home = Home(tmp_path_factory.mktemp("pages"))
    sync(home, [Source(folder)], encoder)
    return home.path


@pytest.fixture(scope="module")
def client(pages_home: Path, cache_folder: Path) -> Iterator[httpx.Client]:
    """A client of the service over the documents above."""
    with serving(pages_home, cache_folder) as client:
        yield client


@pytest.fixture(scope="module")
def base(client: httpx.Client) -> str:
    """Where that service is."""
    return address_of(client)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser for all tests here; closed before others need the event loop of this thread."""
    with launched() as browser:
        yield browser


@pytest.fixture
def page(browser: Browser, base: str) -> Iterator[Page]:
    """A tab in which nothing may go wrong."""
    with tab(browser, base) as page:
        yield page


def address_of(client: httpx.Client) -> str:
    """Return the address of a service, with a slash at the end."""
    return f"{str(client.base_url).rstrip('/')}/"


def ask(page: Page, question: str) -> None:
    """Ask as a person does, and wait for what comes."""
    page.get_by_label("Your question").fill(question)
    page.keyboard.press("Enter")
    expect(page.locator(".answered")).to_be_visible()


def cited(client: httpx.Client, question: str) -> dict[str, object]:
    """Return the citation of an answer, over HTTP."""
    answer = client.post("/v1/ask", json={"question": question}).json()
    citation: dict[str, object] = answer["answer"]["citation"]
    return citation


def marked(page: Page) -> str:
    """Return the text that is marked in a source."""
    expect(page.locator(".lines mark").first).to_be_focused()
    return "".join(page.locator(".lines mark").all_text_contents())


# Asking


def test_the_answer_stands_above_and_its_sentence_is_marked_in_its_passage(page: Page) -> None:
    page.goto("./")
    expect(page.get_by_label("Your question")).to_be_focused()
    ask(page, QUESTION)
    expect(page.locator(".answer blockquote")).to_have_text(SENTENCE)
    chance = re.compile(r"^(Very likely|Likely|Possibly) the answer(\d+|more than 99) %$")
    expect(page.locator(".confidence")).to_have_text(chance)
    first = page.locator("article").first
    expect(first.locator("mark")).to_have_text(SENTENCE)
    expect(first.locator("h3")).to_have_text("Kettle")
    expect(first.locator(".where")).to_have_text("Removing limescale · lines 9–10 · kettle.md")
    # Prose that was wrapped at some width flows.
    assert "leave it to stand for an hour" in first.locator("blockquote").text_content()
    expect(page).to_have_title(f"{QUESTION} – Whence")
    expect(page.get_by_role("status")).to_contain_text(SENTENCE)
    take_picture(page, "answer")


def test_the_words_for_confidence_are_those_of_the_command_line(page: Page) -> None:
    page.goto("./")
    words = page.evaluate(
        "import('./static/place.js').then(({ sureness }) => [1, 0.9, 0.89, 0.7, 0.69].map(sureness))"
    )
    assert words == [
        "Very likely the answer",
        "Very likely the answer",
        "Likely the answer",
        "Likely the answer",
        "Possibly the answer",
    ]


def test_a_citation_leads_to_the_marked_quote_and_back_to_its_passage(page: Page) -> None:
    page.goto("./")
    ask(page, QUESTION)
    page.locator("article a.source").first.click()
    expect(page).to_have_title("Kettle – Whence")
    assert marked(page).startswith(SENTENCE)
    expect(page.locator(".lines mark").first).to_be_in_viewport()
    expect(page.get_by_role("button", name="Go to lines 9–10")).to_be_visible()
    take_picture(page, "source")
    page.get_by_role("link", name="Back to").click()
    expect(page.locator("article").first).to_be_focused()
    expect(page.get_by_label("Your question")).to_have_value(QUESTION)


def test_an_address_can_be_shared_reloaded_and_gone_back_to(page: Page) -> None:
    page.goto(f"./?q={QUESTION}")
    expect(page.locator(".answer blockquote")).to_have_text(SENTENCE)
    ask(page, HOSTILE_QUESTION)
    assert page.url.endswith("?q=Which+table+does+Bobby+Tables+drop%3F")
    page.reload()
    expect(page.locator(".answer blockquote")).to_contain_text("Bobby Tables drops the students table.")
    page.go_back()
    expect(page.locator(".answer blockquote")).to_have_text(SENTENCE)
    expect(page.get_by_label("Your question")).to_have_value(QUESTION)
    page.go_forward()
    expect(page.locator(".answer blockquote")).to_contain_text("Bobby Tables drops the students table.")


def test_everything_can_be_done_with_the_keyboard(page: Page) -> None:
    page.goto("./")
    page.keyboard.type("How often should I")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("descale the kettle?")
    page.keyboard.press("Enter")
    expect(page.locator(".answer blockquote")).to_have_text(SENTENCE)
    page.keyboard.press("ArrowDown")
    expect(page.locator("article[data-rank='1']")).to_be_focused()
    page.keyboard.press("j")
    page.keyboard.press("ArrowDown")
    expect(page.locator("article[data-rank='3']")).to_be_focused()
    page.keyboard.press("k")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Enter")
    assert marked(page).startswith(SENTENCE)
    page.keyboard.press("Escape")
    expect(page.locator("article[data-rank='1']")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.get_by_label("Your question")).to_be_focused()
    page.keyboard.press("Escape")
    page.keyboard.press("/")
    expect(page.get_by_label("Your question")).to_be_focused()


def test_keys_without_a_modifier_can_be_switched_off(page: Page) -> None:
    page.goto(f"./?q={QUESTION}")
    expect(page.locator("article").first).to_be_visible()
    page.get_by_role("button", name="Keyboard shortcuts").click()
    page.get_by_label("Use the keys").uncheck()
    page.get_by_role("button", name="Close").click()
    page.keyboard.press("j")
    expect(page.locator("article").first).not_to_be_focused()
    page.reload()
    page.get_by_role("button", name="Keyboard shortcuts").click()
    expect(page.get_by_label("Use the keys")).not_to_be_checked()


def test_the_header_can_be_skipped(page: Page) -> None:
    page.goto("documents/kettle.md")
    expect(page.get_by_role("heading", level=1)).to_have_text("Kettle")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("main")).to_be_focused()
    assert page.url.endswith("/documents/kettle.md")


def test_what_is_not_in_the_documents_is_not_found_and_the_nearest_are_named_so(page: Page) -> None:
    page.goto("./")
    ask(page, UNKNOWN)
    expect(page.get_by_role("heading", name="Not found in the documents")).to_be_visible()
    expect(page.get_by_role("heading", name="Nearest passages")).to_be_visible()
    expect(page.locator(".not-found")).to_contain_text("likely to answer")
    expect(page.get_by_role("status")).to_have_text(
        re.compile(r"^Not found in the documents\. \d passages near it\.$")
    )
    take_picture(page, "not-found")


def test_headings_of_the_documents_become_questions_to_begin_with(page: Page) -> None:
    page.goto("./")
    expect(page.get_by_role("button", name="What about Removing limescale?")).to_be_visible()
    expect(page.get_by_role("button", name="How to empty the crumb tray?")).to_be_visible()
    take_picture(page, "welcome")
    page.get_by_role("button", name="How to empty the crumb tray?").click()
    expect(page.locator("article").first.locator(".where")).to_contain_text("How to empty the crumb tray")
    page.go_back()
    expect(page.get_by_role("heading", name="For example")).to_be_visible()


def test_without_documents_the_page_says_how_to_add_some(
    browser: Browser, home: Home, encoder: Encoder, cache_folder: Path
) -> None:
    sync(home, [], encoder, settings=BuildSettings(allow_empty=True))
    with serving(home.path, cache_folder, bundled=False) as client, tab(browser, address_of(client)) as page:
        page.goto("./")
        expect(page.get_by_role("heading", name="There are no documents yet")).to_be_visible()
        ask(page, QUESTION)
        expect(page.locator(".not-found")).to_contain_text("Nothing in them comes near it.")
        expect(page.locator("article")).to_have_count(0)


def test_scores_can_be_looked_at_and_other_places_are_listed(page: Page) -> None:
    page.goto("./")
    ask(page, "How often should the crumb tray be emptied?")
    first = page.locator("article").first
    expect(first.locator("dl")).not_to_be_visible()
    first.get_by_text("Scores").click()
    expect(first.locator("dl")).to_contain_text("BM25")
    expect(first).to_contain_text("kitchen/toaster again.md")
    expect(first.locator(".also")).to_contain_text("Also inToaster › How to empty the crumb tray, line 5 toaster.md")
    first.locator(".also a").click()
    assert marked(page) == CRUMBS


def test_a_quote_is_copied_with_its_citation(browser: Browser, base: str, client: httpx.Client) -> None:
    with tab(browser, base, permissions=["clipboard-read", "clipboard-write"]) as page:
        page.goto(f"./?q={QUESTION}")
        page.locator(".answer").get_by_role("button", name="Copy with citation").click()
        expect(page.get_by_role("status")).to_have_text("Copied")
        quote, place, address = page.evaluate("navigator.clipboard.readText()").splitlines()
        assert quote == f"“{SENTENCE}”"
        assert place == "— Kettle › Removing limescale, line 9 (kettle.md)"
        page.goto(address)
        assert marked(page) == SENTENCE == cited(client, QUESTION)["quote"]
        page.get_by_role("button", name="Copy with citation").click()
        expect(page.get_by_role("status")).to_have_text("Copied")
        assert page.evaluate("navigator.clipboard.readText()").splitlines()[2] == address


def test_a_quote_is_copied_where_there_is_no_clipboard_for_pages(page: Page) -> None:
    page.add_init_script("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    page.goto(f"./?q={QUESTION}")
    page.locator(".answer").get_by_role("button", name="Copy with citation").click()
    expect(page.get_by_role("status")).to_have_text("Copied")


def test_thumbs_are_kept_with_the_reason(page: Page) -> None:
    page.goto(f"./?q={QUESTION}")
    row = page.locator(".feedback")
    row.get_by_role("button", name="No").click()
    page.get_by_label("Out of date").check()
    page.get_by_label("In your own words").fill("There is a newer kettle")
    with page.expect_response("**/v1/feedback") as sent:
        page.get_by_role("button", name="Send").click()
    assert sent.value.status == 201
    report = json.loads(sent.value.request.post_data or "")
    assert (report["rating"], report["reason"]) == ("down", "Out of date: There is a newer kettle")
    assert (report["question"], report["answered"]) == (QUESTION, True)
    assert report["citation"]["document"] == "kettle.md"
    expect(row).to_contain_text("Thank you")
    page.reload()
    with page.expect_response("**/v1/feedback") as sent:
        row.get_by_role("button", name="Yes").click()
    assert sent.value.status == 201


# Waiting, errors, keys


def test_a_slow_answer_is_waited_for_and_a_new_question_takes_its_place(page: Page) -> None:
    page.route("**/v1/ask", lambda _: None)
    page.goto(f"./?q={UNKNOWN}")
    expect(page.get_by_text("Looking in the documents…")).to_be_visible()
    take_picture(page, "loading")
    page.unroute("**/v1/ask")
    ask(page, QUESTION)
    expect(page.locator(".answer blockquote")).to_have_text(SENTENCE)


def test_a_busy_service_is_asked_again_when_it_said(browser: Browser, base: str) -> None:
    problem = {"code": "overloaded", "detail": "512 questions wait.", "status": 503, "request_id": "abc"}
    refusal = {"status": 503, "headers": {"Retry-After": "1"}, "json": problem}
    with tab(browser, base, statuses=(503,)) as page:
        page.route("**/v1/ask", lambda route: route.fulfill(**refusal), times=1)
        page.goto(f"./?q={QUESTION}")
        notice = page.locator(".problem")
        expect(notice).to_contain_text("512 questions wait.")
        expect(notice).to_contain_text("Request abc")
        expect(notice.get_by_role("button")).to_be_disabled()
        take_picture(page, "error")
        notice.get_by_role("button", name="Try again", exact=True).click()
        expect(page.locator(".answer blockquote")).to_have_text(SENTENCE)


def test_a_starting_service_is_asked_again_by_itself(browser: Browser, base: str) -> None:
    problem = {"code": "starting", "detail": "The index is not loaded yet.", "status": 503, "request_id": ""}
    refusal = {"status": 503, "headers": {"Retry-After": "1"}, "json": problem}
    with tab(browser, base, statuses=(503,)) as page:
        page.route("**/v1/ask", lambda route: route.fulfill(**refusal), times=1)
        page.goto(f"./?q={QUESTION}")
        expect(page.get_by_role("heading", name="Whence is starting")).to_be_visible()
        expect(page.locator(".answer blockquote")).to_have_text(SENTENCE)


def test_a_question_that_cannot_be_asked_is_explained(browser: Browser, base: str) -> None:
    with tab(browser, base, statuses=(422,)) as page:
        page.goto("./")
        page.get_by_label("Your question").fill("why " * 2_000)
        page.get_by_role("button", name="Ask", exact=True).click()
        expect(page.locator(".problem")).to_contain_text("7,999 characters; at most 4,000 can be asked")


def test_without_a_network_the_page_says_so_and_goes_on_when_it_is_back(browser: Browser, base: str) -> None:
    with tab(browser, base, statuses=(0,)) as page:
        page.goto("./")
        expect(page.locator(".examples")).to_be_visible()
        page.context.set_offline(True)
        page.get_by_label("Your question").fill(QUESTION)
        page.keyboard.press("Enter")
        expect(page.locator(".problem")).to_contain_text("This device is not connected to a network.")
        page.context.set_offline(False)
        expect(page.locator(".answer blockquote")).to_have_text(SENTENCE)


def test_a_key_is_asked_for_and_kept_in_the_tab_only(
    browser: Browser, pages_home: Path, cache_folder: Path, tmp_path: Path
) -> None:
    state = State(pages_home)
    _, token = KeyStore(state).create("reader", Scope.ASK)
    state.close()
    with (
        serving(pages_home, cache_folder, require_key=True) as client,
        tab(browser, address_of(client), statuses=(401,), accept_downloads=True) as page,
    ):
        page.goto(f"./?q={QUESTION}")
        expect(page.get_by_role("heading", name="A key is needed")).to_be_visible()
        take_picture(page, "key")
        page.get_by_label("Key", exact=True).fill("whence_0_wrong")
        page.get_by_role("button", name="Use this key").click()
        expect(page.get_by_role("heading", name="This key is not known")).to_be_visible()
        page.get_by_label("Key", exact=True).fill(f" {token} ")
        page.get_by_role("button", name="Use this key").click()
        expect(page.locator(".answer blockquote")).to_have_text(SENTENCE)
        assert page.evaluate("[JSON.stringify(sessionStorage), localStorage.length, document.cookie]") == [
            json.dumps({"whence-key": token}, separators=(",", ":")),
            0,
            "",
        ]
        page.locator("article a.source").first.click()
        assert marked(page).startswith(SENTENCE)
        with page.expect_download() as download:
            page.get_by_role("link", name="Download the original").click()
        download.value.save_as(tmp_path / "kettle.md")
        assert (tmp_path / "kettle.md").read_text(encoding="utf-8") == TEXTS["kettle.md"]
        page.get_by_role("button", name="Forget key").click()
        expect(page.get_by_role("heading", name="A key is needed")).to_be_visible()


# Sources


def test_offsets_are_code_points_however_many_units_a_character_takes(page: Page, client: httpx.Client) -> None:
    page.goto(f"./?q={BLUE}")
    expect(page.locator("article mark").first).to_contain_text("The blue light of the 🦀 router")
    page.locator("article a.source").first.click()
    assert marked(page) == client.post("/v1/ask", json={"question": BLUE}).json()["passages"][0]["text"]
    expect(page.locator("h1")).to_have_text("Router 🦀🦀🦀")
    page.goto(str(cited(client, BLUE)["url"]).lstrip("/"))
    assert marked(page) == cited(client, BLUE)["quote"]


def test_the_text_is_shown_to_the_last_character(page: Page, client: httpx.Client) -> None:
    page.goto("documents/hostile.md")
    expect(page.locator(".lines")).to_be_visible()
    assert page.locator(".lines").text_content() == TEXTS["hostile.md"]
    assert page.locator(".line[data-line]").count() == TEXTS["hostile.md"].count("\n")


def test_contents_lead_to_their_places(page: Page) -> None:
    page.goto("documents/kettle.md")
    page.get_by_role("button", name="Spare parts").click()
    expect(page.locator(".line:focus")).to_have_text(re.compile("^Write down the number"))


def test_a_place_outside_of_the_document_is_said_to_be_so(page: Page) -> None:
    page.goto("documents/toaster.md?start=10&end=999999")
    expect(page.locator(".about .notice")).to_contain_text("characters 10 to 999999, and this document has 147.")
    expect(page.locator("mark")).to_have_count(0)
    for place in ("start=9&end=9", "start=-1&end=4", "start=one&end=2", "start=3", "end=3", "start=1e1&end=20"):
        page.goto(f"documents/toaster.md?{place}")
        expect(page.locator(".about .notice")).to_contain_text("Nothing is marked")


def test_a_document_that_changed_since_it_was_cited_is_said_to_have(page: Page) -> None:
    page.goto("documents/toaster.md?start=43&end=48&sha256=0123456789abcdef")
    expect(page.locator(".about .notice")).to_contain_text("has changed since it was cited")
    assert marked(page) == "Empty"


def test_a_document_that_is_not_there_is_said_to_be_missing(browser: Browser, base: str) -> None:
    with tab(browser, base, statuses=(404,)) as page:
        page.goto("documents/no/such.md")
        expect(page.get_by_role("heading", name="There is no such document")).to_be_visible()
    with tab(browser, base) as page:
        page.goto("documents/%ff")
        expect(page.locator(".problem")).to_contain_text("The address does not name a document.")


def test_a_long_document_opens_at_its_quote_and_shows_the_rest_when_asked(page: Page) -> None:
    lines = [f"{number}: {'words and 🦀 more words, ' * 4}" for number in range(15_000)]
    text = "\n".join(lines)
    start = sum(len(line) + 1 for line in lines[:12_000])
    described = {
        **{"id": "long.txt", "title": "Long", "media_type": "text/plain", "uri": None, "pages": None, "outline": []},
        **{"size": len(text.encode()), "sha256": "0" * 64, "metadata": {}, "source": "folder", "generation": "g"},
    }
    page.route("**/v1/documents/long.txt", lambda route: route.fulfill(json=described))
    page.route("**/v1/documents/long.txt/text", lambda route: route.fulfill(body=text))
    page.goto(f"documents/long.txt?start={start}&end={start + len(lines[12_000])}")
    assert marked(page) == lines[12_000]
    expect(page.locator("mark")).to_be_in_viewport()
    expect(page.locator(".line:has(mark)")).to_have_attribute("data-line", "12001")
    assert page.locator(".line").count() < 12_000
    for words in ("Show the lines before", "Show the lines after"):
        while (more := page.get_by_role("button", name=words)).is_visible():
            more.click()
    assert page.locator(".lines").text_content() == text
    expect(page.locator(".line").nth(12_000)).to_have_attribute("data-line", "12001")


def test_right_to_left_text_reads_from_the_right(page: Page) -> None:
    page.goto("documents/%D7%A2%D7%91%D7%A8%D7%99%D7%AA.md")
    line = page.locator(".line").first
    expect(line).to_contain_text("מגהץ")
    assert line.evaluate("node => getComputedStyle(node).direction") == "rtl"
    assert page.locator("h1").evaluate("node => getComputedStyle(node).direction") == "rtl"


def test_a_document_with_an_address_is_linked_there_and_no_other_address_is_a_link(page: Page) -> None:
    page.goto("./?q=Where is the filter of the dishwasher?")
    away = page.locator("article").first.get_by_role("link", name="Original page")
    assert str(away.get_attribute("href")).startswith("https://example.org/dishwasher?lang=en#:~:text=")
    page.locator("article a.source").first.click()
    expect(page.get_by_role("link", name="Original page")).to_have_attribute(
        "href", "https://example.org/dishwasher?lang=en#top"
    )
    page.goto("documents/hostile.md")
    expect(page.locator("h1")).to_be_visible()
    addresses = page.eval_on_selector_all("a[href]", "links => links.map(link => new URL(link.href).protocol)")
    assert set(addresses) == {"http:"}


# Safety


def test_nothing_that_a_document_says_can_run(page: Page) -> None:
    page.goto(f"./?q={HOSTILE_QUESTION}")
    first = page.locator("article").first
    expect(first.locator("h3")).to_have_text(
        "<b onmouseover='hacked=1'>Bobby</b> <script>window.hacked = 'title'</script>"
    )
    expect(first.locator("blockquote")).to_contain_text(SCRIPT)
    assert page.evaluate("window.hacked") is None
    first.locator("a.source").click()
    expect(page.locator("h1")).to_contain_text("<script>window.hacked = 'title'</script>")
    page.get_by_text("About this document").click()
    page.locator("h1").hover()
    take_picture(page, "hostile")
    assert page.evaluate("window.hacked") is None
    assert page.locator("#source img, #source script, #source b, #source svg:not(.icon)").count() == 0


def test_a_script_in_the_address_is_a_question_like_any_other(page: Page) -> None:
    page.goto(f"./?q={SCRIPT}")
    expect(page.get_by_label("Your question")).to_have_value(SCRIPT)
    expect(page.locator(".answered")).to_be_visible()
    page.goto(f"documents/kettle.md?start=0&end=3&q={SCRIPT}")
    expect(page.get_by_role("link", name="Back to")).to_contain_text(SCRIPT)
    assert page.evaluate("window.hacked") is None


def test_the_policy_lets_no_script_in_that_is_not_ours(client: httpx.Client) -> None:
    for path in ("/", "/documents/kettle.md", "/docs", "/demo"):
        policy = client.get(path).headers["content-security-policy"]
        assert "default-src 'none'; script-src 'self'" in policy
        assert "unsafe" not in policy


# Serving


def test_the_pages_work_below_the_prefix_of_a_proxy(browser: Browser, pages_home: Path, cache_folder: Path) -> None:
    with serving(pages_home, cache_folder, root_path="/tools/whence") as client:
        with tab(browser, f"{address_of(client)}tools/whence/") as page:
            page.goto("./")
            page.get_by_role("button", name="What about Removing limescale?").click()
            expect(page.locator("article blockquote").first).to_contain_text(SENTENCE)
            page.locator("article a.source").first.click()
            assert marked(page).startswith(SENTENCE)
            page.get_by_role("link", name="API").click()
            expect(page.get_by_role("heading", name="POST /v1/ask", exact=True)).to_be_visible()
            page.get_by_role("link", name="Whence").click()
            expect(page.get_by_role("heading", name="For example")).to_be_visible()
            assert page.url == f"{address_of(client)}tools/whence/"
        # A proxy may also strip the prefix.
        assert '<base href="/tools/whence/">' in client.get("/documents/kettle.md").text
        assert client.get("/static/ask.js").status_code == 200


def test_files_of_the_pages_are_revalidated(client: httpx.Client) -> None:
    first = client.get("/static/style.css")
    assert (first.status_code, first.headers["cache-control"]) == (200, "no-cache")
    assert first.headers["content-type"] == "text/css; charset=utf-8"
    again = client.get("/static/style.css", headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["cache-control"] == "no-cache"


@pytest.mark.parametrize(
    "name", ["pages", "pages%2Fask.html", "..%2Fapp.py", "%2e%2e%2fapp.py", "no.js", "%00", "a" * 999]
)
def test_nothing_but_the_files_of_the_pages_is_served(client: httpx.Client, name: str) -> None:
    response = client.get(f"/static/{name}")
    assert (response.status_code, response.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize("path", ["/", "/docs", "/demo", "/documents/no/such", "/static/ask.js"])
def test_pages_answer_head_as_they_answer_get(client: httpx.Client, path: str) -> None:
    head, get = client.head(path), client.get(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(get.content))


def test_without_javascript_the_page_says_where_the_answers_are(browser: Browser, base: str) -> None:
    with tab(browser, base, java_script_enabled=False) as page:
        page.goto("./")
        expect(page.locator("noscript p")).to_contain_text("GET v1/ask")


# The reference


def test_the_reference_shows_every_route_with_a_command_that_works(page: Page, client: httpx.Client) -> None:
    page.goto("docs")
    described = client.get("/openapi.json").json()["paths"]
    routes = [f"{method.upper()} {path}" for path, methods in described.items() for method in methods]
    headings = page.locator(".operation h2")
    expect(headings).to_have_count(len(routes))
    assert sorted(headings.all_text_contents()) == sorted(routes)
    take_picture(page, "reference")
    section = page.get_by_role("region", name="POST /v1/ask", exact=True)
    section.get_by_text("What can go wrong").click()
    expect(section.get_by_role("row", name="429")).to_contain_text("rate_exceeded")
    command = section.locator("pre").text_content() or ""
    done = subprocess.run(
        [*shlex.split(command), "--silent", "--max-time", "10"], capture_output=True, check=True, timeout=20
    )
    assert json.loads(done.stdout)["question"] == "How much memory did Pingora save?"


# Looks and access

PAGES = {
    "welcome": ("./", ".examples"),
    "answer": (f"./?q={QUESTION}", ".answered"),
    "not-found": (f"./?q={UNKNOWN}", ".answered"),
    "source": ("documents/kettle.md?start=60&end=98&q=kettle", ".lines mark"),
    "reference": ("docs", ".operation"),
}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_nobody_is_kept_out(browser: Browser, base: str, name: str, scheme: str) -> None:
    address, what = PAGES[name]
    with tab(browser, base, color_scheme=scheme, reduced_motion="reduce") as page:
        page.goto(address)
        expect(page.locator(what).first).to_be_visible()
        page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
        take_picture(page, f"{name}-{scheme}")
        assert barriers(page) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nobody_is_kept_out_when_something_is_wrong(browser: Browser, base: str, scheme: str) -> None:
    problem = {"code": "key_required", "detail": "A key is needed.", "status": 401, "request_id": "abc"}
    with tab(browser, base, statuses=(401,), color_scheme=scheme) as page:
        page.route("**/v1/ask", lambda route: route.fulfill(status=401, json=problem))
        page.goto(f"./?q={QUESTION}")
        expect(page.locator(".problem")).to_be_visible()
        assert barriers(page) == []
        page.get_by_role("button", name="Keyboard shortcuts").click()
        assert barriers(page) == []


def test_dark_and_light_follow_the_system_until_one_is_chosen(browser: Browser, base: str) -> None:
    shade = "getComputedStyle(document.body).backgroundColor"
    with tab(browser, base, color_scheme="dark") as page:
        page.goto("./")
        toggle = page.get_by_role("button", name="Dark colours")
        dark = page.evaluate(shade)
        expect(toggle).to_have_attribute("aria-pressed", "true")
        toggle.click()
        expect(toggle).to_have_attribute("aria-pressed", "false")
        light = page.evaluate(shade)
        assert dark != light
        page.reload()
        assert page.evaluate(shade) == light
        toggle.click()
        assert page.evaluate(shade) == dark
        page.emulate_media(color_scheme="light")
        assert page.evaluate(shade) == light


@pytest.mark.parametrize("name", PAGES)
def test_a_small_screen_is_enough(browser: Browser, base: str, name: str) -> None:
    address, what = PAGES[name]
    with tab(browser, base, viewport=PHONE, has_touch=True) as page:
        page.goto(address)
        expect(page.locator(what).first).to_be_visible()
        take_picture(page, f"{name}-small")
        assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]


def test_print_shows_the_words_and_no_buttons(page: Page) -> None:
    page.goto(f"./?q={QUESTION}")
    expect(page.locator("article").first).to_be_visible()
    page.emulate_media(media="print")
    expect(page.locator("article blockquote").first).to_be_visible()
    expect(page.get_by_label("Your question")).to_have_value(QUESTION)
    for what in ("#ask button", ".actions", ".top", ".bottom"):
        expect(page.locator(what).first).not_to_be_visible()
