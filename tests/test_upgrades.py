"""Homes that another version of Whence has written: older ones are read, newer ones refused and left alone."""

from __future__ import annotations

import io
import json
import shutil
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from checking import check_generation
from home_fixtures import FIXTURES, GUIDE, LETTER, NOTE, guide
from putting import kept
from tiny_encoder import WordEncoder

from index.answers import Question, answer_questions
from index.backups import back_up, restore
from index.build import sync
from index.errors import GenerationError, StateError
from index.generations import Home
from index.manifest import FORMAT_VERSION, MANIFEST, read_manifest
from index.state import STATE_VERSION, State
from index.uploads import Uploads, stored_uploads
from service.cli import main
from service.settings import Settings

ENCODER = WordEncoder()
NEWER = FORMAT_VERSION + 1
REFUSED = f"has format version {NEWER}, this version of Whence reads {FORMAT_VERSION}. Use the version that wrote it"


def files_of(path: Path) -> dict[str, bytes]:
    """Return what is below a folder: every file with its bytes, and the folders."""
    found = sorted(path.rglob("*"))
    return {str(each.relative_to(path)): each.read_bytes() if each.is_file() else b"" for each in found}


# Homes of the past: every format that was ever released has one in tests/fixtures, made by tests/home_fixtures.py.


@pytest.fixture(params=[f"format-{version}" for version in range(4, FORMAT_VERSION + 1)])
def past(request: pytest.FixtureRequest, tmp_path: Path) -> Home:
    """A home of some format."""
    return Home(shutil.copytree(FIXTURES / request.param, tmp_path / "past"))


def test_a_home_of_the_past_answers_and_its_citations_verify(past: Home) -> None:
    with closing(past.open_current()) as generation:
        check_generation(generation, ENCODER, {"guide.md": GUIDE, "notes/note.md": NOTE})
        (answer,) = answer_questions(generation, ENCODER, [Question("Where is the receipt?")])
    assert answer.answer is not None
    assert answer.answer.text == "The receipt is in the drawer."
    assert answer.answer.citation.document.metadata == {"author": "Wombleigh", "year": 2026}


def test_a_home_of_the_past_is_synced_and_takes_documents(past: Home) -> None:
    before = past.published_name()
    assert before is not None
    report = sync(past, [guide()], ENCODER)
    # A new generation only where words are taken apart otherwise, as by another version of Python.
    assert (report.added, report.changed, report.removed, report.unchanged) == ((), (), (), 2)
    with State(past.path) as state:
        uploads = Uploads(past.path, state)
        report = sync(past, [uploads.planned([kept(state, uploads, "letter.md", LETTER)])], ENCODER)
    assert (report.added, report.unchanged) == (("letter.md",), 2)
    with closing(past.open_current()) as generation:
        check_generation(generation, ENCODER, {"guide.md": GUIDE, "notes/note.md": NOTE, "letter.md": LETTER})
    assert past.roll_back(before) == before


def test_a_home_of_the_past_is_backed_up_and_restored(past: Home, home: Home, tmp_path: Path) -> None:
    name = back_up(past, tmp_path / "backup.tar")
    assert restore(home, tmp_path / "backup.tar") == name
    assert stored_uploads(home.path).tries.keys() == {"notes/note.md"}
    with closing(home.open_current()) as generation:
        check_generation(generation, ENCODER, {"guide.md": GUIDE, "notes/note.md": NOTE})


def test_the_homes_of_the_past_are_small() -> None:
    for folder in FIXTURES.iterdir():
        assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 80_000


# Homes of the future.


