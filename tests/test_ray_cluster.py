"""The commands on a Ray cluster of two nodes: the bytes of one machine, whatever is killed meanwhile.

Skipped where Ray is not installed: pip install 'whence[ray]'
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from tiny_models import write_tiny_model
from waiting import until

from index.manifest import BUILDING_PREFIX, MANIFEST

pytestmark = pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")

ROOT = Path(__file__).parents[1]
COMMAND = [sys.executable, "-c", "from service.cli import main; main()"]
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(("WHENCE_", "RAY_"))}
LIMIT_S = 240.0
QUESTIONS = 1_500
DOCUMENTS = 200
NAMING = ("name", "created", "sha256")  # of a manifest: when it was made, and what follows from that


@dataclass(frozen=True)
class Nodes:
    """A cluster in another process; see `ray_nodes.py`."""

    process: subprocess.Popen[str]
    address: str

    def tell(self, order: str) -> str:
        """Give an order, and return the answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{order}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    """Two nodes with two processors each."""
    folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")  # sockets have short names
    environment = {**ENVIRONMENT, "RAY_USAGE_STATS_ENABLED": "0"}
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "tests" / "ray_nodes.py"), folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    )
    try:
        assert process.stdout is not None
        yield Nodes(process, next(line.strip() for line in process.stdout if line[0].isdigit()))
    finally:
        process.communicate("", timeout=60)
        shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class Whence:
    """The command, in processes of its own."""

    cache: Path
    model: Path

    def start(self, home: Path, *arguments: str | Path) -> subprocess.Popen[str]:
        """Start it."""
        settings = {"WHENCE_HOME": str(home), "WHENCE_CACHE": str(self.cache), "WHENCE_MODEL": str(self.model)}
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen([*COMMAND, *map(str, arguments)], cwd=ROOT, env={**ENVIRONMENT, **settings}, **pipes)

    def run(self, home: Path, *arguments: str | Path) -> str:
        """Run it to its good end; return what it says of itself."""
        return end(self.start(home, *arguments), code=0)


def end(process: subprocess.Popen[str], *, code: int) -> str:
    """Wait for a command, and return its standard error."""
    with process:
        _, err = process.communicate(timeout=LIMIT_S)
    assert process.returncode == code, err
    assert "Traceback" not in err
    return err


