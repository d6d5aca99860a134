"""Generations on disk: whole or absent, whoever reads, writes, damages or kills."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from sources_in_memory import MemorySource

from index.build import sync
from index.embeddings import Encoder
from index.errors import DamagedGenerationError, GenerationError, NoGenerationError, WriterBusyError
from index.generations import Generation, Home
from index.manifest import FORMAT_VERSION, MANIFEST, Manifest, generation_name, read_manifest

FILES = [
    "chunks/digests.npy",
    "chunks/documents.npy",
    "chunks/records.npy",
    "chunks/starts.npy",
    "corpus.sqlite",
    "furniture.npy",
    "instant/rows.npy",
    "instant/scales.npy",
    "instant/tokens.npy",
    "lexical/frequencies.npy",
    "lexical/lengths.npy",
    "lexical/offsets.npy",
    "lexical/rows.npy",
    "lexical/term_ends.npy",
    "lexical/vocabulary.npy",
    "manifest.json",
    "sentence_lengths.npy",
    "sentence_starts.npy",
    "sentences.npy",
    "sequences/questions.npy",
    "sequences/shingles.npy",
    "sequences/starts.npy",
    "sequences/terms.npy",
    "vectors.faiss",
]
ROOT = Path(__file__).parents[1]


def version(number: int) -> dict[str, str]:
    """Return two documents that say which version they are."""
    return {
        doc_id: f"# {doc_id}\n\nThis is version {number}.\n\n## More\n\nVersion {number} again.\n"
        for doc_id in ("a.md", "b.md")
    }


def version_in(generation: Generation) -> int:
    """Return the version that every document of a generation has."""
    texts = {record.doc_id: generation.corpus.text(record) for record in generation.corpus.documents()}
    number = int(texts["a.md"].split("version ")[1].split(".")[0])
    assert texts == version(number)
    return number


def served(home: Home) -> int:
    with closing(home.open_current()) as generation:
        return version_in(generation)


def publish(home: Home, number: int, encoder: Encoder) -> str:
    return sync(home, [MemorySource(version(number))], encoder).generation


def names(home: Home) -> list[str]:
    """Return the names of all generations, oldest first."""
    return [manifest.name for manifest in reversed(home.manifests())]


@pytest.fixture(scope="module")
def three_generations(encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("three")
    for number in (1, 2, 3):
        publish(Home(path), number, encoder)
    return path


@pytest.fixture
def filled(three_generations: Path, tmp_path: Path) -> Home:
    """A home with versions 1, 2 and 3, the last of them published."""
    return Home(shutil.copytree(three_generations, tmp_path / "filled"))


@contextmanager
def running(script: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run a script in another process that has said its first line; it is killed at the end."""
    command = [sys.executable, "-c", script, *arguments]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=ROOT) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


WRITER = """
import sys
from pathlib import Path
from index.generations import Home

with Home(Path(sys.argv[1])).writer(), Home(Path(sys.argv[1])).building_folder() as folder:
    (folder / "half").write_text("written")
    print("ready", flush=True)
    sys.stdin.read()
"""


# Publishing, going back, pruning.


def test_a_home_in_which_nothing_was_published_says_how_to_build_one(home: Home) -> None:
    assert home.published_name() is None
    assert home.manifests() == []
    with pytest.raises(NoGenerationError, match=r"No index in .*home \(no CURRENT file\).*whence index PATH --home"):
        home.open_current()
    with pytest.raises(NoGenerationError, match="nothing to roll back"):
        home.roll_back()


def test_the_newest_generation_is_published(filled: Home) -> None:
    assert served(filled) == 3
    assert (filled.path / "CURRENT").read_text() == names(filled)[2] + "\n"
    assert [manifest.number for manifest in filled.manifests()] == [3, 2, 1]


