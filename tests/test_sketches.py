"""Sketches find nearly all of the nearest chunks, and where they would not the search is exact."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sources_in_memory import MemorySource

import index.draft
import index.sketches
import index.vectors
from index.build import sync
from index.draft import NEAREST_ROWS
from index.embeddings import Embeddings, Encoder
from index.errors import DamagedGenerationError
from index.generations import SKETCHES, Home
from index.sketches import DenseSearch, Sketches, nearest_rows, sampled_rows, updated_nearest
from index.vectors import ChunkVectors

COUNT, DIMENSION = 3_000, 64
SAMPLE = np.arange(0, COUNT, 3)


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


def lamps(count: int) -> str:
    return "# Lamps\n\n" + "\n".join(
        f"## Part {number}\n\nThe {number}. lamp is for room {number % 17}.\n" for number in range(count)
    )


def handbook() -> MemorySource:
    return MemorySource({"lamps.md": lamps(150)})


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
    vectors.sketches = Sketches.of(vectors.halves, lists=16, sample=SAMPLE)
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
    again = Sketches.of(listed.halves, lists=16, sample=SAMPLE)
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


# Updated for the next generation: the same as if they were made of it.


@dataclass(frozen=True)
class Next:
    """A later generation of some embeddings, in which rows have come and gone."""

    halves: NDArray[np.float16]
    origins: NDArray[np.int64]

    @classmethod
    def of(cls, halves: NDArray[np.float16], *, gone: Sequence[int], places: Sequence[int]) -> Next:
        """Remove rows, and put new ones before some places among those that stay."""
        origins = np.insert(np.delete(np.arange(len(halves)), gone), places, -1)
        later = halves[origins]
        later[origins < 0] = clustered(len(places), seed=7)
        return cls(later, origins)


CHANGES = [
    ([], [COUNT]),
    ([], [0, 0, 5, 1_500, 1_500, 2_999]),
    ([1, 2, 4, 1_700, COUNT - 1], []),
    ([COUNT - 2, COUNT - 1], [COUNT - 2]),
    ([row for row in range(1, 2_000, 9) if row % 3], [*range(0, 2_500, 7)]),
    ([], []),
]


@pytest.mark.parametrize(("gone", "places"), CHANGES)
def test_updated_lists_are_those_of_the_next_generation(
    listed: ChunkVectors, tmp_path: Path, gone: list[int], places: list[int]
) -> None:
    assert listed.sketches is not None
    later = Next.of(listed.halves, gone=gone, places=places)
    listed.sketches.update(later.halves, later.origins)
    listed.sketches.save(tmp_path / "updated")
    anew = Sketches.of(later.halves, lists=16, sample=np.flatnonzero(np.isin(later.origins, SAMPLE)))
    anew.search_by(DenseSearch(oversampling=6, probes=8))
    anew.save(tmp_path / "anew")
    assert len(listed.sketches) == len(later.halves)
    assert (tmp_path / "updated").read_bytes() == (tmp_path / "anew").read_bytes()


@pytest.mark.parametrize(("gone", "places"), CHANGES)
def test_updated_nearest_rows_are_those_of_the_next_generation(
    vectors: ChunkVectors, gone: list[int], places: list[int]
) -> None:
    queries = clustered(40, seed=2)
    later = Next.of(vectors.halves, gone=gone, places=places)
    nearest = nearest_rows(vectors.halves, queries, count=10)
    updated = updated_nearest(nearest, later.halves, queries, later.origins)
    assert updated.tolist() == nearest_rows(later.halves, queries, count=10).tolist()


def test_the_rows_with_the_smallest_digests_are_sampled() -> None:
    digests = np.random.default_rng(1).integers(0, 256, (500, 32), np.uint8)
    digests[400] = digests[7]
    expected = sorted(range(500), key=lambda row: (digests[row, :8].tobytes(), row))
    for count in (1, 9, 499, 500, 501):
        assert sampled_rows(digests, count).tolist() == expected[:count]
    assert sampled_rows(digests[:0], 9).tolist() == []


@pytest.mark.parametrize("lists", [True, False])
def test_a_generation_that_was_updated_equals_one_made_anew(
    home: Home, tmp_path: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch, lists: bool
) -> None:
    monkeypatch.setattr(index.draft, "EXACT_CHUNKS", 20)
    monkeypatch.setattr(index.draft, "LISTS", 4)
    monkeypatch.setattr(index.draft, "SAMPLED_OF_LIST", 2)
    monkeypatch.setattr(index.draft, "MEASURED_QUERIES", 3)
    monkeypatch.setattr(index.sketches, "_UPDATED_SHARE", 0.5)
    if lists:
        monkeypatch.setattr(index.sketches, "ONE_LIST_CHUNKS", 20)
    updated = []
    monkeypatch.setattr(Sketches, "update", _noting(Sketches.update, updated))
    texts = {"lamps.md": lamps(150), "bells.md": "# Bells\n\nBells ring.\n", "zips.md": "# Zips\n\nZips close.\n"}
    for left_out in ("bells.md", "zips.md", "none"):
        sync(home, [MemorySource({name: text for name, text in texts.items() if name != left_out})], encoder)
    fresh = Home(tmp_path / "fresh")
    sync(fresh, [MemorySource(texts)], encoder)
    assert len(updated) == (2 if lists else 0)
    with closing(home.open_current()) as one, closing(fresh.open_current()) as other:
        assert one.manifest.files == other.manifest.files
        assert one.manifest.dense == other.manifest.dense
        assert NEAREST_ROWS in one.manifest.files


def _noting(function: Callable[..., None], calls: list[Any]) -> Callable[..., None]:
    def noted(*arguments: Any) -> None:
        calls.append(arguments)
        function(*arguments)

    return noted


def test_recall_is_the_share_of_the_nearest_rows_among_the_candidates(vectors: ChunkVectors) -> None:
    queries = clustered(40, seed=2)
    sketches = Sketches.of(vectors.halves, oversampling=1)
    nearest = nearest_rows(vectors.halves, queries, count=10)
    rows = sketches.candidates(queries, top_k=30)
    expected = np.mean([len({*one} & {*other}) / 10 for one, other in zip(nearest, rows, strict=True)])
    assert sketches.recall(queries, nearest, top_k=30) == pytest.approx(expected)
    assert 0.5 < expected < 1
