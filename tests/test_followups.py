"""What is a follow-up and what is not, told by its words."""

from __future__ import annotations

import time

import pytest
from conversations import CONVERSATIONS, FOLLOW_UPS, INDEPENDENT

from index.followups import Missing, missing


@pytest.mark.parametrize("text", FOLLOW_UPS)
def test_a_follow_up_is_noticed(text: str) -> None:
    assert missing(text) is not None


@pytest.mark.parametrize("text", INDEPENDENT)
def test_a_question_that_stands_by_itself_is_left_alone(text: str) -> None:
    assert missing(text) is None


@pytest.mark.parametrize("text", [turns[0] for turns, _, _ in CONVERSATIONS])
def test_the_first_question_of_a_conversation_stands_by_itself(text: str) -> None:
    assert missing(text) is None


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("Who wrote it?", Missing.NAME),
        ("How many requests does it handle?", Missing.NAME),
        ("What are their names?", Missing.NAME),
        ("Why?", Missing.MATTER),
        ("And for Python?", Missing.MATTER),
        ("What does that mean?", Missing.MATTER),
        ("Why did they do that?", Missing.MATTER),
    ],
)
def test_what_a_follow_up_leaves_out_is_a_name_or_the_whole_matter(text: str, what: Missing) -> None:
    assert missing(text) is what


@pytest.mark.parametrize("text", ["", " ", "?!", "...", "\N{THUMBS UP SIGN}", "And", "ok", "it", "that", "\u200d"])
def test_no_text_is_too_short(text: str) -> None:
    missing(text)


@pytest.mark.parametrize(
    ("text", "is_follow_up"),
    [
        ("HOW FAST IS IT?", True),
        ("how fast is it", True),
        ("What\u2019s its license?", True),
        ("It's slow, why?", True),
        ("Is IT support free?", False),
        ("What did the US do?", False),
        ("Who is She, the singer?", False),
    ],
)
def test_capitals_and_apostrophes_are_read_as_they_are_meant(text: str, is_follow_up: bool) -> None:
    assert (missing(text) is not None) is is_follow_up


def test_whoever_writes_at_length_has_said_what_it_is_about() -> None:
    assert missing("Why? " * 200) is None


@pytest.mark.parametrize("text", ["it " * 133, "its that " * 44, "Rust it " * 50, "x'" * 200, "- " * 200])
def test_no_text_takes_long(text: str) -> None:
    started = time.thread_time()
    missing(text)
    assert time.thread_time() - started < 0.2
