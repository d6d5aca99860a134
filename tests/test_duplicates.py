"""Chunks that say the same are found as by comparing every pair of texts."""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from sources_in_memory import MemorySource

from index.build import sync
from index.corpus import ChunkRecord, DocumentRecord
from index.duplicates import groups_of_duplicates
from index.embeddings import Encoder
from index.generations import Home
from index.sequences import SequenceWriter, TermSequences
from index.shingles import OVERLAP
from index.terms import every_term

WORDS = [f"word{number}" for number in range(60)]


def sequences_of(texts: Sequence[str], folder: Path) -> TermSequences:
    """Write and open the sequences of chunks of one sentence each."""
    writer = SequenceWriter(folder)
    writer.add([a_chunk(text) for text in texts])
    writer.finish()
    return TermSequences.load(folder, np.arange(len(texts) + 1))


def a_chunk(text: str) -> ChunkRecord:
    document = DocumentRecord("a.md", "", "", "text/plain", "", 0, None, {}, {}, 0, 1)
    return ChunkRecord(0, "", document, 0, len(text), 1, (), "Title", False, 0, ((0, len(text)),), (), text)


def shingles(text: str) -> frozenset[tuple[str, ...]]:
    """Return the runs of three terms of a text, as words."""
    terms = every_term(text)
    return frozenset(zip(terms, terms[1:], terms[2:], strict=False)) or frozenset([tuple(terms)])


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
        own = shingles(texts[row])
        for group in groups:
            other = shingles(texts[rows[group[0]]])
            if len(own & other) >= OVERLAP * len(own | other):
                group.append(place)
                break
        else:
            if len(groups) < at_most:
                groups.append([place])
    return groups


@pytest.mark.parametrize("seed", range(20))
def test_groups_are_those_of_comparing_every_pair(seed: int, tmp_path: Path) -> None:
    texts = variants(seed)
    sequences = sequences_of(texts, tmp_path)
    chosen = random.Random(seed)
    for at_most in (1, 3, 5, 100):
        rows = chosen.sample(range(len(texts)), k=chosen.choice([1, 40, len(texts)]))
        found = groups_of_duplicates(sequences, np.array(rows), at_most=at_most)
        assert found == expected(texts, rows, at_most)
        assert any(len(group) > 1 for group in expected(texts, range(len(texts)), 100))


def test_texts_that_exactly_reach_the_overlap_say_the_same(tmp_path: Path) -> None:
    words = [f"w{number}" for number in range(11)]  # nine shingles
    sequences = sequences_of([" ".join([*words, "x"]), " ".join(words), " ".join([*words, "x", "y"])], tmp_path)
    assert groups_of_duplicates(sequences, np.array([0, 1]), at_most=5) == [[0, 1]]  # nine of ten
    assert groups_of_duplicates(sequences, np.array([2, 1]), at_most=5) == [[0], [1]]  # nine of eleven


def test_the_title_above_does_not_count(tmp_path: Path) -> None:
    sequences = sequences_of(["One two three.", "Title one two three."], tmp_path)
    assert groups_of_duplicates(sequences, np.array([0, 1]), at_most=5) == [[0], [1]]


def test_no_candidates_make_no_groups(tmp_path: Path) -> None:
    assert groups_of_duplicates(sequences_of(["a"], tmp_path), np.empty(0, np.int64), at_most=5) == []


def test_sequences_that_are_kept_find_the_same_duplicates(home: Home, encoder: Encoder) -> None:
    twin = "The red light means that there is no power in the whole house today.\n"
    sync(home, [MemorySource({"b.md": twin, "c.md": "Something else is said here, and at some length.\n"})], encoder)
    texts = {"a.md": twin, "b.md": twin, "c.md": "Something else is said here, and at some length.\n"}
    assert sync(home, [MemorySource(texts)], encoder).encoded == 1
    with closing(home.open_current()) as generation:
        assert groups_of_duplicates(generation.sequences, np.array([1, 2, 0]), at_most=5) == [[0, 2], [1]]
