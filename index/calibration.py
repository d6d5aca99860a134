"""The calibration of a home: weights of the confidence that were fitted to a team's own labelled questions.

    HOME/confidence.json    weights, what they were fitted for and on, and the digest of all of it

It is a setting of the home, beside the generations: whoever answers from the home goes by it, so the same question
gets the same answer over HTTP, in a chat, on the command line and in a batch. Without the file the weights are those
that ship. It is replaced by a rename and never changed in place. One that is damaged, or was fitted for another model
or other evidence than is there now, is refused: its numbers would mean nothing, and without it the answers would not
be those that the team has agreed to. How it is fitted: `index.confidence`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from index.errors import CalibrationError
from index.generations import UnconfirmedError, replace_file, sync_folder, unconfirmed
from index.manifest import Manifest
from index.weights import ConfidenceWeights, EncoderName, Weights, default_weights

CONFIDENCE = "confidence.json"
FILE_VERSION = 1


@dataclass(frozen=True)
class Calibration:
    """Weights of the confidence, and what they come from.

    Attributes:
        weights: with their threshold.
        created: UTC, ISO 8601.
        model: name of the embedding model.
        model_files_sha256: tells it from other models.
        reranker: name of the one that was used, which decides what comes first; None without one.
        generation: that was asked.
        format_version, making: of that generation, see `Manifest`.
        labels_sha256: of the file of labels.
        answerable: how many labelled questions have a document that answers them.
        unanswerable: how many have none.
        silence: share of the answerable ones that may stay without an answer.
    """

    weights: ConfidenceWeights
    created: str
    model: str
    model_files_sha256: str
    reranker: str | None
    generation: str
    format_version: int
    making: Mapping[str, str | int]
    labels_sha256: str
    answerable: int
    unanswerable: int
    silence: float

    @property
    def sha256(self) -> str:
        """Tells it from every other calibration."""
        return _digest(self._fields())

    def as_json(self) -> str:
        """Return the text of `confidence.json`, with a digest of itself."""
        return json.dumps({**self._fields(), "sha256": self.sha256}, indent=2, ensure_ascii=False) + "\n"

    def _fields(self) -> dict[str, Any]:
        return {"version": FILE_VERSION, **asdict(self)}


def weights_of(home: Path, manifest: Manifest, encoder: EncoderName = "full") -> Weights:
    """Return the weights to answer with.

    Args:
        home: folder of the home.
        manifest: of the generation that is asked.
        encoder: of the questions.

    Raises:
        CalibrationError: see `calibration_of`.
    """
    return weights_with(calibration_of(home, manifest), encoder)


def weights_with(calibration: Calibration | None, encoder: EncoderName = "full") -> Weights:
    """Return the weights to answer with under a calibration, which None is without.

    A calibration is fitted to what the full encoder says: with the instant encoder the weights stay those that ship.
    """
    weights = default_weights(encoder)
    if calibration is None or encoder != "full":
        return weights
    return replace(weights, confidence=calibration.weights)


def calibration_of(home: Path, manifest: Manifest) -> Calibration | None:
    """Read the calibration of a home, and check that it is for the model of a generation; None where there is none.

    Raises:
        CalibrationError: it is for another model, or see `read_calibration`.
    """
    calibration = read_calibration(home)
    if calibration is not None and calibration.model_files_sha256 != manifest.model.files_sha256:
        raise CalibrationError(
            f"{home / CONFIDENCE} was fitted for the model {calibration.model} "
            f"({calibration.model_files_sha256[:12]}…), the index was built with {manifest.model.name} "
            f"({manifest.model.files_sha256[:12]}…). {_remedy(home)}"
        )
    return calibration


def read_calibration(home: Path) -> Calibration | None:
    """Read the calibration of a home; None where there is none.

    Raises:
        CalibrationError: the file cannot be read, is damaged, or is another version's.
    """
    path = home / CONFIDENCE
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        # Made alike in every version, so that a newer file is not taken for an altered one.
        if record.pop("sha256") != _digest(record):
            raise CalibrationError(f"{path} was altered: it does not match the digest in it. {_remedy(home)}")
        if record.pop("version") != FILE_VERSION:
            raise CalibrationError(f"{path} was written by another version of Whence. {_remedy(home)}")
        _check_evidence(record["weights"], home)
        return Calibration(**{**record, "weights": ConfidenceWeights(**record["weights"])})
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise CalibrationError(
            f"{path} cannot be read: {exc.strerror or exc}. Check the permissions, or go back to the confidence that "
            f"ships: whence calibrate --reset --home {home}"
        ) from exc
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
        raise CalibrationError(f"{path} is damaged: it is not a calibration ({exc}). {_remedy(home)}") from exc


def write_calibration(home: Path, calibration: Calibration) -> None:
    """Make a calibration that of a home, by one rename; it is on the disk when this returns.

    Raises:
        CalibrationError: it cannot be written; the one before is untouched.
    """
    try:
        replace_file(home / CONFIDENCE, calibration.as_json())
    except OSError as exc:
        raise _write_error(home, exc) from exc


def remove_calibration(home: Path) -> bool:
    """Go back to the weights that ship; tell whether there was a calibration, whole or not.

    Raises:
        CalibrationError: it cannot be removed.
    """
    try:
        (home / CONFIDENCE).unlink()
        sync_folder(home)
    except FileNotFoundError:
        return False
    except OSError as exc:
        raise _write_error(home, exc) from exc
    return True


def _check_evidence(weights: Mapping[str, float], home: Path) -> None:
    expected = {field.name for field in fields(ConfidenceWeights)}
    if odd := sorted(expected ^ weights.keys()):
        raise CalibrationError(
            f"{home / CONFIDENCE} was fitted on other evidence than this version of Whence goes by "
            f"({', '.join(odd)}). {_remedy(home)}"
        )


def _digest(record: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def _remedy(home: Path) -> str:
    return (
        f"Fit it anew: whence calibrate LABELS --home {home}, or go back to the confidence that ships: "
        f"whence calibrate --reset --home {home}"
    )


def _write_error(home: Path, error: OSError) -> CalibrationError:
    if isinstance(error, UnconfirmedError):
        return CalibrationError(unconfirmed(home / CONFIDENCE, error))
    return CalibrationError(
        f"{home / CONFIDENCE} cannot be written: {error.strerror or error}. The home answers as before. Make room or "
        "check the permissions, then run the command again."
    )
