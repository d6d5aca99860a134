"""The published generation is kept open, the next one taken over, and nothing that is being used is closed."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sources_in_memory import MemorySource
from tiny_models import write_tiny_model
from waiting import until

from index.answers import Question, answer_questions
from index.build import BuildSettings, sync
from index.embeddings import Encoder, load_encoder
from index.errors import ModelError
from index.generations import Home
from index.manifest import Manifest
from service.problems import Problem
from service.serving import Served, Serving

RED = Question("What does the red light mean?")
FIRST = {"router.md": "# Router\n\nThe red light means that there is no power."}
SECOND = {"router.md": "# Router\n\nThe red light means that it is asleep."}


@contextmanager
def following(home: Home, encoder: Encoder, told: list[Manifest] | None = None) -> Iterator[Serving]:
    """Follow a home."""
    serving = Serving(home, lambda name: encoder, on_change=[].append if told is None else told.append)
    serving.start()
    try:
        yield serving
    finally:
        serving.stop()


def answer_of(served: Served) -> str:
    """Ask what is served."""
    (answer,) = answer_questions(served.generation, served.encoder, [RED])
    assert answer.answer is not None
    return answer.answer.text


def is_serving(serving: Serving, name: str) -> bool:
    """Tell whether a generation is served."""
    return serving.is_ready and serving.manifest.name == name


def test_nothing_is_served_until_something_is_published(home: Home, encoder: Encoder) -> None:
    with following(home, encoder) as serving:
        assert not serving.is_ready
        with pytest.raises(Problem, match="being opened or built") as refusal, serving.lease():
            pass
        assert (refusal.value.code, refusal.value.status) == ("starting", 503)
        report = sync(home, [MemorySource(FIRST)], encoder)
        until(lambda: is_serving(serving, report.generation))


def test_a_new_generation_is_served_within_a_second_and_the_old_one_stays_open_while_it_is_used(
    home: Home, encoder: Encoder
) -> None:
    told: list[Manifest] = []
    sync(home, [MemorySource(FIRST)], encoder)
    with following(home, encoder, told) as serving:
        until(lambda: serving.is_ready)
        with serving.lease() as old:
            report = sync(home, [MemorySource(SECOND)], encoder, settings=BuildSettings(keep_generations=1))
            until(lambda: is_serving(serving, report.generation), seconds=1)
            assert report.pruned == (old.generation.name,)
            assert answer_of(old) == "The red light means that there is no power."
            with serving.lease() as new:
                assert answer_of(new) == "The red light means that it is asleep."
        with pytest.raises(Exception, match="closed"):
            old.generation.corpus.counts()
    assert [manifest.name for manifest in told] == [old.generation.name, report.generation]


def test_a_generation_that_is_rolled_back_to_is_served(home: Home, encoder: Encoder) -> None:
    first = sync(home, [MemorySource(FIRST)], encoder)
    sync(home, [MemorySource(SECOND)], encoder)
    with following(home, encoder) as serving:
        until(lambda: serving.is_ready)
        home.roll_back()
        until(lambda: is_serving(serving, first.generation), seconds=1)


def test_what_is_open_goes_on_being_served_when_the_home_is_removed(home: Home, encoder: Encoder) -> None:
    sync(home, [MemorySource(FIRST)], encoder)
    with following(home, encoder) as serving:
        until(lambda: serving.is_ready)
        shutil.rmtree(home.path)
        with serving.lease() as served:
            assert answer_of(served) == "The red light means that there is no power."


def test_a_damaged_generation_is_not_served(home: Home, encoder: Encoder, caplog: pytest.LogCaptureFixture) -> None:
    first = sync(home, [MemorySource(FIRST)], encoder)
    with following(home, encoder) as serving:
        until(lambda: serving.is_ready)
        broken = home.generations_path / "20300101T000000Z-bad"
        shutil.copytree(home.folder(first.generation), broken)
        home.publish(broken.name)
        until(lambda: home.published_name() == first.generation)
        assert serving.manifest.name == first.generation
        with serving.lease() as served:
            assert answer_of(served) == "The red light means that there is no power."
    assert "names another generation" in caplog.text


def test_another_model_is_loaded_with_the_generation_that_needs_it(
    home: Home, encoder: Encoder, cache_folder: Path, tmp_path: Path
) -> None:
    tiny = load_encoder(str(write_tiny_model(tmp_path)), cache_folder=cache_folder / "tiny")
    sync(home, [MemorySource(FIRST)], encoder)
    loaded: list[str] = []

    def load(name: str) -> Encoder:
        loaded.append(name)
        return tiny if name == tiny.identity.name else encoder

    serving = Serving(home, load, on_change=lambda manifest: None)
    serving.start()
    try:
        until(lambda: serving.is_ready)
        report = sync(home, [MemorySource(FIRST)], tiny)
        until(lambda: is_serving(serving, report.generation))
        with serving.lease() as served:
            assert served.encoder is tiny
    finally:
        serving.stop()
    assert loaded == [encoder.identity.name, tiny.identity.name]


def test_a_generation_of_another_model_than_the_one_asked_for_is_refused(
    home: Home, encoder: Encoder, cache_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tiny = load_encoder(str(write_tiny_model(tmp_path)), cache_folder=cache_folder / "tiny")
    sync(home, [MemorySource(FIRST)], encoder)
    with following(home, tiny) as serving:
        until(lambda: "built with the model" in caplog.text)
        assert not serving.is_ready
    assert ModelError.__name__ not in caplog.text


def test_documents_can_be_read_while_a_question_is_answered(home: Home, encoder: Encoder) -> None:
    sync(home, [MemorySource(FIRST)], encoder)
    with following(home, encoder) as serving:
        until(lambda: serving.is_ready)
        with serving.lease() as served, serving.corpus() as corpus:
            record = corpus.document("router.md")
            assert record is not None
            assert corpus.text(record) == FIRST["router.md"]
            assert answer_of(served) == "The red light means that there is no power."
