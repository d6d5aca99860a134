"""Every setting: name, type, default and one line of help. Read from the environment once, then passed on."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from platformdirs import user_cache_path, user_data_path
from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from index.answers import DEFAULT_TOP_K, MAX_TOP_K
from index.errors import WhenceError
from index.generations import KEEP_GENERATIONS


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
    model: str | None = Field(
        None, description="Embedding model: a name or a folder. Unset: the index's own, or all-MiniLM-L6-v2."
    )
    backend: Literal["onnx", "torch"] = Field("onnx", description="What runs the model.")
    top_k: int = Field(DEFAULT_TOP_K, ge=1, le=MAX_TOP_K, description="Passages returned for a question.")
    min_confidence: float | None = Field(
        None, ge=0, le=1, description="Below it a question is not answered. Unset: the fitted threshold."
    )
    keep_generations: int = Field(
        KEEP_GENERATIONS, ge=1, description="Generations kept after a sync; older ones are removed for good."
    )
    wait: float = Field(10.0, ge=0, description="Seconds to wait while another process writes.")

    @field_validator("home", "cache")
    @classmethod
    def _with_home_of_user(cls, path: Path) -> Path:
        """Read `~` as the shell would; it often does not see these values."""
        return path.expanduser()


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
