"""Dense search is exact: it agrees with a few lines of NumPy, ties and filters included."""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import pytest
from numpy.typing import NDArray

from index import vectors
from index.embeddings import Embeddings
from index.errors import DamagedGenerationError, QuestionError
from index.vectors import ChunkVectors, SentenceVectors, lengths_of, open_array, quantise, slices


def unit_rows(count: int, dimension: int, *, seed: int = 0) -> Embeddings:
    rows = np.random.default_rng(seed).standard_normal((count, dimension), dtype=np.float32)
    unit: Embeddings = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


def indexed(halves: NDArray[np.float16]) -> ChunkVectors:
    index = ChunkVectors.zeros(*halves.shape)
    index.halves[:] = halves
    return index


def stored(embeddings: Embeddings, starts: NDArray[np.int64]) -> SentenceVectors:
    """Return embeddings of sentences as a generation keeps them."""
    quantised = quantise(embeddings)
    return SentenceVectors(quantised, lengths_of(quantised, np.arange(len(quantised))), starts)


def with_repeats(count: int, times: int, dimension: int) -> NDArray[np.float16]:
    """Return rows of which each occurs several times, in mixed order."""
    order = np.random.default_rng(1).permutation(count * times)
    rows: NDArray[np.float16] = np.repeat(unit_rows(count, dimension), times, axis=0)[order].astype(np.float16)
    return rows


def nearest(
    halves: NDArray[np.float16], query: Embeddings, top_k: int, allowed: NDArray[np.bool_] | None = None
) -> NDArray[np.int64]:
    """Find the nearest rows by brute force; equal rows get equal similarities, and come in their order."""
    distinct, places = np.unique(halves, axis=0, return_inverse=True)
    similarities = (distinct.astype(np.float64) @ query)[places]
    order = np.lexsort((np.arange(len(halves)), -similarities))
    return (order if allowed is None else order[allowed[order]])[:top_k]


@pytest.mark.parametrize("top_k", [1, 5, 10, 33, 100, 150])
def test_search_agrees_with_brute_force(top_k: int) -> None:
    halves = unit_rows(500, 384).astype(np.float16)
    query = unit_rows(1, 384, seed=7)[0]
    rows, similarities = indexed(halves).search(query, top_k=top_k)
    np.testing.assert_array_equal(rows, nearest(halves, query, top_k))
    np.testing.assert_allclose(similarities, halves[rows].astype(np.float32) @ query, atol=1e-6)
    assert rows.dtype == np.int64
    assert similarities.dtype == np.float32


