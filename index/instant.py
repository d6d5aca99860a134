"""The instant encoder: a question's embedding as a sum of token vectors, without running the model.

A table has a vector for each token of the default model's vocabulary, fitted so that the sum over a question points
where the model itself puts the question. Documents stay embedded by the model, so an index can be asked either way.
How much a token weighs lies in the length of its vector (Arora, Liang & Ma 2017, "A Simple but Tough-to-Beat Baseline
for Sentence Embeddings", weigh by frequency). What is lost is the order of words, and what they mean in company.

The table that ships with the package is `instant.safetensors`; `instant.md` says from what it is made, and
`benchmarks/train_instant.py` makes it. A generation adapts the vectors of the tokens it has, see `index.adaptation`.
"""

from __future__ import annotations

import hashlib
import json
import math
import mmap
import re
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tokenizers import Tokenizer

from index.embeddings import Embeddings, ModelIdentity, ModelTokenizer, QueryEncoder
from index.errors import ModelError
from index.models import DEFAULT_MODEL, ModelFiles, find_model
from index.vectors import open_array

if TYPE_CHECKING:
    from index.store import OpenGeneration

TABLE = "instant.safetensors"
TABLE_SHA256 = "06ace2a5ddd21506bbab1b9cbad40d5b2db1bf185017ca1b5a70cd1b9afb082c"
MODEL_SHA256 = "model_sha256"  # entry of the file's metadata
MAX_TOKENS = 256  # of the default model, at which longer texts are cut off by it
REINSTALL = "Install Whence anew."
# Printable ASCII, in which the tokenizer's words are easily found, but for the bracket that begins names of special
# tokens. Most questions are nothing else, and a word that was seen before costs a tenth of tokenizing it.
PLAIN_TEXT = re.compile(r"[ -Z\\-~]*")
PLAIN_WORD = re.compile(r"[a-z0-9]+|[^ a-z0-9]")
KNOWN_WORDS = 20_000
DTYPES = {"I8": np.int8, "F16": np.float16, "F32": np.float32}


