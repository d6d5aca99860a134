"""Texts to embeddings: unit vectors whose dot product is a cosine similarity.

sentence-transformers is the reference. For speed a model is exported once to ONNX (`onnx_export.py`) and run
by ONNX Runtime, which needs neither torch nor transformers in the process. Both backends give the same
embeddings to within float32 rounding.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from index.documents import Span
from index.errors import ModelError
from index.models import Architecture, ModelFiles, architecture_of, find_model, load_reference, tokenizer_of
from index.onnx_export import PROBES, ExportedModel, OnnxSession, exported_model

Embeddings = NDArray[np.float32]
OnProgress = Callable[[int], None]

# Texts of similar length go through the model together. More tokens at once are slower, because activations no longer
# fit the cache, and take more memory: 2,048 peak at 0.4 GB, 8,192 at 1 GB.
BATCH_TOKENS = 2_048
BATCH_TEXTS = 64
# Questions of one length that go through the model together; more than this gain nothing.
BATCH_QUERIES = 16
# Lengths in tokens, and numbers of texts, for which a batch is compared with its texts alone.
PROBED_BATCHES = ((6, 16), (13, 7), (23, 2))
# Lengths in words for which two encoders are compared.
PROBED_WORDS = (1, 3, 6, 10, 15, 21, 28, 36)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelIdentity:
    """Everything that decides which embedding a text gets; recorded in each generation.

    Attributes:
        name: the model's name or path.
        sha256: digest of the weights.
        files_sha256: digest over weights, tokenizer and configuration.
        dimension: of an embedding.
        max_tokens: that the model takes, special tokens counted.
        query_prompt: put before a question.
        document_prompt: put before a text to be found.
    """

    name: str
    sha256: str
    files_sha256: str
    dimension: int
    max_tokens: int
    query_prompt: str = ""
    document_prompt: str = ""


class ModelTokenizer:
    """The model's own tokenizer, for measuring texts before they are embedded.

    Attributes:
        max_tokens: that a text may have, special tokens counted and room left for the document prompt.
    """

    def __init__(self, tokenizer: Tokenizer, identity: ModelIdentity) -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        special = self.count([""])[0]
        self.max_tokens = identity.max_tokens - len(self.spans(identity.document_prompt))
        self._query_room = max(1, identity.max_tokens - special - len(self.spans(identity.query_prompt)))

    def count(self, texts: Sequence[str]) -> list[int]:
        """Count the tokens of each text, special tokens included."""
        return [len(encoding.ids) for encoding in self._tokenizer.encode_batch(list(texts))]

    def spans(self, text: str) -> list[Span]:
        """Return where each token of a text lies, in code points, without special tokens."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).offsets)

    def windows(self, query: str) -> list[str]:
        """Split a question into as many pieces as it takes for each to fit the model, at token boundaries."""
        spans = self.spans(query)
        if len(spans) <= self._query_room:
            return [query]
        groups = [spans[first : first + self._query_room] for first in range(0, len(spans), self._query_room)]
        return [query[group[0][0] : group[-1][1]] for group in groups]


class Encoder(Protocol):
    """Anything that turns texts into embeddings of one model."""

    identity: ModelIdentity
    tokenizer: ModelTokenizer

    def encode_documents(self, texts: Sequence[str], *, on_progress: OnProgress | None = None) -> Embeddings:
        """Encode texts to be found.

        Args:
            texts: each at most `identity.max_tokens` long; what is longer is cut off by the model.
            on_progress: called now and then with the number of texts encoded since the last call.

        Returns:
            float32, shape (len(texts), dimension), rows of unit length, in the order of `texts`.
        """

    def encode_queries(self, texts: Sequence[str]) -> Embeddings:
        """Encode questions; one that is longer than the model takes is encoded in windows and averaged.

        Returns:
            float32, shape (len(texts), dimension), rows of unit length, in the order of `texts`.
        """


def load_encoder(
    name: str, *, cache_folder: Path, backend: str = "onnx", may_download: bool = False, threads: int | None = None
) -> Encoder:
    """Load a model's encoder.

    Args:
        name: see `find_model`.
        cache_folder: where exported models are kept.
        backend: "onnx", or "torch" for the reference implementation.
        may_download: see `find_model`.
        threads: that ONNX Runtime may use; None for one on each core. torch has always as many as there are cores:
            its bits depend on it.

    Raises:
        ModelError: the model cannot be found, loaded or exported, or the backend is unknown.
    """
    if backend not in ("onnx", "torch"):
        raise ModelError(f"There is no backend {backend!r}. Choose onnx or torch.")
    model = find_model(name, may_download=may_download)
    if backend == "onnx":
        exported = exported_model(model, cache_folder)
        if exported is not None:
            return OnnxEncoder(model, exported, threads=threads)
    return TorchEncoder(model)


def agree(one: Encoder, other: Encoder) -> bool:
    """Whether two encoders of one model, say with other numbers of threads, give the same bits on probes."""
    words = max(PROBES, key=len).split()
    probes = [" ".join(words[:count]) for count in PROBED_WORDS]
    return one.encode_queries(probes).tobytes() == other.encode_queries(probes).tobytes()


