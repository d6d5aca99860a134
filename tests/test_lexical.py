"""Keyword search agrees with the BM25 formula, and an index does not remember how it came to be."""

from __future__ import annotations

import math
import weakref
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from index import lexical, vocabulary
from index.errors import DamagedGenerationError
from index.lexical import LexicalIndex
from index.terms import analyse, analyse_query, every_term

TEXTS = [
    "Pingora saves memory and serves many requests.",
    "Memory safety is the promise of Rust; memory leaks are still possible.",
    "async-std and Tokio are asynchronous runtimes.",
    "The cat sat on the mat.",
    "",
    "To be or not to be, that is the question of the cat.",
]

words = st.sampled_from(
    ["memory", "cat", "rust", "the", "is", "wi-fi", "Tokyo", "東京都", "naïve", "1.85", "leaks", "leak"]
)
texts_strategy = st.lists(st.lists(words, max_size=8).map(" ".join), max_size=12)


class Text(str):
    """A text of which one can tell whether it is still held."""


def reference_scores(texts: Sequence[str], query: str) -> list[float]:
    """BM25 as the formula is written, one text at a time."""
    counted = [Counter(every_term(text)) for text in texts]
    lengths = [len(analyse(text)) for text in texts]
    average = max(1, sum(lengths)) / len(texts)

    def score(term: str, row: int) -> float:
        holding = sum(term in counts for counts in counted)
        idf = math.log(1 + (len(texts) - holding + 0.5) / (holding + 0.5))
        frequency = counted[row][term]
        return idf * frequency * 2.2 / (frequency + 1.2 * (1 - 0.75 + 0.75 * lengths[row] / average))

    return [sum(score(term, row) for term in analyse_query(query)) for row in range(len(texts))]


def assert_identical(one: LexicalIndex, other: LexicalIndex) -> None:
    for field in fields(LexicalIndex):
        ours, theirs = getattr(one, field.name), getattr(other, field.name)
        assert ours.dtype == theirs.dtype, field.name
        assert ours.tobytes() == theirs.tobytes(), field.name


def test_scores_follow_the_formula() -> None:
    query = "How much memory did Pingora save?"
    scores = LexicalIndex.from_texts(TEXTS).query(query).scores
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, reference_scores(TEXTS, query), rtol=1e-6)


def test_a_score_computed_by_hand() -> None:
    index = LexicalIndex.from_texts(["red fox", "red", "blue whale sings"])
    # "fox" is in 1 of 3 texts, whose length of 2 is the average: ln(1 + 2.5 / 1.5) * 2.2 / (1 + 1.2).
    np.testing.assert_allclose(index.query("fox").scores, [math.log(8 / 3), 0, 0], rtol=1e-6)


def test_the_best_rows_come_first_and_only_rows_that_match() -> None:
    rows, scores = LexicalIndex.from_texts(TEXTS).search("memory leaks", top_k=10)
    assert rows.tolist() == [1, 0]
    assert rows.dtype == np.int64
    assert scores[0] > scores[1] > 0


def test_equal_scores_are_in_order_of_rows() -> None:
    rows, scores = LexicalIndex.from_texts(["a cat"] * 500).search("cat", top_k=300)
    assert rows.tolist() == list(range(300))
    assert len(set(scores.tolist())) == 1


def test_top_k_limits_what_is_returned() -> None:
    rows, _ = LexicalIndex.from_texts(TEXTS).search("memory cat", top_k=1)
    assert len(rows) == 1


def test_many_rows_are_ranked_as_by_sorting_all_scores() -> None:
    random = np.random.default_rng(0)
    texts = [
        " ".join(random.choice(["cat", "dog", "cow", "hen", "pig"], size=random.integers(12))) for _ in range(2_000)
    ]
    index = LexicalIndex.from_texts(texts)
    scores = index.query("cat dog").scores
    expected = np.argsort(-scores, kind="stable")[:20]
    assert index.search("cat dog", top_k=20)[0].tolist() == expected.tolist()


def test_a_mask_keeps_rows_out_without_changing_scores() -> None:
    index = LexicalIndex.from_texts(TEXTS)
    allowed = np.array([True, False, True, True, True, True])
    rows, scores = index.search("memory", top_k=5, allowed=allowed)
    assert rows.tolist() == [0]
    assert scores[0] == index.query("memory").scores[0]


def test_words_that_begin_alike_are_told_apart() -> None:
    words = ["abcdefgh1", "abcdefgh22", "abcdefgh", "abcdef7", "abcdefgh2", "z9", "é8", "東京"]
    index = LexicalIndex.from_texts(words)
    for row, word in enumerate(words):
        assert index.search(word, top_k=5)[0].tolist() == [row]
    for missing in ("abcdefgh3", "abcdefgh21", "a1", "abcdefg1", "zz9", "京"):
        assert index.search(missing, top_k=5)[0].tolist() == []


