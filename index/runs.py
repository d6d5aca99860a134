"""Runs over a data set: its corpus as an index, its queries ranked by each way of retrieval."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index.build import BuildSettings, sync
from index.documents import Block, BlockKind, Content, Document
from index.draft import Progress
from index.embeddings import Embeddings, Encoder
from index.evaluation import CorpusEntry, Dataset, Run
from index.generations import Generation, Home
from index.reranking import RERANKED, Reranker
from index.retrieval import Wanted, retrieve, score_candidates
from index.sources import Rejected, Unchanged
from index.vectors import Scores
from index.weights import Weights, default_weights

QUERIES_AT_ONCE = 256


@dataclass(frozen=True)
class DatasetSource:
    """The corpus of a data set as a source: one document of one paragraph for each entry."""

    dataset: Dataset
    key: str
    prefix: str = ""
    is_bundled: bool = False

    def read(self, known: Mapping[str, str]) -> Iterator[Document | Unchanged | Rejected]:
        """Yield its documents; an entry without text is rejected."""
        for entry in self.dataset.corpus():
            document = _document(entry)
            if not document.content.blocks:
                yield Rejected(entry.doc_id, "holds no text")
            elif known.get(entry.doc_id) == document.sha256:
                yield Unchanged(entry.doc_id)
            else:
                yield document


def index_dataset(dataset: Dataset, folder: Path, home: Home, encoder: Encoder, progress: Progress) -> Generation:
    """Bring the index of a data set up to date and open it.

    Args:
        dataset: to index.
        folder: where it lies; tells it from other data sets.
        home: of the index; what is unchanged since the last time is not encoded again.
        encoder: of the model.
        progress: told of each stage.
    """
    settings = BuildSettings(keep_generations=1, allow_empty=True)
    source = DatasetSource(dataset, key=str(folder.resolve()))
    sync(home, [source], encoder, settings=settings, progress=progress)
    return home.open_current()


def rank_queries(
    generation: Generation,
    encoder: Encoder,
    queries: Mapping[str, str],
    *,
    top_k: int,
    progress: Progress,
    weights: Weights | None = None,
    reranker: Reranker | None = None,
) -> dict[str, Run]:
    """Rank documents for every query by dense search alone, by BM25 alone, and as questions are answered.

    A document scores as its best chunk.

    Args:
        generation: of the data set.
        encoder: of the model it was built with.
        queries: query_id -> text.
        top_k: documents ranked for a query.
        progress: told of each query.
        weights: None for those that ship with the package.
        reranker: None leaves its way out.

    Returns:
        "dense", "bm25", "whence" and, with a reranker, "reranked": each at most `top_k` documents for each query.
    """
    ranker = _Ranker(generation, weights or default_weights(), reranker, top_k)
    runs: dict[str, Run] = {name: {} for name in ranker.ways}
    progress.start("Ranking", len(queries))
    query_ids = list(queries)
    for first in range(0, len(query_ids), QUERIES_AT_ONCE):
        batch = query_ids[first : first + QUERIES_AT_ONCE]
        embeddings = encoder.encode_queries([queries[query_id] for query_id in batch])
        for query_id, embedding in zip(batch, embeddings, strict=True):
            for name, way in ranker.ways.items():
                runs[name][query_id] = ranker.documents(*way(queries[query_id], embedding))
        progress.advance(len(batch))
    return runs


class _Ranker:
    """Ranks chunks in each way, and documents by their chunks."""

    def __init__(self, generation: Generation, weights: Weights, reranker: Reranker | None, top_k: int) -> None:
        self._generation = generation
        self._weights = weights
        self._top_k = top_k
        self._doc_ids = [record.doc_id for record in generation.document_records]
        self._first_rows = np.array([record.first_row for record in generation.document_records], dtype=np.int64)
        self.ways: dict[str, Callable[[str, Embeddings], tuple[NDArray[np.int64], Scores]]] = {
            "dense": self._dense,
            "bm25": self._bm25,
            "whence": self._whence,
        }
        if reranker is not None:
            self.ways["reranked"] = partial(self._reranked, reranker)

    def documents(self, rows: NDArray[np.int64], scores: Scores) -> dict[str, float]:
        """Turn chunks, best first, into the scores of their documents."""
        ranking: dict[str, float] = {}
        places = np.searchsorted(self._first_rows, rows, side="right") - 1
        for place, score in zip(places.tolist(), scores.tolist(), strict=True):
            ranking.setdefault(self._doc_ids[place], score)
            if len(ranking) == self._top_k:
                break
        return ranking

    def _dense(self, query: str, embedding: Embeddings) -> tuple[NDArray[np.int64], Scores]:
        return self._generation.vectors.search(embedding, top_k=2 * self._top_k)

    def _bm25(self, query: str, embedding: Embeddings) -> tuple[NDArray[np.int64], Scores]:
        return self._generation.lexical.search(query, top_k=2 * self._top_k)

    def _whence(self, query: str, embedding: Embeddings) -> tuple[NDArray[np.int64], Scores]:
        words = self._generation.lexical.query(query)
        scored = score_candidates(self._generation, words, embedding, weights=self._weights.score)
        return scored.rows, scored.scores

    def _reranked(self, reranker: Reranker, query: str, embedding: Embeddings) -> tuple[NDArray[np.int64], Scores]:
        words = self._generation.lexical.query(query)
        top_k = max(RERANKED, 2 * self._top_k)
        (passages,) = retrieve(self._generation, [Wanted(words, embedding, top_k)], self._weights.score)
        chunks = [(each.chunk, *each.also_in) for each in reranker.rerank(query, passages)]
        rows = np.array([chunk.row for same in chunks for chunk in same], dtype=np.int64)
        # Its judgements and the scores of those it did not read cannot be compared: only the order counts.
        return rows, (1 / np.arange(1, len(rows) + 1)).astype(np.float32)


def _document(entry: CorpusEntry) -> Document:
    text = entry.text
    start, end = len(text) - len(text.lstrip()), len(text.rstrip())
    blocks = (Block(BlockKind.PARAGRAPH, start, end),) if start < end else ()
    source = f"{entry.title}\n{text}".encode()
    return Document(
        doc_id=entry.doc_id,
        title=entry.title,
        media_type="text/plain",
        sha256=hashlib.sha256(source).hexdigest(),
        size=len(source),
        content=Content(text, blocks, title=entry.title or None),
    )