class OnnxEncoder:
    """Encodes with ONNX Runtime on the CPU."""

    def __init__(self, model: ModelFiles, exported: ExportedModel, *, threads: int | None = None) -> None:
        self.identity = _identity(model, exported.architecture)
        self.tokenizer = ModelTokenizer(Tokenizer.from_file(str(exported.tokenizer_path)), self.identity)
        self._session = OnnxSession(exported, threads=threads)

    def encode_documents(self, texts: Sequence[str], *, on_progress: OnProgress | None = None) -> Embeddings:
        """See `Encoder.encode_documents`."""
        token_ids = self._session.token_ids([self.identity.document_prompt + text for text in texts])
        embeddings = np.empty((len(token_ids), self.identity.dimension), dtype=np.float32)
        for batch in _batches_by_length([len(ids) for ids in token_ids]):
            embeddings[batch] = self._session.embed([token_ids[position] for position in batch])
            if on_progress is not None:
                on_progress(len(batch))
        return embeddings

    def encode_queries(self, texts: Sequence[str]) -> Embeddings:
        """See `Encoder.encode_queries`."""
        windows = [self.tokenizer.windows(text) for text in texts]
        prompted = [self.identity.query_prompt + window for group in windows for window in group]
        token_ids = self._session.token_ids(prompted)
        embeddings = np.empty((len(token_ids), self.identity.dimension), dtype=np.float32)
        for batch in self._query_batches([len(ids) for ids in token_ids]):
            embeddings[batch] = self._session.embed([token_ids[position] for position in batch])
        return _mean_of_groups(embeddings, [len(group) for group in windows])

    def _query_batches(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Group positions of texts that may go together: a question must get the same bits as alone."""
        for batch in _batches_of_one_length(lengths):
            if len(batch) == 1 or self._batches_keep_bits:
                yield batch
            else:
                yield from ([position] for position in batch)

    @cached_property
    def _batches_keep_bits(self) -> bool:
        """Whether texts of one length, which need no padding, get the same bits together and alone.

        Kernels depend on shapes, and which there are on the processor; so it is tried out on this machine.
        """
        start, *middle, end = max(self._session.token_ids(PROBES), key=len)
        for length, count in PROBED_BATCHES:
            batch = [[start, *middle[first : first + length - 2], end] for first in range(count)]
            alone = np.concatenate([self._session.embed([ids]) for ids in batch])
            if self._session.embed(batch).tobytes() != alone.tobytes():
                logger.warning("questions are encoded one at a time, which is slower: batches change their bits here")
                return False
        return True


class TorchEncoder:
    """Encodes with sentence-transformers: the reference, and the way for models of unusual build."""

    def __init__(self, model: ModelFiles) -> None:
        self._model = load_reference(model)
        self.identity = _identity(model, architecture_of(self._model))
        self.tokenizer = ModelTokenizer(tokenizer_of(self._model), self.identity)

    def encode_documents(self, texts: Sequence[str], *, on_progress: OnProgress | None = None) -> Embeddings:
        """See `Encoder.encode_documents`."""
        embeddings = np.empty((len(texts), self.identity.dimension), dtype=np.float32)
        for batch in _batches_by_length(self.tokenizer.count(texts)):
            embeddings[batch] = self._encode([texts[row] for row in batch], "document")
            if on_progress is not None:
                on_progress(len(batch))
        return embeddings

    def encode_queries(self, texts: Sequence[str]) -> Embeddings:
        """See `Encoder.encode_queries`."""
        windows = [self.tokenizer.windows(text) for text in texts]
        flat = [window for group in windows for window in group]
        embeddings = np.empty((len(flat), self.identity.dimension), dtype=np.float32)
        for position, window in enumerate(flat):
            # One at a time: a question must get the same bits alone and in a batch.
            embeddings[position] = self._encode([window], "query")[0]
        return _mean_of_groups(embeddings, [len(group) for group in windows])

    def _encode(self, texts: list[str], task: Literal["query", "document"]) -> Embeddings:
        prompt = self.identity.query_prompt if task == "query" else self.identity.document_prompt
        # The task is for models that have an encoder for each.
        return self._model.encode(
            texts,
            prompt=prompt,
            task=task,
            batch_size=len(texts),
            normalize_embeddings=True,
            show_progress_bar=False,
        )


def _identity(model: ModelFiles, architecture: Architecture) -> ModelIdentity:
    return ModelIdentity(
        name=model.name,
        sha256=model.sha256,
        files_sha256=model.files_sha256,
        dimension=architecture.dimension,
        max_tokens=architecture.max_tokens,
        query_prompt=architecture.query_prompt,
        document_prompt=architecture.document_prompt,
    )


def _batches_by_length(lengths: Sequence[int]) -> list[list[int]]:
    """Group positions so that texts of similar length share a batch, the longest first."""
    batches: list[list[int]] = []
    longest = 0
    for position in sorted(range(len(lengths)), key=lambda row: (-lengths[row], row)):
        fits = batches and len(batches[-1]) < min(BATCH_TEXTS, max(1, BATCH_TOKENS // max(1, longest)))
        if fits:
            batches[-1].append(position)
        else:
            batches.append([position])
            longest = lengths[position]
    return batches


def _batches_of_one_length(lengths: Sequence[int]) -> list[list[int]]:
    """Group positions so that texts of the same length share a batch, the shortest first."""
    batches: list[list[int]] = []
    for position in sorted(range(len(lengths)), key=lambda row: (lengths[row], row)):
        room = min(BATCH_QUERIES, max(1, BATCH_TOKENS // max(1, lengths[position])))
        if batches and lengths[batches[-1][0]] == lengths[position] and len(batches[-1]) < room:
            batches[-1].append(position)
        else:
            batches.append([position])
    return batches


def _mean_of_groups(embeddings: Embeddings, sizes: Sequence[int]) -> Embeddings:
    """Average the rows of each group, which stand one after another; a group of one keeps its row bit by bit."""
    means = np.empty((len(sizes), embeddings.shape[1]), dtype=np.float32)
    first = 0
    for position, size in enumerate(sizes):
        mean = embeddings[first : first + size].mean(axis=0)
        means[position] = mean if size == 1 else mean / max(float(np.linalg.norm(mean)), 1e-12)
        first += size
    return means
