"""The command line: data on standard output, the rest on standard error, an exit code that tells what happened."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from beir import write_dataset
from putting import kept
from tiny_models import write_tiny_cross_encoder, write_tiny_model

from index.embeddings import Encoder, load_encoder
from index.errors import EvaluationError
from index.evaluation import METRICS, read_run
from index.generations import Generation, Home
from index.models import DEFAULT_MODEL
from index.state import State
from index.uploads import Uploads
from service.cli import main, seeds_folder
from service.settings import Settings

ROOT = Path(__file__).parent.parent
PINGORA = "How much memory did Pingora save?"
ROUTER = """---
product: router
year: 2024
beta: true
---
# Router

The red light means that there is no power. The blue light means that the router is connected.
"""
KETTLE = """---
product: kettle
year: "2024"
---
# Kettle

Descale the kettle every three months. Rinse it three times before you make tea.
"""


@dataclass(frozen=True)
class Result:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def records(self) -> list[dict[str, Any]]:
        """The lines of the output, parsed as JSON."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def record(self) -> dict[str, Any]:
        """The only line of the output, parsed as JSON."""
        (record,) = self.records
        return record


Whence = Callable[..., Result]


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory, cache_folder: Path) -> str:
    """A model that loads at once, exported."""
    name = str(write_tiny_model(tmp_path_factory.mktemp("tiny")))
    load_encoder(name, cache_folder=cache_folder / "models")
    return name


