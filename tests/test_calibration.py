"""A home is calibrated on a team's own labels; whatever answers from it goes by that, or refuses to."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, make_dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from calibrations import always_sure
from handbook import Handbook
from labelled import ANSWERABLE, UNANSWERABLE, write_labels
from live import serving
from tiny_models import write_tiny_model
from waiting import until

from index.answers import Question, answer_questions
from index.backups import back_up, restore
from index.build import sync
from index.calibration import (
    CONFIDENCE,
    calibration_of,
    read_calibration,
    remove_calibration,
    weights_of,
    write_calibration,
)
from index.embeddings import Encoder, load_encoder
from index.errors import CalibrationError
from index.generations import Home
from index.manifest import Manifest
from index.weights import default_weights
from service.cli import main
from service.settings import Settings

RED = "What does the red light mean?"
NOWHERE = "Who won the world cup in 1998?"


@dataclass(frozen=True)
class Result:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def record(self) -> dict[str, Any]:
        """The only line of the output, parsed as JSON."""
        record: dict[str, Any] = json.loads(self.out)
        return record


Whence = Callable[..., Result]


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_labels(tmp_path_factory.mktemp("labels") / "labels.jsonl")


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, encoder: Encoder) -> Home:
    """The handbook, published."""
    home = Home(tmp_path_factory.mktemp("calibrated") / "home")
    sync(home, [Handbook()], encoder)
    return home


@pytest.fixture
def filled(published: Home) -> Iterator[Home]:
    """The handbook, published, with the confidence that ships."""
    remove_calibration(published.path)
    yield published
    remove_calibration(published.path)


@pytest.fixture(scope="module")
def client(published: Home, cache_folder: Path) -> Iterator[httpx.Client]:
    with serving(published.path, cache_folder) as client:
        yield client


@pytest.fixture
def whence(
    published: Home, cache_folder: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> Whence:
    """Run a command in the home."""
    for name in Settings.model_fields:
        monkeypatch.delenv(f"WHENCE_{name.upper()}", raising=False)
    monkeypatch.setenv("WHENCE_HOME", str(published.path))
    monkeypatch.setenv("WHENCE_CACHE", str(cache_folder))

    def run(*arguments: str | Path) -> Result:
        monkeypatch.setattr(sys, "argv", ["whence", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
        capfdbinary.readouterr()
        code: Any = 0
        try:
            main()
        except SystemExit as ending:
            code = ending.code or 0
        captured = capfdbinary.readouterr()
        assert b"Traceback" not in captured.err
        return Result(code, captured.out.decode(), captured.err.decode())

    return run


def manifest_of(home: Home) -> Manifest:
    manifest = home.known_manifest()
    assert manifest is not None
    return manifest


def answered(home: Home, encoder: Encoder, questions: Iterable[str]) -> list[bool]:
    """Ask questions of a home; tell of each whether it was answered."""
    with closing(home.open_current()) as generation:
        weights = weights_of(home.path, generation.manifest)
        asked = [Question(text) for text in questions]
        return [answer.answered for answer in answer_questions(generation, encoder, asked, weights=weights)]


def confidence_over_http(client: httpx.Client) -> float:
    confidence: float = client.post("/v1/ask", json={"question": RED}).json()["confidence"]
    return confidence


# The command


def test_a_dry_run_says_what_would_change_and_stores_nothing(
    whence: Whence, filled: Home, labels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WHENCE_MIN_CONFIDENCE", "0.9")
    result = whence("calibrate", labels, "--dry-run")
    assert (result.code, result.err) == (0, "WHENCE_MIN_CONFIDENCE is 0.9, and stands in for the threshold.\n")
    lines = [" ".join(line.split()) for line in result.out.splitlines()]
    assert lines[0] == "24 answerable, 12 unanswerable questions as shipped calibrated"
    assert [line.rsplit(" ", 2)[0] for line in lines[1:7]] == [
        "AUROC",
        "expected calibration error",
        "answerable questions silenced",
        "unanswerable questions silenced",
        "answered when 90 % of answers are right",
        "answered when 95 % of answers are right",
    ]
    assert lines[7] == "Calibrated figures are cross-validated: each question by a fit on others."
    assert lines[8].startswith("Nothing was stored. The threshold is 0.")
    assert not (filled.path / CONFIDENCE).exists()


def test_what_is_stored_is_what_the_report_says_and_gives_the_answers_it_promises(
    whence: Whence, filled: Home, labels: Path, encoder: Encoder
) -> None:
    report = whence("calibrate", labels, "--json").record
    calibration = read_calibration(filled.path)
    assert calibration is not None
    assert report["stored"] is True
    assert report["calibration"]["weights"] == vars(calibration.weights)
    assert report["calibration"]["sha256"] == calibration.sha256
    assert (calibration.answerable, calibration.unanswerable, calibration.silence) == (24, 12, 0.08)
    assert calibration.generation == filled.published_name()
    assert report["calibrated"]["auroc"] > 0.9
    assert answered(filled, encoder, ANSWERABLE).count(False) == 1  # 8 % of 24 are 1.92
    assert answered(filled, encoder, UNANSWERABLE).count(True) <= 3


def test_the_share_of_silence_can_be_chosen(whence: Whence, filled: Home, labels: Path, encoder: Encoder) -> None:
    assert whence("calibrate", labels, "--silence", "0.25").code == 0
    assert answered(filled, encoder, ANSWERABLE).count(False) == 6


def test_usage_is_checked_before_anything_is_loaded(whence: Whence, filled: Home, labels: Path) -> None:
    for arguments in ([], [labels, "--reset"], ["--reset", "--dry-run"]):
        result = whence("calibrate", *arguments)
        assert (result.code, "give a file of labels, or --reset alone" in result.err) == (2, True)
    assert whence("calibrate", labels, "--silence", "1.5").code == 2
    missing = whence("calibrate", "nowhere.jsonl")
    assert (missing.code, missing.out) == (1, "")
    assert "The labels nowhere.jsonl cannot be read: No such file or directory" in missing.err


def test_another_model_than_that_of_the_index_is_refused(
    whence: Whence, filled: Home, labels: Path, tmp_path: Path, cache_folder: Path
) -> None:
    tiny = write_tiny_model(tmp_path)
    load_encoder(str(tiny), cache_folder=cache_folder / "models")
    result = whence("calibrate", labels, "--model", tiny)
    assert (result.code, "The index was built with the model" in result.err) == (1, True)
    assert read_calibration(filled.path) is None


def test_the_status_tells_whether_the_home_is_calibrated(whence: Whence, filled: Home) -> None:
    assert "\nConfidence as it ships\n" in whence("status").out
    assert whence("status", "--json").record["calibration"] is None
    calibration = always_sure(filled)
    write_calibration(filled.path, calibration)
    told = "Confidence calibrated 2026-11-21T06:00:01+00:00 on 20 answerable and 10 unanswerable questions"
    assert told in whence("status").out
    assert whence("status", "--json").record["calibration"]["sha256"] == calibration.sha256


# One calibration for every way of asking


def test_every_way_of_asking_gives_the_same_answer(
    whence: Whence, filled: Home, client: httpx.Client, tmp_path: Path
) -> None:
    shipped = confidence_over_http(client)
    assert shipped != 0.75
    write_calibration(filled.path, always_sure(filled))
    until(lambda: confidence_over_http(client) == 0.75, seconds=1)
    asked = client.post("/v1/ask", json={"question": NOWHERE}).json()
    together = client.post("/v1/ask/batch", json={"questions": [NOWHERE]}).json()["answers"][0]
    on_the_command_line = whence("ask", NOWHERE, "--json").record
    (tmp_path / "q.txt").write_text(NOWHERE)
    assert whence("batch", tmp_path / "q.txt", tmp_path / "a.jsonl", "--workers", "1").code == 0
    in_a_batch = json.loads((tmp_path / "a.jsonl").read_text())
    for answer in (asked, together, on_the_command_line):
        answer.pop("took_ms")
        assert answer == in_a_batch
    assert (in_a_batch["confidence"], in_a_batch["answered"]) == (0.75, True)
    reply = client.post("/v1/chat", json={"messages": [{"role": "user", "content": NOWHERE}]}).json()
    assert reply["answer"]["answer"]["text"] == in_a_batch["answer"]["text"]
    assert whence("calibrate", "--reset").out == "The confidence is as it ships.\n"
    until(lambda: confidence_over_http(client) == shipped, seconds=1)
    assert whence("calibrate", "--reset", "--json").record == {"was_calibrated": False}
    assert whence("ask", RED, "--json").record["confidence"] == shipped


def test_a_service_goes_on_as_before_when_a_calibration_is_damaged(
    whence: Whence, filled: Home, client: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    write_calibration(filled.path, always_sure(filled))
    until(lambda: confidence_over_http(client) == 0.75)
    (filled.path / CONFIDENCE).write_text("{}")
    until(lambda: "Answers go on as they were calibrated before: " in caplog.text)
    assert confidence_over_http(client) == 0.75
    write_calibration(filled.path, always_sure(filled, confidence=0.6))
    until(lambda: confidence_over_http(client) == 0.6, seconds=1)
    assert caplog.text.count("Answers go on as they were calibrated before") == 1


def test_a_batch_that_was_begun_under_another_calibration_is_not_gone_on_with(
    whence: Whence, filled: Home, tmp_path: Path
) -> None:
    (tmp_path / "q.txt").write_text(RED)
    command = ("batch", tmp_path / "q.txt", tmp_path / "a.jsonl", "--workers", "1")
    assert whence(*command).code == 0
    manifest = json.loads((tmp_path / "a.jsonl.manifest.json").read_text())
    assert manifest["calibration"] is None
    begun = {name: value for name, value in manifest.items() if name not in ("counts", "output")}
    for path in tmp_path.glob("a.*"):
        path.unlink()
    (tmp_path / "a.jsonl.journal").write_text(json.dumps({"run": begun}) + "\n")
    calibration = always_sure(filled)
    write_calibration(filled.path, calibration)
    refused = whence(*command)
    assert refused.code == 1
    assert f"was begun by another run: calibration was None, is '{calibration.sha256}'." in refused.err
    assert whence(*command, "--restart").code == 0
    assert json.loads((tmp_path / "a.jsonl.manifest.json").read_text())["calibration"] == calibration.sha256


# The file


def test_what_was_written_is_read_again(filled: Home) -> None:
    assert read_calibration(filled.path) is None
    assert weights_of(filled.path, manifest_of(filled)) is default_weights()
    calibration = always_sure(filled)
    write_calibration(filled.path, calibration)
    assert calibration_of(filled.path, manifest_of(filled)) == calibration
    assert weights_of(filled.path, manifest_of(filled)) == replace(default_weights(), confidence=calibration.weights)
    assert [path.name for path in filled.path.glob(".confidence*")] == []
    assert remove_calibration(filled.path)
    assert not remove_calibration(filled.path)


def test_a_calibration_is_told_from_others_by_all_of_it(filled: Home) -> None:
    calibration = always_sure(filled)
    assert calibration.sha256 == always_sure(filled).sha256
    assert replace(calibration, labels_sha256="1" * 64).sha256 != calibration.sha256
    assert always_sure(filled, threshold=0.51).sha256 != calibration.sha256


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: "", "is damaged: it is not a calibration (Expecting value"),
        (lambda text: text[:100], "is damaged: it is not a calibration"),
        (lambda text: "[]", "is damaged: it is not a calibration"),
        (lambda text: "{}", "is damaged: it is not a calibration ('sha256')"),
        (lambda text: text.replace('"threshold": 0.5', '"threshold": 0.6'), "was altered: it does not match"),
    ],
)
def test_a_damaged_file_is_refused_with_what_to_do(
    damage: Callable[[str], str], message: str, whence: Whence, filled: Home
) -> None:
    write_calibration(filled.path, always_sure(filled))
    path = filled.path / CONFIDENCE
    path.write_text(damage(path.read_text()))
    for command in (("ask", RED), ("status",), ("backup", "nowhere.tar"), ("batch", "-", "-")):
        result = whence(*command)
        assert (result.code, result.out) == (1, "")
        assert f"{path} {message}" in result.err
        assert f"Fit it anew: whence calibrate LABELS --home {filled.path}" in result.err
        assert f"whence calibrate --reset --home {filled.path}\n" in result.err
    assert whence("calibrate", "--reset").code == 0
    assert whence("ask", RED).code == 0


def test_a_file_of_another_version_or_for_other_evidence_is_refused(
    filled: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_calibration(filled.path, always_sure(filled))
    monkeypatch.setattr("index.calibration.FILE_VERSION", 2)
    with pytest.raises(CalibrationError, match=r"was written by another version of Whence\. Fit it anew"):
        read_calibration(filled.path)
    monkeypatch.undo()
    calibration = always_sure(filled)
    weights: Any = {name: value for name, value in vars(calibration.weights).items() if name != "names"}
    weights["moon"] = 1.0
    write_calibration(filled.path, replace(calibration, weights=make_dataclass("Other", weights)(**weights)))
    with pytest.raises(
        CalibrationError, match=r"on other evidence than this version of Whence goes by \(moon, names\)"
    ):
        read_calibration(filled.path)


def test_a_calibration_for_another_model_is_refused(whence: Whence, filled: Home, labels: Path) -> None:
    write_calibration(filled.path, replace(always_sure(filled), model="other", model_files_sha256="ab" * 32))
    for command in (("ask", RED), ("status",), ("serve", "--port", "0")):
        result = whence(*command)
        assert result.code == 1
        assert (
            "was fitted for the model other (abababababab…), the index was built with all-MiniLM-L6-v2" in result.err
        )
        assert "Fit it anew: whence calibrate LABELS" in result.err
    assert whence("calibrate", labels).code == 0
    assert whence("ask", RED).code == 0


def test_a_home_that_cannot_be_written_keeps_its_calibration(filled: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    calibration = always_sure(filled)
    write_calibration(filled.path, calibration)
    with pytest.raises(CalibrationError, match=r"cannot be written: No such file or directory\. The home answers as"):
        write_calibration(filled.path / "nowhere", calibration)
    (filled.path / f".{CONFIDENCE}-{os.getpid()}").mkdir()
    try:
        with pytest.raises(CalibrationError, match="cannot be written: Is a directory"):
            write_calibration(filled.path, always_sure(filled, confidence=0.6))
    finally:
        (filled.path / f".{CONFIDENCE}-{os.getpid()}").rmdir()
    assert read_calibration(filled.path) == calibration


# Backups


def test_a_backup_carries_the_calibration_to_a_home_that_has_none(filled: Home, tmp_path: Path) -> None:
    back_up(filled, tmp_path / "plain.tar")
    calibration = always_sure(filled)
    write_calibration(filled.path, calibration)
    back_up(filled, tmp_path / "calibrated.tar")
    other = Home(tmp_path / "other")
    restore(other, tmp_path / "calibrated.tar")
    assert read_calibration(other.path) == calibration
    assert (other.path / CONFIDENCE).read_bytes() == (filled.path / CONFIDENCE).read_bytes()
    own = always_sure(other, confidence=0.6)
    write_calibration(other.path, own)
    for name in ("calibrated.tar", "plain.tar"):
        restore(other, tmp_path / name)
        assert read_calibration(other.path) == own
