"""What a row of a store holds: a chunk with all that scores it, as bytes in text fields.

A text field takes 65,535 bytes. What is longer goes on in the files of the generation, so that no chunk is refused.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.chunk_table import ChunkValues
from index.corpus import LocatedChunk, StoredChunk
from index.embeddings import Embeddings
from index.generations import Generation
from index.lexical import LexicalIndex
from index.sequences import TermSequences
from index.shingles import BUCKETS
from index.store import Excerpt
from index.vectors import ChunkVectors, Scores, SentenceVectors, bounds_of
from index.vocabulary import LexicalQuery, Vocabulary

FIELD_BYTES = 65_535
PART_BYTES = FIELD_BYTES // 4 * 3  # of which so many characters are made
SCORING, RECORD = "scoring", "record"
ROWS_AT_ONCE = 65_536  # of which postings are looked up together


@dataclass(frozen=True)
class Scoring:
    """All that scores one chunk.

    Attributes:
        half: float16, shape (dimension,): its embedding.
        sentences: int8, shape (sentences, dimension): those of its sentences, see `SentenceVectors`.
        lengths: float32, shape (sentences,): of these rows.
        part_lengths: uint32, shape (sentences + 1,): how many terms its context and each sentence have.
        digests: uint32: of all these terms.
        questions: bool, shape (sentences,): which sentences are questions.
        shingles: uint16, shape (buckets,).
        terms: uint32: the places of its terms in the vocabulary.
        shares: float32: which share of a term's weight it gets, see `LexicalIndex.saturation`.
        is_furniture: whether it is page furniture.
    """

    half: NDArray[np.float16]
    sentences: NDArray[np.int8]
    lengths: NDArray[np.float32]
    part_lengths: NDArray[np.uint32]
    digests: NDArray[np.uint32]
    questions: NDArray[np.bool_]
    shingles: NDArray[np.uint16]
    terms: NDArray[np.uint32]
    shares: NDArray[np.float32]
    is_furniture: bool

    def pack(self) -> bytes:
        """Write it as bytes: sizes, then the arrays, all little-endian."""
        sizes = [len(self.half), len(self.lengths), len(self.digests), len(self.terms), int(self.is_furniture)]
        arrays = (
            np.array(sizes, "<u4"),
            self.half.astype("<f2"),
            self.lengths.astype("<f4"),
            self.part_lengths.astype("<u4"),
            self.digests.astype("<u4"),
            self.terms.astype("<u4"),
            self.shares.astype("<f4"),
            self.shingles.astype("<u2"),
            self.questions.astype("?"),
            self.sentences.astype("i1"),
        )
        return b"".join(array.tobytes() for array in arrays)

    @classmethod
    def unpack(cls, data: bytes) -> Scoring:
        """Read what `pack` wrote; the arrays are views."""
        dimension, sentences, digests, terms, furniture = np.frombuffer(data, "<u4", 5).tolist()
        place = 20

        def take(dtype: str, length: int) -> NDArray[Any]:
            nonlocal place
            array = np.frombuffer(data, dtype, length, place)
            place += array.nbytes
            return array

        return cls(
            half=take("<f2", dimension),
            lengths=take("<f4", sentences),
            part_lengths=take("<u4", sentences + 1),
            digests=take("<u4", digests),
            terms=take("<u4", terms),
            shares=take("<f4", terms),
            shingles=take("<u2", BUCKETS),
            questions=take("?", sentences),
            sentences=take("i1", sentences * dimension).reshape(sentences, dimension),
            is_furniture=bool(furniture),
        )


def scorings(generation: Generation) -> Iterator[Scoring]:
    """Yield all that scores each chunk of a generation, in order."""
    sentence_starts, sequences = generation.sentences.starts, generation.sequences
    terms = _terms_of_rows(generation.lexical)
    for row in range(generation.manifest.chunks):
        first, end = int(sentence_starts[row]), int(sentence_starts[row + 1])
        parts = sequences.starts[sequences.first_parts[row] : sequences.first_parts[row + 1] + 1]
        places, shares = next(terms)
        yield Scoring(
            half=generation.vectors.halves[row],
            sentences=generation.sentences.quantised[first:end],
            lengths=generation.sentences.lengths[first:end],
            part_lengths=np.diff(parts).astype(np.uint32),
            digests=sequences.digests[parts[0] : parts[-1]],
            questions=sequences.questions[first:end],
            shingles=sequences.shingle_counts[row],
            terms=places,
            shares=shares,
            is_furniture=bool(generation.furniture[row]),
        )


def excerpt_of(
    numbers: NDArray[np.int64],
    found: Sequence[Scoring],
    query: LexicalQuery,
    vocabulary: Vocabulary,
    embedding: Embeddings,
) -> Excerpt:
    """Put the candidates for a question together.

    Args:
        numbers: int64, ascending: their rows in the corpus.
        found: what scores each of them.
        query: the question's words.
        vocabulary: that analysed them.
        embedding: of the question: float32, shape (dimension,), unit length.
    """
    dimension, rows = len(embedding), np.arange(len(found))
    vectors = ChunkVectors.zeros(len(found), dimension)
    sentence_starts = bounds_of(np.array([len(each.lengths) for each in found], np.int64))
    for place, each in enumerate(found):
        vectors.halves[place] = each.half
    return Excerpt(
        rows=rows,
        dense=vectors.similarities(embedding, rows),
        bm25=_bm25(found, query, vocabulary),
        sentences=SentenceVectors(
            _joined([each.sentences for each in found], np.empty((0, dimension), np.int8)),
            _joined([each.lengths for each in found], np.empty(0, np.float32)),
            sentence_starts,
        ),
        sequences=TermSequences(
            _joined([each.digests for each in found], np.empty(0, np.uint32)),
            bounds_of(_joined([each.part_lengths for each in found], np.empty(0, np.uint32))),
            _joined([each.questions for each in found], np.empty(0, np.bool_)),
            np.array([each.shingles for each in found], np.uint16).reshape(-1, BUCKETS),
            sentence_starts,
        ),
        furniture=np.array([each.is_furniture for each in found], np.bool_),
        numbers=numbers,
    )


def query_vector(query: LexicalQuery, vocabulary: Vocabulary) -> dict[int, float]:
    """Return the weights of a question's known terms by their place: times the shares of a chunk, its BM25 score."""
    return {
        int(vocabulary.offsets.searchsorted(span.start)): query.term_weights[term]
        for term, span in query.spans.items()
        if span.start != span.stop
    }


