"""Whatever fails while something is written: the older or the newer state is there, whole, and the next run succeeds.

A sample of what `benchmarks/soak/faults.py` does to every call, and what needs no fault to be injected.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from calibrations import always_sure
from soak import works
from soak.injection import missing
from sources_in_memory import MemorySource

from index import draft, generations
from index.backups import back_up, restore
from index.build import BuildSettings, sync
from index.calibration import read_calibration, write_calibration
from index.embeddings import Encoder
from index.errors import CalibrationError, DamagedGenerationError, GenerationError, NoGenerationError
from index.generations import Generation, Home
from index.state import State
from index.uploads import Uploads

ROOT = Path(__file__).parents[1]
KINDS = ("ENOSPC", "EIO", "EINTR", "kill")
ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{ROOT / 'benchmarks'}:{ROOT / 'tests'}"}
IN_PLACE = """
import sys
from pathlib import Path
from soak.faults import disturb
from soak.works import NEW, OLD, Work

def write_in_place(folder):
    with open(folder / "text", "w") as stream:
        for line in ("first", "second"):
            stream.write(line)
            stream.flush()

def look(folder):
    text = (folder / "text").read_text()
    assert text in ("old", "firstsecond"), f"neither of the two: {text}"
    return OLD if text == "old" else NEW

work = Work("in place", lambda folder: (folder / "text").write_text("old"), write_in_place, look)
for tally in disturb(work, ["EIO", "kill"], every=1):
    print(tally.as_json())
"""

PUBLISHING = """
import sys
from pathlib import Path
from soak.works import publish

for number in range(4):
    publish(Path(sys.argv[1]), number, wait_s=60)
