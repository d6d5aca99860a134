"""Errors over HTTP (RFC 9457)."""

from __future__ import annotations

from pydantic import ConfigDict, Field

from service.schemas.base import Schema


class FieldProblemJson(Schema):
    """What was wrong with one part of a request; `pointer` is a JSON pointer, or `query/NAME`, `path/NAME`."""

    pointer: str
    detail: str


class ProblemJson(Schema):
    """An error over HTTP (RFC 9457)."""

    model_config = ConfigDict(title="Problem")

    type: str
    title: str
    status: int
    code: str
    detail: str
    request_id: str
    errors: list[FieldProblemJson] = Field([])
