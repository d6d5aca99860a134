"""A calibration that shows at once whether it is used."""

from __future__ import annotations

import math
from dataclasses import fields

from index.calibration import Calibration
from index.generations import Home
from index.weights import ConfidenceWeights


def always_sure(home: Home, *, confidence: float = 0.75, threshold: float = 0.5) -> Calibration:
    """Return a calibration for the index of a home, under which every answer has the same confidence."""
    manifest = home.known_manifest()
    assert manifest is not None
    nothing = {field.name: 0.0 for field in fields(ConfidenceWeights)}
    intercept = math.log(confidence / (1 - confidence))
    return Calibration(
        weights=ConfidenceWeights(**{**nothing, "intercept": intercept, "threshold": threshold}),
        created="2026-11-21T06:00:01+00:00",
        model=manifest.model.name,
        model_files_sha256=manifest.model.files_sha256,
        reranker=None,
        generation=manifest.name,
        format_version=manifest.format_version,
        making=manifest.making,
        labels_sha256="0" * 64,
        answerable=20,
        unanswerable=10,
        silence=0.08,
    )