@pytest.fixture
def whence(
    tmp_path: Path,
    cache_folder: Path,
    tiny_model: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Whence:
    """Run a command in a home of its own, with the tiny model unless another is named."""
    for name in Settings.model_fields:
        monkeypatch.delenv(f"WHENCE_{name.upper()}", raising=False)
    monkeypatch.setenv("WHENCE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WHENCE_CACHE", str(cache_folder))
    monkeypatch.setenv("WHENCE_MODEL", tiny_model)

    def run(*arguments: str | Path, stdin: str = "") -> Result:
        monkeypatch.setattr(sys, "argv", ["whence", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        capsys.readouterr()
        code: Any = 0
        try:
            main()
        except SystemExit as ending:
            code = ending.code or 0
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return Result(code, captured.out, captured.err)

    return run


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    """A folder with two documents."""
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "router.md").write_text(ROUTER)
    (folder / "kettle.md").write_text(KETTLE)
    return folder


@pytest.fixture(scope="module")
def first_ask(tmp_path_factory: pytest.TempPathFactory, encoder: Encoder, cache_folder: Path) -> tuple[Path, Result]:
    """Ask with nothing indexed, in a process of its own; return the home and the result."""
    home = tmp_path_factory.mktemp("first") / "home"
    return home, in_a_process("ask", PINGORA, home=home, cache=cache_folder)


def command(*arguments: str | bytes) -> list[str | bytes]:
    return [sys.executable, "-c", "from service.cli import main; main()", *arguments]


def environment(home: Path, cache: Path, **more: str) -> dict[str, str]:
    bare = {name: value for name, value in os.environ.items() if not name.startswith("WHENCE_")}
    return {**bare, "WHENCE_HOME": str(home), "WHENCE_CACHE": str(cache), **more}


def in_a_process(*arguments: str | bytes, home: Path, cache: Path, **more: str) -> Result:
    done = subprocess.run(
        command(*arguments),
        cwd=ROOT,
        env=environment(home, cache, **more),
        capture_output=True,
        timeout=120,
        check=False,
    )
    return Result(done.returncode, done.stdout.decode(), done.stderr.decode())


# Asking


def test_the_first_question_builds_an_index_of_the_bundled_documents(first_ask: tuple[Path, Result]) -> None:
    home, result = first_ask
    assert result.code == 0
    assert result.err.startswith(f"No index in {home} yet: building one from the bundled documents.\nPublished ")
    assert "5 documents" in result.err
    assert "cut memory use by roughly 70%" in result.out
    assert "rust-taking-over-from-cpp.md" in result.out
    assert "No index" not in result.out


def test_an_answer_as_json_is_one_line_and_nothing_else(whence: Whence, first_ask: tuple[Path, Result]) -> None:
    home, _ = first_ask
    result = whence("ask", PINGORA, "--json", "--top-k", "2", "--home", home, "--model", DEFAULT_MODEL)
    assert (result.code, result.err) == (0, "")
    assert result.record["question"] == PINGORA
    assert result.record["answered"]
    assert "70%" in result.record["answer"]["text"]
    assert len(result.record["passages"]) == 2
    assert result.record["model"]["name"] == DEFAULT_MODEL
    path = seeds_folder() / result.record["answer"]["citation"]["document"]["id"]
    citation = result.record["answer"]["citation"]
    assert path.read_text()[citation["start"] : citation["end"]] == citation["quote"]


def test_a_question_that_nothing_answers_says_so(whence: Whence, first_ask: tuple[Path, Result]) -> None:
    home, _ = first_ask
    arguments = ("ask", "Who won the football world cup in 1998?", "--home", home, "--model", DEFAULT_MODEL)
    result = whence(*arguments)
    assert result.code == 0
    assert result.out.startswith("Not found in the documents.\nThe nearest passages (")
    assert whence(*arguments, "--json").record["answer"] is None


def test_an_index_is_asked_with_its_own_model(
    whence: Whence, first_ask: tuple[Path, Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WHENCE_MODEL")
    result = whence("ask", PINGORA, "--json", "--home", first_ask[0], "--top-k", "1")
    assert (result.code, result.record["model"]["name"]) == (0, DEFAULT_MODEL)


def test_an_index_refuses_the_questions_of_another_model(whence: Whence, docs: Path, tiny_model: str) -> None:
    whence("index", docs)
    result = whence("ask", "What is red?", "--model", DEFAULT_MODEL)
    assert (result.code, result.out) == (1, "")
    assert f"The index was built with the model {tiny_model}" in result.err
    assert f"whence index --model {DEFAULT_MODEL}" in result.err


def test_a_model_is_made_ready_before_it_is_needed(
    whence: Whence, tmp_path: Path, tiny_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WHENCE_CACHE", str(tmp_path))
    done = whence("prepare", "--backend", "onnx-float32")
    assert done.code == 0
    assert f"Model {tiny_model} in float32, SHA-256 " in done.out
    (folder,) = (tmp_path / "models").iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["encoder.json", "model.onnx", "tokenizer.json"]


def test_backends_of_one_precision_give_the_same_words(whence: Whence, docs: Path) -> None:
    whence("index", docs, "--backend", "onnx-float32")
    onnx, torch = (
        whence("ask", "the red light", "--json", "--backend", backend, "--min-confidence", "0").record
        for backend in ("onnx-float32", "torch")
    )
    assert onnx["answer"] == torch["answer"]


@pytest.fixture
def hub() -> Iterator[tuple[str, list[str]]]:
    """A model hub that has nothing, and the requests it gets."""
    requests: list[str] = []

    class Nothing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append(self.path)
            self.send_error(404)

        def log_message(self, *arguments: Any) -> None:
            """Say nothing."""

        do_HEAD = do_GET  # noqa: N815

    with ThreadingHTTPServer(("127.0.0.1", 0), Nothing) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", requests
        server.shutdown()


def test_only_indexing_fetches_a_model(docs: Path, tmp_path: Path, hub: tuple[str, list[str]]) -> None:
    address, requests = hub
    settings = {"HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0", "HF_HOME": str(tmp_path / "hub"), "NO_PROXY": "*"}
    places = {"home": tmp_path / "home", "cache": tmp_path / "cache"}
    asked = in_a_process("ask", "What is red?", "--model", "some/model", **places, **settings)
    assert (asked.code, requests) == (1, [])
    assert "The model some/model is not on this machine" in asked.err
    indexed = in_a_process("index", str(docs), "--model", "some/model", **places, **settings)
    assert (indexed.code, requests != []) == (1, True)


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (["product=router"], {"router.md"}),
        (["year=2024"], {"router.md", "kettle.md"}),
        (["beta=true"], {"router.md"}),
        (["product=router", "year=2024"], {"router.md"}),
        (["product=kettle", "beta=true"], set()),
        (["doc_id=kettle.md"], {"kettle.md"}),
        (["title=Kettle"], {"kettle.md"}),
        (["product="], set()),
        (["product=" + "[" * 50_000], set()),
        (['{"year": {"gte": 2024}}'], {"router.md"}),
        (['{"year": 2024}', '{"doc_id": {"prefix": "r"}}'], {"router.md"}),
        (['{"product": ["router", "kettle"]}'], {"router.md", "kettle.md"}),
        ([' {"year": "2024"}', "product=kettle"], {"kettle.md"}),
    ],
)
def test_filters_choose_documents(whence: Whence, indexed: Path, filters: list[str], expected: set[str]) -> None:
    options = [option for text in filters for option in ("--filter", text)]
    result = whence("ask", "the light", "--json", "--home", indexed, *options)
    assert result.code == 0
    assert {passage["citation"]["document"]["id"] for passage in result.record["passages"]} == expected


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory, tiny_model: str, cache_folder: Path) -> Path:
    """A home with an index of two documents; not to be written to."""
    folder = tmp_path_factory.mktemp("indexed")
    (folder / "docs").mkdir()
    (folder / "docs" / "router.md").write_text(ROUTER)
    (folder / "docs" / "kettle.md").write_text(KETTLE)
    home = folder / "home"
    result = in_a_process("index", str(folder / "docs"), home=home, cache=cache_folder, WHENCE_MODEL=tiny_model)
    assert result.code == 0
    return home


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ask", ""], "The question is empty"),
        (["ask", "?!"], "has no word in it"),
        (["ask", "x" * 5000], "has 5,000 characters"),
        (["ask", "\udcff what"], "not valid Unicode"),
        (["ask", "what", "--top-k", "0"], "top_k is 0. Ask for 1 to 100 passages"),
        (["ask", "what", "--top-k", "many"], "Invalid value for '--top-k'"),
        (["ask", "what", "--min-confidence", "2"], "min_confidence is 2.0"),
        (["ask", "what", "--backend", "gpu"], "gpu is not a backend; choose one of onnx, onnx-float32, torch"),
        (["ask", "what", "--filter", "router"], "The filter 'router' is not FIELD=VALUE"),
        (["ask", "what", "--filter", "=router"], "is not FIELD=VALUE"),
        (["ask", "what", "--filter", '{"product": '], "is not JSON"),
        (["ask", "what", "--filter", '{"a":' * 5000], "is not JSON"),
        (["ask", "what", "--filter", '{"product": null}'], "The filter on 'product' is None"),
        (["ask", "what", "--filter", "a=1", "--filter", "a=2"], "There are two filters on 'a'"),
        (["ask"], "Missing argument"),
        (["ask", "what", "else"], "unexpected extra argument"),
        (["ask", "what", "--no-such-option"], "No such option"),
        (["no-such-command"], "No such command"),
        (["index", "--keep", "0"], "Invalid value for '--keep'"),
        (["index", "--wait", "-1"], "Invalid value for '--wait'"),
    ],
)
def test_wrong_usage_exits_with_2(whence: Whence, indexed: Path, arguments: list[str], message: str) -> None:
    home = ["--home", str(indexed)] if arguments[0] != "no-such-command" else []
    result = whence(*arguments, *home)
    assert (result.code, result.out) == (2, "")
    assert message in " ".join(re.sub("[│╭╮╰╯─]", " ", result.err).split())