def term_vector(scoring: Scoring, vocabulary: Vocabulary) -> dict[int, float]:
    """Return the shares of a chunk by the place of the term; a chunk without terms has one that nobody asks for."""
    vector = dict(zip(scoring.terms.tolist(), scoring.shares.tolist(), strict=True))
    return vector or {len(vocabulary.term_ends): 1.0}


def pack_record(stored: StoredChunk) -> bytes:
    """Write down what a chunk is, and the text around it."""
    located = stored.located
    values = (located.row, located.document, located.first_sentence, stored.before, stored.after, *located.values)
    return zlib.compress(json.dumps(values, ensure_ascii=False).encode())


def unpack_record(data: bytes) -> StoredChunk:
    """Read what `pack_record` wrote."""
    row, document, first_sentence, before, after, *values = json.loads(zlib.decompress(data))
    return StoredChunk(LocatedChunk(row, document, first_sentence, ChunkValues(*values)), before, after)


def as_text(data: bytes) -> str:
    """Write bytes as text, which fits into a field if they are no more than `PART_BYTES`."""
    return base64.b64encode(data).decode()


def joined_parts(parts: Iterable[str]) -> bytes:
    """Put bytes that were written as texts together again."""
    return b"".join(map(base64.b64decode, parts))


def part_key(name: str, number: int) -> str:
    """Return the key of a part of a file."""
    return f"{name}#{number}"


def _terms_of_rows(lexical: LexicalIndex) -> Iterator[tuple[NDArray[np.uint32], NDArray[np.float32]]]:
    """Yield the places of each row's terms and their shares.

    Postings are kept by term, so they are looked through for many rows at once.
    """
    for first in range(0, len(lexical), ROWS_AT_ONCE):
        end = min(first + ROWS_AT_ONCE, len(lexical))
        positions = np.flatnonzero((lexical.rows >= first) & (lexical.rows < end))
        rows = lexical.rows[positions]
        order = np.argsort(rows, kind="stable")
        positions, rows = positions[order], rows[order]
        terms = (np.searchsorted(lexical.offsets, positions, side="right") - 1).astype(np.uint32)
        shares = lexical.saturation(rows, lexical.frequencies[positions])
        bounds = np.searchsorted(rows, np.arange(first, end + 1))
        for place in range(end - first):
            span = slice(bounds[place], bounds[place + 1])
            yield terms[span], shares[span]


def _bm25(found: Sequence[Scoring], query: LexicalQuery, vocabulary: Vocabulary) -> Scores:
    """Return the keyword scores, added up in the order in which `LexicalIndex.scores` does, to the same bits."""
    scores = np.zeros(len(found), np.float32)
    if found:
        terms = np.concatenate([each.terms for each in found])
        shares = np.concatenate([each.shares for each in found])
        rows = np.arange(len(found)).repeat([len(each.terms) for each in found])
        for place, weight in query_vector(query, vocabulary).items():
            hits = np.flatnonzero(terms == place)
            scores[rows[hits]] += weight * shares[hits]
    return scores


def _joined(arrays: Sequence[NDArray[Any]], none: NDArray[Any]) -> NDArray[Any]:
    return np.concatenate([none, *arrays])