@pytest.fixture
def newer(home: Home) -> Home:
    """A home that a later version has written to."""
    sync(home, [guide()], ENCODER)
    name = sync(home, [guide(GUIDE + "\nMore.\n")], ENCODER).generation
    folder = home.folder(name)
    (folder / MANIFEST).write_text(replace(read_manifest(folder), format_version=NEWER).as_json())
    (home.path / "writer.lock").unlink(missing_ok=True)
    return home


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    """A folder with something for every command to read."""
    folder = tmp_path / "inputs"
    (folder / "docs").mkdir(parents=True)
    (folder / "docs" / "more.md").write_text("# More\n\nMore of it.\n")
    (folder / "questions.txt").write_text("What is it?\n")
    (folder / "labels.jsonl").write_text(json.dumps({"question": "What is it?", "documents": ["guide.md"]}) + "\n")
    citation = {"document": {"id": "guide.md", "sha256": "0"}, "start": 0, "end": 8, "quote": "# Router"}
    (folder / "saved.json").write_text(json.dumps(citation))
    other = Home(folder / "other")
    sync(other, [guide()], ENCODER)
    back_up(other, folder / "backup.tar")
    return folder


Refusal = Callable[..., str]


@pytest.fixture
def refusal(
    newer: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Refusal:
    """Run a command that must fail, and return what it said; the home is left alone byte for byte."""
    for name in Settings.model_fields:
        monkeypatch.delenv(f"WHENCE_{name.upper()}", raising=False)
    monkeypatch.setenv("WHENCE_HOME", str(newer.path))
    monkeypatch.setenv("WHENCE_CACHE", str(tmp_path / "cache"))

    def run(*arguments: str) -> str:
        before = files_of(newer.path)
        monkeypatch.setattr(sys, "argv", ["whence", *arguments])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
        with pytest.raises(SystemExit) as ending:
            main()
        assert ending.value.code == 1
        assert files_of(newer.path) == before
        out, err = capsys.readouterr()
        assert out == ""
        return str(err)

    return run


COMMANDS = [
    ["ask", "What is it?"],
    ["index"],
    ["index", "docs"],
    ["serve", "--port", "0"],
    ["mcp"],
    ["status"],
    ["generations"],
    ["rollback"],
    ["rollback", "OLDEST"],
    ["verify", "saved.json"],
    ["backup", "new.tar"],
    ["restore", "backup.tar"],
    ["batch", "questions.txt", "answers.jsonl"],
    ["calibrate", "labels.jsonl"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_newer_home_is_refused_by_every_command_and_left_alone(
    newer: Home, inputs: Path, refusal: Refusal, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    monkeypatch.chdir(inputs)
    oldest = {"OLDEST": newer.manifests()[0].name}  # the only one that can be read
    said = refusal(*(oldest.get(word, word) for word in command))
    assert REFUSED in said
    assert said.count("\n") == 1  # and nothing else


def test_a_newer_home_that_lost_its_current_file_is_not_taken_for_an_empty_one(newer: Home, refusal: Refusal) -> None:
    (newer.path / "CURRENT").unlink()
    for command in (["ask", "What is it?"], ["index", "."], ["generations"]):
        assert REFUSED in refusal(*command)


def test_a_newer_backup_is_refused_and_changes_nothing(newer: Home, tmp_path: Path) -> None:
    name = newer.published_name()
    backup = shutil.make_archive(str(tmp_path / "newer"), "tar", newer.generations_path, name)
    mine = Home(tmp_path / "mine")
    sync(mine, [guide()], ENCODER)
    before = files_of(mine.path)
    with pytest.raises(GenerationError, match=REFUSED):
        restore(mine, Path(backup))
    assert files_of(mine.path) == before


def test_a_newer_state_is_refused_and_left_alone(home: Home) -> None:
    with State(home.path):
        pass
    with closing(sqlite3.connect(home.path / "state.sqlite")) as connection:
        connection.execute(f"PRAGMA user_version = {STATE_VERSION + 1}")
    before = files_of(home.path)
    message = rf"has format version {STATE_VERSION + 1}, this version of Whence reads {STATE_VERSION}"
    with pytest.raises(StateError, match=message):
        State(home.path)
    assert files_of(home.path) == before
