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

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, chain, groupby, pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from index.corpus import ChunkRecord
from index.duplicates import groups_of_duplicates
from index.embeddings import Embeddings
from index.store import Excerpt, OpenGeneration
from index.vectors import Scores, SentencesOfChunks, joined
from index.vocabulary import LexicalQuery
from index.weights import PARTS, Evidence, ScoreWeights

RESCORED = 40  # of the candidates of both searches; the others come after these
# What a keyword score counts for when they are chosen; an embedding counts for its weight.
LEXICAL = 0.3
LONG = 64  # terms of a question, with which it is not scored together with shorter ones


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


@dataclass(frozen=True, eq=False)
class Wanted:
    """A question to find passages for.

    Attributes:
        query: its words, analysed by the keyword index of the generation.
        embedding: float32, shape (dimension,), unit length.
        top_k: passages wanted, at least 1.
        allowed: bool, shape (chunks,); False keeps a chunk out. None allows all.
    """

    query: LexicalQuery
    embedding: Embeddings
    top_k: int = 1
    allowed: NDArray[np.bool_] | None = None


@dataclass(frozen=True, eq=False)
class Candidates:
    """Chunks that either search puts among its best: arrays over them, in the order of what both say together.

    Attributes:
        wanted: for which they were found.
        excerpt: in which they lie.
        rows: int64.
        dense: cosine similarity, 0 if below; float32.
        bm25: keyword scores as they are; float32.
    """

    wanted: Wanted
    excerpt: Excerpt
    rows: NDArray[np.int64]
    dense: Scores
    bm25: Scores

    def __len__(self) -> int:
        return len(self.rows)

    def first(self, count: int) -> Candidates:
        """Return so many of them, or all."""
        return Candidates(self.wanted, self.excerpt, self.rows[:count], self.dense[:count], self.bm25[:count])


@dataclass(frozen=True, eq=False)
class Scored:
    """Candidates for one or several questions with the parts of their score: arrays over candidates.

    Attributes:
        bounds: where those of each question begin, and their number at the end; they are best first.
        rows: int64.
        scores: fused, float32 in [0, 1].
        table: `PARTS` of the scores: float32, shape (parts, candidates).
        held: bool, shape (candidates, terms): which terms of its question each holds.
        bm25: keyword scores as they are.
        sentence_spans: int64, shape (candidates, 2): where the sentences of each lie in the three arrays below.
        sentence_similarities, sentence_coverages: float32, of the sentences of all candidates.
        context_coverages: float32, of each sentence with its chunk's title and headings.
    """

    bounds: Sequence[int]
    rows: NDArray[np.int64]
    scores: Scores
    table: Scores
    held: NDArray[np.bool_]
    bm25: Scores
    sentence_spans: NDArray[np.int64]
    sentence_similarities: Scores
    sentence_coverages: Scores
    context_coverages: Scores

    @property
    def parts(self) -> dict[str, Scores]:
        """The parts of the scores by their names."""
        return dict(zip(PARTS, self.table, strict=True))


def retrieve(generation: OpenGeneration, wanted: Sequence[Wanted], weights: ScoreWeights) -> list[list[Passage]]:
    """Find the passages that fit questions best.

    Args:
        generation: to search.
        wanted: the questions; a few at a time, as all that is looked at for them is held at once.
        weights: of the parts of a score.

    Returns:
        For each question, in their order, what it would get alone: at most `top_k` passages, best first; equal scores
        in the order of the corpus.
    """
    candidates = [_candidates(generation, each, weights) for each in wanted]
    passages: list[list[Passage]] = []
    for _, alike in groupby(candidates, key=_company):
        together = list(alike)
        scored = _scored([each.first(RESCORED) for each in together], weights)
        for place, each in enumerate(together):
            passages.append(_passages(generation, each, scored, place, weights))
    return passages


