"""Readers of text formats: which blocks they find, and that no word is lost."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from index.documents import Content
from index.errors import DocumentError
from index.readers.asciidoc import read_asciidoc
from index.readers.formats import check_content
from index.readers.front_matter import front_matter
from index.readers.latex import read_latex
from index.readers.limits import Limits
from index.readers.mail import read_mail
from index.readers.markdown import read_markdown
from index.readers.notebook import read_notebook
from index.readers.rst import read_rst
from index.readers.structured import read_json, read_jsonl
from index.readers.subtitles import read_srt, read_vtt
from index.readers.tables import read_csv
from index.readers.text import clean, decode, read_code, read_text
from index.readers.xml import read_xml

LIMITS = Limits()


def read_with(reader: Callable[[bytes, Limits], Content], source: str) -> Content:
    content = reader(source.encode(), LIMITS)
    check_content(content)
    return content


def outline(content: Content) -> list[tuple[str, str]]:
    """List the blocks as kind (with the level of a heading) and exact text."""
    return [
        (f"{block.kind.value}{block.level or ''}", content.text[block.start : block.end]) for block in content.blocks
    ]


def parts(content: Content, number: int = 0) -> list[str]:
    return [content.text[start:end] for start, end in content.blocks[number].parts]


def words_outside_blocks(content: Content) -> list[str]:
    """List the words `w1`, `w2`, ... of generated documents that are in no block."""
    covered = "\0".join(content.text[block.start : block.end] for block in content.blocks)
    inside = set(re.findall(r"w\d+", covered))
    return [word for word in re.findall(r"w\d+", content.text) if word not in inside]


# Decoding


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32", "utf-16-be", "utf-32-le"])
def test_a_byte_order_mark_is_honoured_and_dropped(encoding: str) -> None:
    text = "Größe 猫\nnext"
    data = text.encode(encoding)
    if encoding.endswith(("be", "le")):
        data = "\ufeff".encode(encoding) + data
    assert decode(data) == text


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("latin-1", "Kaufmann ist, wer ein Handelsgewerbe betreibt, daß das Geschäft für Übung größer sei."),
        ("latin-1", "Müller"),
        ("cp1252", "He said “this is fine” – and it’s £5."),
        ("cp1250", "Zażółć gęślą jaźń. Wszystkie dzieci mają prawo żyć w pokoju oraz wolności."),
        ("cp1251", "Привет, мир. Это простой текст на русском языке, который нужно прочитать."),
        ("cp1251", "Use pip install whence. Команда установит пакет. Then run whence serve and open the page."),
        ("koi8-r", "Привет, мир. Это простой текст на русском языке, который нужно прочитать."),
        ("shift_jis", "これは日本語のテキストです。東京は日本の首都です。猫が好きです。"),
        ("gb18030", "北京是中华人民共和国的首都。这是一个简单的文本文件，用来测试编码。"),
    ],
)
def test_an_undeclared_encoding_is_recognised(encoding: str, text: str) -> None:
    assert decode(text.encode(encoding)) == text


def test_a_damaged_byte_does_not_change_the_encoding_of_the_rest() -> None:
    assert decode("Größe äöü".encode() + b"\xff") == "Größe äöü\N{REPLACEMENT CHARACTER}"


def test_every_line_ends_with_a_line_feed_alone() -> None:
    assert decode(b"a\r\nb\rc\n") == "a\nb\nc\n"


@pytest.mark.parametrize("data", [b"text\0more", bytes(range(1, 32)) * 20, b"\x01\x02\x03\x04abc"])
def test_binary_data_is_not_text(data: bytes) -> None:
    with pytest.raises(DocumentError, match="looks binary"):
        decode(data)


def test_cleaning_drops_controls_and_replaces_half_surrogates() -> None:
    assert clean("a\x00b\x1b[31mred\x1b[0m\ud800 c\r\nd\te") == "abred\N{REPLACEMENT CHARACTER} c\nd\te"


def test_a_text_longer_than_the_limit_is_refused() -> None:
    with pytest.raises(DocumentError, match="longer than 10 characters"):
        read_text(b"a" * 11, Limits(text_chars=10))


# Front matter


def test_front_matter_keeps_scalars_and_flat_lists() -> None:
    text = (
        "---\ntitle: T\ndate: 2024-01-02\nn: 3\nok: true\ntags: [a, 1]\nns: [1, 2]\nnested: {a: 1}\nnone:\n---\nBody"
    )
    metadata, start = front_matter(text)
    assert metadata == {
        "title": "T",
        "date": "2024-01-02",
        "n": 3,
        "ok": True,
        "tags": ["a", "1"],
        "ns": [1, 2],
    }
    assert text[start:] == "Body"


@pytest.mark.parametrize(
    "text",
    [
        "---\n: [broken\n---\n",
        "---\njust words\n---\n",
        "---\ndate: 2024-99-99\n---\n",
        "---\nunclosed: 1\n",
        "--- \n" + "[" * 5000 + "\n---\n",
        " ---\na: 1\n---\n",
    ],
)
def test_what_is_no_front_matter_is_text(text: str) -> None:
    assert front_matter(text) == ({}, 0)


def test_front_matter_never_carries_what_json_or_utf8_cannot() -> None:
    metadata, _ = front_matter('---\nnan: .nan\nhalf: "\\ud800"\nbig: 99999999999999999999\n---\n')
    assert metadata == {"nan": "nan", "half": "?", "big": "99999999999999999999"}


# Plain text


def test_plain_text_gets_structure_from_its_shape() -> None:
    source = """Rust in 2026

