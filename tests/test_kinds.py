"""The kind of a question tells what its answer should hold."""

from __future__ import annotations

import time

import pytest

from index.kinds import Kind, expected_of


@pytest.mark.parametrize(
    ("question", "kind"),
    [
        ("When was the bridge built?", Kind.TIME),
        ("In what year did it open?", Kind.TIME),
        ("How many arches has it?", Kind.NUMBER),
        ("What is the price of a ticket?", Kind.NUMBER),
        ("Who designed it?", Kind.NAME),
        ("WHERE IS IT?", Kind.NAME),
        ("Why was it closed?", Kind.REASON),
        ("Can it be crossed by lorries when it snows?", None),
        ("What is a caisson?", None),
        ("Wann wurde die Brücke gebaut?", None),
        ("橋はいつ?", None),
    ],
)
def test_the_kind_is_told_by_the_words_of_the_question(question: str, kind: Kind | None) -> None:
    expected = expected_of(question)
    assert (None if expected is None else expected.kind) is kind


@pytest.mark.parametrize(
    ("question", "sentence", "held"),
    [
        ("When was the bridge built?", "It was built in 1874 of steel.", 1.0),
        ("When was the bridge built?", "Work began in June.", 1.0),
        ("When was the bridge built?", "It has 3 arches.", 0.5),
        ("When was the bridge built?", "It is made of steel.", 0.0),
        ("How many arches has it?", "It rests on three arches.", 1.0),
        ("How many arches has it?", "Its arches are made of steel.", 0.0),
        ("Who designed it?", "It was designed by James Eads.", 1.0),
        ("Who designed it?", "The engineer was self-taught.", 0.0),
        ("Why was it closed?", "It was closed because the ice had damaged a pier.", 1.0),
        ("Why was it closed?", "It was closed for a year.", 0.0),
    ],
)
def test_a_sentence_holds_such_a_thing_or_not(question: str, sentence: str, held: float) -> None:
    expected = expected_of(question)
    assert expected is not None
    assert expected.held_by(sentence) == held


@pytest.mark.parametrize(
    ("question", "sentence"),
    [
        ("How many arches did the bridge of 1874 have?", "The bridge of 1874 was of steel."),
        ("Who worked for James Eads?", "It was designed by James Eads."),
        ("When in June did it open?", "It opened in June."),
    ],
)
def test_what_the_question_says_itself_is_not_what_it_asks_for(question: str, sentence: str) -> None:
    expected = expected_of(question)
    assert expected is not None
    assert expected.held_by(sentence) == 0


@pytest.mark.parametrize(
    "text", ["what " * 20_000, "1" * 100_000, "1.," * 30_000, " A" * 50_000, "how long " * 11_000]
)
def test_long_texts_take_no_more_than_their_length(text: str) -> None:
    started = time.process_time()
    for question in ("When?", "How many?", "Who?", "Why?", text):
        expected = expected_of(question)
        if expected is not None:
            expected.held_by(text)
    assert time.process_time() - started < 2
