"""What people said of answers, and the log of questions: what the insights are made of.

Neither holds a word of a document, only its id and offsets: a document that is deleted leaves no text here. The
log is off unless it is switched on; feedback holds the question because its sender sends it along.
"""

from __future__ import annotations

import json
import logging
import math
import re
import sqlite3
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Self

from index.answers import Answer
from index.errors import StateError
from index.state import State

logger = logging.getLogger(__name__)

# Of each table; beyond either, the oldest tenth makes room. Whoever may ask may also send feedback, and one row of it
# may take 30 kB: rows alone would not bound the disk.
MAX_ROWS = 100_000
MAX_BYTES = 50_000_000
KEPT_SHARE = 0.9
FLUSH_S = 1.0
PRUNE_S = 60.0
PRUNE_ROWS = 1_000  # written: in a flood there is no waiting for the minute to be over
MAX_WAITING = 10_000  # questions in memory while the disk cannot be written
MAX_COMPLAINTS = 5_000
DAY_S = 24 * 60 * 60

_QUESTIONS = """
CREATE TABLE IF NOT EXISTS questions (
    number INTEGER PRIMARY KEY,
    moment REAL NOT NULL,             -- seconds since 1970
    bytes INTEGER NOT NULL,           -- of the text
    answered INTEGER NOT NULL,
    confidence REAL NOT NULL,
    generation TEXT NOT NULL,
    question TEXT NOT NULL
) STRICT
"""
_FEEDBACK = """
CREATE TABLE IF NOT EXISTS feedback (
    number INTEGER PRIMARY KEY,
    moment REAL NOT NULL,             -- seconds since 1970
    bytes INTEGER NOT NULL,           -- of the texts
    id TEXT NOT NULL,
    rating TEXT NOT NULL,             -- up, down
    answered INTEGER,                 -- NULL: not said; so the following
    generation TEXT,
    doc_id TEXT,                      -- what was cited, and where
    start INTEGER,
    end INTEGER,
    question TEXT NOT NULL,
    reason TEXT
) STRICT
"""
_INDEXES = (
    "CREATE INDEX IF NOT EXISTS questions_by_moment ON questions (moment, answered)",
    "CREATE INDEX IF NOT EXISTS feedback_by_moment ON feedback (moment)",
)
_ADD_QUESTION = """
INSERT INTO questions (moment, bytes, answered, confidence, generation, question) VALUES (?, ?, ?, ?, ?, ?)
"""
_ADD_FEEDBACK = """
INSERT INTO feedback (moment, id, bytes, rating, answered, generation, doc_id, start, end, question, reason)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_EXPIRE = {
    "questions": "DELETE FROM questions WHERE moment < ?",
    "feedback": "DELETE FROM feedback WHERE moment < ?",
}
_MEASURE = {
    "questions": "SELECT count(*), total(bytes) FROM questions",
    "feedback": "SELECT count(*), total(bytes) FROM feedback",
}
_MAKE_ROOM = {
    "questions": """
DELETE FROM questions WHERE number <= (
    SELECT max(number) FROM (
        SELECT number, row_number() OVER newest AS rows, sum(bytes) OVER newest AS size
        FROM questions WINDOW newest AS (ORDER BY number DESC)
    ) WHERE rows > ? OR size > ?
)
""",
    "feedback": """
DELETE FROM feedback WHERE number <= (
    SELECT max(number) FROM (
        SELECT number, row_number() OVER newest AS rows, sum(bytes) OVER newest AS size
        FROM feedback WINDOW newest AS (ORDER BY number DESC)
    ) WHERE rows > ? OR size > ?
)
""",
}
# Feedback on a question without an answer tells of an asking that is in the log as well, when there is a log: the
# larger of the two numbers counts, not their sum.
_MISSED = """
WITH missed AS (
    SELECT question, moment, 1 AS logged, 0 AS told, 0 AS down, 0 AS wrong
    FROM questions WHERE moment >= :since AND NOT answered
    UNION ALL
    SELECT question, moment, 0, answered IS 0, rating = 'down', rating = 'down' AND answered IS NOT 0
    FROM feedback WHERE moment >= :since AND (rating = 'down' OR answered IS 0)
)
SELECT
    question,
    max(sum(logged), sum(told)) + sum(wrong) AS count,
    max(sum(logged), sum(told)) AS unanswered,
    sum(down) AS thumbed_down,
    min(moment) AS first,
    max(moment) AS last,
    count(*) OVER () AS wordings