A decade ago Rust was an experiment.

INSTALLATION

Run the thing:
- first
  wrapped
- second

2.1 Second part

This is wrapped text that
goes on and
ends here.

Usage
-----
1. one
2. two

Where do I get help?

Ask the desk.

> quoted
> more
"""
    content = read_with(read_text, source)
    assert content.title == "Rust in 2026"
    assert outline(content) == [
        ("heading1", "Rust in 2026"),
        ("paragraph", "A decade ago Rust was an experiment."),
        ("heading2", "INSTALLATION"),
        ("paragraph", "Run the thing:"),
        ("list", "- first\n  wrapped\n- second"),
        ("heading3", "2.1 Second part"),
        ("paragraph", "This is wrapped text that\ngoes on and\nends here."),
        ("heading2", "Usage"),
        ("list", "1. one\n2. two"),
        ("heading2", "Where do I get help?"),
        ("paragraph", "Ask the desk."),
        ("quote", "> quoted\n> more"),
    ]
    assert parts(content, 4) == ["- first\n  wrapped", "- second"]


def test_a_title_line_directly_above_unwrapped_text_is_a_heading() -> None:
    long = "Memory safety without a garbage collector was the pitch, and it has held up over many years. " * 2
    content = read_with(read_text, f"Why it won\n{long}\nIt was good.\n{long}")
    assert outline(content) == [
        ("heading1", "Why it won"),
        ("paragraph", long.strip()),
        ("paragraph", "It was good."),
        ("paragraph", long.strip()),
    ]


@pytest.mark.parametrize(
    "source",
    [
        "This is a paragraph that was\nwrapped by hand.",
        "Apples\n\nPears\n\nPlums",
        "Dear Ann,\n\nThank you for the letter.",
        "see https://example.org/a\n\nIt is all there.",
        "A title at the end of the text",
    ],
)
def test_in_doubt_a_line_is_a_paragraph(source: str) -> None:
    assert {kind for kind, _ in outline(read_with(read_text, source))} == {"paragraph"}


def test_text_without_a_visible_character_has_no_blocks() -> None:
    assert read_with(read_text, " \n\t\n\N{NO-BREAK SPACE}\n").blocks == ()


def test_source_code_is_split_at_empty_lines_before_unindented_ones() -> None:
    content = read_with(read_code, "import x\n\n\ndef f():\n    a\n\n    b\n\nc = 1\n")
    assert outline(content) == [("code", "import x"), ("code", "def f():\n    a\n\n    b"), ("code", "c = 1")]


# Markdown


MARKDOWN = """---
title: "Front: title"
---
# Hello `code` *world* [link](x) { #hello }

Setext **title**
===

One
two [^1].

[ref]: http://x.y "T"
[^1]: word

> quote
> # in quote

* item
  para

  ```py
  code
  ```
* second

| a | b |
|---|---|
| 1 | 2 |

```python
x = 1

y
```

    indented
    code

<!-- comment -->

<br>

<p>Seen</p>

