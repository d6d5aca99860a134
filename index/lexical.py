"""Keyword search over chunks: BM25 on an inverted index held in NumPy arrays.

A generation never changes and the next one is written from it. The index is made for that: its arrays are
opened memory-mapped, and `LexicalIndex.updated` makes the next index from this one without analysing again
what is kept. The arrays depend on the texts alone, not on how the corpus came to be: equal corpora have equal
files, scores follow the statistics of the present corpus, and a deleted word is in no file.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import compress, count, islice
from pathlib import Path

import numpy as np

from index.corpus import keep
from index.errors import DamagedGenerationError
from index.terms import STOP_WORDS, every_term
from index.vectors import bounds_of, open_array
from index.vocabulary import K1, LexicalQuery, Vocabulary

# Robertson & Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond" (2009), section 3.3:
# the usual value, not tuned on any corpus.
B = 0.75

_BATCH = 50_000  # texts counted at a time; bounds the memory a build needs beside the index itself
# Terms of which it is kept what they add to scores, and in how many rows such a term may be: at most 16 MB.
_KEPT_TERMS, _LARGEST_KEPT = 1_024, 4_096
_GROUP = 64  # rows of which the best is found first when the best of all are wanted
_LARGEST_FREQUENCY = 255
_SMALLEST = float(np.finfo(np.float32).tiny)  # number above 0
_LINE_FEED = 10


@dataclass(frozen=True, eq=False)
class LexicalIndex(Vocabulary):
    """BM25 search over rows 0 to n-1, one text each.

    The postings of term t are `rows[offsets[t]:offsets[t + 1]]`, ascending, and the frequencies beside them.

    Attributes, beside those of `Vocabulary`:
        rows: int32, shape (postings,).
        frequencies: uint8, shape (postings,); how often the term occurs in the row. More than 255 is held as
            255, where BM25 has long levelled off.
        lengths: int32, shape (n,); terms in each row, stop words not counted.
    """

    rows: np.ndarray
    frequencies: np.ndarray
    lengths: np.ndarray

    @classmethod
    def from_texts(cls, texts: Iterable[str]) -> LexicalIndex:
        """Index texts, which may be a generator; the first is row 0."""
        postings, lengths = _count_in_batches(texts, taken=np.empty(0, np.int64))
        return cls._from_postings(postings, lengths)

    def updated(self, kept: np.ndarray, positions: np.ndarray, added: Iterable[str]) -> LexicalIndex:
        """Return the index of the next generation, equal to `from_texts` of its texts.

        Args:
            kept: int64, ascending: the rows that stay. All others are deleted, with terms only they had.
            positions: int64, ascending, as long as `kept`: the row each of them has from now on.
            added: new texts, which may be a generator; in their order they take the rows that `positions` leaves
                free.

        Returns:
            An index of the kept and the added rows. This one is left as it is.
        """
        postings, added_lengths = _count_in_batches(added, taken=positions)
        free = np.ones(len(kept) + len(added_lengths), bool)
        free[positions] = False
        lengths = np.empty(len(free), np.int32)
        lengths[positions] = self.lengths[kept]
        lengths[free] = added_lengths
        return self._from_postings(_merge(self._moved(kept, positions), postings), lengths)

    def save(self, folder: Path) -> None:
        """Write one .npy file per array into a folder, which is made if it is missing."""
        folder.mkdir(parents=True, exist_ok=True)
        for field in fields(self):
            np.save(folder / f"{field.name}.npy", getattr(self, field.name))

    @classmethod
    def load(cls, folder: Path) -> LexicalIndex:
        """Open a saved index, memory-mapped.

        Raises:
            DamagedGenerationError: a file is missing, is not an array, or does not fit the others.
        """
        index = cls(**{field.name: open_array(folder / f"{field.name}.npy") for field in fields(cls)})
        index._check(folder)
        return index

    def __len__(self) -> int:
        return len(self.lengths)

    def query(self, text: str) -> IndexQuery:
        """See `Vocabulary.query`; the scores of what is returned are those of this index."""
        query = super().query(text)
        return IndexQuery(**vars(query), index=self)

    def search(self, query: str, *, top_k: int, allowed: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Find the rows that match a query best, see `IndexQuery.search`."""
        return self.query(query).search(top_k=top_k, allowed=allowed)

    def scores(self, query: LexicalQuery) -> np.ndarray:
        """Return the BM25 scores of all rows: float32, in [0, upper_bound); 0 where no term of the query occurs."""
        scores = np.zeros(len(self), np.float32)
        for span in query.spans.values():
            # Faster by a third than picking by numbers of 32 bits.
            np.add.at(scores, *self._scored_postings(span))
        return scores

    def _scored_postings(self, span: slice) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows of a term and what it adds to the score of each; kept in case it is asked for again."""
        key = span.start, span.stop
        known = self._known_postings.get(key)
        if known is not None:
            return known
        rows, frequencies = self.postings(span)
        scored = rows, np.float32(self._weight(len(rows))) * self.saturation(rows, frequencies)
        if len(rows) <= _LARGEST_KEPT:
            keep(self._known_postings, key, scored, most=_KEPT_TERMS)
        return scored

    @cached_property
    def _known_postings(self) -> dict[tuple[int, int], tuple[np.ndarray, np.ndarray]]:
        return {}

    def postings(self, span: slice) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows of a term and its frequencies in them, which lie in `span`."""
        return self.rows[span], self.frequencies[span]

    def saturation(self, rows: np.ndarray, frequencies: np.ndarray) -> np.ndarray:
        """Return which share of a term's weight each row gets for holding it so often, from 0 to 1; float32."""
        saturation: np.ndarray = frequencies / (frequencies + self._length_norms.take(rows))
        return saturation

    @cached_property
    def _length_norms(self) -> np.ndarray:
        average = max(1, self.lengths.sum()) / max(1, len(self))
        norms: np.ndarray = (K1 * (1 - B + B * self.lengths / average)).astype(np.float32)
        return norms

    def _moved(self, kept: np.ndarray, positions: np.ndarray) -> _Postings:
        """Return the postings of the kept rows under their new numbers."""
        new_row = np.full(len(self), -1, np.int32)
        new_row[kept] = positions
        rows = new_row[self.rows]
        stays = rows >= 0
        gone_before = np.searchsorted(np.flatnonzero(~stays), self.offsets)
        counts = np.diff(self.offsets - gone_before)
        terms = self.vocabulary.tobytes().split(b"\n")[:-1]
        return _Postings(list(compress(terms, counts)), counts[counts > 0], rows[stays], self.frequencies[stays])

    @classmethod
    def _from_postings(cls, postings: _Postings, lengths: np.ndarray) -> LexicalIndex:
        vocabulary = np.frombuffer(b"".join(term + b"\n" for term in postings.terms), np.uint8)
        return cls(
            vocabulary=vocabulary,
            term_ends=np.flatnonzero(vocabulary == _LINE_FEED),
            offsets=postings.offsets(),
            rows=postings.rows,
            frequencies=postings.frequencies,
            lengths=lengths,
        )

    def _check(self, folder: Path) -> None:
        fits = (
            len(self.offsets) == len(self.term_ends) + 1
            and len(self.rows) == len(self.frequencies) == self.offsets[-1]
            and len(self.vocabulary) == (self.term_ends[-1] + 1 if len(self.term_ends) else 0)
        )
        if not fits:
            raise DamagedGenerationError(
                f"The arrays in {folder} do not belong together: "
                f"{len(self.term_ends):,} terms, {len(self.offsets):,} offsets, {len(self.rows):,} rows, "
                f"{len(self.frequencies):,} frequencies. Restore the generation or build it anew."
            )