def test_no_command_shows_the_help(whence: Whence) -> None:
    result = whence()
    assert result.code == 2
    data = ("status", "generations", "rollback", "verify", "backup", "restore")
    for name in ("ask", "index", *data, "calibrate", "evaluate"):
        assert f" {name} " in result.out + result.err
    assert whence("--help").code == 0


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("WHENCE_TOP_K", "many", "WHENCE_TOP_K is 'many'"),
        ("WHENCE_BACKEND", "gpu", "WHENCE_BACKEND is 'gpu'"),
        ("WHENCE_MODEL", "/no/such/model", "There is no folder /no/such/model"),
    ],
)
def test_a_bad_setting_in_the_environment_is_an_error(
    whence: Whence, indexed: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
) -> None:
    monkeypatch.setenv(name, value)
    result = whence("ask", "what", "--home", indexed)
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith("whence: ")
    assert message in result.err


def test_settings_from_the_environment_stand_behind_those_of_the_command_line(
    whence: Whence, indexed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WHENCE_HOME", str(indexed))
    monkeypatch.setenv("WHENCE_TOP_K", "1")
    monkeypatch.setenv("WHENCE_MIN_CONFIDENCE", "0")
    answer = whence("ask", "the light", "--json").record
    assert (len(answer["passages"]), answer["answered"]) == (1, True)
    answer = whence("ask", "the light", "--json", "--top-k", "2", "--min-confidence", "1").record
    assert (len(answer["passages"]), answer["answered"]) == (2, False)


# Indexing


def test_a_folder_is_indexed_and_then_unchanged(whence: Whence, docs: Path) -> None:
    first, second = whence("index", docs), whence("index", docs)
    assert (first.code, first.err) == (0, "")
    assert re.match(r"Published \S+: 2 documents, 3 chunks, 4 sentences \(2 added, 0 changed, 0 removed", first.out)
    name = first.out.split()[1].rstrip(":")
    assert second.out == f"Nothing changed: {name} has 2 documents, 3 chunks, 4 sentences.\n"


def test_a_report_as_json(whence: Whence, docs: Path) -> None:
    (docs / "broken.pdf").write_bytes(b"%PDF-1.7\nno more")
    report = whence("index", docs, "--json").record
    assert list(report) == [
        "generation",
        "is_new",
        "added",
        "changed",
        "removed",
        "unchanged",
        "rejected",
        "encoded",
        "documents",
        "chunks",
        "sentences",
        "pruned",
    ]
    assert (report["added"], report["documents"], report["encoded"]) == (["kettle.md", "router.md"], 2, 3)
    (rejected,) = report["rejected"]
    assert rejected["path"] == "broken.pdf"
    assert rejected["reason"]


def test_a_changed_and_a_removed_document_are_reported(whence: Whence, docs: Path) -> None:
    whence("index", docs)
    (docs / "router.md").write_text(ROUTER.replace("blue", "green"))
    (docs / "kettle.md").unlink()
    report = whence("index", docs, "--json").record
    assert (report["added"], report["changed"], report["removed"]) == ([], ["router.md"], ["kettle.md"])
    assert whence("ask", "kettle", "--json").record["passages"][0]["citation"]["document"]["id"] == "router.md"


def test_a_file_that_cannot_be_read_is_named_and_the_others_are_indexed(whence: Whence, docs: Path) -> None:
    (docs / "broken.pdf").write_bytes(b"%PDF-1.7\nno more")
    result = whence("index", docs)
    assert result.code == 0
    assert "2 documents" in result.out
    assert "Not indexed: broken.pdf: " in result.out


def test_without_a_path_the_known_sources_are_synced(whence: Whence, docs: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "toaster.md").write_text("# Toaster\n\nEmpty the crumb tray weekly.")
    whence("index", docs)
    whence("index", other)
    (docs / "new.md").write_text("# New\n\nSomething new.")
    (other / "toaster.md").write_text("# Toaster\n\nEmpty the crumb tray daily.")
    report = whence("index", "--json").record
    assert (report["added"], report["changed"], report["unchanged"]) == (["new.md"], ["toaster.md"], 2)


def test_a_single_file_is_a_source(whence: Whence, docs: Path) -> None:
    assert whence("index", docs / "router.md", "--json").record["added"] == ["router.md"]


def test_the_bundled_documents_give_way_to_ones_own(whence: Whence, docs: Path) -> None:
    first = whence("ask", "the light", "--json", "--min-confidence", "0")
    assert "building one from the bundled documents" in first.err
    report = whence("index", docs, "--json").record
    assert (report["documents"], len(report["removed"])) == (2, 5)


def test_what_was_put_over_http_stays_without_being_named(whence: Whence, docs: Path, tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    with State(home.path) as state:
        uploads = Uploads(home.path, state)
        uploads.apply([kept(state, uploads, "note.md", "# Note\n\nBring the key.")])
    assert whence("index", docs, "--json").record["documents"] == 3
    assert whence("index", "--remove", docs, "--json").record["documents"] == 1
    assert whence("index", "--json").record["is_new"] is False
    other = write_tiny_model(tmp_path / "other", seed=1)
    report = whence("index", "--model", other, "--json").record
    assert (report["encoded"], report["unchanged"]) == (1, 1)


def test_nothing_to_index_is_an_error(whence: Whence) -> None:
    result = whence("index")
    assert (result.code, result.out) == (1, "")
    assert result.err == "whence: Nothing to index. Name a folder or a file: whence index PATH\n"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("missing", "No source at {docs}/missing"),
        ("empty", "There is no document in {docs}/empty"),
        ("unreadable", "No document in {docs}/unreadable can be read; 1 were rejected, the first of them: x.bin: "),
    ],
)
def test_a_source_without_documents_is_an_error(whence: Whence, docs: Path, path: str, message: str) -> None:
    (docs / "empty").mkdir()
    (docs / "unreadable").mkdir()
    (docs / "unreadable" / "x.bin").write_bytes(bytes(range(256)) * 8)
    result = whence("index", docs / path)
    assert (result.code, result.out) == (1, "")
    assert message.format(docs=docs) in result.err
    assert whence("status").code == 1


