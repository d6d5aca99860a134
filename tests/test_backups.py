"""A backup brings back exactly what was backed up, or refuses."""

from __future__ import annotations

import sqlite3
import tarfile
import threading
from contextlib import closing
from pathlib import Path

import pytest
from putting import kept, received
from sources_in_memory import MemorySource

from index.backups import back_up, restore
from index.build import sync
from index.embeddings import Encoder
from index.errors import GenerationError, NoGenerationError
from index.generations import Home
from index.state import State
from index.uploads import Upload, Uploads, stored_uploads

BEFORE = {"cats.md": "# Cats\n\nCats purr.\n", "dogs.md": "# Dogs\n\nDogs bark.\n"}
AFTER = {"owls.md": "# Owls\n\nOwls hunt.\n"}


def texts_in(home: Home) -> dict[str, str]:
    with closing(home.open_current()) as generation:
        corpus = generation.corpus
        return {record.doc_id: corpus.text(record) for record in corpus.documents()}


def publish(home: Home, texts: dict[str, str], encoder: Encoder) -> str:
    return sync(home, [MemorySource(texts)], encoder).generation


def write_state(home: Home, key: str) -> None:
    with closing(sqlite3.connect(home.path / "state.sqlite")) as state, state:
        state.execute("PRAGMA journal_mode = WAL")
        state.execute("CREATE TABLE keys (name TEXT)")
        state.execute("INSERT INTO keys VALUES (?)", (key,))


def keys_in(home: Home) -> list[str]:
    with closing(sqlite3.connect(home.path / "state.sqlite")) as state:
        return [key for (key,) in state.execute("SELECT name FROM keys")]


@pytest.fixture
def filled(home: Home, encoder: Encoder) -> Home:
    publish(home, BEFORE, encoder)
    return home


def test_a_backup_is_restored_into_an_empty_home(filled: Home, tmp_path: Path) -> None:
    path = tmp_path / "backup.tar"
    name = back_up(filled, path)
    other = Home(tmp_path / "other")
    assert restore(other, path) == name == filled.published_name() == other.published_name()
    assert texts_in(other) == BEFORE
    assert [entry.name for entry in other.generations_path.iterdir()] == [name]
    with closing(filled.open_current()) as ours, closing(other.open_current()) as theirs:
        assert ours.manifest == theirs.manifest


def test_a_sync_goes_on_from_what_was_restored(filled: Home, tmp_path: Path, encoder: Encoder) -> None:
    back_up(filled, tmp_path / "backup.tar")
    other = Home(tmp_path / "other")
    restore(other, tmp_path / "backup.tar")
    assert sync(other, [MemorySource({**BEFORE, **AFTER})], encoder).added == ("owls.md",)


def test_what_the_home_held_stays_as_an_earlier_generation(filled: Home, tmp_path: Path, encoder: Encoder) -> None:
    first = back_up(filled, tmp_path / "backup.tar")
    second = publish(filled, AFTER, encoder)
    assert restore(filled, tmp_path / "backup.tar") == first
    assert texts_in(filled) == BEFORE
    assert filled.roll_back(second) == second
    assert texts_in(filled) == AFTER


def test_a_damaged_generation_is_replaced_and_set_aside(filled: Home, tmp_path: Path) -> None:
    name = back_up(filled, tmp_path / "backup.tar")
    (filled.folder(name) / "corpus.sqlite").write_bytes(b"damaged")
    assert restore(filled, tmp_path / "backup.tar") == name
    assert texts_in(filled) == BEFORE
    (aside,) = (filled.path / "damaged").iterdir()
    assert (aside / "corpus.sqlite").read_bytes() == b"damaged"


def test_the_state_comes_back_only_where_there_is_none(filled: Home, tmp_path: Path) -> None:
    write_state(filled, "from the backup")
    back_up(filled, tmp_path / "backup.tar")
    empty, used = Home(tmp_path / "empty"), Home(tmp_path / "used")
    used.path.mkdir()
    write_state(used, "of its own")
    for other in (empty, used):
        restore(other, tmp_path / "backup.tar")
    assert keys_in(empty) == ["from the backup"]
    assert keys_in(used) == ["of its own"]


def put(home: Home, encoder: Encoder, **texts: str) -> dict[str, Upload]:
    """Put documents into a home; return what is waiting there, too, by its id."""
    with State(home.path) as state:
        uploads = Uploads(home.path, state)
        changes = [kept(state, uploads, f"{name}.md", text) for name, text in texts.items()]
        sync(home, [uploads.planned(changes)], encoder)
        uploads.apply(changes)
    return {change.doc_id: change for change in changes}


