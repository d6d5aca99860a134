"""Metrics of retrieval."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pydantic import ConfigDict

from service.schemas.base import Schema

if TYPE_CHECKING:  # the metrics library takes half a second to load
    from index.evaluation import Measurement


class MeasurementJson(Schema):
    """The mean of a metric over the queries, with its 95 % interval."""

    mean: float
    low: float
    high: float


class EvaluationJson(Schema):
    """The metrics of one way of retrieval, each under its name."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, MeasurementJson]

    retrieval: str

    @classmethod
    def of(cls, retrieval: str, measured: Mapping[str, Measurement]) -> EvaluationJson:
        """Convert from the library's records."""
        return cls.model_validate({"retrieval": retrieval, **measured})
