"""What asks nothing is told from what does."""

from __future__ import annotations

import time

import pytest

from service.small_talk import SmallTalk, small_talk_in, without_courtesies

GREETING, THANKS, HELP = SmallTalk


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hi", GREETING),
        ("hello there!", GREETING),
        ("Good morning, everyone.", GREETING),
        ("Hi \N{WAVING HAND SIGN}", GREETING),
        ("Hello, thanks", GREETING),
        ("Guten Tag!", GREETING),
        ("\u4f60\u597d", GREETING),
        ("Thanks!", THANKS),
        ("thank you so much :)", THANKS),
        ("no, thanks", THANKS),
        ("ok thanks, bye", THANKS),
        ("merci beaucoup", THANKS),
        ("\N{THUMBS UP SIGN}\N{EMOJI MODIFIER FITZPATRICK TYPE-4}", THANKS),
        ("help", HELP),
        ("What can you do?", HELP),
        ("Hi, who are you?", HELP),
        ("yes", HELP),
        ("???", HELP),
        ("\N{SLIGHTLY SMILING FACE}", HELP),
        ("", None),
        (" \n", None),
        ("Hello World in Rust", None),
        ("superb kettles", None),
        ("thanksgiving", None),
        ("Cool kettle", None),
        ("ok, and for Python?", None),
        ("How do I get help with my router?", None),
        ("Hi, what is Rust?", None),
        ("\u6771\u4eac", None),
        ("hi " * 100, None),
    ],
)
def test_small_talk_is_what_has_nothing_else_in_it(text: str, expected: SmallTalk | None) -> None:
    assert small_talk_in(text) is expected


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("Hi! What is Rust?", "What is Rust?"),
        ("hello what is rust", "what is rust"),
        ("Thanks. And for Python?", "And for Python?"),
        ("Thank you for the answer! Ok, why?", "why?"),
        ("How do I reset it? Thanks!", "How do I reset it?"),
        ("Hello World in Rust", "Hello World in Rust"),
        ("How do I say thanks?", "How do I say thanks?"),
        ("Hello!", "Hello!"),
        ("What is Rust?", "What is Rust?"),
    ],
)
def test_courtesies_are_taken_from_around_a_question(text: str, asked: str) -> None:
    assert without_courtesies(text) == asked


@pytest.mark.parametrize(
    "text", ["hi " * 1_300, "thanks for that " * 250, "hi" + " " * 3_990 + "x", "? thanks" * 500]
)
def test_no_text_takes_long(text: str) -> None:
    started = time.thread_time()
    small_talk_in(text)
    without_courtesies(text)
    assert time.thread_time() - started < 0.2