def originals_in(home: Home) -> dict[str, str]:
    """Return the bytes of every upload that the home knows."""
    stored = stored_uploads(home.path)
    return {doc_id: (stored.folder / upload.file).read_text() for doc_id, (upload,) in stored.tries.items()}


def test_uploads_come_back_with_their_bytes(filled: Home, tmp_path: Path, encoder: Encoder) -> None:
    put(filled, encoder, note="A note.")
    back_up(filled, tmp_path / "backup.tar")
    other = Home(tmp_path / "other")
    restore(other, tmp_path / "backup.tar")
    assert originals_in(other) == {"note.md": "A note."}
    assert texts_in(other) == {**BEFORE, "note.md": "A note."}
    assert not sync(other, [stored_uploads(other.path)], encoder).is_new


def test_a_file_that_waits_to_be_indexed_is_backed_up_and_one_being_sent_is_not(
    filled: Home, tmp_path: Path, encoder: Encoder
) -> None:
    put(filled, encoder, note="A note.")
    with State(filled.path) as state:
        waiting = kept(state, Uploads(filled.path, state), "waiting.md", "Not indexed yet.")
        received(Uploads(filled.path, state), "sent.md", "Not all here.")
    back_up(filled, tmp_path / "backup.tar")
    other = Home(tmp_path / "other")
    restore(other, tmp_path / "backup.tar")
    files = {path.name: path.read_text() for path in (other.path / "uploads").iterdir()}
    assert files.pop(waiting.file) == "Not indexed yet."
    assert list(files.values()) == ["A note."]


def test_a_restored_generation_has_its_own_uploads_and_not_those_that_came_after(
    filled: Home, tmp_path: Path, encoder: Encoder
) -> None:
    put(filled, encoder, note="A note.", old="An old text.")
    back_up(filled, tmp_path / "backup.tar")
    put(filled, encoder, note="Another note.", new="A new text.")
    restore(filled, tmp_path / "backup.tar")
    assert originals_in(filled) == {"note.md": "A note.", "old.md": "An old text."}
    put(filled, encoder, more="One more.")
    assert set(texts_in(filled)) == {*BEFORE, "note.md", "old.md", "more.md"}