@pytest.mark.parametrize("top_k", [1, 5, 10, 33, 100, 150, 2_000])
@pytest.mark.parametrize("times", [3, 20, 300])
def test_of_equally_similar_chunks_the_first_are_found(top_k: int, times: int) -> None:
    halves = with_repeats(1_200 // times, times, 16)
    query = unit_rows(1, 16)[0]
    rows, _ = indexed(halves).search(query, top_k=top_k)
    np.testing.assert_array_equal(rows, nearest(halves, query, top_k))


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_a_mask_keeps_rows_out_and_changes_nothing_else(share: float) -> None:
    halves = with_repeats(100, 5, 16)
    allowed = np.random.default_rng(2).random(len(halves)) < share
    query = unit_rows(1, 16, seed=3)[0]
    vectors = indexed(halves)
    rows, similarities = vectors.search(query, top_k=50, allowed=allowed)
    np.testing.assert_array_equal(rows, nearest(halves, query, 50, allowed))
    every_row, every_similarity = vectors.search(query, top_k=len(halves))
    of_row = dict(zip(every_row.tolist(), every_similarity.tolist(), strict=True))
    assert similarities.tolist() == [of_row[row] for row in rows.tolist()]


def test_a_mask_that_allows_nothing_finds_nothing() -> None:
    vectors = indexed(unit_rows(9, 8).astype(np.float16))
    rows, similarities = vectors.search(unit_rows(1, 8)[0], top_k=3, allowed=np.zeros(9, np.bool_))
    assert (rows.tolist(), similarities.tolist()) == ([], [])


def test_an_empty_index_finds_nothing() -> None:
    vectors = indexed(np.empty((0, 8), np.float16))
    assert len(vectors) == 0
    rows, _ = vectors.search(unit_rows(1, 8)[0], top_k=3)
    assert rows.tolist() == []


def test_a_search_leaves_the_number_of_threads_as_it_was() -> None:
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(3)
    try:
        indexed(unit_rows(4, 8).astype(np.float16)).search(unit_rows(1, 8)[0], top_k=2)
        assert faiss.omp_get_max_threads() == 3
    finally:
        faiss.omp_set_num_threads(before)


def test_an_embedding_of_another_dimension_is_refused_with_both_numbers() -> None:
    vectors = indexed(unit_rows(3, 8).astype(np.float16))
    with pytest.raises(QuestionError, match=r"shape \(16,\), the index 8 dimensions"):
        vectors.search(unit_rows(1, 16)[0], top_k=1)


def test_saved_vectors_are_the_same_numbers_after_loading(tmp_path: Path) -> None:
    halves = unit_rows(40, 8).astype(np.float16)
    path = tmp_path / "vectors.faiss"
    indexed(halves).save(path)
    loaded = ChunkVectors.load(path)
    assert (len(loaded), loaded.dimension) == (40, 8)
    np.testing.assert_array_equal(loaded.halves, halves)
    assert not loaded.halves.flags.writeable
    query = unit_rows(1, 8, seed=4)[0]
    np.testing.assert_array_equal(loaded.search(query, top_k=5)[0], nearest(halves, query, 5))


def test_an_empty_index_can_be_saved_and_loaded(tmp_path: Path) -> None:
    path = tmp_path / "vectors.faiss"
    ChunkVectors.zeros(0, 8).save(path)
    loaded = ChunkVectors.load(path)
    assert loaded.halves.shape == (0, 8)
    assert loaded.search(unit_rows(1, 8)[0], top_k=3)[0].tolist() == []


def test_vectors_that_cannot_be_written_are_an_error_of_the_system(tmp_path: Path) -> None:
    vectors = indexed(unit_rows(3, 8).astype(np.float16))
    with pytest.raises(OSError, match=r"vectors\.faiss"):
        vectors.save(tmp_path / "missing" / "vectors.faiss")


def test_a_file_that_is_no_index_is_named(tmp_path: Path) -> None:
    path = tmp_path / "vectors.faiss"
    path.write_bytes(b"not an index")
    with pytest.raises(DamagedGenerationError, match=r"vectors\.faiss is not a readable FAISS index"):
        ChunkVectors.load(path)


def test_an_index_of_another_kind_is_named(tmp_path: Path) -> None:
    path = tmp_path / "vectors.faiss"
    faiss.write_index(faiss.IndexFlatIP(8), str(path))
    with pytest.raises(DamagedGenerationError, match=r"vectors\.faiss is a FAISS index of an unexpected kind"):
        ChunkVectors.load(path)


def test_similarities_of_given_rows_are_in_the_order_asked_for() -> None:
    halves = unit_rows(20, 8).astype(np.float16)
    query = unit_rows(1, 8, seed=5)[0]
    rows = np.array([7, 0, 19, 7])
    similarities = indexed(halves).similarities(query, rows)
    np.testing.assert_allclose(
        similarities, [float(halves[row].astype(np.float32) @ query) for row in rows], atol=1e-6
    )


def test_a_corpus_searched_in_single_precision_finds_what_one_in_half_precision_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    halves = unit_rows(300, 32).astype(np.float16)
    halves[100:120] = halves[7]
    queries, allowed = unit_rows(20, 32, seed=5), np.arange(300) % 3 > 0
    for mask, top_k in [(None, 10), (None, 110), (None, 400), (allowed, 10), (allowed, 300)]:
        small = [indexed(halves).search(query, top_k=top_k, allowed=mask) for query in queries]
        monkeypatch.setattr(vectors, "_SINGLES_CHUNKS", 0)
        large = [indexed(halves).search(query, top_k=top_k, allowed=mask) for query in queries]
        monkeypatch.undo()
        for (rows, similarities), (other_rows, other_similarities) in zip(small, large, strict=True):
            assert rows.tolist() == other_rows.tolist()
            np.testing.assert_allclose(similarities, other_similarities, atol=1e-6)


def test_a_similarity_has_the_same_bits_whatever_it_is_computed_with() -> None:
    halves, query = unit_rows(700, 384).astype(np.float16), unit_rows(1, 384, seed=5)[0]
    index = indexed(halves)
    rows, similarities = index.search(query, top_k=700)
    for count in (1, 2, 3, 63, 700):
        assert index.similarities(query, rows[:count]).tobytes() == similarities[:count].tobytes()


def test_half_precision_is_read_exactly() -> None:
    # All finite numbers of half precision, the smallest and the negative ones among them; one in each row is read.
    numbers = np.arange(65_536, dtype=np.uint16).view(np.float16)
    halves = numbers[np.isfinite(numbers)].reshape(-1, 8)
    for place in range(8):
        query = np.zeros(8, dtype=np.float32)
        query[place] = 1
        read = indexed(halves).similarities(query, np.arange(len(halves)))
        np.testing.assert_array_equal(read, halves[:, place].astype(np.float32))


def test_one_byte_for_each_dimension_keeps_a_cosine_to_two_decimals() -> None:
    embeddings = unit_rows(200, 384)
    query = unit_rows(1, 384, seed=6)[0]
    sentences = stored(embeddings, np.arange(201))
    similarities = sentences.similarities(query, np.arange(200))
    np.testing.assert_allclose(similarities, embeddings @ query, atol=5e-3)


def test_the_largest_component_of_a_quantised_row_is_127() -> None:
    quantised = quantise(np.array([[0.5, -1.0, 0.25], [0.0, 0.0, 0.0]], np.float32))
    assert quantised.tolist() == [[64, -127, 32], [0, 0, 0]]
    assert quantised.dtype == np.int8


def test_sentences_of_chunks_come_one_chunk_after_another() -> None:
    embeddings = np.eye(6, 8, dtype=np.float32)
    sentences = stored(embeddings, np.array([0, 2, 3, 6]))
    found = sentences.of_chunks(np.array([2, 0]))
    assert found.bounds.tolist() == [0, 3, 5]
    assert found.positions.tolist() == [3, 4, 5, 0, 1]
    similarities = sentences.similarities(np.arange(8, dtype=np.float32), found.positions)
    assert similarities.tolist() == [3.0, 4.0, 5.0, 0.0, 1.0]


def test_an_array_is_opened_memory_mapped_and_cannot_be_written(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", np.arange(3))
    array = open_array(tmp_path / "rows.npy")
    assert type(array) is np.ndarray
    assert isinstance(array.base, np.memmap)
    assert not array.flags.writeable
    assert array.tolist() == [0, 1, 2]


def test_slices_cover_every_row_once() -> None:
    assert list(slices(0)) == []
    covered = [row for part in slices(150_000) for row in range(part.start, part.stop)]
    assert covered == list(range(150_000))