def test_an_open_generation_has_everything_a_question_needs(filled: Home) -> None:
    with closing(filled.open_current()) as generation:
        manifest = generation.manifest
        assert sorted([*manifest.files, MANIFEST]) == FILES
        assert (manifest.documents, manifest.chunks, manifest.sentences) == (2, 4, 4)
        assert generation.name == filled.published_name()
        assert generation.furniture.tolist() == [False] * 4
        assert generation.sentences.starts.tolist() == [0, 1, 2, 3, 4]
        assert [record.doc_id for record in generation.document_records] == ["a.md", "b.md"]
        rows, _ = generation.lexical.search("more", top_k=4)
        assert rows.tolist() == [1, 3]


def test_going_back_publishes_the_parent_and_going_forward_a_name(filled: Home) -> None:
    first, second, third = names(filled)
    assert filled.roll_back() == second
    assert served(filled) == 2
    assert filled.roll_back() == first
    assert filled.roll_back(third) == third
    assert served(filled) == 3


def test_there_is_no_way_back_from_the_first_generation(filled: Home) -> None:
    filled.roll_back(names(filled)[0])
    with pytest.raises(GenerationError, match=r"is not there any more\. Choose one: whence generations"):
        filled.roll_back()
    assert served(filled) == 1


@pytest.mark.parametrize("name", ["20200101T000000Z-000000", "", ".", "..", "../generations", "x" * 500, "a\0b"])
def test_an_unknown_generation_cannot_be_published(filled: Home, name: str) -> None:
    for attempt in (filled.publish, filled.folder):
        with pytest.raises(GenerationError, match="There is no generation"):
            attempt(name)
    assert served(filled) == 3


def test_a_damaged_generation_cannot_be_gone_back_to(filled: Home) -> None:
    (filled.folder(names(filled)[0]) / "vectors.faiss").write_bytes(b"short")
    with pytest.raises(DamagedGenerationError, match=r"vectors\.faiss has 5 bytes instead of [\d,]+"):
        filled.roll_back(names(filled)[0])
    assert served(filled) == 3


def test_after_going_back_a_sync_starts_from_there(filled: Home, encoder: Encoder) -> None:
    first = filled.roll_back(names(filled)[0])
    report = sync(filled, [MemorySource({**version(1), "c.md": "# C\n\nNew."})], encoder)
    assert (report.added, report.changed) == (("c.md",), ())
    with closing(filled.open_current()) as generation:
        assert (generation.manifest.parent, generation.manifest.number) == (first, 4)


def test_pruning_removes_the_oldest(filled: Home) -> None:
    first, second, third = names(filled)
    with filled.writer():
        assert filled.prune(2) == [first]
        assert names(filled) == [second, third]
        assert filled.prune(0) == [second]
    assert names(filled) == [third]
    assert [path.name for path in filled.generations_path.iterdir()] == [third]


def test_pruning_keeps_the_published_generation_however_old(filled: Home) -> None:
    first, second, third = names(filled)
    filled.roll_back(first)
    with filled.writer():
        assert filled.prune(1) == [second]
    assert names(filled) == [first, third]
    assert served(filled) == 1


@pytest.mark.parametrize("how", ["missing", "truncated", "altered"])
def test_pruning_sets_aside_what_has_no_readable_manifest(filled: Home, how: str) -> None:
    first, second, third = names(filled)
    damage(filled.folder(first) / MANIFEST, how)
    with filled.writer():
        assert filled.prune(2) == []
    assert {path.name for path in filled.generations_path.iterdir()} == {second, third}
    (aside,) = (filled.path / "damaged").iterdir()
    assert aside.name.startswith(first)


def test_pruning_leaves_generations_of_another_format_alone(filled: Home) -> None:
    folder = filled.folder(names(filled)[0])
    (folder / MANIFEST).write_text(replace(read_manifest(folder), format_version=FORMAT_VERSION + 1).as_json())
    with filled.writer():
        filled.prune(1)
        filled.set_aside_damaged()
    assert folder.exists()
    assert not (filled.path / "damaged").exists()


def test_pruning_goes_on_when_nothing_can_be_set_aside(filled: Home, caplog: pytest.LogCaptureFixture) -> None:
    first, second, third = names(filled)
    (filled.folder(first) / MANIFEST).write_text("{")
    (filled.path / "damaged").write_text("not a folder")
    with filled.writer():
        assert filled.prune(1) == [second]
    assert f"generation {first} could not be set aside" in caplog.text
    assert {path.name for path in filled.generations_path.iterdir()} == {first, third}