def test_a_backup_without_the_file_of_an_upload_is_not_written(
    filled: Home, tmp_path: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("index.backups.PAUSE_S", 0.0)
    upload = put(filled, encoder, note="A note.")["note.md"]
    (filled.path / "uploads" / upload.file).unlink()
    with pytest.raises(
        GenerationError, match=rf"No backup was written: the file {upload.file} of the uploads is gone"
    ):
        back_up(filled, tmp_path / "backup.tar")
    assert not (tmp_path / "backup.tar").exists()


def test_a_backup_taken_while_documents_are_put_is_of_one_moment(
    filled: Home, tmp_path: Path, encoder: Encoder
) -> None:
    stopping = threading.Event()

    def keep_putting() -> None:
        number = 0
        while not stopping.is_set():
            number += 1
            put(filled, encoder, note=f"Note {number}.")

    put(filled, encoder, note="Note 0.")
    putting = threading.Thread(target=keep_putting)
    putting.start()
    try:
        for number in range(3):
            back_up(filled, tmp_path / f"{number}.tar")
    finally:
        stopping.set()
        putting.join()
    for number in range(3):
        other = Home(tmp_path / f"other-{number}")
        restore(other, tmp_path / f"{number}.tar")
        published = int(texts_in(other)["note.md"].removeprefix("Note ").rstrip("."))
        original = int(originals_in(other)["note.md"].removeprefix("Note ").rstrip("."))
        # What was published and not yet made permanent is done again by its task.
        assert published - 1 <= original <= published


def test_a_home_without_an_index_cannot_be_backed_up(home: Home, tmp_path: Path) -> None:
    with pytest.raises(NoGenerationError):
        back_up(home, tmp_path / "backup.tar")
    assert not (tmp_path / "backup.tar").exists()


@pytest.mark.parametrize("place", ["missing/backup.tar", "file/backup.tar", "folder"])
def test_a_backup_that_cannot_be_written_is_an_error_and_leaves_nothing(
    filled: Home, tmp_path: Path, place: str
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    before = set(tmp_path.iterdir())
    with pytest.raises(GenerationError, match=rf"The backup .*{place} cannot be written"):
        back_up(filled, tmp_path / place)
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize("place", [".", "/", ".."])
def test_a_folder_without_a_name_is_no_place_for_a_backup(filled: Home, place: str) -> None:
    with pytest.raises(GenerationError, match=r"it is a folder\. Name a file: whence backup .*whence\.tar"):
        back_up(filled, Path(place))


def test_a_state_that_is_no_database_is_named_and_nothing_is_left(filled: Home, tmp_path: Path) -> None:
    (filled.path / "state.sqlite").write_bytes(b"not a database, but long enough to be one" * 100)
    before = set(tmp_path.iterdir())
    with pytest.raises(GenerationError, match=r"state\.sqlite cannot be copied: file is not a database.*No backup"):
        back_up(filled, tmp_path / "backup.tar")
    assert set(tmp_path.iterdir()) == before


def test_a_backup_that_is_interrupted_leaves_nothing(
    filled: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    before = set(tmp_path.iterdir())
    monkeypatch.setattr(tarfile.TarFile, "add", interrupt)
    with pytest.raises(KeyboardInterrupt):
        back_up(filled, tmp_path / "backup.tar")
    assert set(tmp_path.iterdir()) == before


def test_a_backup_replaces_an_older_one_whole(filled: Home, tmp_path: Path, encoder: Encoder) -> None:
    path = tmp_path / "backup.tar"
    back_up(filled, path)
    publish(filled, AFTER, encoder)
    back_up(filled, path)
    other = Home(tmp_path / "other")
    restore(other, path)
    assert texts_in(other) == AFTER


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.75])
def test_a_truncated_backup_is_refused(filled: Home, tmp_path: Path, share: float) -> None:
    path = tmp_path / "backup.tar"
    back_up(filled, path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share) // 512 * 512])
    assert_refused(path, tmp_path, "is not a")


def test_a_backup_with_any_file_altered_is_refused(filled: Home, tmp_path: Path) -> None:
    path = tmp_path / "backup.tar"
    back_up(filled, path)
    with tarfile.open(path) as archive:
        places = {member.name.partition("/")[2]: member.offset_data for member in archive if member.isfile()}
    data = path.read_bytes()
    assert len(places) == 24
    for name, place in places.items():
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        assert_refused(path, tmp_path, f"is not a whole backup: {name}")


def test_files_that_are_no_backup_are_refused(tmp_path: Path) -> None:
    text = tmp_path / "text.tar"
    text.write_text("not an archive at all\n" * 100)
    assert_refused(text, tmp_path, r"text\.tar is not a whole backup")
    foreign = tmp_path / "foreign.tar"
    with tarfile.open(foreign, "w") as archive:
        archive.add(text, arcname="notes/text.txt")
    assert_refused(foreign, tmp_path, r"is not a whole backup: manifest\.json cannot be read")
    flat = tmp_path / "flat.tar"
    with tarfile.open(flat, "w") as archive:
        archive.add(text, arcname="text.txt")
    assert_refused(flat, tmp_path, "is not a backup: it holds no generation")
    assert_refused(tmp_path / "missing.tar", tmp_path, r"missing\.tar cannot be read: No such file")
    assert_refused(tmp_path, tmp_path, "cannot be read: Is a directory")


def test_an_archive_that_writes_elsewhere_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("text")
    path = tmp_path / "escape.tar"
    with tarfile.open(path, "w") as archive:
        archive.add(tmp_path / "text", arcname="../../../escaped")
    assert_refused(path, tmp_path, "is not a whole backup")
    assert list(tmp_path.rglob("escaped")) == []


def assert_refused(path: Path, scratch: Path, message: str) -> None:
    """Check that a file is not restored, and that the home is as it was: empty."""
    other = Home(scratch / "refusing")
    with pytest.raises(GenerationError, match=message):
        restore(other, path)
    assert other.published_name() is None
    assert list(other.generations_path.iterdir()) == []


def test_a_backup_never_overwrites_the_home(home: Home, encoder: Encoder) -> None:
    sync(home, [MemorySource({"a.md": "A text."})], encoder)
    with pytest.raises(GenerationError, match=r"lies in the home .* itself\. Write the backup somewhere else"):
        back_up(home, home.path / "CURRENT")
    assert home.open_current().manifest.documents == 1
