"""Every setting: name, type, default and one line of help. Read from the environment once, then passed on."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from platformdirs import user_cache_path, user_data_path
from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from index.answers import DEFAULT_TOP_K, MAX_TOP_K
from index.embeddings import Backend
from index.errors import WhenceError
from index.generations import KEEP_GENERATIONS
from index.weights import EncoderName

MEGABYTE = 1_000_000
Names = Annotated[tuple[str, ...], NoDecode]

_LINK = re.compile(r"(?:https?://|mailto:|tel:)[^\s<>\"\\]+", re.IGNORECASE)
_EMAIL = re.compile(r"[^\s@<>\":/]+@[^\s@<>\":/]+")

Overload = Literal["refuse", "instant"]


class Settings(BaseSettings):
    """Settings from the environment: `WHENCE_` and the name in capitals; an empty one counts as unset."""

    model_config = SettingsConfigDict(env_prefix="WHENCE_", env_ignore_empty=True, extra="ignore", frozen=True)

    home: Path = Field(
        default_factory=lambda: user_data_path("whence"),
        description="Folder that holds the index.",
    )
    cache: Path = Field(
        default_factory=lambda: user_cache_path("whence"),
        description="Folder for what can be made again: exported models, indexes of evaluations.",
    )
    store: SecretStr | None = Field(
        None,
        description="Milvus server that keeps the index, for many machines to ask: "
        "milvus://[USER:PASSWORD@]HOST:PORT/COLLECTION. Unset: the home.",
    )
    model: str | None = Field(
        None, description="Embedding model: a name or a folder. Unset: the index's own, or all-MiniLM-L6-v2."
    )
    reranker: str | None = Field(
        None, description="Cross-encoder that puts the first passages in its order: a name or a folder. Unset: none."
    )
    backend: Backend = Field("onnx", description="What runs the model.")
    encoder: EncoderName = Field(
        "full", description="What encodes questions: full, the model, or instant, a table of its tokens."
    )
    top_k: int = Field(DEFAULT_TOP_K, ge=1, le=MAX_TOP_K, description="Passages returned for a question.")
    min_confidence: float | None = Field(
        None, ge=0, le=1, description="Below it a question is not answered. Unset: the fitted threshold."
    )
    keep_generations: int = Field(
        KEEP_GENERATIONS, ge=1, description="Generations kept after a sync; older ones are removed for good."
    )
    wait: float = Field(10.0, ge=0, description="Seconds to wait while another process writes.")

    # the service
    host: str = Field("127.0.0.1", description="Address to listen on; any but a loopback address needs a key.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    workers: int = Field(1, ge=1, le=64, description="Processes that answer.")
    root_path: str = Field("", description="Path under which a proxy serves this, such as /whence.")
    public_url: str = Field(
        "", description="Address at which people reach this, for the links in answers to other programs."
    )
    watch: bool = Field(False, description="Whether sources are synced when their files change.")
    bundled: bool = Field(True, description="Whether a home without an index gets the bundled documents.")
    insecure: bool = Field(False, description="Whether to listen on any address without keys.")
    require_key: bool = Field(False, description="Whether a loopback address needs a key, too: behind a proxy, say.")
    allowed_hosts: Names = Field(
        (), description="Names this service is reached by, separated by commas. Unset: any, on loopback only that."
    )
    cors_origins: Names = Field(
        (), description="Origins whose pages may ask, separated by commas, such as https://docs.example.com."
    )
    queue: int = Field(512, ge=1, description="Questions that may wait; more are turned away.")
    overload: Overload = Field(
        "refuse", description="What becomes of a question when as many wait: 503, or the instant encoder answers it."
    )
    answer_cache: int = Field(256, ge=0, description="Answers kept in case they are asked for again; 0 keeps none.")
    deadline: float = Field(30.0, gt=0, description="Seconds after which a waiting question is given up.")
    max_body: int = Field(1 * MEGABYTE, ge=1_000, description="Bytes of a request's body that are read.")
    max_upload: int = Field(200 * MEGABYTE, ge=1_000, description="Bytes of an upload that are read.")
    question_log_days: int = Field(
        0, ge=0, description="Days for which questions are kept for the insights; 0 keeps none."
    )
    feedback_days: int = Field(365, ge=1, description="Days for which feedback is kept.")
    log_format: Literal["auto", "json", "text"] = Field(
        "auto", description="Form of the log; auto: text on a terminal, else JSON."
    )
    log_questions: bool = Field(False, description="Whether the log holds the text of questions.")

    # the chat
    chat_greeting: str = Field(
        "Hello! Ask me about these documents. I answer in their own words, and say where they stand.",
        min_length=1,
        description="Reply to a greeting.",
    )
    chat_thanks: str = Field("You are welcome.", min_length=1, description="Reply to thanks.")
    chat_help: str = Field(
        "Ask in a sentence, as you would ask a colleague. I answer in the exact words of these documents, say where "
        "they stand, and tell you when I find nothing.",
        min_length=1,
        description="Reply to a call for help.",
    )
    chat_not_found: str = Field(
        "I found no answer to that in these documents.",
        min_length=1,
        description="Reply when the documents do not answer.",
    )
    chat_questions: Names = Field(
        (), description="Questions to open a chat with, separated by |. Unset: headings of the documents."
    )
    chat_handoff: str = Field(
        "", description="Where people are sent when the documents do not answer: a link or an email address."
    )
    chat_handoff_label: str = Field("Ask a person", min_length=1, description="What that link is called.")

    open_webui_sources: bool = Field(
        False, description="Whether streams for OpenAI's clients have Open WebUI's source events, not annotations."
    )

    @field_validator("allowed_hosts", "cors_origins", mode="before")
    @classmethod
    def _from_list(cls, value: Any) -> Any:
        """Read names separated by commas."""
        return tuple(filter(None, (name.strip() for name in value.split(",")))) if isinstance(value, str) else value

    @field_validator("chat_questions", mode="before")
    @classmethod
    def _from_questions(cls, value: Any) -> Any:
        """Read questions separated by bars: they may well have commas."""
        return tuple(filter(None, (part.strip() for part in value.split("|")))) if isinstance(value, str) else value

    @field_validator("chat_handoff")
    @classmethod
    def _as_link(cls, value: str) -> str:
        return as_link(value)

    @field_validator("root_path")
    @classmethod
    def _as_prefix(cls, value: str) -> str:
        return as_prefix(value)

    @field_validator("public_url")
    @classmethod
    def _as_web_address(cls, value: str) -> str:
        """Check that it is an address of the web, and write it without a slash at the end."""
        parts = urlsplit(value)
        if value and (parts.scheme not in ("http", "https") or not parts.netloc or parts.query or parts.fragment):
            raise ValueError("an address such as https://docs.example.com/whence is wanted")
        return value.rstrip("/")

    @field_validator("home", "cache")
    @classmethod
    def _with_home_of_user(cls, path: Path) -> Path:
        """Read `~` as the shell would; it often does not see these values."""
        return path.expanduser()


def as_prefix(path: str) -> str:
    """Write a path as a prefix: with a slash before it and none after it, or empty."""
    bare = path.strip("/")
    return f"/{bare}" if bare else ""


def as_link(target: str) -> str:
    """Write what people are sent to as a link, an email address as `mailto:`; empty stays empty.

    Raises:
        ValueError: it is neither.
    """
    if not target or _LINK.fullmatch(target):
        return target
    if _EMAIL.fullmatch(target):
        return f"mailto:{target}"
    raise ValueError("a link (https://..., mailto:..., tel:...) or an email address is wanted")


def read_settings() -> Settings:
    """Read the settings from the environment.

    Raises:
        WhenceError: one of them has a value that makes no sense; the message names it.
    """
    try:
        return Settings()
    except ValidationError as exc:
        problem = exc.errors()[0]
        name = "WHENCE_" + "_".join(str(part) for part in problem["loc"]).upper()
        raise WhenceError(f"{name} is {problem['input']!r}: {problem['msg']}. Correct or unset it.") from exc
