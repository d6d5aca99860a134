"""The calibration of a home, and what it changes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import ConfigDict

from index.calibration import Calibration
from service.schemas.base import Schema, Score

if TYPE_CHECKING:  # what fits takes a second to load
    from index.confidence import Figures


class ConfidenceWeightsJson(Schema):
    """The weights of the confidence: its intercept, one for each kind of evidence, and the threshold."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, float]

    intercept: float
    threshold: float


class CalibrationJson(Schema):
    """A calibration; `sha256` tells it from others."""

    sha256: str
    created: str
    model: str
    model_files_sha256: str
    reranker: str | None
    generation: str
    format_version: int
    making: dict[str, str | int]
    labels_sha256: str
    answerable: int
    unanswerable: int
    silence: float
    weights: ConfidenceWeightsJson

    @classmethod
    def of(cls, calibration: Calibration) -> CalibrationJson:
        """Convert from the library's record."""
        weights = ConfidenceWeightsJson.model_validate(vars(calibration.weights))
        return cls.model_validate({**vars(calibration), "sha256": calibration.sha256, "weights": weights})


class FiguresJson(Schema):
    """How well a confidence holds on labelled questions."""

    auroc: Score
    calibration_error: Score
    silenced_answerable: Score
    silenced_unanswerable: Score
    coverage_90: Score
    coverage_95: Score


class CalibrationReportJson(Schema):
    """What a calibration changes: figures of what ships, and those of the calibration by cross-validation."""

    stored: bool
    shipped: FiguresJson
    calibrated: FiguresJson
    calibration: CalibrationJson

    @classmethod
    def of(
        cls, calibration: Calibration, *, shipped: Figures, calibrated: Figures, stored: bool
    ) -> CalibrationReportJson:
        """Convert from the library's records."""
        return cls(
            stored=stored,
            shipped=FiguresJson.model_validate(shipped),
            calibrated=FiguresJson.model_validate(calibrated),
            calibration=CalibrationJson.of(calibration),
        )


class CalibrationResetJson(Schema):
    """That the home answers with the confidence that ships, and whether it did before."""

    was_calibrated: bool