def test_a_word_repeated_in_the_query_counts_once() -> None:
    index = LexicalIndex.from_texts(TEXTS)
    assert index.query("memory memory").scores.tolist() == index.query("memory").scores.tolist()


def test_a_query_of_stop_words_finds_them() -> None:
    rows, _ = LexicalIndex.from_texts(TEXTS).search("to be or not to be", top_k=1)
    assert rows.tolist() == [5]


def test_stop_words_do_not_count_as_length() -> None:
    index = LexicalIndex.from_texts(["cat", "the cat is on it"])
    assert index.lengths.tolist() == [1, 1]


@pytest.mark.parametrize("query", ["", "?", "unicorn"])
def test_a_query_without_known_words_finds_nothing(query: str) -> None:
    index = LexicalIndex.from_texts(TEXTS)
    rows, scores = index.search(query, top_k=5)
    assert (len(rows), len(scores)) == (0, 0)


def test_an_empty_index_answers_with_nothing() -> None:
    index = LexicalIndex.from_texts([])
    assert len(index) == 0
    assert len(index.search("cat", top_k=5)[0]) == 0


def test_the_upper_bound_holds_and_counts_unknown_terms() -> None:
    index = LexicalIndex.from_texts(TEXTS)
    known = 2.2 * math.log(1 + 4.5 / 2.5)
    unknown = 2.2 * math.log(1 + 6.5 / 0.5)
    assert index.query("memory").upper_bound == pytest.approx(known)
    assert index.query("memory unicorn").upper_bound == pytest.approx(known + unknown)
    assert index.query("memory unicorn").term_weights == pytest.approx({"memori": known, "unicorn": unknown})
    assert index.query("").upper_bound == 0
    assert LexicalIndex.from_texts([*TEXTS, "memory " * 10_000]).query("memory").scores.max() < known


def test_a_query_is_analysed_once_for_all_that_is_asked_about_it(monkeypatch: pytest.MonkeyPatch) -> None:
    query = LexicalIndex.from_texts(TEXTS).query("Does Pingora leak memmory?")
    monkeypatch.delattr(vocabulary, "telling_terms")
    monkeypatch.delattr(vocabulary, "names")
    rows, scores = query.search(top_k=5)
    assert query.scores[rows].tolist() == scores.tolist()
    assert list(query.term_weights) == ["pingora", "leak", "memori"]
    assert query.names == [(("pingora",),)]
    assert query.neighbours == (("leak", "pingora"), ("leak", "memori"))
    assert query.upper_bound == math.fsum(query.term_weights.values()) > scores.max()


@pytest.mark.parametrize(
    ("question", "rare", "is_known"),
    [("memory", 0.0, True), ("unicorn", 1.0, False), ("Is there a unicorn in memory?", 0.5, False), ("", 0.0, True)],
)
def test_specific_questions_have_terms_that_few_texts_hold(question: str, rare: float, is_known: bool) -> None:
    index = LexicalIndex.from_texts(TEXTS)
    query = index.query(question)
    frequent = index.query("memory").specificity
    assert 0 < frequent < 1
    assert query.specificity == pytest.approx(rare + (1 - rare) * frequent if question else 0)
    assert query.is_known is is_known


def test_an_unknown_word_is_read_as_the_known_one_it_is_likely_a_typing_error_of() -> None:
    index = LexicalIndex.from_texts(
        ["a webassembly worker", "support for proxies", "the proxy disappeared", "supposed"]
    )
    assert list(index.query("webasembly suport dissapeared").term_weights) == ["webassembl", "support", "disappear"]
    assert index.search("dissapeared", top_k=5)[0].tolist() == [2]
    assert index.query("webasembly").upper_bound == index.query("webassembly").upper_bound


def test_the_most_frequent_of_equally_near_words_is_taken() -> None:
    assert list(LexicalIndex.from_texts(["garden", "gordon", "gordon"]).query("gorden").term_weights) == ["gordon"]
    assert list(LexicalIndex.from_texts(["garden", "garden", "gordon"]).query("gorden").term_weights) == ["garden"]


@pytest.mark.parametrize("query", ["Suport", "swift", "suport7", "upport", "東京都庁舎前駅"])
def test_short_words_names_numbers_and_other_first_letters_are_not_corrected(query: str) -> None:
    index = LexicalIndex.from_texts(["support shift 東京都庁舎前町"])
    assert list(index.query(f"get {query}").term_weights) == ["get", *analyse_query(query)]


def test_a_frequency_above_255_is_held_as_255() -> None:
    assert LexicalIndex.from_texts(["cat " * 300]).frequencies.tolist() == [255]


def test_a_saved_index_gives_the_same_scores_after_loading(tmp_path: Path) -> None:
    index = LexicalIndex.from_texts(TEXTS)
    index.save(tmp_path / "lexical")
    loaded = LexicalIndex.load(tmp_path / "lexical")
    assert_identical(index, loaded)
    assert loaded.query("memory leaks").scores.tolist() == index.query("memory leaks").scores.tolist()


