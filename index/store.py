"""What questions are asked of, wherever it is kept: an open generation, and the store that publishes it.

The home on this machine (`index.generations`) and a Milvus server (`index.milvus`) are such stores. A store finds the
candidates for a question, by embedding and by keywords, and hands them over with all that scores them. Scoring,
confidence and citing are the same code for all stores, so that they give the same answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from index.corpus import Corpus, DocumentRecord
from index.embeddings import Embeddings
from index.manifest import Manifest
from index.sequences import TermSequences
from index.token_table import Adaptation
from index.vectors import Scores, SentenceVectors
from index.vocabulary import LexicalQuery, Vocabulary

CANDIDATES = 100  # of each search


@dataclass(frozen=True, eq=False)
class Excerpt:
    """The candidates for a question, with all that scores them.

    The arrays may hold more than the candidates: on this machine they are those of the whole generation, which
    nobody has to copy.

    Attributes:
        rows: int64, ascending: where in the arrays the candidates lie.
        dense: float32: their cosine similarity to the question.
        bm25: float32: their keyword scores.
        sentences, sequences: of the chunks in the arrays.
        furniture: bool: which of them are page furniture.
        numbers: int64, ascending: the row in the corpus of each of them; None where it is the same.
    """

    rows: NDArray[np.int64]
    dense: Scores
    bm25: Scores
    sentences: SentenceVectors
    sequences: TermSequences
    furniture: NDArray[np.bool_]
    numbers: NDArray[np.int64] | None = None

    def in_corpus(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the rows in the corpus of some rows of the arrays."""
        return rows if self.numbers is None else self.numbers[rows]


class OpenGeneration(Protocol):
    """A generation that can be asked, by one thread at a time. It stays readable until it is closed."""

    @property
    def manifest(self) -> Manifest:
        """What it says of itself."""

    @property
    def name(self) -> str:
        """Of the generation."""

    @property
    def lexical(self) -> Vocabulary:
        """Analyses questions."""

    @property
    def centroid(self) -> Embeddings:
        """The mean of all chunks' embeddings, see `ChunkVectors.centroid`."""

    @property
    def adaptation(self) -> Adaptation | None:
        """Of the instant encoder to this corpus; None for a model that has no instant encoder."""

    @property
    def corpus(self) -> Corpus:
        """Documents, chunks and their text."""

    @property
    def document_records(self) -> list[DocumentRecord]:
        """All documents in order of doc_id."""

    def excerpt(
        self, query: LexicalQuery, embedding: Embeddings, *, allowed: NDArray[np.bool_] | None = None
    ) -> Excerpt:
        """Find the nearest chunks by embedding and the best by keywords, `CANDIDATES` of each.

        Args:
            query: the question's words, analysed by `lexical`.
            embedding: of the question: float32, shape (dimension,), unit length.
            allowed: bool, shape (chunks,), alike for all chunks of a document; False keeps a chunk out. None allows
                all.

        Raises:
            StoreError: what keeps them does not answer.
        """

    def open_corpus(self) -> Corpus:
        """Open the corpus once more, for another thread; whoever asks for it closes it."""

    def close(self) -> None:
        """Close its files."""


class Store(Protocol):
    """Publishes generations to those who ask."""

    def published_name(self) -> str | None:
        """Return the name of the published generation, None when there is none."""

    def open_current(self) -> OpenGeneration:
        """Open the published generation."""

    def manifests(self) -> Sequence[Manifest]:
        """Return the manifests of the generations that are kept, newest first."""


def union(one: NDArray[np.int64], other: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the rows that two searches found, ascending, each once."""
    rows = np.sort(np.concatenate([one, other]))
    is_first = np.ones(len(rows), dtype=np.bool_)
    is_first[1:] = rows[1:] != rows[:-1]
    return rows[is_first]
