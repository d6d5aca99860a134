"""Processes that answer the questions of a batch, each with the model and the generation open on its own.

Parent and child speak over the child's standard input and output. A child does not outlive its parent: without one
its input ends.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self, cast

from index.answers import Answer, Question, answer_questions, check_model
from index.embeddings import QueryEncoder, TorchEncoder, load_encoder
from index.errors import GenerationError, WhenceError
from index.filters import Filters
from index.generations import Generation
from index.instant import instant_encoder
from index.manifest import read_manifest
from index.reranking import load_reranker
from index.weights import EncoderName, Weights
from service.batch_output import Shape, output_of

_ROOT = Path(__file__).parents[1]  # the folder that holds the packages, installed or not
_COMMAND = (sys.executable, "-c", "from service.batch_worker import main; main()")
_GRACE_S = 10.0  # for a child to end by itself

BLOCK = 64  # questions given to a process at a time, at most


@dataclass(frozen=True)
class Work:
    """What a child needs to know.

    Attributes:
        generation: its folder.
        model: name or absolute path.
        models: folder of exported models.
        backend: see `load_encoder`.
        encoder: of the questions.
        top_k, filters, min_confidence: of every question.
        weights: of scores and confidence.
        shape: of the rows that are made.
        reranker: name or absolute path of one; None when there is none.
    """

    generation: Path
    model: str
    models: Path
    backend: str
    encoder: EncoderName
    top_k: int
    filters: Filters | None
    min_confidence: float | None
    weights: Weights
    shape: Shape
    reranker: str | None = None


@dataclass(frozen=True)
class Opened:
    """A child has the generation open, which may be pruned from now on."""


@dataclass(frozen=True)
class Loading:
    """A child may load the model."""


@dataclass(frozen=True)
class Ready:
    """A child can be asked.

    Attributes:
        is_alone: whether it uses all cores, because only so it gives the bits that a question gets elsewhere.
    """

    is_alone: bool


@dataclass(frozen=True)
class Failure:
    """A child cannot go on; the text says why."""

    reason: str


@dataclass(frozen=True)
class Outcome:
    """What became of a question.

    Attributes:
        payload: its answer as rendered; None when there is none.
        is_answered: whether it was answered, and not "not found".
        error: why there is no answer.
    """

    payload: bytes | None
    is_answered: bool = False
    error: str | None = None


class Worker:
    """A child process, seen from its parent. It is busy at first: it opens the generation.

    Attributes:
        is_busy: whether it works on something.
        block: what was given to it, to be put beside the outcomes.
    """

    def __init__(self, work: Work) -> None:
        self._child = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            _COMMAND,
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            process_group=0,  # what the terminal sends to stop is for the parent
            bufsize=0,
        )
        self._requests = _connection(_taken(self._child.stdin), is_inbox=False)
        self.outcomes = _connection(_taken(self._child.stdout), is_inbox=True)
        self.is_busy = True
        self.block: Sequence[Any] = ()
        self._send(work)

    def ask(self, questions: Sequence[str], block: Sequence[Any]) -> None:
        """Give it questions; it must not be busy."""
        self.is_busy = True
        self.block = block
        self._send(list(questions))

    def load(self) -> None:
        """Have it load the model; it must have opened the generation."""
        self.is_busy = True
        self._send(Loading())

    def receive(self) -> Opened | Ready | list[Outcome]:
        """Return its next message, waiting for it.

        Raises:
            WhenceError: it cannot go on, or has ended.
        """
        try:
            message: Opened | Ready | Failure | list[Outcome] = self.outcomes.recv()
        except (EOFError, OSError) as exc:
            raise self._death() from exc
        if isinstance(message, Failure):
            raise WhenceError(message.reason)
        self.is_busy = False
        return message

    def leave(self) -> None:
        """Tell it that nothing more will come: it ends when it is done with what it has."""
        self._requests.close()
        self.outcomes.close()

    def wait(self) -> None:
        """Wait until it has ended, but not for long."""
        try:
            self._child.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()

    def _send(self, message: Any) -> None:
        try:
            self._requests.send(message)
        except OSError as exc:
            raise self._death() from exc

    def _death(self) -> WhenceError:
        code = self._child.wait()
        cause = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return WhenceError(
            f"A process that answers questions has ended unexpectedly ({cause}). If memory is short, have fewer of "
            "them: --workers 1"
        )


class Workers:
    """The child processes of a run.

    Args:
        work: for each of them.
        count: how many there may be.

    Raises:
        WhenceError: the model or the generation cannot be opened.
    """

    def __init__(self, work: Work, count: int) -> None:
        self._workers: list[Worker] = []
        try:
            self._start(work, count)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._workers)

    def block_size(self, waiting: int) -> int:
        """Return how many questions are given to a process at a time, so that all get some."""
        return min(BLOCK, -(-waiting // (2 * len(self))))

    def idle(self) -> list[Worker]:
        """Return those that have nothing to do."""
        return [worker for worker in self._workers if not worker.is_busy]

    def outcomes(self) -> Iterator[tuple[Sequence[Any], list[Outcome]]]:
        """Wait until one of those that are busy has something, then yield what there is: blocks with their outcomes.

        Raises:
            WhenceError: see `Worker.receive`.
        """
        inboxes = {worker.outcomes: worker for worker in self._workers if worker.is_busy}
        for inbox in wait(list(inboxes)):
            worker = inboxes[cast(Connection, inbox)]
            message = worker.receive()
            if isinstance(message, list):
                yield worker.block, message

    def close(self) -> None:
        """End them."""
        _end(self._workers)

    def _start(self, work: Work, count: int) -> None:
        """Start them; the first loads the model alone: it exports it if need be, and tells whether others may."""
        for _ in range(count):
            self._workers.append(Worker(work))
        for worker in self._workers:
            worker.receive()
        first, *others = self._workers
        first.load()
        ready = first.receive()
        if isinstance(ready, Ready) and ready.is_alone:
            self._workers = [first]
            _end(others)
        else:
            for worker in others:
                worker.load()


def _end(workers: Sequence[Worker]) -> None:
    for worker in workers:
        worker.leave()
    for worker in workers:
        worker.wait()


def main() -> None:
    """Serve as the child: answer one block of questions after another, until the parent is gone."""
    inbox, outbox = _take_over_pipes()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the parent gets them too, and says when it is time to leave
    with suppress(EOFError, BrokenPipeError):
        try:
            answerer = Answerer(inbox.recv())
            outbox.send(Opened())
            inbox.recv()  # it may load
            outbox.send(answerer.load())
        except WhenceError as error:
            outbox.send(Failure(str(error)))
            return
        while True:
            outbox.send(answerer.answer(inbox.recv()))


class Answerer:
    """Answers questions in the child.

    Args:
        work: what it needs to know.

    Attributes:
        encoder: of the questions, once it is loaded.

    Raises:
        GenerationError: the generation cannot be opened.
    """

    def __init__(self, work: Work) -> None:
        self._work = work
        self._output = output_of(work.shape)
        try:
            self._generation = Generation(work.generation, read_manifest(work.generation))
        except GenerationError as exc:
            raise GenerationError(
                f"The generation {work.generation.name} was there a moment ago and cannot be opened now: {exc}. "
                "It may have been pruned; run the command again."
            ) from exc

    def load(self) -> Ready:
        """Load the model, and the reranker. What torch runs has all cores: its bits depend on their number.

        Raises:
            ModelError: one of them cannot be loaded, or the model is not the generation's.
        """
        self.encoder = _encoder(self._work, self._generation)
        check_model(self._generation, self.encoder)
        self._reranker = load_reranker(self._work.reranker) if self._work.reranker else None
        return Ready(is_alone=self._reranker is not None or isinstance(self.encoder, TorchEncoder))

    def answer(self, questions: Sequence[str]) -> list[Outcome] | Failure:
        """Answer questions; a mistake of ours that is met by one of them costs only that one."""
        try:
            asked = [self._question(text) for text in questions]
            answers = answer_questions(
                self._generation, self.encoder, asked, weights=self._work.weights, reranker=self._reranker
            )
            return [self._outcome(answer) for answer in answers]
        except (WhenceError, OSError, sqlite3.Error, MemoryError) as exc:
            return Failure(f"The questions cannot be answered: {exc or type(exc).__name__}")
        except Exception as exc:  # the edge of the process
            if len(questions) == 1:
                return [Outcome(None, error=f"The question cannot be answered: {type(exc).__name__}: {exc}")]
            return self._one_by_one(questions)

    def _one_by_one(self, questions: Sequence[str]) -> list[Outcome] | Failure:
        outcomes: list[Outcome] = []
        for question in questions:
            outcome = self.answer([question])
            if isinstance(outcome, Failure):
                return outcome
            outcomes += outcome
        return outcomes

    def _question(self, text: str) -> Question:
        work = self._work
        return Question(text, top_k=work.top_k, filters=work.filters, min_confidence=work.min_confidence)

    def _outcome(self, answer: Answer) -> Outcome:
        return Outcome(self._output.render(answer), answer.answered)


def _encoder(work: Work, generation: Generation) -> QueryEncoder:
    if work.encoder == "instant":
        return instant_encoder(generation, name=work.model)
    return load_encoder(work.model, cache_folder=work.models, backend=work.backend)


def _take_over_pipes() -> tuple[Connection, Connection]:
    """Return the pipes from and to the parent, out of reach of libraries that read or print."""
    requests, outcomes = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    os.close(nothing)
    return _connection(requests, is_inbox=True), _connection(outcomes, is_inbox=False)


def _taken(stream: IO[bytes] | None) -> int:
    """Return a descriptor of a stream that nobody else closes."""
    with cast(IO[bytes], stream) as taken:
        return os.dup(taken.fileno())


def _connection(descriptor: int, *, is_inbox: bool) -> Connection:
    return Connection(descriptor, readable=is_inbox, writable=not is_inbox)
