"""Documents put over HTTP: received whole or not at all, beside the folders, gone when deleted."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from full_disk import largest_file
from putting import kept, received
from sources_in_memory import MemorySource

from index.answers import Question, answer_questions
from index.build import BuildSettings, DocumentSource, SyncReport, sync
from index.corpus import DocumentRecord
from index.embeddings import Encoder
from index.errors import DocumentError, SourceError, StateError
from index.generations import Home
from index.manifest import SourceRecord
from index.sources import Source
from index.state import State
from index.uploads import (
    PARTIAL_AGE_S,
    RefusedUpload,
    Removal,
    Upload,
    UploadClash,
    Uploads,
    check_doc_id,
    known_source,
    name_for,
    refusals,
    stored_uploads,
)

CATS = "# Cats\n\nCats purr when they are content.\n"
DOGS = "# Dogs\n\nDogs bark at strangers.\n"
POISON = b"\x7fELF" + bytes(200)


@dataclass
class Store:
    """A home with its uploads, and the steps by which a document is put."""

    home: Home
    state: State
    uploads: Uploads
    encoder: Encoder

    def keep(self, doc_id: str, data: str | bytes, **described: object) -> Upload:
        """Receive a document and keep it."""
        return kept(self.state, self.uploads, doc_id, data, **described)

    def sync(self, changes: Sequence[Upload | Removal], *others: DocumentSource) -> SyncReport:
        """Publish changes, make those that were not refused permanent, and sweep."""
        report = sync(self.home, [self.uploads.planned(changes), *others], self.encoder)
        self.uploads.apply(changes, refused=refusals(changes, report.rejected))
        self.sweep()
        return report

    def sweep(self, *needed: Upload) -> None:
        """Remove files that nothing needs."""
        with self.state.transaction():
            self.uploads.sweep(needed=frozenset(upload.file for upload in needed))

    def texts(self) -> dict[str, str]:
        """Return the text of every published document."""
        with closing(self.home.open_current()) as generation:
            return {record.doc_id: generation.corpus.text(record) for record in generation.corpus.documents()}

    def record(self, doc_id: str) -> DocumentRecord:
        """Return what is published of a document."""
        with closing(self.home.open_current()) as generation:
            record = generation.corpus.document(doc_id)
        assert record is not None
        return record

    def sources(self) -> list[SourceRecord]:
        """Return the sources of the published generation."""
        with closing(self.home.open_current()) as generation:
            return list(generation.manifest.sources)

    def files(self) -> set[str]:
        """Return the names of all files of the uploads, partial ones too."""
        return {path.name for path in self.uploads.folder.iterdir()}


@pytest.fixture
def store(home: Home, encoder: Encoder) -> Iterator[Store]:
    with State(home.path) as state:
        yield Store(home, state, Uploads(home.path, state), encoder)


@pytest.fixture
def folder(tmp_path: Path) -> Source:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "dogs.md").write_text(DOGS)
    return Source(tmp_path / "docs")


# Receiving


def test_a_file_is_one_of_the_uploads_only_once_it_is_kept(store: Store) -> None:
    upload = received(store.uploads, "cats.md", CATS)
    assert store.files() == {f".part-{upload.file}"}
    assert (upload.size, upload.sha256) == (len(CATS), hashlib.sha256(CATS.encode()).hexdigest())
    with store.state.transaction():
        store.uploads.keep([upload])
    assert store.files() == {upload.file}
    assert store.uploads.path(upload).read_text() == CATS


def test_what_is_discarded_leaves_nothing(store: Store) -> None:
    incoming = store.uploads.receive()
    incoming.write(b"half of it")
    incoming.discard()
    assert store.files() == set()


def test_a_file_that_was_kept_is_not_discarded(store: Store) -> None:
    incoming = store.uploads.receive()
    incoming.write(b"all of it")
    upload = Upload("a.md", incoming.file, "a.md", incoming.finish(), incoming.size)
    with store.state.transaction():
        store.uploads.keep([upload])
    incoming.discard()
    assert store.files() == {upload.file}


def test_a_full_disk_while_receiving_is_an_error_and_leaves_nothing(store: Store) -> None:
    incoming = store.uploads.receive()
    with largest_file(1_000), pytest.raises(StateError, match=r"cannot be stored: File too large\. Nothing of it"):
        incoming.write(bytes(2_000))
    incoming.discard()
    assert store.files() == set()


def test_a_file_that_cannot_be_kept_changes_nothing(store: Store) -> None:
    upload = received(store.uploads, "cats.md", CATS)
    missing = replace(upload, file="0" * 32)
    with pytest.raises(StateError, match="No such file"), store.state.transaction():
        store.uploads.keep([missing])


# Into the index and out of it


def test_a_document_that_is_put_is_indexed_and_then_known(store: Store) -> None:
    upload = store.keep("notes/cats.md", CATS)
    report = sync(store.home, [store.uploads.planned([upload])], store.encoder)
    assert report.added == ("notes/cats.md",)
    assert store.uploads.find("notes/cats.md") is None  # published, and not yet made permanent
    store.uploads.apply([upload])
    assert store.uploads.find("notes/cats.md") == upload
    assert store.texts() == {"notes/cats.md": CATS}
    assert store.sources() == [SourceRecord("uploads", "", 1)]


def test_the_steps_after_publishing_may_be_repeated(store: Store) -> None:
    upload = store.keep("cats.md", CATS)
    first = store.sync([upload])
    again = store.sync([upload])
    assert (again.is_new, again.generation) == (False, first.generation)
    assert store.uploads.find("cats.md") == upload
    assert store.files() == {upload.file}


def test_what_is_said_of_a_document_goes_before_what_it_says_itself(store: Store) -> None:
    text = "---\ntitle: Old\nurl: https://example.org/old\nproduct: cat\nyear: 2023\n---\n\nCats purr.\n"
    store.sync(
        [store.keep("a.md", text, title="New", uri="https://example.org/new", metadata={"year": 2024, "new": True})]
    )
    record = store.record("a.md")
    assert (record.title, record.uri) == ("New", "https://example.org/new")
    assert record.metadata == {
        "title": "Old",
        "url": "https://example.org/old",
        "product": "cat",
        "year": 2024,
        "new": True,
    }
    store.sync([store.keep("a.md", text)])
    assert (store.record("a.md").title, store.record("a.md").uri) == ("Old", "https://example.org/old")


@pytest.mark.parametrize(
    "described", [{"title": "Other"}, {"uri": "https://example.org"}, {"metadata": {"year": 2024}}]
)
def test_the_same_bytes_described_otherwise_make_a_new_generation(store: Store, described: dict[str, object]) -> None:
    first = store.sync([store.keep("cats.md", CATS)])
    report = store.sync([store.keep("cats.md", CATS, **described)])
    assert report.generation != first.generation
    assert report.changed == ("cats.md",)
    again = store.sync([store.keep("cats.md", CATS, **described)])
    assert (again.is_new, again.changed) == (False, ())


def test_other_uploads_are_not_read_again(store: Store) -> None:
    upload = store.keep("cats.md", CATS)
    store.sync([upload])
    store.uploads.path(upload).unlink()
    report = store.sync([store.keep("dogs.md", DOGS)])
    assert (report.rejected, report.unchanged) == ((), 1)
    assert store.texts() == {"cats.md": CATS, "dogs.md": DOGS}


def test_a_document_is_replaced_and_its_old_file_removed(store: Store) -> None:
    store.sync([store.keep("cats.md", CATS)])
    upload = store.keep("cats.md", DOGS)
    assert store.sync([upload]).changed == ("cats.md",)
    assert store.files() == {upload.file}


def test_a_deleted_document_is_in_no_generation_any_more_and_its_file_is_removed(store: Store) -> None:
    store.sync([store.keep("cats.md", CATS), store.keep("dogs.md", DOGS)])
    report = store.sync([Removal("cats.md"), Removal("unknown.md")])
    assert report.removed == ("cats.md",)
    assert store.texts() == {"dogs.md": DOGS}
    assert store.uploads.find("cats.md") is None
    assert len(store.files()) == 1
    with closing(store.home.open_current()) as generation:
        assert all(b"purr" not in path.read_bytes() for path in generation.folder.rglob("*") if path.is_file())


def test_without_its_last_document_the_index_is_empty_and_says_so(store: Store) -> None:
    store.sync([store.keep("cats.md", CATS)])
    assert store.sync([Removal("cats.md")]).documents == 0
    with closing(store.home.open_current()) as generation:
        (answer,) = answer_questions(generation, store.encoder, [Question("Do cats purr?")])
    assert (answer.answered, answer.passages) == (False, ())


def test_changes_of_one_document_take_effect_in_their_order(store: Store) -> None:
    changes = [store.keep("a.md", CATS), Removal("a.md"), store.keep("a.md", DOGS), store.keep("b.md", CATS)]
    store.sync([*changes, Removal("b.md")])
    assert store.texts() == {"a.md": DOGS}


# What is no document


def test_a_file_that_is_no_document_fails_alone(store: Store) -> None:
    poison, upload = store.keep("cats.pdf", POISON), store.keep("dogs.md", DOGS)
    report = store.sync([poison, upload])
    (rejected,) = report.rejected
    assert rejected == RefusedUpload(
        "cats.pdf", "unsupported format: it is a program; it holds no document", poison.file
    )
    assert store.texts() == {"dogs.md": DOGS}
    assert store.files() == {upload.file}


def test_a_replacement_that_is_no_document_leaves_the_one_before(store: Store) -> None:
    upload = store.keep("a.md", CATS)
    first = store.sync([upload])
    report = store.sync([store.keep("a.md", POISON)])
    assert (report.is_new, report.generation) == (False, first.generation)
    assert store.uploads.find("a.md") == upload
    assert store.files() == {upload.file}


def test_of_several_replacements_at_once_the_last_that_is_a_document_counts(store: Store) -> None:
    changes = [store.keep("a.md", CATS), store.keep("a.md", DOGS), store.keep("a.md", POISON)]
    report = store.sync(changes)
    assert set(refusals(changes, report.rejected)) == {changes[2].file}
    assert store.texts() == {"a.md": DOGS}
    assert store.uploads.find("a.md") == changes[1]


def test_a_document_that_was_deleted_does_not_come_back_when_its_replacement_is_refused(store: Store) -> None:
    store.sync([store.keep("a.md", CATS), store.keep("b.md", DOGS)])
    store.sync([Removal("a.md"), store.keep("a.md", POISON)])
    assert store.texts() == {"b.md": DOGS}
    assert store.uploads.find("a.md") is None


# Beside folders


def test_an_id_that_a_folder_has_is_refused_and_nothing_else(store: Store, folder: Source) -> None:
    sync(store.home, [folder], store.encoder)
    clashing, other = store.keep("dogs.md", CATS), store.keep("cats.md", CATS)
    report = store.sync([clashing, other])
    (rejected,) = report.rejected
    assert isinstance(rejected, UploadClash)
    assert rejected.reason.startswith(f"is the id of a document of {folder.path}, which is changed there")
    assert refusals([clashing, other], report.rejected) == {clashing.file: rejected.reason}
    assert store.texts() == {"dogs.md": DOGS, "cats.md": CATS}


def test_of_a_folder_and_an_upload_that_come_together_the_folder_has_the_id(store: Store, folder: Source) -> None:
    upload = store.keep("dogs.md", CATS)
    report = store.sync([upload], folder)
    assert set(refusals([upload], report.rejected)) == {upload.file}
    assert store.texts() == {"dogs.md": DOGS}


def test_a_folder_cannot_take_the_id_of_an_upload(store: Store, folder: Source) -> None:
    store.sync([store.keep("dogs.md", CATS)])
    for sources in ([folder], [store.uploads.planned(), folder]):
        with pytest.raises(SourceError, match=r"uploads.* both have a document 'dogs\.md'"):
            sync(store.home, sources, store.encoder)
    assert store.texts() == {"dogs.md": CATS}


def test_uploads_stay_when_a_folder_is_synced_or_removed(store: Store, folder: Source) -> None:
    store.sync([store.keep("cats.md", CATS)])
    sync(store.home, [folder], store.encoder)
    assert store.texts() == {"dogs.md": DOGS, "cats.md": CATS}
    sync(store.home, [], store.encoder, remove=[folder.key])
    assert store.texts() == {"cats.md": CATS}


def test_bundled_documents_stay_beside_uploads_and_give_way_to_a_folder(store: Store, folder: Source) -> None:
    seeds = MemorySource({"seed.md": "A bundled document."}, key="seeds", is_bundled=True)
    sync(store.home, [seeds], store.encoder)
    store.sync([store.keep("cats.md", CATS)])
    assert set(store.texts()) == {"seed.md", "cats.md"}
    sync(store.home, [folder], store.encoder)
    assert set(store.texts()) == {"dogs.md", "cats.md"}


def test_a_folder_may_still_not_be_emptied_unnoticed(store: Store, folder: Source) -> None:
    sync(store.home, [folder], store.encoder)
    (folder.path / "dogs.md").unlink()
    with pytest.raises(SourceError, match="had 1 documents and has none now"):
        store.sync([store.keep("cats.md", CATS)], folder)
    assert store.texts() == {"dogs.md": DOGS}


# Made anew


def test_when_everything_is_made_anew_uploads_are_read_again(store: Store, folder: Source) -> None:
    store.sync([store.keep("cats.md", CATS, title="Purring", metadata={"year": 2024})])
    report = sync(store.home, [folder], store.encoder, settings=BuildSettings(target_tokens=80))
    assert (report.added, report.changed, report.unchanged) == (("dogs.md",), (), 1)
    assert (store.record("cats.md").title, store.record("cats.md").metadata) == ("Purring", {"year": 2024})


@pytest.mark.parametrize("is_manifest_left", [True, False])
def test_a_home_without_a_whole_generation_gets_its_uploads_back(
    store: Store, folder: Source, is_manifest_left: bool
) -> None:
    store.sync([store.keep("cats.md", CATS)])
    for path in store.home.generations_path.iterdir():
        (path / ("vectors.faiss" if is_manifest_left else "manifest.json")).write_bytes(b"")
    sync(store.home, [folder], store.encoder)
    assert store.texts() == {"dogs.md": DOGS, "cats.md": CATS}


def test_a_home_whose_generations_are_gone_gets_its_uploads_back(store: Store, folder: Source) -> None:
    store.sync([store.keep("cats.md", CATS)])
    shutil.rmtree(store.home.generations_path)
    (store.home.path / "CURRENT").unlink()
    sync(store.home, [folder], store.encoder)
    assert store.texts() == {"dogs.md": DOGS, "cats.md": CATS}


def test_the_known_source_of_a_record_is_its_folder_or_the_uploads(store: Store, folder: Source) -> None:
    upload = store.keep("cats.md", CATS)
    store.sync([upload], folder)
    sources = [known_source(store.home.path, record) for record in store.sources()]
    assert sources == [folder, stored_uploads(store.home.path)]
    assert stored_uploads(store.home.path).tries == {"cats.md": (upload,)}


def test_a_home_without_state_has_no_uploads_and_gets_no_state_by_looking(tmp_path: Path) -> None:
    assert stored_uploads(tmp_path).tries == {}
    assert list(tmp_path.iterdir()) == []


# Sweeping


def test_only_files_that_nothing_needs_are_swept(store: Store) -> None:
    stored, waiting, orphan = store.keep("a.md", CATS), store.keep("b.md", DOGS), store.keep("c.md", CATS)
    store.uploads.apply([stored])
    sending, abandoned = received(store.uploads, "d.md", CATS), received(store.uploads, "e.md", CATS)
    path = store.uploads.folder / f".part-{abandoned.file}"
    long_ago = path.stat().st_mtime - PARTIAL_AGE_S - 1
    os.utime(path, (long_ago, long_ago))
    assert len(store.files()) == 5
    store.sweep(waiting)
    assert store.files() == {stored.file, waiting.file, f".part-{sending.file}"}
    assert orphan.file not in store.files()


def test_there_is_nothing_to_sweep_where_nothing_was_put(store: Store) -> None:
    store.sweep()
    assert not store.uploads.folder.exists()


# Ids and names


@pytest.mark.parametrize(
    "doc_id",
    ["a", "guide/intro.md", "ä/東京.md", "a b", "...", "..a", ".hidden", "a%2e", "C:", "x" * 512, "~/a", "a?b#c"],
)
def test_an_id_may_be_any_plain_path(doc_id: str) -> None:
    check_doc_id(doc_id)


@pytest.mark.parametrize(
    "doc_id",
    ["", "x" * 513, "/a", "a/", "a//b", ".", "..", "../a", "a/../b", "a/..", "./a", "a/./b"],
)
def test_an_id_that_is_no_plain_path_is_refused(doc_id: str) -> None:
    with pytest.raises(DocumentError, match=r"^The id "):
        check_doc_id(doc_id)


@pytest.mark.parametrize("doc_id", ["a\\b", "..\\a", "a\0b", "a\nb", "a\x7f", "a\x85", "\ud800"])
def test_an_id_with_what_is_no_text_is_refused(doc_id: str) -> None:
    with pytest.raises(DocumentError, match=r"^The id "):
        check_doc_id(doc_id)


@pytest.mark.parametrize(
    ("doc_id", "filename", "media_type", "name"),
    [
        ("guide/intro.md", "x.html", "application/pdf", "guide/intro.md"),
        ("guide/intro", "x.html", "application/pdf", "x.html"),
        ("guide/intro", "", "text/markdown", "guide/intro.md"),
        ("guide/intro", "notes", "text/x-rst", "guide/intro.rst"),
        ("guide/v1.2", "", "text/html", "guide/v1.2.html"),
        ("guide/intro", "", "text/plain", "guide/intro.txt"),
        ("guide/intro", "", "application/octet-stream", "guide/intro"),
        ("guide/intro", "", "", "guide/intro"),
    ],
)
def test_the_format_is_told_from_the_id_else_the_file_name_else_the_media_type(
    doc_id: str, filename: str, media_type: str, name: str
) -> None:
    assert name_for(doc_id, filename=filename, media_type=media_type) == name
