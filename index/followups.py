"""Whether a turn of a conversation can be understood without the ones before it; told by its words alone.

A follow-up has no words of its own ("since when?"), is a fragment ("and for Python?"), or holds a pronoun that stands
for nothing in the same turn ("how fast is it?"). No part of speech is known here, only lists of the words that hold
sentences together; the rules are made so that in doubt a turn counts as a question of its own. A follow-up that
is missed has to be asked in full. A question that is bent gets the answer to another one.

The words are English. What is asked in another language counts as a question of its own.

Of questions that were asked alone, so many count as follow-ups: none of 83 about the bundled documents, 2 of 1,500
typed into a search engine, 10 of 1,467 on government FAQs, 27 of 6,000 on encyclopedia articles, written with the
article in view. Most of these 39 do hold a pronoun without anything it could stand for.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from index.terms import STOP_WORDS

MAX_CHARS = 400  # whoever writes more has said what it is about


def _words_of(text: str) -> frozenset[str]:
    return frozenset(text.split())


QUESTION_WORDS = _words_of("what which who whom whose when where why how")
BE = _words_of("am are aren't be been being is isn't was wasn't were weren't")
AUXILIARIES = BE | _words_of(
    "can can't cannot could couldn't did didn't do does doesn't don't had hadn't has hasn't have haven't may might "
    "must mustn't shall should shouldn't will won't would wouldn't"
)
PREPOSITIONS = _words_of(
    "about across after against along among around as at before behind below between beyond by despite during "
    "except for from in inside into like near of off on onto outside over past per since through throughout to "
    "toward towards under until up upon via with within without"
)
# What may follow the object of a verb, beside a preposition.
ADVERBS = _words_of(
    "again ago also always anymore anyway anywhere apart away back best better correctly else ever everywhere "
    "exactly faster how instead just later less more most much myself never next not now often once ourselves "
    "properly really right safely so soon still then there though today together too twice well when whenever why "
    "yet yourself"
)
# Words with which a new clause of a question begins.
CONJUNCTIONS = _words_of(
    "although and because but how if nor once or since so than that though unless until what when whenever where "
    "whereas whether which while who whom whose why"
)
SUBORDINATORS = _words_of("after although because before if once since though unless until when while")
LEAD_INS = _words_of(
    "ah aha alright and but cheers cool great hello hey hi hm hmm nice no oh ok okay or plus right so sure thank "
    "thanks then well yeah yes you"
)
JOINING = _words_of("and but or plus")
SINCE = _words_of("after before by since until")
LIMITS = _words_of("also even only")
SHARED_PREPOSITIONS = _words_of("at in on per via")
REQUESTS = _words_of("describe explain give i let's list name please show tell there we write you")

SUBJECTS = _words_of("he i she they we you")
PERSONAL = _words_of("he her him it she them they")
POSSESSIVE = _words_of("her hers his its their theirs")
DEMONSTRATIVE = _words_of("that these this those")
ARTICLES = _words_of("a an any the")

# Words that do not say what a question is about; so do the stop words not.
EMPTY = (
    PREPOSITIONS
    | AUXILIARIES
    | CONJUNCTIONS
    | ADVERBS
    | _words_of(
        """
        actually all already another any anybody anyone anything available bit both certain course different
        differently each either enough even every everybody everyone everything few fewer first following former
        generally here however indeed kindly last latter least let lets likewise long longer lot lots many maybe me
        namely neither nobody none nothing ok okay old one ones only other others otherwise out own particular
        perhaps please possibly precisely pretty quite rather regarding rest same second several similarly some
        somebody someone something sometimes somewhere specifically such thus till two us usually versus very vs
        whatever wherever
        apply applies ask bring call called come comes came compare compares compared continue depend depends
        describe differ differs elaborate exist exists expand explain explained find found get gets getting give
        gives given go goes going got gone happen happened happening happens keep keeps know known knows look looked
        looks make made makes making matter matters mean means meant mention mentioned need needed needs occur
        occurs put say saying says said see seen show shown shows take taken takes talk tell think told took turn
        use used uses using want wants work worked working works
        advantage advantages alternative alternatives benefit benefits case cases con cons detail details difference
        differences disadvantage disadvantages downside downsides drawback drawbacks example examples exception
        exceptions extent idea ideas instance instances kind kinds meaning option options part parts point points
        pro pros reason reasons sort sorts thing things tradeoff tradeoffs upside upsides way ways
        """
    )
)
# Nouns which, with "this" or "that", name once more what was spoken of.
RESUMING = _words_of(
    "approach approaches case cases claim claims concept concepts decision feature features figure figures idea "
    "ideas method methods pattern patterns problem problems process rule rules situation step steps technique "
    "techniques thing things way"
)
# What is said of an "it" that stands for nothing: "is it possible to ...", "it seems that ...".
JUDGEMENTS = _words_of(
    "acceptable advisable allowed appropriate bad beneficial best better cheaper clear common compulsory crucial "
    "customary dangerous desirable difficult early easier easy efficient enough essential expensive fair faster "
    "feasible fine forbidden good hard harder harmful healthy helpful illegal important impossible late legal like "
    "likely mandatory necessary normal obligatory ok okay permissible permitted possible practical problematic "
    "prohibited proper realistic reasonable recommended required right risky safe safer sensible smart sufficient "
    "true unlikely unsafe useful useless usual vital wise worth worthwhile wrong"
)
IMPERSONAL_VERBS = _words_of(
    "appear appears cost costs feel feels happen happens help helps make makes matter mean require requires seem "
    "seems take taken takes took turn turns"
)
IMPERSONAL_NOUNS = _words_of("case idea problem thing time way")
HEDGES = _words_of(
    "a actually also always an even ever generally just more most not now really so still the too very"
)
OF_TIME = _words_of("date day days hours minutes months time weeks year years")
LINKS = _words_of("because how if that what when where whether which who why")
VERBS_AFTER_THAT = _words_of(
    "affect apply break cause change come compare cost count depend differ exist fail feel fit go happen help hold "
    "hurt imply include last look make matter mean need require run save scale sound start stop support take work"
)
ORDINALS = _words_of("another best first last latter new next old only other same second that these third this those")
VERBS_BEFORE_ONE = _words_of("buy find get have make need there use want")
# English words that other languages hardly have; "in", "was" or "her" they do.
UNMISTAKABLE = QUESTION_WORDS | _words_of(
    "about and are can could did does from his if is it its one she should that the their them there these they "
    "this those with would you your"
)

_TOKEN = re.compile(r"[^\W_][\w'+#]*(?:[-./&][^\W_][\w'+#]*)*|[,;:.!?()\u2013\u2014\u2026]|(?<=\s)-+(?=\s)")
_CLITIC = re.compile(r"'(?:s|re|ll|d|ve|m)$")


class Missing(Enum):
    """What a follow-up leaves out.

    Attributes:
        NAME: of the thing that an "it" or a "their" stands for; the turn says itself what is asked about it.
        MATTER: all that was asked, or what was said: "why?", "and for Python?", "what does that mean?"
    """

    NAME = "name"
    MATTER = "matter"


@dataclass(frozen=True)
class _Word:
    """A word of a turn.

    Attributes:
        folded: in small letters, without what an apostrophe adds to a pronoun.
        clause: number of the clause it stands in, from 0.
        is_name: whether it has a figure, or a capital where no sentence begins.
        is_telling: whether it says what the turn is about.
    """

    folded: str
    clause: int
    is_name: bool
    is_telling: bool


def missing(text: str) -> Missing | None:
    """Tell what a turn needs of the ones before it to be understood; None: nothing."""
    if len(text) > MAX_CHARS:
        return None
    joins, words = _after_lead_ins(_read(text))
    if not words or not _is_english(words, joins=joins):
        return None
    is_fragment = _is_fragment(words, joins=joins, asks=text.rstrip().endswith("?"))
    if is_fragment or any(_points_outside(words, place) for place in range(len(words))):
        return _kind(words)
    return None


def _read(text: str) -> list[_Word]:
    normal = unicodedata.normalize("NFKC", text).replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    words: list[_Word] = []
    clause, begins_sentence = 0, True
    for written in _TOKEN.findall(normal):
        if not written[0].isalnum():
            clause, begins_sentence = clause + 1, written in ".!?:"
            continue
        folded = written.lower()
        folded = _CLITIC.sub("", folded) if folded in STOP_WORDS else folded
        is_name = _is_name(written, begins_sentence=begins_sentence) and not normal.isupper()
        if _begins_clause(words, folded):
            clause += 1
        is_telling = is_name or (folded not in STOP_WORDS and folded not in EMPTY)
        words.append(_Word("" if is_name else folded, clause, is_name, is_telling))
        begins_sentence = False
    return words


def _is_name(token: str, *, begins_sentence: bool) -> bool:
    """`Pingora`, `2026`, and `IT` or `US`, which are no pronouns; but "I" is one."""
    letters = token[1:] if begins_sentence else token
    return token.split("'")[0] != "I" and any(letter.isupper() or letter.isdigit() for letter in letters)


def _begins_clause(words: Sequence[_Word], folded: str) -> bool:
    """Return whether a clause begins with a word, or began with the one before: "..., can I"."""
    if not any(word.is_telling for word in words):
        return False
    return folded in CONJUNCTIONS or (folded in SUBJECTS and words[-1].folded in AUXILIARIES)


def _after_lead_ins(words: Sequence[_Word]) -> tuple[bool, Sequence[_Word]]:
    """Return whether a turn begins with "and" or the like, and what follows such words."""
    start = next((place for place, word in enumerate(words) if word.folded not in LEAD_INS), 0)
    return any(word.folded in JOINING for word in words[:start]), words[start:]


def _is_english(words: Sequence[_Word], *, joins: bool) -> bool:
    if joins or words[0].folded in PREPOSITIONS | LIMITS or not any(word.is_telling for word in words):
        return True
    return any(word.folded in UNMISTAKABLE for word in words)


def _kind(words: Sequence[_Word]) -> Missing:
    pronouns = {word.folded for word in words}
    is_name = not pronouns.isdisjoint(PERSONAL | POSSESSIVE) and pronouns.isdisjoint(DEMONSTRATIVE)
    return Missing.NAME if is_name else Missing.MATTER


def _is_fragment(words: Sequence[_Word], *, joins: bool, asks: bool) -> bool:
    """Return whether a turn is no whole question; `asks`: whether it ends with a question mark."""
    first = words[0].folded
    telling = [word for word in words if word.is_telling]
    if not telling:
        return True
    if [word.folded for word in words[:2]] in (["what", "about"], ["how", "about"]):
        return True
    if joins and first not in QUESTION_WORDS | AUXILIARIES | REQUESTS:
        return True
    if joins and len(telling) == 1 and not telling[0].is_name:
        return True
    return _is_choice(words, telling) or _is_bare_question(words) or (asks and _is_adverbial(words, telling))


def _is_choice(words: Sequence[_Word], telling: Sequence[_Word]) -> bool:
    """Which is faster? Which one do teams prefer? But not: which is faster, Rust or Go?"""
    if words[0].folded != "which" or any(word.folded == "or" for word in words):
        return False
    following = words[1].folded
    if following in ("one", "ones"):
        return words[-1].clause == words[0].clause
    return following in AUXILIARIES and len(telling) == 1 and not telling[0].is_name


def _is_bare_question(words: Sequence[_Word]) -> bool:
    """Since which version? How many drivers?"""
    is_led = len(words) > 1 and words[0].folded in PREPOSITIONS
    first, *rest = words[is_led:]
    if any(word.is_name or word.folded in AUXILIARIES for word in rest):
        return False
    if first.folded == "how" and rest and rest[0].folded in ("many", "much", "few", "little"):
        return len(rest) <= 3
    return first.folded in ("how", "what", "which") and len(rest) == 1


def _is_adverbial(words: Sequence[_Word], telling: Sequence[_Word]) -> bool:
    """For Windows? Even in production? But not "in produzione?", which begins as it would in English."""
    is_limited = words[0].folded in LIMITS
    preposition, *rest = words[is_limited:] or words
    if preposition.folded not in PREPOSITIONS or not rest or any(word.folded in AUXILIARIES for word in rest):
        return False
    is_english = is_limited or rest[0].is_name or preposition.folded not in SHARED_PREPOSITIONS
    return is_english and len(rest) <= 3 and len(telling) <= 2


def _points_outside(words: Sequence[_Word], place: int) -> bool:
    """Return whether a word is a pronoun that stands for nothing in the same turn."""
    folded = words[place].folded
    if folded in POSSESSIVE and not (folded == "her" and _is_end(words, place + 1)):
        return not _is_bound(words, place) and not _has_antecedent(words, place, is_possessive=True)
    if folded in PERSONAL:
        return not (folded == "it" and _is_impersonal(words, place)) and not _has_antecedent(words, place)
    if folded in DEMONSTRATIVE:
        return _is_pronoun(words, place) and not _has_antecedent(words, place)
    if folded == "there":
        return _is_place(words, place) and not _has_antecedent(words, place)
    if folded in ("one", "ones"):
        return _stands_for_noun(words, place) and not _has_antecedent(words, place)
    if folded in ("then", "other"):
        return _is_then_or_the_other(words, place)
    if folded in ("same", "latter", "former"):
        return _is_same(words, place) and not _has_antecedent(words, place)
    return False


def _has_antecedent(words: Sequence[_Word], place: int, *, is_possessive: bool = False) -> bool:
    """Return whether a pronoun stands, or may well stand, for something in the same turn.

    In its own clause the object of a verb is not what its subject is: in "why did Cloudflare replace it?" it is
    something else. A possessive may be, and so may the subject of a clause that begins without a sign.
    """
    word = words[place]
    before = [other for other in words[:place] if other.is_telling and not _is_asked_for(words, other, place)]
    if before and before[-1] is words[place - 1] and not before[-1].is_name:
        before.pop()  # the verb of which it is the object, or an adjective before "one"
    if not before:
        return not word.folded.startswith("th") and _is_fronted(words, place)
    if is_possessive or before[0].clause != word.clause or len(before) > 2:
        return True
    return _is_after_gerund(words, place) or not _is_end(words, place + 1)


def _is_asked_for(words: Sequence[_Word], other: _Word, place: int) -> bool:
    """Return whether a word is of what is asked for, and so no antecedent: "how many drivers does it have?" """
    clause = [word for word in words[:place] if word.clause == words[place].clause]
    auxiliaries = [each for each in clause if each.folded in AUXILIARIES]
    is_inverted = len(auxiliaries) == 1 and auxiliaries == clause[-1:] and clause[0].folded in QUESTION_WORDS
    return is_inverted and other in clause


def _is_fronted(words: Sequence[_Word], place: int) -> bool:
    """Return whether what a pronoun stands for is named after it: "if it rains, can I use the router?" """
    begins = words[0].folded in PREPOSITIONS | SUBORDINATORS and words[min(1, place)].folded not in AUXILIARIES
    clause = words[place].clause
    return begins and clause == words[0].clause and any(word.is_telling for word in words if word.clause > clause)


def _is_after_gerund(words: Sequence[_Word], place: int) -> bool:
    """Return whether a pronoun ends a clause like "... without the public attending them"."""
    first = next(number for number, word in enumerate(words) if word.is_telling)
    has_preposition = any(word.folded in PREPOSITIONS for word in words[first:place])
    return has_preposition and words[place - 1].folded.endswith("ing")


def _is_bound(words: Sequence[_Word], place: int) -> bool:
    """Return whether the subject asked for is what a possessive stands for: "who lost his key?" """
    first = words[0].folded
    if place < 2:
        return False
    if first == "who":
        return words[place].folded != "its"
    return first in ("what", "which") and words[1].folded not in AUXILIARIES | PERSONAL


def _is_end(words: Sequence[_Word], place: int) -> bool:
    """Return whether at a place a clause ends, or something follows that is no verb and no noun."""
    return _is_clause_end(words, place) or words[place].folded in PREPOSITIONS | ADVERBS


def _is_clause_end(words: Sequence[_Word], place: int) -> bool:
    return place >= len(words) or words[place].clause != words[place - 1].clause


def _is_impersonal(words: Sequence[_Word], place: int) -> bool:
    """Return whether an "it" stands for nothing: "is it possible to ...", "how long does it take to ..." """
    before = [word.folded for word in words[:place]]
    if before[-1:] and before[-1] in BE and any(word in OF_TIME for word in before[-2:-1]):
        return True
    rest = list(words[place + 1 :])
    while rest and (rest[0].folded in HEDGES | AUXILIARIES or rest[0].folded.endswith("ly")):
        del rest[0]
    if before[-1:] == ["worth"] and any(word.is_telling for word in words[: place - 1]):
        return True
    if not rest:
        return False
    return _is_judged(rest, is_after_be=bool(before) and before[-1] in BE) or _is_cleft(rest)


def _is_judged(rest: Sequence[_Word], *, is_after_be: bool) -> bool:
    """Return whether what is said of an "it" is said of what follows: "hard to learn Rust", "true that ..." """
    head, tail = rest[0].folded, rest[1:]
    if head in ("to", "for"):
        return is_after_be and _is_whole(rest)
    if head == "called" and tail:
        return tail[0].is_telling or tail[0].folded in LINKS
    nouns = {word.folded for word in rest[:2]}
    if head not in JUDGEMENTS | IMPERSONAL_VERBS and nouns.isdisjoint(IMPERSONAL_NOUNS | OF_TIME):
        return False
    for place, word in enumerate(tail):
        if word.folded in ("to", "for") or word.folded.endswith("ing"):
            return _is_whole(tail[place:])
        if word.folded in LINKS or word.folded == "since":
            return any(other.is_telling for other in tail[place:])
    return sum(word.is_telling for word in tail) > 1


def _is_cleft(rest: Sequence[_Word]) -> bool:
    """Return whether what follows is what an "it" announced: "is it known that ...", but "is it a tool that ..." """
    places = [place for place, word in enumerate(rest) if word.folded in ("that", "whether", "which", "who", "how")]
    if not places or not any(word.is_telling for word in rest[places[0] :]):
        return False
    return rest[0].folded in ("because", "that", "who") or rest[places[0] - 1].folded.endswith("ed") or places[0] == 1


def _is_whole(words: Sequence[_Word]) -> bool:
    """Return whether "to ..." or "for ... to ..." says by itself what is to be done."""
    telling = sum(word.is_telling for word in words)
    return telling > 1 or (telling == 1 and len(words) > 2 and not _is_end(words, 2))


def _is_pronoun(words: Sequence[_Word], place: int) -> bool:
    """Return whether "this" or "that" stands alone: not before its noun, nor for "which" or as a conjunction."""
    folded = words[place].folded
    if folded == "those" and place + 1 < len(words) and words[place + 1].folded in ("who", "that", "which", "whose"):
        return False
    if _is_clause_end(words, place + 1):
        return True
    previous = words[place - 1] if place else None
    following = words[place + 1].folded
    if following in RESUMING:
        return sum(word.is_telling for word in words) <= 3
    if previous is not None and previous.folded in AUXILIARIES:
        return _is_after_auxiliary(words, place)
    if folded == "that":
        return previous is not None and following in PREPOSITIONS - {"of"}
    if folded == "those":
        return following in AUXILIARIES
    return following in PREPOSITIONS | AUXILIARIES or (folded == "this" and following in ADVERBS)


def _is_after_auxiliary(words: Sequence[_Word], place: int) -> bool:
    """Return whether "this" or "that" stands alone after an auxiliary: "is that safe", but "is that router safe"."""
    following = words[place + 1]
    is_predicate = words[place - 1].folded in BE and _is_clause_end(words, place + 2)
    return (
        is_predicate
        or following.folded in VERBS_AFTER_THAT | JUDGEMENTS | HEDGES
        or (
            not following.is_telling and following.folded not in ("who", "that", "with", "of", "first", "one", "ones")
        )
    )


def _is_place(words: Sequence[_Word], place: int) -> bool:
    """Return whether "there" names a place, unlike in "is there", "there are", "how many are there"."""
    around = [word.folded for word in words[max(0, place - 1) : place + 2]]
    return not any(word in AUXILIARIES for word in around) and _is_end(words, place + 1)


def _stands_for_noun(words: Sequence[_Word], place: int) -> bool:
    """Return whether "one" stands for a noun: "the blue one", "is there one for Windows"."""
    if place == 0 or not (_is_clause_end(words, place + 1) or words[place + 1].folded in PREPOSITIONS | AUXILIARIES):
        return False
    if not _is_clause_end(words, place + 1) and words[place + 1].folded == "of":
        return False
    previous = words[place - 1]
    if previous.folded in ORDINALS | VERBS_BEFORE_ONE:
        return True
    return previous.is_telling and previous.folded != "loved" and place > 1 and words[place - 2].folded in ARTICLES


def _is_then_or_the_other(words: Sequence[_Word], place: int) -> bool:
    """Return whether a short turn asks for "since then" or "the other three"."""
    telling = [word for word in words if word.is_telling]
    is_led = place > 0 and words[place - 1].folded in (SINCE if words[place].folded == "then" else {"the"})
    return is_led and len(telling) <= 2 and not any(word.is_name for word in telling)


def _is_same(words: Sequence[_Word], place: int) -> bool:
    """Return whether "the same" has no "as": "does the same hold for Go?" """
    if _is_clause_end(words, place + 1):
        return True
    return words[place + 1].folded in VERBS_AFTER_THAT | {"for", "in", "on", "thing", "true"}
