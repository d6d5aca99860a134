"""Question to passages: candidates from both searches, one score for each, near-duplicates made one.

Candidates are the nearest chunks by embedding and the best by keywords. Each is then scored anew by a convex sum of
what both searches say of it and of how near its best sentence comes (a convex sum of normalised scores is more
robust than reciprocal rank fusion: Bruch, Gai & Ingber 2023, "An Analysis of Fusion Functions for Hybrid
Retrieval"). Every part is absolute: a chunk's score does not depend on the other candidates, on how many passages are
wanted, or on filters.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from index.corpus import ChunkRecord
from index.embeddings import Embeddings
from index.generations import Generation
from index.lexical import LexicalQuery
from index.terms import every_term
from index.vectors import Scores
from index.weights import Evidence, ScoreWeights

CANDIDATES = 100  # of each search


@dataclass(frozen=True)
class Passage:
    """A chunk returned for a question.

    Attributes:
        chunk: what was found.
        score: fused relevance in [0, 1], higher is better.
        evidence: what the score is made of.
        bm25: the keyword score as it is.
        sentence_similarities: of the chunk's sentences, in their order.
        also_in: chunks that say the same, in order of their score; they are not passages of their own.
    """

    chunk: ChunkRecord
    score: float
    evidence: Evidence
    bm25: float
    sentence_similarities: tuple[float, ...]
    also_in: tuple[ChunkRecord, ...] = ()


@dataclass(frozen=True)
class Scored:
    """Candidates with the parts of their score: arrays over candidates, best first.

    Attributes:
        rows: int64.
        scores: fused, float32 in [0, 1].
        dense, sentence, lexical: see `Evidence`.
        bm25: keyword scores as they are.
        sentence_similarities: for each candidate those of its sentences.
    """

    rows: NDArray[np.int64]
    scores: Scores
    dense: Scores
    sentence: Scores
    bm25: Scores
    lexical: Scores
    sentence_similarities: list[Scores]


def retrieve(
    generation: Generation,
    query: LexicalQuery,
    embedding: Embeddings,
    *,
    top_k: int,
    weights: ScoreWeights,
    allowed: NDArray[np.bool_] | None = None,
) -> list[Passage]:
    """Find the passages that fit a question best.

    Args:
        generation: to search.
        query: the question's words, analysed by the keyword index of the generation.
        embedding: of the question: float32, shape (dimension,), unit length.
        top_k: passages wanted, at least 1.
        weights: of the parts of a score.
        allowed: bool, shape (chunks,); False keeps a chunk out. None allows all.

    Returns:
        At most `top_k` passages, best first; equal scores in the order of the corpus.
    """
    scored = score_candidates(generation, query, embedding, weights=weights, allowed=allowed)
    if not len(scored.rows):
        return []
    groups = generation.duplicates.groups(scored.rows, at_most=top_k)
    chunks = iter(generation.corpus.chunks([int(scored.rows[place]) for place in chain.from_iterable(groups)]))
    background = float(generation.vectors.centroid @ embedding)
    return [
        _passage(query, scored, group[0], [next(chunks) for _ in group], background=background) for group in groups
    ]


def score_candidates(
    generation: Generation,
    query: LexicalQuery,
    embedding: Embeddings,
    *,
    weights: ScoreWeights,
    allowed: NDArray[np.bool_] | None = None,
) -> Scored:
    """Score the chunks that either search puts among its best; arguments as for `retrieve`."""
    dense_rows, _ = generation.vectors.search(embedding, top_k=CANDIDATES, allowed=allowed)
    lexical_rows, _ = query.search(top_k=CANDIDATES, allowed=allowed)
    rows = np.union1d(dense_rows, lexical_rows)
    if not len(rows):
        nothing = np.empty(0, np.float32)
        return Scored(rows, nothing, nothing, nothing, nothing, nothing, [])
    dense = np.clip(generation.vectors.similarities(embedding, rows), 0, 1)
    bm25 = query.scores(rows)
    lexical = (bm25 / (query.upper_bound or 1.0)).astype(np.float32)
    similarities, bounds = generation.sentences.similarities(embedding, rows)
    sentence = np.clip(np.maximum.reduceat(similarities, bounds[:-1]), 0, 1)
    fused = weights.dense * dense + weights.sentence * sentence + weights.lexical * lexical
    scores = np.where(generation.furniture[rows], weights.furniture * fused, fused).astype(np.float32)
    order = np.lexsort((rows, -scores))
    return Scored(
        rows=rows[order],
        scores=scores[order],
        dense=dense[order],
        sentence=sentence[order],
        bm25=bm25[order],
        lexical=lexical[order],
        sentence_similarities=[similarities[bounds[place] : bounds[place + 1]] for place in order],
    )


def _passage(
    query: LexicalQuery, scored: Scored, place: int, chunks: Sequence[ChunkRecord], *, background: float
) -> Passage:
    chunk = chunks[0]
    terms = set(every_term(chunk.embedded_text))
    return Passage(
        chunk=chunk,
        score=float(scored.scores[place]),
        evidence=Evidence(
            dense=float(scored.dense[place]),
            sentence=float(scored.sentence[place]),
            lexical=float(scored.lexical[place]),
            coverage=coverage(terms, query.term_weights),
            names=sum(not terms.isdisjoint(name) for name in query.names) / len(query.names) if query.names else 1.0,
            background=background,
        ),
        bm25=float(scored.bm25[place]),
        sentence_similarities=tuple(scored.sentence_similarities[place].tolist()),
        also_in=tuple(chunks[1:]),
    )


def coverage(terms: Set[str], term_weights: Mapping[str, float]) -> float:
    """Return the share of a question's terms that are among the given ones, rare terms weighing more.

    Args:
        terms: of a text.
        term_weights: of the question, see `LexicalQuery.term_weights`.
    """
    total = math.fsum(term_weights.values())
    return math.fsum(term_weights[term] for term in term_weights.keys() & terms) / total if total else 0.0