## Closed ##
***
"""


def test_markdown_blocks_are_the_exact_words_of_the_file() -> None:
    content = read_with(read_markdown, MARKDOWN)
    assert content.text == MARKDOWN
    assert content.title == "Front: title"
    assert outline(content) == [
        ("heading1", "Hello `code` *world* [link](x)"),
        ("heading1", "Setext **title**"),
        ("paragraph", "One\ntwo [^1]."),
        ("paragraph", "[^1]: word"),
        ("quote", "> quote\n> # in quote"),
        ("list", "* item\n  para\n\n  ```py\n  code\n  ```\n* second"),
        ("table", "| a | b |\n|---|---|\n| 1 | 2 |"),
        ("code", "x = 1\n\ny"),
        ("code", "indented\n    code"),
        ("paragraph", "<p>Seen</p>"),
        ("heading2", "Closed"),
    ]
    assert [block.title for block in content.blocks[:2]] == ["Hello code world link", "Setext title"]
    assert parts(content, 5) == ["* item\n  para\n\n  ```py\n  code\n  ```", "* second"]
    assert parts(content, 6) == ["| a | b |", "| 1 | 2 |"]
    assert content.blocks[6].header_rows == 1


@pytest.mark.parametrize("source", ["##\n", "### ###\n", "```py\n```\n", "[a]: b\n", "---\n", "<!-- only -->\n"])
def test_markup_without_words_is_no_block(source: str) -> None:
    assert read_with(read_markdown, source).blocks == ()


def test_a_fence_that_is_never_closed_reaches_to_the_end() -> None:
    assert outline(read_with(read_markdown, "~~~\nopen\n\n  text")) == [("code", "open\n\n  text")]


@pytest.mark.parametrize("deep", [">" * 5000 + " w1", "- " * 3000 + "w1", "[" * 5000 + "w1"])
def test_deeply_nested_markdown_is_read_whole(deep: str) -> None:
    assert words_outside_blocks(read_with(read_markdown, deep)) == []


# reStructuredText


def test_rst_sections_take_their_levels_in_order_of_appearance() -> None:
    content = read_with(read_rst, "=====\nTitle\n=====\n\nSub ``code`` `x <y>`_\n~~~~~\n\nDeep\n####\n\nBack\n~~~~\n")
    assert [(block.level, block.title) for block in content.blocks] == [
        (1, "Title"),
        (2, "Sub code x"),
        (3, "Deep"),
        (2, "Back"),
    ]


def test_rst_text_of_directives_is_kept_and_comments_are_not() -> None:
    source = """.. _target:

.. A comment
   with more

.. note:: Mind
   this.

   * item

.. tab:: name.yaml

    .. code-block:: yaml
       :linenos:

       a: 1

.. image:: x.png
   :alt: A duck

.. toctree::

   other

Like this::

    x = 1

Term
    Its meaning.

.. [1] A footnote.
"""
    assert outline(read_with(read_rst, source)) == [
        ("paragraph", "Mind\n   this."),
        ("list", "* item"),
        ("paragraph", "name.yaml"),
        ("code", "a: 1"),
        ("caption", "A duck"),
        ("paragraph", "Like this:"),
        ("code", "x = 1"),
        ("paragraph", "Term\n    Its meaning."),
        ("paragraph", "[1] A footnote."),
    ]


def test_rst_tables_have_rows_and_headers() -> None:
    source = """+---+---+
| a | b |
+===+===+
| c | d |
| e |   |
+---+---+

===  ===
A    B
===  ===
1    2
     3
4    5
===  ===

.. csv-table:: Cap
   :header: "x", "y"

   1, 2

.. list-table::
   :header-rows: 1

   * - A
     - B
   * - 1
     - 2
"""
    content = read_with(read_rst, source)
    assert [kind for kind, _ in outline(content)] == ["table", "table", "caption", "table", "table"]
    assert parts(content, 0) == ["| a | b |", "| c | d |\n| e |   |"]
    assert parts(content, 1) == ["A    B", "1    2\n     3", "4    5"]
    assert parts(content, 3) == ['"x", "y"', "1, 2"]
    assert parts(content, 4) == ["* - A\n     - B", "* - 1\n     - 2"]
    assert [block.header_rows for block in content.blocks] == [1, 1, 0, 1, 1]


def test_rst_lists_are_told_from_sentences() -> None:
    content = read_with(read_rst, "A. Einstein was a\nman.\n\n1. one\n2. two\n\n   more\n\n:Author: Me\n:orphan:\n")
    assert outline(content) == [
        ("paragraph", "A. Einstein was a\nman."),
        ("list", "1. one\n2. two\n\n   more"),
        ("list", ":Author: Me"),
    ]
    assert parts(content, 1) == ["1. one", "2. two\n\n   more"]


def test_rst_directives_nested_too_deeply_are_refused() -> None:
    source = "\n\n".join(" " * level + ".. note::" for level in range(300)) + "\n\n" + " " * 301 + "text"
    with pytest.raises(DocumentError, match="nested deeper than 200"):
        read_rst(source.encode(), LIMITS)


# AsciiDoc


def test_asciidoc_blocks() -> None:
    source = """= Document *Title*
:toc:

Preamble.

// comment
== Section

[source,ruby]
----
puts 1

puts 2
----

.A title
|===
|A |B

|1 |2
|3
|4
|===

* one
** nested
* two
+
----
attached

code
----

NOTE: Careful.