FROM missed GROUP BY question ORDER BY count DESC, last DESC, question LIMIT :at_most
"""
_COMPLAINTS = """
SELECT question, reason, doc_id, count(*) AS count
FROM feedback
WHERE moment >= :since AND rating = 'down' AND question IN (SELECT value FROM json_each(:questions))
GROUP BY question, reason, doc_id ORDER BY max(moment) DESC, max(number) DESC LIMIT :at_most
"""
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")


class Rating(Enum):
    """What somebody thinks of an answer."""

    UP = "up"
    DOWN = "down"


@dataclass(frozen=True)
class CitedSpan:
    """What an answer cited, without its words: a document and code points of its text."""

    doc_id: str
    start: int
    end: int


@dataclass(frozen=True)
class Feedback:
    """What somebody said of an answer.

    Attributes:
        question: as it was asked.
        rating: thumb up or down.
        reason: in the sender's words; None when not said, as the following.
        answered: whether the question was answered.
        generation: that was asked.
        cited: what was shown as the answer, or as the nearest passage.
    """

    question: str
    rating: Rating
    reason: str | None = None
    answered: bool | None = None
    generation: str | None = None
    cited: CitedSpan | None = None


@dataclass(frozen=True)
class MissedQuestion:
    """A question that got no answer, or one that was thumbed down, in one wording.

    Attributes:
        text: the question.
        count: how often somebody went without a good answer.
        unanswered: how often there was none; by the log, or by feedback where that tells of more.
        thumbed_down: how often somebody thumbed down what was shown. In `count` are those of them that were not for
            want of an answer, since these are in `unanswered`.
        first: when it was first missed.
        last: when it was last missed.
    """

    text: str
    count: int
    unanswered: int
    thumbed_down: int
    first: datetime
    last: datetime


@dataclass(frozen=True)
class Missed:
    """The questions that were missed in some days.

    Attributes:
        questions: those missed most often first.
        wordings: how many there are, also those that are not in `questions`.
        asked: how many questions the log holds of these days.
        unanswered: how many of them were not answered.
    """

    questions: tuple[MissedQuestion, ...]
    wordings: int
    asked: int
    unanswered: int


@dataclass(frozen=True)
class Complaint:
    """A thumb down, as often as it was given with the same question, reason and document."""

    question: str
    reason: str | None
    doc_id: str | None
    count: int


class FeedbackStore:
    """Feedback and the question log of a home; its methods may be called from any thread.

    Args:
        state: of the home.
        question_log_days: for which questions are kept; 0 keeps none, and removes those that were kept before.
        feedback_days: for which feedback is kept.
        clock: seconds since 1970.

    Raises:
        StateError: the state cannot be written.
    """

    def __init__(
        self,
        state: State,
        *,
        question_log_days: int,
        feedback_days: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.logs_questions = question_log_days > 0
        self._state = state
        self._keep_s = {"questions": question_log_days * DAY_S, "feedback": feedback_days * DAY_S}
        self._clock = clock
        self._waiting: deque[_Asked] = deque()
        self._dropped = 0
        self._waiting_lock = threading.Lock()
        self._flush_lock = threading.Lock()
        self._unpruned = 0
        self._pruned_at = -math.inf
        self._is_failing = False
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._tend, name="feedback", daemon=True)
        state.create(_QUESTIONS, _FEEDBACK, *_INDEXES)
        self.prune()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Begin to write logged questions every second, and to remove what is past its time; a thread does it."""
        self._thread.start()

    def close(self) -> None:
        """Write what waits, and end; to be called before the state is closed."""
        self._closing.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._flush_or_tell()
        if lost := len(self._waiting) + self._dropped:
            logger.error("%d questions were not logged: the disk could not be written", lost)

    def add(self, feedback: Feedback) -> str:
        """Keep feedback, and return its id; it is on the disk then.

        Line breaks and control characters in question and reason become spaces.

        Raises:
            StateError: it cannot be written.
        """
        feedback_id = uuid.uuid4().hex
        values = (self._clock(), feedback_id, *_feedback_values(feedback))
        with self._state.transaction() as connection:
            connection.execute(_ADD_FEEDBACK, values)
            self._unpruned += 1
        return feedback_id

    def log_question(self, answer: Answer) -> None:
        """Log the question of an answer when questions are logged: of the answer no word, only whether there was one.

        Takes microseconds and raises nothing: the question waits in memory for the next write, which comes every
        second. A process that is killed loses what waits, at most a second of questions; one that is closed loses
        nothing. While the disk cannot be written 10,000 questions wait; how many more were dropped is logged.
        """
        if not self.logs_questions:
            return
        # Not the answer itself: it holds its passages.
        asked = _Asked(self._clock(), answer.question, answer.answered, answer.confidence, answer.generation)
        with self._waiting_lock:
            if len(self._waiting) < MAX_WAITING:
                self._waiting.append(asked)
            else:
                self._dropped += 1

    def flush(self) -> None:
        """Write the questions that wait.

        Raises:
            StateError: they cannot be written; they wait on.
        """
        with self._flush_lock:
            with self._waiting_lock:
                waiting = list(self._waiting)
            if not waiting:
                return
            with self._state.transaction() as connection:
                connection.executemany(_ADD_QUESTION, [_question_values(asked) for asked in waiting])
                self._unpruned += len(waiting)
            with self._waiting_lock:
                for _ in waiting:
                    self._waiting.popleft()
                dropped, self._dropped = self._dropped, 0
        if dropped:
            logger.error("%d questions were not logged: %d waited for the disk already", dropped, MAX_WAITING)

    def prune(self) -> None:
        """Remove what is past its time, and the oldest rows beyond the bounds.

        Raises:
            StateError: the state cannot be written.
        """
        self._unpruned, self._pruned_at = 0, time.monotonic()
        now = self._clock()
        removed = 0
        with self._state.transaction() as connection:
            for table, keep_s in self._keep_s.items():
                removed += connection.execute(_EXPIRE[table], (now - keep_s if keep_s else math.inf,)).rowcount
                rows, size = connection.execute(_MEASURE[table]).fetchone()
                if rows > MAX_ROWS or size > MAX_BYTES:
                    bounds = (KEPT_SHARE * MAX_ROWS, KEPT_SHARE * MAX_BYTES)
                    removed += connection.execute(_MAKE_ROOM[table], bounds).rowcount
        if removed:
            self._state.truncate_log()

    def missed(self, *, days: int, at_most: int) -> Missed:
        """Find the questions of the last days that got no answer, or one that was thumbed down.

        Args:
            days: that are looked at.
            at_most: questions that are returned.

        Raises:
            StateError: the state cannot be read.
        """
        since = self._since(days)
        with self._state.reading() as connection:
            rows = connection.execute(_MISSED, {"since": since, "at_most": at_most}).fetchall()
            asked, unanswered = connection.execute(
                "SELECT count(*), count(*) FILTER (WHERE NOT answered) FROM questions WHERE moment >= ?", (since,)
            ).fetchone()
        return Missed(
            questions=tuple(_missed_question(row) for row in rows),
            wordings=rows[0]["wordings"] if rows else 0,
            asked=asked,
            unanswered=unanswered,
        )

    def complaints(self, questions: Iterable[str], *, days: int) -> list[Complaint]:
        """Return the thumbs down that questions got in the last days, the latest first, 5,000 different ones at most.

        Raises:
            StateError: the state cannot be read.
        """
        values = {"since": self._since(days), "questions": json.dumps(list(questions)), "at_most": MAX_COMPLAINTS}
        with self._state.reading() as connection:
            return [Complaint(*row) for row in connection.execute(_COMPLAINTS, values)]

    def _since(self, days: int) -> float:
        return self._clock() - days * DAY_S

    def _tend(self) -> None:
        while not self._closing.wait(FLUSH_S):
            self._flush_or_tell()

    def _flush_or_tell(self) -> None:
        try:
            self.flush()
            if self._unpruned >= PRUNE_ROWS or time.monotonic() >= self._pruned_at + PRUNE_S:
                self.prune()
            self._is_failing = False
        except StateError as error:
            if not self._is_failing:  # said once, not every second
                logger.error("The question log cannot be written; %d questions wait: %s", len(self._waiting), error)
            self._is_failing = True


