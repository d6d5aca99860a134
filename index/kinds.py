"""What kind of thing a question asks for, and whether a sentence holds such a thing.

Of the sentences of a passage that all lie near to "When was the bridge built?" the one with a date mostly answers.
The kinds are the coarse ones of Li & Roth 2002, "Learning Question Classifiers", as far as they can be told from a
few words, and in English only; a question of no known kind, or in another language, expects nothing.
"""

from __future__ import annotations

import re
from collections.abc import Set
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

import regex

from index.terms import asked_terms, every_term


class Kind(Enum):
    """What is asked for."""

    TIME = "time"
    NUMBER = "number"
    NAME = "name"
    REASON = "reason"


KNOWN_SENTENCES = 8_192  # of which it is kept what things they hold; a few MB

_MONTHS = "January|February|March|April|May|June|July|August|September|October|November|December"
_DAYS = "Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday"
_NUMBERS = (
    "one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|twenty|thirty|forty|fifty|hundreds?|thousands?|"
    "millions?|billions?|trillions?|dozens?|half|thirds?|quarters?|twice|double"
)
# The first that is found decides.
_QUESTIONS = {
    Kind.TIME: re.compile(
        r"^\W*when\b|\b(?:what|which) (?:year|date|day|month|century|decade|time)\b|\bhow long ago\b|\bsince when\b",
        re.IGNORECASE,
    ),
    Kind.NUMBER: re.compile(
        r"\bhow (?:many|much|long|old|far|fast|big|large|tall|often|high|deep|wide|heavy|few)\b|"
        r"\b(?:percentage|percent|number|amount|price|cost|population|ratio|rate)\b",
        re.IGNORECASE,
    ),
    Kind.NAME: re.compile(
        r"\bwho(?:se|m)?\b|\bwhere\b|\b(?:what|which) (?:city|country|state|place|town|river|region|location)\b",
        re.IGNORECASE,
    ),
    Kind.REASON: re.compile(r"\bwhy\b|\bwhat (?:caused|reason)\b", re.IGNORECASE),
}
_THINGS: dict[Kind, re.Pattern[str] | regex.Pattern[str]] = {
    Kind.TIME: re.compile(
        rf"\b(?:1\d|20)\d\d\b|\b(?:{_MONTHS})\b|\b(?:centur|decade)\w*|\b\d+ (?:year|month|week|day|hour)"
    ),
    Kind.NUMBER: re.compile(rf"\d[\d.,]*|\b(?:{_NUMBERS})\b", re.IGNORECASE),
    # A capital where no sentence begins, but of a month or a day.
    Kind.NAME: regex.compile(rf"(?<=[^.!?\s] )[\"'“(]?(?!(?:{_MONTHS}|{_DAYS})\b)\p{{Lu}}[\p{{L}}'’.-]+"),
    Kind.REASON: re.compile(
        r"\b(?:because|since|due to|in order to|so that|therefore|as a result|reasons?|caused?|leads? to|to avoid|"
        r"to ensure)\b",
        re.IGNORECASE,
    ),
}


@dataclass(frozen=True)
class Expected:
    """What the answer to a question should hold.

    Attributes:
        kind: of thing.
        known: terms of the question: what it says itself is not what it asks for.
    """

    kind: Kind
    known: Set[str]

    def held_by(self, sentence: str) -> float:
        """Return 1 if a sentence holds such a thing, 1/2 if it holds a number where a time is asked for, else 0."""
        if any(map(self.known.isdisjoint, _things(self.kind, sentence))):
            return 1.0
        is_near = self.kind is Kind.TIME and any(map(self.known.isdisjoint, _things(Kind.NUMBER, sentence)))
        return 0.5 if is_near else 0.0


def expected_of(question: str) -> Expected | None:
    """Return what the answer to a question should hold; None if its words do not tell."""
    kind = next((kind for kind, pattern in _QUESTIONS.items() if pattern.search(question)), None)
    return None if kind is None else Expected(kind, frozenset(asked_terms(question)))


@lru_cache(KNOWN_SENTENCES)
def _things(kind: Kind, sentence: str) -> tuple[tuple[str, ...], ...]:
    """Return the terms of each thing of a kind in a sentence; the same sentences are found again and again."""
    return tuple(tuple(every_term(match.group())) for match in _THINGS[kind].finditer(sentence))
