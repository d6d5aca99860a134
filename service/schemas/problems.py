"""Errors over HTTP: RFC 9457, and as OpenAI's clients, deep-chat and Dify know them."""

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


class OpenAIErrorJson(Schema):
    """An error; `code` is one of ours, `param` the part of the request that was wrong."""

    model_config = ConfigDict(title="OpenAIError")

    message: str
    type: str
    param: str | None
    code: str
    request_id: str


class DeepChatErrorJson(Schema):
    """An error over HTTP, as the deep-chat component knows it; `code` is one of ours."""

    model_config = ConfigDict(title="DeepChatError")

    error: str
    code: str
    request_id: str


class DifyErrorJson(Schema):
    """An error over HTTP, as Dify knows it."""

    model_config = ConfigDict(title="DifyError")

    error_code: int
    error_msg: str


class OpenAIErrorsJson(Schema):
    """An error over HTTP, as OpenAI's clients know it."""

    model_config = ConfigDict(title="OpenAIErrors")

    error: OpenAIErrorJson
