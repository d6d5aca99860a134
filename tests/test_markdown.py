"""Replies as Markdown: the words of the documents, shown by programs and acted upon by none."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from index.answers import Answer, Question, answer_questions
from index.embeddings import Encoder
from index.generations import Generation
from service.addresses import below
from service.chat import Handoff, Kind, Reply, Suggestion, Turn
from service.markdown import Annotation, MarkdownReply, escaped, in_markdown
from service.small_talk import SmallTalk

ENDS = "\u202c\u2069\u200e "  # of directions, and the space in a link that has a number alone
MARKS = r"\`*_{}[]()<>#+-.!|~$&;:/@=^%\"' " + "\n\t"
HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "<script>alert(1)</script>",
    "<!-- hidden -->",
    "[x](javascript:alert(1))",
    "![](http://evil.example/pixel)",
    "[![a](b)](c)",
    "[x]: http://evil.example 'title'",
    "[^1]: note",
    "https://evil.example/path?x=1",
    "www.evil.example",
    "someone@evil.example",
    "mailto:someone@evil.example",
    "//evil.example",
    "<http://evil.example>",
    "```\ncode\n```",
    "~~~\ncode",
    "    indented",
    "# heading",
    "underlined\n===",
    "underlined\n---",
    "> quote",
    "- item",
    "12) item",
    "a | b\n--- | ---\n1 | 2",
    "|a|\n|-|\n|b|",
    "* * *",
    "_ _ _",
    "~~gone~~ and ~gone~",
    "**bold** _emphasis_ __bold__ *x*",
    "&amp; &#42; &copy;",
    "a\\\nb\\",
    r"\# \\ \[x\] \(y\) \*",
    "$x$ and $$y$$",
]


def readers() -> list[MarkdownIt]:
    """Return readers of Markdown: the standard with HTML, and GitHub's with links and HTML."""
    github = MarkdownIt("gfm-like", {"html": True})
    assert github.linkify is not None
    # Where any word with a dot may be a link, `main.rs` is one to Serbia; no mark-up for that.
    github.linkify.set({"fuzzy_link": False})
    return [MarkdownIt("commonmark", {"html": True}), github]


READERS = readers()


def shown(tokens: list[Token]) -> str:
    """Return the text of tokens; fails if they are anything but paragraphs of text."""
    paragraphs = []
    for token in tokens:
        assert token.type in ("paragraph_open", "inline", "paragraph_close"), token
        if token.type == "inline":
            assert {child.type for child in token.children or []} <= {"text", "softbreak"}, token.children
            paragraphs.append("".join(child.content or "\n" for child in token.children or []))
    return "\n\n".join(paragraphs)


def normalised(text: str) -> str:
    """Return a text with the whitespace that Markdown leaves of it."""
    lines = "\n".join(line.strip() for line in text.replace("\0", "\ufffd").splitlines())
    return re.sub(r"\n{2,}", "\n\n", lines).strip("\n")


TEXTS = st.lists(
    st.one_of(st.text(MARKS, max_size=12), st.sampled_from(HOSTILE), st.text(max_size=6)), max_size=6
).map("".join)
RED = "What does the red light mean?"
LINK = below("https://docs.example.com/whence")
LIGHTS = "https://docs.example.com/whence/documents/router.md?start=67&end=110"


@settings(max_examples=300, deadline=None)
@given(TEXTS)
@example("\n".join(HOSTILE))
@example("\n\n".join(HOSTILE))
def test_a_text_is_shown_as_it_is_and_nothing_in_it_acts(text: str) -> None:
    for reader in READERS:
        assert shown(reader.parse(escaped(text))).rstrip(ENDS) == normalised(text).rstrip(ENDS)


@settings(max_examples=300, deadline=None)
@given(TEXTS.filter(lambda text: bool(text.split())))
@example("[a](b) ` [2023")
@example(" ".join(HOSTILE))
def test_a_heading_is_shown_as_it_is_in_a_link(text: str) -> None:
    reply = Reply(Kind.HELP, "Help.", Turn(SmallTalk.HELP), suggestions=(Suggestion(text, None, "/documents/a"),))
    markdown = in_markdown(reply, LINK).text
    for reader in READERS:
        _, _, _, _, _, _, inline, *_ = reader.parse(markdown)
        link, *label, end = inline.children or []
        assert (link.type, end.type, {token.type for token in label}) == ("link_open", "link_close", {"text"})
        assert link.attrs == {"href": "https://docs.example.com/whence/documents/a"}
        wanted = " ".join(text.replace("\0", "\ufffd").split())
        wanted = wanted if len(wanted) <= 80 else wanted[:79].rstrip() + "…"
        assert "".join(token.content for token in label).rstrip(ENDS) == wanted.rstrip(ENDS)


