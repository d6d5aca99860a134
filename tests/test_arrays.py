"""Arrays that are written from an older one are those that NumPy would write."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import index.arrays
from index.arrays import ArrayWriter, runs, write_updated
from index.vectors import ChunkVectors


@given(st.lists(st.integers(-1, 6), max_size=12))
def test_runs_follow_one_another_and_are_as_long_as_can_be(origins: list[int]) -> None:
    found = list(runs(np.array(origins, np.int64)))
    rows = [
        (row, -1 if origin < 0 else origin + row - first) for first, end, origin in found for row in range(first, end)
    ]
    assert rows == list(enumerate(origins))
    for (_, end, origin), (first, _, following) in pairwise(found):
        assert end == first
        assert (origin < 0) != (following < 0) or following != origins[end - 1] + 1


@pytest.mark.parametrize("dtype", ["<i8", "<f2", "|u1", "|b1"])
@pytest.mark.parametrize("zeros_bytes", [1, 8, 1_000])
def test_an_updated_array_has_the_bytes_of_one_that_is_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, zeros_bytes: int
) -> None:
    monkeypatch.setattr(index.arrays, "ZEROS_BYTES", zeros_bytes)
    old = np.arange(21).reshape(7, 3).astype(dtype)
    added = np.arange(50, 62).reshape(4, 3).astype(dtype)
    origins = np.array([-1, 0, 1, 2, -1, -1, 5, 6, -1])
    expected = np.stack([old[0]] * 9)
    expected[origins >= 0] = old[origins[origins >= 0]]
    for name, rows, new in (("added", added, added), ("zeros", np.zeros_like(added), None)):
        expected[origins < 0] = rows
        np.save(tmp_path / "expected.npy", expected)
        write_updated(tmp_path / f"{name}.npy", runs(origins), old, new)
        assert (tmp_path / f"{name}.npy").read_bytes() == (tmp_path / "expected.npy").read_bytes()


def test_an_array_without_rows_is_written(tmp_path: Path) -> None:
    with ArrayWriter(tmp_path / "empty.npy", np.int8, (384,)):
        pass
    assert np.load(tmp_path / "empty.npy").shape == (0, 384)


@pytest.mark.parametrize("count", [0, 1, 7])
def test_embeddings_that_are_written_piece_by_piece_are_a_saved_index(tmp_path: Path, count: int) -> None:
    vectors = ChunkVectors.zeros(count, 384)
    vectors.halves[:] = np.random.default_rng(1).standard_normal((count, 384))
    vectors.save(tmp_path / "saved")
    ChunkVectors.write(
        tmp_path / "pieces", iter([vectors.halves[:2], vectors.halves[2:]]), count=count, dimension=384
    )
    assert (tmp_path / "pieces").read_bytes() == (tmp_path / "saved").read_bytes()
    writable = ChunkVectors.writable(tmp_path / "pieces", count=count, dimension=384)
    np.testing.assert_array_equal(writable, vectors.halves)