@dataclass(frozen=True, eq=False)
class IndexQuery(LexicalQuery):
    """A query with the index that analysed it.

    Attributes, beside those of `LexicalQuery`:
        index: that is asked.
    """

    index: LexicalIndex

    def search(self, *, top_k: int, allowed: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Find the rows that match best.

        Args:
            top_k: rows wanted, at least 1.
            allowed: bool, shape (n,); False keeps a row out. The scores of the others do not change.

        Returns:
            Rows (int64) and their scores (float32), best first, equal scores by row. At most `top_k` and only
            rows that hold a term of the query.
        """
        rows = best_rows(self.scores, top_k, allowed)
        return rows, self.scores[rows]

    @cached_property
    def scores(self) -> np.ndarray:
        """See `LexicalIndex.scores`."""
        return self.index.scores(self)


@dataclass(frozen=True, eq=False)
class _Postings:
    """Postings on the way into an index.

    Attributes:
        terms: in UTF-8, in byte order, distinct.
        counts: int64, rows of each term, at least 1.
        rows: int32, those of the first term ascending, then those of the second, ...
        frequencies: uint8, beside `rows`.
    """

    terms: list[bytes]
    counts: np.ndarray
    rows: np.ndarray
    frequencies: np.ndarray

    @classmethod
    def none(cls) -> _Postings:
        return cls([], np.empty(0, np.int64), np.empty(0, np.int32), np.empty(0, np.uint8))

    def offsets(self) -> np.ndarray:
        """Return where the postings of each term start, and after the last where they end; int64."""
        return bounds_of(self.counts)


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    remaining = iter(texts)
    while batch := list(islice(remaining, _BATCH)):
        yield batch


def _count_in_batches(texts: Iterable[str], *, taken: np.ndarray) -> tuple[_Postings, np.ndarray]:
    """Count the terms of texts, of which only a batch at a time is held.

    Args:
        texts: to be analysed; in their order they take the rows that are free.
        taken: int64, ascending: the rows that are not.

    Returns:
        The postings, and the length of each text (int32).
    """
    postings, lengths = _Postings.none(), np.empty(0, np.int32)
    free_before = taken - np.arange(len(taken))
    for batch in _batches(texts):
        numbers = np.arange(len(lengths), len(lengths) + len(batch))
        rows = numbers + np.searchsorted(free_before, numbers, side="right")
        added, added_lengths = _count(batch, rows)
        postings = _merge(postings, added)
        lengths = np.concatenate([lengths, added_lengths])
    return postings, lengths


def _count(texts: Sequence[str], rows: np.ndarray) -> tuple[_Postings, np.ndarray]:
    """Count the terms of texts.

    Args:
        texts: to be analysed.
        rows: int64, ascending: the row of each text.

    Returns:
        The postings, and the length of each text (int32).
    """
    terms, term_of, text_of = _term_stream(texts)
    tells = np.array([term not in STOP_WORDS for term in terms], bool)
    lengths = np.bincount(text_of[tells[term_of]], minlength=len(texts)).astype(np.int32)
    pairs, frequencies = np.unique(term_of * len(texts) + text_of, return_counts=True)
    term_of, text_of = np.divmod(pairs, max(1, len(texts)))
    postings = _Postings(
        terms=[term.encode() for term in terms],
        counts=np.bincount(term_of, minlength=len(terms)),
        rows=rows[text_of].astype(np.int32),
        frequencies=np.minimum(frequencies, _LARGEST_FREQUENCY).astype(np.uint8),
    )
    return postings, lengths


def _term_stream(texts: Sequence[str]) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Return the distinct terms, sorted, and for each occurrence in turn which term it is in which text."""
    numbers: defaultdict[str, int] = defaultdict(count().__next__)
    stream, sizes = array("q"), array("q")
    for text in texts:
        occurrences = every_term(text)
        stream.extend(map(numbers.__getitem__, occurrences))
        sizes.append(len(occurrences))
    # Code point order, as str sorts, is the byte order of UTF-8.
    terms = sorted(numbers)
    place = np.empty(len(terms), np.int64)
    place[[numbers[term] for term in terms]] = np.arange(len(terms))
    return terms, place[np.array(stream)], np.repeat(np.arange(len(texts)), np.array(sizes))


def _merge(old: _Postings, new: _Postings) -> _Postings:
    """Put two sets of postings together; no row may be in both."""
    if not old.terms or not new.terms:
        return old if old.terms else new
    places = np.array([bisect_left(old.terms, term) for term in new.terms])
    known = np.array([old.terms[place : place + 1] == [term] for place, term in zip(places, new.terms, strict=True)])
    new_slots = places + np.cumsum(~known) - ~known
    is_old = np.ones(len(old.terms) + int(np.sum(~known)), bool)
    is_old[new_slots[~known]] = False
    counts = np.zeros(len(is_old), np.int64)
    counts[is_old] = old.counts
    counts[new_slots] += new.counts
    points = _insertion_points(old, new, places, known)
    return _Postings(
        # Two sorted runs one after the other: sorting them is merging them.
        terms=sorted(old.terms + list(compress(new.terms, ~known))),
        counts=counts,
        rows=np.insert(old.rows, points, new.rows),
        frequencies=np.insert(old.frequencies, points, new.frequencies),
    )


def _insertion_points(old: _Postings, new: _Postings, places: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return before which posting of `old` each posting of `new` belongs.

    Args:
        old: the postings that are there.
        new: those to be inserted.
        places: where in `old.terms` each term of `new` is or would be.
        known: bool, whether it is there.
    """
    offsets = old.offsets()
    new_rows = np.split(new.rows, new.offsets()[1:-1])
    spans = zip(offsets[places], offsets[places + known], new_rows, strict=True)
    return np.concatenate([start + np.searchsorted(old.rows[start:end], rows) for start, end, rows in spans])


def best_rows(scores: np.ndarray, top_k: int, allowed: np.ndarray | None = None) -> np.ndarray:
    """Return the rows with the `top_k` highest scores above 0, best first, equal scores by row; int64.

    Args:
        scores: float32, shape (n,).
        top_k: rows wanted, at least 1.
        allowed: bool, shape (n,); False keeps a row out.
    """
    if allowed is not None:
        scores = np.where(allowed, scores, np.float32(0))
    rows = np.flatnonzero(scores >= _floor(scores, top_k))
    order = np.argsort(-scores[rows], kind="stable")[:top_k]
    return rows[order]


def _floor(scores: np.ndarray, top_k: int) -> float:
    """Return a score above 0 that at least `top_k` rows reach, if so many are above 0.

    Rows are dealt out to groups, and the best of each group is found first, which is much faster than sorting
    all. As many groups as reach the `top_k`-th of these peaks, so many rows reach it at least.
    """
    if len(scores) <= top_k:
        return _SMALLEST
    groups = len(scores) // _GROUP
    if groups <= top_k:
        return max(_SMALLEST, float(np.partition(scores, -top_k)[-top_k]))
    peaks = scores[: groups * _GROUP].reshape(_GROUP, groups).max(axis=0)
    return max(_SMALLEST, float(np.partition(peaks, -top_k)[-top_k]))
