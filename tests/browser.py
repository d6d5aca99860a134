"""Chromium, driven as a person would: pages that must stay quiet, pictures of them, and what axe says of them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, sync_playwright

ROOT = Path(__file__).parents[1]
# The one without windows takes a quarter of the time of the other, which will do, too.
CHROMIUMS = Path("/usr/bin/chromium-headless-shell"), Path("/usr/bin/chromium")
CHROMIUM = next((path for path in CHROMIUMS if path.exists()), CHROMIUMS[0])
AXE = ROOT / "node_modules" / "axe-core" / "axe.min.js"
PICTURES = Path(os.environ.get("SCREENSHOTS", ROOT / "tests" / "output"))
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
DESK = {"width": 1200, "height": 850}
PHONE = {"width": 360, "height": 740}
PATIENCE_MS = 10_000
NO_ANSWER = re.compile(r"net::ERR_|blocked by CORS policy")
FAILED = re.compile(r"Failed to load resource: .*status of (\d{3})")


def need(path: Path, how: str) -> None:
    """Skip a test for which something is not installed; with CI_BROWSER=1 it fails instead."""
    if path.exists():
        return
    reason = f"{path.name} is not installed. {how}"
    if os.environ.get("CI_BROWSER") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


@contextmanager
def launched() -> Iterator[Browser]:
    """Start Chromium, with a profile of its own that is thrown away."""
    need(CHROMIUM, "For the tests of the pages: apt-get install chromium-headless-shell")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@contextmanager
def tab(
    browser: Browser, base: str, *, also: tuple[str, ...] = (), statuses: tuple[int, ...] = (), **options: Any
) -> Iterator[Page]:
    """Open a tab of a new profile; at the end nothing may have gone wrong in it, nor in the tabs opened from it.

    Args:
        browser: to open it in.
        base: address of what is looked at.
        also: other addresses that may be asked for something; all others may not.
        statuses: of answers that the test wants to fail; 0 for requests that get none.
        options: of Playwright's `new_context`.
    """
    context = browser.new_context(**{"base_url": base, "viewport": DESK, **options})
    context.set_default_timeout(PATIENCE_MS)
    wrong: list[str] = []
    allowed = {urlsplit(address).netloc for address in (base, *also)}

    def on_console(message: ConsoleMessage) -> None:
        failed = FAILED.match(message.text)
        is_wanted = int(failed[1]) in statuses if failed else 0 in statuses and NO_ANSWER.search(message.text)
        if message.type in ("error", "warning") and not is_wanted:
            wrong.append(f"console: {message.text}")

    def on_request(request: Request) -> None:
        asked = urlsplit(request.url)
        if asked.scheme not in ("data", "blob") and asked.netloc not in allowed:
            wrong.append(f"asked {request.url}")

    def watch(page: Page) -> None:
        page.on("console", on_console)
        page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
        page.on("dialog", lambda dialog: wrong.append(f"dialog: {dialog.message}"))
        page.on("request", on_request)

    context.on("page", watch)
    yield context.new_page()
    context.close()
    assert wrong == []


def take_picture(page: Page, name: str) -> None:
    """Write what a page shows to a file, for people to look at."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=PICTURES / f"{name}.png", animations="disabled")


def barriers(page: Page) -> list[str]:
    """Return what keeps people out of a page, as axe finds it."""
    need(AXE, "For the tests of accessibility: npm ci")
    page.evaluate(AXE.read_text(encoding="utf-8"))
    violations = page.evaluate("async () => (await axe.run(document, { resultTypes: ['violations'] })).violations")
    return [
        f"{violation['id']} ({violation['impact']}): {[node['html'][:200] for node in violation['nodes']]}"
        for violation in violations
    ]
