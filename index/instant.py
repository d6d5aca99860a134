"""The instant encoder: a question's embedding as a sum of token vectors, without running the model.

A table has a vector for each token of the default model's vocabulary, fitted so that the sum over a question points
where the model itself puts the question. Documents stay embedded by the model, so an index can be asked either way.
How much a token weighs lies in the length of its vector (Arora, Liang & Ma 2017, "A Simple but Tough-to-Beat Baseline
for Sentence Embeddings", weigh by frequency). What is lost is the order of words, and what they mean in company.

The table that ships with the package is `instant.safetensors`; `instant.md` says from what it is made, and
`benchmarks/train_instant.py` makes it. A generation adapts the vectors of the tokens it has, see `index.adaptation`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from functools import cache, lru_cache
from importlib.resources import files
from itertools import accumulate, chain, pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from index.embeddings import Embeddings, ModelIdentity, ModelTokenizer, QueryEncoder
from index.errors import ModelError
from index.models import DEFAULT_MODEL, ModelFiles, find_model
from index.store import OpenGeneration
from index.token_table import Adaptation, TokenTable

TABLE = "instant.safetensors"
TABLE_SHA256 = "06ace2a5ddd21506bbab1b9cbad40d5b2db1bf185017ca1b5a70cd1b9afb082c"
MAX_TOKENS = 256  # of the default model, at which longer texts are cut off by it
# Printable ASCII, in which the tokenizer's words are easily found, but for the bracket that begins names of special
# tokens. Most questions are nothing else, and a word that was seen before costs a tenth of tokenizing it.
PLAIN_TEXT = re.compile(r"[ -Z\\-~]*")
PLAIN_WORD = re.compile(r"[a-z0-9]+|[^ a-z0-9]")
KNOWN_WORDS = 20_000


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
        ids = [self._token_ids(text) for text in texts]
        tokens = np.array(list(chain.from_iterable(ids)), dtype=np.intp)
        scales, rows = self._scales.take(tokens), self._rows(tokens)
        embeddings = np.empty((len(texts), len(self._table.bias)), dtype=np.float32)
        for place, (first, end) in enumerate(pairwise(accumulate(map(len, ids), initial=0))):
            embeddings[place] = self._sum(scales[first:end], rows[first:end])
        return embeddings

    def _token_ids(self, text: str) -> list[int]:
        """Turn a question into the ids that the tokenizer gives it, word by word where that is the same."""
        if not PLAIN_TEXT.fullmatch(text):
            return self.tokenizer.token_ids(text)
        return [token for word in PLAIN_WORD.findall(text.lower()) for token in self._ids_of_word(word)]

    def _sum(self, scales: NDArray[np.float32], rows: NDArray[np.int8]) -> Embeddings:
        """Add up the vectors of a question's tokens, and scale the sum to unit length."""
        # By einsum: for long questions BLAS would wake another thread, and add up in another order.
        total = np.einsum("i,ij->j", scales, rows.astype(np.float32))
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