@pytest.mark.parametrize("path", ["~nobody-by-this-name/docs", "/" + "x" * 5000])
def test_a_path_that_cannot_be_is_an_error(whence: Whence, path: str) -> None:
    result = whence("index", path)
    assert (result.code, result.out) == (1, "")
    assert result.err.startswith(f"whence: No source at {path}: ")


def test_a_source_that_lost_its_documents_needs_a_word(whence: Whence, docs: Path) -> None:
    whence("index", docs)
    for path in docs.iterdir():
        path.unlink()
    refused = whence("index", docs)
    assert refused.code == 1
    assert "had 2 documents and has none now. Nothing was changed." in refused.err
    assert whence("status", "--json").record["documents"] == 2
    assert whence("index", docs, "--allow-empty", "--json").record["documents"] == 0


def test_a_prefix_stands_before_the_ids_and_stays(whence: Whence, docs: Path) -> None:
    assert whence("index", docs, "--prefix", "home/", "--json").record["added"] == [
        "home/kettle.md",
        "home/router.md",
    ]
    for again in (whence("index", docs, "--json"), whence("index", "--json")):
        assert not again.record["is_new"]
    changed = whence("index", docs, "--prefix", "", "--json").record
    assert changed["added"] == ["kettle.md", "router.md"]
    assert changed["removed"] == ["home/kettle.md", "home/router.md"]


