"""The terms of chunks in their order: which words of a question stand in one sentence, and which side by side.

The inverted index of `index.lexical` knows that a chunk holds a term, but not where. Here each chunk has the sequence
of its terms, as digests of 32 bits, so that a few hundred candidates are compared with a question in array operations
and without reading their text.

A chunk has one part for its context, that is its title and headings, and then one for each sentence.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.arrays import ArrayWriter, runs
from index.corpus import ChunkRecord
from index.shingles import BUCKETS, bucket_counts, shingles_of
from index.terms import STOP_WORDS, every_term
from index.vectors import Scores, bounds_of, open_array, positions_in
from index.vocabulary import LexicalQuery

CHUNKS_AT_ONCE = 2_048

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
    """How the words of some chunks meet those of a question. Shares weigh rare terms more, and lie in [0, 1].

    Attributes:
        held: bool, shape (chunks, terms): which terms of the question a chunk holds.
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

    def wording(self, query: LexicalQuery, rows: NDArray[np.int64]) -> Wording:
        """Compare a question with some chunks.

        Args:
            query: the question, analysed.
            rows: int64, shape (chunks,).
        """
        weights = np.array(list(query.term_weights.values()))
        shares = weights / (math.fsum(weights) or 1.0)
        found = self._find(query, rows)
        held = _marked(len(rows), len(shares), found.chunk_of_hit, found.term_of_hit)
        is_context = found.part_of_hit == found.first_parts.take(found.chunk_of_hit)
        in_context = _marked(len(rows), len(shares), found.chunk_of_hit[is_context], found.term_of_hit[is_context])
        added = np.where(found.is_first_in_part, shares.take(found.term_of_hit), 0)
        by_part = found.summed_by_part(added)
        # What the context holds does not count once more in a sentence that is taken together with it.
        beyond = found.summed_by_part(np.where(in_context[found.chunk_of_hit, found.term_of_hit], 0, added))
        is_sentence = np.ones(found.part_count, dtype=np.bool_)
        is_sentence[found.first_parts] = False
        sentence_counts = np.diff(found.first_parts, append=found.part_count) - 1
        contexts = by_part.take(found.first_parts).repeat(sentence_counts)
        context_coverage = _bounded(beyond[is_sentence] + contexts)
        return Wording(
            held=held,
            coverage=_shares(held, shares),
            sentence_coverage=_bounded(by_part[is_sentence]),
            context_coverage=context_coverage,
            best_coverage=np.maximum.reduceat(context_coverage, bounds_of(sentence_counts)[:-1]),
            phrases=_phrases(query, found, ~is_context, len(rows)),
        )

    def terms(self, row: int) -> NDArray[np.uint32]:
        """Return the digests of the terms of a chunk's sentences, in order."""
        return self.digests[self.starts[self.first_parts[row] + 1] : self.starts[self.first_parts[row + 1]]]

    def _find(self, query: LexicalQuery, rows: NDArray[np.int64]) -> _Hits:
        first, last = self.first_parts.take(rows), self.first_parts.take(rows + 1)
        parts = positions_in(first, last)
        lengths = self.starts.take(parts + 1) - self.starts.take(parts)
        digests = self.digests.take(positions_in(self.starts.take(first), self.starts.take(last)))
        terms = np.array([digest(term) for term in query.term_weights], np.uint32)
        # Found in one flat array: that is several times as fast as by row and column.
        (places,) = (digests == terms[:, None]).ravel().nonzero()
        term_of_hit = places // max(1, len(digests))
        hits: NDArray[np.int64] = places - term_of_hit * len(digests)
        part_of_hit: NDArray[np.int64] = lengths.cumsum().searchsorted(hits, side="right")
        chunk_of_part = np.arange(len(rows)).repeat(last - first)
        # Places with stop words left out tell which terms are neighbours.
        content = np.cumsum(digests & _STOP_BIT == 0, dtype=np.int32)
        return _Hits(
            part_of_hit=part_of_hit,
            chunk_of_hit=chunk_of_part.take(part_of_hit),
            term_of_hit=term_of_hit,
            place_of_hit=content.take(hits),
            first_parts=bounds_of(last - first)[:-1],
            part_count=len(parts),
        )


