"""The reader process: what it reads, what it survives, and what it tells of a file that it could not read."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from index.errors import DocumentError
from index.readers import worker
from index.readers.limits import Limits
from index.readers.worker import ReaderPool, ReaderProcess, Reading

BROAD = Limits()


@pytest.fixture(scope="module")
def reader() -> Iterator[ReaderProcess]:
    with ReaderProcess(BROAD) as process:
        yield process


def write(path: Path, data: str | bytes) -> Path:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def deep_page(elements: int) -> str:
    """Return a page that takes about a second for every few thousand elements."""
    return "<main>" + "".join(f"<div class='a-{n}'><p>word {n}</p></div>" for n in range(elements)) + "</main>"


def test_a_reading_names_its_format_and_the_bytes_it_was_made_of(reader: ReaderProcess, tmp_path: Path) -> None:
    data = "# Café\n\nOpen daily.\n".encode()
    reading = reader.read(write(tmp_path / "a.md", data), "a.md")
    assert (reading.media_type, reading.size) == ("text/markdown", len(data))
    assert reading.sha256 == hashlib.sha256(data).hexdigest()
    assert reading.content.text == "# Café\n\nOpen daily.\n"


def test_a_reading_is_the_same_as_without_a_process(reader: ReaderProcess, tmp_path: Path) -> None:
    from index.readers.formats import read

    page = "<h1>T</h1><p>é</p><ul><li>a<li>b</ul><table><tr><th>x<th>y<tr><td>1<td>2</table><aside>z</aside>"
    reading = reader.read(write(tmp_path / "p.html", page), "p.html")
    assert reading.content == read(page.encode(), "p.html", BROAD)[1]


def test_the_name_tells_the_format_not_the_path(reader: ReaderProcess, tmp_path: Path) -> None:
    assert reader.read(write(tmp_path / "blob", "a,b\n1,2\n"), "table.csv").media_type == "text/csv"


def test_a_refused_file_says_why_and_the_next_is_read(reader: ReaderProcess, tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="is damaged or cut short"):
        reader.read(write(tmp_path / "a.pdf", b"%PDF-1.7\nnothing"), "a.pdf")
    assert reader.read(write(tmp_path / "a.txt", "fine"), "a.txt").content.text == "fine"


def test_only_regular_files_are_opened(reader: ReaderProcess, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(write(tmp_path / "target", "x"))
    for name, reason in {
        "pipe": "is no regular file",
        "link": "cannot be opened",
        "none": r"cannot be opened \(No such file or directory\)",
        ".": "is no regular file",
    }.items():
        with pytest.raises(DocumentError, match=reason):
            reader.read(tmp_path / name, name)


def test_a_path_that_is_no_text_is_read_all_the_same(reader: ReaderProcess, tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.txt"))
    assert reader.read(write(path, "odd"), "odd.txt").content.text == "odd"


def test_a_file_that_is_too_large_is_refused(tmp_path: Path) -> None:
    with (
        ReaderProcess(Limits(source_bytes=3)) as small,
        pytest.raises(DocumentError, match="has 4 bytes, more than 3"),
    ):
        small.read(write(tmp_path / "a.txt", "1234"), "a.txt")


def test_a_table_with_too_many_rows_is_refused(reader: ReaderProcess, tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match=r"has 1,000,00\d rows, items and blocks, more than 1,000,000"):
        reader.read(write(tmp_path / "a.csv", "a,b\n" * 1_000_002), "a.csv")


def test_a_file_that_takes_too_long_costs_only_itself(tmp_path: Path) -> None:
    page = write(tmp_path / "slow.html", deep_page(19_000))
    with ReaderProcess(Limits(seconds=0.2)) as impatient:
        started = time.monotonic()
        with pytest.raises(DocumentError, match=r"took longer than 0\.2 s to read; split it"):
            impatient.read(page, "slow.html")
        assert time.monotonic() - started < 5
    with ReaderProcess(Limits(seconds=20)) as patient:
        assert patient.read(write(tmp_path / "a.txt", "next"), "a.txt").content.text == "next"


def test_a_file_that_needs_too_much_memory_costs_only_itself(tmp_path: Path) -> None:
    big = write(tmp_path / "big.txt", "\N{GRINNING FACE} " * 12_000_000)
    with ReaderProcess(Limits(memory_bytes=250_000_000)) as process:
        with pytest.raises(DocumentError, match="needs more than 250,000,000 bytes of memory to read; split it"):
            process.read(big, "big.txt")
        assert process.read(write(tmp_path / "a.txt", "next"), "a.txt").content.text == "next"


def test_a_reader_killed_in_the_middle_of_a_file_costs_only_that_file(tmp_path: Path) -> None:
    page = write(tmp_path / "slow.html", deep_page(19_000))
    with ReaderProcess(BROAD) as process:
        process.read(write(tmp_path / "a.txt", "first"), "a.txt")
        threading.Timer(0.3, process.kill).start()
        with pytest.raises(DocumentError, match=r"brought its reader down \(SIGKILL\)"):
            process.read(page, "slow.html")
        assert process.read(write(tmp_path / "a.txt", "next"), "a.txt").content.text == "next"


def test_a_reader_killed_between_two_files_costs_none(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "same")
    with ReaderProcess(BROAD) as process:
        first = process.read(path, "a.txt")
        process.kill()
        time.sleep(0.1)
        assert process.read(path, "a.txt") == first


def test_the_child_ends_with_its_parent(tmp_path: Path) -> None:
    program = (
        "import os, sys; from pathlib import Path; from index.readers.worker import ReaderProcess\n"
        "reader = ReaderProcess(); reader.read(Path(sys.argv[1]), 'a.txt')\n"
        "print(reader._child.pid, flush=True); os.kill(os.getpid(), 9)"
    )
    command = [sys.executable, "-c", program, str(write(tmp_path / "a.txt", "x"))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, cwd=worker._ROOT)
    child = int(done.stdout)
    assert done.returncode == -signal.SIGKILL
    for _ in range(100):
        if not Path(f"/proc/{child}").exists() or "Z (zombie)" in Path(f"/proc/{child}/status").read_text():
            return
        time.sleep(0.05)
    pytest.fail("the reader outlived its parent")


def test_what_a_library_prints_does_not_disturb_the_answers(tmp_path: Path) -> None:
    program = (
        "import os, sys; from index.readers import worker\n"
        "requests, answers = worker._take_over_pipes()\n"
        "print('noise', flush=True); os.write(1, b'more noise'); os.system('echo even more')\n"
        "os.write(answers, b'answer:' + os.read(requests, 100) + sys.stdin.read().encode())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], input=b"request", capture_output=True, timeout=30, cwd=worker._ROOT
    )
    assert done.stdout == b"answer:request"


def test_a_reader_works_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.txt", "here")
    monkeypatch.chdir(tmp_path)
    with ReaderProcess(BROAD) as process:
        assert process.read(path, "a.txt").content.text == "here"


def test_a_pool_reads_many_files_at_a_time_in_order(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{n}.txt", f"text {n}") for n in range(20)]
    with ReaderPool(BROAD, processes=2) as pool:
        readings: Iterator[Reading] = pool.map(lambda path: pool.read(path, path.name), paths)
        assert [reading.content.text for reading in readings] == [f"text {n}" for n in range(20)]


@pytest.mark.parametrize("pause", [0.0, 0.3], ids=["reading", "about to start"])
def test_a_pool_that_is_given_up_does_not_finish_its_files(tmp_path: Path, pause: float) -> None:
    slow = [write(tmp_path / f"{n}.html", deep_page(19_000)) for n in range(4)]
    paths = [write(tmp_path / "a.txt", "quick"), *slow]
    finished = []
    with ReaderPool(BROAD, processes=2) as pool:

        def read(path: Path) -> str:
            if path in slow:
                time.sleep(pause)
            text = pool.read(path, path.name).content.text
            finished.append(path.name)
            return text

        readings = pool.map(read, paths)
        assert next(readings) == "quick"
        readings.close()  # type: ignore[attr-defined]
    assert finished == ["a.txt"]
