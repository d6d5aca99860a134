"""A small, sound file of every format that is read, to be damaged."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from functools import lru_cache

import docx
from openpyxl import Workbook
from pptx import Presentation

_MARKDOWN = """---
title: Kettle
tags: [kitchen, safety]
year: 2023
---
# Kettle

## Descaling

Descale the kettle *every* three months, with [vinegar](https://example.org/v) and `water`.

- Fill it
  1. to the mark
- Boil it twice

| part | price |
|------|------:|
| lid  | 12.50 |

> Never fill it above the mark.

```sh
boil --twice
```
"""
_RST = """Kettle
======

.. note:: Descale it every three months.

Parts
-----

* lid
* base

===== =====
part  price
===== =====
lid   12.50
===== =====

+------+-------+
| part | price |
+======+=======+
| lid  | 12.50 |
+------+-------+

::

    boil --twice
"""
_ASCIIDOC = """= Kettle
Ann Leaf

== Descaling

Descale it *every* three months.

* Fill it
** to the mark

[cols="1,2"]
|===
|part |price

|lid |12.50
|===

----
boil --twice
----
"""
_LATEX = r"""\documentclass{article}
\title{Kettle}
\begin{document}
\maketitle
\section{Descaling}
Descale the \emph{kettle} every $3$ months. % often
\begin{itemize}
\item Fill it
\item Boil it
\end{itemize}
\begin{tabular}{ll} part & price \\ lid & 12.50 \\ \end{tabular}
\begin{verbatim}
boil --twice
\end{verbatim}
\end{document}
"""
_HTML = """<!doctype html><html lang="en"><head><title>Kettle</title><meta name="author" content="Ann">
<link rel="canonical" href="https://example.org/kettle"></head><body><nav><a href="/">Home</a></nav>
<main><h1>Kettle</h1><p>Descale the <b>kettle</b> every three&nbsp;months.</p><ul><li>Fill it<ol><li>to the mark</ol>
<li>Boil it</ul><table><tr><th>part<th>price<tr><td rowspan="2">lid<td>12.50</table><pre>boil --twice</pre>
<blockquote>Never above the mark.</blockquote><!-- x --><script>var hidden;</script></main></body></html>"""
_XML = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE book [<!ENTITY maker "Acme">]>
<book><info><title>Kettle</title></info><section><title>Descaling</title><para>By &maker;, every 3 months.</para>
<itemizedlist><listitem>Fill it</listitem></itemizedlist>
<table><row><entry>lid</entry><entry>12.50</entry></row></table>
<part><name>lid</name><price>12.50</price></part></section></book>"""
_MAIL = """Received: from a by b
From: =?utf-8?q?Ann_Leaf?= <ann@example.org>
To: bob@example.org
Subject: Kettle
Date: Sat, 21 Nov 2026 06:00:00 +0000
MIME-Version: 1.0
Content-Type: multipart/alternative; boundary="edge"

--edge
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: quoted-printable

Descale the kettle every three months=2E

> How often?
--edge
Content-Type: text/html; charset=utf-8
Content-Transfer-Encoding: base64

PHA+RGVzY2FsZSBpdDwvcD4=
--edge--
"""
_VTT = """WEBVTT

00:01.000 --> 00:04.000 align:start
<v Ann>Descale the <b>kettle</b>.

00:05.000 --> 00:06.000
Often.
"""
_SRT = "1\n00:00:01,000 --> 00:00:04,000\nANN: Descale the kettle.\n\n2\n00:00:05,000 --> 00:00:06,000\n- Often.\n"
_CODE = (
    '"""Kettles."""\n\nimport time\n\n\ndef boil(times: int) -> None:\n    """Boil it."""\n    time.sleep(times)\n'
)
_PLAIN = "1. Kettle\n\nDescale the kettle every three months.\nRinse it.\n\n2. Parts\n\n- lid\n- base\n"

_OFFICE = "urn:oasis:names:tc:opendocument:xmlns"
_ODT = f"""<office:document-content xmlns:office="{_OFFICE}:office:1.0" xmlns:text="{_OFFICE}:text:1.0"
 xmlns:table="{_OFFICE}:table:1.0"><office:body><office:text><text:h text:outline-level="2">Kettle</text:h>
<text:p>Descale<text:s text:c="2"/>it.</text:p><text:list><text:list-item><text:p>Fill it</text:p></text:list-item>
</text:list><table:table><table:table-row table:number-rows-repeated="2"><table:table-cell
 table:number-columns-repeated="2"><text:p>lid</text:p></table:table-cell></table:table-row></table:table>
</office:text></office:body></office:document-content>"""
_EPUB = {
    "mimetype": "application/epub+zip",
    "META-INF/container.xml": '<container><rootfiles><rootfile full-path="b.opf"/></rootfiles></container>',
    "b.opf": """<package xmlns="http://www.idpf.org/2007/opf"><metadata xmlns:dc="http://purl.org/dc/elements/1.1/">
<dc:title>Kettle</dc:title></metadata><manifest><item id="a" href="a.xhtml" media-type="application/xhtml+xml"/>
</manifest><spine><itemref idref="a"/></spine></package>""",
    "a.xhtml": "<html><body><h1>Kettle</h1><p>Descale it.</p><ul><li>Fill it</li></ul></body></html>",
}


@lru_cache(maxsize=1)
def samples() -> Mapping[str, bytes]:
    """Return the files by their names, whose suffixes are those of their formats."""
    texts = {
        "a.txt": _PLAIN,
        "a.py": _CODE,
        "a.md": _MARKDOWN,
        "a.rst": _RST,
        "a.adoc": _ASCIIDOC,
        "a.tex": _LATEX,
        "a.html": _HTML,
        "a.xml": _XML,
        "a.csv": 'part,price,note\nlid,12.50,"hot, ""very"""\nbase,30,\n',
        "a.tsv": "part\tprice\nlid\t12.50\nbase\t30\n",
        "a.json": json.dumps(
            {"title": "Kettle", "parts": [{"name": "lid", "price": 12.5, "is_hot": True}], "é": None}
        ),
        "a.jsonl": '{"id": 1, "text": "Descale it."}\n{"id": 2, "tags": ["a", "b"]}\n',
        "a.ipynb": json.dumps(_notebook()),
        "a.eml": _MAIL,
        "a.vtt": _VTT,
        "a.srt": _SRT,
    }
    encoded = {name: text.encode() for name, text in texts.items()}
    odt = {"mimetype": "application/vnd.oasis.opendocument.text", "content.xml": _ODT}
    return {
        **encoded,
        "a.pdf": _pdf(),
        "a.docx": _docx(),
        "a.pptx": _pptx(),
        "a.xlsx": _xlsx(),
        "a.odt": zipped({name: text.encode() for name, text in odt.items()}),
        "a.epub": zipped({name: text.encode() for name, text in _EPUB.items()}),
    }


def zipped(files: Mapping[str, bytes]) -> bytes:
    """Return an archive of files."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


def unzipped(data: bytes) -> dict[str, bytes]:
    """Return the files of a sound archive."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _notebook() -> object:
    cells = [
        {"cell_type": "markdown", "source": ["# Kettle\n", "\n", "Descale it."]},
        {"cell_type": "code", "source": "boil(2)", "outputs": [{"output_type": "stream", "text": ["done\n"]}]},
    ]
    return {"nbformat": 4, "nbformat_minor": 5, "metadata": {"language_info": {"name": "python"}}, "cells": cells}


def _pdf() -> bytes:
    stream = (
        "BT /F 18 Tf 50 700 Td (Kettle) Tj ET BT /F 10 Tf 50 670 Td (Descale the kettle every three months.) Tj ET"
    )
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        "<< /Type /Pages /Kids [4 0 R] /Count 1 >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
        "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 600 800] /Resources << /Font << /F 3 0 R >> >>"
        " /Contents 5 0 R >>",
        f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream",
    ]
    out, offsets = "%PDF-1.4\n", []
    for number, body in enumerate(objects, start=1):
        offsets.append(len(out))
        out += f"{number} 0 obj\n{body}\nendobj\n"
    rows = "".join(f"{offset:010} 00000 n \n" for offset in offsets)
    trailer = f"trailer << /Size 6 /Root 1 0 R >>\nstartxref\n{len(out)}\n%%EOF"
    return f"{out}xref\n0 6\n0000000000 65535 f \n{rows}{trailer}".encode()


def _docx() -> bytes:
    document = docx.Document()
    document.add_heading("Kettle", 1)
    document.add_paragraph("Descale the kettle every three months.")
    document.add_paragraph("Fill it", style="List Bullet")
    table = document.add_table(rows=1, cols=2)
    for cell, text in zip(table.rows[0].cells, ("lid", "12.50"), strict=True):
        cell.text = text
    out = io.BytesIO()
    document.save(out)
    return out.getvalue()


def _pptx() -> bytes:
    presentation = Presentation()
    slide = presentation.slides.add_slide(presentation.slide_layouts[1])
    slide.shapes.title.text = "Kettle"
    slide.placeholders[1].text = "Descale the kettle\nevery three months"
    slide.notes_slide.notes_text_frame.text = "Show the lid."
    out = io.BytesIO()
    presentation.save(out)
    return out.getvalue()


def _xlsx() -> bytes:
    book = Workbook()
    for row in (("Kettle", "price"), ("lid", 12.5), ("base", 30)):
        book.active.append(row)
    out = io.BytesIO()
    book.save(out)
    return out.getvalue()
