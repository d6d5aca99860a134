"""Feedback and the question log: what is kept, for how long, how much of it, and what is never kept."""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from handbook import Handbook
from live import serving
from waiting import until

from index.answers import Answer, Question, answer_questions
from index.build import sync
from index.embeddings import Encoder
from index.errors import StateError
from index.generations import Generation, Home
from index.state import State
from service import feedback
from service.feedback import DAY_S, CitedSpan, Complaint, Feedback, FeedbackStore, Rating

LOST = Answer("Where is the lost property office?", False, 0.1, None, (), "20261121T060001Z-3f9c2a", "m", "0", 1.0)
DOWN = Feedback("Is tea free?", Rating.DOWN, answered=True)


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    """The state of an empty home."""
    with State(tmp_path) as state:
        yield state


@pytest.fixture
def clock() -> Clock:
    """A clock for a store."""
    return Clock()


@pytest.fixture
def store(state: State, clock: Clock) -> FeedbackStore:
    """A store that keeps questions for 30 days and feedback for 60; its thread does not run."""
    return FeedbackStore(state, question_log_days=30, feedback_days=60, clock=clock)


def rows(path: Path, table: str) -> list[dict[str, Any]]:
    """Read a table as another process would."""
    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute(f"SELECT * FROM {table} ORDER BY number")]


