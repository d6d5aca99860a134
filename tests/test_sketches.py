"""Sketches find nearly all of the nearest chunks, and where they would not the search is exact."""

from __future__ import annotations

import logging
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from sources_in_memory import MemorySource

import index.draft
import index.sketches
import index.vectors
from index.build import sync
from index.embeddings import Embeddings, Encoder
from index.errors import DamagedGenerationError
from index.generations import SKETCHES, Home
from index.sketches import DenseSearch, Sketches, nearest_rows
from index.vectors import ChunkVectors

COUNT, DIMENSION = 3_000, 64


def clustered(count: int, seed: int) -> Embeddings:
    """Return unit rows around a few centres, as embeddings of texts are."""
    chosen = np.random.default_rng(seed)
    centres = np.random.default_rng(0).standard_normal((50, DIMENSION))
    rows = centres[chosen.integers(0, 50, count)] + chosen.standard_normal((count, DIMENSION))
    unit: Embeddings = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return unit


@pytest.fixture
def vectors(monkeypatch: pytest.MonkeyPatch) -> ChunkVectors:
    """Embeddings with sketches, which are used from a hundred allowed rows on."""
    monkeypatch.setattr(index.vectors, "EXACT_CHUNKS", 100)
    vectors = ChunkVectors.zeros(COUNT, DIMENSION)
    vectors.halves[:] = clustered(COUNT, seed=1)
    vectors.sketches = Sketches.of(vectors.halves, oversampling=6)
    return vectors


def exact(vectors: ChunkVectors, query: Embeddings, allowed: np.ndarray | None = None) -> list[int]:
    similarities = vectors.halves.astype(np.float32) @ query
    if allowed is not None:
        similarities[~allowed] = -2
    return np.argsort(-similarities, kind="stable")[:10].tolist()


def test_the_nearest_rows_are_found_and_come_in_order(vectors: ChunkVectors) -> None:
    queries = clustered(40, seed=2)
    found = [vectors.search(query, top_k=10) for query in queries]
    shares = [
        len({*rows.tolist()} & {*exact(vectors, query)}) / 10 for query, (rows, _) in zip(queries, found, strict=True)
    ]
    assert np.mean(shares) >= 0.95
    for query, (rows, similarities) in zip(queries, found, strict=True):
        assert len(rows) == 10
        assert (np.diff(similarities) <= 0).all()
        np.testing.assert_allclose(similarities, vectors.halves[rows].astype(np.float32) @ query, atol=1e-5)


@pytest.mark.parametrize("share", [0.01, 0.2, 0.7])
def test_filters_leave_enough_of_them(vectors: ChunkVectors, share: float) -> None:
    allowed = np.random.default_rng(3).random(COUNT) < share
    for query in clustered(20, seed=4):
        rows, _ = vectors.search(query, top_k=10, allowed=allowed)
        assert len(rows) == 10
        assert allowed[rows].all()
        assert len({*rows.tolist()} & {*exact(vectors, query, allowed)}) >= (10 if share == 0.01 else 7)


def test_more_than_there_are_can_be_asked_for(vectors: ChunkVectors) -> None:
    rows, _ = vectors.search(clustered(1, seed=5)[0], top_k=COUNT + 1)
    assert sorted(rows.tolist()) == list(range(COUNT))


def test_sketches_are_the_same_after_loading(vectors: ChunkVectors, tmp_path: Path) -> None:
    sketches = Sketches.of(vectors.halves, oversampling=3)
    sketches.save(tmp_path / "one")
    Sketches.of(vectors.halves, oversampling=3).save(tmp_path / "other")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()
    queries = clustered(5, seed=6)
    loaded = Sketches.load(tmp_path / "one", DenseSearch(oversampling=3))
    assert len(loaded) == COUNT
    assert loaded.candidates(queries, top_k=7).tolist() == sketches.candidates(queries, top_k=7).tolist()


def test_a_file_of_another_kind_is_named(vectors: ChunkVectors, tmp_path: Path) -> None:
    (tmp_path / "nonsense").write_bytes(b"no index")
    with pytest.raises(DamagedGenerationError, match="nonsense is not a readable FAISS index"):
        Sketches.load(tmp_path / "nonsense", DenseSearch(3))
    vectors.save(tmp_path / "vectors.faiss")
    with pytest.raises(DamagedGenerationError, match=r"vectors\.faiss is a FAISS index of an unexpected kind"):
        Sketches.load(tmp_path / "vectors.faiss", DenseSearch(3))


def handbook() -> MemorySource:
    parts = [f"## Part {number}\n\nThe {number}. lamp is for room {number % 17}.\n" for number in range(150)]
    return MemorySource({"lamps.md": "# Lamps\n\n" + "\n".join(parts)})