@pytest.fixture(scope="module")
def whence(tmp_path_factory: pytest.TempPathFactory, cache_folder: Path) -> Whence:
    return Whence(cache_folder, write_tiny_model(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def docs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Documents, and some files that are none."""
    folder = tmp_path_factory.mktemp("docs")
    for number in range(DOCUMENTS):
        parts = [
            f"## Light {part}\n\nLight {number}-{part} of the router is red. {'It means. ' * 30}\n"
            for part in range(6)
        ]
        (folder / f"{number:03}.md").write_text(f"# Router {number}\n\n" + "\n".join(parts) if number % 50 else "")
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, whence: Whence, docs: Path) -> Path:
    """What one machine makes of them."""
    home = tmp_path_factory.mktemp("one") / "home"
    whence.run(home, "index", docs)
    return home


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Questions of which some come again, some are empty, and some lines are no JSON."""
    path = tmp_path_factory.mktemp("questions") / "questions.jsonl"
    with path.open("w") as stream:
        for number in range(QUESTIONS):
            question = "" if number % 97 == 5 else f"What does light {number % 700}-{number % 6} mean?"
            stream.write("{\n" if number % 101 == 7 else json.dumps({"id": number, "question": question}) + "\n")
    return path


@pytest.fixture(scope="module")
def answers(questions: Path, whence: Whence, home: Path) -> Path:
    """What one machine answers."""
    path = questions.with_name("answers.jsonl")
    end(whence.start(home, "batch", questions, path, "--top-k", "50"), code=1)
    return path


def generation(home: Path) -> dict[str, Any]:
    """Return the files of the published generation, and its manifest without what names it."""
    folder = home / "generations" / (home / "CURRENT").read_text().strip()
    files: dict[str, Any] = {
        str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }
    manifest = json.loads(files.pop(MANIFEST))
    return {**files, "": {name: value for name, value in manifest.items() if name not in NAMING}}


def manifest_of(answers: Path) -> bytes:
    return answers.with_name(f"{answers.name}.manifest.json").read_bytes()


def when(nodes: Nodes, order: str, answer: str) -> None:
    """Give an order again and again until it can be obeyed."""
    until(lambda: nodes.tell(order) == answer, seconds=LIMIT_S)


def test_an_index_is_that_of_one_machine(
    nodes: Nodes, whence: Whence, docs: Path, home: Path, tmp_path: Path
) -> None:
    said = whence.run(tmp_path / "home", "index", docs, "--engine", "ray", "--address", nodes.address)
    assert said == ""
    assert generation(tmp_path / "home") == generation(home)


def test_an_index_is_the_same_when_workers_are_killed(
    nodes: Nodes, whence: Whence, docs: Path, home: Path, tmp_path: Path
) -> None:
    process = whence.start(tmp_path / "home", "index", docs, "--engine", "ray", "--address", nodes.address)
    when(nodes, "kill", "killed")
    assert process.poll() is None  # it was in the middle
    sentences = f"generations/{BUILDING_PREFIX}*/sentences.npy"
    until(lambda: any((tmp_path / "home").glob(sentences)) or process.poll() is not None, seconds=LIMIT_S)
    nodes.tell("kill")  # one that encodes, by now
    end(process, code=0)
    assert generation(tmp_path / "home") == generation(home)


@pytest.mark.parametrize(("order", "answer"), [("kill", "killed"), ("remove", "removed")])
def test_answers_are_the_same_when_a_worker_or_a_node_is_killed(
    order: str, answer: str, nodes: Nodes, whence: Whence, home: Path, questions: Path, answers: Path, tmp_path: Path
) -> None:
    out = tmp_path / "answers.jsonl"
    options = ("--top-k", "50", "--engine", "ray", "--address", nodes.address)
    process = whence.start(home, "batch", questions, out, *options)
    partial = out.with_name("answers.jsonl.partial")
    until(lambda: partial.exists() and partial.stat().st_size > 0, seconds=LIMIT_S)
    when(nodes, order, answer)
    assert partial.exists()  # it was in the middle
    end(process, code=1)
    assert out.read_bytes() == answers.read_bytes()
    assert manifest_of(out) == manifest_of(answers)


def test_out_of_time_says_so_and_keeps_what_is_done(
    nodes: Nodes, whence: Whence, home: Path, questions: Path, answers: Path, tmp_path: Path
) -> None:
    out = tmp_path / "answers.jsonl"
    options = ("--top-k", "50", "--engine", "ray", "--address", nodes.address, "--time-limit", "1")
    said = end(whence.start(home, "batch", questions, out, *options), code=1)
    assert "The cluster was not done after 1 s. Run the command again with more time" in said
    assert not out.exists()
    end(whence.start(home, "batch", questions, out, *options[:2]), code=1)
    assert out.read_bytes() == answers.read_bytes()


def test_an_address_where_nobody_answers_is_told(whence: Whence, docs: Path, tmp_path: Path) -> None:
    for address, message in {
        "127.0.0.1:1": "No Ray cluster answers at 127.0.0.1:1: ",
        "ray://127.0.0.1:1": "'ray://127.0.0.1:1' is not the address of a Ray cluster.",
        "somewhere": "'somewhere' is not the address of a Ray cluster.",
    }.items():
        arguments = ("index", docs, "--engine", "ray", "--address", address)
        assert message in end(whence.start(tmp_path / "home", *arguments), code=1)
    assert not (tmp_path / "home" / "CURRENT").exists()