def run(path: Path, statement: str) -> None:
    """Change the file as another process could."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement)


def test_feedback_is_on_the_disk_when_its_id_is_returned(store: FeedbackStore, state: State, clock: Clock) -> None:
    given = Feedback(
        "Is tea free?", Rating.DOWN, "it is not", True, "20261121T060001Z-3f9c2a", CitedSpan("tea.md", 3, 9)
    )
    feedback_id = store.add(given)
    assert rows(state.path, "feedback") == [
        {
            "number": 1,
            "moment": clock.now,
            "bytes": 12 + 9 + 23 + 6,
            "id": feedback_id,
            "rating": "down",
            "answered": 1,
            "generation": "20261121T060001Z-3f9c2a",
            "doc_id": "tea.md",
            "start": 3,
            "end": 9,
            "question": "Is tea free?",
            "reason": "it is not",
        }
    ]
    assert store.add(given) != feedback_id


def test_logged_questions_wait_for_the_next_write(store: FeedbackStore, state: State, clock: Clock) -> None:
    store.log_question(LOST)
    store.log_question(replace(LOST, question="Is tea free?", answered=True, confidence=0.75))
    assert rows(state.path, "questions") == []
    clock.now += 5  # the moment is that of the question, not that of the write
    store.flush()
    store.flush()
    assert [(row["question"], row["answered"], row["confidence"]) for row in rows(state.path, "questions")] == [
        ("Where is the lost property office?", 0, 0.1),
        ("Is tea free?", 1, 0.75),
    ]
    assert {row["moment"] for row in rows(state.path, "questions")} == {clock.now - 5}


def test_logged_questions_are_written_within_some_seconds(state: State) -> None:
    with FeedbackStore(state, question_log_days=1, feedback_days=1) as store:
        store.log_question(LOST)
        until(lambda: len(rows(state.path, "questions")) == 1)


def test_closing_writes_what_waits(state: State) -> None:
    with FeedbackStore(state, question_log_days=1, feedback_days=1) as store:
        store.log_question(LOST)
    assert len(rows(state.path, "questions")) == 1


def test_a_store_that_was_never_started_can_be_closed(store: FeedbackStore, state: State) -> None:
    store.log_question(LOST)
    store.close()
    assert len(rows(state.path, "questions")) == 1


def test_no_question_is_lost_or_doubled_when_many_threads_log_while_others_write(
    store: FeedbackStore, state: State
) -> None:
    def log(name: int) -> None:
        for turn in range(200):
            store.log_question(replace(LOST, question=f"{name} {turn}"))
            if turn % 20 == 0:
                store.flush()

    threads = [threading.Thread(target=log, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store.flush()
    written = [row["question"] for row in rows(state.path, "questions")]
    assert sorted(written) == sorted(f"{name} {turn}" for name in range(4) for turn in range(200))


def test_nothing_is_logged_unless_it_is_switched_on(state: State) -> None:
    with FeedbackStore(state, question_log_days=0, feedback_days=1) as store:
        assert not store.logs_questions
        store.log_question(LOST)
    assert rows(state.path, "questions") == []


def test_switching_the_log_off_removes_what_it_held(store: FeedbackStore, state: State, clock: Clock) -> None:
    store.log_question(LOST)
    store.add(DOWN)
    store.close()
    FeedbackStore(state, question_log_days=0, feedback_days=1, clock=clock)
    assert rows(state.path, "questions") == []
    assert len(rows(state.path, "feedback")) == 1


def test_questions_and_feedback_are_removed_when_their_days_are_over(
    store: FeedbackStore, state: State, clock: Clock
) -> None:
    store.log_question(LOST)
    store.add(DOWN)
    store.flush()
    clock.now += 30 * DAY_S
    store.prune()
    assert len(rows(state.path, "questions")) == len(rows(state.path, "feedback")) == 1
    clock.now += 1
    store.prune()
    assert rows(state.path, "questions") == []
    assert len(rows(state.path, "feedback")) == 1
    clock.now += 30 * DAY_S
    store.prune()
    assert rows(state.path, "feedback") == []
    assert not any(LOST.question.encode() in path.read_bytes() for path in state.path.parent.glob("state.sqlite*"))


def test_what_is_past_its_days_goes_although_nobody_asks(
    state: State, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feedback, "PRUNE_S", 0.1)
    monkeypatch.setattr(feedback, "FLUSH_S", 0.05)
    with FeedbackStore(state, question_log_days=1, feedback_days=1, clock=clock) as store:
        store.add(DOWN)
        clock.now += 2 * DAY_S
        until(lambda: rows(state.path, "feedback") == [])


def test_a_flood_pushes_out_the_oldest_tenth(
    store: FeedbackStore, state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feedback, "MAX_ROWS", 100)
    for number in range(101):
        store.add(replace(DOWN, question=f"question {number}"))
        store.log_question(replace(LOST, question=f"question {number}"))
    store.flush()
    store.prune()
    kept = [f"question {number}" for number in range(11, 101)]
    assert [row["question"] for row in rows(state.path, "feedback")] == kept
    assert [row["question"] for row in rows(state.path, "questions")] == kept


def test_long_texts_are_bounded_by_their_bytes(
    store: FeedbackStore, state: State, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feedback, "MAX_BYTES", 10_000)
    for number in range(8):
        store.add(Feedback(f"Is it {number}?", Rating.DOWN, reason="ß" * 1_000))  # 2,000 bytes, and 8 of the question
    store.prune()
    assert [row["question"] for row in rows(state.path, "feedback")] == [f"Is it {number}?" for number in range(4, 8)]


def test_a_flood_is_bounded_before_the_minute_is_over(
    state: State, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feedback, "MAX_ROWS", 10)
    monkeypatch.setattr(feedback, "PRUNE_ROWS", 20)
    monkeypatch.setattr(feedback, "FLUSH_S", 0.05)
    with FeedbackStore(state, question_log_days=1, feedback_days=1, clock=clock) as store:
        for _ in range(20):
            store.add(DOWN)
        until(lambda: len(rows(state.path, "feedback")) == 9)


def test_questions_wait_while_the_disk_cannot_be_written(
    store: FeedbackStore, state: State, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(feedback, "MAX_WAITING", 3)
    run(state.path, "ALTER TABLE questions RENAME TO hidden")
    for number in range(5):
        store.log_question(replace(LOST, question=f"question {number}"))
    with pytest.raises(StateError, match="no such table: questions"):
        store.flush()
    run(state.path, "ALTER TABLE hidden RENAME TO questions")
    with caplog.at_level(logging.ERROR):
        store.flush()
    assert [row["question"] for row in rows(state.path, "questions")] == ["question 0", "question 1", "question 2"]
    assert caplog.messages == ["2 questions were not logged: 3 waited for the disk already"]


def test_a_disk_that_cannot_be_written_is_told_once_and_the_store_goes_on(
    state: State, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(feedback, "FLUSH_S", 0.02)
    with caplog.at_level(logging.ERROR), FeedbackStore(state, question_log_days=1, feedback_days=1) as store:
        run(state.path, "ALTER TABLE questions RENAME TO hidden")
        store.log_question(LOST)
        until(lambda: len(caplog.messages) == 1)
        threading.Event().wait(0.2)
        run(state.path, "ALTER TABLE hidden RENAME TO questions")
        until(lambda: len(rows(state.path, "questions")) == 1)
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("The question log cannot be written; 1 questions wait: ")


def test_closing_tells_what_could_not_be_written(
    store: FeedbackStore, state: State, caplog: pytest.LogCaptureFixture
) -> None:
    run(state.path, "DROP TABLE questions")
    store.log_question(LOST)
    with caplog.at_level(logging.ERROR):
        store.close()
    assert caplog.messages[-1] == "1 questions were not logged: the disk could not be written"


def test_texts_are_kept_on_one_line_without_control_characters(store: FeedbackStore, state: State) -> None:
    store.add(replace(DOWN, question=" Is\ttea\x00\r\nfree?\x9b ", reason="\x1b[31mNo.\n\nNever.\x07"))
    store.add(replace(DOWN, reason=" \n\x00"))
    store.log_question(replace(LOST, question="Where\nis it?\x7f"))
    store.flush()
    first, second = rows(state.path, "feedback")
    assert (first["question"], first["reason"]) == ("Is tea free?", "[31mNo. Never.")
    assert second["reason"] is None
    assert rows(state.path, "questions")[0]["question"] == "Where is it?"


def test_no_word_of_a_document_is_kept(
    store: FeedbackStore, state: State, handbook: Generation, encoder: Encoder
) -> None:
    (answer,) = answer_questions(handbook, encoder, [Question("What does the red light mean?")])
    assert answer.answer is not None
    citation = answer.answer.citation
    store.log_question(answer)
    store.add(
        Feedback(answer.question, Rating.UP, cited=CitedSpan(citation.document.id, citation.start, citation.end))
    )
    store.close()
    files = [path.read_bytes() for path in state.path.parent.glob("state.sqlite*")]
    assert any(b"What does the red light mean?" in data for data in files)
    assert not any(b"there is no power" in data for data in files)


def test_what_was_missed_is_counted_by_its_wording(store: FeedbackStore, clock: Clock) -> None:
    began = clock.now
    for _ in range(3):
        store.log_question(LOST)
    store.log_question(replace(LOST, question="Is tea free?", answered=True))
    clock.now += 60
    # Of the three askings one sent feedback, which is no fourth.
    store.add(Feedback(LOST.question, Rating.DOWN, answered=False))
    store.add(DOWN)
    store.add(replace(DOWN, answered=None))
    store.add(replace(DOWN, rating=Rating.UP))
    store.flush()
    missed = store.missed(days=30, at_most=10)
    assert [(each.text, each.count, each.unanswered, each.thumbed_down) for each in missed.questions] == [
        (LOST.question, 3, 3, 1),
        ("Is tea free?", 2, 0, 2),
    ]
    assert (missed.wordings, missed.asked, missed.unanswered) == (2, 4, 3)
    lost = missed.questions[0]
    assert (lost.first.timestamp(), lost.last.timestamp()) == (began, began + 60)
    assert lost.first.utcoffset() is not None


def test_without_a_log_feedback_tells_what_was_not_answered(state: State, clock: Clock) -> None:
    store = FeedbackStore(state, question_log_days=0, feedback_days=60, clock=clock)
    store.add(Feedback(LOST.question, Rating.DOWN, answered=False))
    store.add(Feedback(LOST.question, Rating.UP, answered=False))  # the nearest passage was of use, but no answer
    missed = store.missed(days=30, at_most=10)
    assert [(each.count, each.unanswered, each.thumbed_down) for each in missed.questions] == [(2, 2, 1)]
    assert missed.asked == 0


def test_only_the_days_that_are_looked_at_count(store: FeedbackStore, clock: Clock) -> None:
    store.log_question(LOST)
    store.add(DOWN)
    store.flush()
    clock.now += 2 * DAY_S
    assert store.missed(days=1, at_most=10) == feedback.Missed((), 0, 0, 0)
    assert store.complaints([DOWN.question], days=1) == []
    assert store.missed(days=2, at_most=10).wordings == 2


def test_the_questions_missed_most_often_come_first(store: FeedbackStore, clock: Clock) -> None:
    for number, times in enumerate([1, 3, 2, 1]):
        clock.now += 1
        for _ in range(times):
            store.log_question(replace(LOST, question=f"question {number}"))
    store.flush()
    missed = store.missed(days=1, at_most=3)
    assert [each.text for each in missed.questions] == ["question 1", "question 2", "question 3"]
    assert missed.wordings == 4


def test_complaints_are_counted_and_the_latest_come_first(store: FeedbackStore, clock: Clock) -> None:
    cited = CitedSpan("tea.md", 0, 5)
    for given in (
        replace(DOWN, reason="wrong", cited=cited),
        replace(DOWN, reason="old"),
        replace(DOWN, reason="wrong", cited=cited),
        replace(DOWN, rating=Rating.UP, reason="good"),
        replace(DOWN, question="Something else?", reason="unclear"),
    ):
        clock.now += 1
        store.add(given)
    assert store.complaints([DOWN.question, "Never asked 'it'?"], days=1) == [
        Complaint("Is tea free?", "wrong", "tea.md", 2),
        Complaint("Is tea free?", "old", None, 1),
    ]


def test_a_state_without_the_tables_cannot_be_added_to(store: FeedbackStore, state: State) -> None:
    run(state.path, "DROP TABLE feedback")
    with pytest.raises(StateError, match="no such table"):
        store.add(DOWN)


# Over HTTP

FULL = {
    "question": "What does the red light mean?",
    "rating": "down",
    "reason": "It blinks, too.",
    "answered": True,
    "generation": "20261121T060001Z-3f9c2a",
    "citation": {"document": "router.md", "start": 80, "end": 122},
}


@pytest.fixture(scope="module")
def served(encoder: Encoder, cache_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A client of a service over the handbook, and the path of its state."""
    home = Home(tmp_path_factory.mktemp("feedback"))
    sync(home, [Handbook()], encoder)
    with serving(home.path, cache_folder) as client:
        yield client, home.path / "state.sqlite"