"""


@pytest.fixture(scope="module")
def strace() -> None:
    """Skip where no fault can be injected."""
    if reason := missing():
        pytest.skip(f"no fault can be injected: {reason}")


def tallies(*arguments: str) -> Iterator[dict[str, Any]]:
    """Run Python with some arguments, and yield the tallies that it prints."""
    command = [sys.executable, *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=300, check=False)
    assert ran.stdout, ran.stderr
    yield from map(json.loads, ran.stdout.splitlines())


@pytest.mark.usefixtures("strace")
def test_what_is_written_survives_every_kind_of_fault() -> None:
    names = ("index", "put", "calibrate", "batch")
    chosen = [argument for name in names for argument in ("--work", name)]
    found = list(tallies("-m", "soak.faults", *chosen, "--every", "41", "--json"))
    assert [(tally["work"], tally["kind"]) for tally in found] == [(name, kind) for name in names for kind in KINDS]
    assert [tally["problems"] for tally in found] == [[]] * len(found)
    assert sum(tally["injected"] for tally in found) >= 20
    killed = [tally for tally in found if tally["kind"] == "kill"]
    assert all(tally["ended"] in ({"killed": tally["injected"]}, {}) for tally in killed)


@pytest.mark.usefixtures("strace")
def test_a_file_that_is_written_in_place_does_not_survive() -> None:
    broken, killed = tallies("-c", IN_PLACE)
    assert broken["survived"] == 0
    assert "ended with another error than ours: OSError" in broken["problems"][0]
    assert [problem.rpartition(": ")[2] for problem in killed["problems"]] == ["", "first"]


# What the faults have taught.


def refuse(_: Path) -> None:
    raise OSError(errno.EIO, "Input/output error")


def test_a_generation_that_could_not_be_published_is_removed(
    home: Home, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(draft, "sync_folder", refuse)
    with pytest.raises(GenerationError, match="The published index is untouched"):
        publish(home, 1, encoder)
    assert list(home.generations_path.iterdir()) == []
    with pytest.raises(NoGenerationError):
        home.open_current()


def test_what_was_replaced_and_may_not_outlive_a_power_cut_is_named_as_such(
    filled: Home, tmp_path: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    calibration = always_sure(filled)
    monkeypatch.setattr(generations, "sync_folder", refuse)
    told = r"was written, but the disk did not confirm it: Input/output error\. It is in use"
    with pytest.raises(CalibrationError, match=rf"confidence\.json {told}"):
        write_calibration(filled.path, calibration)
    assert read_calibration(filled.path) == calibration
    with pytest.raises(GenerationError, match=rf"backup\.tar {told}"):
        back_up(filled, tmp_path / "backup.tar")
    with pytest.raises(GenerationError, match=rf"filled {told}"):
        filled.roll_back()
    monkeypatch.undo()
    assert served(filled) == 1
    restore(Home(tmp_path / "other"), tmp_path / "backup.tar")
    assert served(Home(tmp_path / "other")) == 2


def test_what_a_killed_backup_left_goes_with_the_next_one_and_what_is_being_written_stays(
    filled: Home, tmp_path: Path
) -> None:
    left, written = tmp_path / ".a[b].tar-1", tmp_path / ".a[b].tar-2"
    left.write_text("half a backup")
    with written.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        back_up(filled, tmp_path / "a[b].tar")
    assert not left.exists()
    assert written.exists()


def test_a_received_file_that_cannot_be_removed_fails_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with State(tmp_path) as state:
        incoming = Uploads(tmp_path, state).receive()
        shutil.rmtree(tmp_path / "uploads")
        (tmp_path / "uploads").write_text("no folder")
        incoming.discard()
    assert "could not be removed" in caplog.text


# Damage that no system call told of.


@pytest.fixture(scope="module")
def two_generations(encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("two")
    for number in (1, 2):
        publish(Home(path), number, encoder)
    return path


@pytest.fixture
def filled(two_generations: Path, tmp_path: Path) -> Home:
    """A home with the versions 1 and 2, the latter published."""
    return Home(shutil.copytree(two_generations, tmp_path / "filled"))


def publish(home: Home, number: int, encoder: Encoder) -> str:
    texts = {name: f"# {name}\n\nThis is version {number}.\n" for name in ("a.md", "b.md")}
    return sync(home, [MemorySource(texts)], encoder, settings=BuildSettings(wait_s=0)).generation


def served(home: Home) -> int:
    """Return the version that a home serves."""
    with closing(home.open_current()) as generation:
        (version,) = {generation.corpus.text(record)[-3:-2] for record in generation.corpus.documents()}
        return int(version)


def test_every_two_files_that_changed_places_are_noticed(filled: Home) -> None:
    first, second = sorted(manifest.name for manifest in filled.manifests())
    folder, other = filled.folder(second), filled.folder(first)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    assert len(files) > 10
    pairs = [(one, two) for one, two in combinations(files, 2) if one.read_bytes() != two.read_bytes()]
    pairs += [(one, other / one.relative_to(folder)) for one in files]
    differing = [(one, two) for one, two in pairs if one.read_bytes() != two.read_bytes()]
    assert len(differing) > 50
    for one, two in differing:
        swap(one, two)
        with pytest.raises(DamagedGenerationError):
            Generation.open(folder)
        swap(one, two)
    assert served(filled) == 2


def swap(one: Path, two: Path) -> None:
    aside = one.with_name("aside")
    one.rename(aside)
    two.rename(one)
    aside.rename(two)


def test_a_generation_that_took_the_place_of_another_is_noticed(filled: Home) -> None:
    first, second = sorted(manifest.name for manifest in filled.manifests())
    swap(filled.folder(first), filled.folder(second))
    with pytest.raises(DamagedGenerationError, match="names another generation"):
        Generation.open(filled.folder(second))


# Clocks and locks.


def test_the_newest_generation_serves_when_the_clock_goes_backwards(
    filled: Home, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    for year, number in ((2020, 3), (1999, 4)):
        monkeypatch.setattr(draft, "utc_now", lambda year=year: datetime(year, 1, 1, tzinfo=UTC))
        publish(filled, number, encoder)
        assert served(filled) == number
    assert [manifest.created[:4] for manifest in filled.manifests()][:2] == ["1999", "2020"]
    assert filled.roll_back() == filled.manifests()[1].name
    assert served(filled) == 3
    (filled.path / "CURRENT").unlink()  # and it is found without being named
    assert served(filled) == 4


def test_the_files_of_a_lock_that_a_dead_process_left_stop_nobody(filled: Home, encoder: Encoder) -> None:
    (filled.path / "writer.lock").write_text("")
    (filled.path / "writer.json").write_text('{"pid": 1, "host": "gone", "since": "1999-01-01T00:00:00+00:00"}')
    publish(filled, 3, encoder)
    assert served(filled) == 3
    assert not (filled.path / "writer.json").exists()


def test_two_writers_publish_one_after_the_other_and_every_answer_is_whole(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PUBLISHING, str(tmp_path)]
    with subprocess.Popen(command, env=ENVIRONMENT) as one, subprocess.Popen(command, env=ENVIRONMENT) as other:
        seen = []
        while one.poll() is None or other.poll() is None:
            seen.append(works.served(tmp_path))  # checks every file and verifies every citation
    assert (one.returncode, other.returncode) == (0, 0)
    assert all(texts in ({}, *map(works.version, range(4))) for texts in seen)
    assert works.served(tmp_path) == works.version(3)
    manifests = Home(tmp_path / "home").manifests()
    assert len({manifest.number for manifest in manifests}) == len(manifests) == works.KEPT
    assert works.left_in(tmp_path)[:3] == ["home", "home/CURRENT", "home/generations"]
