"""Whatever is done to an index, in whatever order, it holds what a few dictionaries say it holds.

Hypothesis chooses the steps and makes what fails small. More of them, unattended:

    STEPS=2000 pytest tests/test_model.py
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from checking import check_answer, check_generation, cited, saved
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from putting import kept
from sources_in_memory import MemorySource
from tiny_encoder import WordEncoder

from index.answers import Question, answer_questions
from index.backups import back_up, restore
from index.build import BuildSettings, DocumentSource, SyncReport, sync
from index.citations import SavedCitation, Standing, verify
from index.errors import GenerationError, SourceError
from index.generations import Generation, Home
from index.present import PresentDocuments
from index.sources import Source
from index.state import State
from index.uploads import UPLOADS, Removal, Upload, Uploads, refusals

STEPS = int(os.environ.get("STEPS", "60"))
STEPS_IN_A_ROW = 20
KEPT = 2  # generations
HELD = 2  # readers that stay open whatever happens
MEMORY, NOTES, PUT = "memory", "notes/", "put/"
ENCODER = WordEncoder()
SETTINGS = BuildSettings(keep_generations=KEPT, allow_empty=True)

Texts = Mapping[str, str]

words = st.sampled_from(
    ["router", "switch", "red", "blue", "light", "query", "naïve", "東京タワー", "Straße", "🦀", "95", "°C", "–"]
)
sentences = st.lists(words, min_size=1, max_size=8).map(lambda chosen: f"The {' '.join(chosen)} is here.")
sections = st.tuples(words, st.lists(sentences, min_size=1, max_size=4).map(" ".join))
documents = st.lists(sections, min_size=1, max_size=3).map(
    lambda parts: "\n\n".join(
        f"{'#' * (1 + bool(number))} {title}\n\n{body}" for number, (title, body) in enumerate(parts)
    )
)
names = st.sampled_from(("a.md", "b.md", "deep/c.md"))
numbers = st.integers(0, 1_000)


@dataclass(frozen=True)
class Published:
    """What a generation must hold.

    Attributes:
        number: that orders it among the others.
        parent: the generation published when it was written.
        sources: key -> doc_id -> text.
    """

    number: int
    parent: str | None
    sources: Mapping[str, Texts]

    @property
    def texts(self) -> dict[str, str]:
        """All documents."""
        return {doc_id: text for texts in self.sources.values() for doc_id, text in texts.items()}


NOTHING = Published(0, None, {})


class BreakingSource(MemorySource):
    """A source that cannot be read to its end."""

    def read(self, known: Mapping[str, str]) -> Iterator[Any]:
        yield from super().read(known)
        raise OSError("The network share is gone")


def standing_in(text: str | None, citation: SavedCitation) -> Standing:
    """Tell how a citation stands, in the simplest way there is."""
    if text is None:
        return Standing.GONE
    if text[citation.start : citation.end] == citation.quote:
        return Standing.FOUND
    return Standing.MOVED if citation.quote in text else Standing.CHANGED


class Index(RuleBasedStateMachine):
    """A home on the disk, and beside it what it must hold."""

    def __init__(self) -> None:
        super().__init__()
        self.path = Path(tempfile.mkdtemp(prefix="whence-model-"))
        self.docs = self.path / "docs"
        self.docs.mkdir()
        self.generations: dict[str, Published] = {}
        self.published: str | None = None
        self.memory: dict[str, str] = {}  # the sources as they are, synced or not
        self.folder: dict[str, str] = {}
        self.put_texts: dict[str, str] = {}
        self.backup: tuple[str, Published, dict[str, str]] | None = None
        self.held: list[tuple[Generation, Texts]] = []
        self.citations: list[SavedCitation] = []
        self._open()

    def _open(self) -> None:
        self.home = Home(self.path / "home")
        self.state = State(self.home.path)
        self.uploads = Uploads(self.home.path, self.state)

    def teardown(self) -> None:
        for generation, _ in self.held:
            generation.close()
        self.state.close()
        shutil.rmtree(self.path)

    # What must hold after every step.

    @property
    def current(self) -> Published:
        return NOTHING if self.published is None else self.generations[self.published]

    @invariant()
    def the_home_holds_what_the_model_says(self) -> None:
        assert self.home.published_name() == self.published
        found = [(manifest.number, manifest.name) for manifest in self.home.manifests()]
        expected = [(generation.number, name) for name, generation in self.generations.items()]
        assert found == sorted(expected, reverse=True)
        if self.published is not None:
            with closing(self.home.open_current()) as generation:
                assert generation.name == self.published
                check_generation(generation, ENCODER, self.current.texts)

    @invariant()
    def what_was_put_is_kept(self) -> None:
        tries = self.uploads.planned().tries
        found = {doc_id: self.uploads.path(upload).read_text() for doc_id, (upload,) in tries.items()}
        assert found == self.put_texts

    @invariant()
    def what_was_opened_stays_as_it_was(self) -> None:
        for generation, texts in self.held:
            check_generation(generation, ENCODER, texts)

    # Publishing.

    def _sync(
        self, sources: Mapping[str, DocumentSource], texts: Mapping[str, Texts], *, remove: str = ""
    ) -> SyncReport:
        """Sync sources, and expect their documents beside those that the others had."""
        report = sync(self.home, list(sources.values()), ENCODER, remove=[remove], settings=SETTINGS)
        staying = {key: value for key, value in self.current.sources.items() if key != remove}
        is_new = self._expect(report.generation, {**staying, **{key: dict(texts[key]) for key in sources}})
        assert report.is_new == is_new
        return report

    def _expect(self, name: str, sources: Mapping[str, Texts]) -> bool:
        """Expect a generation with these documents: a new one, or the published one if nothing has changed."""
        is_new = self.published is None or sources != self.current.sources
        if is_new:
            assert name not in self.generations
            number = max((generation.number for generation in self.generations.values()), default=0) + 1
            self.generations[name] = Published(number, self.published, sources)
            self.published = name
        assert name == self.published
        self._expect_pruned(KEPT)
        return is_new

    def _expect_pruned(self, keep: int) -> None:
        newest = sorted(self.generations, key=lambda name: (self.generations[name].number, name), reverse=True)
        staying = {*newest[:keep], self.published}
        self.generations = {name: each for name, each in self.generations.items() if name in staying}

    def _source(self, key: str) -> tuple[DocumentSource, Texts]:
        if key == MEMORY:
            return MemorySource(self.memory, key=MEMORY, prefix=NOTES), _below(NOTES, self.memory)
        return Source(self.docs), self.folder

    @initialize(texts=st.dictionaries(names, documents, min_size=1))
    def begin(self, texts: dict[str, str]) -> None:
        self.memory = texts
        self.sync_one(MEMORY)

    @rule(doc_id=names, text=documents)
    def change_a_note(self, doc_id: str, text: str) -> None:
        self.memory[doc_id] = text
        self.sync_one(MEMORY)

    @rule(doc_id=names)
    def drop_a_note(self, doc_id: str) -> None:
        self.memory.pop(doc_id, None)
        self.sync_one(MEMORY)

    @rule(doc_id=names, text=documents)
    def write_a_file(self, doc_id: str, text: str) -> None:
        (self.docs / doc_id).parent.mkdir(exist_ok=True)
        (self.docs / doc_id).write_text(text)
        self.folder[doc_id] = text

    @rule(doc_id=names)
    def delete_a_file(self, doc_id: str) -> None:
        (self.docs / doc_id).unlink(missing_ok=True)
        self.folder.pop(doc_id, None)

    @rule(key=st.sampled_from((MEMORY, "folder")))
    def sync_one(self, key: str) -> None:
        source, texts = self._source(key)
        self._sync({source.key: source}, {source.key: texts})

    @rule()
    def sync_all(self) -> None:
        pairs = [self._source(key) for key in (MEMORY, "folder")]
        self._sync({source.key: source for source, _ in pairs}, {source.key: texts for source, texts in pairs})

    @rule(key=st.sampled_from((MEMORY, "folder")))
    def remove_a_source(self, key: str) -> None:
        self._sync({}, {}, remove=self._source(key)[0].key)

    @rule()
    def sync_a_source_that_breaks(self) -> None:
        source = BreakingSource({"new.md": "# New\n\nThis is never published."}, key="share")
        with pytest.raises(SourceError, match="cannot be read"):
            sync(self.home, [source], ENCODER, settings=SETTINGS)

    @precondition(lambda self: self.current.sources.get(MEMORY))
    @rule()
    def sync_a_source_that_became_empty(self) -> None:
        with pytest.raises(SourceError, match="documents and has none now"):
            sync(self.home, [MemorySource({}, prefix=NOTES)], ENCODER, settings=replace(SETTINGS, allow_empty=False))

    # Documents put over HTTP.

    def _change(self, changes: Sequence[Upload | Removal]) -> None:
        """Do what the indexer does with some changes."""
        report = self._sync({UPLOADS: self.uploads.planned(changes)}, {UPLOADS: self.put_texts})
        self.uploads.apply(changes, refused=refusals(changes, report.rejected))
        with self.state.transaction():
            self.uploads.sweep(needed=frozenset())
        files = list(self.uploads.folder.iterdir()) if self.uploads.folder.exists() else []
        assert sorted(path.read_text() for path in files) == sorted(self.put_texts.values())

    @rule(changes=st.lists(st.tuples(names, st.none() | documents), min_size=1, max_size=3))
    def put_and_delete(self, changes: list[tuple[str, str | None]]) -> None:
        planned: list[Upload | Removal] = []
        for name, text in changes:
            if text is None:
                planned.append(Removal(PUT + name))
                self.put_texts.pop(PUT + name, None)
            else:
                planned.append(kept(self.state, self.uploads, PUT + name, text))
                self.put_texts[PUT + name] = text
        self._change(planned)

    @precondition(lambda self: self.current.sources.get(str(self.docs)))
    @rule(text=documents)
    def put_under_the_id_of_a_file(self, text: str) -> None:
        doc_id = min(self.current.sources[str(self.docs)])
        self._change([kept(self.state, self.uploads, doc_id, text)])

    @rule(name=names)
    def put_what_is_no_document(self, name: str) -> None:
        self._change([kept(self.state, self.uploads, PUT + name, b"\x7fELF" + bytes(200))])

    # Going back.

    @rule(number=numbers)
    def roll_back_to_one(self, number: int) -> None:
        name = sorted(self.generations)[number % len(self.generations)]
        assert self.home.roll_back(name) == name
        self.published = name

    @rule()
    def roll_back(self) -> None:
        parent = self.current.parent
        if parent in self.generations:
            assert self.home.roll_back() == parent
            self.published = parent
            return
        with pytest.raises(GenerationError, match="is not there any more"):
            self.home.roll_back()

    @rule(keep=st.integers(1, KEPT))
    def prune(self, keep: int) -> None:
        with self.home.writer():
            removed = self.home.prune(keep)
        before = set(self.generations)
        self._expect_pruned(keep)
        assert set(removed) == before - set(self.generations)

    @rule()
    def back_up(self) -> None:
        name = back_up(self.home, self.path / "backup.tar")
        assert name == self.published
        self.backup = (name, self.current, dict(self.put_texts))

    @precondition(lambda self: self.backup)
    @rule()
    def restore(self) -> None:
        assert self.backup is not None
        name, generation, put_texts = self.backup
        assert restore(self.home, self.path / "backup.tar") == name
        self.generations[name], self.published = generation, name
        self.put_texts = dict(put_texts)

    @precondition(lambda self: len(self.generations) > 1)
    @rule(number=numbers, place=numbers)
    def damage(self, number: int, place: int) -> None:
        assert self.published is not None
        folder = self.home.folder(self.published)
        files = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
        file = files[number % len(files)]
        damaged = bytearray(file.read_bytes())
        damaged[place % len(damaged)] ^= 1
        file.unlink()  # those who read it keep the bytes that were there
        file.write_bytes(damaged)
        del self.generations[self.published]
        self.published = max(self.generations, key=lambda name: (self.generations[name].number, name))
        self.home.open_current().close()

    # Reading.

    @precondition(lambda self: len(self.held) < HELD)
    @rule()
    def hold(self) -> None:
        self.held.append((self.home.open_current(), self.current.texts))

    @rule(question=sentences)
    def ask(self, question: str) -> None:
        with closing(self.home.open_current()) as generation:
            (answer,) = answer_questions(generation, ENCODER, [Question(question)])
            (again,) = answer_questions(generation, ENCODER, [Question(question)])
        assert answer == again
        check_answer(answer, self.current.texts)
        self.citations += map(saved, cited(answer))

    def _present(self, doc_id: str) -> str | None:
        """Return a document as it is now: files as they are on the disk, others as they are published."""
        sources = self.current.sources
        files = self.folder if str(self.docs) in sources else {}
        put = self.put_texts if UPLOADS in sources else {}
        return {**files, **put, **sources.get(MEMORY, {})}.get(doc_id)

    @precondition(lambda self: self.citations)
    @rule()
    def verify_what_was_saved(self) -> None:
        with closing(self.home.open_current()) as generation, PresentDocuments(generation) as present:
            found = [verify(citation, present.text).standing for citation in self.citations]
        assert found == [standing_in(self._present(each.doc_id), each) for each in self.citations]

    @rule()
    def start_anew(self) -> None:
        self.state.close()
        self._open()


def _below(prefix: str, texts: Texts) -> dict[str, str]:
    return {prefix + doc_id: text for doc_id, text in texts.items()}


ONE, TWO, THREE = (
    f"# {word}\n\nThe {word} is {word}.\n\n## More\n\nMore of the {word}." for word in ("red", "one", "café")
)
IN_TURN: list[tuple[str, dict[str, Any]]] = [
    ("begin", {"texts": {"a.md": ONE, "b.md": TWO}}),
    ("change_a_note", {"doc_id": "a.md", "text": TWO}),
    ("drop_a_note", {"doc_id": "b.md"}),
    ("write_a_file", {"doc_id": "deep/c.md", "text": ONE}),
    ("sync_one", {"key": "folder"}),
    ("put_and_delete", {"changes": [("a.md", ONE), ("b.md", TWO)]}),
    ("put_and_delete", {"changes": [("a.md", THREE), ("a.md", TWO), ("b.md", None)]}),
    ("put_under_the_id_of_a_file", {"text": THREE}),
    ("put_what_is_no_document", {"name": "a.md"}),
    ("ask", {"question": "What is one?"}),
    ("hold", {}),
    ("back_up", {}),
    ("write_a_file", {"doc_id": "deep/c.md", "text": "A new line.\n\n" + ONE}),
    ("put_and_delete", {"changes": [("a.md", None), ("b.md", THREE)]}),
    ("verify_what_was_saved", {}),
    ("start_anew", {}),
    ("sync_all", {}),
    ("restore", {}),
    ("verify_what_was_saved", {}),
    ("put_and_delete", {"changes": [("deep/c.md", THREE)]}),
    ("delete_a_file", {"doc_id": "deep/c.md"}),
    ("sync_one", {"key": "folder"}),
    ("roll_back", {}),
    ("sync_a_source_that_breaks", {}),
    ("sync_a_source_that_became_empty", {}),
    ("roll_back_to_one", {"number": 1}),
    ("damage", {"number": 0, "place": 500}),
    ("remove_a_source", {"key": MEMORY}),
    ("change_a_note", {"doc_id": "b.md", "text": ONE}),
    ("prune", {"keep": 1}),
    ("roll_back", {}),
]


def test_every_step_does_what_is_expected_of_it() -> None:
    index = Index()
    try:
        for name, given in IN_TURN:
            getattr(index, name)(**given)
            index.the_home_holds_what_the_model_says()
            index.what_was_put_is_kept()
            index.what_was_opened_stays_as_it_was()
    finally:
        index.teardown()
    steps = {name for name, method in vars(Index).items() if hasattr(method, "hypothesis_stateful_rule")}
    assert {name for name, _ in IN_TURN} == {*steps, "begin"}


def test_an_index_holds_what_a_few_dictionaries_hold() -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Index,
        settings=settings(
            max_examples=max(1, STEPS // STEPS_IN_A_ROW),
            stateful_step_count=STEPS_IN_A_ROW,
            deadline=None,
            derandomize="STEPS" not in os.environ,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
