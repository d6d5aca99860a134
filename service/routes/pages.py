"""The pages: a shell for each that its script fills from the API, and the files they are made of.

A shell holds nothing of a document, so it is the same for everyone and open to everyone. Its addresses are relative
to the `<base>` that is filled in here, which makes the pages work below any prefix of a proxy.
"""

from __future__ import annotations

from html import escape
from pathlib import Path

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, Response
from starlette.staticfiles import StaticFiles

STATIC = Path(__file__).parents[1] / "static"
BASE = "{{base}}"
# A browser asks each time whether its file is the present one: a page never meets scripts of another version.
REVALIDATE = {"Cache-Control": "no-cache"}
METHODS = ["GET", "HEAD"]

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


@router.api_route("/static/{name}", methods=METHODS)
async def static_file(request: Request, name: str) -> Response:
    """Return a style sheet, script or picture of the pages.

    Not a mounted app: that finds its files by the whole path, and so not behind a proxy that strips the prefix.
    """
    response = await files.get_response(name, request.scope)
    response.headers.update(REVALIDATE)
    return response


def _page(name: str, request: Request) -> Response:
    base = f"{request.scope.get('root_path', '').rstrip('/')}/"
    template = (STATIC / "pages" / name).read_text(encoding="utf-8")
    return HTMLResponse(template.replace(BASE, escape(base)), headers=REVALIDATE)