def _company(candidates: Candidates) -> tuple[int, bool, int]:
    """Return what questions have in common that are scored together.

    A store may give each question arrays of its own; those without candidates have nothing to be scored; and each
    takes as much room as the one that has most terms.
    """
    return id(candidates.excerpt.sequences), len(candidates) > 0, len(candidates.wanted.query.term_weights) // LONG


def score_candidates(
    generation: OpenGeneration,
    query: LexicalQuery,
    embedding: Embeddings,
    *,
    weights: ScoreWeights,
    allowed: NDArray[np.bool_] | None = None,
) -> Scored:
    """Score all chunks that either search puts among its best; arguments as for `Wanted`."""
    candidates = _candidates(generation, Wanted(query, embedding, allowed=allowed), weights)
    scored = _scored([candidates], weights)
    return replace(scored, rows=candidates.excerpt.in_corpus(scored.rows))


def _candidates(generation: OpenGeneration, wanted: Wanted, weights: ScoreWeights) -> Candidates:
    excerpt = generation.excerpt(wanted.query, wanted.embedding, allowed=wanted.allowed)
    rows, bm25, dense = excerpt.rows, excerpt.bm25, _clipped(excerpt.dense)
    together = weights.dense * dense + LEXICAL * _shares_of_bound(wanted.query, bm25)
    order = np.where(excerpt.furniture[rows], -weights.furniture * together, -together).argsort(kind="stable")
    return Candidates(wanted, excerpt, rows[order], dense[order], bm25[order])


def _scored(candidates: Sequence[Candidates], weights: ScoreWeights) -> Scored:
    """Score candidates for one or several questions, which have the arrays of their excerpts in common."""
    excerpt, counts = candidates[0].excerpt, [len(each) for each in candidates]
    rows = joined([each.rows for each in candidates])
    if not len(rows):
        none, table = np.empty(0, np.float32), np.empty((len(PARTS), 0), np.float32)
        return Scored([0], rows, none, table, table.T > 0, none, np.empty((0, 2), np.int64), none, none, none)
    bounds = list(accumulate(counts, initial=0))
    sentences = excerpt.sentences.of_chunks(rows)
    similarities = _similarities(candidates, sentences, bounds)
    wording = excerpt.sequences.wording([(each.wanted.query, each.rows) for each in candidates])
    sentence, question = _nearest_sentences(excerpt, sentences, similarities)
    # As one array: each operation on arrays so small costs as much as on larger ones.
    table = np.array(
        [
            joined([each.dense for each in candidates]),
            sentence,
            question,
            wording.coverage,
            1 - (1 - sentence) * (1 - wording.coverage),
            wording.best_coverage,
            wording.phrases,
        ]
    )
    fused = (weights.of_parts[:, None] * table).sum(axis=0)
    scores = np.where(excerpt.furniture[rows], np.float32(weights.furniture) * fused, fused)
    order = _best_first(rows, scores, counts)
    return Scored(
        bounds=bounds,
        rows=rows[order],
        scores=scores[order],
        table=table[:, order],
        held=wording.held[order],
        bm25=joined([each.bm25 for each in candidates])[order],
        sentence_spans=np.array([sentences.bounds[:-1], sentences.bounds[1:]]).T[order],
        sentence_similarities=similarities,
        sentence_coverages=wording.sentence_coverage,
        context_coverages=wording.context_coverage,
    )


def _similarities(candidates: Sequence[Candidates], sentences: SentencesOfChunks, bounds: Sequence[int]) -> Scores:
    """Compare each question with the sentences of its candidates."""
    ends = [int(sentences.bounds[bound]) for bound in bounds]
    return joined(
        [
            each.excerpt.sentences.similarities(each.wanted.embedding, sentences.positions[first:end])
            for each, (first, end) in zip(candidates, pairwise(ends), strict=True)
        ]
    )


