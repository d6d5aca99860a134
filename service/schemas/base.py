"""What the models of the wire have in common."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict

from index.documents import HALF_SURROGATE

SCORE_DIGITS = 4  # behind the point
TIME_DIGITS = 1


def _rounded(digits: int) -> Any:
    return BeforeValidator(lambda value: round(float(value), digits))


def is_none(value: object) -> bool:
    """Whether a field has no value: for one that is left out then."""
    return value is None


Score = Annotated[float, _rounded(SCORE_DIGITS)]
Milliseconds = Annotated[float, _rounded(TIME_DIGITS)]


class Schema(BaseModel):
    """What goes out: made of the records that have the same names."""

    model_config = ConfigDict(from_attributes=True, frozen=True, protected_namespaces=())


class RequestSchema(BaseModel):
    """What comes in: unknown fields are refused, and nothing is converted to another kind."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def _whole(text: str) -> str:
    if HALF_SURROGATE.search(text):
        raise ValueError("has half a character; send UTF-8")
    return text


WholeText = Annotated[str, AfterValidator(_whole)]
