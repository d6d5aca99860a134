"""The questions of a batch answered by the workers of a Ray cluster, which all see the same home."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from index.cluster import WAVE_BLOCKS, Cluster, ClusterSettings
from index.errors import ClusterError, GenerationError, WhenceError
from index.jobs import check_probe, probe_of, refuse_torch
from index.manifest import Manifest, read_manifest
from service.batch_worker import BLOCK, Answerer, Failure, Outcome, Work

# Of a file with few questions every worker gets so many blocks.
_BLOCKS_OF_WORKER = 4


@dataclass(frozen=True)
class AnswerJob:
    """Answers questions; see `index.jobs.Job`.

    Attributes:
        work: as for a process on the machine that runs the command.
        manifest: of the generation as that machine sees it.
        probe: of its encoder, see `probe_of`.
    """

    work: Work
    manifest: Manifest
    probe: str

    @classmethod
    def of(cls, work: Work) -> AnswerJob:
        """Describe what would be answered here.

        Raises:
            ClusterError: the answers depend on the machine: a model, or a reranker, runs on torch.
            WhenceError: the generation or the model cannot be opened.
        """
        answerer = Answerer(work)
        ready = answerer.load()
        refuse_torch(answerer.encoder)
        if ready.is_alone:
            raise ClusterError(
                f"The reranker {work.reranker} runs on torch, whose bits depend on the processors of a machine: on a "
                "cluster the answers would not be those of one machine. Leave out --reranker, or use --engine local."
            )
        return cls(work, read_manifest(work.generation), probe_of(answerer.encoder))

    @contextmanager
    def open(self) -> Iterator[Callable[[Sequence[str]], list[Outcome]]]:
        """See `Job.open`."""
        self._check_generation()
        answerer = Answerer(self.work)
        answerer.load()
        check_probe(answerer.encoder, self.probe)

        def answer(questions: Sequence[str]) -> list[Outcome]:
            outcomes = answerer.answer(questions)
            if isinstance(outcomes, Failure):
                raise WhenceError(outcomes.reason)
            return outcomes

        yield answer

    def _check_generation(self) -> None:
        """Make sure that the generation is seen here as it was published."""
        folder = self.work.generation
        try:
            is_same = read_manifest(folder) == self.manifest and all(
                (folder / name).stat().st_size == record.size for name, record in self.manifest.files.items()
            )
        except (OSError, GenerationError):
            is_same = False
        if not is_same:
            raise ClusterError(
                f"The generation {folder.name} is not at {folder} there as it was published. Every machine of the "
                "cluster has to see the home at the same path: put it in a shared folder (--home)."
            )


class _Place:
    """A place for a block in the next wave."""

    def __init__(self, asked: list[tuple[Sequence[str], Sequence[Any]]]) -> None:
        self._asked = asked

    def ask(self, questions: Sequence[str], block: Sequence[Any]) -> None:
        """See `Answering.ask`."""
        self._asked.append((questions, block))


class RayWorkforce:
    """Answers wave after wave; see `service.batch_pipeline.Workforce`.

    Args:
        work: as for a process on this machine.
        settings: of the cluster.
        rows: about how many questions there are; None when it is not known.

    Raises:
        ClusterError: the cluster cannot be used, or the answers would depend on the machine.
        WhenceError: the generation or the model cannot be opened.
    """

    def __init__(self, work: Work, settings: ClusterSettings, *, rows: int | None) -> None:
        self._job = AnswerJob.of(work)
        self._cluster = Cluster(settings)
        self._asked: list[tuple[Sequence[str], Sequence[Any]]] = []
        self._wave: Iterator[tuple[Sequence[Any], list[Outcome]]] | None = None
        fair = BLOCK if rows is None else rows // (_BLOCKS_OF_WORKER * self._cluster.workers)
        self._block_size = max(1, min(BLOCK, fair))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cluster.close()

    def __len__(self) -> int:
        return WAVE_BLOCKS * self._cluster.workers

    def block_size(self, waiting: int) -> int:
        """Return how many questions a block has."""
        return self._block_size

    def idle(self) -> list[_Place]:
        """Return the places of the next wave; none while there is one under way."""
        return [_Place(self._asked) for _ in range(len(self))] if self._wave is None else []

    def outcomes(self) -> Iterator[tuple[Sequence[Any], list[Outcome]]]:
        """Yield the next block of the wave, which begins with the first.

        Raises:
            WhenceError: see `Cluster.map`.
        """
        if self._wave is None:
            asked, self._asked[:] = list(self._asked), []
            answered = self._cluster.map(self._job, [questions for questions, _ in asked])
            self._wave = zip([block for _, block in asked], answered, strict=True)
        outcome = next(self._wave, None)
        if outcome is None:
            self._wave = None
        else:
            yield outcome