@dataclass(frozen=True)
class _Asked:
    moment: float
    question: str
    answered: bool
    confidence: float
    generation: str


def _question_values(asked: _Asked) -> tuple[object, ...]:
    question = _one_line(asked.question)
    return asked.moment, _size(question), asked.answered, asked.confidence, asked.generation, question


def _feedback_values(feedback: Feedback) -> tuple[object, ...]:
    question, reason = _one_line(feedback.question), _one_line(feedback.reason or "") or None
    cited = feedback.cited
    doc_id, start, end = (None, None, None) if cited is None else (cited.doc_id, cited.start, cited.end)
    size = _size(question, reason, feedback.generation, doc_id)
    return size, feedback.rating.value, feedback.answered, feedback.generation, doc_id, start, end, question, reason


def _missed_question(row: sqlite3.Row) -> MissedQuestion:
    return MissedQuestion(
        text=row["question"],
        count=row["count"],
        unanswered=row["unanswered"],
        thumbed_down=row["thumbed_down"],
        first=datetime.fromtimestamp(row["first"], UTC),
        last=datetime.fromtimestamp(row["last"], UTC),
    )


def _one_line(text: str) -> str:
    return " ".join(_CONTROL.sub(" ", text).split())


def _size(*texts: str | None) -> int:
    return sum(len(text.encode()) for text in texts if text is not None)