@dataclass(frozen=True)
class TokenTable:
    """A vector for each token: row times scale.

    Attributes:
        rows: int8, shape (tokens, dimension), by token id.
        scales: float32, shape (tokens,).
        bias: float32, shape (dimension,): what every sum begins with.
        model_sha256: digest of the weights of the model whose embeddings it imitates.
    """

    rows: NDArray[np.int8]
    scales: NDArray[np.float32]
    bias: Embeddings
    model_sha256: str

    @classmethod
    def from_vectors(cls, vectors: Embeddings, bias: Embeddings, *, model_sha256: str) -> TokenTable:
        """Make a table of float32 vectors, shape (tokens, dimension)."""
        rows, scales = scaled(vectors)
        return cls(rows, scales, bias, model_sha256)

    @classmethod
    def load(cls, path: Path, *, sha256: str) -> TokenTable:
        """Open a saved table, memory-mapped.

        Raises:
            ModelError: the file is missing, or its digest is another.
        """
        try:
            with path.open("rb") as stream:
                data = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as exc:  # ValueError: it is empty
            raise ModelError(f"The instant encoder's table {path} cannot be read: {exc}. {REINSTALL}") from exc
        found = hashlib.sha256(data).hexdigest()
        if found != sha256:
            raise ModelError(
                f"The instant encoder's table {path} should have the SHA-256 {sha256}, which is {found}. {REINSTALL}"
            )
        return cls._parse(data)

    @classmethod
    def _parse(cls, data: mmap.mmap) -> TokenTable:
        """View the tensors of a file in the format of safetensors: length of the header, header, tensors."""
        start = 8 + int.from_bytes(data[:8], "little")
        header = json.loads(data[8:start])

        def tensor(name: str) -> NDArray[np.generic]:
            first, end = header[name]["data_offsets"]
            dtype = np.dtype(DTYPES[header[name]["dtype"]])
            flat = np.frombuffer(data, dtype, count=(end - first) // dtype.itemsize, offset=start + first)
            return flat.reshape(header[name]["shape"])

        return cls(
            rows=tensor("rows").view(np.int8),
            scales=tensor("scales").astype(np.float32),
            bias=tensor("bias").astype(np.float32),
            model_sha256=header["__metadata__"][MODEL_SHA256],
        )

    def save(self, path: Path) -> None:
        """Write the table to a file; scales are kept in half precision."""
        tensors: dict[str, Any] = {
            "rows": self.rows,
            "scales": self.scales.astype(np.float16),
            "bias": self.bias,
        }
        save_file(tensors, path, metadata={MODEL_SHA256: self.model_sha256})

    def vectors(self, tokens: NDArray[np.integer]) -> Embeddings:
        """Return the vectors of some tokens: float32, shape (len(tokens), dimension)."""
        vectors: Embeddings = self.rows[tokens].astype(np.float32) * self.scales[tokens, None]
        return vectors


@dataclass(frozen=True)
class Adaptation:
    """Vectors that replace a table's for the texts of one generation.

    Attributes:
        tokens: int32, ascending: whose vectors they are.
        rows: int8, shape (len(tokens), dimension).
        scales: float32, shape (len(tokens),).
    """

    tokens: NDArray[np.int32]
    rows: NDArray[np.int8]
    scales: NDArray[np.float32]

    @classmethod
    def load(cls, folder: Path) -> Adaptation:
        """Open the files of a generation, memory-mapped.

        Raises:
            DamagedGenerationError: one is missing or not an array.
        """
        return cls(*(open_array(folder / f"{name}.npy") for name in ("tokens", "rows", "scales")))

    def save(self, folder: Path) -> None:
        """Write it to a folder, which is made."""
        folder.mkdir()
        for name in ("tokens", "rows", "scales"):
            np.save(folder / f"{name}.npy", getattr(self, name))


class InstantEncoder:
    """Encodes questions by table; it satisfies the side of `index.embeddings.Encoder` that questions need.

    Args:
        identity: of the model that documents were embedded with.
        tokenizer: the model's own.
        table: vectors of its tokens.
    """

    def __init__(self, identity: ModelIdentity, tokenizer: ModelTokenizer, table: TokenTable) -> None:
        self.identity = identity
        self.tokenizer = tokenizer
        self._ids_of_word = lru_cache(KNOWN_WORDS)(tokenizer.token_ids)
        self._table = table
        self._scales = table.scales
        self._adaptation: Adaptation | None = None
        # Where among the adapted rows a token's is, -1 for nowhere.
        self._places = np.full(len(table.rows), -1, dtype=np.int32)

    def adapted(self, adaptation: Adaptation | None, *, precision: str | None = None) -> InstantEncoder:
        """Return this encoder for one generation.

        Args:
            adaptation: of the table to it; None for the table as it is.
            precision: in which its documents were embedded, which makes no difference to a question.
        """
        encoder = copy(self)
        encoder.identity = replace(self.identity, precision=precision or self.identity.precision)
        encoder._adaptation = adaptation
        if adaptation is not None:
            encoder._places = self._places.copy()
            encoder._places[adaptation.tokens] = np.arange(len(adaptation.tokens), dtype=np.int32)
            encoder._scales = self._table.scales.copy()
            encoder._scales[adaptation.tokens] = adaptation.scales
        return encoder

    def encode_queries(self, texts: Sequence[str]) -> Embeddings:
        """See `index.embeddings.Encoder.encode_queries`; a question is never too long.

        Returns:
            float32, shape (len(texts), dimension), rows of unit length, but zeros for a question of whose tokens
            the table knows nothing, where it has no bias either.
        """
        embeddings = np.empty((len(texts), len(self._table.bias)), dtype=np.float32)
        for place, text in enumerate(texts):
            embeddings[place] = self._embed(self._token_ids(text))
        return embeddings

    def _token_ids(self, text: str) -> list[int]:
        """Turn a question into the ids that the tokenizer gives it, word by word where that is the same."""
        if not PLAIN_TEXT.fullmatch(text):
            return self.tokenizer.token_ids(text)
        return [token for word in PLAIN_WORD.findall(text.lower()) for token in self._ids_of_word(word)]

    def _embed(self, ids: list[int]) -> Embeddings:
        tokens = np.array(ids, dtype=np.intp)
        # By einsum: for long questions BLAS would wake another thread, and add up in another order.
        total = np.einsum("i,ij->j", self._scales.take(tokens), self._rows(tokens).astype(np.float32))
        total += self._table.bias
        length = math.sqrt(np.dot(total, total))
        unit: Embeddings = total * np.float32(1 / length if length else 0)
        return unit

    def _rows(self, tokens: NDArray[np.intp]) -> NDArray[np.int8]:
        rows = self._table.rows.take(tokens, axis=0)
        if self._adaptation is not None:
            places = self._places.take(tokens)
            (adapted,) = np.nonzero(places >= 0)
            rows[adapted] = self._adaptation.rows.take(places.take(adapted), axis=0)
        return rows


def instant_encoder(generation: OpenGeneration, *, name: str | None = None) -> InstantEncoder:
    """Load the instant encoder for a generation, adapted to it; the model itself is not loaded.

    Args:
        generation: to be asked.
        name: of the model; None for the one that the generation names.

    Raises:
        ModelError: see `load_instant`.
    """
    built_with = generation.manifest.model
    return _general(name or built_with.name).adapted(generation.adaptation, precision=built_with.precision)


def instant_beside(encoder: QueryEncoder, generation: OpenGeneration) -> InstantEncoder | None:
    """Make the instant encoder for a generation of what its model's encoder has loaded; None when it has none.

    Raises:
        ModelError: the table that ships is missing or altered.
    """
    if not has_instant(encoder.identity):
        return None
    general = InstantEncoder(encoder.identity, encoder.tokenizer, shipped_table())
    return general.adapted(generation.adaptation, precision=generation.manifest.model.precision)


@cache
def _general(name: str) -> InstantEncoder:
    """Load the instant encoder of a model once: taking the digests of the model is most of it."""
    return load_instant(find_model(name))


def has_instant(model: ModelIdentity) -> bool:
    """Whether there is an instant encoder for a model.

    Raises:
        ModelError: the table that ships is missing or altered.
    """
    return model.sha256 == shipped_table().model_sha256


def load_instant(model: ModelFiles) -> InstantEncoder:
    """Load the instant encoder of a model, which has to be the default one, as it ships.

    Raises:
        ModelError: it is another, for which no table was made, or the table is missing or altered.
    """
    table = shipped_table()
    if model.sha256 != table.model_sha256:
        raise ModelError(
            f"There is an instant encoder for the default model {DEFAULT_MODEL} only, not for {model.name}. "
            "Ask with --encoder full, or build the index with the default model."
        )
    identity = ModelIdentity(
        name=model.name,
        sha256=model.sha256,
        files_sha256=model.files_sha256,
        dimension=len(table.bias),
        max_tokens=MAX_TOKENS,
    )
    tokenizer = ModelTokenizer(Tokenizer.from_file(str(model.folder / "tokenizer.json")), identity)
    return InstantEncoder(identity, tokenizer, table)


@cache
def shipped_table() -> TokenTable:
    """Open the table that ships with the package, once.

    Raises:
        ModelError: it is missing or altered.
    """
    return TokenTable.load(Path(str(files("index").joinpath(TABLE))), sha256=TABLE_SHA256)


def scaled(vectors: Embeddings) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Write vectors as bytes, the largest component of each 127, and scales that half precision can hold.

    Returns:
        Rows (int8, shape of `vectors`) and scales (float32, shape (len(vectors),)); row times scale is the vector.
    """
    largest = np.abs(vectors).max(axis=1, initial=0)
    scales = (largest / 127).astype(np.float16).astype(np.float32)
    inverse = np.divide(1, scales, out=np.zeros_like(scales), where=scales > 0)
    rows: NDArray[np.int8] = np.clip(np.rint(vectors * inverse[:, None]), -127, 127).astype(np.int8)
    return rows, scales