[quote, Albert Einstein]
____
Quoted.
____

====
Inside.
====

////
secret
////

image::x.png[An alt, 200]

Old Title
---------

 literal
"""
    content = read_with(read_asciidoc, source)
    assert content.title == "Document Title"
    assert outline(content) == [
        ("heading1", "Document *Title*"),
        ("paragraph", "Preamble."),
        ("heading2", "Section"),
        ("code", "puts 1\n\nputs 2"),
        ("caption", "A title"),
        ("table", "|A |B\n\n|1 |2\n|3\n|4"),
        ("list", "* one\n** nested\n* two\n+\n----\nattached\n\ncode\n----"),
        ("paragraph", "NOTE: Careful."),
        ("caption", "Albert Einstein"),
        ("quote", "Quoted."),
        ("paragraph", "Inside."),
        ("caption", "An alt"),
        ("heading2", "Old Title"),
        ("code", "literal"),
    ]
    assert parts(content, 5) == ["|A |B", "|1 |2", "|3\n|4"]
    assert content.blocks[5].header_rows == 1
    assert parts(content, 6) == ["* one\n** nested", "* two\n+\n----\nattached\n\ncode\n----"]


# LaTeX


def test_latex_blocks() -> None:
    source = r"""\documentclass{article}
% preamble
\title{The \emph{Great} M\"uller \& Co}
\author{Jane Roe}
\begin{document}
\maketitle
\begin{abstract}
We show things. % trailing
\end{abstract}
\section{Introduction}\label{sec:i}
Text with 5\% and \cite{x}.
% a whole line
More
\begin{equation} a = b \end{equation}
after.

\begin{itemize}
\item one \begin{enumerate} \item nested \end{enumerate}
\item two
\end{itemize}
\begin{lstlisting}[language=Python]
print("%d" % 3)

x = 1
\end{lstlisting}
\begin{table}[ht]
\centering
\caption{Areas}
\begin{tabular}{|l|r|}
\hline
Country & Area \\ \hline
Denmark & 42,951 \\
\end{tabular}
\end{table}
\begin{quote}Quoted.\end{quote}
\end{document}
ignored
"""
    content = read_with(read_latex, source)
    assert content.title == "The Great Müller & Co"
    assert content.metadata == {"author": "Jane Roe"}
    assert outline(content) == [
        ("heading1", r"The \emph{Great} M\"uller \& Co"),
        ("heading2", "abstract"),
        ("paragraph", "We show things."),
        ("heading2", "Introduction"),
        ("paragraph", r"Text with 5\% and \cite{x}."),
        ("paragraph", "More\n\\begin{equation} a = b \\end{equation}\nafter."),
        ("list", "\\item one \\begin{enumerate} \\item nested \\end{enumerate}\n\\item two"),
        ("code", 'print("%d" % 3)\n\nx = 1'),
        ("caption", "Areas"),
        ("table", "Country & Area \\\\ \\hline\nDenmark & 42,951"),
        ("quote", "Quoted."),
    ]
    assert len(parts(content, 6)) == 2
    assert parts(content, 9) == ["Country & Area", "Denmark & 42,951"]


def test_latex_without_preamble_is_all_body() -> None:
    assert outline(read_with(read_latex, "\\chapter{One}\nText.\n")) == [("heading1", "One"), ("paragraph", "Text.")]


# Separated values


def test_rows_may_span_lines_inside_quotation_marks() -> None:
    content = read_with(read_csv, 'name;text\n"a\nb; ""c""";2\n\n;;\nd;4\n')
    assert [block.kind.value for block in content.blocks] == ["table"]
    assert parts(content) == ["name;text", '"a\nb; ""c""";2', "d;4"]
    assert content.blocks[0].header_rows == 1


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_found(delimiter: str) -> None:
    rows = [["id", "price"], ["7", '"a\nb"'], ["8", "4"]]
    source = "\n".join(delimiter.join(row) for row in rows)
    assert len(parts(read_with(read_csv, source))) == 3


@pytest.mark.parametrize(
    ("source", "header_rows"),
    [
        ("a,b\n1,2", 1),
        ("1,2\n3,4", 0),
        ("Country,2019,2020\nDK,1,2", 1),
        ("a,b", 0),
        ("x,1.5\ny,2", 0),
        ("a,b\nc,d", 1),
    ],
)
def test_the_first_row_names_columns_unless_it_continues_them(source: str, header_rows: int) -> None:
    assert read_with(read_csv, source).blocks[0].header_rows == header_rows


def test_an_endless_field_is_refused_with_its_line() -> None:
    with pytest.raises(DocumentError, match=r"begins on line 2 .* check its quotation marks"):
        read_csv(b'a,b\n"' + b"x,\n" * 60_000, LIMITS)


# JSON


def test_json_becomes_lines_a_person_can_read() -> None:
    source = """{"title": "Ducks", "n": 1.10, "big": 123456789012345678901, "x": NaN, "none": null, "ok": true,
      "tags": ["a", "b"], "nest": {"a": {"b": 1}}, "text": "One.\\nline\\n\\nTwo \\ud800",
      "items": [{"name": "First", "v": 1}, {"v": 2}], "notes": "a\\nb"}"""
    content = read_with(read_json, source)
    assert content.is_converted
    assert content.title == "Ducks"
    assert outline(content) == [
        ("heading1", "Ducks"),
        ("list", "n: 1.10\nbig: 123456789012345678901\nx: NaN\nok: true\ntags: a, b\nnest.a.b: 1"),
        ("paragraph", "One.\nline"),
        ("paragraph", "Two \N{REPLACEMENT CHARACTER}"),
        ("heading3", "First"),
        ("list", "items.v: 1"),
        ("list", "items.v: 2"),
        ("paragraph", "notes: a\nb"),
    ]


def test_records_of_json_lines_do_not_give_the_title() -> None:
    content = read_with(read_jsonl, '{"title": "A", "text": "x"}\n\n{"title": "B", "text": "y"}\n')
    assert content.title is None
    assert outline(content) == [
        ("heading1", "A"),
        ("list", "text: x"),
        ("heading1", "B"),
        ("list", "text: y"),
    ]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ('{"a":\n 1,}', "line 2, column"),
        ("{}\n{}", "name it .jsonl"),
        ("[" * 100_000, "nested too deeply"),
        ("[" * 300 + "]" * 300, "nested deeper than 200"),
    ],
)
def test_malformed_json_is_refused_with_its_place(source: str, message: str) -> None:
    with pytest.raises(DocumentError, match=re.escape(message)):
        read_json(source.encode(), LIMITS)


