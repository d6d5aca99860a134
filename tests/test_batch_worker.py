"""Processes that answer: what they send, what they do when something is wrong, and that they go."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from sources_in_memory import MemorySource
from tiny_models import write_tiny_model

from index.answers import Answer
from index.build import sync
from index.embeddings import load_encoder
from index.errors import GenerationError, ModelError, WhenceError
from index.generations import Home
from index.weights import default_weights
from service import batch_worker
from service.batch_formats import OutputFormat
from service.batch_output import JsonLines, Shape
from service.batch_worker import Answerer, Failure, Opened, Outcome, Ready, Work, Worker, Workers

TEXTS = {"router.md": "The red light of the router means that there is no power.\n"}
QUESTION = "What does the red light mean?"


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, cache_folder: Path) -> Work:
    """A small index with a small model."""
    folder, models = tmp_path_factory.mktemp("work"), cache_folder / "models"
    model = str(write_tiny_model(folder))
    home = Home(folder / "home")
    sync(home, [MemorySource(TEXTS)], load_encoder(model, cache_folder=models, backend="onnx-float32"))
    with closing(home.open_current()) as generation:
        shape = Shape(OutputFormat.JSONL, top_k=1, fields=frozenset({"question", "answered"}))
        return Work(generation.folder, model, models, "onnx-float32", "full", 1, None, None, default_weights(), shape)


@pytest.fixture
def answerer(work: Work) -> Answerer:
    answerer = Answerer(work)
    answerer.load()
    return answerer


class Mistaken(JsonLines):
    """An output with a mistake that some answers meet."""

    def render(self, answer: Answer) -> bytes:
        """Divide by the number of letters above two."""
        return super().render(answer)[: 100 // (len(answer.question) - 2)]


def test_answers_come_rendered(answerer: Answerer) -> None:
    outcomes = answerer.answer([QUESTION, "Who?"])
    assert isinstance(outcomes, list)
    assert [json.loads(outcome.payload or b"") for outcome in outcomes] == [
        {"question": QUESTION, "answered": outcomes[0].is_answered},
        {"question": "Who?", "answered": outcomes[1].is_answered},
    ]


def test_a_mistake_of_ours_costs_only_the_question_that_meets_it(answerer: Answerer) -> None:
    answerer._output = Mistaken(Shape(OutputFormat.JSONL, 1))
    outcomes = answerer.answer(["Who?", "is", "What?"])
    assert isinstance(outcomes, list)
    assert [outcome.payload is None for outcome in outcomes] == [False, True, False]
    reason = "The question cannot be answered: ZeroDivisionError: integer division or modulo by zero"
    assert outcomes[1] == Outcome(None, error=reason)


def test_what_no_question_is_to_blame_for_ends_it(answerer: Answerer) -> None:
    answerer._generation.close()
    failure = answerer.answer([QUESTION])
    assert failure == Failure("The questions cannot be answered: Cannot operate on a closed database.")


def test_torch_has_all_cores_because_its_bits_depend_on_them(work: Work) -> None:
    alone = Answerer(replace(work, backend="torch"))
    assert alone.load() == Ready(is_alone=True)
    assert Answerer(work).load() == Ready(is_alone=False)


def test_another_model_than_the_generations_is_refused(work: Work, tmp_path: Path) -> None:
    other = str(write_tiny_model(tmp_path, seed=1))
    with pytest.raises(ModelError, match="The index was built with the model"):
        Answerer(replace(work, model=other)).load()
    with pytest.raises(WhenceError, match="The index was built with the model"):
        Workers(replace(work, model=other), 1)


def test_a_generation_that_is_gone_is_told(work: Work, tmp_path: Path) -> None:
    gone = replace(work, generation=tmp_path / "20261121T060001Z-3f9c2a")
    with pytest.raises(
        GenerationError, match=r"20261121T060001Z-3f9c2a was there a moment ago.*run the command again"
    ):
        Answerer(gone)
    with pytest.raises(WhenceError, match="was there a moment ago"):
        Workers(gone, 2)


@pytest.fixture
def worker(work: Work) -> Iterator[Worker]:
    worker = Worker(work)
    yield worker
    worker.leave()
    worker.wait()


def test_a_process_answers_block_after_block(worker: Worker) -> None:
    assert worker.receive() == Opened()
    worker.load()
    assert worker.is_busy
    assert worker.receive() == Ready(is_alone=False)
    for questions in ([QUESTION], ["Who? " * 800] * 64, ["Who?"]):
        worker.ask(questions, block=questions)
        outcomes = worker.receive()
        assert isinstance(outcomes, list)
        assert [json.loads(outcome.payload or b"")["question"] for outcome in outcomes] == questions
        assert not worker.is_busy


def test_a_process_that_is_killed_is_told(worker: Worker) -> None:
    worker._child.kill()
    with pytest.raises(WhenceError, match=r"has ended unexpectedly \(signal SIGKILL\)"):
        while True:
            worker.receive()


def test_several_processes_answer_at_the_same_time(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_worker, "_GRACE_S", 60.0)  # on a machine that is busy they end late, and not killed
    with Workers(work, 2) as workers:
        assert len(workers) == 2
        answered: list[str] = []
        blocks = [[f"{number} and what?"] for number in range(6)]
        while len(answered) < 6:
            for worker in workers.idle():
                if blocks:
                    block = blocks.pop()
                    worker.ask(block, block)
            answered += [question for block, _ in workers.outcomes() for question in block]
        children = [worker._child for worker in workers._workers]
    assert sorted(answered) == [f"{number} and what?" for number in range(6)]
    assert [child.returncode for child in children] == [0, 0]
