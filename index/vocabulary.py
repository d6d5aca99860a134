"""The terms of a corpus with how many texts hold each: all that is needed to analyse a question.

The same analysis serves an index that has the postings at hand, see `index.lexical`, and one that keeps them
elsewhere.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from rapidfuzz import process
from rapidfuzz.distance import OSA

from index.terms import Name, analyse_query, names, telling_terms

# Robertson & Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond" (2009), section 3.3:
# the usual value, not tuned on any corpus.
K1 = 1.2

# How many typing errors a term may have, by the least number of its letters.
TYPING_ERRORS = ((9, 2), (6, 1))

_PREFIX_BYTES = 8
_KNOWN_TERMS = 16_384  # of which it is kept where they are; a few MB


@dataclass(frozen=True, eq=False)
class LexicalQuery:
    """A query that is analysed once, to search and to score with.

    Attributes:
        term_weights: its distinct terms, each with the largest score it could add, rare ones more. Terms are
            alternatives; one that no row holds has a weight, too.
        spans: where the postings of each of them lie.
        names: those in it, see `index.terms.names`.
        neighbours: the pairs of different terms that stand side by side in it, stop words left out; each pair once
            and in alphabetical order.
        specificity: how rare its terms are on average, in [0, 1]: 1 if no text holds any of them.
        is_known: whether each of its terms is held by some text.
    """

    term_weights: Mapping[str, float]
    spans: Mapping[str, slice]
    names: Sequence[Name]
    neighbours: Sequence[tuple[str, str]]
    specificity: float
    is_known: bool

    @cached_property
    def upper_bound(self) -> float:
        """A score that no text could exceed, whatever its length; 0 for a query without terms.

        It depends on the query and the corpus only, so that `scores / upper_bound` means the same whatever is
        filtered or asked for.
        """
        return math.fsum(self.term_weights.values())


@dataclass(frozen=True, eq=False)
class Vocabulary(ABC):
    """The distinct terms of texts. Its length is the number of texts.

    Attributes:
        vocabulary: uint8; the terms in UTF-8, in byte order, each followed by a line feed.
        term_ends: int64, shape (terms,); where in `vocabulary` each term ends.
        offsets: int64, shape (terms + 1,); where the postings of each term begin, one for each text that holds it.
    """

    vocabulary: np.ndarray
    term_ends: np.ndarray
    offsets: np.ndarray

    @abstractmethod
    def __len__(self) -> int:
        """Count the texts."""

    def query(self, text: str) -> LexicalQuery:
        """Analyse a query for all that is asked about it.

        Unknown terms are replaced by what they are likely typing errors of. Names stay as they are: one that no
        text holds is not the one it looks like.
        """
        found = names(text)
        known = {term: term for name in found for way in name for term in way}
        telling = telling_terms(text)
        for term in telling:
            if term not in known:
                known[term] = self._corrected(term)
        corrected = [known[term] for term in telling]
        spans = {term: self._span(term) for term in corrected or analyse_query(text)}
        weights = {term: self._weight(span.stop - span.start) for term, span in spans.items()}
        pairs = ((min(pair), max(pair)) for pair in pairwise(corrected) if pair[0] != pair[1])
        return LexicalQuery(
            term_weights=weights,
            spans=spans,
            names=found,
            neighbours=tuple(dict.fromkeys(pairs)),
            specificity=math.fsum(weights.values()) / (len(weights) * self._weight(0)) if weights else 0.0,
            is_known=all(span.start != span.stop for span in spans.values()),
        )

    def _corrected(self, term: str) -> str:
        """Return the known term nearest to an unknown one, by insertions, deletions, changes and swaps of letters.

        Of terms equally near it is the most frequent. The first letter is taken to be right, as it mostly is
        (Yannakoudakis & Fawthrop 1983, "The rules of spelling errors").
        """
        span = self._span(term)
        if span.start != span.stop:  # most terms
            return term
        errors = next((errors for length, errors in TYPING_ERRORS if len(term) >= length), 0)
        if not errors or not term.isalpha():
            return term
        first, known = self._terms_with_first_letter(term[0])
        found = process.extract(term, known, scorer=OSA.distance, score_cutoff=errors, limit=None)
        frequencies = np.diff(self.offsets[first : first + len(known) + 1])
        nearest = min(found, key=lambda match: (match[1], -frequencies[match[2]], match[0]), default=(term,))
        return str(nearest[0])

    def _terms_with_first_letter(self, letter: str) -> tuple[int, list[str]]:
        """Return the place of the first term that begins with a letter, and all that do."""
        places, prefix = range(len(self.term_ends)), letter.encode()
        first = bisect_left(places, prefix, key=self._term)
        last = bisect_right(places, prefix, key=lambda place: self._term(place)[: len(prefix)])
        start, end = (self.term_ends[place - 1] + 1 if place else 0 for place in (first, last))
        return first, self.vocabulary[start:end].tobytes().decode().split("\n")[:-1]

    def _weight(self, document_frequency: int) -> float:
        """Return the largest score of a term: (k1 + 1) * idf, with an idf that is never negative."""
        missing = len(self) - document_frequency
        return (K1 + 1) * math.log1p((missing + 0.5) / (document_frequency + 0.5))

    def _span(self, term: str) -> slice:
        """Return where the postings of a term lie; an empty slice for an unknown term."""
        span = self._spans.get(term)
        if span is None:
            if len(self._spans) == _KNOWN_TERMS:
                self._spans.clear()
            span = self._spans[term] = self._look_up(term)
        return span

    @cached_property
    def _spans(self) -> dict[str, slice]:
        """Where the postings of terms lie that were looked up before."""
        return {}

    def _look_up(self, term: str) -> slice:
        wanted = term.encode()
        prefix = _prefix(wanted)
        first, last = (int(self._prefixes.searchsorted(prefix, side)) for side in ("left", "right"))
        place = bisect_left(range(last), wanted, lo=first, key=self._term)
        if place == last or self._term(place) != wanted:
            return slice(0, 0)
        return slice(int(self.offsets[place]), int(self.offsets[place + 1]))

    @cached_property
    def _prefixes(self) -> np.ndarray:
        """The first eight bytes of each term as a number, padded with zeros, in the order of the terms; uint64."""
        starts = np.concatenate([np.zeros(1, np.int64), self.term_ends[:-1] + 1])[: len(self.term_ends)]
        places = starts[:, None] + np.arange(_PREFIX_BYTES)
        letters = self.vocabulary[np.minimum(places, len(self.vocabulary) - 1)]
        letters[places >= self.term_ends[:, None]] = 0
        prefixes: np.ndarray = letters.view(">u8").ravel().astype(np.uint64)
        return prefixes

    def _term(self, place: int) -> bytes:
        start = self.term_ends[place - 1] + 1 if place else 0
        return self.vocabulary[start : self.term_ends[place]].tobytes()


def _prefix(term: bytes) -> np.uint64:
    """Return the first eight bytes of a term as a number that sorts as they do."""
    return np.uint64(int.from_bytes(term[:_PREFIX_BYTES].ljust(_PREFIX_BYTES, b"\0")))
