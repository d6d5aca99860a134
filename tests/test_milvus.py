"""A store on a Milvus server gives the answers that the home gives, and is published whole or not at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from checking import check_answer
from live import serving
from milvus_server import MilvusServer, OwnServer, needs_milvus, needs_own_process, running_milvus
from sources_in_memory import MemorySource
from waiting import until

from index.answers import Answer, Question, answer_questions
from index.build import sync
from index.corpus import StoredChunk
from index.draft import NoProgress
from index.embeddings import Encoder
from index.errors import GenerationError, NoGenerationError, StoreError
from index.generations import Generation, Home
from index.instant import instant_encoder
from index.milvus import collections, server
from index.milvus.address import parse_address
from index.milvus.rows import pack_record
from index.milvus.store import MilvusStore
from index.store import OpenGeneration
from service.schemas.answers import AnswerJson

pytestmark = needs_milvus
ROOT = Path(__file__).parent.parent
RED = "What does the red light mean?"
QUESTIONS = [
    RED,
    "How do I reset the router?",
    "crumb tray of the toaster",
    "Who won the football world cup in 1998?",
    "東京タワー",
    "to be or not to be",
    "How often should I descale the ketle?",
]
ON_SEEDS = [
    "How much memory did Pingora save?",
    "What is webasembly used for?",
    "Which allocator suits high-throughput services?",
    "How long does it take to learn Rust?",
    "Does Linux have Rust drivers?",
    "What is the capital of France?",
]
FILTERS = [
    None,
    {"product": "router"},
    {"year": {"gte": 2024}},
    {"doc_id": {"prefix": "guide/"}},
    {"product": "none"},
]
# Publishes what is in a home, and is killed by itself when the first rows have been written.
KILLED = """
import os, signal, sys
from pathlib import Path
from index.draft import NoProgress
from index.generations import Home
from index.milvus import store
from index.milvus.address import parse_address

class Killer(NoProgress):
    def advance(self, steps):
        os.kill(os.getpid(), signal.SIGKILL)

