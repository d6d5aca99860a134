"""The pieces of work that write, each with what must hold whatever happened to it.

Every one begins in a folder with an older state, and works towards a newer one. `look` tells which of the two is
there, and raises `AssertionError` when it is neither, or not whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path

from publish import DigestEncoder
from tiny_models import write_tiny_model

from index.answers import Question, answer_questions
from index.backups import back_up, restore
from index.build import BuildSettings, sync
from index.calibration import Calibration, read_calibration, weights_of, write_calibration
from index.citations import PresentText, SavedCitation, Standing, verify
from index.documents import Document
from index.embeddings import Encoder, load_encoder
from index.errors import NoGenerationError, StateError
from index.generations import Generation, Home
from index.readers.limits import Limits
from index.readers.markdown import read_markdown
from index.sources import Unchanged
from index.state import State
from index.uploads import PARTIAL_PREFIX, Upload, Uploads
from index.weights import default_weights
from service.auth import KeyStore, Scope
from service.batch_journal import Counts, Journal
from service.feedback import Feedback, FeedbackStore, Rating
from service.indexer import _Indexing
from service.settings import Settings
from service.tasks import TaskQueue, TaskStatus

OLD, NEW = "old", "new"
KEPT = 2  # generations, so that each sync prunes one
QUESTIONS = ("Which version is this?", "How long do I hold the button?")
PARTS = (b'{"row": 1}\n' * 50, b'{"row": 2}\n' * 3_000, b'{"row": 3}\n')
RUN = {"generation": "20261121T060001Z-3f9c2a", "settings": {"top_k": 5}}

_NAMES = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{6}|[0-9a-f]{32}")


@cache
def encoder() -> DigestEncoder:
    """Return an encoder that costs nothing, so that a run is all writing."""
    return DigestEncoder()


@dataclass(frozen=True)
class Work:
    """A piece of work.

    Attributes:
        name: of it.
        prepare: makes the older state in an empty folder.
        do: does the work in that folder.
        look: tells whether the folder holds the older or the newer state, and checks that it is whole.
        again: does it anew where it may have been done; None for `do`.
        load: loads what all of this needs, once, before anything is forked.
    """

    name: str
    prepare: Callable[[Path], object]
    do: Callable[[Path], object]
    look: Callable[[Path], str]
    again: Callable[[Path], object] | None = None
    load: Callable[[], object] = encoder


def version(number: int) -> dict[str, str]:
    """Return the documents of a version; every part of each says which one it is."""
    guide = f"# Guide\n\nThis is version {number}.\n\n## Reset\n\nHold the button for {number} seconds.\n"
    return {"guide.md": guide, "news.md": f"# News\n\n- Version {number} is out.\n- Version {number} is fast.\n"}


@dataclass(frozen=True)
class Texts:
    """Documents in memory, as a source."""

    texts: Mapping[str, str]
    key: str = "texts"
    prefix: str = ""
    is_bundled: bool = False

    def read(self, known: Mapping[str, str]) -> Iterator[Document | Unchanged]:
        """Yield the documents."""
        for doc_id, text in self.texts.items():
            data = text.encode()
            digest = hashlib.sha256(data).hexdigest()
            if known.get(doc_id) == digest:
                yield Unchanged(doc_id)
            else:
                content = read_markdown(data, Limits())
                yield Document(doc_id, content.title or doc_id, "text/markdown", digest, len(data), content)


def publish(folder: Path, number: int, *, wait_s: float = 0.0) -> None:
    """Publish a version in a home."""
    settings = BuildSettings(keep_generations=KEPT, wait_s=wait_s)
    sync(Home(folder / "home"), [Texts(version(number))], encoder(), settings=settings)


def served(folder: Path) -> dict[str, str]:
    """Return the texts that a home serves; every file was checked, and every citation of two answers verified."""
    try:
        generation = Home(folder / "home").open_current()
    except NoGenerationError:
        return {}
    with closing(generation):
        texts = {record.doc_id: generation.corpus.text(record) for record in generation.corpus.documents()}
        _check_answers(generation, texts, folder)
    return texts


def _check_answers(generation: Generation, texts: Mapping[str, str], folder: Path) -> None:
    weights = weights_of(folder / "home", generation.manifest)
    asked = [Question(text) for text in QUESTIONS]
    for answer in answer_questions(generation, encoder(), asked, weights=weights):
        assert answer.passages, "a question found nothing"
        for cited in (passage.citation for passage in answer.passages):
            document = cited.document
            saved = SavedCitation(document.id, document.sha256, cited.start, cited.end, cited.quote)
            present = PresentText(texts[document.id], document.sha256)
            found = verify(saved, lambda _, present=present: present)
            assert found.standing is Standing.FOUND, f"a citation is {found.standing.value}"


def _look_for(old: Mapping[str, str], new: Mapping[str, str]) -> Callable[[Path], str]:
    def look(folder: Path) -> str:
        texts = served(folder)
        assert texts in (old, new), f"neither of the two versions is there, but {sorted(texts)}"
        return NEW if texts == new else OLD

    return look


def _three_versions(folder: Path) -> None:
    for number in (1, 2, 3):
        publish(folder, number)


def _roll_back(folder: Path) -> None:
    """Publish the oldest generation; doing it twice does no more."""
    home = Home(folder / "home")
    oldest = min(home.manifests(), key=lambda manifest: manifest.number)
    home.roll_back(oldest.name, wait_s=0)


# The state: keys, feedback, uploads and their tasks.


def _prepare_state(folder: Path) -> None:
    publish(folder, 1)
    _create_key(folder)
    _give_feedback(folder)


def _create_key(folder: Path) -> None:
    with State(folder / "home") as state, closing(KeyStore(state)) as keys:
        keys.create("bot", Scope.ASK)


def _give_feedback(folder: Path) -> None:
    with State(folder / "home") as state:
        store = FeedbackStore(state, question_log_days=0, feedback_days=365)
        store.add(Feedback("Who wrote it?", Rating.DOWN))


def _rows(folder: Path, table: str) -> int:
    """Count the rows of a table, after SQLite has checked the whole file."""
    with State(folder / "home") as state, state.reading() as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
        (count,) = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
    assert served(folder) == version(1)
    return int(count)


def _look_at_rows(table: str) -> Callable[[Path], str]:
    def look(folder: Path) -> str:
        count = _rows(folder, table)
        assert count >= 1, "a row is gone that was there before"
        return OLD if count == 1 else NEW

    return look


def _put(
    folder: Path, doc_id: str = "cats.md", data: bytes = b"# Cats\n\nCats purr when they are content.\n"
) -> None:
    """Receive a document and enqueue it, as a request does."""
    with State(folder / "home") as state:
        uploads, tasks = Uploads(folder / "home", state), TaskQueue(state)
        incoming = uploads.receive()
        try:
            incoming.write(data)
            upload = Upload(doc_id, incoming.file, doc_id, incoming.finish(), len(data), put_at="2026-11-21")
            tasks.enqueue_puts([upload], keep=uploads.keep)
        finally:
            incoming.discard()


def _put_and_sweep(folder: Path) -> None:
    """Put a document unless it waits already, and clean up as the indexer does, an hour later."""
    if _look_at_puts(folder) == OLD:
        _put(folder)
    for path in (folder / "home" / "uploads").glob(f"{PARTIAL_PREFIX}*"):
        os.utime(path, (0, 0))
    with State(folder / "home") as state:
        TaskQueue(state).sweep(Uploads(folder / "home", state))


def _look_at_puts(folder: Path) -> str:
    """Tell whether a task waits, and check that the file of each is there, whole."""
    with State(folder / "home") as state:
        waiting = [task for task in TaskQueue(state).page(limit=100) if task.status is TaskStatus.ENQUEUED]
    for upload in (each.upload for task in waiting for each in task.documents):
        assert upload is not None, "a task has lost what is to be put"
        data = (folder / "home" / "uploads" / upload.file).read_bytes()
        assert hashlib.sha256(data).hexdigest() == upload.sha256, "a file of an upload is not whole"
    return NEW if waiting else OLD


def _prepare_indexing(folder: Path) -> None:
    publish(folder, 1)
    _put(folder)
    _index_uploads(folder)
    with State(folder / "home") as state:
        TaskQueue(state).enqueue_delete("cats.md")
    _put(folder, "dogs.md", b"# Dogs\n\nDogs bark at strangers.\n")


class _IndexingWithDigests(_Indexing):
    def _encoder(self, model: str) -> Encoder:
        return encoder()


def _index_uploads(folder: Path) -> None:
    """Do what the indexer's process does until nothing waits, with embeddings that cost nothing."""
    with State(folder / "home") as state:
        indexing = _IndexingWithDigests(Settings(home=folder / "home", keep_generations=KEPT), state)
        indexing._work()
        if TaskQueue(state).has_unfinished():
            raise StateError("What was claimed was put back, to be tried again.")


