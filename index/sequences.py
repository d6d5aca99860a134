"""The terms of chunks in their order: which words of a question stand in one sentence, and which side by side.

The inverted index of `index.lexical` knows that a chunk holds a term, but not where. Here each chunk has the sequence
of its terms, as digests of 32 bits, so that a few hundred candidates are compared with a question in array operations
and without reading their text.

A chunk has one part for its context, that is its title and headings, and then one for each sentence.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index.arrays import ArrayWriter, runs
from index.corpus import ChunkRecord
from index.shingles import BUCKETS, bucket_counts, shingles_of
from index.terms import STOP_WORDS, every_term
from index.vectors import Scores, bounds_of, joined, open_array, positions_in
from index.vocabulary import LexicalQuery

CHUNKS_AT_ONCE = 2_048
KNOWN_DIGESTS = 8_192  # of terms; less than a MB

_STOP_BIT = np.uint32(1)  # the lowest bit of a digest says whether the term is a stop word
_TERMS = "terms.npy"
_STARTS = "starts.npy"
_QUESTIONS = "questions.npy"
_SHINGLES = "shingles.npy"
# Asian and Arabic question marks among them; closing marks may stand behind.
_QUESTION_MARKS = ("?", "？", "؟", "⁇", "⁈")
_CLOSING = " \t\n\r\"'”’»)]*_"


@dataclass(frozen=True)
class Wording:
    """How the words of some chunks meet those of their questions. Shares weigh rare terms more, and lie in [0, 1].

    Attributes:
        held: bool, shape (chunks, terms): which terms of its question a chunk holds; there are as many columns as
            the question has terms that has most.
        coverage: float32, shape (chunks,): share of the question's terms that the chunk holds.
        sentence_coverage: float32, shape (sentences,): share that each sentence holds, those of all chunks one after
            another.
        context_coverage: float32, shape (sentences,): share that each sentence and its chunk's context hold.
        best_coverage: float32, shape (chunks,): the largest of them in each chunk.
        phrases: float32, shape (chunks,): share of the pairs of neighbouring terms of the question that are
            neighbours in the chunk's sentences, in either order, stop words left out.
    """

    held: NDArray[np.bool_]
    coverage: Scores
    sentence_coverage: Scores
    context_coverage: Scores
    best_coverage: Scores
    phrases: Scores


class TermSequences:
    """The sequences of all chunks of a generation.

    Args:
        digests: uint32, those of all parts one after another.
        starts: int64, shape (parts + 1,): where each part begins, and their length at the end.
        questions: bool, shape (sentences,): which sentences are questions.
        shingle_counts: uint16, shape (chunks, buckets), see `index.shingles.bucket_counts`.
        sentence_starts: int64, shape (chunks + 1,): the first sentence of each chunk, and their number at the end.
    """

    def __init__(
        self,
        digests: NDArray[np.uint32],
        starts: NDArray[np.int64],
        questions: NDArray[np.bool_],
        shingle_counts: NDArray[np.uint16],
        sentence_starts: NDArray[np.int64],
    ) -> None:
        self.digests = digests
        self.starts = starts
        self.questions = questions
        self.shingle_counts = shingle_counts
        self.first_parts = sentence_starts + np.arange(len(sentence_starts))

    @classmethod
    def load(cls, folder: Path, sentence_starts: NDArray[np.int64]) -> TermSequences:
        """Open the files of a generation, memory-mapped.

        Raises:
            DamagedGenerationError: a file is missing or not an array.
        """
        digests, starts, questions, shingles = (
            open_array(folder / name) for name in (_TERMS, _STARTS, _QUESTIONS, _SHINGLES)
        )
        return cls(digests, starts, questions, shingles, sentence_starts)

    def __len__(self) -> int:
        """Count the parts."""
        return len(self.starts) - 1

    def wording(self, asked: Sequence[tuple[LexicalQuery, NDArray[np.int64]]]) -> Wording:
        """Compare questions with some chunks each, all in the same array operations.

        Args:
            asked: each question, analysed, with the rows of its chunks: int64, shape (chunks,).

        Returns:
            Arrays over the chunks of the first question, then those of the second, and so on. What a chunk gets does
            not depend on the others.
        """
        terms, rows = _terms_of([query for query, _ in asked]), joined([rows for _, rows in asked])
        found = self._find(terms, [len(rows) for _, rows in asked], rows)
        # What each part holds: the share of the term, or 0. Terms come first, so that all parts are added up at once.
        of_hits, numbers = terms.shares.take(found.term_of_hit), terms.numbers.take(found.term_of_hit)
        by_part = _table(terms.most, found.part_count, numbers, found.part_of_hit, of_hits)
        by_chunk = _table(terms.most, len(rows), numbers, found.chunk_of_hit, of_hits)
        by_sentence = by_part.take(found.sentences, axis=1)
        contexts = by_part.take(found.contexts.repeat(found.sentence_counts), axis=1)
        every = np.concatenate([by_chunk, by_sentence, np.maximum(by_sentence, contexts)], axis=1)
        coverages, sentences = _bounded(every.sum(axis=0)), len(found.sentences)
        context_coverage = coverages[len(rows) + sentences :]
        return Wording(
            held=by_chunk.T > 0,
            coverage=coverages[: len(rows)],
            sentence_coverage=coverages[len(rows) : len(rows) + sentences],
            context_coverage=context_coverage,
            best_coverage=np.maximum.reduceat(context_coverage, bounds_of(found.sentence_counts)[:-1]),
            phrases=_phrases(terms, found, len(rows)),
        )

    def terms(self, row: int) -> NDArray[np.uint32]:
        """Return the digests of the terms of a chunk's sentences, in order."""
        return self.digests[self.starts[self.first_parts[row] + 1] : self.starts[self.first_parts[row + 1]]]

    def _find(self, terms: _Terms, counts: Sequence[int], rows: NDArray[np.int64]) -> _Hits:
        """Find the terms of questions in their chunks, of which `rows` has so many for each question."""
        first, last = self.first_parts.take(rows), self.first_parts.take(rows + 1)
        part_counts = last - first
        contexts = bounds_of(part_counts)
        chunk_of_part = np.arange(len(rows)).repeat(part_counts)
        parts = np.arange(contexts[-1]) + (first - contexts[:-1]).take(chunk_of_part)
        starts, ends = self.starts.take(first), self.starts.take(last)
        digests = self.digests.take(positions_in(starts, ends))
        chunk_starts = bounds_of(ends - starts)
        bounds = [int(chunk_starts[first]) for first in accumulate(counts, initial=0)]
        places, term_of_hit = terms.find(digests, bounds)
        starts_here = self.starts.take(parts) - (starts - chunk_starts[:-1]).take(chunk_of_part)
        return _Hits(
            digests=digests,
            places=places,
            term_of_hit=term_of_hit,
            part_of_hit=starts_here.searchsorted(places, side="right") - 1,
            chunk_of_part=chunk_of_part,
            contexts=contexts[:-1],
        )


