"""What a follow-up is searched as, and what it leans on."""

from __future__ import annotations

import pytest
from conversations import CONVERSATIONS, INDEPENDENT

from index.answers import Answer, Question, answer_questions
from index.conversation import Exchange, Outcome, Topic, completed, last_answered, topic_at, without_numbering
from index.embeddings import Encoder
from index.followups import missing
from index.generations import Generation

PINGORA = Topic("How much memory did Pingora save?", ("Rust in production", "Cloudflare"))


@pytest.mark.parametrize(
    ("text", "topic", "searched_as"),
    [
        ("Who wrote it?", PINGORA, "Who wrote it? (Pingora, Cloudflare)"),
        ("Why?", PINGORA, "Why? (memory, Pingora save, Cloudflare)"),
        ("How does it handle memory?", PINGORA, "How does it handle memory? (Pingora, Cloudflare)"),
        ("What about memory?", PINGORA, "What about memory? (Pingora save, Cloudflare)"),
        (
            "And fd?",
            Topic("How much faster is ripgrep than grep?", ("Tools", "Section 3 \u2014 Speed")),
            "And fd? (ripgrep, grep, Speed)",
        ),
        ("And for C++?", Topic("Is Rust fast?"), "And for C++? (Rust fast)"),
        ("Who needs it?", Topic("What does `impl Fn(i32)` mean?"), "Who needs it? (Fn(i32))"),
        ("Who wrote it?", Topic("what is the kettle's lid made of"), "Who wrote it? (kettle lid)"),
        ("And the blue one?", Topic("What does the red light mean?", ("Lights",)), "And the blue one? (red light)"),
        ("Who uses Pingora at Cloudflare and why did they save memory?", PINGORA, None),
        ("Is it possible to use Rust for web backends?", PINGORA, None),
        ("Why?", Topic("What is it?", ()), None),
        (
            "And then?",
            Topic("\u6771\u4eac\u30bf\u30ef\u30fc\u306f\u3069\u3053\u3067\u3059\u304b\uff1f"),
            "And then? (\u6771\u4eac\u30bf\u30ef\u30fc\u306f\u3069\u3053\u3067\u3059\u304b)",
        ),
    ],
)
def test_a_turn_is_searched_with_what_it_leaves_out(text: str, topic: Topic, searched_as: str | None) -> None:
    assert completed(text, topic) == (searched_as or text)


@pytest.mark.parametrize("text", INDEPENDENT)
def test_a_question_of_its_own_is_not_bent_by_an_unrelated_one_before_it(text: str) -> None:
    assert completed(text, PINGORA) == text


def test_only_so_many_words_are_carried() -> None:
    topic = Topic(" ".join(f"word{number}" for number in range(50)), ("Heading",))
    assert completed("Why?", topic) == f"Why? ({' '.join(f'word{number}' for number in range(12))})"
    assert completed("Why?", Topic("x" * 61)) == "Why?"


@pytest.mark.parametrize(
    ("heading", "text"),
    [
        ("Section 4 \u2014 Where it happens", "Where it happens"),
        ("1. Web Backends", "Web Backends"),
        ("2.1.3) Reset", "Reset"),
        ("IV. Results", "Results"),
        ("Appendix B: Tables", "Tables"),
        ("Chapter 7", "Chapter 7"),
        ("2026 in review", "2026 in review"),
        ("A decade of Rust", "A decade of Rust"),
        ("C++ and Go", "C++ and Go"),
        ("Plan B: wait", "Plan B: wait"),
    ],
)
def test_a_heading_is_known_without_its_number(heading: str, text: str) -> None:
    assert without_numbering(heading) == text


def test_a_follow_up_leans_on_the_last_question_that_was_not_left_unanswered() -> None:
    past = [
        Exchange("How much memory did Pingora save?", PINGORA),
        Exchange("Who won the chess championship?", Outcome.UNANSWERED),
    ]
    assert last_answered(past) == 0
    assert last_answered([*past, Exchange("What is Cargo?")]) == 2
    assert last_answered(past[1:]) is None
    assert last_answered([]) is None


def test_the_topic_of_a_follow_up_holds_what_it_leaned_on() -> None:
    past = [Exchange("What is Cargo?"), Exchange("Who won?", Outcome.UNANSWERED), Exchange("And which commands?")]
    assert topic_at(past, 2) == Topic("And which commands? (Cargo)")
    past[2] = Exchange("And which commands?", is_standalone=True)
    assert topic_at(past, 2) == Topic("And which commands?")
    past[0] = Exchange("What is Cargo?", Topic("What is Cargo?", ("Cargo", "Commands of the build tool")))
    past[2] = Exchange("Who wrote it?")
    assert topic_at(past, 2) == Topic("Who wrote it? (Cargo, Commands, build tool)")


def test_a_topic_is_the_question_and_the_headings_of_its_answer(handbook: Generation, encoder: Encoder) -> None:
    found = answer_questions(
        handbook, encoder, [Question("What does the red light mean?"), Question("Who won the chess championship?")]
    )
    assert Topic.of(found[0]) == Topic("What does the red light mean?", ("Router", "Lights"))
    assert Topic.of(found[1]) is None


def talked(turns: tuple[str, ...], generation: Generation, encoder: Encoder) -> Answer:
    """Answer the turns of a user one after the other; return the last answer."""
    topic = None
    for turn in turns:
        text = turn if topic is None else completed(turn, topic)
        (answer,) = answer_questions(generation, encoder, [Question(text)])
        topic = Topic.of(answer) or topic
    return answer


def test_follow_ups_about_the_bundled_documents_find_the_right_one(seeds: Generation, encoder: Encoder) -> None:
    answers = [talked(turns, seeds, encoder) for turns, _, _ in CONVERSATIONS]
    ids = [[passage.citation.document.id for passage in answer.passages[:3]] for answer in answers]
    texts = [[passage.text.lower() for passage in answer.passages[:3]] for answer in answers]
    expected = list(zip(CONVERSATIONS, ids, texts, strict=True))
    assert [turns for (turns, right, _), found, _ in expected if right.isdisjoint(found)] == []
    elsewhere = [
        turns for (turns, _, words), _, found in expected if not any(words.lower() in text for text in found)
    ]
    assert len(elsewhere) <= 3, elsewhere
    assert sum(answer.answered for answer in answers) >= 0.9 * len(answers)
    assert sum(missing(turns[-1]) is not None for turns, _, _ in CONVERSATIONS) >= 0.85 * len(CONVERSATIONS)
