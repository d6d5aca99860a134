"""Conversations as the deep-chat component sends and takes them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from service.schemas.base import RequestSchema, Schema


class DeepChatMessageJson(BaseModel):
    """A message of a conversation; what a component adds to its text is ignored."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)

    role: str = Field(description="`user`, or anything else for a reply.", examples=["user"])
    text: str = Field("", description="Messages without it are not read.", examples=["How much memory did it save?"])
    files: list[Any] = Field([], description="Files are not read; the last message must not have any.")


class DeepChatJson(RequestSchema):
    """A conversation of which the last message is to be replied to."""

    messages: list[DeepChatMessageJson] = Field(min_length=1, description="Oldest first; the newest 64 are read.")
    top_k: int | None = Field(None, description="Passages wanted, 1 to 100; 5 unless the service is set otherwise.")
    filters: dict[str, Any] | None = Field(
        None, description="As for a question.", examples=[{"doc_id": {"prefix": "rust-"}}]
    )

    @field_validator("messages")
    @classmethod
    def _ends_with_a_question(cls, messages: list[DeepChatMessageJson]) -> list[DeepChatMessageJson]:
        last = messages[-1]
        if last.files:
            raise ValueError("the last message has files, and only text is read")
        if last.role != "user":
            raise ValueError("the last message is not the user's")
        return messages


class DeepChatReplyJson(Schema):
    """A reply, or of a stream a part of it."""

    text: str = Field(description="Markdown: exact words of a document with links to it, or a set reply.")
