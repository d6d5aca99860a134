"""The terms by which a text is found: words, identifiers and their parts, stemmed.

The same rules serve texts and queries, so that whatever way a word is written on one side it meets the other:
`Wi-Fi`, `WiFi` and `wifi`; `HashMaps` and `hash map`; `Québec` and `quebec`; `C++` but not `C`.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from itertools import chain

import regex
import Stemmer  # type: ignore[import-not-found]

# Changes whenever the same text may get other terms; an index made before must then be built anew.
ANALYSIS_VERSION = f"1 snowball-{Stemmer.version()} unicode-{unicodedata.unidata_version}"

# Words that tell what kind of question is asked but not what about. "us" is missing: it is a country, too.
STOP_WORDS = frozenset(
    """
    a an the this that these those there such and or but if then for of on in at by to into with as no not
    i me my we our you your he him his she her it its they them their
    what which who whom whose when where why how
    am is are was were be been being have has had having do does did doing
    can could may might must shall should will would
    aren't can't couldn't didn't doesn't don't hadn't hasn't haven't isn't shouldn't wasn't weren't won't
    wouldn't
    i'm you're he's she's it's we're they're i've you've we've they've i'd you'd he'd she'd we'd they'd
    i'll you'll he'll she'll it'll we'll they'll that's there's what's who's where's how's
    """.split()  # noqa: SIM905 (a list of so many strings would not be readable)
)

# Scripts written without spaces or, as Hangul, with particles attached: bigrams stand in for words.
_UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}ー]"
# What holds the parts of an identifier or compound together, soft hyphen and zero-width joiners included.
_JOINER = r"(?:::|__|[-‐._'&\u00ad\u200c\u200d]|,(?<=\p{N},)(?=\p{N}))"
_WORD = r"[\p{L}\p{N}][\p{L}\p{N}\p{M}]*"
_SPACED_WORD = rf"[[\p{{L}}\p{{N}}]--{_UNSPACED}][[\p{{L}}\p{{N}}\p{{M}}]--{_UNSPACED}]*"

_TOKEN = regex.compile(rf"{_WORD}(?:{_JOINER}{_WORD})*(?:\+\+|\#)?", regex.V1)
_UNSPACED_RUN = regex.compile(rf"{_UNSPACED}+", regex.V1)
_SCRIPT_RUN = regex.compile(rf"{_UNSPACED}+|{_SPACED_WORD}(?:{_JOINER}{_SPACED_WORD})*(?:\+\+|\#)?", regex.V1)
_JOINERS = regex.compile(_JOINER, regex.V1)
# The dot of "1.85" stays, else version 1.85 would be number 185.
_SILENT_JOINERS = regex.compile(rf"(?!(?<=\p{{N}})\.(?=\p{{N}})){_JOINER}", regex.V1)
_CASE_CHANGE = regex.compile(r"(?<=\p{Ll})(?=\p{Lu})|(?<=\p{Lu})(?=\p{Lu}\p{Ll}{2})", regex.V1)
# English endings and French elisions: "vehicle's", "l'école".
_CLITIC = regex.compile(r"^(?:[cdjlmnst]|qu)'(?=\w\w)|'(?:s|t|d|m|ll|re|ve)$", regex.V1 | regex.IGNORECASE)
_ACCENTS = regex.compile(r"[\u0300-\u036f]+")


Name = tuple[tuple[str, ...], ...]
"""Ways to hold a name: a text that has all terms of one of them holds it."""


def analyse(text: str) -> list[str]:
    """Return the terms of a text in order, repeated as often as they occur, without stop words."""
    return [term for term in every_term(text) if term not in STOP_WORDS]


def analyse_query(query: str) -> list[str]:
    """Return the distinct terms of a query in order.

    A query of nothing but stop words ("to be or not to be") keeps them; one without words has no terms.
    """
    return list(dict.fromkeys(telling_terms(query) or asked_terms(query)))


def asked_terms(query: str) -> list[str]:
    """Return what `every_term` does, of a query; it is taken apart once, and then looked at for this and that."""
    return list(chain.from_iterable(map(_terms, _asked_tokens(query))))


def telling_terms(query: str) -> list[str]:
    """Return what `analyse` does, of a query."""
    return [term for term in asked_terms(query) if term not in STOP_WORDS]


def names(text: str) -> list[Name]:
    """Return the names in a text: words with a figure, or with a capital where no sentence begins.

    `Pingora`, `iOS`, `2026`, `FnMut`; the first word of the text only if a capital stands inside it.
    """
    found = (_named(token, is_first=place == 0) for place, token in enumerate(_asked_tokens(text)))
    return [name for name in found if name]


def every_term(text: str) -> list[str]:
    """Return the terms of a text in order, repeated as often as they occur, stop words included."""
    return list(chain.from_iterable(map(_terms, _tokens(text))))


def _tokens(text: str) -> list[str]:
    tokens: list[str] = _TOKEN.findall(unicodedata.normalize("NFKC", text).replace("’", "'"))
    return tokens


@lru_cache(maxsize=16)
def _asked_tokens(query: str) -> list[str]:
    return _tokens(query)


@lru_cache(maxsize=1 << 17)
def _terms(token: str) -> tuple[str, ...]:
    if not token.isascii() and _UNSPACED_RUN.search(token):
        return tuple(chain.from_iterable(map(_run_terms, _SCRIPT_RUN.findall(token))))
    folded = _fold(token)
    if folded in STOP_WORDS:
        return (folded,)
    if token.isalpha() and (token.islower() or token.istitle()):  # most words: nothing to take apart
        return (_stem(folded),)
    return _identifier_terms(_CLITIC.sub("", token))


def _run_terms(run: str) -> tuple[str, ...]:
    return _bigrams(run) if _UNSPACED_RUN.match(run) else _terms(run)


def _bigrams(run: str) -> tuple[str, ...]:
    return tuple(run[start : start + 2] for start in range(max(1, len(run) - 1)))


def _identifier_terms(token: str) -> tuple[str, ...]:
    """Return the whole token, joiners left out, followed by its parts if it has several."""
    whole = _stem(_fold(_SILENT_JOINERS.sub("", token)))
    parts = [_fold(part) for part in _parts(token.rstrip("+#"))]
    if len(parts) == 1:
        return (whole,)
    return (whole, *(_stem(part) for part in parts if _is_telling(part)))


def _parts(token: str) -> list[str]:
    return [part for piece in _JOINERS.split(token) for part in _CASE_CHANGE.split(piece)]


@lru_cache(maxsize=1 << 14)
def _named(token: str, *, is_first: bool) -> Name:
    """Return by which terms a token is told if it is a name that tells something, else nothing."""
    terms = analyse(token) if _is_name(token, is_first=is_first) else []
    return _name(token, terms) if terms else ()


def _is_name(token: str, *, is_first: bool) -> bool:
    if token.isalpha() and token.islower():  # most words
        return False
    letters = token[1:] if is_first else token
    return any(letter.isupper() for letter in letters) or any(letter.isdigit() for letter in token)


def _name(token: str, terms: list[str]) -> Name:
    """Return by which terms a name is told: that of the whole, or those of all its parts, as in `hash map`.

    Of `iOS` only the whole tells: without its first letter it is another word.
    """
    if not token.isascii() and _UNSPACED_RUN.search(token):
        return (tuple(terms),)
    whole, *parts = terms
    if not parts or any(len(part) == 1 and not part.isdigit() for part in _parts(token)):
        return ((whole,),)
    return ((whole,), tuple(parts))


def _is_telling(part: str) -> bool:
    return (len(part) > 1 or part.isdigit()) and part not in STOP_WORDS


def _stem(word: str) -> str:
    # A stemmer must not be shared between threads; making one takes half a microsecond.
    stem: str = Stemmer.Stemmer("english", 0).stemWord(word)
    return stem


def _fold(word: str) -> str:
    """Return the word without case and without the accents of European scripts."""
    if word.isascii():
        return word.lower()
    decomposed = unicodedata.normalize("NFD", word.casefold())
    return unicodedata.normalize("NFC", _ACCENTS.sub("", decomposed))
