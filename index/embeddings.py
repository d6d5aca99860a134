"""Texts to embeddings: unit vectors whose dot product is a cosine similarity.

sentence-transformers is the reference. For speed a model is exported once to ONNX (`onnx_export.py`) and run
by ONNX Runtime, which needs neither torch nor transformers in the process: in 8-bit integers, or in float32, which
gives the embeddings of the reference to within rounding.

Texts go through ONNX Runtime one at a time. Padding would be wasted work, and 8-bit arithmetic is scaled over all
that is computed together: a text gets its embedding whatever else is encoded, and in whatever order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, cast, get_args

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from index.cpus import usable_cpus
from index.documents import Span
from index.errors import ModelError
from index.models import Architecture, ModelFiles, architecture_of, find_model, load_reference, tokenizer_of
from index.onnx_export import ExportedModel, OnnxSession, Precision, exported_model

Embeddings = NDArray[np.float32]
OnProgress = Callable[[int], None]

Backend = Literal["onnx", "onnx-float32", "torch"]
BACKENDS: tuple[Backend, ...] = get_args(Backend)

# Texts of similar length go through torch together. More tokens at once are slower, because activations no longer
# fit the cache, and take more memory.
BATCH_TOKENS = 2_048
BATCH_TEXTS = 64
# Texts after which progress is told.
PROGRESS_TEXTS = 16


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
        precision: of the arithmetic: "int8" or "float32".
    """

    name: str
    sha256: str
    files_sha256: str
    dimension: int
    max_tokens: int
    query_prompt: str = ""
    document_prompt: str = ""
    precision: str = Precision.FLOAT32.value


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

    def token_ids(self, text: str) -> list[int]:
        """Return the tokens of a text by their number in the vocabulary, without special tokens."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Do for several texts what `token_ids` does for one."""
        encodings = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

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


class QueryEncoder(Protocol):
    """Anything that turns questions into embeddings of one model."""

    identity: ModelIdentity
    tokenizer: ModelTokenizer

    def encode_queries(self, texts: Sequence[str]) -> Embeddings:
        """Encode questions; one that is longer than the model takes is encoded in windows and averaged.

        Returns:
            float32, shape (len(texts), dimension), rows of unit length, in the order of `texts`.
        """


class Encoder(QueryEncoder, Protocol):
    """Anything that turns texts into embeddings of one model."""

    def encode_documents(self, texts: Sequence[str], *, on_progress: OnProgress | None = None) -> Embeddings:
        """Encode texts to be found.

        Args:
            texts: each at most `identity.max_tokens` long; what is longer is cut off by the model.
            on_progress: called now and then with the number of texts encoded since the last call.

        Returns:
            float32, shape (len(texts), dimension), rows of unit length, in the order of `texts`.
        """


def load_encoder(name: str, *, cache_folder: Path, backend: str = "onnx", may_download: bool = False) -> Encoder:
    """Load a model's encoder.

    Args:
        name: see `find_model`.
        cache_folder: where exported models are kept.
        backend: "onnx" for 8-bit integers, about twice as fast; "onnx-float32"; or "torch" for the reference
            implementation.
        may_download: see `find_model`.

    Raises:
        ModelError: the model cannot be found, loaded or exported, or the backend is unknown.
    """
    if backend not in BACKENDS:
        raise ModelError(f"There is no backend {backend!r}. Choose one of {', '.join(BACKENDS)}.")
    model = find_model(name, may_download=may_download)
    if backend != "torch":
        precision = Precision.INT8 if backend == "onnx" else Precision.FLOAT32
        exported = exported_model(model, cache_folder, precision)
        if exported is not None:
            return OnnxEncoder(model, exported)
    return TorchEncoder(model)


class OnnxEncoder:
    """Encodes with ONNX Runtime: a question in one thread, documents in as many as there are processors."""

    def __init__(self, model: ModelFiles, exported: ExportedModel) -> None:
        self.identity = _identity(model, exported.architecture, exported.precision)
        self._session = OnnxSession(exported)
        self.tokenizer = ModelTokenizer(self._session.tokenizer, self.identity)

    def encode_documents(self, texts: Sequence[str], *, on_progress: OnProgress | None = None) -> Embeddings:
        """See `Encoder.encode_documents`."""
        token_ids = self._session.token_ids([self.identity.document_prompt + text for text in texts])
        embeddings = np.empty((len(token_ids), self.identity.dimension), dtype=np.float32)
        done = 0
        with ThreadPoolExecutor(usable_cpus()) as pool:
            for position, embedding in enumerate(pool.map(self._session.embed, token_ids)):
                embeddings[position] = embedding
                if on_progress is not None and (position + 1 - done == PROGRESS_TEXTS or position + 1 == len(texts)):
                    on_progress(position + 1 - done)
                    done = position + 1
        return embeddings

    def encode_queries(self, texts: Sequence[str]) -> Embeddings:
        """See `Encoder.encode_queries`."""
        embeddings = np.empty((len(texts), self.identity.dimension), dtype=np.float32)
        token_ids = self._session.token_ids([self.identity.query_prompt + text for text in texts])
        for position, (text, ids) in enumerate(zip(texts, token_ids, strict=True)):
            may_be_cut = len(ids) >= self.identity.max_tokens
            embeddings[position] = self._in_windows(text) if may_be_cut else self._session.embed(ids)
        return embeddings

    def _in_windows(self, text: str) -> Embeddings:
        windows = [self.identity.query_prompt + window for window in self.tokenizer.windows(text)]
        embeddings = np.stack([self._session.embed(ids) for ids in self._session.token_ids(windows)])
        (mean,) = _mean_of_groups(embeddings, [len(windows)])
        return cast(Embeddings, mean)


class TorchEncoder:
    """Encodes with sentence-transformers: the reference, and the way for models of unusual build."""

    def __init__(self, model: ModelFiles) -> None:
        self._model = load_reference(model)
        self.identity = _identity(model, architecture_of(self._model), Precision.FLOAT32)
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


def _identity(model: ModelFiles, architecture: Architecture, precision: Precision) -> ModelIdentity:
    return ModelIdentity(
        name=model.name,
        sha256=model.sha256,
        files_sha256=model.files_sha256,
        dimension=architecture.dimension,
        max_tokens=architecture.max_tokens,
        query_prompt=architecture.query_prompt,
        document_prompt=architecture.document_prompt,
        precision=precision.value,
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


def _mean_of_groups(embeddings: Embeddings, sizes: Sequence[int]) -> Embeddings:
    """Average the rows of each group, which stand one after another; a group of one keeps its row bit by bit."""
    means = np.empty((len(sizes), embeddings.shape[1]), dtype=np.float32)
    first = 0
    for position, size in enumerate(sizes):
        mean = embeddings[first : first + size].mean(axis=0)
        means[position] = mean if size == 1 else mean / max(float(np.linalg.norm(mean)), 1e-12)
        first += size
    return means