def test_a_bad_line_of_json_lines_is_named() -> None:
    with pytest.raises(DocumentError, match="line 3 is not valid JSON"):
        read_jsonl(b'{"a": 1}\n\n{"a": \n', LIMITS)


# Notebooks


def test_a_notebook_is_its_markdown_its_code_and_its_text_output() -> None:
    cells = [
        {"cell_type": "markdown", "source": ["# A **title**\n", "\n", "- one\n", "- two"]},
        {
            "cell_type": "code",
            "source": "print(1)",
            "outputs": [
                {"output_type": "stream", "text": ["1\n"]},
                {"output_type": "execute_result", "data": {"text/plain": "2", "image/png": "AAAA"}},
                {"output_type": "display_data", "data": {"text/plain": "<Figure size 1x1>"}},
                {"output_type": "error", "ename": "E", "evalue": "\x1b[31mbad\x1b[0m"},
            ],
        },
    ]
    notebook = {"nbformat": 4, "cells": cells, "metadata": {"language_info": {"name": "python"}}}
    content = read_with(read_notebook, json.dumps(notebook))
    assert content.title == "A title"
    assert content.metadata == {"language": "python"}
    assert outline(content) == [
        ("heading1", "A title"),
        ("list", "- one\n- two"),
        ("code", "print(1)"),
        ("code", "1"),
        ("code", "2"),
        ("code", "E: bad"),
    ]


def test_a_notebook_of_format_3_is_read() -> None:
    cells = [{"cell_type": "heading", "level": 2, "source": "T"}, {"cell_type": "code", "input": "x", "outputs": []}]
    content = read_with(read_notebook, json.dumps({"nbformat": 3, "worksheets": [{"cells": cells}]}))
    assert outline(content) == [("heading2", "T"), ("code", "x")]


@pytest.mark.parametrize("source", ["[]", "{}", '{"cells": 1}', '{"worksheets": [1]}', '{"cells": [1]}', '{"cells"'])
def test_a_malformed_notebook_is_refused(source: str) -> None:
    with pytest.raises(DocumentError):
        read_notebook(source.encode(), LIMITS)


# Subtitles


def test_subtitles_are_joined_until_the_speaker_changes_or_pauses() -> None:
    source = """WEBVTT

NOTE not said

00:00:01.000 --> 00:00:02.000
<v Roger>Hello &amp; <i>welcome</i>

00:00:02.000 --> 00:00:03.500 align:start
to the show.

00:00:04.000 --> 00:00:05.000
<v Ann>Thanks.

00:00:10.000 --> 00:00:11.000
After a pause
"""
    content = read_with(read_vtt, source)
    assert content.metadata == {"duration": 11.0}
    assert outline(content) == [
        ("paragraph", "Roger: Hello & welcome to the show."),
        ("paragraph", "Ann: Thanks."),
        ("paragraph", "After a pause"),
    ]