@pytest.mark.parametrize(
    "text",
    [
        "Set max_connections and read_timeout_s to 3 * 4 = 12.",
        "It costs $5, or ~4 € + tax (5% off) - see page 7; that's it!",
        "AT&T asked: is a < b, or x <= y, or 5 > 3?",
        "Rated 5* and described in C:\\Users\\guide, main.rs and e.g. README.md #1.",
        "A footnote [a], a list [x, y], a mark ^ and a bar | between.",
        "1.5 litres; 2) is no list within a line, - nor is this; nor # this",
        "“Straße 7” 東京タワーの下にあります。",
    ],
)
def test_ordinary_prose_is_not_marked(text: str) -> None:
    assert escaped(text) == text


@pytest.mark.parametrize(
    ("text", "markdown"),
    [
        ("*a* and **b** _c_ `d`", r"\*a\* and \*\*b\*\* \_c\_ \`d\`"),
        ("from $5 to $10", r"from \$5 to \$10"),
        ("~4 to ~5", r"\~4 to \~5"),
        (r"\(x\) \[y\] \ce{H2O} \* \a", r"&#92;(x&#92;) &#92;[y&#92;] &#92;ce{H2O} \\* \a"),
        ("see [1] and [^2]", r"see [1\] and [\^2]"),
        ("[a](b) [c]: d", r"[a\](b) [c\]: d"),
        ("<b> <@U:1> &amp; {{USER}}", r"&lt;b> &lt;\@U:1> &amp;amp; \{{USER}}"),
        ("https://x.org www.x.org a@x.org", r"https:\//x.org www\.x.org a\@x.org"),
        ("# a\n1. b\n- c\n> d\n---\n:::e", "\\# a\n1\\. b\n\\- c\n\\> d\n\\---\n\\:::e"),
        ("  a  \r\n\t b\n \n\n\nc\n", "a\nb\n\nc"),
    ],
)
def test_what_would_act_is_marked(text: str, markdown: str) -> None:
    assert escaped(text) == markdown


def test_a_tilde_alone_is_marked_beside_an_address_that_has_one() -> None:
    assert escaped("~4", beside="https://x.org/#:~:text=a") == r"\~4"


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("plain", ""),
        ("עברית", ""),
        ("a\u202eb", "\u202c\u200e"),
        ("a\u202eb\u202c", "\u200e"),
        ("a\u202a\u2066\u202b\u202eb", "\u202c\u202c\u2069\u202c\u200e"),
        ("a\u2067\u202eb\u2069 \u202c\u2069", "\u200e"),
    ],
)
def test_direction_marks_do_not_turn_what_comes_after(text: str, end: str) -> None:
    assert escaped(text) == text + end


def test_long_texts_are_marked_in_no_time() -> None:
    for text in ("_", "[1", "]", "`", "\\", "a@", "\u202a", "- ", "/", "&a"):
        escaped(text * 20_000)


@pytest.fixture(scope="module")
def answer(handbook: Generation, encoder: Encoder) -> Answer:
    """An answer from the handbook."""
    (answer,) = answer_questions(handbook, encoder, [Question(RED, top_k=3)])
    return answer


def written(answer: Answer, **given: object) -> MarkdownReply:
    """Write the reply that has an answer."""
    assert answer.answer is not None
    reply = Reply(Kind.ANSWER, answer.answer.text, Turn(Question(RED)), answer)
    return in_markdown(replace(reply, **given), LINK)  # type: ignore[arg-type]


def citing(answer: Answer, **given: object) -> Answer:
    """Return an answer alone, with another citation."""
    assert answer.answer is not None
    citation = replace(answer.answer.citation, **given)  # type: ignore[arg-type]
    return replace(answer, answer=replace(answer.answer, citation=citation), passages=answer.passages[:1])


def test_an_answer_is_followed_by_whence_it_comes_and_what_else_there_is(answer: Answer) -> None:
    reply = written(answer)
    first, source, see_also, *further = reply.text.split("\n\n")
    assert first == f"The red light means that there is no power. [(1)]({LIGHTS})"
    assert source == f"1. [Router › Lights, line 10]({LIGHTS})"
    assert see_also == "See also:"
    assert further == [
        "\n".join(
            f"{passage.rank}. [Router › {passage.citation.headings[-1]}, line {passage.citation.first_line}]"
            f"({LINK(passage.citation.url)})"
            for passage in answer.passages[1:]
        )
    ]


def test_annotations_say_where_the_text_cites_what(answer: Answer) -> None:
    reply = written(answer)
    assert answer.answer is not None
    cited = [answer.answer.citation, *(passage.citation for passage in answer.passages[1:])]
    assert [annotation.citation for annotation in reply.annotations] == cited
    assert reply.annotations[0] == Annotation(44, 44 + len(f"[(1)]({LIGHTS})"), cited[0], LIGHTS, "Router")
    for annotation in reply.annotations:
        linked = reply.text[annotation.start : annotation.end]
        assert linked.startswith("[") and linked.endswith(f"]({annotation.url})")