def test_an_empty_index_can_be_saved_and_loaded(tmp_path: Path) -> None:
    LexicalIndex.from_texts([]).save(tmp_path)
    assert len(LexicalIndex.load(tmp_path)) == 0


def test_equal_texts_give_equal_files(tmp_path: Path) -> None:
    for name in ("one", "two"):
        LexicalIndex.from_texts(TEXTS).save(tmp_path / name)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_a_deleted_word_is_in_no_file(tmp_path: Path) -> None:
    index = LexicalIndex.from_texts([*TEXTS, "the password is xylophone"])
    kept = np.arange(len(TEXTS))
    index.updated(kept, kept, []).save(tmp_path)
    assert all(b"xylophon" not in path.read_bytes() for path in tmp_path.iterdir())
    assert_identical(LexicalIndex.load(tmp_path), LexicalIndex.from_texts(TEXTS))


def test_new_texts_take_the_free_rows_in_order() -> None:
    index = LexicalIndex.from_texts(["zero", "one", "two"])
    updated = index.updated(np.array([0, 2]), np.array([1, 2]), ["first", "last"])
    assert_identical(updated, LexicalIndex.from_texts(["first", "zero", "two", "last"]))


def test_an_updated_index_leaves_its_parent_alone(tmp_path: Path) -> None:
    LexicalIndex.from_texts(TEXTS).save(tmp_path)
    parent = LexicalIndex.load(tmp_path)
    parent.updated(np.array([1]), np.array([1]), ["something new"])
    assert_identical(parent, LexicalIndex.from_texts(TEXTS))


@given(data=st.data(), before=texts_strategy, added=texts_strategy)
def test_an_updated_index_is_the_index_of_its_texts(data: st.DataObject, before: list[str], added: list[str]) -> None:
    stays = data.draw(st.lists(st.booleans(), min_size=len(before), max_size=len(before)))
    kept = np.flatnonzero(np.array(stays, bool))
    is_added = data.draw(st.permutations([False] * len(kept) + [True] * len(added)))
    positions = np.flatnonzero(~np.array(is_added, bool))
    remaining, new = (before[row] for row in kept), iter(added)
    after = [next(new) if is_new else next(remaining) for is_new in is_added]
    updated = LexicalIndex.from_texts(before).updated(kept, positions, added)
    assert_identical(updated, LexicalIndex.from_texts(after))


@given(texts=texts_strategy.filter(bool), query=st.lists(words, max_size=5).map(" ".join))
def test_any_scores_follow_the_formula(texts: list[str], query: str) -> None:
    index = LexicalIndex.from_texts(texts)
    np.testing.assert_allclose(index.query(query).scores, reference_scores(texts, query), rtol=1e-5)


def test_the_size_of_batches_does_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = LexicalIndex.from_texts(TEXTS)
    monkeypatch.setattr(lexical, "_BATCH", 2)
    assert_identical(LexicalIndex.from_texts(iter(TEXTS)), whole)
    kept = LexicalIndex.from_texts([TEXTS[1], TEXTS[4]])
    assert_identical(kept.updated(np.arange(2), np.array([1, 4]), (TEXTS[row] for row in (0, 2, 3, 5))), whole)


def test_only_one_batch_of_texts_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lexical, "_BATCH", 3)
    held: weakref.WeakSet[Text] = weakref.WeakSet()
    most = 0

    def texts() -> Iterator[str]:
        nonlocal most
        for number in range(30):
            text = Text(f"text {number}")
            held.add(text)
            yield text
            del text
            most = max(most, len(held))

    index = LexicalIndex.from_texts(texts())
    index.updated(np.arange(30), np.arange(30), texts())
    # The batch before is let go when the next one is whole.
    assert most <= 2 * 3


@pytest.mark.parametrize("name", [field.name for field in fields(LexicalIndex)])
def test_a_missing_or_truncated_file_is_named(tmp_path: Path, name: str) -> None:
    LexicalIndex.from_texts(TEXTS).save(tmp_path)
    path = tmp_path / f"{name}.npy"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(DamagedGenerationError, match=name):
        LexicalIndex.load(tmp_path)
    path.unlink()
    with pytest.raises(DamagedGenerationError, match=name):
        LexicalIndex.load(tmp_path)


def test_files_of_two_indexes_do_not_load_together(tmp_path: Path) -> None:
    LexicalIndex.from_texts(TEXTS).save(tmp_path)
    np.save(tmp_path / "rows.npy", np.zeros(3, np.int32))
    with pytest.raises(DamagedGenerationError, match="3 rows"):
        LexicalIndex.load(tmp_path)


def test_where_terms_are_is_kept_for_so_many_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocabulary, "_KNOWN_TERMS", 3)
    index = LexicalIndex.from_texts(TEXTS)
    fresh = {
        query: LexicalIndex.from_texts(TEXTS).query(query).spans for query in ("cat dog fox", "memory leaks", "fox")
    }
    for _ in range(2):
        assert {query: index.query(query).spans for query in fresh} == fresh
    assert len(index._spans) <= 3
