"""Question to passages: candidates from both searches, one score for each, near-duplicates made one.

Candidates are the nearest chunks by embedding and the best by keywords. Each is then scored anew by a convex sum of
what both searches say of it, of how near its best sentence comes, and of how its words meet those of the question (a
convex sum of normalised scores is more robust than reciprocal rank fusion: Bruch, Gai & Ingber 2023, "An Analysis of
Fusion Functions for Hybrid Retrieval"; coverage and neighbouring terms as in Metzler & Croft 2005, "A Markov Random
Field Model for Term Dependencies"). Every part is absolute: a chunk's score does not depend on the other candidates,
on how many passages are wanted, or on filters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from index.corpus import ChunkRecord
from index.duplicates import groups_of_duplicates
from index.embeddings import Embeddings
from index.generations import Generation
from index.lexical import LexicalQuery
from index.sequences import Wording
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
        sentence_coverages: the share of the question's terms that each of them holds.
        also_in: chunks that say the same, in order of their score; they are not passages of their own.
        reranker: probability that it is relevant, see `index.reranking`; None if no cross-encoder has read it.
    """

    chunk: ChunkRecord
    score: float
    evidence: Evidence
    bm25: float
    sentence_similarities: tuple[float, ...]
    sentence_coverages: tuple[float, ...]
    also_in: tuple[ChunkRecord, ...] = ()
    reranker: float | None = None


@dataclass(frozen=True)
class Scored:
    """Candidates with the parts of their score: arrays over candidates, best first.

    Attributes:
        rows: int64.
        scores: fused, float32 in [0, 1].
        parts: float32, each under its name in `ScoreWeights`.
        names: float32, see `Evidence`.
        bm25: keyword scores as they are.
        sentence_similarities, sentence_coverages: for each candidate those of its sentences.
    """

    rows: NDArray[np.int64]
    scores: Scores
    parts: dict[str, Scores]
    names: Scores
    bm25: Scores
    sentence_similarities: list[Scores]
    sentence_coverages: list[Scores]


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
    groups = groups_of_duplicates(generation.sequences, scored.rows, at_most=top_k)
    chunks = iter(generation.corpus.chunks([int(scored.rows[place]) for place in chain.from_iterable(groups)]))
    background = float(generation.vectors.centroid @ embedding)
    return [_passage(scored, group[0], [next(chunks) for _ in group], background=background) for group in groups]


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
        return Scored(rows, nothing, {}, nothing, nothing, [], [])
    bm25 = query.scores(rows)
    similarities, bounds = generation.sentences.similarities(embedding, rows)
    wording = generation.sequences.wording(query, rows)
    parts = {
        "dense": np.clip(generation.vectors.similarities(embedding, rows), 0, 1),
        **_nearest_sentences(generation, rows, similarities, bounds),
        "lexical": (bm25 / (query.upper_bound or 1.0)).astype(np.float32),
        "coverage": wording.coverage,
        "sentence_coverage": wording.best_coverage,
        "phrases": wording.phrases,
    }
    fused = sum(getattr(weights, name) * part for name, part in parts.items())
    scores = np.where(generation.furniture[rows], weights.furniture * fused, fused).astype(np.float32)
    order = np.lexsort((rows, -scores))
    return Scored(
        rows=rows[order],
        scores=scores[order],
        parts={name: part[order] for name, part in parts.items()},
        names=_names_held(query, wording)[order],
        bm25=bm25[order],
        sentence_similarities=[similarities[bounds[place] : bounds[place + 1]] for place in order],
        sentence_coverages=[wording.sentence_coverage[bounds[place] : bounds[place + 1]] for place in order],
    )


def _nearest_sentences(
    generation: Generation, rows: NDArray[np.int64], similarities: Scores, bounds: NDArray[np.int64]
) -> dict[str, Scores]:
    """Return how near the best sentence of each chunk comes, and the best that is a question."""
    questions = np.where(generation.sequences.is_question(rows), similarities, 0)
    best = {"sentence": similarities, "question": questions}
    return {name: np.clip(np.maximum.reduceat(each, bounds[:-1]), 0, 1) for name, each in best.items()}


def _names_held(query: LexicalQuery, wording: Wording) -> Scores:
    """Return the share of a question's names of which each chunk holds a term; 1 when there are none."""
    places = {term: place for place, term in enumerate(query.term_weights)}
    columns = [[places[term] for term in name] for name in query.names]
    held = [wording.held[:, of_name].any(axis=1) for of_name in columns]
    return np.mean(held, axis=0, dtype=np.float32) if held else np.ones(len(wording.held), np.float32)


def _passage(scored: Scored, place: int, chunks: Sequence[ChunkRecord], *, background: float) -> Passage:
    parts = {name: float(part[place]) for name, part in scored.parts.items()}
    return Passage(
        chunk=chunks[0],
        score=float(scored.scores[place]),
        evidence=Evidence(**parts, names=float(scored.names[place]), background=background),
        bm25=float(scored.bm25[place]),
        sentence_similarities=tuple(scored.sentence_similarities[place].tolist()),
        sentence_coverages=tuple(scored.sentence_coverages[place].tolist()),
        also_in=tuple(chunks[1:]),
    )
