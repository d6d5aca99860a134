"""Words become the terms one would look for, the same in texts and in questions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from index.terms import Name, analyse, analyse_query, asked_terms, every_term, names, telling_terms


def test_inflected_words_share_a_term() -> None:
    assert analyse("connection connected connecting") == ["connect", "connect", "connect"]


WORDS = st.sampled_from(["The", "it's", "C++", "Wi-Fi", "東京タワー", "naïve", "_", "'", "1,000"])


@given(st.text() | st.lists(WORDS).map(" ".join))
def test_a_query_has_the_terms_of_a_text(text: str) -> None:
    for _ in range(2):
        assert asked_terms(text) == every_term(text)
        assert telling_terms(text) == analyse(text)
        assert analyse_query(text) == list(dict.fromkeys(analyse(text) or every_term(text)))


def test_stop_words_are_dropped_but_can_be_kept() -> None:
    assert analyse("What is the capital of France?") == ["capit", "franc"]
    assert every_term("the capital of France") == ["the", "capit", "of", "franc"]


def test_contractions_are_stop_words_with_either_apostrophe() -> None:
    assert analyse("It isn't there and it isn’t here") == ["here"]


@pytest.mark.parametrize(
    ("token", "terms"),
    [
        ("async-std", ["asyncstd", "async", "std"]),
        ("snake_case_names", ["snakecasenam", "snake", "case", "name"]),
        ("HashMaps", ["hashmap", "hash", "map"]),
        ("HTTPServer", ["httpserver", "http", "server"]),
        ("URLs", ["url"]),
        ("crates.io", ["cratesio", "crate", "io"]),
        ("std::fs", ["stdfs", "std", "fs"]),
        ("__init__", ["init"]),
        ("#[global_allocator]", ["globalalloc", "global", "alloc"]),
        ("Result<T, E>", ["result", "t", "e"]),
        ("C++", ["c++"]),
        ("C#", ["c#"]),
        ("fd", ["fd"]),
        ("state-of-the-art", ["stateoftheart", "state", "art"]),
        ("utf-8", ["utf8", "utf", "8"]),
        ("1.85.0", ["1.85.0", "1", "85", "0"]),
        ("10,000", ["10000", "10", "000"]),
    ],
)
def test_an_identifier_is_found_whole_and_by_its_parts(token: str, terms: list[str]) -> None:
    assert analyse(token) == terms


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Wi-Fi", "wifi"),
        ("e-mail", "email"),
        ("hash_map", "HashMap"),
        ("U.S.", "US"),
        ("Québec", "QUEBEC"),
        ("Straße", "STRASSE"),
        ("Ёлка", "елка"),
        ("ﬁne", "fine"),
        ("ＡＰＩ", "api"),
        ("infor\u00admation", "information"),
        ("1.85", "1.85."),
        ("vehicle’s", "vehicles"),
        ("l’école", "ecole"),
        ("C's", "c"),
    ],
)
def test_two_spellings_of_a_word_meet(one: str, other: str) -> None:
    assert analyse(one)[0] == analyse(other)[0]


@pytest.mark.parametrize(("one", "other"), [("C", "C++"), ("1.85", "185"), ("C#", "c++")])
def test_two_names_that_look_alike_stay_apart(one: str, other: str) -> None:
    assert not set(analyse(one)) & set(analyse(other))


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("日本語の検索", ["日本", "本語", "語の", "の検", "検索"]),
        ("猫", ["猫"]),
        ("コーヒー", ["コー", "ーヒ", "ヒー"]),
        ("Rustで書く", ["rust", "で書", "書く"]),
        ("한국어", ["한국", "국어"]),
        ("ไทย", ["ไท", "ทย"]),
    ],
)
def test_scripts_without_spaces_are_found_by_bigrams(text: str, terms: list[str]) -> None:
    assert analyse(text) == terms


def test_words_keep_their_vowel_signs() -> None:
    assert analyse("हिन्दी में") == ["हिन्दी", "में"]


def test_a_query_names_each_term_once_in_order() -> None:
    assert analyse_query("Which map holds maps of the world map?") == ["map", "hold", "world"]


def test_a_query_of_stop_words_keeps_them() -> None:
    assert analyse_query("To be, or not to be") == ["to", "be", "or", "not"]


@pytest.mark.parametrize("text", ["", "   \n", "?!… — 🙂", "+++ ### ::"])
def test_a_text_without_words_has_no_terms(text: str) -> None:
    assert every_term(text) == []
    assert analyse_query(text) == []


@given(st.text())
def test_terms_are_not_empty_and_hold_no_white_space(text: str) -> None:
    assert all(term and not any(character.isspace() for character in term) for term in every_term(text))


@given(st.text())
def test_a_text_answers_to_itself(text: str) -> None:
    assert set(analyse_query(text)) <= set(every_term(text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("How much memory did Pingora save?", [(("pingora",),)]),
        # Without its first letter it is another word.
        ("What is iOS?", [(("io",),)]),
        ("Rust in 2026", [(("2026",),)]),
        ("FnMut and dyn", [(("fnmut",), ("fn", "mut"))]),
        ("Is COVID-19 over?", [(("covid19",), ("covid", "19"))]),
        ("the 東京2026 games", [(("東京", "2026"),)]),
        ("Which crates are there", []),
        ("", []),
    ],
)
def test_names_are_words_with_a_figure_or_an_inner_capital(text: str, expected: list[Name]) -> None:
    assert names(text) == expected
