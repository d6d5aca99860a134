"""The manifest beside the answers of a batch."""

from __future__ import annotations

from typing import Any

from index.weights import EncoderName
from service.schemas.base import Schema
from service.schemas.operations import ModelIdentityJson, RerankerJson


class BatchInputJson(Schema):
    """The questions of a batch; size and digest of a stream are known when it has been read."""

    format: str
    size: int | None
    sha256: str | None


class BatchSettingsJson(Schema):
    """How a batch is answered and written down."""

    top_k: int
    min_confidence: float | None
    filters: dict[str, Any]
    backend: str
    encoder: EncoderName
    field: str | None
    encoding: str
    format: str
    compression: str
    fields: list[str] | None
    id_field: str | None
    for_spreadsheet: bool


class BatchRunJson(Schema):
    """All that decides the result of a batch."""

    whence: str
    generation: str
    model: ModelIdentityJson
    reranker: RerankerJson | None  # None when the passages are in the order of their scores
    calibration: str | None  # its SHA-256; None when the home answers with the confidence that ships
    input: BatchInputJson
    settings: BatchSettingsJson


class BatchCountsJson(Schema):
    """How many rows a batch has, and what became of them."""

    rows: int
    answered: int
    unanswered: int
    failed: int


class BatchOutputJson(Schema):
    """The file of answers."""

    size: int
    sha256: str


class BatchManifestJson(BatchRunJson):
    """The manifest beside the answers of a batch."""

    counts: BatchCountsJson
    output: BatchOutputJson