@dataclass(frozen=True)
class _Terms:
    """The terms of questions, those of the first one before those of the second: arrays over terms.

    Attributes:
        queries: the questions.
        digests: uint32.
        shares: float64: of each in the weight of all terms of its question.
        numbers: int64, of each among those of its question, from 0.
        bounds: where those of each question begin, and their number at the end.
        most: how many the question has that has most.
    """

    queries: Sequence[LexicalQuery]
    digests: NDArray[np.uint32]
    shares: NDArray[np.float64]
    numbers: NDArray[np.int64]
    bounds: Sequence[int]
    most: int

    def find(self, digests: NDArray[np.uint32], bounds: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Find the terms of each question in its part of an array of digests.

        Args:
            digests: of the terms of chunks, those of the first question first.
            bounds: where those of each question begin, and their number at the end.

        Returns:
            Where in the array each hit is, and which term it is; by term, and those of a term in order.
        """
        places, term_of_hit = [], []
        for (first, end), (first_term, end_term) in zip(pairwise(bounds), pairwise(self.bounds), strict=True):
            outcomes = digests[first:end] == self.digests[first_term:end_term, None]
            # Found in one flat array: that is several times as fast as by row and column.
            (hits,) = outcomes.ravel().nonzero()
            terms = hits // max(1, end - first)
            places.append(hits - (terms * (end - first) - first))
            term_of_hit.append(terms + first_term)
        return joined(places), joined(term_of_hit)


def _terms_of(queries: Sequence[LexicalQuery]) -> _Terms:
    counts = [len(query.term_weights) for query in queries]
    return _Terms(
        queries=queries,
        digests=np.array([digest(term) for query in queries for term in query.term_weights], np.uint32),
        shares=np.array([share for query in queries for share in _shares(query.term_weights.values())]),
        numbers=np.array([number for count in counts for number in range(count)], np.int64),
        bounds=list(accumulate(counts, initial=0)),
        most=max(counts, default=0),
    )


def _shares(weights: Collection[float]) -> list[float]:
    """Return which share each weight has in all of them."""
    total = math.fsum(weights) or 1.0
    return [weight / total for weight in weights]


@dataclass(frozen=True)
class _Hits:
    """Where the terms of questions stand in their chunks: arrays over hits, by term, and those of a term in order.

    Attributes:
        digests: the terms of the chunks, one after another.
        places: among them.
        term_of_hit: among the terms of all questions.
        part_of_hit: among the parts of the chunks.
        chunk_of_part: among the chunks, for each part.
        contexts: for each chunk, the part with which it begins.
    """

    digests: NDArray[np.uint32]
    places: NDArray[np.int64]
    term_of_hit: NDArray[np.int64]
    part_of_hit: NDArray[np.int64]
    chunk_of_part: NDArray[np.int64]
    contexts: NDArray[np.int64]

    @property
    def part_count(self) -> int:
        """How many parts there are."""
        return len(self.chunk_of_part)

    @cached_property
    def chunk_of_hit(self) -> NDArray[np.int64]:
        """In which chunk each hit is."""
        return self.chunk_of_part.take(self.part_of_hit)

    @cached_property
    def is_sentence(self) -> NDArray[np.bool_]:
        """Which parts are sentences: all but contexts."""
        is_sentence = np.ones(self.part_count, dtype=np.bool_)
        is_sentence[self.contexts] = False
        return is_sentence

    @cached_property
    def sentences(self) -> NDArray[np.int64]:
        """The parts that are sentences."""
        (sentences,) = self.is_sentence.nonzero()
        return sentences

    @cached_property
    def sentence_counts(self) -> NDArray[np.int64]:
        """How many sentences each chunk has."""
        bounds = np.append(self.contexts, self.part_count)
        counts: NDArray[np.int64] = bounds[1:] - bounds[:-1] - 1
        return counts


class SequenceWriter:
    """Writes the sequences of a new generation, chunk by chunk in their order, so that they need not fit into memory.

    Args:
        folder: made if it is missing.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._digests = ArrayWriter(folder / _TERMS, "<u4")
        self._lengths: list[NDArray[np.int64]] = []
        self._questions: list[NDArray[np.bool_]] = []
        self._shingles: list[NDArray[np.uint16]] = []

    def close(self) -> None:
        """Close the file that is being written."""
        self._digests.close()

    def add(self, chunks: Sequence[ChunkRecord]) -> None:
        """Take in new chunks."""
        parts = [[_digests(part) for part in _parts(chunk)] for chunk in chunks]
        flat = [part for of_chunk in parts for part in of_chunk]
        self._lengths.append(np.array([len(part) for part in flat], dtype=np.int64))
        self._questions.append(_are_questions(chunks))
        self._shingles += [bucket_counts(shingles_of(_flat(of_chunk[1:])))[None] for of_chunk in parts]
        self._digests.write(_flat(flat))

    def keep(self, old: TermSequences, first: int, end: int) -> None:
        """Take over the chunks of a range of rows from another generation."""
        parts = slice(old.first_parts[first], old.first_parts[end] + 1)
        starts = old.starts[parts]
        self._lengths.append(np.diff(starts))
        self._questions.append(old.questions[old.first_parts[first] - first : old.first_parts[end] - end])
        self._shingles.append(old.shingle_counts[first:end])
        self._digests.write(old.digests[starts[0] : starts[-1]])

    def finish(self) -> None:
        """Write the files that `TermSequences.load` opens."""
        self._digests.finish()
        self._digests.close()
        lengths = np.concatenate([np.empty(0, np.int64), *self._lengths])
        np.save(self._folder / _STARTS, bounds_of(lengths))
        np.save(self._folder / _QUESTIONS, np.concatenate([np.empty(0, np.bool_), *self._questions]))
        np.save(self._folder / _SHINGLES, np.concatenate([np.empty((0, BUCKETS), np.uint16), *self._shingles]))


def write_sequences(
    folder: Path,
    origins: NDArray[np.int64],
    parent: TermSequences | None,
    read: Callable[[Sequence[int]], list[ChunkRecord]],
) -> None:
    """Write the sequences of all chunks of a new generation.

    Args:
        folder: for the files.
        origins: int64, shape (chunks,): the row of each chunk in the parent, -1 for a new one.
        parent: to take over from; None when all are new.
        read: returns the chunks of some rows.
    """
    writer = SequenceWriter(folder)
    try:
        for first, end, origin in runs(origins):
            if parent is not None and origin >= 0:
                writer.keep(parent, origin, origin + end - first)
            else:
                for start in range(first, end, CHUNKS_AT_ONCE):
                    writer.add(read(range(start, min(start + CHUNKS_AT_ONCE, end))))
        writer.finish()
    finally:
        writer.close()


@lru_cache(KNOWN_DIGESTS)
def digest(term: str) -> int:
    """Return the 32-bit digest of a term (CRC-32); two terms share one in one of two thousand million pairs."""
    return zlib.crc32(term.encode()) & ~1 | (term in STOP_WORDS)


def _parts(chunk: ChunkRecord) -> list[str]:
    return [chunk.context, *chunk.embedded_sentences]


def _digests(text: str) -> list[int]:
    return [digest(term) for term in every_term(text)]


def _flat(parts: Sequence[Sequence[int]]) -> NDArray[np.uint32]:
    return np.array([term for part in parts for term in part], dtype=np.uint32)


def _are_questions(chunks: Sequence[ChunkRecord]) -> NDArray[np.bool_]:
    texts = (text for chunk in chunks for text in chunk.sentence_texts)
    return np.array([text.rstrip(_CLOSING).endswith(_QUESTION_MARKS) for text in texts], dtype=np.bool_)


def _table(
    rows: int,
    columns: int,
    row_of_value: NDArray[np.int64],
    column_of_value: NDArray[np.int64],
    values: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return a table with values at some places, and 0 elsewhere."""
    table = np.zeros(rows * columns)
    table[row_of_value * columns + column_of_value] = values
    return table.reshape(rows, columns)


def _bounded(shares: NDArray[np.float64]) -> Scores:
    """Return shares in single precision; adding up may have gone over 1."""
    return np.minimum(shares, 1).astype(np.float32)


def _phrases(terms: _Terms, hits: _Hits, count: int) -> Scores:
    """Return the shares of the pairs that the sentences of each chunk hold.

    Args:
        terms: of the questions.
        hits: of them.
        count: of the chunks.
    """
    pairs = _pairs_of(terms)
    if not len(pairs.shares):
        return np.zeros(count, dtype=np.float32)
    # Other terms, and stop words, cannot be a part of a pair. Hits that are one stand in their order, next to those
    # with which they may be a pair.
    is_part = (pairs.table >= 0).reshape(-1, terms.most).any(axis=1)
    (wanted,) = (is_part.take(hits.term_of_hit) & hits.is_sentence.take(hits.part_of_hit)).nonzero()
    wanted = wanted.take(hits.places.take(wanted).argsort())
    places, found_terms = hits.places.take(wanted), hits.term_of_hit.take(wanted)
    chunks = hits.chunk_of_hit.take(wanted)
    pair_of = pairs.table.take(found_terms[:-1] * terms.most + terms.numbers.take(found_terms[1:]))
    # How many stop words come before a place, so that places without them tell which terms are neighbours.
    stop_words = (hits.digests & _STOP_BIT).cumsum(dtype=np.uint32)
    places = places - stop_words.take(places)
    (found,) = ((pair_of >= 0) & (places[1:] - places[:-1] == 1) & (chunks[1:] == chunks[:-1])).nonzero()
    found_pairs = pair_of.take(found)
    shares, numbers = pairs.shares.take(found_pairs), pairs.numbers.take(found_pairs)
    return _bounded(_table(pairs.most, count, numbers, chunks.take(found), shares).sum(axis=0))


@dataclass(frozen=True)
class _Pairs:
    """The pairs of neighbouring terms of questions: arrays over pairs, but for the table.

    Attributes:
        table: int64, shape (terms * most terms of a question,): which pair each term is with each of its question,
            in either order; -1 for none.
        shares: float64: of each in the weight of all pairs of its question.
        numbers: int64, of each among those of its question, from 0.
        most: how many the question has that has most.
    """

    table: NDArray[np.int64]
    shares: NDArray[np.float64]
    numbers: NDArray[np.int64]
    most: int


def _pairs_of(terms: _Terms) -> _Pairs:
    table = [-1] * (len(terms.digests) * terms.most)
    shares: list[float] = []
    numbers: list[int] = []
    for query, first in zip(terms.queries, terms.bounds, strict=False):
        weights, pairs = query.term_weights, query.neighbours
        places = dict(zip(weights, range(len(weights)), strict=True))
        for number, (one, other) in enumerate(pairs, len(shares)):
            place, other_place = places[one], places[other]
            table[(first + place) * terms.most + other_place] = number
            table[(first + other_place) * terms.most + place] = number
        shares += _shares([weights[one] + weights[other] for one, other in pairs])
        numbers += range(len(pairs))
    most = max((len(query.neighbours) for query in terms.queries), default=0)
    return _Pairs(np.array(table, np.int64), np.array(shares), np.array(numbers, np.int64), most)