def test_names_sort_by_time_and_differ_by_content() -> None:
    early, late = datetime(2026, 11, 21, 6, 0, 1, tzinfo=UTC), datetime(2026, 11, 21, 6, 0, 2, tzinfo=UTC)
    assert generation_name(early, {})[:17] == "20261121T060001Z-"
    assert generation_name(early, {}) < generation_name(late, {})
    assert generation_name(early, {}) != generation_name(early.replace(microsecond=1), {})


# Damage.


def damage(path: Path, how: str) -> None:
    data = bytearray(path.read_bytes())
    if how == "missing":
        path.unlink()
        return
    if how == "truncated":
        del data[-3:]
    if how == "altered":
        data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("how", ["missing", "truncated", "altered"])
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_named_and_the_newest_good_generation_serves(
    filled: Home, name: str, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    _, second, third = names(filled)
    damage(filled.folder(third) / name, how)
    with pytest.raises(DamagedGenerationError, match=name):
        Generation.open(filled.folder(third))
    assert served(filled) == 2
    assert f"generation {third} is damaged: {name}" in caplog.text
    assert filled.published_name() == second
    (aside,) = (filled.path / "damaged").iterdir()
    assert aside.name.startswith(third)
    assert served(filled) == 2


def test_an_older_generation_serves_when_two_are_damaged(filled: Home) -> None:
    for name in names(filled)[1:]:
        damage(filled.folder(name) / "corpus.sqlite", "altered")
    assert served(filled) == 1


def test_when_no_generation_is_whole_the_message_says_what_to_do(filled: Home) -> None:
    for name in names(filled):
        damage(filled.folder(name) / "sentences.npy", "missing")
    with pytest.raises(
        DamagedGenerationError, match=r"sentences\.npy is missing\. No other one is whole\. Build it anew"
    ):
        filled.open_current()
    assert len(names(filled)) == 3


def test_a_manifest_with_any_character_altered_is_refused(filled: Home) -> None:
    text = (filled.folder(names(filled)[0]) / MANIFEST).read_text()
    assert Manifest.from_json(text).as_json() == text
    for place, character in enumerate(text):
        with pytest.raises(DamagedGenerationError, match=r"manifest\.json"):
            Manifest.from_json(text[:place] + chr(ord(character) ^ 4) + text[place + 1 :])


@pytest.mark.parametrize("text", ["", "[]", "{}", '"text"', "null", '{"sha256": 1}'])
def test_what_is_no_manifest_is_refused(text: str) -> None:
    with pytest.raises(DamagedGenerationError, match=r"manifest\.json"):
        Manifest.from_json(text)


def test_a_manifest_under_another_name_is_refused(filled: Home) -> None:
    first, second, _ = names(filled)
    shutil.copy(filled.folder(first) / MANIFEST, filled.folder(second))
    with pytest.raises(DamagedGenerationError, match=f"names another generation, {first}"):
        Generation.open(filled.folder(second))


def test_parts_with_other_counts_than_the_manifest_are_refused(filled: Home) -> None:
    folder = filled.folder(names(filled)[2])
    manifest = replace(read_manifest(folder), chunks=5)
    (folder / MANIFEST).write_text(manifest.as_json())
    with pytest.raises(
        DamagedGenerationError, match=r"corpus\.sqlite holds \(2, 4, 4\), the manifest says \(2, 5, 4\)"
    ):
        Generation.open(folder)


def test_another_format_version_is_refused_and_left_alone(filled: Home) -> None:
    folder = filled.folder(names(filled)[2])
    manifest = replace(read_manifest(folder), format_version=FORMAT_VERSION + 1)
    (folder / MANIFEST).write_text(manifest.as_json())
    refused = rf"has format version {FORMAT_VERSION + 1}, this version of Whence reads {FORMAT_VERSION}\. Use the"
    with pytest.raises(GenerationError, match=refused):
        filled.open_current()
    assert not (filled.path / "damaged").exists()
    assert filled.published_name() == folder.name


@pytest.mark.parametrize("current", [b"", b"\n", b"..\n", b".\n", b"\xff\xfe", b"20200101T000000Z-000000\n"])
def test_a_damaged_current_file_is_mended(filled: Home, current: bytes) -> None:
    (filled.path / "CURRENT").write_bytes(current)
    assert served(filled) == 3
    assert filled.published_name() == names(filled)[2]
    assert len(names(filled)) == 3


def test_a_missing_current_file_is_mended(filled: Home) -> None:
    (filled.path / "CURRENT").unlink()
    assert served(filled) == 3
    assert filled.published_name() == names(filled)[2]


# One writer at a time.


def test_a_second_writer_is_told_who_holds_the_lock(filled: Home, encoder: Encoder) -> None:
    with running(WRITER, str(filled.path)) as writer:
        with (
            pytest.raises(WriterBusyError, match=rf"Process {writer.pid} on .* is writing to .*--wait SECONDS"),
            filled.writer(wait_s=0.1),
        ):
            pass
        with pytest.raises(WriterBusyError):
            filled.roll_back(wait_s=0)
        assert served(filled) == 3  # reading waits for nobody


def test_the_lock_of_a_killed_writer_is_free_and_what_it_left_is_swept(filled: Home, encoder: Encoder) -> None:
    (filled.path / ".CURRENT-1").write_text("half a na")
    with running(WRITER, str(filled.path)) as writer:
        writer.kill()
        writer.wait()
        assert len(list(filled.generations_path.glob(".building-*/half"))) == 1
        assert served(filled) == 3
        publish(filled, 4, encoder)
    assert served(filled) == 4
    assert [path for path in filled.generations_path.iterdir() if path.name.startswith(".")] == []
    assert {path.name for path in filled.path.iterdir()} == {"CURRENT", "generations", "writer.lock"}


def test_a_writer_that_ends_frees_the_lock(filled: Home) -> None:
    with running(WRITER, str(filled.path)) as writer:
        writer.communicate()
        assert writer.returncode == 0
        assert filled.roll_back(wait_s=0) == names(filled)[1]


def test_a_writer_may_write_within_its_own_block(filled: Home) -> None:
    with filled.writer():
        with filled.writer():
            note = json.loads((filled.path / "writer.json").read_text())
            assert note["pid"] == os.getpid()
        filled.roll_back()
        assert (filled.path / "writer.json").exists()
    assert not (filled.path / "writer.json").exists()


def test_damage_is_not_set_aside_while_another_process_writes(filled: Home) -> None:
    third = names(filled)[2]
    damage(filled.folder(third) / "corpus.sqlite", "altered")
    with running(WRITER, str(filled.path)):
        assert served(filled) == 2
        assert filled.published_name() == third
    assert served(filled) == 2
    assert filled.published_name() == names(filled)[1]


def test_a_generation_that_was_written_but_not_published_is_not_served(filled: Home, encoder: Encoder) -> None:
    _, second, third = names(filled)
    # As when the writer was killed between the two renames.
    filled.publish(second)
    assert served(filled) == 2
    publish(filled, 4, encoder)
    with closing(filled.open_current()) as generation:
        assert (generation.manifest.parent, generation.manifest.number) == (second, 4)
    assert third in names(filled)


# Readers.


@contextmanager
def as_nobody() -> Iterator[None]:
    """Go without root's right to write everywhere, where the tests run as root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65_534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def read_only(three_generations: Path) -> Iterator[Home]:
    """A home that everybody may read and nobody may write."""
    with TemporaryDirectory() as scratch:
        Path(scratch).chmod(0o755)
        path = Path(shutil.copytree(three_generations, Path(scratch) / "home"))
        for entry in [path, *path.rglob("*")]:
            entry.chmod(0o555 if entry.is_dir() else 0o444)
        yield Home(path)
        for folder in [path, *(entry for entry in path.rglob("*") if entry.is_dir())]:
            folder.chmod(0o755)


def test_a_read_only_home_can_be_read_but_not_written(read_only: Home, encoder: Encoder) -> None:
    with as_nobody():
        assert served(read_only) == 3
        with pytest.raises(GenerationError, match=r"cannot be written: Permission denied.*check the permissions"):
            publish(read_only, 4, encoder)
        with pytest.raises(GenerationError, match="cannot be written: Permission denied"):
            read_only.roll_back()


def test_generations_that_may_not_be_read_are_an_error_that_says_so(read_only: Home) -> None:
    read_only.generations_path.chmod(0)
    with as_nobody():
        for attempt in (read_only.manifests, read_only.open_current):
            with pytest.raises(GenerationError, match=r"generations cannot be read: Permission denied\. It must be"):
                attempt()


def test_a_file_in_place_of_the_generations_is_an_error_that_says_so(filled: Home) -> None:
    filled.generations_path.rename(filled.path / "elsewhere")
    filled.generations_path.write_text("not a folder")
    for attempt in (filled.manifests, filled.open_current):
        with pytest.raises(GenerationError, match=r"generations cannot be read: Not a directory\. It must be a fold"):
            attempt()


def test_damage_in_a_read_only_home_is_passed_over(read_only: Home) -> None:
    path = read_only.folder(names(read_only)[2]) / "corpus.sqlite"
    path.chmod(0o644)
    damage(path, "truncated")
    with as_nobody():
        assert served(read_only) == 2
        assert served(read_only) == 2


def test_a_generation_is_readable_for_those_whom_the_umask_lets(home: Home, encoder: Encoder) -> None:
    before = os.umask(0o022)
    try:
        folder = home.folder(publish(home, 1, encoder))
    finally:
        os.umask(before)
    assert folder.stat().st_mode & 0o777 == 0o755
    assert {path.stat().st_mode & 0o777 for path in folder.rglob("*.npy")} == {0o644}


def test_reading_writes_nothing(filled: Home) -> None:
    def state() -> list[tuple[str, int]]:
        return sorted((str(path), path.stat().st_mtime_ns) for path in [filled.path, *filled.path.rglob("*")])

    before = state()
    assert served(filled) == 3
    filled.manifests()
    assert state() == before


def test_a_reader_keeps_answering_from_a_generation_that_was_pruned(filled: Home, encoder: Encoder) -> None:
    filled.roll_back(names(filled)[0])
    with closing(filled.open_current()) as generation:
        filled.roll_back(names(filled)[2])
        with filled.writer():
            filled.prune(1)
        assert not generation.folder.exists()
        assert version_in(generation) == 1
        (embedding,) = encoder.encode_queries(["version"])
        rows, _ = generation.vectors.search(embedding, top_k=4)
        assert sorted(rows.tolist()) == [0, 1, 2, 3]
        assert generation.sentences.of_chunks(rows).bounds.tolist() == [0, 1, 2, 3, 4]
        assert generation.lexical.search("again", top_k=4)[0].tolist() == [1, 3]


READER = """
import sys, threading
from contextlib import closing
from pathlib import Path
from index.generations import Home

home, versions, told = Home(Path(sys.argv[1])), [], threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), told.set()), daemon=True).start()
print("ready", flush=True)
while True:
    is_last = told.is_set()
    with closing(home.open_current()) as generation:
        texts = [generation.corpus.text(record) for record in generation.corpus.documents()]
    (version,) = {text.split("version ")[1].split(".")[0] for text in texts}
    if versions[-1:] != [version]:
        versions.append(version)
    if is_last:
        break
print(*versions)
"""


def test_readers_see_whole_generations_while_a_writer_publishes(home: Home, encoder: Encoder) -> None:
    publish(home, 0, encoder)
    with running(READER, str(home.path)) as reader:
        for number in range(1, 9):
            publish(home, number, encoder)
        output, _ = reader.communicate(timeout=60)
        assert reader.returncode == 0
    versions = [int(number) for number in output.split()]
    assert versions == sorted(set(versions))
    assert versions[-1] == 8
    assert len(versions) > 2
    assert not (home.path / "damaged").exists()
