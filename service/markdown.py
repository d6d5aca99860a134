"""Replies as Markdown, for the chat programs that show it: their words, and links to where these stand.

Nothing that comes from a document may act in such a program. It is escaped for CommonMark and for what programs add
to it: GitHub's tables, strikethrough and links, formulas between dollar signs, and the marks that Open WebUI reads.
Only what would be read as mark-up is escaped, since other programs print the text as it is.

No mark-up keeps every program from turning a web address that is written out into a link. Such a link leads to where
it says it does.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import accumulate
from urllib.parse import quote as percent_encode

import regex

from index.answers import Answer, Quote
from index.citations import Citation
from service.addresses import Link
from service.chat import Handoff, Kind, Reply, Suggestion

NAME_CHARS = 80  # of a title or a heading; what is longer is cut

_REFERENCE = re.compile(r"&(?=\#?[0-9A-Za-z_]+;)")  # to a character
# What begins something only together with what follows or comes before it, and how it is written instead. What comes
# before is looked at last: looking back from every character would take long.
_TELLING = (
    (r"\\(?=[\[\]()]|(?:ce|pu|begin)\{)", "&#92;"),  # a formula; with two backslashes it would still be one
    (r"\\(?=[!-/:-@\[-`{-~]|\n|$)", r"\\"),
    (r"<(?![\s0-9=-]|$)", "&lt;"),
    (_REFERENCE.pattern, "&amp;"),
    (r"\{(?=\{)", r"\{"),  # a placeholder, which Open WebUI fills in
    (r"\^(?<=\[\^)", r"\^"),  # a footnote
    (r"\](?<=\[[0-9][^\[\]]*\])", r"\]"),  # a number in brackets, which Open WebUI takes for a source of its own
    (r"\](?=[(:])", r"\]"),  # a link, an image or the definition of one
    (r"/(?=/[^\s/])", r"\/"),  # a web address
    (r"\.(?<=www\.)(?=\S)", r"\."),
    (r"@(?<=\S@)(?=\S)", r"\@"),
)
# What acts in pairs; between whitespace, and an underscore within a word, it does not act.
_PAIRED = r"(?<!\S)\*(?!\S)|(?<=[0-9A-Za-z])_+(?=[0-9A-Za-z])|(?P<paired>[`*_~$])"
_ACTING = regex.compile(
    "|".join([*(f"(?P<t{place}>{pattern})" for place, (pattern, _) in enumerate(_TELLING)), _PAIRED]),
    regex.IGNORECASE | regex.ASCII,
)
# Headings, quotes, lists, rules, underlined headings, rows below the head of a table, fences of colons.
_LINE_START = re.compile(
    r"^(?:(?P<number>[0-9]{1,9})(?=[.)](?:\s|$))"
    r"|(?=\#{1,6}(?:\s|$)|>|[-+*](?:\s|$)|=+$|[ \t:|]*-[ \t:|-]*$|(?:_[ \t]*){3,}$|:::))",
    re.MULTILINE,
)
_BLANK_LINES = re.compile(r"\n{2,}")
_BRACKET = re.compile(r"\\?\]|\[")
_SENTENCE_END = re.compile(r"(?<=[.!?…]\s)|(?<=[.!?…][\"')”’»]\s)|(?<=[。！？])(?=.)|(?<=\n)(?=[^\n])")

_ADDRESS = re.compile(r"(?P<scheme>https?://|mailto:|tel:)(?P<host>[^/?#]*)(?P<rest>.*)", re.IGNORECASE | re.DOTALL)
_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")

# What turns the direction of a text, and what ends that (Unicode Standard Annex 9).
_RUNS, _POP_RUN = "\u202a\u202b\u202d\u202e", "\u202c"
_ISOLATES, _POP_ISOLATE = "\u2066\u2067\u2068", "\u2069"
_DIRECTION_MARK = re.compile("[\u202a-\u202e\u2066-\u2069]")
_LEFT_TO_RIGHT = "\u200e"


@dataclass(frozen=True)
class Annotation:
    """A citation in a text.

    Attributes:
        start: first code point of its link in the text, mark-up included.
        end: one past the last.
        citation: that is linked.
        url: where to, absolute.
        title: of the document.
    """

    start: int
    end: int
    citation: Citation
    url: str
    title: str


@dataclass(frozen=True)
class MarkdownReply:
    """A reply as Markdown.

    Attributes:
        parts: pieces of about a sentence each; joined they are the text.
        annotations: where the text cites, in order.
    """

    parts: tuple[str, ...]
    annotations: tuple[Annotation, ...]

    @property
    def text(self) -> str:
        """The whole text."""
        return "".join(self.parts)


@dataclass(frozen=True)
class _Part:
    """A piece of a text.

    Attributes:
        cites: what it cites with a link at its end; its `start` and `end` count from the start of the piece.
    """

    text: str
    cites: Annotation | None = None


def in_markdown(reply: Reply, link: Link) -> MarkdownReply:
    """Write a reply as Markdown.

    An answer has its exact words, the link (1) to their place, and where the further passages stand. The set replies
    stand as they are configured, with whatever mark-up they have. Of a follow-up the last line says what it was
    searched as.

    Args:
        reply: to write.
        link: makes the addresses of citations absolute.
    """
    parts = tuple(_parts(reply, link))
    starts = accumulate((len(part.text) for part in parts), initial=0)
    return MarkdownReply(
        tuple(part.text for part in parts),
        tuple(
            replace(part.cites, start=start + part.cites.start, end=start + part.cites.end)
            for start, part in zip(starts, parts, strict=False)
            if part.cites is not None
        ),
    )


def escaped(text: str, *, beside: str = "") -> str:
    """Return the Markdown that shows a text: its words, as they are, and nothing else.

    Lines stay lines, without the spaces around them, and empty lines part paragraphs. Direction marks in the text do
    not turn what comes after it.

    Args:
        text: to be shown, in a paragraph of its own.
        beside: address of a link that comes after it in the paragraph.
    """
    lines = "\n".join(line.strip() for line in text.splitlines())
    inline = _inline(_BLANK_LINES.sub("\n\n", lines.strip("\n")), beside)
    return _LINE_START.sub(lambda match: f"{match['number'] or ''}\\", inline) + _closing(text)


def _parts(reply: Reply, link: Link) -> Iterator[_Part]:
    if reply.answer is not None and reply.answer.answer is not None:
        yield from _answer(reply.answer, reply.answer.answer, link)
    else:
        yield _Part(reply.content)
    if reply.suggestions:
        yield _Part("\n\nNearest:\n" if reply.kind is Kind.NOT_FOUND else "\n")
        yield from (_suggestion(each, link) for each in reply.suggestions)
    if reply.handoff is not None:
        yield _handoff(reply.handoff)
    if reply.turn.leans_on is not None and reply.turn.searched_as is not None:
        yield _Part(f"\n\nSearched as: {_line(reply.turn.searched_as)}")


def _answer(answer: Answer, quote: Quote, link: Link) -> Iterator[_Part]:
    for sentence in _SENTENCE_END.split(escaped(quote.text, beside=link(quote.citation.url))):
        yield _Part(sentence)
    # Not the number alone: Open WebUI would take that for a source of its own, and leave the address as text.
    yield _citing(" ", _linked("(1)", link(quote.citation.url)), quote.citation, link)
    yield _Part(f"\n\n1. {_linked_place(quote.citation, link)}")
    further = [passage.citation for passage in answer.passages[1:]]
    if further:
        yield _Part("\n\nSee also:\n")
    for number, citation in enumerate(further, start=2):
        yield _citing(f"\n{number}. ", _linked_place(citation, link), citation, link)


def _citing(before: str, linked: str, citation: Citation, link: Link) -> _Part:
    text, url = before + linked, _address(link(citation.url))
    if url is None:
        return _Part(text)
    return _Part(text, Annotation(len(before), len(text), citation, url, citation.document.title))


def _suggestion(suggestion: Suggestion, link: Link) -> _Part:
    if suggestion.url is None:
        return _Part(f"\n- {_line(suggestion.text)}")
    names = [suggestion.text] if suggestion.title is None else [suggestion.title, suggestion.text]
    return _Part(f"\n- {_linked(_path(names), link(suggestion.url))}")


def _handoff(handoff: Handoff) -> _Part:
    return _Part(f"\n\n{_linked(handoff.label, handoff.url)}")


def _linked_place(citation: Citation, link: Link) -> str:
    """Say where a quote stands, as a link: title, headings below it, page or lines."""
    first, last = citation.first_line, citation.last_line
    lines = f"line {first}" if first == last else f"lines {first}–{last}"
    where = lines if citation.page is None else f"page {citation.page}"
    return _linked(_path([citation.document.title, *citation.headings]), link(citation.url), after=f", {where}")


def _path(names: Iterable[str]) -> str:
    """Write headings, outermost first, as a path that has each of them once."""
    return " › ".join(dict.fromkeys(_short(name) for name in names))


def _short(name: str) -> str:
    line = " ".join(name.split())
    return line if len(line) <= NAME_CHARS else line[: NAME_CHARS - 1].rstrip() + "…"


def _line(text: str) -> str:
    """Escape a text that is to stand on one line."""
    return escaped(" ".join(text.split()))


def _linked(text: str, url: str, *, after: str = "") -> str:
    """Return a link to a URL, or only its text if the URL leads to where chats do not go.

    Args:
        text: of the label, to be escaped.
        url: absolute.
        after: what the label has after the text, as it is.
    """
    address = _address(url)
    if address is None:
        return _line(text) + after
    label = _label(text, beside=url) + after
    # A number alone would be a source of its own to Open WebUI, too.
    end = " " if label.isdigit() else ""
    return f"[{label}{end}]({_REFERENCE.sub('&amp;', address)})"


def _label(text: str, *, beside: str) -> str:
    """Return the Markdown that shows a text as the label of a link."""
    line = " ".join(text.split())
    # After its bracket, as it will stand; and even a single grave accent can hide the end of a label from a program.
    inline = _inline(f"[{line}", beside + "`").removeprefix("[")
    return _BRACKET.sub(lambda match: "&#91;" if match[0] == "[" else "&#93;", inline) + _closing(line)


def _inline(text: str, beside: str) -> str:
    """Escape what acts within a line. Of what acts in pairs a single one does not.

    Some programs pair tildes with those in the address of a link.
    """
    paired = Counter(match["paired"] for match in _ACTING.finditer(text))
    paired.update(character for character in beside if character in "~`")

    def instead(match: regex.Match[str]) -> str:
        if match["paired"]:
            return f"\\{match[0]}" if paired[match[0]] > 1 else match[0]
        return next((with_ for place, (_, with_) in enumerate(_TELLING) if match[f"t{place}"]), match[0])

    return _ACTING.sub(instead, text)


def _closing(text: str) -> str:
    """Return what ends the influence of a text's direction marks on what comes after it; nothing if it has none.

    It closes what the text leaves open. After a run from right to left even a bracketed number would go to the left
    of it: hence the mark at the end.
    """
    marks = _DIRECTION_MARK.findall(text)
    opened = [0]  # runs that are open within each isolate, of which the first is the text itself
    for mark in marks:
        if mark in _ISOLATES:
            opened.append(0)
        elif mark in _RUNS:
            opened[-1] += 1
        elif mark == _POP_ISOLATE and len(opened) > 1:
            opened.pop()
        elif mark == _POP_RUN and opened[-1]:
            opened[-1] -= 1
    closed = _POP_ISOLATE.join(_POP_RUN * runs for runs in reversed(opened))
    return closed + _LEFT_TO_RIGHT if marks else ""


def _address(url: str) -> str | None:
    """Return a URL with everything percent-encoded that could end a link.

    None if it leads to neither a page, nor an email address, nor a telephone.
    """
    found = _ADDRESS.fullmatch(url)
    if found is None:
        return None
    host = percent_encode(_PERCENT.sub("%25", found["host"]), safe="!&+,-.:;=@_~%[]")
    rest = percent_encode(_PERCENT.sub("%25", found["rest"]), safe="!&+,-./:;=?@_~%#")
    return found["scheme"] + host + rest