def _look_at_uploads(folder: Path) -> str:
    texts = served(folder)
    assert texts.keys() in ({*version(1), "cats.md"}, {*version(1), "dogs.md"}), f"not whole: {sorted(texts)}"
    with State(folder / "home") as state:
        tasks = TaskQueue(state).page(limit=100)
        assert TaskStatus.FAILED not in {task.status for task in tasks}, "a task was given up"
        is_done = not TaskQueue(state).has_unfinished()
        uploads = Uploads(folder / "home", state).planned().tries
        for upload in (upload for tries in uploads.values() for upload in tries):
            assert (folder / "home" / "uploads" / upload.file).exists(), "the file of an upload is gone"
    if is_done:
        assert "dogs.md" in texts, "a task that is done has no effect"
        assert set(uploads) == {"dogs.md"}, "what was published was not made permanent"
    return NEW if is_done else OLD


# Calibration, backups, batches.


def _calibration(number: int) -> Calibration:
    return Calibration(
        weights=default_weights().confidence,
        created="2026-11-21T06:00:01+00:00",
        model=encoder().identity.name,
        model_files_sha256=encoder().identity.files_sha256,
        reranker=None,
        generation="20261121T060001Z-3f9c2a",
        format_version=2,
        making={},
        labels_sha256="",
        answerable=number,
        unanswerable=10,
        silence=0.08,
    )