def test_the_parts_are_sentences_and_links(answer: Answer) -> None:
    quote = answer.answer
    assert quote is not None
    two = replace(answer, answer=replace(quote, text='Is it red? "Yes." It is.\nはい。そうです。'), passages=())
    sentences = ["Is it red? ", '"Yes." ', "It is.\n", "はい。", "そうです。"]
    assert written(two).parts[:-2] == tuple(sentences)
    assert written(two).parts[-2:] == (f" [(1)]({LIGHTS})", f"\n\n1. [Router › Lights, line 10]({LIGHTS})")


def test_places_are_pages_lines_and_headings_that_are_not_said_twice(answer: Answer) -> None:
    assert answer.answer is not None
    document = replace(answer.answer.citation.document, title="A [draft]" + "x" * 100)
    cited = citing(answer, document=document, headings=("B", "*b*", "B"), page=7)
    assert f"1. [A &#91;draft&#93;{'x' * 70}… › B › \\*b\\*, page 7](" in written(cited).text
    assert "Lights, lines 10–12](" in written(citing(answer, last_line=12)).text


@pytest.mark.parametrize(
    ("url", "linked"),
    [
        (
            "https://a.org/x y(1)[2]?q='\"<>`\\^{|}*$#ä",
            "https://a.org/x%20y%281%29%5B2%5D?q=%27%22%3C%3E%60%5C%5E%7B%7C%7D%2A%24#%C3%A4",
        ),
        ("https://a.org/100%?a=%20&copy;=1", "https://a.org/100%25?a=%20&amp;copy;=1"),
        ("http://[::1]:8000/a", "http://[::1]:8000/a"),
        ("http://a)b\n/c", "http://a%29b%0A/c"),
        ("HTTPS://a.org/#:~:text=a%20b,c%2Dd", "HTTPS://a.org/#:~:text=a%20b,c%2Dd"),
    ],
)
def test_addresses_cannot_end_a_link(answer: Answer, url: str, linked: str) -> None:
    reply = written(citing(answer, url=url))
    assert f"[(1)]({linked})" in reply.text
    assert reply.annotations[0].url == linked.replace("&amp;", "&")
    for reader in READERS:
        tokens = reader.parseInline(reply.text.partition("\n")[0])[0].children or []
        assert [token.type for token in tokens] == ["text", "link_open", "text", "link_close"]


@pytest.mark.parametrize("url", ["javascript:alert(1)", "data:text/html,x", "file:///etc/passwd", "vbscript:x", "x"])
def test_other_addresses_are_no_links(answer: Answer, url: str) -> None:
    assert answer.answer is not None
    document = replace(answer.answer.citation.document, title="# Router")
    reply = written(citing(answer, url=url, document=document))
    assert (reply.text.count("]("), reply.annotations) == (0, ())
    assert reply.text.endswith("\n\n1. \\# Router › Router › Lights, line 10")


def test_what_is_not_found_begins_as_configured(answer: Answer) -> None:
    nothing = replace(answer, answered=False, answer=None)
    nearest = (Suggestion("Lights", "Router", "/documents/a?start=1"), Suggestion("Tips", "Tips", "https://x.org/#a"))
    reply = in_markdown(
        Reply(
            Kind.NOT_FOUND,
            "Nothing *found*.",
            Turn(Question("And *it*?\nNow"), leans_on=0),
            nothing,
            nearest,
            Handoff("Ask [us]", "tel:+4930"),
        ),
        LINK,
    )
    assert reply.text == (
        "Nothing *found*.\n\nNearest:\n\n- [Router › Lights](https://docs.example.com/whence/documents/a?start=1)\n"
        "- [Tips](https://x.org/#a)\n\n[Ask &#91;us&#93;](tel:+4930)\n\nSearched as: And \\*it\\*? Now"
    )
    assert reply.annotations == ()


def test_small_talk_has_its_questions_and_its_hand_off() -> None:
    openings = (Suggestion("What does *it* cost?"), Suggestion("# Lights"))
    greeting = Reply(Kind.GREETING, "Hello!", Turn(SmallTalk.GREETING), suggestions=openings)
    assert in_markdown(greeting, LINK).text == "Hello!\n\n- What does \\*it\\* cost?\n- \\# Lights"
    handoff = Handoff("Ask a person", "mailto:help@example.org")
    help_ = Reply(Kind.HELP, "Ask.", Turn(SmallTalk.HELP), handoff=handoff)
    assert in_markdown(help_, LINK).text == "Ask.\n\n[Ask a person](mailto:help@example.org)"
    assert in_markdown(Reply(Kind.THANKS, "You are welcome.", Turn(SmallTalk.THANKS)), LINK).parts == (
        "You are welcome.",
    )
