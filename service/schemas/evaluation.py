"""Metrics of retrieval."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pydantic import ConfigDict

from service.schemas.base import Schema

if TYPE_CHECKING:  # the metrics library takes half a second to load
    from index.evaluation import Difference, Measurement


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


class DifferenceJson(Schema):
    """The mean difference of a metric between two runs, with its 95 % interval and the p-value of a paired test."""

    mean: float
    low: float
    high: float
    p_value: float


class ComparisonJson(Schema):
    """By how much one way of retrieval is better than another run, each metric under its name."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, DifferenceJson]

    retrieval: str
    compared_with: str

    @classmethod
    def of(cls, ours: str, other: str, differences: Mapping[str, Difference]) -> ComparisonJson:
        """Convert from the library's records, which say how a way of ours compares with another run."""
        return cls.model_validate({"retrieval": ours, "compared_with": other, **differences})
