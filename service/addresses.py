"""Absolute addresses: programs that show our links elsewhere cannot resolve relative ones."""

from __future__ import annotations

from collections.abc import Callable

from starlette.requests import Request

from service.settings import Settings

Link = Callable[[str], str]


def linking(request: Request, settings: Settings) -> Link:
    """Return what makes the address of a citation absolute.

    It begins with `WHENCE_PUBLIC_URL`, or else with what the request called the service by.
    """
    base = settings.public_url or f"{request.url.scheme}://{request.url.netloc}{settings.root_path}"
    return below(base)


def below(base: str) -> Link:
    """Return what puts addresses that begin with a slash below a base; others are absolute and stay."""
    return lambda url: base.rstrip("/") + url if url.startswith("/") else url