def test_a_large_corpus_gets_sketches_whose_recall_is_recorded(
    home: Home, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index.draft, "EXACT_CHUNKS", 100)
    sync(home, [handbook()], encoder)
    generation = home.open_current()
    assert generation.vectors.sketches is not None
    assert len(generation.vectors.sketches) == generation.manifest.chunks == 150
    assert generation.manifest.dense.oversampling == 3
    assert 0.98 <= generation.manifest.dense.recall <= 1
    assert SKETCHES in generation.manifest.files
    generation.close()


def test_where_sketches_find_too_little_the_search_stays_exact(
    home: Home, encoder: Encoder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(index.draft, "EXACT_CHUNKS", 100)
    monkeypatch.setattr(index.draft, "TARGET_RECALL", 1.01)
    with caplog.at_level(logging.WARNING):
        sync(home, [handbook()], encoder)
    assert "the search stays exact" in caplog.text
    generation = home.open_current()
    assert generation.manifest.dense == DenseSearch()
    assert generation.vectors.sketches is None
    assert not (generation.folder / SKETCHES).exists()
    generation.close()


def test_the_nearest_rows_of_many_queries_are_those_of_exact_search(
    vectors: ChunkVectors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index.sketches, "_COPY_ROWS", 700)  # so that there are several parts, the last a small one
    monkeypatch.setattr(index.sketches, "_SAMPLED_ROWS", 100)
    queries = clustered(40, seed=2)
    found = nearest_rows(vectors.halves, queries, count=10)
    assert found.tolist() == [exact(vectors, query) for query in queries]


def test_equally_near_rows_come_in_their_order() -> None:
    halves = np.repeat(clustered(5, seed=1), 20, axis=0).astype(np.float16)
    found = nearest_rows(halves, clustered(1, seed=1), count=10)
    assert found.tolist() == [list(range(10))]


@pytest.fixture
def listed(vectors: ChunkVectors) -> ChunkVectors:
    """The same with sketches in lists, half of which are looked through."""
    vectors.sketches = Sketches.of(vectors.halves, lists=16)
    vectors.sketches.search_by(DenseSearch(oversampling=6, probes=8))
    return vectors


def test_the_nearest_rows_are_found_in_lists(listed: ChunkVectors) -> None:
    queries = clustered(40, seed=2)
    found = [{*listed.search(query, top_k=10)[0].tolist()} for query in queries]
    shares = [len(rows & {*exact(listed, query)}) / 10 for query, rows in zip(queries, found, strict=True)]
    assert np.mean(shares) >= 0.9


def test_where_the_lists_have_too_few_the_search_is_exact(listed: ChunkVectors) -> None:
    assert listed.sketches is not None
    listed.sketches.search_by(DenseSearch(oversampling=1, probes=1))
    query = clustered(1, seed=2)[0]
    assert (listed.sketches.candidates(query[None], top_k=1_500) < 0).any()
    rows, _ = listed.search(query, top_k=1_500)
    assert rows[:10].tolist() == exact(listed, query)
    assert len(rows) == 1_500


def test_lists_are_the_same_after_loading_and_hold_every_row(listed: ChunkVectors, tmp_path: Path) -> None:
    assert listed.sketches is not None
    listed.sketches.save(tmp_path / "one")
    again = Sketches.of(listed.halves, lists=16)
    again.search_by(DenseSearch(oversampling=6, probes=8))
    again.save(tmp_path / "other")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()
    queries, dense = clustered(5, seed=6), DenseSearch(oversampling=6, probes=8)
    loaded = Sketches.load(tmp_path / "one", dense)
    assert loaded.candidates(queries, top_k=7).tolist() == listed.sketches.candidates(queries, top_k=7).tolist()
    loaded.search_by(DenseSearch(oversampling=COUNT, probes=16))
    assert sorted(loaded.candidates(queries[:1], top_k=1)[0].tolist()) == list(range(COUNT))
    with pytest.raises(DamagedGenerationError, match="of an unexpected kind"):
        Sketches.load(tmp_path / "one", DenseSearch(oversampling=6))


def test_a_very_large_corpus_gets_lists(home: Home, encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index.draft, "EXACT_CHUNKS", 20)
    monkeypatch.setattr(index.draft, "LISTS", 4)
    monkeypatch.setattr(index.sketches, "ONE_LIST_CHUNKS", 20)
    sync(home, [handbook()], encoder)
    with closing(home.open_current()) as generation:
        assert generation.manifest.dense.probes == 64
        assert generation.manifest.dense.recall >= 0.98
        assert generation.vectors.sketches is not None
        assert len(generation.vectors.sketches) == generation.manifest.chunks


def test_recall_is_the_share_of_the_nearest_rows_among_the_candidates(vectors: ChunkVectors) -> None:
    queries = clustered(40, seed=2)
    sketches = Sketches.of(vectors.halves, oversampling=1)
    nearest = nearest_rows(vectors.halves, queries, count=10)
    rows = sketches.candidates(queries, top_k=30)
    expected = np.mean([len({*one} & {*other}) / 10 for one, other in zip(nearest, rows, strict=True)])
    assert sketches.recall(queries, nearest, top_k=30) == pytest.approx(expected)
    assert 0.5 < expected < 1
