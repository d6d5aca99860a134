"""Deleted means gone: after a delete and the retention the words are in no byte of any file of the home."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from docx import Document as WordDocument
from live import serving
from sources_in_memory import MemorySource
from test_generations import damage
from waiting import until

from index.build import BuildSettings, sync
from index.embeddings import Encoder
from index.generations import Home
from index.sources import Source
from index.state import State

DONE_S = 30.0
SECRET = "# Quixotry\n\nThe password is Zyzzyvas, and it is kept by Wombleigh.\n"
WORDS = (b"zyzzyva", b"quixotr", b"wombleigh")
PETS = {"cats.md": "# Cats\n\nCats purr.\n", "dogs.md": "# Dogs\n\nDogs bark.\n"}
HOLDERS = {"corpus.sqlite", "records.npy", "vocabulary.npy"}
ONE = BuildSettings(keep_generations=1)


def holding(folder: Path, *words: bytes) -> set[str]:
    """Return the paths of files that hold one of some words, in any case, in any byte."""
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and any(word in path.read_bytes().lower() for word in words)
    }


# A document of a folder.


def test_a_file_that_was_deleted_is_gone_with_the_retention_and_no_later(
    home: Home, tmp_path: Path, encoder: Encoder
) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "secret.md").write_text(SECRET)
    for number in range(1, 5):
        (docs / "counter.md").write_text(f"# Counter\n\nIt stands at {number}.\n")
        sync(home, [Source(docs)], encoder)
        (docs / "secret.md").unlink(missing_ok=True)
        # The first generation had it, and three are kept.
        assert bool(holding(home.path, *WORDS)) == (number < 4)


@pytest.mark.parametrize("changed", [{}, {"secret.md": "# Nothing\n\nIt says nothing any more.\n"}])
def test_words_of_a_document_that_was_deleted_or_changed_are_in_no_file(
    home: Home, encoder: Encoder, changed: dict[str, str]
) -> None:
    sync(home, [MemorySource({**PETS, "secret.md": SECRET})], encoder)
    assert {name.rpartition("/")[2] for name in holding(home.path, *WORDS)} == HOLDERS
    sync(home, [MemorySource({**PETS, **changed})], encoder, settings=ONE)
    assert holding(home.path, *WORDS) == set()


def test_what_was_set_aside_goes_with_the_generations_of_its_time(home: Home, encoder: Encoder) -> None:
    settings = BuildSettings(keep_generations=2)
    sync(home, [MemorySource(PETS)], encoder, settings=settings)
    damaged = sync(home, [MemorySource({**PETS, "secret.md": SECRET})], encoder, settings=settings).generation
    damage(home.folder(damaged) / "vectors.faiss", "altered")
    home.open_current().close()
    for number in (3, 4):
        assert {name.rpartition("-")[0] for name in holding(home.path, *WORDS)} == {f"damaged/{damaged}-1"}
        sync(home, [MemorySource({**PETS, "counter.md": f"It stands at {number}."})], encoder, settings=settings)
    assert holding(home.path, *WORDS) == set()
    assert list((home.path / "damaged").iterdir()) == []


# A document put over HTTP.


@pytest.fixture(scope="module")
def home_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("served")


@pytest.fixture(scope="module")
def client(home_path: Path, cache_folder: Path, encoder: Encoder) -> Iterator[httpx.Client]:
    """A client of a service that keeps one generation, and every question."""
    sync(Home(home_path), [MemorySource(PETS)], encoder)
    with serving(home_path, cache_folder, keep_generations=1, question_log_days=7) as client:
        yield client


def done(client: httpx.Client, response: httpx.Response) -> dict[str, Any]:
    """Wait for the task of a response."""
    assert response.status_code == 202, response.text
    address = response.headers["location"]
    until(lambda: client.get(address).json()["finished"] is not None, seconds=DONE_S)
    task: dict[str, Any] = client.get(address).json()
    assert task["status"] == "succeeded"
    return task


def test_a_document_that_was_put_and_deleted_is_in_no_file(client: httpx.Client, home_path: Path) -> None:
    sent = {
        "text": SECRET,
        "title": "Letters of Wombleigh",
        "url": "https://example.com/zyzzyvas",
        "metadata": {"author": "Quixotry"},
    }
    done(client, client.put("/v1/documents/notes/secret.md", json=sent))
    found = holding(home_path, *WORDS)
    assert {name.rpartition("/")[2] for name in found} > HOLDERS
    assert any(name.startswith("uploads/") for name in found)
    assert any(name.startswith("state.sqlite") for name in found)
    until(lambda: client.get("/v1/documents/notes/secret.md").status_code == 200)
    answer = client.get("/v1/ask", params={"q": "Who keeps the password?"}).json()
    assert "Wombleigh" in answer["passages"][0]["text"]
    place = {"document": "notes/secret.md", "start": 12, "end": 66}
    feedback = {"question": "Who keeps the password?", "rating": "up", "citation": place}
    assert client.post("/v1/feedback", json=feedback).is_success
    done(client, client.delete("/v1/documents/notes/secret.md"))
    assert holding(home_path, *WORDS) == set()  # at once: that is what the success of the task means


def test_a_document_that_was_replaced_leaves_nothing_of_the_one_before(client: httpx.Client, home_path: Path) -> None:
    done(client, client.put("/v1/documents/notes/secret.md", json={"text": SECRET, "metadata": {"by": "Quixotry"}}))
    done(client, client.put("/v1/documents/notes/secret.md", json={"text": "# Nothing\n\nNothing is left.\n"}))
    assert holding(home_path, *WORDS) == set()
    done(client, client.delete("/v1/documents/notes/secret.md"))


def test_the_original_of_a_document_goes_too(client: httpx.Client, home_path: Path) -> None:
    word = WordDocument()
    word.add_paragraph(SECRET)
    buffer = io.BytesIO()
    word.save(buffer)
    middle = buffer.getvalue()[2_000:2_100].lower()  # compressed: no word of it can be read
    done(client, client.put("/v1/documents/secret.docx", content=buffer.getvalue()))
    assert len(holding(home_path, middle)) == 1
    done(client, client.delete("/v1/documents/secret.docx"))
    assert holding(home_path, middle, *WORDS) == set()


def test_a_document_that_is_refused_leaves_nothing(client: httpx.Client, home_path: Path) -> None:
    response = client.put("/v1/documents/secret.pdf", content=b"%PDF-1.7 " + SECRET.encode())
    until(lambda: client.get(response.headers["location"]).json()["status"] == "failed", seconds=DONE_S)
    until(lambda: not holding(home_path, *WORDS))


def test_an_upload_that_breaks_off_leaves_nothing(client: httpx.Client, home_path: Path) -> None:
    def broken() -> Iterator[bytes]:
        yield SECRET.encode() * 100_000
        raise httpx.WriteError("the sender has left")

    with pytest.raises(httpx.WriteError):
        client.put("/v1/documents/secret.md", content=broken(), headers={"content-type": "text/markdown"})
    until(lambda: not holding(home_path, *WORDS))


# The state.


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody wait for somebody else."""
    monkeypatch.setattr("index.state.BUSY_S", 0.0)


@pytest.mark.usefixtures("impatient")
def test_a_deleted_row_is_in_no_free_page_and_not_in_the_log_of_writes(tmp_path: Path) -> None:
    with State(tmp_path) as state, State(tmp_path) as other:
        state.create("CREATE TABLE notes (text TEXT)")
        with state.transaction() as connection:
            connection.executemany("INSERT INTO notes VALUES (?)", [(SECRET * 100,)] * 50)
        assert holding(tmp_path, *WORDS)
        with state.transaction() as connection:
            connection.execute("DELETE FROM notes")
        with other.reading() as connection:
            connection.execute("BEGIN")
            connection.execute("SELECT * FROM notes").fetchone()
            assert not state.truncate_log()  # somebody reads on
            connection.execute("COMMIT")
        assert state.truncate_log()
        assert holding(tmp_path, *WORDS) == set()