def _calibrate(folder: Path, answerable: int = 30) -> None:
    write_calibration(folder / "home", _calibration(answerable))


def _prepare_calibrated(folder: Path) -> None:
    publish(folder, 1)
    _calibrate(folder, 20)


def _look_at_calibration(folder: Path) -> str:
    assert served(folder) == version(1)
    calibration = read_calibration(folder / "home")
    assert calibration in (_calibration(20), _calibration(30)), "the calibration is gone"
    return NEW if calibration == _calibration(30) else OLD


def _back_up(folder: Path) -> None:
    back_up(Home(folder / "home"), folder / "backup.tar")


def _prepare_backup(folder: Path) -> None:
    _prepare_indexing(folder)
    _back_up(folder)
    _calibrate(folder)  # by which the next one can be told from this


def _look_at_backup(folder: Path) -> str:
    assert {"guide.md", "cats.md"} <= served(folder).keys()
    with tempfile.TemporaryDirectory() as scratch:
        restore(Home(Path(scratch) / "home"), folder / "backup.tar")
        assert served(Path(scratch)) == served(folder)
    with tarfile.open(folder / "backup.tar") as archive:
        return NEW if "confidence.json" in archive.getnames() else OLD


def _prepare_restore(folder: Path) -> None:
    _prepare_backup(folder)
    _back_up(folder)
    (folder / "home").rename(folder / "gone")
    publish(folder, 9)


def _restore(folder: Path) -> None:
    restore(Home(folder / "home"), folder / "backup.tar", wait_s=0)


def _look_at_restored(folder: Path) -> str:
    texts = served(folder)
    if texts == version(9):
        return OLD
    assert texts.keys() == {*version(1), "cats.md"}, f"not whole: {sorted(texts)}"
    with State(folder / "home") as state:
        uploads = Uploads(folder / "home", state)
        upload = uploads.find("cats.md")
        assert upload is not None, "an upload is in the index and not in the state"
        assert uploads.path(upload).exists(), "an upload is without its file"
    assert read_calibration(folder / "home") is not None
    return NEW


def _batch(folder: Path) -> None:
    """Write a result of three parts, or go on with it."""

    def manifest(size: int, sha256: str) -> str:
        return json.dumps({**RUN, "output": {"size": size, "sha256": sha256}})

    with Journal(folder / "answers.jsonl") as journal:
        if journal.finished(RUN) is not None:
            return
        journal.begin(RUN, restart=False, can_go_on=True)
        for part in PARTS[journal.counts.rows :]:
            journal.append(part, Counts(1, 1, 0, 0))
        journal.finish(manifest)


def _look_at_batch(folder: Path) -> str:
    path = folder / "answers.jsonl"
    if not path.exists():
        return OLD
    assert path.read_bytes() == b"".join(PARTS), "the result is not whole"
    return NEW


# The cache of exported models.


def _import_torch() -> None:
    import_module("sentence_transformers")
    import_module("torch.onnx")


def _prepare_model(folder: Path) -> None:
    write_tiny_model(folder / "tiny")


def _load_model(folder: Path) -> None:
    """Load a model that has to be exported first."""
    load_encoder(str(folder / "tiny" / "model"), cache_folder=folder / "cache")


def _load_model_later(folder: Path) -> None:
    for path in (folder / "cache").glob(".export-*"):
        os.utime(path, (0, 0))
    _load_model(folder)


def _look_at_model(folder: Path) -> str:
    """Tell whether an export is there; what is not whole must be noticed by whoever loads it."""
    return NEW if list((folder / "cache").glob("onnx-*/encoder.json")) else OLD


def _nothing(folder: Path) -> None:
    """Begin with an empty folder."""


WORKS = (
    Work("first index", _nothing, lambda folder: publish(folder, 1), _look_for({}, version(1))),
    Work("index", _three_versions, lambda folder: publish(folder, 4), _look_for(version(3), version(4))),
    Work(
        "rollback",
        _three_versions,
        _roll_back,
        _look_for(version(3), version(2)),
    ),
    Work("key", _prepare_state, _create_key, _look_at_rows("keys")),
    Work("feedback", _prepare_state, _give_feedback, _look_at_rows("feedback")),
    Work("put", lambda folder: publish(folder, 1), _put, _look_at_puts, again=_put_and_sweep),
    Work("indexer", _prepare_indexing, _index_uploads, _look_at_uploads),
    Work("calibrate", _prepare_calibrated, _calibrate, _look_at_calibration),
    Work("backup", _prepare_backup, _back_up, _look_at_backup),
    Work("restore", _prepare_restore, _restore, _look_at_restored),
    Work("batch", _nothing, _batch, _look_at_batch),
    Work("model", _prepare_model, _load_model, _look_at_model, again=_load_model_later, load=_import_torch),
)


def left_in(folder: Path) -> list[str]:
    """List what a folder holds, with names that differ from run to run made alike."""
    return sorted(_NAMES.sub("NAME", str(path.relative_to(folder))) for path in folder.rglob("*"))
