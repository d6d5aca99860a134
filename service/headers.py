"""Headers that tell a browser what an answer may not do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

from starlette.types import ASGIApp, Message, Receive, Scope, Send

PAGE_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "font-src 'self'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
        # No text becomes markup in the pages, so no text of a document can become a script.
        "require-trusted-types-for 'script'",
    )
)
CLOSED_POLICY = "default-src 'none'; frame-ancestors 'none'"
HEADERS: Mapping[str, str] = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
PRIVATE = {"Cache-Control": "no-store"}

RawHeaders = Sequence[tuple[bytes, bytes]]


def header(scope: Scope, name: bytes) -> str | None:
    """Return a header of a request, the first of that name, as `starlette.datastructures.Headers` does, but faster.

    Args:
        scope: of the request.
        name: in small letters.
    """
    for given, value in scope["headers"]:
        if given == name:
            text: str = value.decode("latin-1")
            return text
    return None


class SecurityHeaders:
    """Middleware that adds to each response the headers that keep browsers safe; what a response sets itself stays.

    Args:
        app: what stands behind it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and add to the head of the response."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        is_api = scope["path"].removeprefix(scope.get("root_path", "")).startswith("/v1/")

        async def secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = _secured(message.get("headers", ()), is_api=is_api)
            await send(message)

        await self._app(scope, receive, secured)


def _secured(given: RawHeaders, *, is_api: bool) -> RawHeaders:
    content_type = next((value for name, value in given if name == b"content-type"), b"")
    names = {name for name, _ in given}
    added = _added(is_page=content_type.startswith(b"text/html"), is_api=is_api)
    return [*given, *((name, value) for name, value in added if name not in names)]


@cache
def _added(*, is_page: bool, is_api: bool) -> RawHeaders:
    policy = {"Content-Security-Policy": PAGE_POLICY if is_page else CLOSED_POLICY}
    added = {**policy, **HEADERS, **(PRIVATE if is_api else {})}
    return [(name.lower().encode(), value.encode()) for name, value in added.items()]