def test_two_sources_with_the_same_ids_need_a_prefix(whence: Whence, docs: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(docs, tmp_path / "copy"))
    whence("index", docs)
    clash = whence("index", copy)
    assert clash.code == 1
    assert "--prefix NAME/" in clash.err
    assert whence("index", copy, "--prefix", "copy/", "--json").record["documents"] == 4


def test_a_source_can_be_removed(whence: Whence, docs: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "toaster.md").write_text("# Toaster\n\nEmpty the crumb tray weekly.")
    whence("index", docs, other)
    shutil.rmtree(docs)  # It need not be there any more.
    assert whence("index", "--remove", docs, "--json").record["removed"] == ["kettle.md", "router.md"]
    assert [source["path"] for source in whence("status", "--json").record["sources"]] == [str(other)]
    unknown = whence("index", "--remove", docs)
    assert unknown.code == 1
    assert f"{docs} is not a source of this index. Its sources: {other}" in unknown.err


def test_a_second_writer_is_told_of_the_first(whence: Whence, docs: Path, tmp_path: Path) -> None:
    with Home(tmp_path / "home").writer():
        result = whence("index", docs, "--wait", "0")
    assert (result.code, result.out) == (1, "")
    assert f"Process {os.getpid()} on " in result.err
    assert "is writing to" in result.err


def test_only_so_many_generations_are_kept(whence: Whence, docs: Path) -> None:
    for number in range(4):
        (docs / "router.md").write_text(f"{ROUTER}\nRevision {number}.\n")
        report = whence("index", docs, "--keep", "2", "--json").record
    assert len(report["pruned"]) == 1
    assert len(whence("generations", "--json").records) == 2


def test_a_new_model_embeds_everything_anew(whence: Whence, docs: Path, tmp_path: Path) -> None:
    whence("index", docs)
    other = write_tiny_model(tmp_path / "other", seed=1)
    report = whence("index", "--model", other, "--json").record
    assert (report["is_new"], report["encoded"]) == (True, 3)
    assert whence("status", "--json").record["model"]["name"] == str(other)


# Generations


def test_the_status_says_what_the_index_holds(whence: Whence, docs: Path, tmp_path: Path, tiny_model: str) -> None:
    name = whence("index", docs, "--json").record["generation"]
    record = whence("status", "--json").record
    assert (record["home"], record["name"]) == (str(tmp_path / "home"), name)
    assert (record["documents"], record["chunks"], record["sentences"]) == (2, 3, 4)
    assert record["sources"] == [{"path": str(docs), "prefix": "", "documents": 2, "is_bundled": False}]
    assert whence("status").out == (
        f"{name}, published in {tmp_path / 'home'}\n"
        "2 documents, 3 chunks, 4 sentences; whole\n"
        f"Model {tiny_model} in int8, SHA-256 {record['model']['sha256']}\n"
        "Confidence as it ships\n"
        f"Source {docs}: 2 documents\n"
    )


