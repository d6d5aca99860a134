"""Syncing sources into generations: what is read, encoded, kept, refused and reported."""

from __future__ import annotations

import errno
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from full_disk import largest_file
from hypothesis import given, settings
from hypothesis import strategies as st
from sources_in_memory import MemorySource

from index.build import BuildSettings, DocumentSource, SyncReport, sync
from index.documents import Document
from index.embeddings import Embeddings, Encoder, OnProgress
from index.errors import GenerationError, SourceError
from index.generations import Home
from index.manifest import SourceRecord
from index.sources import Rejected, Source, Unchanged

CATS = "# Cats\n\nCats purr when they are content.\n\n## Food\n\nThey eat mice. They drink water.\n"
DOGS = "# Dogs\n\nDogs bark at strangers.\n"
OWLS = "# Owls\n\nOwls hunt at night.\n\n- They see in the dark.\n- They fly without a sound.\n"
PETS = {"cats.md": CATS, "dogs.md": DOGS}
WHOLE_HOME = {"CURRENT", "generations", "writer.lock"}


class WatchedEncoder:
    """The real encoder, which also notes what it encoded at which stage of a build.

    It encodes one text at a time: in a batch, the last bits of an embedding may depend on the other texts.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.identity = encoder.identity
        self.tokenizer = encoder.tokenizer
        self.encoded: defaultdict[str, list[str]] = defaultdict(list)
        self._encoder = encoder
        self._stage = ""

    def encode_documents(self, texts: Sequence[str], *, on_progress: OnProgress | None = None) -> Embeddings:
        self.encoded[self._stage].extend(texts)
        rows = [self._encoder.encode_documents([text]) for text in texts]
        return np.concatenate(rows) if rows else np.empty((0, self.identity.dimension), np.float32)

    def encode_queries(self, texts: Sequence[str]) -> Embeddings:
        return self._encoder.encode_queries(texts)

    def start(self, stage: str, total: int | None) -> None:
        self._stage = stage

    def advance(self, steps: int) -> None:
        pass


@pytest.fixture
def watched(encoder: Encoder) -> WatchedEncoder:
    return WatchedEncoder(encoder)


def texts_in(home: Home) -> dict[str, str]:
    """Return the text of every document of the published generation."""
    with closing(home.open_current()) as generation:
        corpus = generation.corpus
        return {record.doc_id: corpus.text(record) for record in corpus.documents()}


def sources_in(home: Home) -> list[SourceRecord]:
    with closing(home.open_current()) as generation:
        return list(generation.manifest.sources)


def content(home: Home) -> dict[str, str]:
    """Return the digests of the files of the published generation."""
    with closing(home.open_current()) as generation:
        return {name: file.sha256 for name, file in generation.manifest.files.items()}


def write_files(folder: Path, texts: Mapping[str, str]) -> Source:
    folder.mkdir(exist_ok=True)
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return Source(folder)


def test_the_first_sync_reports_what_it_indexed(home: Home, encoder: Encoder) -> None:
    report = sync(home, [MemorySource(PETS)], encoder)
    assert report == SyncReport(
        generation=home.published_name() or "",
        is_new=True,
        added=("cats.md", "dogs.md"),
        changed=(),
        removed=(),
        unchanged=0,
        rejected=(),
        encoded=3,
        documents=2,
        chunks=3,
        sentences=4,
    )
    assert texts_in(home) == PETS


def test_a_sync_reports_what_is_added_changed_removed_and_as_before(home: Home, encoder: Encoder) -> None:
    sync(home, [MemorySource({**PETS, "old.md": "Old news."})], encoder)
    changed = DOGS + "\nThey wag their tails.\n"
    report = sync(home, [MemorySource({"cats.md": CATS, "dogs.md": changed, "owls.md": OWLS})], encoder)
    assert (report.added, report.changed, report.removed) == (("owls.md",), ("dogs.md",), ("old.md",))
    assert report.unchanged == 1
    assert (report.documents, report.chunks, report.sentences) == (3, 4, 8)
    assert texts_in(home) == {"cats.md": CATS, "dogs.md": changed, "owls.md": OWLS}


def test_a_manifest_says_how_its_generation_was_made(home: Home, encoder: Encoder) -> None:
    first = sync(home, [MemorySource(PETS)], encoder).generation
    sync(home, [MemorySource({"owls.md": OWLS}, key="birds", prefix="birds/")], encoder)
    with closing(home.open_current()) as generation:
        manifest = generation.manifest
    assert (manifest.parent, manifest.number) == (first, 2)
    assert manifest.model == encoder.identity
    assert manifest.making == BuildSettings().making()
    assert manifest.sources == (SourceRecord("birds", "birds/", 1), SourceRecord("memory", "", 2))
    assert (manifest.documents, manifest.chunks, manifest.sentences) == (3, 4, 7)


@given(
    st.lists(st.dictionaries(st.sampled_from("abcd"), st.sampled_from([CATS, DOGS, OWLS])), min_size=1, max_size=3)
)
@settings(deadline=None, max_examples=10)
def test_a_generation_does_not_depend_on_those_before_it(encoder: Encoder, history: list[dict[str, str]]) -> None:
    allowing = BuildSettings(allow_empty=True)
    with TemporaryDirectory() as scratch:
        lived, fresh = Home(Path(scratch) / "lived"), Home(Path(scratch) / "fresh")
        for texts in history:
            sync(lived, [MemorySource(texts)], WatchedEncoder(encoder), settings=allowing)
        sync(fresh, [MemorySource(history[-1])], WatchedEncoder(encoder), settings=allowing)
        assert content(lived) == content(fresh)


def test_only_a_new_document_is_encoded(home: Home, watched: WatchedEncoder) -> None:
    sync(home, [MemorySource(PETS)], watched, progress=watched)
    watched.encoded.clear()
    report = sync(
        home, [MemorySource({**PETS, "a.md": "# Ants\n\nAnts are small. Ants are many."})], watched, progress=watched
    )
    assert watched.encoded["Encoding chunks"] == ["Ants\nAnts are small. Ants are many."]
    assert watched.encoded["Encoding sentences"] == ["Ants are small.", "Ants are many."]
    assert report.encoded == 1


def test_of_a_changed_document_only_the_changed_chunk_is_encoded(home: Home, watched: WatchedEncoder) -> None:
    sync(home, [MemorySource(PETS)], watched, progress=watched)
    watched.encoded.clear()
    changed = "Intro.\n\n" + CATS.replace("water", "milk")
    report = sync(home, [MemorySource({**PETS, "cats.md": changed})], watched, progress=watched)
    assert watched.encoded["Encoding chunks"] == ["Cats\nIntro.", "Cats\nFood\nThey eat mice. They drink milk."]
    assert watched.encoded["Encoding sentences"] == ["Intro.", "They eat mice.", "They drink milk."]
    assert report.encoded == 2


def test_a_chunk_whose_sentences_fall_otherwise_is_encoded_again(
    home: Home, tmp_path: Path, watched: WatchedEncoder
) -> None:
    words = "It is one. It is two."
    sync(home, [MemorySource({"a.md": f"# A\n\n{words}\n", "b.md": DOGS})], watched)
    as_code = {"a.md": f"# A\n\n```\n{words}\n```\n", "b.md": DOGS}
    assert sync(home, [MemorySource(as_code)], watched).encoded == 1
    fresh = Home(tmp_path / "fresh")
    sync(fresh, [MemorySource(as_code)], watched)
    assert content(home) == content(fresh)


def test_words_of_a_deleted_document_are_in_no_file(home: Home, encoder: Encoder) -> None:
    secret = "# Secrets\n\nThe password is Zyzzyvas, kept by Quixotry.\n"
    sync(home, [MemorySource({**PETS, "secrets.md": secret})], encoder)
    assert files_with(home.path, b"zyzzyva") == {"records.npy", "vocabulary.npy"}
    sync(home, [MemorySource(PETS)], encoder, settings=BuildSettings(keep_generations=1))
    for word in (b"zyzzyva", b"quixotr", b"secret", b"password"):
        assert files_with(home.path, word) == set()


def files_with(folder: Path, word: bytes) -> set[str]:
    """Return the names of files that hold a word, in whatever case."""
    return {path.name for path in folder.rglob("*") if path.is_file() and word in path.read_bytes().lower()}


def test_when_nothing_changed_there_is_no_new_generation(home: Home, watched: WatchedEncoder) -> None:
    first = sync(home, [MemorySource(PETS)], watched)
    watched.encoded.clear()
    again = sync(home, [MemorySource(PETS)], watched)
    assert not again.is_new
    assert again.generation == first.generation == home.published_name()
    assert (again.unchanged, again.documents, again.chunks, again.sentences) == (2, 2, 3, 4)
    assert watched.encoded == {}
    assert [path.name for path in home.generations_path.iterdir()] == [first.generation]


def test_a_source_that_vanished_does_not_empty_the_index(home: Home, tmp_path: Path, encoder: Encoder) -> None:
    source = write_files(tmp_path / "docs", PETS)
    sync(home, [source], encoder)
    source.path.rename(tmp_path / "elsewhere")
    with pytest.raises(SourceError, match="docs"):
        sync(home, [source], encoder)
    assert texts_in(home) == PETS


def test_a_source_that_was_emptied_stops_the_sync_unless_that_is_allowed(home: Home, encoder: Encoder) -> None:
    birds = MemorySource({"owls.md": OWLS}, key="birds")
    sync(home, [MemorySource(PETS), birds], encoder)
    with pytest.raises(SourceError, match=r"memory had 2 documents and has none now.*--allow-empty"):
        sync(home, [MemorySource({})], encoder)
    assert texts_in(home) == {**PETS, "owls.md": OWLS}
    report = sync(home, [MemorySource({})], encoder, settings=BuildSettings(allow_empty=True))
    assert report.removed == ("cats.md", "dogs.md")
    assert texts_in(home) == {"owls.md": OWLS}


def test_an_index_may_be_emptied_and_filled_again(home: Home, encoder: Encoder) -> None:
    sync(home, [MemorySource(PETS)], encoder)
    report = sync(home, [MemorySource({})], encoder, settings=BuildSettings(allow_empty=True))
    assert (report.documents, report.chunks, report.sentences) == (0, 0, 0)
    assert texts_in(home) == {}
    sync(home, [MemorySource(PETS)], encoder)
    assert texts_in(home) == PETS


def test_an_index_of_nothing_is_refused(home: Home, encoder: Encoder) -> None:
    with pytest.raises(SourceError, match="There is no document in memory"):
        sync(home, [MemorySource({})], encoder)
    assert home.published_name() is None


def test_two_sources_with_the_same_document_clash(home: Home, encoder: Encoder) -> None:
    with pytest.raises(SourceError, match=r"other and memory both have a document 'dogs\.md'.*--prefix"):
        sync(home, [MemorySource(PETS), MemorySource({"dogs.md": OWLS}, key="other")], encoder)
    assert home.published_name() is None


def test_a_source_clashes_with_one_that_was_synced_before(home: Home, encoder: Encoder) -> None:
    sync(home, [MemorySource(PETS)], encoder)
    other = MemorySource({"dogs.md": OWLS}, key="other")
    with pytest.raises(SourceError, match=r"other and memory both have a document 'dogs\.md'"):
        sync(home, [other], encoder)
    assert texts_in(home) == PETS
    sync(home, [replace(other, prefix="other/")], encoder)
    assert texts_in(home) == {**PETS, "other/dogs.md": OWLS}


def test_nothing_is_left_behind_by_a_sync_that_was_refused(home: Home, encoder: Encoder) -> None:
    report = sync(home, [MemorySource(PETS)], encoder)
    with pytest.raises(SourceError):
        sync(home, [MemorySource({"dogs.md": OWLS}, key="other")], encoder)
    assert {path.name for path in home.path.iterdir()} == WHOLE_HOME
    assert [path.name for path in home.generations_path.iterdir()] == [report.generation]


def test_sources_that_are_not_named_keep_their_documents(home: Home, encoder: Encoder) -> None:
    sync(home, [MemorySource(PETS)], encoder)
    report = sync(home, [MemorySource({"owls.md": OWLS}, key="birds")], encoder)
    assert (report.added, report.unchanged, report.encoded) == (("owls.md",), 2, 1)
    assert texts_in(home) == {**PETS, "owls.md": OWLS}


def test_the_bundled_documents_give_way_to_own_ones(home: Home, encoder: Encoder) -> None:
    bundled = MemorySource({"seed.md": "# Seed\n\nA bundled document.\n"}, key="seeds", is_bundled=True)
    sync(home, [bundled], encoder)
    assert sources_in(home) == [SourceRecord("seeds", "", 1, is_bundled=True)]
    report = sync(home, [MemorySource(PETS)], encoder)
    assert report.removed == ("seed.md",)
    assert texts_in(home) == PETS
    assert sources_in(home) == [SourceRecord("memory", "", 2)]


def test_a_source_that_is_removed_takes_its_documents_along(home: Home, encoder: Encoder) -> None:
    sync(home, [MemorySource(PETS), MemorySource({"owls.md": OWLS}, key="birds")], encoder)
    report = sync(home, [], encoder, remove=["birds"])
    assert (report.removed, report.unchanged, report.encoded) == (("owls.md",), 2, 0)
    assert sources_in(home) == [SourceRecord("memory", "", 2)]


def test_a_source_without_documents_is_remembered_and_can_be_removed(home: Home, encoder: Encoder) -> None:
    sync(home, [MemorySource(PETS)], encoder)
    allowing = BuildSettings(allow_empty=True)
    assert sync(home, [MemorySource({}, key="empty")], encoder, settings=allowing).is_new
    assert sources_in(home) == [SourceRecord("empty", "", 0), SourceRecord("memory", "", 2)]
    assert not sync(home, [MemorySource({}, key="empty")], encoder).is_new
    assert sync(home, [], encoder, remove=["empty"]).is_new
    assert sources_in(home) == [SourceRecord("memory", "", 2)]


def test_a_source_gets_another_prefix(home: Home, encoder: Encoder) -> None:
    sync(home, [MemorySource(PETS)], encoder)
    report = sync(home, [MemorySource(PETS, prefix="pets/")], encoder)
    assert report.removed == ("cats.md", "dogs.md")
    assert texts_in(home) == {"pets/cats.md": CATS, "pets/dogs.md": DOGS}
    assert report.encoded == 0  # the ids are new, what is embedded is not


def test_another_model_makes_everything_anew_from_all_sources(
    home: Home, tmp_path: Path, watched: WatchedEncoder
) -> None:
    sync(home, [write_files(tmp_path / "pets", PETS)], watched)
    watched.identity = replace(watched.identity, name="another", sha256="f" * 64)
    report = sync(home, [write_files(tmp_path / "birds", {"owls.md": OWLS})], watched)
    assert (report.added, report.changed, report.unchanged) == (("owls.md",), (), 2)
    assert report.encoded == report.chunks == 4
    assert texts_in(home) == {**PETS, "owls.md": OWLS}
    with closing(home.open_current()) as generation:
        assert generation.manifest.model.name == "another"
        assert [source.documents for source in generation.manifest.sources] == [1, 2]


@dataclass(frozen=True)
class DescribedSource(MemorySource):
    """A source whose documents are described by something else than their bytes."""

    title: str = "Title"
    uri: str | None = None
    media_type: str = "text/markdown"
    year: int = 2023

    def read(self, known: Mapping[str, str]) -> Iterator[Document | Unchanged | Rejected]:
        for item in super().read({}):
            assert isinstance(item, Document)
            content = replace(item.content, metadata={"year": self.year, "tags": ["a"], "ratio": 0.1})
            yield replace(item, title=self.title, uri=self.uri, media_type=self.media_type, content=content)


@pytest.mark.parametrize(
    "described", [{"title": "Other"}, {"uri": "https://example.org"}, {"media_type": "text/html"}, {"year": 2024}]
)
def test_a_document_of_the_same_bytes_that_is_described_otherwise_has_changed(
    home: Home, encoder: Encoder, described: dict[str, Any]
) -> None:
    source = DescribedSource({"dogs.md": DOGS})
    sync(home, [source], encoder)
    assert not sync(home, [source], encoder).is_new
    report = sync(home, [replace(source, **described)], encoder)
    assert (report.is_new, report.changed) == (True, ("dogs.md",))


def test_chunks_of_another_size_make_everything_anew(home: Home, encoder: Encoder) -> None:
    long = "# Long\n\n" + "\n\n".join(f"Paragraph number {number} says nothing." for number in range(20))
    source = MemorySource({"long.md": long})
    assert sync(home, [source], encoder).chunks == 1
    report = sync(home, [source], encoder, settings=BuildSettings(target_tokens=20))
    assert report.is_new
    assert report.encoded == report.chunks > 5
    assert texts_in(home) == {"long.md": long}


def test_what_cannot_be_read_is_named_and_the_rest_is_indexed(home: Home, tmp_path: Path, encoder: Encoder) -> None:
    source = write_files(tmp_path / "docs", PETS)
    (source.path / "broken.pdf").write_bytes(b"%PDF-1.7 and then nothing")
    (source.path / "empty.md").write_bytes(b"")
    report = sync(home, [source], encoder)
    assert [rejected.path for rejected in report.rejected] == ["broken.pdf", "empty.md"]
    assert all(rejected.reason for rejected in report.rejected)
    assert texts_in(home) == PETS


def test_when_nothing_can_be_read_the_first_reason_is_given(home: Home, encoder: Encoder) -> None:
    source = MemorySource({}, rejected=(Rejected("a.bin", "is not text"), Rejected("b.bin", "is not text")))
    with pytest.raises(SourceError, match=r"2 were rejected, the first of them: a\.bin: is not text"):
        sync(home, [source], encoder)


def test_old_generations_are_pruned_and_reported(home: Home, encoder: Encoder) -> None:
    two = BuildSettings(keep_generations=2)
    names = [
        sync(home, [MemorySource({"a.md": f"Text {number}."})], encoder, settings=two).generation
        for number in range(3)
    ]
    report = sync(home, [MemorySource({"a.md": "Text 3."})], encoder, settings=two)
    assert report.pruned == (names[1],)
    assert {path.name for path in home.generations_path.iterdir()} == {names[2], report.generation}


def test_a_home_may_be_given_by_a_relative_path(
    tmp_path: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    home = Home(Path("here # and %20"))
    sync(home, [MemorySource(PETS)], encoder)
    sync(home, [MemorySource({"owls.md": OWLS}, key="birds")], encoder)
    assert texts_in(home) == {**PETS, "owls.md": OWLS}


def test_a_sync_starts_from_the_newest_good_generation(home: Home, encoder: Encoder) -> None:
    first = sync(home, [MemorySource(PETS)], encoder).generation
    second = sync(home, [MemorySource({**PETS, "owls.md": OWLS})], encoder).generation
    (home.folder(second) / "vectors.faiss").write_bytes(b"")
    report = sync(home, [MemorySource({**PETS, "owls.md": OWLS})], encoder)
    assert (report.added, report.encoded) == (("owls.md",), 1)
    with closing(home.open_current()) as generation:
        assert generation.manifest.parent == first
    assert [path.name.startswith(second) for path in (home.path / "damaged").iterdir()] == [True]


def test_a_home_without_a_good_generation_is_built_anew(home: Home, encoder: Encoder) -> None:
    first = sync(home, [MemorySource(PETS)], encoder).generation
    (home.folder(first) / "vectors.faiss").write_bytes(b"")
    report = sync(home, [MemorySource(PETS)], encoder)
    assert report.added == ("cats.md", "dogs.md")
    assert texts_in(home) == PETS


@pytest.fixture
def pets_and_birds(tmp_path: Path) -> tuple[Source, Source]:
    return write_files(tmp_path / "pets", PETS), write_files(tmp_path / "birds", {"owls.md": OWLS})


def append_a_byte(home: Home) -> str:
    """Damage the published generation, and return its name."""
    name = home.published_name() or ""
    with (home.folder(name) / "furniture.npy").open("ab") as file:
        file.write(b"\0")
    return name


def names_set_aside(home: Home) -> list[str]:
    return sorted(path.name.rsplit("-", 2)[0] for path in (home.path / "damaged").iterdir())


def test_a_home_built_anew_keeps_the_sources_that_are_not_named(
    home: Home, encoder: Encoder, pets_and_birds: tuple[Source, Source]
) -> None:
    sync(home, pets_and_birds, encoder)
    before = sources_in(home)
    append_a_byte(home)
    sync(home, pets_and_birds[:1], encoder)
    assert texts_in(home) == {**PETS, "owls.md": OWLS}
    assert sources_in(home) == before


def test_a_home_built_anew_goes_without_removed_and_bundled_sources(
    home: Home, encoder: Encoder, tmp_path: Path, pets_and_birds: tuple[Source, Source]
) -> None:
    pets, birds = pets_and_birds
    seeds = replace(write_files(tmp_path / "seeds", {"seed.md": "# Seed\n\nBundled.\n"}), is_bundled=True)
    sync(home, [pets, birds, seeds], encoder)
    append_a_byte(home)
    sync(home, [pets], encoder, remove=[birds.key])
    assert texts_in(home) == PETS


def test_a_home_is_not_built_anew_without_a_source_that_lost_its_documents(
    home: Home, encoder: Encoder, pets_and_birds: tuple[Source, Source]
) -> None:
    pets, birds = pets_and_birds
    sync(home, [pets, birds], encoder)
    name = append_a_byte(home)
    (birds.path / "owls.md").unlink()
    for _ in range(2):  # what is known of the sources outlasts a sync that was refused
        with pytest.raises(SourceError, match="birds had 1 documents and has none now"):
            sync(home, [pets], encoder)
    assert home.published_name() == name
    sync(home, [pets], encoder, settings=BuildSettings(allow_empty=True))
    assert texts_in(home) == PETS


def test_when_no_manifest_is_readable_a_warning_says_that_the_sources_are_lost(
    home: Home, encoder: Encoder, pets_and_birds: tuple[Source, Source], caplog: pytest.LogCaptureFixture
) -> None:
    name = sync(home, pets_and_birds, encoder).generation
    (home.folder(name) / "manifest.json").write_text("{")
    sync(home, pets_and_birds[:1], encoder)
    assert "sources indexed before are not known any more" in caplog.text
    assert texts_in(home) == PETS
    assert names_set_aside(home) == [name]


def test_damaged_generations_are_set_aside_when_all_is_built_anew(home: Home, encoder: Encoder) -> None:
    damaged = []
    for texts in (PETS, {**PETS, "owls.md": OWLS}):
        sync(home, [MemorySource(texts)], encoder)
        damaged.append(home.published_name() or "")
    for name in damaged:
        (home.folder(name) / "vectors.faiss").write_bytes(b"")
    report = sync(home, [MemorySource(PETS)], encoder, settings=BuildSettings(keep_generations=1))
    assert [path.name for path in home.generations_path.iterdir()] == [report.generation]
    assert report.pruned == ()
    assert names_set_aside(home) == sorted(damaged)


def test_old_generations_are_pruned_even_when_nothing_changed(home: Home, encoder: Encoder) -> None:
    first = sync(home, [MemorySource(PETS)], encoder).generation
    larger = MemorySource({**PETS, "owls.md": OWLS})
    second = sync(home, [larger], encoder).generation
    report = sync(home, [larger], encoder, settings=BuildSettings(keep_generations=1))
    assert (report.is_new, report.pruned) == (False, (first,))
    assert [path.name for path in home.generations_path.iterdir()] == [second]


@pytest.mark.parametrize(
    ("rejected", "message"),
    [
        ((), "There is no document in new"),
        ((Rejected("a.bin", "is not text"),), r"1 were rejected, the first of them: a\.bin: is not text"),
    ],
)
def test_a_new_source_without_documents_is_refused_beside_others(
    home: Home, encoder: Encoder, rejected: tuple[Rejected, ...], message: str
) -> None:
    name = sync(home, [MemorySource(PETS)], encoder).generation
    source = MemorySource({}, key="new", rejected=rejected)
    with pytest.raises(SourceError, match=message):
        sync(home, [source], encoder)
    assert home.published_name() == name
    assert sync(home, [source], encoder, settings=BuildSettings(allow_empty=True)).is_new


# What fails is named: reading, checking or writing.


@dataclass(frozen=True)
class FailingSource(MemorySource):
    """A source that breaks down after its documents."""

    def read(self, known: Mapping[str, str]) -> Iterator[Document | Unchanged | Rejected]:
        yield from super().read(known)
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")


def test_a_source_that_fails_while_it_is_read_is_named(home: Home, encoder: Encoder) -> None:
    with pytest.raises(SourceError, match=r"memory cannot be read: Resource temporarily unavailable\. Nothing was"):
        sync(home, [FailingSource(PETS)], encoder)
    assert home.published_name() is None


class FickleEncoder(WatchedEncoder):
    """An encoder that gives another embedding when a build is checked."""

    def encode_documents(self, texts: Sequence[str], *, on_progress: OnProgress | None = None) -> Embeddings:
        embeddings = super().encode_documents(texts, on_progress=on_progress)
        return -embeddings if self._stage == "Checking" else embeddings


def test_what_fails_its_check_is_not_published_and_the_reason_is_given(home: Home, encoder: Encoder) -> None:
    sync(home, [MemorySource(PETS)], encoder)
    fickle = FickleEncoder(encoder)
    with pytest.raises(
        GenerationError,
        match=r"failed its check: chunk 0 does not find itself.*Nothing was published\. The disk may be full",
    ):
        sync(home, [MemorySource({**PETS, "owls.md": OWLS})], fickle, progress=fickle)
    assert texts_in(home) == PETS


# A full disk: at whatever file it strikes, the sync says so, and what was published stays as it was.


def assert_refused_for_want_of_room(home: Home, source: DocumentSource, encoder: Encoder) -> None:
    before = texts_in(home)
    with pytest.raises(GenerationError, match=r"cannot be written: .*The published index is untouched\. Make room"):
        sync(home, [source], encoder)
    assert texts_in(home) == before
    leftovers = [path.name for path in home.generations_path.iterdir() if path.name.startswith(".")]
    assert leftovers == []


MANY_CHUNKS = "\n\n".join(f"# {number}\n\nText {number}." for number in range(100))
MANY_SENTENCES = " ".join(f"It is {number}." for number in range(400))


@pytest.mark.parametrize(
    ("text", "size", "file"),
    [
        (MANY_CHUNKS, 0, "writer.json"),
        (MANY_CHUNKS, 10_000, "chunks/records.npy"),
        (MANY_CHUNKS, 60_000, "vectors.faiss"),
        (MANY_SENTENCES, 60_000, "sentences.npy"),
    ],
)
def test_a_file_that_cannot_grow_leaves_the_published_index(
    home: Home, encoder: Encoder, text: str, size: int, file: str
) -> None:
    sync(home, [MemorySource(PETS)], encoder)
    larger = MemorySource({**PETS, "larger.md": text})
    with largest_file(size):
        assert_refused_for_want_of_room(home, larger, encoder)
    assert sync(home, [larger], encoder).added == ("larger.md",)
    with closing(home.open_current()) as generation:
        files = generation.manifest.files
        assert file not in files or files[file].size > size


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "none", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting needs rights that this user does not have")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.parametrize("room", [0, 20_000, 45_000, 57_000, 66_000, 73_000])
def test_a_full_disk_leaves_the_published_index(small_disk: Path, encoder: Encoder, room: int) -> None:
    home = Home(small_disk / "home")
    sync(home, [MemorySource(PETS)], encoder)
    larger = MemorySource({**PETS, "owls.md": OWLS})
    (small_disk / "filler").write_bytes(bytes(shutil.disk_usage(small_disk).free - room))
    assert_refused_for_want_of_room(home, larger, encoder)
    (small_disk / "filler").unlink()
    assert sync(home, [larger], encoder).added == ("owls.md",)
