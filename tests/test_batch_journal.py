"""An unfinished result survives whatever stops it, and is gone on with only as it was begun."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from index.errors import WhenceError
from service.batch_journal import Counts, Journal, OutputStream

RUN: dict[str, Any] = {"generation": "a", "input": {"sha256": "1"}, "settings": {"top_k": 5, "fields": ["id"]}}
PARTS = [b"first\n", b"", b"second part\n" * 1_000, b"third"]
ROOT = Path(__file__).parents[1]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "answers.jsonl"


def manifest(size: int, sha256: str) -> str:
    return json.dumps({**RUN, "counts": {"rows": 8}, "output": {"size": size, "sha256": sha256}})


def begin(
    journal: Journal, run: dict[str, Any] | None = None, *, restart: bool = False, can_go_on: bool = True
) -> None:
    journal.begin(run or RUN, restart=restart, can_go_on=can_go_on)


def write(path: Path, parts: list[bytes]) -> None:
    """Begin a run, or go on with it, and add parts."""
    with Journal(path) as journal:
        begin(journal)
        for part in parts:
            journal.append(part, Counts(2, 1, 1, 0))


def finish(path: Path) -> str:
    with Journal(path) as journal:
        begin(journal)
        return journal.finish(manifest)


def files(path: Path) -> list[str]:
    return sorted(each.name for each in path.parent.iterdir())


def test_a_finished_result_is_its_parts_with_a_manifest_beside_it(path: Path) -> None:
    write(path, PARTS)
    assert files(path) == ["answers.jsonl.journal", "answers.jsonl.partial"]
    text = finish(path)
    data = b"".join(PARTS)
    assert path.read_bytes() == data
    assert files(path) == ["answers.jsonl", "answers.jsonl.manifest.json"]
    assert path.with_name("answers.jsonl.manifest.json").read_text() == text
    assert json.loads(text)["output"] == {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def test_a_run_goes_on_after_its_last_part(path: Path) -> None:
    write(path, PARTS[:2])
    with Journal(path) as journal:
        assert (journal.counts, journal.is_empty) == (Counts(), True)
        begin(journal)
        assert (journal.counts, journal.is_empty) == (Counts(4, 2, 2, 0), False)
    write(path, PARTS[2:])
    finish(path)
    assert path.read_bytes() == b"".join(PARTS)


def test_stopped_at_any_byte_the_result_is_the_same(path: Path) -> None:
    write(path, PARTS)
    journal_path, partial_path = path.with_name("answers.jsonl.journal"), path.with_name("answers.jsonl.partial")
    journal, partial = journal_path.read_bytes(), partial_path.read_bytes()
    lines = journal.splitlines(keepends=True)
    sizes = [sum(map(len, PARTS[:count])) for count in range(len(PARTS) + 1)]
    for end in range(0, len(journal) + 1, 11):
        for surplus in (b"", b"torn"):
            journal_path.write_bytes(journal[:end])
            kept = max(0, sum(end >= sum(map(len, lines[: count + 1])) for count in range(len(lines))) - 1)
            partial_path.write_bytes(partial[: sizes[kept]] + surplus)
            write(path, PARTS[kept:])
            assert journal_path.read_bytes() == journal
            assert partial_path.read_bytes() == partial


@pytest.mark.parametrize("damage", ["altered", "shortened", "missing"])
def test_parts_after_a_damaged_one_are_written_again(path: Path, damage: str) -> None:
    write(path, PARTS)
    partial = path.with_name("answers.jsonl.partial")
    data = partial.read_bytes()
    if damage == "missing":
        partial.unlink()
    else:
        partial.write_bytes(data[:100] + (b"X" + data[101:] if damage == "altered" else b""))
    with Journal(path) as journal:
        begin(journal)
        kept = 0 if damage == "missing" else 2
        assert journal.counts.rows == 2 * kept
    write(path, PARTS[kept:])
    finish(path)
    assert path.read_bytes() == data


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"generation": "b"}, "generation was 'a', is 'b'"),
        ({"input": {"sha256": "2"}}, "input.sha256 was '1', is '2'"),
        (
            {"settings": {"top_k": 3, "fields": None}},
            "settings.top_k was 5, is 3; settings.fields was ['id'], is None",
        ),
    ],
)
def test_a_run_that_differs_is_refused_and_says_in_what(path: Path, changed: dict[str, Any], told: str) -> None:
    write(path, PARTS[:1])
    with Journal(path) as journal, pytest.raises(WhenceError) as refused:
        begin(journal, {**RUN, **changed})
    assert f"was begun by another run: {told}. Go on as it was begun" in str(refused.value)
    write(path, PARTS[1:])
    with Journal(path) as journal:
        begin(journal, {**RUN, **changed}, restart=True)
        assert journal.counts == Counts()


def test_what_is_there_is_replaced_only_when_that_is_said_and_only_in_the_end(path: Path) -> None:
    path.write_text("precious")
    with Journal(path) as journal, pytest.raises(WhenceError, match="is there already, and is not what this command"):
        begin(journal)
    assert files(path) == ["answers.jsonl"]
    with Journal(path) as journal:
        begin(journal, restart=True)
        journal.append(b"new", Counts(1, 1))
    assert path.read_text() == "precious"
    finish(path)
    assert path.read_text() == "new"


def test_a_finished_run_is_not_done_again(path: Path) -> None:
    write(path, PARTS)
    text = finish(path)
    with Journal(path) as journal:
        assert journal.finished(RUN) == text
        assert journal.finished({**RUN, "generation": "b"}) is None
    path.write_bytes(b"X" + path.read_bytes()[1:])
    with Journal(path) as journal:
        assert journal.finished(RUN) is None
    assert files(path) == ["answers.jsonl", "answers.jsonl.manifest.json"]


def test_stopped_between_the_renames_of_its_end_a_run_is_finished_by_the_next(path: Path) -> None:
    write(path, PARTS)
    left = {name: path.with_name(name).read_bytes() for name in files(path)}
    finish(path)
    result = path.read_bytes()
    for name, data in left.items():  # the result has its name, and nothing is tidied up
        path.with_name(name).write_bytes(data)
    with Journal(path) as journal:
        assert journal.finished(RUN) is not None
    assert files(path) == ["answers.jsonl", "answers.jsonl.manifest.json"]
    for name, data in left.items():  # only the manifest is there
        path.with_name(name).write_bytes(data)
    path.unlink()
    with Journal(path) as journal:
        assert journal.finished(RUN) is None
    finish(path)
    assert path.read_bytes() == result


def test_a_run_that_cannot_go_on_begins_anew_and_leaves_nothing(path: Path) -> None:
    write(path, PARTS[:1])
    with Journal(path) as journal:
        begin(journal, can_go_on=False)
        assert journal.is_empty
        journal.append(b"part", Counts(1))
    assert files(path) == []


def test_a_run_without_a_part_leaves_nothing_and_one_that_is_refused_takes_nothing(path: Path) -> None:
    with Journal(path) as journal:
        begin(journal)
    assert files(path) == []
    write(path, PARTS[:1])
    left = files(path)
    with Journal(path) as journal, pytest.raises(WhenceError):
        begin(journal, {**RUN, "generation": "b"})
    with Journal(path):
        pass
    assert files(path) == left
    write(path, PARTS[1:])
    finish(path)
    assert path.read_bytes() == b"".join(PARTS)


def test_a_result_belongs_to_one_run_at_a_time(path: Path) -> None:
    with Journal(path) as journal:
        begin(journal)
        with pytest.raises(WhenceError, match="Another process is writing"):
            Journal(path)
        journal.append(b"part", Counts(1))
    assert finish(path)


def test_the_next_run_does_not_take_over_the_journal_of_one_that_finishes(path: Path) -> None:
    stopping, errors = threading.Event(), []

    def run_again_and_again() -> None:
        while not stopping.is_set():
            try:
                with Journal(path) as journal:
                    begin(journal, restart=True)
                    journal.append(b"part", Counts(1))
                    journal.finish(manifest)
            except WhenceError as error:
                errors.append(str(error))

    threads = [threading.Thread(target=run_again_and_again) for _ in range(3)]
    for thread in threads:
        thread.start()
    stopping.wait(1)
    stopping.set()
    for thread in threads:
        thread.join()
    assert all(error.startswith("Another process is writing") for error in errors)
    assert files(path) == ["answers.jsonl", "answers.jsonl.manifest.json"]


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(WhenceError, match=r"none/a\.csv cannot be written: No such file or directory"):
        Journal(tmp_path / "none" / "a.csv")


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_folder_that_is_read_only_is_named(path: Path) -> None:
    path.parent.chmod(0o500)
    try:
        with pytest.raises(WhenceError, match="cannot be written: Permission denied"):
            Journal(path)
    finally:
        path.parent.chmod(0o700)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for 64 KB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if subprocess.run(mounting, check=False, capture_output=True).returncode:
        pytest.skip("file systems cannot be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_is_read_only_is_named(small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(WhenceError, match=r"answers\.csv cannot be written: Read-only file system"):
        Journal(small_disk / "answers.csv")


def test_on_a_full_disk_what_was_written_is_kept_and_the_run_goes_on_when_there_is_room(small_disk: Path) -> None:
    path = small_disk / "answers.jsonl"
    filler = small_disk / "filler"
    filler.write_bytes(b"x" * 30_000)
    part = b"p" * 10_000
    with pytest.raises(WhenceError, match=r"No space left on device\. The answers to 4 rows are kept\."):
        write(path, [part] * 9)
    with pytest.raises(WhenceError, match="No space left on device"):
        write(path, [part])
    filler.unlink()
    write(path, [part] * 2)
    finish(path)
    assert path.read_bytes() == part * 4


def test_a_full_disk_at_the_end_keeps_all_parts(small_disk: Path) -> None:
    path = small_disk / "answers.jsonl"
    write(path, [b"p" * 30_000])
    with Journal(path) as journal:
        begin(journal)
        with pytest.raises(WhenceError, match="The answers to 2 rows are kept"):
            journal.finish(manifest, convert=lambda parts, whole: whole.write_bytes(parts.read_bytes() * 2) and None)
    assert files(path) == ["answers.jsonl.journal", "answers.jsonl.partial"]
    finish(path)
    assert path.stat().st_size == 30_000


LIMITED = """
import resource, sys
sys.path[:0] = sys.argv[1:3]
from pathlib import Path
from test_batch_journal import write
resource.setrlimit(resource.RLIMIT_FSIZE, (25_000, 25_000))
write(Path(sys.argv[3]), [b"p" * 10_000] * 3)
"""


def test_a_part_that_is_half_written_is_written_again(path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(ROOT), str(ROOT / "tests"), str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "File too large. The answers to 4 rows are kept" in done.stderr
    assert path.with_name("answers.jsonl.partial").stat().st_size == 25_000
    write(path, [b"p" * 10_000])
    finish(path)
    assert path.read_bytes() == b"p" * 30_000


def test_a_stream_gets_the_parts_as_they_come(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written))
    with OutputStream(None) as stream:
        stream.begin(RUN, restart=False, can_go_on=False)
        assert stream.finished(RUN) is None
        stream.append(b"one", Counts(1, 1))
        assert written.getvalue() == b"one"
        stream.append(b"two", Counts(1, 0, 0, 1))
        output = json.loads(stream.finish(manifest))["output"]
    assert output == {"size": 6, "sha256": hashlib.sha256(b"onetwo").hexdigest()}
    assert stream.counts == Counts(2, 1, 0, 1)


def test_a_stream_that_is_full_is_told() -> None:
    with OutputStream(Path("/dev/full")) as stream, pytest.raises(WhenceError, match="No space left on device"):
        stream.append(b"part", Counts(1))
