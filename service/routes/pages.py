"""The pages: a shell for each that its script fills from the API, and the files they are made of.

A shell holds nothing of a document, so it is the same for everyone and open to everyone. Its addresses are relative
to the `<base>` that is filled in here, which makes the pages work below any prefix of a proxy.
"""

from __future__ import annotations

import gzip
from functools import lru_cache
from html import escape
from http import HTTPStatus
from pathlib import Path

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, Response
from starlette.staticfiles import StaticFiles

STATIC = Path(__file__).parents[1] / "static"
BASE = "{{base}}"
# A browser asks each time whether its file is the present one: a page never meets scripts of another version.
REVALIDATE = {"Cache-Control": "no-cache"}
METHODS = ["GET", "HEAD"]
# The one file that other people's pages load: plainly, with `crossorigin`, or under a policy of embedding.
EMBEDDABLE = {
    "Access-Control-Allow-Origin": "*",
    "Cross-Origin-Resource-Policy": "cross-origin",
    "Vary": "Accept-Encoding",
}
WIDGET = "widget.js"

router = APIRouter(include_in_schema=False)
files = StaticFiles(directory=STATIC)


@router.api_route("/", methods=METHODS)
def ask_page(request: Request) -> Response:
    """Return the page on which people ask."""
    return _page("ask.html", request)


@router.api_route("/documents/{doc_id:path}", methods=METHODS)
def source_page(request: Request, doc_id: str) -> Response:
    """Return the page that shows a document with a quote marked; its script says when there is no such document."""
    return _page("source.html", request)


@router.api_route("/docs", methods=METHODS)
def reference_page(request: Request) -> Response:
    """Return the page that shows `openapi.json`."""
    return _page("reference.html", request)


@router.api_route("/demo", methods=METHODS)
def demo_page(request: Request) -> Response:
    """Return the page that shows the chat widget and how to put it into a page."""
    return _page("demo.html", request)


@router.api_route("/widget.js", methods=METHODS)
async def widget(request: Request) -> Response:
    """Return the chat widget, compressed where that is understood: many a proxy leaves scripts as they are."""
    response = await static_file(request, WIDGET)
    if response.status_code == HTTPStatus.OK and "gzip" in request.headers.get("accept-encoding", ""):
        etag = response.headers["etag"]
        headers = {**REVALIDATE, "ETag": f"W/{etag}", "Content-Encoding": "gzip"}
        response = Response(_compressed_widget(etag), media_type="text/javascript", headers=headers)
    response.headers.update(EMBEDDABLE)
    return response


@router.api_route("/static/{name}", methods=METHODS)
async def static_file(request: Request, name: str) -> Response:
    """Return a style sheet, script or picture of the pages.

    Not a mounted app: that finds its files by the whole path, and so not behind a proxy that strips the prefix.
    """
    response = await files.get_response(name, request.scope)
    response.headers.update(REVALIDATE)
    return response


@lru_cache(maxsize=1)
def _compressed_widget(etag: str) -> bytes:
    """Return the file of an ETag, compressed."""
    return gzip.compress((STATIC / WIDGET).read_bytes(), mtime=0)


def _page(name: str, request: Request) -> Response:
    base = f"{request.scope.get('root_path', '').rstrip('/')}/"
    template = (STATIC / "pages" / name).read_text(encoding="utf-8")
    return HTMLResponse(template.replace(BASE, escape(base)), headers=REVALIDATE)
