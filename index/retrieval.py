"""Question to passages: candidates from both searches, one score for each, near-duplicates made one.

Candidates are the nearest chunks by embedding and the best by keywords. Those that the two searches together put
first are scored anew by a convex sum of how near they and their best sentence come, and of how their words meet those
of the question (a convex sum of normalised scores is more robust than reciprocal rank fusion:
Bruch, Gai & Ingber 2023, "An Analysis of Fusion Functions for Hybrid Retrieval"; coverage and neighbouring terms as
in Metzler & Croft 2005, "A Markov Random Field Model for Term Dependencies"; full cost for the first of many
candidates only as in Wang, Lin & Metzler 2011, "A Cascade Ranking Model for Efficient Ranked Retrieval").

Every part is absolute: a chunk's score does not depend on the other candidates, on how many passages are wanted, or
on filters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from index.corpus import ChunkRecord
from index.duplicates import groups_of_duplicates
from index.embeddings import Embeddings
from index.store import Excerpt, OpenGeneration
from index.vectors import Scores, SentencesOfChunks
from index.vocabulary import LexicalQuery
from index.weights import Evidence, ScoreWeights

RESCORED = 40  # of the candidates of both searches; the others come after these
# What a keyword score counts for when they are chosen; an embedding counts for its weight.
LEXICAL = 0.3


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
        also_in: chunks that say the same, in the order of the corpus; they are not passages of their own.
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
class Candidates:
    """Chunks that either search puts among its best: arrays over them, in the order of what both say together.

    Attributes:
        rows: int64.
        dense: cosine similarity, 0 if below; float32.
        bm25: keyword scores as they are; float32.
    """

    rows: NDArray[np.int64]
    dense: Scores
    bm25: Scores

    def __len__(self) -> int:
        return len(self.rows)

    def first(self, count: int) -> Candidates:
        """Return so many of them, or all."""
        return Candidates(self.rows[:count], self.dense[:count], self.bm25[:count])


@dataclass(frozen=True)
class Scored:
    """Candidates with the parts of their score: arrays over candidates, best first.

    Attributes:
        rows: int64.
        scores: fused, float32 in [0, 1].
        part_names: in `ScoreWeights`.
        table: the parts: float32, shape (parts, candidates).
        held: bool, shape (candidates, terms): which terms of the question each holds.
        bm25: keyword scores as they are.
        sentence_spans: int64, shape (candidates, 2): where the sentences of each lie in the three arrays below.
        sentence_similarities, sentence_coverages: float32, of the sentences of all candidates.
        context_coverages: float32, of each sentence with its chunk's title and headings.
    """

    rows: NDArray[np.int64]
    scores: Scores
    part_names: tuple[str, ...]
    table: Scores
    held: NDArray[np.bool_]
    bm25: Scores
    sentence_spans: NDArray[np.int64]
    sentence_similarities: Scores
    sentence_coverages: Scores
    context_coverages: Scores

    @property
    def parts(self) -> dict[str, Scores]:
        """The parts of the score by their names."""
        return dict(zip(self.part_names, self.table, strict=True))


def retrieve(
    generation: OpenGeneration,
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
    excerpt = generation.excerpt(query, embedding, allowed=allowed)
    candidates = _candidates(excerpt, query, weights)
    if not len(candidates):
        return []
    scored = _scored(excerpt, query, embedding, candidates.first(RESCORED), weights)
    rows = np.concatenate([scored.rows, candidates.rows[RESCORED:]])
    groups = groups_of_duplicates(excerpt.sequences, rows, at_most=top_k)
    if groups[-1][0] >= RESCORED:
        scored = _scored(excerpt, query, embedding, candidates, weights)
        rows = scored.rows
        groups = groups_of_duplicates(excerpt.sequences, rows, at_most=top_k)
    members = [[rows[leader], *np.sort(rows[twins])] if twins else [rows[leader]] for leader, *twins in groups]
    found = excerpt.in_corpus(np.array(list(chain.from_iterable(members))))
    chunks = iter(generation.corpus.chunks(found.tolist()))
    evidence = _Evidence(query, background=float(generation.centroid @ embedding))
    return [_passage(scored, group[0], [next(chunks) for _ in group], evidence) for group in groups]


def score_candidates(
    generation: OpenGeneration,
    query: LexicalQuery,
    embedding: Embeddings,
    *,
    weights: ScoreWeights,
    allowed: NDArray[np.bool_] | None = None,
) -> Scored:
    """Score all chunks that either search puts among its best; arguments as for `retrieve`."""
    excerpt = generation.excerpt(query, embedding, allowed=allowed)
    scored = _scored(excerpt, query, embedding, _candidates(excerpt, query, weights), weights)
    return replace(scored, rows=excerpt.in_corpus(scored.rows))


def _candidates(excerpt: Excerpt, query: LexicalQuery, weights: ScoreWeights) -> Candidates:
    rows, bm25, dense = excerpt.rows, excerpt.bm25, _clipped(excerpt.dense)
    together = weights.dense * dense + LEXICAL * _shares_of_bound(query, bm25)
    order = np.where(excerpt.furniture[rows], -weights.furniture * together, -together).argsort(kind="stable")
    return Candidates(rows[order], dense[order], bm25[order])


def _scored(
    excerpt: Excerpt, query: LexicalQuery, embedding: Embeddings, candidates: Candidates, weights: ScoreWeights
) -> Scored:
    rows = candidates.rows
    if not len(rows):
        none, table = np.empty(0, np.float32), np.empty((0, 0), np.float32)
        return Scored(rows, none, (), table, table > 0, none, np.empty((0, 2), np.int64), none, none, none)
    sentences = excerpt.sentences.of_chunks(rows)
    similarities = excerpt.sentences.similarities(embedding, sentences.positions)
    wording = excerpt.sequences.wording(query, rows)
    sentence, question = _nearest_sentences(excerpt, sentences, similarities)
    parts = {
        "dense": candidates.dense,
        "sentence": sentence,
        "question": question,
        "coverage": wording.coverage,
        "either": 1 - (1 - sentence) * (1 - wording.coverage),
        "sentence_coverage": wording.best_coverage,
        "phrases": wording.phrases,
    }
    # As one array: each operation on arrays so small costs as much as on larger ones.
    table = np.array(list(parts.values()))
    factors = np.array([getattr(weights, name) for name in parts], np.float32)
    fused = (factors[:, None] * table).sum(axis=0)
    scores = np.where(excerpt.furniture[rows], np.float32(weights.furniture) * fused, fused)
    order = _best_first(rows, scores)
    return Scored(
        rows=rows[order],
        scores=scores[order],
        part_names=tuple(parts),
        table=table[:, order],
        held=wording.held[order],
        bm25=candidates.bm25[order],
        sentence_spans=np.array([sentences.bounds[:-1], sentences.bounds[1:]]).T[order],
        sentence_similarities=similarities,
        sentence_coverages=wording.sentence_coverage,
        context_coverages=wording.context_coverage,
    )


def _best_first(rows: NDArray[np.int64], scores: Scores) -> NDArray[np.int64]:
    """Return the order of scored candidates: the first `RESCORED`, then the others, equal scores by row."""
    if len(rows) <= RESCORED:
        return np.lexsort((rows, -scores))
    return np.lexsort((rows, -scores, np.arange(len(rows)) >= RESCORED))


def _shares_of_bound(query: LexicalQuery, bm25: Scores) -> Scores:
    return bm25 / np.float32(query.upper_bound or 1.0)


def _nearest_sentences(excerpt: Excerpt, sentences: SentencesOfChunks, similarities: Scores) -> Scores:
    """Return how near the best sentence of each chunk comes, and the best that is a question; shape (2, chunks)."""
    is_question = excerpt.sequences.questions.take(sentences.positions)
    both = np.array([similarities, np.where(is_question, similarities, 0)])
    return _clipped(np.maximum.reduceat(both, sentences.bounds[:-1], axis=1))


def _clipped(similarities: Scores) -> Scores:
    """Return similarities from 0 to 1, in a third of the time of `clip`."""
    clipped: Scores = np.minimum(np.maximum(similarities, 0), 1)
    return clipped


class _Evidence:
    """Gathers the evidence for the passages of a question.

    Args:
        query: the question, analysed.
        background: see `Evidence`.
    """

    def __init__(self, query: LexicalQuery, *, background: float) -> None:
        places = {term: place for place, term in enumerate(query.term_weights)}
        self._names = [[[places[term] for term in way] for way in name] for name in query.names]
        self._of_question = {
            "background": background,
            "specificity": query.specificity,
            "unknown": float(not query.is_known),
        }

    def of(self, scored: Scored, place: int) -> Evidence:
        """Return the evidence for the candidate at a place."""
        first, end = scored.sentence_spans[place].tolist()
        nearest = first + int(scored.sentence_similarities[first:end].argmax())
        return Evidence(
            **dict(zip(scored.part_names, scored.table[:, place].tolist(), strict=True)),
            names=float(self._holds_names(scored.held[place].tolist())),
            answer_coverage=float(scored.context_coverages[nearest]),
            **self._of_question,
        )

    def _holds_names(self, held: list[bool]) -> bool:
        return not self._names or all(any(all(held[place] for place in way) for way in name) for name in self._names)


def _passage(scored: Scored, place: int, chunks: Sequence[ChunkRecord], evidence: _Evidence) -> Passage:
    first, end = scored.sentence_spans[place].tolist()
    return Passage(
        chunk=chunks[0],
        score=float(scored.scores[place]),
        evidence=evidence.of(scored, place),
        bm25=float(scored.bm25[place]),
        sentence_similarities=tuple(scored.sentence_similarities[first:end].tolist()),
        sentence_coverages=tuple(scored.sentence_coverages[first:end].tolist()),
        also_in=tuple(chunks[1:]),
    )
