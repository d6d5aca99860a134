"""Chunks that say the same are found as by comparing every pair of texts."""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import closing

import numpy as np
import pytest
from sources_in_memory import MemorySource

from index.build import sync
from index.duplicates import OVERLAP, Duplicates, shingles_of
from index.embeddings import Encoder
from index.generations import Home

WORDS = [f"word{number}" for number in range(60)]


class Texts:
    """A corpus of nothing but texts, which counts how many were read."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = texts
        self.read = 0

    def texts(self, rows: Sequence[int]) -> list[str]:
        """Return texts by row."""
        self.read += len(rows)
        return [self._texts[row] for row in rows]


def variants(seed: int) -> list[str]:
    """Make up texts of which many are nearly alike: some words changed, dropped, said twice or written otherwise."""
    chosen = random.Random(seed)
    texts = ["", "one", "One two", "one  TWO", "a b c", "A b\nC"]
    for _ in range(12):
        words = chosen.choices(WORDS, k=chosen.choice([3, 20, 21, 60, 120]))
        for changes in (0, 0, 1, 1, 2, 3, 5, 8):
            changed = list(words)
            for _ in range(changes):
                place = chosen.randrange(len(changed))
                changed[place : place + 1] = chosen.choice([[], [chosen.choice(WORDS)], [changed[place]] * 2])
                changed = changed or ["one"]
            texts.append(" ".join(changed).upper() if chosen.random() < 0.2 else "  ".join(changed))
    chosen.shuffle(texts)
    return texts


def expected(texts: Sequence[str], rows: Sequence[int], at_most: int) -> list[list[int]]:
    """Compare each text with the best one of every group."""
    groups: list[list[int]] = []
    for place, row in enumerate(rows):
        own = shingles_of(texts[row])
        for group in groups:
            other = shingles_of(texts[rows[group[0]]])
            if len(own & other) >= OVERLAP * len(own | other):
                group.append(place)
                break
        else:
            if len(groups) < at_most:
                groups.append([place])
    return groups


@pytest.mark.parametrize("seed", range(20))
def test_groups_are_those_of_comparing_every_pair(seed: int) -> None:
    texts = variants(seed)
    duplicates = Duplicates(Texts(texts), len(texts))  # type: ignore[arg-type]
    chosen = random.Random(seed)
    for at_most in (1, 3, 5, 100):
        rows = chosen.sample(range(len(texts)), k=chosen.choice([1, 40, len(texts)]))
        found = duplicates.groups(np.array(rows), at_most=at_most)
        assert found == expected(texts, rows, at_most)
        assert any(len(group) > 1 for group in expected(texts, range(len(texts)), 100))


def test_texts_that_exactly_reach_the_overlap_say_the_same() -> None:
    words = [f"w{number}" for number in range(11)]  # nine shingles
    texts = [" ".join([*words, "x"]), " ".join(words), " ".join([*words, "x", "y"])]
    duplicates = Duplicates(Texts(texts), 3)  # type: ignore[arg-type]
    assert duplicates.groups(np.array([0, 1]), at_most=5) == [[0, 1]]  # nine of ten
    assert duplicates.groups(np.array([2, 1]), at_most=5) == [[0], [1]]  # nine of eleven


def test_a_text_that_resembles_nothing_is_read_once() -> None:
    texts = Texts([" ".join(random.Random(seed).sample(WORDS, k=40)) for seed in range(50)])
    duplicates = Duplicates(texts, 50)  # type: ignore[arg-type]
    for _ in range(3):
        assert len(duplicates.groups(np.arange(50), at_most=5)) == 5
    assert texts.read == 50


def test_no_candidates_make_no_groups() -> None:
    assert Duplicates(Texts([]), 0).groups(np.empty(0, np.int64), at_most=5) == []  # type: ignore[arg-type]


def test_the_texts_of_a_corpus_come_in_the_order_asked_for(home: Home, encoder: Encoder) -> None:
    sync(home, [MemorySource({"a.md": "First.\n", "b.md": "Second.\n", "c.md": "Third.\n"})], encoder)
    with closing(home.open_current()) as generation:
        assert generation.corpus.texts([2, 0, 2]) == ["Third.", "First.", "Third."]
        assert generation.corpus.texts([]) == []
