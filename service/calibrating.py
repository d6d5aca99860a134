"""Fitting the confidence of a home to a team's own labelled questions, for the command line.

Loads SciPy and scikit-learn.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from index.answers import check_model
from index.calibration import Calibration, write_calibration
from index.confidence import adapt, cross_validate, measure
from index.generations import Generation, Home, utc_now
from index.labels import Labels, Outcomes, ask_labelled, check_outcomes, read_labels
from index.weights import default_weights
from service.display import TerminalProgress, visible
from service.models import load_chosen_reranker, load_model
from service.schemas.calibration import CalibrationReportJson
from service.settings import Settings

FIGURES = {
    "AUROC": "auroc",
    "expected calibration error": "calibration_error",
    "answerable questions silenced": "silenced_answerable",
    "unanswerable questions silenced": "silenced_unanswerable",
    "answered when 90 % of answers are right": "coverage_90",
    "answered when 95 % of answers are right": "coverage_95",
}


def calibrate_home(
    path: Path, settings: Settings, console: Console, *, silence: float, is_stored: bool
) -> CalibrationReportJson:
    """Fit the confidence to labelled questions about the published generation, and measure what it changes.

    Args:
        path: of the labels.
        settings: of the index and its model.
        console: told how far it is.
        silence: share of the answerable questions that may be silenced.
        is_stored: whether the home answers with it from now on.

    Raises:
        CalibrationError: the labels cannot be used, or the calibration cannot be written.
        GenerationError: there is nothing to ask.
        ModelError: the model cannot be loaded.
    """
    with closing(Home(settings.home).open_current()) as generation:
        labels = read_labels(path, generation)
        outcomes = _asked(generation, labels, settings, console)
    check_outcomes(outcomes)
    shipped = default_weights().confidence
    calibration = Calibration(
        weights=adapt(outcomes, prior=shipped, silence=silence),
        created=utc_now().isoformat(timespec="seconds"),
        model=generation.manifest.model.name,
        model_files_sha256=generation.manifest.model.files_sha256,
        reranker=settings.reranker,
        generation=generation.name,
        format_version=generation.manifest.format_version,
        making=generation.manifest.making,
        labels_sha256=labels.sha256,
        answerable=int(outcomes.is_answerable.sum()),
        unanswerable=int((~outcomes.is_answerable).sum()),
        silence=silence,
    )
    report = CalibrationReportJson.of(
        calibration,
        shipped=measure(outcomes, shipped),
        calibrated=cross_validate(outcomes, prior=shipped, silence=silence),
        stored=is_stored,
    )
    if is_stored:
        write_calibration(settings.home, calibration)
    return report


def show_calibration(console: Console, report: CalibrationReportJson, *, home: Path) -> None:
    """Print the figures beside those of what ships, and what became of the calibration."""
    calibration = report.calibration
    table = Table(
        f"{calibration.answerable} answerable, {calibration.unanswerable} unanswerable questions",
        "as shipped",
        "calibrated",
        box=None,
    )
    for name, field in FIGURES.items():
        table.add_row(name, *(_figure(getattr(each, field), field) for each in (report.shipped, report.calibrated)))
    console.print(table)
    console.print("Calibrated figures are cross-validated: each question by a fit on others.")
    done = f"Stored in {home}" if report.stored else "Nothing was stored"
    console.print(Text(visible(f"{done}. The threshold is {calibration.weights.threshold:.4f}.")))


def _asked(generation: Generation, labels: Labels, settings: Settings, console: Console) -> Outcomes:
    with TerminalProgress(console) as progress:
        progress.start("Loading the model", None)
        encoder = load_model(settings, settings.model or generation.manifest.model.name)
        check_model(generation, encoder)
        reranker = load_chosen_reranker(settings)
        return ask_labelled(generation, encoder, labels.questions, progress, reranker=reranker)


def _figure(value: float, field: str) -> str:
    return f"{value:.3f}" if field in ("auroc", "calibration_error") else f"{value:.1%}"