@dataclass(frozen=True)
class _Hits:
    """Where the terms of a question stand in some chunks: arrays over hits, by term, and those of a term in order.

    Attributes:
        part_of_hit: among the parts of the chunks.
        chunk_of_hit: among the chunks.
        term_of_hit: of the question.
        place_of_hit: among the terms that are no stop words.
        first_parts: the part with which each chunk begins, which is its context.
        part_count: how many parts there are.
    """

    part_of_hit: NDArray[np.int64]
    chunk_of_hit: NDArray[np.int64]
    term_of_hit: NDArray[np.int64]
    place_of_hit: NDArray[np.int32]
    first_parts: NDArray[np.int64]
    part_count: int

    @property
    def is_first_in_part(self) -> NDArray[np.bool_]:
        """Which hits are the first of their term in their part."""
        # Hits of one term are in order, so those in one part stand side by side.
        pairs = self.term_of_hit * self.part_count + self.part_of_hit
        is_first = np.ones(len(pairs), dtype=np.bool_)
        np.not_equal(pairs[1:], pairs[:-1], out=is_first[1:])
        return is_first

    def summed_by_part(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Add up what each hit has in its part."""
        # Of no hits at all it makes whole numbers.
        return np.bincount(self.part_of_hit, weights=values, minlength=self.part_count).astype(np.float64, copy=False)


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
        self._shingles += [bucket_counts(shingles_of(_joined(of_chunk[1:])))[None] for of_chunk in parts]
        self._digests.write(_joined(flat))

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


def digest(term: str) -> int:
    """Return the 32-bit digest of a term (CRC-32); two terms share one in one of two thousand million pairs."""
    return zlib.crc32(term.encode()) & ~1 | (term in STOP_WORDS)


def _parts(chunk: ChunkRecord) -> list[str]:
    return [chunk.context, *chunk.embedded_sentences]


def _digests(text: str) -> list[int]:
    return [digest(term) for term in every_term(text)]


def _joined(parts: Sequence[Sequence[int]]) -> NDArray[np.uint32]:
    return np.array([term for part in parts for term in part], dtype=np.uint32)


def _are_questions(chunks: Sequence[ChunkRecord]) -> NDArray[np.bool_]:
    texts = (text for chunk in chunks for text in chunk.sentence_texts)
    return np.array([text.rstrip(_CLOSING).endswith(_QUESTION_MARKS) for text in texts], dtype=np.bool_)


def _marked(
    rows: int, columns: int, row_of_hit: NDArray[np.integer[Any]], column_of_hit: NDArray[np.integer[Any]]
) -> NDArray[np.bool_]:
    """Return True where there is a hit."""
    marked = np.zeros((rows, columns), dtype=np.bool_)
    marked[row_of_hit, column_of_hit] = True
    return marked


def _shares(held: NDArray[np.bool_], shares: NDArray[np.float64]) -> Scores:
    """Add up the shares of what each row holds, to the same bits whatever the other rows are."""
    return _bounded(np.einsum("ij,j->i", held, shares))


def _bounded(shares: NDArray[np.float64]) -> Scores:
    """Return shares in single precision; adding up may have gone over 1."""
    return np.minimum(shares, 1).astype(np.float32)


def _phrases(query: LexicalQuery, hits: _Hits, is_in_sentence: NDArray[np.bool_], count: int) -> Scores:
    """Return the shares of the pairs that each chunk holds.

    Args:
        query: with the pairs.
        hits: of its terms.
        is_in_sentence: which of them.
        count: of the chunks.
    """
    if not query.neighbours:
        return np.zeros(count, dtype=np.float32)
    pairs = _numbered_pairs(query)
    # Other terms cannot stand between neighbours.
    (wanted,) = ((pairs >= 0).any(axis=1).take(hits.term_of_hit) & is_in_sentence).nonzero()
    wanted = wanted.take(hits.place_of_hit.take(wanted).argsort(kind="stable"))
    places, terms, chunks = (each.take(wanted) for each in (hits.place_of_hit, hits.term_of_hit, hits.chunk_of_hit))
    pair_of = pairs[terms[:-1], terms[1:]]
    is_pair = (pair_of >= 0) & (places[1:] - places[:-1] == 1) & (chunks[1:] == chunks[:-1])
    held = _marked(count, len(query.neighbours), chunks[:-1][is_pair], pair_of[is_pair])
    weights = np.array([query.term_weights[one] + query.term_weights[other] for one, other in query.neighbours])
    return _shares(held, weights / math.fsum(weights))


def _numbered_pairs(query: LexicalQuery) -> NDArray[np.int64]:
    """Return which pair two terms of a question are, in either order; -1 for none."""
    places = {term: place for place, term in enumerate(query.term_weights)}
    numbers = np.full((len(places), len(places)), -1)
    for number, (one, other) in enumerate(query.neighbours):
        numbers[places[one], places[other]] = numbers[places[other], places[one]] = number
    return numbers
