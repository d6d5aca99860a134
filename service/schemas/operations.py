"""What an index holds, and what became of it: status, generations, syncs, backups."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from index.build import SyncReport
from index.calibration import Calibration
from index.manifest import Manifest
from index.models import ModelFiles
from service.schemas.answers import ModelJson
from service.schemas.base import Schema, is_none
from service.schemas.calibration import CalibrationJson


class HealthJson(Schema):
    """That all is well."""

    status: Literal["ok"]


class ReadyJson(HealthJson):
    """That questions are answered."""

    reranker: ModelJson | None = Field(
        None, description="In whose order the passages are, if one is used.", exclude_if=is_none
    )


class RerankerJson(ModelJson):
    """Everything that decides in which order the first passages are."""

    files_sha256: str


class ModelIdentityJson(ModelJson):
    """Everything that decides which embedding a text gets."""

    files_sha256: str
    dimension: int
    max_tokens: int
    query_prompt: str
    document_prompt: str
    precision: str


class DenseSearchJson(Schema):
    """How chunks are searched by embedding: exactly if `oversampling` is 0, by all sketches if `probes` is."""

    oversampling: int
    recall: float
    probes: int


class SourceJson(Schema):
    """A source of a generation."""

    path: str
    prefix: str
    documents: int
    is_bundled: bool


class FileJson(Schema):
    """A file of a generation."""

    size: int
    sha256: str


class StatusJson(Schema):
    """The published generation, and where it is."""

    home: str
    name: str
    format_version: int
    number: int
    created: str
    parent: str | None
    model: ModelIdentityJson
    making: dict[str, str | int]
    documents: int
    chunks: int
    sentences: int
    sources: list[SourceJson]
    files: dict[str, FileJson]
    dense: DenseSearchJson
    calibration: CalibrationJson | None  # None when the confidence is as it ships
    reranker: RerankerJson | None  # None when the settings name none

    @classmethod
    def of(
        cls,
        manifest: Manifest,
        *,
        home: Path,
        calibration: Calibration | None = None,
        reranker: ModelFiles | None = None,
    ) -> StatusJson:
        """Convert from the library's records."""
        fitted = None if calibration is None else CalibrationJson.of(calibration)
        fields = {"home": str(home), **vars(manifest), "calibration": fitted, "reranker": reranker}
        return cls.model_validate(fields)


class GenerationJson(Schema):
    """A generation in the list of them; `model` is the model's name."""

    name: str
    number: int
    created: str
    parent: str | None
    documents: int
    chunks: int
    sentences: int
    model: str
    published: bool

    @classmethod
    def of(cls, manifest: Manifest, *, published: bool) -> GenerationJson:
        """Convert from the library's record."""
        return cls.model_validate({**vars(manifest), "model": manifest.model.name, "published": published})


class RejectedJson(Schema):
    """A file that could not be read."""

    path: str
    reason: str


class SyncReportJson(Schema):
    """What a sync did."""

    generation: str
    is_new: bool
    added: list[str]
    changed: list[str]
    removed: list[str]
    unchanged: int
    rejected: list[RejectedJson]
    encoded: int
    documents: int
    chunks: int
    sentences: int
    pruned: list[str]

    @classmethod
    def of(cls, report: SyncReport) -> SyncReportJson:
        """Convert from the library's record."""
        return cls.model_validate(report)


class PublishedJson(Schema):
    """The generation that was published again or restored."""

    published: str


class GenerationsJson(Schema):
    """The generations, newest first."""

    generations: list[GenerationJson]


class BackupJson(Schema):
    """A backup that was written."""

    generation: str
    file: str
