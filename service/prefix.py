"""The path under which a proxy serves the application."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send


class Prefix:
    """Middleware that serves an application under a path, whether a proxy passes that path on or strips it.

    Args:
        app: what stands behind it.
        root_path: the path, with a slash before it and none after it; empty for none.
    """

    def __init__(self, app: ASGIApp, *, root_path: str) -> None:
        self._app = app
        self._root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on with its whole path, and say which part of it is the proxy's."""
        if scope["type"] == "http" and self._root_path:
            scope["root_path"] = self._root_path
            path = scope["path"]
            if path == self._root_path:
                path += "/"
            if not path.startswith(f"{self._root_path}/"):
                path = self._root_path + path
            scope["path"] = path
        await self._app(scope, receive, send)