def test_lines_that_rolling_subtitles_repeat_are_read_once() -> None:
    source = "1\n00:00:01,000 --> 00:00:02,000\n{\\an8}one\n\n2\n00:00:02,000 --> 00:00:03,000\none\ntwo\n"
    assert outline(read_with(read_srt, source)) == [("paragraph", "one two")]


def test_long_subtitles_are_split_after_a_sentence() -> None:
    cues = [
        f"{n}\n00:00:{n:02},000 --> 00:00:{n + 1:02},000\n{'word ' * 15}end{'.' * (n % 2)}\n" for n in range(1, 20)
    ]
    paragraphs = outline(read_with(read_srt, "\n".join(cues)))
    assert len(paragraphs) == 3
    assert all(text.endswith("end.") for _, text in paragraphs)


@pytest.mark.parametrize("reader", [read_vtt, read_srt])
def test_what_are_no_subtitles_is_refused(reader: Callable[[bytes, Limits], Content]) -> None:
    with pytest.raises(DocumentError, match="malformed"):
        reader(b"just words\nand more\nof them", LIMITS)


# Mail


MAIL = b"""From: =?utf-8?q?J=C3=BCrgen?= <j@example.org>
To: a@example.org
Date: Tue, 02 Jan 2024 10:00:00 +0100
Subject: =?iso-8859-1?q?Gr=FC=DFe?= aus
 Berlin
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary=B

--B
Content-Type: multipart/alternative; boundary=C

--C
Content-Type: text/plain; charset=iso-8859-1
Content-Transfer-Encoding: quoted-printable

Sch=F6ne Gr=FC=DFe.

On Monday Bob wrote:
> Hello
> world

--C
Content-Type: text/html

<p>html</p>
--C--
--B
Content-Type: application/pdf
Content-Disposition: attachment; filename="a.pdf"

AAAA
--B--
"""


def test_a_mail_is_its_subject_its_plain_text_and_its_quotes() -> None:
    content = read_mail(MAIL, LIMITS)
    check_content(content)
    assert content.title == "Grüße aus Berlin"
    assert content.metadata == {
        "from": "Jürgen <j@example.org>",
        "to": "a@example.org",
        "date": "2024-01-02T10:00:00+01:00",
        "attachments": ["a.pdf"],
    }
    assert outline(content) == [
        ("heading1", "Grüße aus Berlin"),
        ("paragraph", "Schöne Grüße."),
        ("paragraph", "On Monday Bob wrote:"),
        ("quote", "> Hello\n> world"),
    ]


def test_a_mail_in_html_alone_is_read_as_html() -> None:
    content = read_mail("Subject: S\nContent-Type: text/html; charset=utf-8\n\n<p>Größe</p>".encode(), LIMITS)
    assert outline(content) == [("heading1", "S"), ("paragraph", "Größe")]


@pytest.mark.parametrize("charset", ["no-such", "hex", "ascii"])
def test_a_mail_with_a_wrong_encoding_is_still_read(charset: str) -> None:
    content = read_mail(f"Subject: S\nContent-Type: text/plain; charset={charset}\n\nGrüße.".encode(), LIMITS)
    assert outline(content)[1] == ("paragraph", "Grüße.")


def test_a_mail_nested_too_deeply_is_refused() -> None:
    boundaries = [f"b{level}" for level in range(300)]
    opening = "".join(f"Content-Type: multipart/mixed; boundary={name}\n\n--{name}\n" for name in boundaries)
    with pytest.raises(DocumentError, match="nested too deeply"):
        read_mail((opening + "\nx\n").encode(), LIMITS)


# XML


def test_xml_of_a_known_vocabulary_keeps_its_structure() -> None:
    source = """<?xml version="1.0"?>
<!DOCTYPE article [<!ENTITY prod "Whence <b>x</b>"> <!ENTITY ext SYSTEM "file:///etc/hostname">]>
<article xmlns="http://docbook.org/ns/docbook"><info><title>The &prod; Book</title></info>
<para>Intro with <emphasis>em</emphasis>phasis &ext;.</para>
<section><title>First</title>
<itemizedlist><listitem><para>One</para><para>more</para></listitem><listitem><para>Two</para></listitem></itemizedlist>
<table><title>Tab</title><tgroup><thead><row><entry>A</entry><entry>B</entry></row></thead>
<tbody><row><entry>1</entry><entry>2</entry></row></tbody></tgroup></table>
<programlisting>
x = 1
  y
</programlisting>
<section><title>Nested</title><blockquote><para>Q</para></blockquote></section></section></article>"""
    content = read_with(read_xml, source)
    assert content.title == "The Whence x Book"
    assert outline(content) == [
        ("heading1", "The Whence x Book"),
        ("paragraph", "Intro with emphasis &ext;."),
        ("heading2", "First"),
        ("list", "One more\nTwo"),
        ("caption", "Tab"),
        ("table", "A | B\n1 | 2"),
        ("code", "x = 1\n  y"),
        ("heading3", "Nested"),
        ("quote", "Q"),
    ]
    assert content.blocks[5].header_rows == 1


