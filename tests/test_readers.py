"""Readers in other processes ask without a pause while generations are published, rolled back and pruned.

GENERATIONS=2000 pytest tests/test_readers.py      for longer, unattended
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from constant_reader import version
from sources_in_memory import MemorySource
from tiny_encoder import WordEncoder

import index.generations
from index.build import BuildSettings, sync
from index.errors import DamagedGenerationError
from index.generations import Generation, Home
from index.manifest import FileRecord

ROOT = Path(__file__).parents[1]
GENERATIONS = int(os.environ.get("GENERATIONS", "20"))
READERS = 3
KEPT = 2  # so that a reader soon holds what was pruned
ENDING_S = 60
ENCODER = WordEncoder()


@contextmanager
def reading(home: Home) -> Iterator[subprocess.Popen[str]]:
    """Start a reader; it is killed if it does not end by itself."""
    command = [sys.executable, str(ROOT / "tests" / "constant_reader.py"), str(home.path), str(GENERATIONS)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment) as process:
        try:
            yield process
        finally:
            process.kill()


def publish(home: Home, number: int) -> None:
    settings = BuildSettings(keep_generations=KEPT)
    sync(home, [MemorySource(version(number))], ENCODER, settings=settings)


def outcome(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Return what a reader saw, once it has asked the last generation."""
    out, err = process.communicate(timeout=ENDING_S)
    assert process.returncode == 0, err  # else an answer was torn, or a question failed
    assert err == ""  # not even a warning
    found: dict[str, Any] = json.loads(out)
    return found


def test_no_answer_is_torn_while_generations_are_published_and_pruned(home: Home) -> None:
    publish(home, 0)
    with ExitStack() as stack:
        readers = [stack.enter_context(reading(home)) for _ in range(READERS)]
        for reader in readers:
            assert reader.stdout is not None
            assert reader.stdout.readline() == "ready\n"
        for number in range(1, GENERATIONS + 1):
            publish(home, number)
            if number % 5 == 0 and number < GENERATIONS:
                home.roll_back()
        tallies = [outcome(reader) for reader in readers]
    for tally in tallies:
        assert tally["versions"][-1] == GENERATIONS
        assert tally["citations"] >= tally["answers"] > GENERATIONS
        changes = sum(before != after for before, after in pairwise(tally["versions"]))
        assert changes >= GENERATIONS // 5, "it has hardly seen anything published"
    assert len(home.manifests()) == KEPT


@pytest.mark.parametrize(
    "step",
    [
        "manifest.check_files",
        "manifest.digests_of",
        "generations.open_array",
        "chunk_table.open_array",
        "corpus._read_only",
    ],
)
def test_a_generation_that_is_pruned_while_it_is_opened_gives_way_to_the_next(
    home: Home, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    publish(home, 1)
    module, name = step.split(".")
    owner = importlib.import_module(f"index.{module}")
    original = getattr(owner, name)

    def late(*arguments: Any) -> Any:
        """Do the step after two more generations were published, which prunes the one that is being opened."""
        monkeypatch.undo()
        publish(home, 2)
        publish(home, 3)
        return original(*arguments)

    for place in (owner, index.generations):
        monkeypatch.setattr(place, name, late, raising=False)
    with closing(home.open_current()) as generation:
        assert {record.doc_id for record in generation.corpus.documents()} == version(3).keys()
    assert not (home.path / "damaged").exists()


def test_what_was_adapted_is_opened_with_it_or_not_at_all(home: Home) -> None:
    publish(home, 1)
    (manifest,) = home.manifests()
    adapted = replace(manifest, files={**manifest.files, "instant/rows.npy": FileRecord(0, "")})
    with pytest.raises(DamagedGenerationError, match="is not a readable array"):
        Generation(home.folder(manifest.name), adapted)