def _best_first(rows: NDArray[np.int64], scores: Scores, counts: Sequence[int]) -> NDArray[np.int64]:
    """Return the order of scored candidates: by question, and of each the first `RESCORED`, then the others.

    Equal scores are in the order of rows.

    Args:
        rows: of the candidates, those for one question before those for the next.
        scores: of the candidates.
        counts: how many of them each question has.
    """
    keys: list[NDArray[Any]] = [rows, -scores]
    if max(counts) > RESCORED:
        keys.append(np.concatenate([np.arange(count) >= RESCORED for count in counts]))
    if len(counts) > 1:
        keys.append(np.arange(len(counts)).repeat(counts))
    return np.lexsort(keys)


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


def _passages(
    generation: OpenGeneration, candidates: Candidates, scored: Scored, place: int, weights: ScoreWeights
) -> list[Passage]:
    """Return the passages for the question at a place among those whose candidates were scored."""
    if not len(candidates):
        return []
    wanted, excerpt = candidates.wanted, candidates.excerpt
    first, end = scored.bounds[place : place + 2]
    rows = np.concatenate([scored.rows[first:end], candidates.rows[RESCORED:]])
    groups = groups_of_duplicates(excerpt.sequences, rows, at_most=wanted.top_k)
    if groups[-1][0] >= RESCORED:
        scored, first = _scored([candidates], weights), 0
        rows = scored.rows
        groups = groups_of_duplicates(excerpt.sequences, rows, at_most=wanted.top_k)
    members = [[rows[leader], *np.sort(rows[twins])] if twins else [rows[leader]] for leader, *twins in groups]
    found = excerpt.in_corpus(np.array(list(chain.from_iterable(members))))
    chunks = iter(generation.corpus.chunks(found.tolist()))
    evidence = _Evidence(wanted.query, background=float(generation.centroid @ wanted.embedding))
    return [
        _passage(scored, found, [next(chunks) for _ in group], evidence)
        for found, group in zip(_found(scored, [first + leader for leader, *_ in groups]), groups, strict=True)
    ]


class _Evidence:
    """Gathers the evidence for the passages of a question.

    Args:
        query: the question, analysed.
        background: see `Evidence`.
    """

    def __init__(self, query: LexicalQuery, *, background: float) -> None:
        places = {term: place for place, term in enumerate(query.term_weights)}
        self._names = [[[places[term] for term in way] for way in name] for name in query.names]
        self._of_question = background, query.specificity, float(not query.is_known)

    def of(self, found: _Found, *, answer_coverage: float) -> Evidence:
        """Return the evidence for one of its candidates."""
        names = float(self._holds_names(found.held))
        return Evidence(*(*found.parts, names, answer_coverage, *self._of_question))

    def _holds_names(self, held: Sequence[bool]) -> bool:
        return not self._names or all(any(all(held[place] for place in way) for way in name) for name in self._names)


class _Found(NamedTuple):
    """A candidate of `Scored`, out of the arrays."""

    score: float
    parts: Sequence[float]
    held: Sequence[bool]
    bm25: float
    sentence_span: tuple[int, int]


def _found(scored: Scored, places: Sequence[int]) -> Iterator[_Found]:
    """Return the candidates at some places."""
    rows = np.array(places)
    return map(
        _Found,
        scored.scores.take(rows).tolist(),
        scored.table.take(rows, axis=1).T.tolist(),
        scored.held.take(rows, axis=0).tolist(),
        scored.bm25.take(rows).tolist(),
        scored.sentence_spans.take(rows, axis=0).tolist(),
    )


def _passage(scored: Scored, found: _Found, chunks: Sequence[ChunkRecord], evidence: _Evidence) -> Passage:
    first, end = found.sentence_span
    similarities = scored.sentence_similarities[first:end].tolist()
    nearest = first + similarities.index(max(similarities))
    return Passage(
        chunk=chunks[0],
        score=found.score,
        evidence=evidence.of(found, answer_coverage=float(scored.context_coverages[nearest])),
        bm25=found.bm25,
        sentence_similarities=tuple(similarities),
        sentence_coverages=tuple(scored.sentence_coverages[first:end].tolist()),
        also_in=tuple(chunks[1:]),
    )
