"""Killed at any moment, indexing leaves the previous state or the new one, and the next run needs no help."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from index.build import sync
from index.embeddings import Encoder
from index.errors import NoGenerationError
from index.generations import Home
from index.sources import Source

ROOT = Path(__file__).parents[1]
KILLS = int(os.environ.get("KILLS", "6"))  # more of them, unattended: KILLS=300 pytest tests/test_crash.py
FIRST_KILLS = 3


def version(number: int) -> dict[str, str]:
    """Return the files of a version; each says in every part which one it is."""
    return {
        "guide.md": f"# Guide\n\nThis is version {number}.\n\n## Reset\n\nHold the button for {number} seconds.\n",
        "news.md": f"# News\n\n- Version {number} is out.\n- Version {number} is fast.\n",
        "notes.txt": f"These are the notes of version {number}.\n",
    }


def write(folder: Path, number: int) -> None:
    folder.mkdir(exist_ok=True)
    for name, text in version(number).items():
        (folder / name).write_text(text)


def served(home: Home) -> Mapping[str, str]:
    """Return the texts of the published generation, every file of which was checked; none when there is none."""
    try:
        generation = home.open_current()
    except NoGenerationError:
        return {}
    with closing(generation):
        assert generation.manifest.documents in (0, 3)
        return {record.doc_id: generation.corpus.text(record) for record in generation.corpus.documents()}


@dataclass(frozen=True)
class Command:
    """The command that a user would give to index a folder, with a cache that holds the exported model."""

    folder: Path
    home: Home
    cache: Path

    def start(self) -> subprocess.Popen[bytes]:
        """Start it in a process of its own."""
        script = "from service.cli import main; main()"
        settings = {"WHENCE_HOME": str(self.home.path), "WHENCE_CACHE": str(self.cache)}
        return subprocess.Popen(
            [sys.executable, "-c", script, "index", str(self.folder)],
            env={**os.environ, **settings},
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
        )

    def is_writing(self) -> bool:
        """Tell whether a generation is in the making."""
        return any(self.home.generations_path.glob(".building-*"))

    def run(self) -> tuple[float, float]:
        """Run it to the end; return how long it took to begin writing, and how long from there on."""
        begin = time.perf_counter()
        with self.start() as process:
            while not self.is_writing() and process.poll() is None:
                time.sleep(0.001)
            writing = time.perf_counter()
            assert process.wait(timeout=60) == 0
        return writing - begin, time.perf_counter() - writing

    def kill(self, *, after_s: float, once_writing: bool) -> None:
        """Start it and kill it after a while, counted from the start or from when it writes."""
        with self.start() as process:
            while once_writing and not self.is_writing() and process.poll() is None:
                time.sleep(0.001)
            time.sleep(after_s)
            process.kill()


@pytest.fixture
def command(home: Home, cache_folder: Path, encoder: Encoder, tmp_path: Path) -> Command:
    return Command(tmp_path / "docs", home, cache_folder)


def test_killed_at_any_moment_the_index_is_whole(command: Command, encoder: Encoder) -> None:
    moments = random.Random(20261121)
    write(command.folder, 0)
    command.run()
    write(command.folder, 1)
    startup_s, writing_s = command.run()
    left_half_written = published = 0
    for number in range(2, KILLS + 2):
        before, after = version(number - 1), version(number)
        write(command.folder, number)
        if number % 2:
            command.kill(after_s=moments.uniform(0, startup_s + writing_s), once_writing=False)
        else:
            command.kill(after_s=moments.uniform(0, writing_s), once_writing=True)
        left_half_written += command.is_writing()
        found = served(command.home)
        assert found in (before, after)
        published += found == after
        sync(command.home, [Source(command.folder)], encoder)
        assert served(command.home) == after
        assert not command.is_writing()
    assert not (command.home.path / "damaged").exists()
    # The kills did strike before, during and after the work.
    assert left_half_written > 0
    assert published < KILLS
    write(command.folder, 0)
    command.run()
    assert served(command.home) == version(0)


def test_killed_at_its_first_run_the_index_is_absent_or_whole(command: Command, encoder: Encoder) -> None:
    moments = random.Random(7)
    write(command.folder, 0)
    for _ in range(FIRST_KILLS):
        command.kill(after_s=moments.uniform(0, 0.5), once_writing=True)
        assert served(command.home) in ({}, version(0))
    command.run()
    assert served(command.home) == version(0)
