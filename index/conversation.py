"""A conversation to the question that is searched: what the last turn leaves out is carried over from an earlier one.

No model reads the conversation, and nothing is hidden: a follow-up is searched as its own words with the carried
ones in brackets behind them, a text that can be shown, asked anywhere else with the same answer, or taken back.

What is carried was measured on 300 questions about 41 encyclopedia articles, in which "it" took the place of the
subject, each asked after another question that names it; and on 79 conversations about the bundled documents
(`tests/conversations.py`). Shares with the right passage first, and among the first three:

                                                     articles     bundled documents
    the follow-up as it stands                       65%  78%     56%  80%
    with the whole question before it                52%  78%     86%  97%
    with the words of it that tell something         69%  88%     78%  97%
    with its names; its words if it has none         77%  91%     80%  97%
    so, and with the heading of its answer           77%  91%     89%  99%
    (the subject named, nothing left out)            79%  93%

The last is what is done; the right document is then among the first three for all 379. The whole question before a
follow-up finds its own answer again where the follow-up asks about something else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Self

from index.answers import Answer
from index.followups import EMPTY, Missing, missing
from index.terms import analyse, every_term

MAX_CARRIED = 12  # words
MAX_WORD_CHARS = 60
MAX_HEADING_CHARS = 1_000

# "Section 4 -", "3.2.", "IV.": it says where a heading stands, not what is written there.
_NUMBERING = re.compile(
    r"\s*(?i:(?:appendix|chapter|part|section|step)\s+)?(?:\d+(?:\.\d+)*|[IVX]+|[A-Z])\s*[.):\u2013\u2014-]+\s+"
)
_POSSESSIVE = re.compile(r"['\u2019]s$")
_BEFORE = "([{<\"'`*\u2018\u201c\u00ab"
_AFTER = ")]}>\"'`*.,;:?!\u2019\u201d\u00bb\u2026\u3001\u3002\uff01\uff0c\uff1f"


class Outcome(Enum):
    """What is known of how an earlier question was answered, when its topic is not."""

    UNANSWERED = "unanswered"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Topic:
    """What an answered question was about.

    Attributes:
        question: as it was searched.
        headings: under which the answer stands, outermost first; empty when they are not known.
    """

    question: str
    headings: tuple[str, ...] = ()

    @classmethod
    def of(cls, answer: Answer) -> Self | None:
        """Return the topic of an answer; None when the question was not answered."""
        if answer.answer is None:
            return None
        citation = answer.answer.citation
        return cls(answer.question, citation.headings or (citation.document.title,))


@dataclass(frozen=True)
class Exchange:
    """An earlier question and what came of it.

    Attributes:
        question: as it was asked.
        outcome: its topic if it was answered.
        is_standalone: whether it was to be searched as it stands.
    """

    question: str
    outcome: Topic | Outcome = Outcome.UNKNOWN
    is_standalone: bool = False


def last_answered(past: Sequence[Exchange]) -> int | None:
    """Find the exchange a follow-up leans on: the last one, unless it is known to have had no answer.

    Returns:
        Its place in the past; None when there is none.
    """
    places = [place for place, exchange in enumerate(past) if exchange.outcome is not Outcome.UNANSWERED]
    return places[-1] if places else None


def topic_at(past: Sequence[Exchange], place: int) -> Topic:
    """Return the topic of an earlier exchange, or what its words tell of it; its headings are then not known."""
    exchange = past[place]
    if isinstance(exchange.outcome, Topic):
        return exchange.outcome
    before = last_answered(past[:place])
    if exchange.is_standalone or before is None:
        return Topic(exchange.question)
    return Topic(completed(exchange.question, topic_at(past, before)))


def completed(text: str, topic: Topic) -> str:
    """Return a turn as it is searched after a question on some topic.

    Returns:
        The text with what it leaves out in brackets behind it; the text itself when it stands by itself, or when
        nothing more is known.
    """
    what = missing(text)
    if what is None:
        return text
    names = list(_phrases(topic.question, _is_name)) if what is Missing.NAME else []
    carried = names or list(_phrases(topic.question, _is_telling))
    added = ", ".join(_new(text, [*carried, *_heading(topic)]))
    return f"{text} ({added})" if added else text


def without_numbering(heading: str) -> str:
    """Return a heading without "3.2.", "Section 4 -" or the like before it."""
    found = _NUMBERING.match(heading)
    return heading[found.end() :] if found else heading


def _phrases(text: str, is_wanted: Callable[[str, bool], bool]) -> Iterator[list[str]]:
    """Yield the wanted words of a text, those that stand together as one phrase.

    Args:
        text: to look through.
        is_wanted: tells of a word, and whether it is the first of the text, if it is wanted.
    """
    phrase: list[str] = []
    for place, written in enumerate(text.split()):
        word = _bare(written)
        wanted = is_wanted(word, place == 0)
        if phrase and (not wanted or written[0] in _BEFORE):
            yield phrase
            phrase = []
        if wanted:
            phrase.append(word)
        if phrase and written[-1] in _AFTER:
            yield phrase
            phrase = []
    if phrase:
        yield phrase


def _bare(written: str) -> str:
    """Return a word without the marks around it; `Fn(i32)` keeps its own."""
    word = _POSSESSIVE.sub("", written.strip(_BEFORE + _AFTER))
    return f"{word})" if word.count("(") > word.count(")") else word


def _is_telling(word: str, _is_first: bool) -> bool:
    return len(word) <= MAX_WORD_CHARS and word.lower() not in EMPTY and bool(analyse(word))


def _is_name(word: str, is_first: bool) -> bool:
    letters = word[1:] if is_first else word
    return _is_telling(word, is_first) and any(letter.isupper() or letter.isdigit() for letter in letters)


def _heading(topic: Topic) -> list[list[str]]:
    """Return what the innermost heading says that says anything."""
    for heading in reversed(topic.headings):
        phrases = list(_phrases(without_numbering(heading[:MAX_HEADING_CHARS]), _is_telling))
        if phrases:
            return phrases
    return []


def _new(text: str, phrases: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yield the phrases without the words that a text or an earlier phrase has, up to a number of words."""
    known = set(every_term(text))
    left = MAX_CARRIED
    for phrase in phrases:
        new = [word for word in phrase if not known.issuperset(analyse(word))][:left]
        known.update(every_term(" ".join(new)))
        left -= len(new)
        if new:
            yield " ".join(new)