def test_xml_records_become_lines_of_name_and_value() -> None:
    source = "<c><b><title>T1</title><price>3</price></b><b><title>T2</title><price>4</price></b></c>"
    content = read_with(read_xml, source)
    assert content.title is None
    assert outline(content) == [
        ("heading1", "T1"),
        ("list", "price: 3"),
        ("heading1", "T2"),
        ("list", "price: 4"),
    ]


def test_xml_in_an_undeclared_encoding_is_read() -> None:
    content = read_xml("<a>Müller</a>".encode("latin-1"), LIMITS)
    assert outline(content) == [("paragraph", "Müller")]


def entity_bomb() -> str:
    entities = [f'<!ENTITY e{level} "{f"&e{level - 1};" * 10}">' for level in range(1, 12)]
    return f'<!DOCTYPE a [<!ENTITY e0 "lol">{"".join(entities)}]><a>&e11;</a>'


@pytest.mark.parametrize("source", [entity_bomb(), "<a>" * 230 + "x" + "</a>" * 230, "<a>" * 9999, "<a><b></a>", "&"])
def test_hostile_or_malformed_xml_is_refused(source: str) -> None:
    with pytest.raises(DocumentError, match=r"not well-formed|nested deeper"):
        read_xml(source.encode(), LIMITS)


# No word is lost, whatever the document


def numbered(blocks: list[str]) -> str:
    """Join blocks with empty lines, each W in them replaced by a word of its own."""
    count = iter(range(1, 10_000))
    return re.sub("W", lambda _: f"w{next(count)}", "\n\n".join(blocks))


MARKDOWN_PIECES = [
    "# W W",
    "W\n===",
    "W W\nW *W* `W`",
    "- W\n- W\n\n  W\n  1. W",
    "> W\n> - W\nW",
    "```\nW\n\nW\n```",
    "    W\n    W",
    "| W | W |\n|---|---|\n| W | W |",
    "<div>W</div>",
    "<!-- x -->\nW",
    "***",
    "1. W\nW",
    "W  \nW\\",
    "[W](u) ![W](u)",
    "~~~\nW",
    "[^1]: W W",
]


@given(st.lists(st.sampled_from(MARKDOWN_PIECES), max_size=12))
@settings(max_examples=150, deadline=None)
def test_no_word_of_generated_markdown_is_lost(blocks: list[str]) -> None:
    assert words_outside_blocks(read_with(read_markdown, numbered(blocks))) == []


TEXT_PIECES = [
    "W",
    "W W W.",
    "2.1 Title W",
    "Title W\n-----",
    "TITLE W W",
    "- W\n- W\n  W\n\n  W",
    "1. W\n2) W",
    "> W",
    "W:\n* W",
    "Title W\n" + "W " * 60 + ".",
    "   W\n\tW",
    "=====\nTitle W\n=====",
    "-----",
]


@given(st.lists(st.sampled_from(TEXT_PIECES), max_size=12))
@settings(max_examples=150, deadline=None)
def test_no_word_of_generated_plain_text_is_lost(blocks: list[str]) -> None:
    assert words_outside_blocks(read_with(read_text, numbered(blocks))) == []