@pytest.mark.parametrize(
    "arguments", [["status"], ["generations"], ["generations", "--json"], ["rollback"], ["backup", "x.tar"]]
)
def test_without_an_index_there_is_nothing_to_show(
    whence: Whence, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    result = whence(*arguments)
    assert (result.code, result.out) == (1, "")
    assert f"No index in {tmp_path / 'home'}" in result.err


def test_generations_are_listed_and_rolled_back(whence: Whence, docs: Path) -> None:
    first = whence("index", docs, "--json").record["generation"]
    (docs / "router.md").write_text(ROUTER.replace("blue", "green"))
    second = whence("index", docs, "--json").record["generation"]
    records = whence("generations", "--json").records
    assert [(record["name"], record["parent"], record["published"]) for record in records] == [
        (second, first, True),
        (first, None, False),
    ]
    table = whence("generations").out.splitlines()
    assert [line.split()[:2] for line in table[1:]] == [["→", second], [first, records[1]["created"]]]
    assert whence("rollback").out == f"Published {first}.\n"
    answer = whence("ask", "blue", "--json", "--top-k", "2").record
    assert answer["generation"] == first
    assert "blue light" in " ".join(passage["text"] for passage in answer["passages"])
    assert whence("rollback", second, "--json").record == {"published": second}


def test_there_must_be_something_to_roll_back_to(whence: Whence, docs: Path) -> None:
    whence("index", docs)
    assert "is not there any more" in whence("rollback").err
    for name in ("20200101T000000Z-000000", "..", "../../etc"):
        result = whence("rollback", name)
        assert result.code == 1
        assert f"There is no generation {name!r}" in result.err


def test_a_backup_is_restored_in_another_home(whence: Whence, docs: Path, tmp_path: Path) -> None:
    name = whence("index", docs, "--json").record["generation"]
    file = tmp_path / "whence.tar"
    assert whence("backup", file, "--json").record == {"generation": name, "file": str(file)}
    answer = whence("ask", "the light", "--json").record
    elsewhere = ("--home", tmp_path / "elsewhere")
    assert whence("restore", file, *elsewhere).out == f"Published {name} from {file}.\n"
    assert whence("ask", "the light", "--json", *elsewhere).record == {**answer, "took_ms": pytest.approx(0, abs=1e5)}


def test_a_file_that_is_no_backup_is_refused(whence: Whence, docs: Path, tmp_path: Path) -> None:
    missing = whence("restore", tmp_path / "missing.tar")
    assert missing.code == 1
    assert "Name a file that whence backup wrote" in missing.err
    result = whence("restore", docs / "router.md")
    assert result.code == 1
    assert f"{docs / 'router.md'} is not a whole backup" in result.err


def test_a_backup_that_cannot_be_written_is_an_error(whence: Whence, docs: Path, tmp_path: Path) -> None:
    whence("index", docs)
    result = whence("backup", tmp_path / "no" / "such" / "folder.tar")
    assert result.code == 1
    assert "cannot be written" in result.err


# Verifying


def test_saved_answers_are_checked_against_the_files(whence: Whence, docs: Path, tmp_path: Path) -> None:
    whence("index", docs)
    saved = tmp_path / "answer.json"
    saved.write_text(whence("ask", "the red light", "--json", "--min-confidence", "0", "--top-k", "1").out)
    citation = json.loads(saved.read_text())["answer"]["citation"]
    path = docs / citation["document"]["id"]
    text = path.read_text()

    found = whence("verify", saved, "--json")
    assert (found.code, found.err) == (0, "")
    assert {record["status"] for record in found.records} == {"found"}
    assert all(record["same_source"] for record in found.records)

    path.write_text(text.replace("\n# ", "\nSome words before.\n\n# "))
    moved = whence("verify", saved, "--json")
    assert (moved.code, moved.err) == (0, "")
    assert moved.records[0] == {
        "document": path.name,
        "quote": citation["quote"],
        "status": "moved",
        "start": citation["start"] + len("Some words before.\n\n"),
        "end": citation["end"] + len("Some words before.\n\n"),
        "same_source": False,
    }

    path.write_text(text.replace(citation["quote"], "Nothing of the kind."))
    changed = whence("verify", saved)
    assert changed.code == 1
    assert changed.out.startswith(f"changed {path.name}: {citation['quote']}")
    assert re.fullmatch(
        r"whence: (\d) of \1 quotes are not in the documents any more as they were cited\.\n", changed.err
    )

    path.unlink()
    gone = whence("verify", saved, "--json")
    assert (gone.code, {record["status"] for record in gone.records}) == (1, {"gone"})


def test_an_answer_goes_through_a_pipe_to_be_verified(whence: Whence, first_ask: tuple[Path, Result]) -> None:
    home, _ = first_ask
    answer = whence("ask", PINGORA, "--json", "--home", home, "--model", DEFAULT_MODEL)
    result = whence("verify", "-", "--home", home, stdin=answer.out)
    assert result.code == 0
    assert len(result.out.splitlines()) == 6
    assert all(line.startswith("found   rust") or line.startswith("found   a-d") for line in result.out.splitlines())


def test_what_is_no_saved_answer_is_refused(whence: Whence, indexed: Path, docs: Path) -> None:
    assert "is not JSON" in whence("verify", docs / "router.md", "--home", indexed).err
    assert "holds no citation" in whence("verify", "-", "--home", indexed, stdin="{}").err
    missing = whence("verify", docs / "missing.json", "--home", indexed)
    assert (missing.code, missing.out) == (1, "")
    assert "cannot be read" in missing.err


# Evaluating


def test_a_data_set_is_evaluated(whence: Whence, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHENCE_CACHE", str(tmp_path / "cache"))
    folder, run = write_dataset(tmp_path / "data"), tmp_path / "run.trec"
    result = whence("evaluate", folder, "--run", run, "--top-k", "3", "--json")
    assert (result.code, result.err) == (0, "")
    assert [record["retrieval"] for record in result.records] == ["dense", "bm25", "whence"]
    for record in result.records:
        assert list(record) == ["retrieval", *METRICS]
        assert list(record["ndcg@10"]) == ["mean", "low", "high"]
    assert result.records[1]["recall@5"]["mean"] == 1.0
    ranking = read_run(run)
    assert list(ranking) == ["q1", "q2", "q3"]
    assert all(len(documents) == 3 for documents in ranking.values())

    table = whence("evaluate", folder).out.splitlines()
    assert table[0].split() == ["retrieval", *METRICS]
    assert [line.split()[0] for line in table[1:]] == ["dense", "bm25", "whence"]


def test_retrieval_is_compared_with_the_run_of_another_system(
    whence: Whence, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WHENCE_CACHE", str(tmp_path / "cache"))
    folder, run = write_dataset(tmp_path / "data"), tmp_path / "other [red].trec"
    run.write_text("q1 Q0 kettle 1 0.9 other\nq1 Q0 light 2 0.8 other\nq2 Q0 reset 1 0.9 other\n")
    result = whence("evaluate", folder, "--compare", run, "--json")
    assert result.code == 0
    assert result.err == f"{run} ranks nothing for 1 of 3 queries; they count as 0 for it.\n"
    *_, ours, other, comparison = result.records
    assert [ours["retrieval"], other["retrieval"]] == ["whence", str(run)]
    assert other["mrr@10"]["mean"] == 0.5
    assert list(comparison) == ["retrieval", "compared_with", *METRICS]
    assert (comparison["retrieval"], comparison["compared_with"]) == ("whence", str(run))
    # Better by a half, nothing and one; a mean as far from 0 comes of four of the eight ways to turn their signs.
    assert comparison["mrr@10"] == {"mean": 0.5, "low": 0.0, "high": 1.0, "p_value": 0.5}

    evaluation, table = whence("evaluate", folder, "--compare", run).out.split("\n\n")
    assert evaluation.splitlines()[4].startswith(f" {run} ")
    assert f"whence − {run}" in table.splitlines()[0]
    assert table.splitlines()[2].split() == ["mrr@10", "+0.500", "+0.000", "to", "+1.000", "0.5000"]


def test_what_a_reranker_is_worth_is_measured_beside_the_rest(
    whence: Whence, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WHENCE_CACHE", str(tmp_path / "cache"))
    folder, run, plain = write_dataset(tmp_path / "data"), tmp_path / "reranked.trec", tmp_path / "plain.trec"
    whence("evaluate", folder, "--run", plain)
    reranker = write_tiny_cross_encoder(tmp_path / "cross-encoder")
    result = whence("evaluate", folder, "--reranker", reranker, "--run", run, "--compare", plain, "--json")
    assert result.code == 0
    ways = [record["retrieval"] for record in result.records]
    assert ways == ["dense", "bm25", "whence", "reranked", str(plain), "reranked"]
    # A model of random weights: the same documents in another order.
    reranked, before = read_run(run), read_run(plain)
    assert {query: set(documents) for query, documents in reranked.items()} == {
        query: set(documents) for query, documents in before.items()
    }
    assert [list(documents) for documents in reranked.values()] != [list(documents) for documents in before.values()]


def test_a_run_of_other_queries_is_refused_before_anything_is_indexed(
    whence: Whence, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WHENCE_CACHE", str(tmp_path / "cache"))
    folder, run = write_dataset(tmp_path / "data"), tmp_path / "other.trec"
    run.write_text("PLAIN-1 Q0 light 1 0.9 other\n")
    result = whence("evaluate", folder, "--compare", run)
    assert (result.code, result.out) == (1, "")
    assert f"The run {run} ranks none of the 3 queries that are judged, such as 'q1'." in result.err
    assert "missing.trec cannot be read" in whence("evaluate", folder, "--compare", tmp_path / "missing.trec").err
    assert not (tmp_path / "cache").exists()


def test_a_data_set_that_is_none_is_refused(whence: Whence, docs: Path, tmp_path: Path) -> None:
    assert f"No qrels in {docs}" in whence("evaluate", docs).err
    assert "No qrels in" in whence("evaluate", tmp_path / "missing").err
    folder = write_dataset(tmp_path / "data")
    assert "No split 'dev'" in whence("evaluate", folder, "--split", "dev").err


def test_a_run_that_cannot_be_written_is_refused_before_anything_is_indexed(
    whence: Whence, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WHENCE_CACHE", str(tmp_path / "cache"))
    run = tmp_path / "no" / "run.trec"
    result = whence("evaluate", write_dataset(tmp_path / "data"), "--run", run)
    assert (result.code, result.out) == (1, "")
    assert f"The run {run} cannot be written: No such file or directory. Name another file" in result.err
    assert not (tmp_path / "cache").exists()


def test_an_evaluation_that_fails_closes_its_index(
    whence: Whence, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WHENCE_CACHE", str(tmp_path / "cache"))
    opened: list[Generation] = []

    def fail(generation: Generation, *arguments: Any, **options: Any) -> None:
        opened.append(generation)
        raise EvaluationError("No ranking.")

    monkeypatch.setattr("index.runs.rank_queries", fail)
    assert whence("evaluate", write_dataset(tmp_path / "data")).err == "whence: No ranking.\n"
    with pytest.raises(sqlite3.ProgrammingError, match="closed database"):
        list(opened[0].corpus.chunks([0]))


# The terminal


def test_control_characters_of_a_document_do_not_reach_the_terminal(whence: Whence, docs: Path) -> None:
    trap = (
        "\x1b[31mred\x1b[0m \x1b]0;title\x07 \x9b2J back\x08space \u202eright to left\u2069 [bold]markup[/bold] :+1:"
    )
    # With so many of them among few words it would be taken for a binary file.
    words = "\n\n".join(f"Paragraph {number} says nothing of the kind." for number in range(40))
    (docs / "trap.md").write_text(f"# Trap \x1b[2J\n\nThe trap says {trap} and ends.\n\n{words}\n")
    whence("index", docs)
    options = ("--min-confidence", "0", "--filter", "doc_id=trap.md", "--top-k", "100")
    result = whence("ask", "the trap says", *options)
    assert result.code == 0
    assert "[bold]markup[/bold] :+1:" in result.out
    assert "�[31mred�[0m" in result.out
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", result.out)


def test_a_quote_with_control_characters_does_not_reach_the_terminal_when_verified(
    whence: Whence, docs: Path
) -> None:
    whence("index", docs)
    citation = {"document": {"id": "a\x1b[31m.md"}, "quote": "\x1b[2Jquote", "start": 0, "end": 9}
    result = whence("verify", "-", stdin=json.dumps(citation))
    assert result.code == 1
    assert result.out == "gone    a�[31m.md: �[2Jquote\n"
    assert "\\u001b[2Jquote" in whence("verify", "-", "--json", stdin=json.dumps(citation)).out


def test_square_brackets_in_a_path_are_no_markup(whence: Whence, docs: Path, tmp_path: Path) -> None:
    home = tmp_path / "[red]home[/red]"
    whence("index", docs, "--home", home)
    assert f"published in {home}" in whence("status", "--home", home).out
    assert str(home) in whence("rollback", "--home", home, "missing").err


def test_in_a_pipe_lines_are_neither_wrapped_nor_cut(whence: Whence, docs: Path) -> None:
    sentence = f"The green light means {'that it is very, ' * 20}very busy."
    (docs / "light.md").write_text(f"# Green light\n\n{sentence}\n")
    whence("index", docs, "--model", DEFAULT_MODEL)
    options = ("--min-confidence", "0", "--filter", "doc_id=light.md", "--model", DEFAULT_MODEL)
    assert f"   {sentence}\n" in whence("ask", "the green light", *options).out
    text = (docs / "light.md").read_text()
    start = text.index(sentence)
    citation = {"document": {"id": "light.md"}, "quote": sentence, "start": start, "end": start + len(sentence)}
    line = f"found   light.md {start}–{start + len(sentence)}: {sentence}\n"
    assert whence("verify", "-", stdin=json.dumps(citation)).out == line


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_full_disk_is_an_error(indexed: Path, cache_folder: Path, options: list[str]) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            command("status", *options),
            cwd=ROOT,
            env=environment(indexed, cache_folder),
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=120,
            check=False,
        )
    message = "Standard output cannot be written: No space left on device. Make room, or send it elsewhere."
    assert (done.returncode, done.stderr.decode()) == (1, f"whence: {message}\n")


def test_the_output_is_utf_8_whatever_the_locale_says(indexed: Path, cache_folder: Path) -> None:
    listed = in_a_process("generations", home=indexed, cache=cache_folder, PYTHONIOENCODING="latin-1")
    assert (listed.code, listed.err) == (0, "")
    assert listed.out.splitlines()[1].startswith(" →")
    missing = in_a_process("rollback", "→", home=indexed, cache=cache_folder, PYTHONIOENCODING="latin-1")
    assert missing.code == 1
    assert "There is no generation '→'" in missing.err


def test_a_closed_pipe_ends_the_command_quietly(indexed: Path, cache_folder: Path) -> None:
    process = subprocess.Popen(
        command("verify", "-", "--json"),
        cwd=ROOT,
        env=environment(indexed, cache_folder),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.close()
    citation = {"document": {"id": "a.md"}, "quote": "quote", "start": 0, "end": 5}
    process.stdout = None
    _, err = process.communicate(json.dumps(citation).encode(), timeout=60)
    assert (process.returncode, err) == (1, b"")


def test_an_interrupted_command_says_that_nothing_is_lost(indexed: Path, cache_folder: Path) -> None:
    process = subprocess.Popen(
        command("verify", "-"),
        cwd=ROOT,
        env=environment(indexed, cache_folder),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # A command started in the background of a script ignores the signal, and so would this one started by it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    _wait_until_reading(process.pid)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, b"")
    assert err == b"whence: Stopped. Nothing that was published has changed.\n"


def _wait_until_reading(pid: int) -> None:
    """Wait until a process sits in a read from its standard input."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        system_call = Path(f"/proc/{pid}/syscall").read_text().split()
        if system_call[:2] == ["0", "0x0"]:
            return
        time.sleep(0.05)
    raise AssertionError("the process never came to read its standard input")