def test_feedback_is_taken(served: tuple[httpx.Client, Path]) -> None:
    client, path = served
    before = len(rows(path, "feedback"))
    response = client.post("/v1/feedback", json=FULL)
    assert response.status_code == 201
    assert client.post("/v1/feedback", json={"question": "Is tea free?", "rating": "up"}).status_code == 201
    full, least = rows(path, "feedback")[before:]
    assert response.json() == {"id": full["id"]}
    assert (full["reason"], full["doc_id"], full["start"], full["end"]) == ("It blinks, too.", "router.md", 80, 122)
    assert (least["rating"], least["answered"], least["doc_id"]) == ("up", None, None)


@pytest.mark.parametrize(
    ("changed", "code", "pointer"),
    [
        ({"question": ""}, "invalid_question", None),
        ({"question": "x" * 4_001}, "invalid_question", None),
        ({"question": "?!"}, "invalid_question", None),
        ({"question": "tea \ud800?"}, "invalid_request", "/question"),
        ({"question": 7}, "invalid_request", "/question"),
        ({"rating": "meh"}, "invalid_request", "/rating"),
        ({"rating": None}, "invalid_request", "/rating"),
        ({"reason": "x" * 2_001}, "invalid_request", "/reason"),
        ({"reason": "\udfff"}, "invalid_request", "/reason"),
        ({"answered": "yes"}, "invalid_request", "/answered"),
        ({"generation": "../../etc/passwd"}, "invalid_request", "/generation"),
        ({"generation": "20261121T060001Z-3f9c2a\n"}, "invalid_request", "/generation"),
        ({"citation": {"document": "", "start": 0, "end": 1}}, "invalid_request", "/citation/document"),
        ({"citation": {"document": "a\x00b", "start": 0, "end": 1}}, "invalid_request", "/citation/document"),
        ({"citation": {"document": "a\ud800", "start": 0, "end": 1}}, "invalid_request", "/citation/document"),
        ({"citation": {"document": "a" * 4_097, "start": 0, "end": 1}}, "invalid_request", "/citation/document"),
        ({"citation": {"document": "a", "start": -1, "end": 1}}, "invalid_request", "/citation/start"),
        ({"citation": {"document": "a", "start": 0, "end": 10**30}}, "invalid_request", "/citation/end"),
        ({"citation": {"document": "a", "start": 2, "end": 1}}, "invalid_request", "/citation"),
        (
            {"citation": {"document": "a", "start": 0, "end": 1, "quote": "words"}},
            "invalid_request",
            "/citation/quote",
        ),
        ({"mood": "good"}, "invalid_request", "/mood"),
        ({"mood \ud800": "good"}, "invalid_request", None),
    ],
)
def test_feedback_that_makes_no_sense_is_refused(
    served: tuple[httpx.Client, Path], changed: dict[str, Any], code: str, pointer: str | None
) -> None:
    client, path = served
    before = len(rows(path, "feedback"))
    body = json.dumps({**FULL, **changed})
    response = client.post("/v1/feedback", content=body, headers={"Content-Type": "application/json"})
    assert (response.status_code, response.json()["code"]) == (422, code)
    assert response.headers["content-type"] == "application/problem+json"
    if pointer is not None:
        assert [error["pointer"] for error in response.json()["errors"]] == [pointer]
    assert len(rows(path, "feedback")) == before


@pytest.mark.parametrize(
    ("content", "media_type", "status", "code"),
    [
        (b'{"question": ', "application/json", 400, "malformed_json"),
        (b"rating=up", "application/x-www-form-urlencoded", 415, "content_type"),
        (b"[]", "application/json", 422, "invalid_request"),
    ],
)
def test_a_body_that_is_no_feedback_is_refused(
    served: tuple[httpx.Client, Path], content: bytes, media_type: str, status: int, code: str
) -> None:
    response = served[0].post("/v1/feedback", content=content, headers={"Content-Type": media_type})
    assert (response.status_code, response.json()["code"]) == (status, code)


def test_a_state_that_cannot_be_written_is_a_507(served: tuple[httpx.Client, Path]) -> None:
    client, path = served
    run(path, "ALTER TABLE feedback RENAME TO hidden")
    try:
        response = client.post("/v1/feedback", json=FULL)
        assert (response.status_code, response.json()["code"]) == (507, "storage_unavailable")
    finally:
        run(path, "ALTER TABLE hidden RENAME TO feedback")
    assert client.post("/v1/feedback", json=FULL).status_code == 201