store.ROWS_AT_ONCE = 4
target = store.MilvusStore(parse_address(sys.argv[2]), Path(sys.argv[3]))
target.publish(Home(Path(sys.argv[1])).open_current(), progress=Killer())
"""


@pytest.fixture(scope="module")
def milvus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MilvusServer | OwnServer]:
    yield from running_milvus(tmp_path_factory.mktemp("milvus"))


@contextmanager
def store_at(url: str, cache: Path) -> Iterator[MilvusStore]:
    with closing(MilvusStore(parse_address(url), cache)) as store:
        yield store


@contextmanager
def published(generation: Generation, url: str, cache: Path) -> Iterator[OpenGeneration]:
    with store_at(url, cache) as store:
        store.publish(generation)
        with closing(store.open_current()) as stored:
            yield stored


@pytest.fixture(scope="module")
def stored_handbook(
    handbook: Generation, milvus: MilvusServer | OwnServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[OpenGeneration]:
    with published(handbook, milvus.url("handbook"), tmp_path_factory.mktemp("cache")) as stored:
        yield stored


def as_json(answers: list[Answer]) -> list[str]:
    """Return answers without the time they took: every score, offset and word."""
    return [AnswerJson.of(replace(answer, took_ms=0)).model_dump_json() for answer in answers]


def in_home(home: Home, encoder: Encoder, texts: dict[str, str]) -> Generation:
    sync(home, [MemorySource(texts)], encoder)
    return home.open_current()


@pytest.mark.parametrize("top_k", [1, 5, 100])
@pytest.mark.parametrize("filters", FILTERS, ids=str)
def test_a_store_answers_as_the_home_does(
    handbook: Generation,
    stored_handbook: OpenGeneration,
    encoder: Encoder,
    filters: dict[str, object] | None,
    top_k: int,
) -> None:
    asked = [Question(text, top_k=top_k, filters=filters, min_confidence=0) for text in QUESTIONS]
    ours, theirs = (answer_questions(each, encoder, asked) for each in (stored_handbook, handbook))
    assert as_json(ours) == as_json(theirs)


def test_the_instant_encoder_answers_as_in_the_home(handbook: Generation, stored_handbook: OpenGeneration) -> None:
    asked = [Question(text) for text in QUESTIONS]
    ours, theirs = (answer_questions(each, instant_encoder(each), asked) for each in (stored_handbook, handbook))
    assert as_json(ours) == as_json(theirs)


def test_the_bundled_documents_are_answered_from_as_in_the_home(
    seeds: Generation, milvus: MilvusServer | OwnServer, encoder: Encoder, tmp_path: Path
) -> None:
    asked = [Question(text, top_k=top_k) for text in ON_SEEDS for top_k in (5, 100)]
    with published(seeds, milvus.url("seeds"), tmp_path) as stored:
        answers = answer_questions(stored, encoder, asked)
        assert as_json(answers) == as_json(answer_questions(seeds, encoder, asked))
        assert any(answer.answered for answer in answers)


def test_candidates_are_those_of_the_home_where_there_are_many_more_chunks(
    home: Home, milvus: MilvusServer | OwnServer, encoder: Encoder, tmp_path: Path
) -> None:
    things = ["router", "kettle", "toaster", "lamp", "dishwasher", "heater", "printer"]
    texts = {
        f"{number:03}.md": f"The {things[number % 7]} in room {number} stands {number % 11} metres from the door."
        for number in range(350)
    }
    asked = [Question(text, top_k=100) for text in ("Where is the kettle?", "lamp in room 17", "far from any door")]
    with (
        closing(in_home(home, encoder, texts)) as local,
        published(local, milvus.url("rooms"), tmp_path) as stored,
    ):
        assert local.manifest.chunks == 350
        assert as_json(answer_questions(stored, encoder, asked)) == as_json(answer_questions(local, encoder, asked))


def test_documents_are_read_as_from_the_home(handbook: Generation, stored_handbook: OpenGeneration) -> None:
    with closing(stored_handbook.open_corpus()) as corpus:
        assert corpus.counts() == handbook.corpus.counts()
        assert list(corpus.documents()) == list(handbook.corpus.documents())
        assert corpus.page(after="dishwasher.html", limit=2) == handbook.corpus.page(after="dishwasher.html", limit=2)
        for record in handbook.corpus.documents():
            assert corpus.document(record.doc_id) == record
            assert corpus.text(record) == handbook.corpus.text(record)
            assert corpus.outline(record) == handbook.corpus.outline(record)


def test_citations_of_a_store_can_be_checked(
    handbook: Generation, stored_handbook: OpenGeneration, encoder: Encoder
) -> None:
    texts = {record.doc_id: handbook.corpus.text(record) for record in handbook.corpus.documents()}
    for answer in answer_questions(stored_handbook, encoder, [Question(text, top_k=100) for text in QUESTIONS]):
        check_answer(answer, texts)


def test_chunks_that_do_not_fit_into_a_field_are_kept_all_the_same(
    handbook: Generation,
    milvus: MilvusServer | OwnServer,
    encoder: Encoder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(collections, "PART_BYTES", 300)
    monkeypatch.setattr(collections, "PARTS_AT_ONCE", 7)
    asked = [Question(text) for text in QUESTIONS[:3]]
    with published(handbook, milvus.url("parts"), tmp_path) as stored:
        assert as_json(answer_questions(stored, encoder, asked)) == as_json(
            answer_questions(handbook, encoder, asked)
        )


def test_an_empty_index_has_no_answer(
    home: Home, milvus: MilvusServer | OwnServer, encoder: Encoder, tmp_path: Path
) -> None:
    texts = {"empty.md": ""}
    with (
        closing(in_home(home, encoder, texts)) as local,
        published(local, milvus.url("empty"), tmp_path) as stored,
    ):
        (answer,) = answer_questions(stored, encoder, [Question(RED)])
        assert (answer.answered, answer.passages) == (False, ())


def test_a_new_generation_is_published_and_old_ones_go(
    home: Home, milvus: MilvusServer | OwnServer, encoder: Encoder, tmp_path: Path
) -> None:
    with store_at(milvus.url("many"), tmp_path / "cache") as store:
        assert store.published_name() is None
        with pytest.raises(NoGenerationError, match="Nothing is published in milvus://"):
            store.open_current()
        names = []
        for number in range(3):
            with closing(in_home(home, encoder, {"a.md": f"The lamp number {number} is on."})) as local:
                store.publish(local, keep=2)
                store.publish(local, keep=2)  # again: nothing happens
                names.append(local.name)
            with closing(store.open_current()) as stored:
                assert store.published_name() == stored.name == local.name
                assert stored.corpus.chunks([0])[0].text == f"The lamp number {number} is on."
        assert [manifest.name for manifest in store.manifests()] == [names[2], names[1]]
        assert store.roll_back() == names[1] == store.published_name()
        with pytest.raises(GenerationError, match="no generation before"):
            store.roll_back()
        with pytest.raises(GenerationError, match="There is no generation '20200101T000000Z-000000'"):
            store.roll_back("20200101T000000Z-000000")
        assert store.roll_back(names[2]) == names[2]
        # What the store does not have any more is not in the cache either.
        store.open_current().close()
        folders = {folder.name for folder in (tmp_path / "cache").glob("stores/*/*")}
        assert folders == set(names[1:])


def test_files_that_were_altered_are_fetched_again(
    handbook: Generation, milvus: MilvusServer | OwnServer, encoder: Encoder, tmp_path: Path
) -> None:
    asked = [Question(RED)]
    with published(handbook, milvus.url("altered"), tmp_path) as stored:
        expected = as_json(answer_questions(stored, encoder, asked))
    (file,) = tmp_path.glob("stores/*/*/documents.sqlite")
    file.write_bytes(file.read_bytes()[:-100] + bytes(100))
    with store_at(milvus.url("altered"), tmp_path) as store, closing(store.open_current()) as stored:
        assert as_json(answer_questions(stored, encoder, asked)) == expected


def test_a_writer_that_is_killed_leaves_what_was_published(
    home: Home, milvus: MilvusServer | OwnServer, encoder: Encoder, tmp_path: Path
) -> None:
    url = milvus.url("killed")
    with store_at(url, tmp_path / "cache") as store:
        with closing(in_home(home, encoder, {"a.md": "The red light means no power."})) as first:
            store.publish(first)
        texts = {f"{number}.md": f"The light number {number} is blue." for number in range(9)}
        with closing(in_home(home, encoder, texts)) as second:
            command = [sys.executable, "-c", KILLED, home.path, url, tmp_path / "cache"]
            killed = subprocess.run(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False)
            assert killed.returncode == -signal.SIGKILL
            assert store.published_name() == first.name
            assert [manifest.name for manifest in store.manifests()] == [first.name]
            store.publish(second)
            with closing(store.open_current()) as stored:
                assert (stored.name, stored.corpus.counts()) == (second.name, second.corpus.counts())


def test_what_is_not_as_it_was_written_is_not_published(
    home: Home, milvus: MilvusServer | OwnServer, encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store_at(milvus.url("faulty"), tmp_path / "cache") as store:
        with closing(in_home(home, encoder, {"a.md": "The red light means no power."})) as first:
            store.publish(first)
        with closing(in_home(home, encoder, {"a.md": "The blue light means power."})) as second:
            with monkeypatch.context() as patch:
                patch.setattr("index.milvus.store.pack_record", lambda stored: pack_record(altered(stored)))
                with pytest.raises(StoreError, match=r"chunk 0 is not what was written\. Nothing was published"):
                    store.publish(second)
            assert store.published_name() == first.name
            store.publish(second)
            assert store.published_name() == second.name


def altered(stored: StoredChunk) -> StoredChunk:
    values = stored.located.values._replace(text="something else")
    return replace(stored, located=replace(stored.located, values=values))


class _Killing(NoProgress):
    """Kills a server when the first rows have been written to it."""

    def __init__(self, milvus: MilvusServer) -> None:
        self._milvus = milvus

    def advance(self, steps: int) -> None:
        self._milvus.kill()


@needs_own_process
def test_a_server_that_is_killed_while_it_is_written_to_goes_on_with_what_was_published(
    home: Home, encoder: Encoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "WRITE_S", 1.0)
    monkeypatch.setattr("index.milvus.store.ROWS_AT_ONCE", 4)
    milvus = MilvusServer(tmp_path)
    try:
        with store_at(milvus.url("cut"), tmp_path / "cache") as store:
            with closing(in_home(home, encoder, {"a.md": "The red light means that there is no power."})) as first:
                store.publish(first)
            texts = {f"{number}.md": f"The light number {number} is blue." for number in range(9)}
            with closing(in_home(home, encoder, texts)) as second:
                with pytest.raises(StoreError, match="does not do what it is asked"):
                    store.publish(second, progress=_Killing(milvus))
                milvus.start()
                assert store.published_name() == first.name
                with closing(store.open_current()) as stored:
                    (answer,) = answer_questions(stored, encoder, [Question(RED)])
                    assert answer.passages[0].text == "The red light means that there is no power."
                store.publish(second)
                assert store.published_name() == second.name
    finally:
        milvus.kill()


def ask(client: httpx.Client) -> httpx.Response:
    return client.post("/v1/ask", json={"question": RED})


@pytest.fixture
def two_services(
    stored_handbook: OpenGeneration, milvus: MilvusServer | OwnServer, tmp_path: Path, cache_folder: Path
) -> Iterator[list[httpx.Client]]:
    url = milvus.url("handbook")
    with (
        serving(tmp_path / "one", cache_folder, store=url, answer_cache=0) as one,
        serving(tmp_path / "two", cache_folder, store=url, answer_cache=0) as two,
    ):
        yield [one, two]


def test_two_services_stand_in_front_of_one_store(handbook: Generation, two_services: list[httpx.Client]) -> None:
    answers = [ask(client).json() for client in two_services]
    for answer in answers:
        assert answer["answered"]
        assert answer["generation"] == handbook.name
        del answer["took_ms"]
    assert answers[0] == answers[1]
    for client in two_services:
        verified = client.post("/v1/verify", json={"citations": answers}).json()
        assert {result["status"] for result in verified["results"]} == {"found"}
        assert client.get("/v1/documents/router.md/text").text.startswith("---\nproduct: router")
        (listed,) = client.get("/v1/generations").json()["generations"]
        assert (listed["name"], listed["published"]) == (handbook.name, True)


def test_a_service_in_front_of_a_store_changes_nothing(two_services: list[httpx.Client]) -> None:
    client = two_services[0]
    for refused in (
        client.put("/v1/documents/new.md", content="# New"),
        client.delete("/v1/documents/router.md"),
        client.post("/v1/generations/20200101T000000Z-000000/publish"),
    ):
        assert (refused.status_code, refused.json()["code"]) == (405, "method_not_allowed")
        assert refused.headers["Allow"] == "GET, HEAD"
    assert ask(client).status_code == 200


@needs_own_process
def test_a_service_says_when_the_server_is_gone_and_answers_when_it_is_back(
    handbook: Generation, home: Home, encoder: Encoder, tmp_path: Path, cache_folder: Path
) -> None:
    milvus = MilvusServer(tmp_path)
    try:
        with store_at(milvus.url("gone"), tmp_path / "cache") as store:
            store.publish(handbook)
            with serving(tmp_path / "one", cache_folder, store=milvus.url("gone"), answer_cache=0) as client:
                assert ask(client).status_code == 200
                milvus.kill()
                gone = ask(client)
                assert (gone.status_code, gone.json()["code"]) == (503, "index_unavailable")
                assert gone.headers["Retry-After"] == "1"
                assert milvus.url("gone") in gone.json()["detail"]
                milvus.start()
                until(lambda: ask(client).status_code == 200, seconds=30)
                # And it follows what is published from then on.
                with closing(in_home(home, encoder, {"a.md": "The red light is on."})) as second:
                    store.publish(second)
                    until(lambda: ask(client).json()["generation"] == second.name, seconds=30)
    finally:
        milvus.kill()


def test_the_command_line_publishes_and_asks(
    milvus: MilvusServer | OwnServer, cache_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "lamp.md").write_text("# Lamp\n\nThe red light means that there is no power.\n")
    env = {
        **os.environ,
        "WHENCE_CACHE": str(cache_folder),
        "WHENCE_STORE": milvus.url("cli"),
        "WHENCE_HOME": str(tmp_path / "home"),
    }

    def whence(*arguments: str | Path) -> str:
        command = [sys.executable, "-c", "from service.cli import main; main()", *arguments]
        return subprocess.run(command, env=env, cwd=ROOT, check=True, capture_output=True, text=True).stdout

    whence("index", tmp_path / "docs")
    env["WHENCE_HOME"] = str(tmp_path / "nowhere")
    assert whence("ask", RED).startswith("The red light means that there is no power.\n")
    assert whence("generations").count("→") == 1
    assert not (tmp_path / "nowhere").exists()
