"""Offline batch: the questions of a file in, their answers in a file out, in order and with nobody watching.

questions -> rows -> parts of them, answered -> journal -> answers and manifest
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from importlib.metadata import version
from itertools import chain, islice
from pathlib import Path

from rich.console import Console
from rich.text import Text

from index.answers import Question
from index.calibration import Calibration, calibration_of, weights_with
from index.cluster import ClusterSettings
from index.errors import WhenceError
from index.filters import Filters
from index.generations import Generation, Home
from index.models import ModelFiles, find_model
from service.batch_formats import Compression, OutputFormat
from service.batch_input import QuestionFile, Row, Seen
from service.batch_journal import Counts, Journal, OutputStream, Target
from service.batch_output import (
    ANSWER_FIELDS,
    CellKind,
    Shape,
    carried_names,
    output_of,
    reserved_names,
    write_parquet,
)
from service.batch_pipeline import Pipeline, Workforce, part_rows
from service.batch_progress import BatchProgress
from service.batch_ray import RayWorkforce
from service.batch_survey import Survey, digest, fitting, kinds_of, survey
from service.batch_worker import Work, Workers
from service.display import TerminalProgress, visible
from service.models import find_chosen_reranker
from service.schemas.batch import (
    BatchCountsJson,
    BatchInputJson,
    BatchManifestJson,
    BatchOutputJson,
    BatchRunJson,
    BatchSettingsJson,
)
from service.schemas.operations import ModelIdentityJson, RerankerJson
from service.settings import Settings
from service.stopping import Stopping

TABLES = (OutputFormat.CSV, OutputFormat.PARQUET)
WORTH_A_PROCESS = 16  # questions: for fewer no other process is started
STOPPED = "Stopped. The answers that are there are kept: run the same command to go on."
STOPPED_STREAM = "Stopped. With standard input or output, or a pipe, a run cannot go on: it begins anew."


@dataclass(frozen=True)
class Batch:
    """What is to be done.

    Attributes:
        questions: to be answered.
        answers: where they go; None for standard output.
        compression: of the answers.
        shape: of their rows; which columns a table has for what is carried along is found out.
        filters, min_confidence: of every question.
        workers: processes that answer, at most.
        fails_fast: whether the first row that fails ends the run.
        restarts: whether to start over, and to replace what is there.
        cluster: whose workers answer; None for processes on this machine.
    """

    questions: QuestionFile
    answers: Path | None
    compression: Compression
    shape: Shape
    filters: Filters
    min_confidence: float | None
    workers: int
    fails_fast: bool = False
    restarts: bool = False
    cluster: ClusterSettings | None = None

    @property
    def can_go_on(self) -> bool:
        """Whether a run that was stopped can go on."""
        return not self.questions.is_stream and not is_stream(self.answers)

    def check(self, text: str) -> None:
        """Check a question.

        Raises:
            QuestionError: it cannot be asked.
        """
        Question(text, top_k=self.shape.top_k, filters=self.filters, min_confidence=self.min_confidence)


def is_stream(path: Path | None) -> bool:
    """Whether what goes to a path is gone at once: standard output, a pipe or a device."""
    return path is None or (path.exists() and not path.is_file())


def run(batch: Batch, settings: Settings, console: Console) -> BatchManifestJson:
    """Answer a batch, or go on with it where it was stopped.

    Args:
        batch: what is to be done.
        settings: of the index and its model.
        console: told how far it is.

    Raises:
        WhenceError: it cannot be done; what was answered before is kept.
        StoppedError: it was asked to stop.
    """
    with _target(batch.answers) as target, Stopping("Stopped. Nothing was written.") as stopping:
        with closing(Home(settings.home).open_current()) as generation:
            calibration = calibration_of(settings.home, generation.manifest)
            reranker = find_chosen_reranker(settings)
            known = _survey(batch, console)
        record = _record(batch, settings, generation, calibration, reranker, known)
        finished = None if batch.restarts else target.finished(record.model_dump())
        if finished is not None:
            _say(console, f"{batch.answers} is there already, and whole. To make it anew: --restart")
            return BatchManifestJson.model_validate_json(finished)
        target.begin(record.model_dump(), restart=batch.restarts, can_go_on=batch.can_go_on)
        if target.counts.rows:
            _say(console, f"Going on after {target.counts.rows:,} rows that are done.")
        stopping.message = STOPPED if batch.can_go_on else STOPPED_STREAM
        work = _work(batch, settings, generation, calibration, reranker)
        with _workforce(batch, work, known) as workers, _progress(console, target, known) as progress:
            seen = _answer(batch, known, workers, target, progress, stopping)
        _check_unchanged(batch, known, console)
        return _finish(batch, record.model_copy(update={"input": seen}), target)


def _target(path: Path | None) -> Journal | OutputStream:
    return OutputStream(path) if path is None or is_stream(path) else Journal(path)


def summary(manifest: BatchManifestJson) -> str:
    """Say what became of a batch."""
    counts = manifest.counts
    found = f"{counts.answered:,} answered, {counts.unanswered:,} not found, {counts.failed:,} failed"
    return f"{counts.rows:,} rows: {found}"


def _survey(batch: Batch, console: Console) -> Survey | None:
    """Look through the questions, if they can be read twice."""
    questions = batch.questions
    if questions.path is None or questions.is_stream:
        return None
    with TerminalProgress(console) as progress:
        progress.start(f"Reading {questions.path}", None)
        known = survey(
            questions,
            questions.path,
            check=batch.check if batch.fails_fast else None,
            needs_kinds=batch.shape.format in TABLES or batch.shape.fields is not None,
        )
    if batch.shape.fields is not None:
        named = {*ANSWER_FIELDS, *carried_names(known.kinds, reserved_names(batch.shape)).values()}
        unknown = sorted(batch.shape.fields - named)
        if unknown:
            raise WhenceError(
                f"There is no field {unknown[0]!r} to keep. Name some of these: {', '.join(sorted(named))}"
            )
    return known


def _record(
    batch: Batch,
    settings: Settings,
    generation: Generation,
    calibration: Calibration | None,
    reranker: ModelFiles | None,
    known: Survey | None,
) -> BatchRunJson:
    """Write down all that decides the result."""
    shape = batch.shape
    return BatchRunJson(
        whence=version("whence"),
        generation=generation.name,
        model=ModelIdentityJson.model_validate(generation.manifest.model),
        reranker=reranker and RerankerJson.model_validate(reranker),
        calibration=calibration and calibration.sha256,
        input=_input(batch, known),
        settings=BatchSettingsJson(
            top_k=shape.top_k,
            min_confidence=batch.min_confidence,
            filters=dict(batch.filters),
            backend=settings.backend,
            encoder=settings.encoder,
            field=batch.questions.field,
            encoding=batch.questions.encoding,
            format=shape.format.value,
            compression=batch.compression.value,
            fields=None if shape.fields is None else sorted(shape.fields),
            id_field=shape.id_field,
            for_spreadsheet=shape.for_spreadsheet,
        ),
    )


def _input(batch: Batch, known: Survey | Seen | None) -> BatchInputJson:
    return BatchInputJson(
        format=batch.questions.format.value, size=known and known.size, sha256=known and known.sha256
    )


def _work(
    batch: Batch,
    settings: Settings,
    generation: Generation,
    calibration: Calibration | None,
    reranker: ModelFiles | None,
) -> Work:
    # Its absolute path if it is a folder: the processes work elsewhere.
    model = find_model(settings.model or generation.manifest.model.name)
    return Work(
        generation=generation.folder.absolute(),
        model=model.name,
        models=(settings.cache / "models").absolute(),
        backend=settings.backend,
        encoder=settings.encoder,
        top_k=batch.shape.top_k,
        filters=batch.filters,
        min_confidence=batch.min_confidence,
        weights=weights_with(calibration, settings.encoder),
        shape=batch.shape,
        reranker=None if reranker is None else reranker.name,
    )


def _workforce(batch: Batch, work: Work, known: Survey | None) -> Workers | RayWorkforce:
    if batch.cluster is not None:
        return RayWorkforce(work, batch.cluster, rows=None if known is None else known.rows)
    return Workers(work, _workers(batch, known))


def _workers(batch: Batch, known: Survey | None) -> int:
    """Return how many processes there is work for."""
    return batch.workers if known is None else min(batch.workers, max(1, known.rows // WORTH_A_PROCESS))


def _progress(console: Console, target: Target, known: Survey | None) -> BatchProgress:
    counts = target.counts
    return BatchProgress(console, total=None if known is None else known.rows, done=counts.rows, failed=counts.failed)


def _answer(
    batch: Batch,
    known: Survey | None,
    workers: Workforce,
    target: Target,
    progress: BatchProgress,
    stopping: Stopping,
) -> BatchInputJson:
    """Answer what is not answered yet, part by part; return what was read."""
    seen = Seen()
    rows, kinds = _rows(batch, known, seen, stopping)
    output = output_of(replace(batch.shape, carried=tuple(kinds.items())))
    pipeline = Pipeline(
        islice(rows, target.counts.rows, None),
        workers,
        check=batch.check,
        top_k=batch.shape.top_k,
        fails_fast=batch.fails_fast,
        progress=progress,
        stopping=stopping,
    )
    with stopping.deferred():
        head = batch.compression.compressed(output.head())
        if head and target.is_empty:
            target.append(head, Counts())
        for part, counts in pipeline.parts():
            target.append(batch.compression.compressed(output.rows(part)), counts)
    return _input(batch, known or seen)


def _rows(
    batch: Batch, known: Survey | None, seen: Seen, stopping: Stopping
) -> tuple[Iterator[Row], Mapping[str, CellKind]]:
    """Read the questions; of a stream the first ones decide which columns a table has."""
    if known is not None:
        return batch.questions.rows(size=known.size), known.kinds
    rows = stopping.interruptible(batch.questions.rows(seen=seen))
    if batch.shape.format not in TABLES:
        return rows, {}
    first = list(islice(rows, part_rows(batch.shape.top_k)))
    kinds = kinds_of(first)
    return fitting(chain(first, rows), kinds), kinds


def _check_unchanged(batch: Batch, known: Survey | None, console: Console) -> None:
    path = batch.questions.path
    if known is None or path is None:
        return
    if digest(path, known.size) != (known.size, known.sha256):
        raise WhenceError(f"{path} was changed while it was read. Answer it as it is now: --restart")
    if path.stat().st_size > known.size:
        _say(console, f"{path} has grown since; its first {known.size:,} bytes were answered.")


def _finish(batch: Batch, record: BatchRunJson, target: Target) -> BatchManifestJson:
    counts = BatchCountsJson.model_validate(target.counts)

    def manifest(size: int, sha256: str) -> str:
        output = BatchOutputJson(size=size, sha256=sha256)
        return BatchManifestJson(**record.model_dump(), counts=counts, output=output).model_dump_json(indent=2) + "\n"

    convert = write_parquet if batch.shape.format is OutputFormat.PARQUET else None
    return BatchManifestJson.model_validate_json(target.finish(manifest, convert=convert))


def _say(console: Console, message: str) -> None:
    console.print(Text(visible(message)))
