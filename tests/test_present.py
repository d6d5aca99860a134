"""Saved citations are held against the files themselves, and nothing that is not indexed can be asked after."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from putting import kept
from sources_in_memory import MemorySource

from index.build import DocumentSource, sync
from index.citations import Citation, PresentText, SavedCitation, Standing, Verification, verify
from index.citing import cite
from index.embeddings import Encoder
from index.generations import Generation, Home
from index.present import PresentDocuments
from index.sources import Source
from index.state import State
from index.uploads import Removal, Uploads

KETTLE = "# Kettle\n\nDescale the kettle every three months. Rinse it three times before you make tea.\n"
QUOTE = "Rinse it three times before you make tea."
SECRET = "The password is swordfish."


class Library:
    """A folder with documents and its index."""

    def __init__(self, folder: Path, home: Home, encoder: Encoder) -> None:
        self.folder = folder
        self.home = home
        self._encoder = encoder

    def index(self, *sources: DocumentSource) -> None:
        """Index sources; the folder if none is named."""
        sync(self.home, sources or [Source(self.folder)], self._encoder)

    def cited(self, doc_id: str = "kettle.md") -> SavedCitation:
        """Save a citation of the last sentence of a document."""
        generation = self.home.open_current()
        record = generation.corpus.document(doc_id)
        assert record is not None
        (chunk,) = generation.corpus.chunks([record.first_row])
        citation = _saved(cite(generation.corpus, chunk, *chunk.sentences[-1]))
        generation.close()
        return citation

    def verified(self, citation: SavedCitation) -> Verification:
        """Check a citation against what is there now."""
        generation = self.home.open_current()
        with PresentDocuments(generation) as documents:
            result = verify(citation, documents.text)
        generation.close()
        return result

    def present(self, doc_id: str) -> PresentText | None:
        """Look a document up."""
        generation = self.home.open_current()
        with PresentDocuments(generation) as documents:
            text = documents.text(doc_id)
        generation.close()
        return text


def _saved(citation: Citation) -> SavedCitation:
    return SavedCitation(
        citation.document.id,
        citation.document.sha256,
        citation.start,
        citation.end,
        citation.quote,
        citation.prefix,
        citation.suffix,
    )


@pytest.fixture
def library(tmp_path: Path, home: Home, encoder: Encoder) -> Library:
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "kettle.md").write_text(KETTLE)
    return Library(folder, home, encoder)


@pytest.fixture
def indexed(library: Library) -> Iterator[Library]:
    library.index()
    yield library


def test_a_quote_in_an_untouched_file_is_found(indexed: Library) -> None:
    citation = indexed.cited()
    assert citation.quote == QUOTE
    result = indexed.verified(citation)
    assert (result.standing, result.start, result.end) == (Standing.FOUND, citation.start, citation.end)
    assert result.is_same_source


def test_a_quote_moves_with_text_inserted_before_it(indexed: Library) -> None:
    citation = indexed.cited()
    (indexed.folder / "kettle.md").write_text(KETTLE.replace("# Kettle\n", "# Kettle\n\nIt whistles.\n"))
    result = indexed.verified(citation)
    assert (result.standing, result.start) == (Standing.MOVED, citation.start + len("\nIt whistles.\n"))
    assert not result.is_same_source


def test_a_quote_that_was_edited_is_changed(indexed: Library) -> None:
    citation = indexed.cited()
    (indexed.folder / "kettle.md").write_text(KETTLE.replace("three times", "twice"))
    assert indexed.verified(citation).standing is Standing.CHANGED


def test_a_deleted_file_is_gone(indexed: Library) -> None:
    citation = indexed.cited()
    (indexed.folder / "kettle.md").unlink()
    assert indexed.verified(citation).standing is Standing.GONE


def test_a_file_that_is_no_document_any_more_has_changed(indexed: Library) -> None:
    citation = indexed.cited()
    (indexed.folder / "kettle.md").write_bytes(bytes(range(256)) * 40)
    assert indexed.verified(citation).standing is Standing.CHANGED
    assert indexed.present("kettle.md") == PresentText("", "")


def test_the_documents_of_a_deleted_folder_are_gone(indexed: Library) -> None:
    citation = indexed.cited()
    shutil.rmtree(indexed.folder)
    assert indexed.verified(citation).standing is Standing.GONE
    assert indexed.present("kettle.md") is None


def test_a_deleted_source_that_was_one_file_is_gone(library: Library) -> None:
    library.index(Source(library.folder / "kettle.md"))
    citation = library.cited()
    (library.folder / "kettle.md").unlink()
    assert library.verified(citation).standing is Standing.GONE


def test_a_document_that_never_was_a_file_is_looked_up_in_the_index(library: Library) -> None:
    library.index(MemorySource({"note.md": KETTLE}, key="http"))
    citation = library.cited("note.md")
    assert library.verified(citation).standing is Standing.FOUND
    assert library.present("note.md") == PresentText(KETTLE, citation.sha256)
    assert library.present("other.md") is None


def test_a_file_that_came_after_the_index_is_found_too(indexed: Library) -> None:
    (indexed.folder / "new.md").write_text(KETTLE)
    assert indexed.verified(SavedCitation("new.md", "", 49, 90, QUOTE)).standing is Standing.FOUND


def test_the_prefix_of_a_source_is_part_of_the_id(library: Library) -> None:
    library.index(Source(library.folder, prefix="home/"))
    assert library.verified(library.cited("home/kettle.md")).standing is Standing.FOUND
    assert library.present("kettle.md") is None


def test_a_source_that_is_one_file(library: Library) -> None:
    (library.folder / "other.md").write_text(KETTLE)
    library.index(Source(library.folder / "kettle.md"))
    assert library.verified(library.cited()).standing is Standing.FOUND
    assert library.present("other.md") is None


def test_a_source_reached_through_a_link(library: Library, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(library.folder / "kettle.md")
    library.index(Source(link))
    citation = library.cited("link")
    (library.folder / "kettle.md").write_text("First. " + KETTLE)
    assert library.verified(citation).standing is Standing.MOVED


@pytest.mark.parametrize(
    "doc_id",
    [
        "../secret.md",
        "../docs/../secret.md",
        "sub/../../secret.md",
        "{outside}/secret.md",
        "../docs/kettle.md",
        "./kettle.md",
        "sub/../kettle.md",
        "way-out.md",
        "way-out/secret.md",
        ".hidden.md",
        "ignored.md",
        ".git/config",
        "",
        ".",
        "sub",
        "a\0b",
        "x" * 5000,
        "\n",
    ],
)
def test_an_id_never_leads_to_what_is_not_indexed(indexed: Library, tmp_path: Path, doc_id: str) -> None:
    (tmp_path / "secret.md").write_text(SECRET)
    (indexed.folder / "sub").mkdir()
    (indexed.folder / "way-out.md").symlink_to(tmp_path / "secret.md")
    (indexed.folder / "way-out").symlink_to(tmp_path)
    (indexed.folder / ".hidden.md").write_text(SECRET)
    (indexed.folder / "ignored.md").write_text(SECRET)
    (indexed.folder / ".whenceignore").write_text("ignored.md\n")
    (indexed.folder / ".git").mkdir()
    (indexed.folder / ".git" / "config").write_text(SECRET)
    assert indexed.present(doc_id.format(outside=tmp_path)) is None


def test_a_named_pipe_in_the_place_of_a_file_does_not_hang(indexed: Library) -> None:
    (indexed.folder / "kettle.md").unlink()
    os.mkfifo(indexed.folder / "kettle.md")
    assert indexed.present("kettle.md") is None


def test_a_document_that_was_put_is_read_from_the_home(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    library.index()
    with State(library.home.path) as state:
        uploads = Uploads(library.home.path, state)
        upload = kept(state, uploads, "note", KETTLE.replace("Kettle", "Note"))
        library.index(uploads.planned([upload]))
        uploads.apply([upload])
        citation = library.cited("note")
        assert library.verified(citation).standing is Standing.FOUND
        uploads.apply([kept(state, uploads, "note", "First. " + KETTLE)])
        assert library.verified(citation).standing is Standing.MOVED
        # The key of the uploads is not taken for a folder.
        (library.folder / "uploads").mkdir()
        (library.folder / "uploads" / "secret.md").write_text(SECRET)
        monkeypatch.chdir(library.folder)
        assert library.present("secret.md") is None
        uploads.apply([Removal("note")])
        assert library.verified(citation).standing is Standing.GONE


def test_a_document_is_read_once(indexed: Library) -> None:
    generation: Generation = indexed.home.open_current()
    with PresentDocuments(generation) as documents:
        first = documents.text("kettle.md")
        (indexed.folder / "kettle.md").write_text("Something else.")
        assert documents.text("kettle.md") is first
    generation.close()
