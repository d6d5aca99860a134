"""Fitting the vectors of tokens to texts whose embeddings are known, so that their sums point where the model does.

It is a ridge regression towards vectors that are known already (Hoerl & Kennard 1970, "Ridge Regression: Biased
Estimation for Nonorthogonal Problems"), solved by conjugate gradients (Hestenes & Stiefel 1952), whose first steps do
nearly all. A generation is fitted to sentences of its own: the words of a subject then lie where the model puts them
in the company they keep there. Nothing in it is random, so the same texts give the same vectors.

SciPy is loaded with this module, which only building needs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse  # type: ignore[import-untyped]

from index.corpus import Corpus
from index.embeddings import Embeddings, ModelTokenizer
from index.token_table import Adaptation, TokenTable, scaled
from index.vectors import SentenceVectors

MAX_TEXTS = 8_000  # more make it slower and hardly better
MAX_TOKENS = 64  # of a text that are looked at
STEPS = 5
# How much a vector is held to where it was: as many texts of one token must disagree with it to move it half way.
STRENGTH = 5.0
SHORTEST = 0.2  # of the mean length: shorter sums are not blown up to unit length


def adapt(table: TokenTable, tokenizer: ModelTokenizer, corpus: Corpus, sentences: SentenceVectors) -> Adaptation:
    """Adapt a table to sentences of a corpus, chosen evenly.

    Args:
        table: to start from.
        tokenizer: of the model.
        corpus: with the texts of chunks.
        sentences: their embeddings by the model.

    Returns:
        Vectors of the tokens that the sentences have.
    """
    texts, embeddings = _sentences(corpus, sentences)
    tokens, counts = token_counts([ids[:MAX_TOKENS] for ids in tokenizer.ids(texts)])
    vectors = table.vectors(tokens)
    vectors += fit(counts, embeddings, vectors, table.bias, strength=STRENGTH, steps=STEPS)
    return Adaptation(tokens, *scaled(vectors))


def _sentences(corpus: Corpus, sentences: SentenceVectors) -> tuple[list[str], Embeddings]:
    """Return distinct texts as they were embedded, at most `MAX_TEXTS`, and their embeddings."""
    count = len(sentences)
    wanted = np.arange(min(count, MAX_TEXTS), dtype=np.int64) * count // max(1, min(count, MAX_TEXTS))
    rows = np.unique(np.searchsorted(sentences.starts, wanted, side="right") - 1)
    found = set(wanted.tolist())
    places = {
        text: chunk.first_sentence + place
        for chunk in corpus.chunks(rows.tolist())
        for place, text in enumerate(chunk.embedded_sentences)
        if chunk.first_sentence + place in found
    }
    return list(places), sentences.embeddings(np.array(list(places.values()), dtype=np.int64))


def token_counts(token_ids: Sequence[Sequence[int]]) -> tuple[NDArray[np.int32], sparse.csr_array]:
    """Count tokens.

    Returns:
        The tokens that occur (int32, ascending) and how often each text has each of them (float32, sparse, shape
        (texts, tokens)).
    """
    bounds = np.cumsum([0, *map(len, token_ids)])
    flat = np.fromiter((token for ids in token_ids for token in ids), dtype=np.int32, count=bounds[-1])
    tokens, columns = np.unique(flat, return_inverse=True)
    counts = sparse.csr_array(
        (np.ones(len(flat), dtype=np.float32), columns, bounds), shape=(len(token_ids), len(tokens))
    )
    counts.sum_duplicates()
    return tokens, counts


def fit(
    counts: sparse.csr_array,
    embeddings: Embeddings,
    vectors: Embeddings,
    bias: Embeddings,
    *,
    strength: float,
    steps: int,
) -> Embeddings:
    """Find by what to change vectors so that their sums come to point where embeddings do.

    Each sum is divided by the length that it has before the change, so that every text counts the same.

    Args:
        counts: of tokens in texts, sparse, shape (texts, tokens).
        embeddings: of the texts, unit length.
        vectors: of the tokens, shape (tokens, dimension).
        bias: that each sum begins with.
        strength: how much a vector is held to where it was.
        steps: of conjugate gradients.

    Returns:
        The change: float32, shape of `vectors`.
    """
    sums = counts @ vectors + bias
    lengths = np.linalg.norm(sums, axis=1)
    mean = max(float(lengths.mean()) if len(lengths) else 0.0, 1e-12)
    lengths = np.maximum(lengths, SHORTEST * mean).astype(np.float32)
    inputs = sparse.csr_array(sparse.diags_array(1 / lengths) @ counts, dtype=np.float32)
    return _solve(inputs, embeddings - sums / lengths[:, None], strength / mean**2, steps)


def _solve(inputs: sparse.csr_array, residuals: Embeddings, strength: float, steps: int) -> Embeddings:
    """Minimise |inputs x - residuals|² + strength |x|² by conjugate gradients, each column of x for itself.

    They are preconditioned by the diagonal, because some tokens are in nearly every text and most in a few.
    """
    transposed = inputs.T.tocsr()
    scale = 1 / (inputs.power(2).sum(axis=0) + strength).astype(np.float32)[:, None]
    change = np.zeros((inputs.shape[1], residuals.shape[1]), dtype=np.float32)
    gradient = transposed @ residuals
    direction = scale * gradient
    progress = _dots(gradient, direction)
    for _ in range(steps):
        image = transposed @ (inputs @ direction) + np.float32(strength) * direction
        step = progress / np.maximum(_dots(direction, image), 1e-20)
        change += step * direction
        gradient -= step * image
        scaled_gradient = scale * gradient
        before, progress = progress, _dots(gradient, scaled_gradient)
        direction = scaled_gradient + progress / np.maximum(before, 1e-20) * direction
    return change


def _dots(one: Embeddings, other: Embeddings) -> Embeddings:
    """Multiply column with column, and add up."""
    products: Embeddings = np.einsum("ij,ij->j", one, other)
    return products
