from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from fastapi import FastAPI
from starlette.responses import HTMLResponse, Response
from wire import listening

from service.headers import CLOSED_POLICY, HEADERS, PAGE_POLICY, SecurityHeaders


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    app = FastAPI()

    @app.get("/page")
    async def page() -> HTMLResponse:
        return HTMLResponse("<!doctype html><title>Page</title>")

    @app.get("/v1/answer")
    async def answer() -> dict[str, str]:
        return {}

    @app.get("/v1/text")
    async def text() -> Response:
        headers = {
            "Cache-Control": "private",
            "Content-Security-Policy": "sandbox",
            "Cross-Origin-Resource-Policy": "cross-origin",
        }
        return Response("text", headers=headers, media_type="text/html; charset=utf-8")

    app.add_middleware(SecurityHeaders)
    with listening(app, root_path="/whence") as port, httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        yield client


@pytest.mark.parametrize("path", ["/page", "/v1/answer", "/nothing"])
def test_every_response_has_the_headers(client: httpx.Client, path: str) -> None:
    given = client.get(path).headers
    assert {name: given[name] for name in HEADERS} == HEADERS
    assert given.get_list("X-Content-Type-Options") == ["nosniff"]


def test_a_page_may_load_what_is_its_own_and_run_no_text(client: httpx.Client) -> None:
    policy = client.get("/page").headers["Content-Security-Policy"]
    assert policy == PAGE_POLICY
    assert dict(part.split(" ", 1) for part in policy.split("; ")) == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self' data:",
        "connect-src": "'self'",
        "font-src": "'self'",
        "base-uri": "'self'",
        "form-action": "'self'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
    }


def test_what_is_no_page_may_load_nothing(client: httpx.Client) -> None:
    assert client.get("/v1/answer").headers["Content-Security-Policy"] == CLOSED_POLICY


def test_answers_are_not_kept_by_caches(client: httpx.Client) -> None:
    assert client.get("/v1/answer").headers["Cache-Control"] == "no-store"
    assert client.get("/v1/nothing").headers["Cache-Control"] == "no-store"
    assert "Cache-Control" not in client.get("/page").headers


def test_what_a_response_sets_itself_stays(client: httpx.Client) -> None:
    given = client.get("/v1/text").headers
    assert given.get_list("Cache-Control") == ["private"]
    assert given.get_list("Content-Security-Policy") == ["sandbox"]
    assert given.get_list("Cross-Origin-Resource-Policy") == ["cross-origin"]
