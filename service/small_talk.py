"""Messages that ask nothing: greetings, thanks, calls for help; and courtesies around a question.

The commonest of several languages are known. A message is small talk only if there is nothing else in it.
"""

from __future__ import annotations

import re
from enum import Enum

from index.followups import AUXILIARIES, QUESTION_WORDS
from index.terms import every_term

_GREETINGS = (
    "hi|hello|hey|hiya|howdy|greetings|good (?:morning|afternoon|evening|day)|hallo|guten (?:morgen|tag|abend)|moin|"
    "servus|bonjour|bonsoir|salut|hola|buen[oa]s (?:d[ií]as|tardes|noches)|ciao|buongiorno|olá|hej|hei|namaste|"
    "你好|您好|こんにちは|안녕하세요"
)
_THANKS = (
    "(?:no,? )?thank(?:s| you)(?: (?:for|that|this|the|your|answer|help|info|information|so|very|much|a|lot|again))*|"
    "thx|cheers|bye(?:[ -]bye)?|goodbye|see you(?: later)?|okay|ok|great|cool|perfect|nice|super|awesome|excellent|"
    "got it|i see|understood|(?:vielen )?dank(?:e(?: schön)?)?|tschüss|merci(?: beaucoup)?|au revoir|"
    "(?:muchas )?gracias|adiós|grazie|obrigad[oa]|tack|takk|dank je|谢谢|ありがとう(?:ございます)?|감사합니다|"
    "\N{THUMBS UP SIGN}|\N{PERSON WITH FOLDED HANDS}|\N{SMILING FACE WITH SMILING EYES}|\N{OK HAND SIGN}"
)
_HELP = (
    "/?help(?: me)?|/start|(?:can you |please |i need )help(?: me)?|what can you do(?: for me)?|who are you|"
    "what are you|how can you help(?: me)?|what can i ask(?: you)?|yes|no|hilfe|aide|ayuda"
)
_COURTESY = rf"(?:{_GREETINGS}|{_THANKS})(?:,? (?:there|all|everyone))?"
_BEGINNINGS = "|".join(sorted(QUESTION_WORDS | AUXILIARIES))

_GREETING = re.compile(rf"\W*(?:{_GREETINGS})(?!\w)", re.IGNORECASE)
_ONE_COURTESY = re.compile(rf"\W*(?:{_COURTESY})(?!\w)\W*", re.IGNORECASE)
_CALL_FOR_HELP = re.compile(rf"\W*(?:{_HELP})\W*", re.IGNORECASE)
# Before a question a courtesy stands apart, or a word follows with which questions begin: not so in "hello world".
_BEFORE = re.compile(rf"\s*(?:{_COURTESY})(?:\s*[,.!;\n\u2013\u2014]+\s*|\s+(?=(?:{_BEGINNINGS})\b))", re.IGNORECASE)
_AFTER = re.compile(rf"(?<=[.?!])\s*(?:{_THANKS})[\s.!]*$", re.IGNORECASE)

MAX_CHARS = 80  # of small talk


class SmallTalk(Enum):
    """What a message is that asks nothing."""

    GREETING = "greeting"
    THANKS = "thanks"
    HELP = "help"


def small_talk_in(text: str) -> SmallTalk | None:
    """Tell what a message is that asks nothing; None: it asks something, or is empty.

    What has no word in it counts as a call for help, unless it is a raised thumb or the like.
    """
    if not text.strip() or len(text) > MAX_CHARS:
        return None
    if _has_only_courtesies(text):
        return SmallTalk.GREETING if _GREETING.match(text) else SmallTalk.THANKS
    is_call = _CALL_FOR_HELP.fullmatch(without_courtesies(text)) or not every_term(text)
    return SmallTalk.HELP if is_call else None


def without_courtesies(text: str) -> str:
    """Return a message without a greeting or thanks around what it asks."""
    asked = text
    while courtesy := _BEFORE.match(asked):
        asked = asked[courtesy.end() :]
    return _AFTER.sub("", asked) or text


def _has_only_courtesies(text: str) -> bool:
    place = 0
    while place < len(text):
        courtesy = _ONE_COURTESY.match(text, place)
        if courtesy is None:
            return False
        place = courtesy.end()
    return True