RST_PIECES = [
    "W W\n=====",
    "-----\nW W\n-----",
    "W W\nW.",
    "W::\n\n    W\n\n    W",
    "* W\n* W\n\n  W\n\n  - W",
    "1. W\n\n   W\n2. W",
    "W\n    W\n\n    W",
    ".. note:: W\n   W\n\n   W",
    ".. code-block:: python\n   :linenos:\n\n   W\n\n   W",
    ".. thing:: W\n   :option: x\n\n   W",
    "+---+---+\n| W | W |\n+---+---+\n| W | W |\n+---+---+",
    "=== ===\nW   W\n=== ===\nW   W\n=== ===",
    ":field: W\n:other: W\n   W",
    ".. [1] W\n   W",
    "    W\n\n    W",
    ">>> W\nW",
    "| W\n| W",
    ".. figure:: x.png\n\n   W\n\n   W",
    ".. csv-table:: W\n   :header: W, W\n\n   W, W",
    ".. list-table:: W\n\n   * - W\n     - W",
]
ASCIIDOC_PIECES = [
    "== W W",
    "W W\n-----",
    "W W\nW.",
    "* W\n** W\n* W\n+\n----\nW\n----",
    ". W\n. W\nW",
    "W:: W\nW::\n  W",
    "----\nW\n\nW\n----",
    "....\nW\n....",
    "====\nW\n\n* W\n====",
    "[NOTE]\n--\nW\n--",
    "[quote, W]\n____\nW\n____",
    ".W\n|===\n|W |W\n\n|W |W\n|W\n|W\n|===",
    '[cols="1,2",options="header"]\n|===\n|W\n|W\n\n|W\n|W\n|===',
    "NOTE: W",
    " W\n W",
    "++++\nW\n++++",
    "image::x.png[W]",
    "----\nW",
]
LATEX_PIECES = [
    "\\section{W W}\nW",
    "W W\nW.",
    "W % x\nW",
    "% x\nW",
    "\\begin{itemize}\n\\item W\n\n\\item W \\begin{itemize}\\item W\\end{itemize}\n\\end{itemize}",
    "\\begin{verbatim}\nW\n\nW %\n\\end{verbatim}",
    "\\begin{tabular}{ll}\n\\hline\nW & W \\\\\nW & W\n\\end{tabular}",
    "\\begin{figure}[h]\n\\centering\n\\caption{W \\emph{W}}\n\\end{figure}",
    "\\begin{quote}\nW\n\nW\\end{quote}",
    "\\begin{theorem}[W]\nW\n\\end{theorem}",
    "\\paragraph{W} W \\textbf{W}",
    "\\begin{equation}\nW\n\\end{equation}",
    "\\begin{unknown}{W}\nW\n\\end{unknown}",
    "\\begin{thebibliography}{9}\n\\bibitem{x} W\n\\bibitem{y} W\n\\end{thebibliography}",
    "\\caption{W",
    "\\begin{itemize}\n\\item W",
]


@pytest.mark.parametrize(
    ("reader", "pieces"),
    [(read_rst, RST_PIECES), (read_asciidoc, ASCIIDOC_PIECES), (read_latex, LATEX_PIECES)],
    ids=["rst", "asciidoc", "latex"],
)
@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_no_word_of_other_generated_markup_is_lost(
    reader: Callable[[bytes, Limits], Content], pieces: list[str], data: st.DataObject
) -> None:
    source = numbered(data.draw(st.lists(st.sampled_from(pieces), max_size=10)))
    assert words_outside_blocks(read_with(reader, source)) == []


@given(st.text(max_size=300))
@settings(max_examples=150, deadline=None)
def test_any_text_at_all_has_sound_blocks(text: str) -> None:
    data = text.encode(errors="replace")
    for reader in (read_text, read_code, read_markdown, read_rst, read_asciidoc, read_latex):
        try:
            check_content(reader(data, LIMITS))
        except DocumentError as exc:
            assert "looks binary" in str(exc)


CELL = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=8) | st.sampled_from(
    ["a\nb", 'q"', ""]
)


@given(st.lists(st.lists(CELL, min_size=2, max_size=4), min_size=1, max_size=6))
@example([["", "", ";"], ["", "0"]])  # the semicolons give one even row, but what stands before them is not a cell
@settings(max_examples=150, deadline=None)
def test_every_row_of_a_generated_csv_is_a_part(rows: list[list[str]]) -> None:
    quoted = [",".join('"' + cell.replace('"', '""') + '"' for cell in row) for row in rows]
    content = read_with(read_csv, "\n".join(quoted))
    filled = [line.strip() for line, row in zip(quoted, rows, strict=True) if any(cell.strip() for cell in row)]
    assert (parts(content) if content.blocks else []) == filled


MARKS = [
    "..",
    "::",
    "====",
    "----",
    "|===",
    "****",
    "* ",
    "- ",
    "+",
    ":a: b",
    "[x]",
    "\\begin{itemize}",
    "\\item",
    "%",
]
MARKS += [
    "\\end{itemize}",
    "\\section{",
    "}",
    "\\\\",
    "\n",
    "\n\n",
    "    ",
    ".. note::",
    "w1",
    "W",
    "+--+",
    "== ==",
    "::",
]


@given(st.lists(st.sampled_from(MARKS), max_size=40))
@settings(max_examples=200, deadline=None)
def test_any_mixture_of_marks_has_sound_blocks(marks: list[str]) -> None:
    for reader in (read_text, read_markdown, read_rst, read_asciidoc, read_latex):
        read_with(reader, "".join(marks))
