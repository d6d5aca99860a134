"""What a worker of a cluster is given to do: parts of the work as plain functions, which need no cluster to run.

A job is sent to each worker, which opens it once: it loads the model, and makes sure that it sees the same files and
computes the same bits as the machine that runs the command. Opened, a job is a function from one block of work to
its results. A result depends on its block alone, so that a block that was lost can be done again anywhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np

from index.chunks import split
from index.embeddings import (
    Embeddings,
    Encoder,
    ModelIdentity,
    ModelTokenizer,
    QueryEncoder,
    TorchEncoder,
    load_encoder,
)
from index.engines import SplitDocument
from index.errors import ClusterError, DocumentError
from index.readers.limits import Limits
from index.readers.worker import ReaderProcess
from index.sources import Rejected, SourceFile, digest_of_file, read_file

PROBES = (
    "The red light means that there is no power.",
    "A quick brown fox jumps over the lazy dog, 1,234 times; naïve café. 東京タワー",
)

Block = TypeVar("Block")
Result = TypeVar("Result")
BlockIn = TypeVar("BlockIn", contravariant=True)
ResultOut = TypeVar("ResultOut", covariant=True)


class Job(Protocol[BlockIn, ResultOut]):
    """Work for workers; it can be pickled."""

    def open(self) -> AbstractContextManager[Callable[[BlockIn], ResultOut]]:
        """Get ready on a worker, as long as the context lasts.

        Raises:
            WhenceError: this worker cannot do it as the machine that runs the command would.
        """


class Pool(Protocol):
    """Workers that can be given a job."""

    def map(self, job: Job[Block, Result], blocks: Iterable[Block]) -> Iterator[Result]:
        """Have blocks worked on; some are taken ahead of the one whose result is yielded.

        Returns:
            The result of each block, in order.
        """


@dataclass(frozen=True)
class SharedModel:
    """A model that every worker has, and that gives the same bits everywhere.

    Attributes:
        identity: of the model.
        cache_folder: of exported models.
        backend: see `load_encoder`.
        probe: see `probe_of`, on the machine that runs the command.
    """

    identity: ModelIdentity
    cache_folder: Path
    backend: str
    probe: str

    @classmethod
    def of(cls, encoder: Encoder, *, cache_folder: Path, backend: str) -> SharedModel:
        """Describe a model that is loaded here.

        Raises:
            ClusterError: it runs on torch, whose bits depend on what is computed together.
        """
        refuse_torch(encoder)
        return cls(encoder.identity, cache_folder, backend, probe_of(encoder))

    def load(self) -> Encoder:
        """Load it on a worker.

        Raises:
            ModelError: it cannot be found or loaded.
            ClusterError: it is another one, or gives other bits.
        """
        encoder = load_encoder(self.identity.name, cache_folder=self.cache_folder, backend=self.backend)
        if encoder.identity != self.identity:
            raise ClusterError(
                f"The model {self.identity.name} is another one here ({_model(encoder.identity)}, not "
                f"{_model(self.identity)}). Install the same model on every machine."
            )
        check_probe(encoder, self.probe)
        return encoder


def refuse_torch(encoder: QueryEncoder) -> None:
    """Refuse an encoder that runs on torch.

    Raises:
        ClusterError: it does.
    """
    if isinstance(encoder, TorchEncoder):
        raise ClusterError(
            f"The model {encoder.identity.name} runs on torch, whose embeddings depend on what is computed together: "
            "on a cluster they would not be those of one machine. Use --backend onnx with a model that can be "
            "exported, or --engine local."
        )


def probe_of(encoder: QueryEncoder) -> str:
    """Return a digest of the embeddings of a few fixed texts: what machines have to agree on."""
    return hashlib.sha256(encoder.encode_queries(PROBES).tobytes()).hexdigest()


def check_probe(encoder: QueryEncoder, probe: str) -> None:
    """Make sure that this machine computes the embeddings that another one does.

    Raises:
        ClusterError: it does not.
    """
    if probe_of(encoder) != probe:
        raise ClusterError(
            "The model gives other embeddings here than on the machine that runs the command: the kinds of processor "
            "or the versions of ONNX Runtime differ. Use machines that are alike, or --backend onnx-float32 if they "
            "agree in that."
        )


@dataclass(frozen=True)
class FileBlock:
    """Files to read.

    Attributes:
        files: of a source.
        sha256: of the first one's bytes as the machine that runs the command sees them; None when it cannot open it.
    """

    files: tuple[SourceFile, ...]
    sha256: str | None

    @classmethod
    def of(cls, files: Sequence[SourceFile], limits: Limits) -> FileBlock:
        """Make a block of files that are seen here."""
        return cls(tuple(files), _digest(files[0], limits))

    def check(self, limits: Limits) -> None:
        """Make sure that the files are seen here as well.

        Raises:
            ClusterError: they are not.
        """
        path = self.files[0].path
        found = _digest(self.files[0], limits)
        if found != self.sha256:
            what = "cannot be read there" if found is None else "holds other bytes there than where the command runs"
            raise ClusterError(
                f"{path} {what}. Every machine of the cluster has to see the documents at the same path: put them "
                "in a shared folder. If the file was just being changed, run the command again."
            )


@dataclass(frozen=True)
class ReadJob:
    """Reads files and splits them into chunks.

    Attributes:
        model: whose tokenizer measures chunks.
        target_tokens: see `index.chunks.split`.
        limits: on each file.
    """

    model: SharedModel
    target_tokens: int
    limits: Limits

    @contextmanager
    def open(self) -> Iterator[Callable[[FileBlock], list[SplitDocument | Rejected]]]:
        """See `Job.open`."""
        tokenizer = self.model.load().tokenizer
        with ReaderProcess(self.limits) as reader:

            def read(block: FileBlock) -> list[SplitDocument | Rejected]:
                block.check(self.limits)
                return [_split(file, reader, tokenizer, self.target_tokens) for file in block.files]

            yield read


@dataclass(frozen=True)
class EncodeJob:
    """Encodes texts to be found.

    Attributes:
        model: that encodes them.
    """

    model: SharedModel

    @contextmanager
    def open(self) -> Iterator[Callable[[Sequence[str]], Embeddings]]:
        """See `Job.open`."""
        encoder = self.model.load()

        def encode(texts: Sequence[str]) -> Embeddings:
            # One at a time: a worker has one processor, and the encoder would take as many as the machine has.
            return np.concatenate([encoder.encode_documents([text]) for text in texts])

        yield encode


def _split(
    file: SourceFile, reader: ReaderProcess, tokenizer: ModelTokenizer, target_tokens: int
) -> SplitDocument | Rejected:
    document = read_file(file, reader)
    if isinstance(document, Rejected):
        return document
    return SplitDocument(document, split(document, tokenizer, target_tokens=target_tokens))


def _digest(file: SourceFile, limits: Limits) -> str | None:
    try:
        return digest_of_file(file.path, limits)
    except DocumentError:
        return None


def _model(identity: ModelIdentity) -> str:
    return f"files {identity.files_sha256[:12]}…, {identity.precision}, {identity.max_tokens} tokens"
