"""HTML, PDF, office documents and e-books: what becomes of their structure, and of hostile ones."""

from __future__ import annotations

import io
import re
import zipfile
from pathlib import Path

import docx
import pytest
from docx.enum.style import WD_STYLE_TYPE
from docx.oxml import parse_xml
from docx.oxml.ns import nsdecls
from hypothesis import given, settings
from hypothesis import strategies as st
from openpyxl import Workbook
from pptx import Presentation
from pptx.chart.data import CategoryChartData
from pptx.enum.chart import XL_CHART_TYPE
from pptx.util import Inches

from index.documents import Block, BlockKind, Content
from index.errors import DocumentError
from index.readers.archives import open_archive
from index.readers.epub import read_epub
from index.readers.formats import check_content
from index.readers.html import read_html
from index.readers.limits import Limits
from index.readers.opendocument import read_odt
from index.readers.pdf import _clean, read_pdf
from index.readers.sheets import read_xlsx
from index.readers.slides import read_pptx
from index.readers.word import read_docx

LIMITS = Limits()


def outline(content: Content) -> list[tuple[str, str]]:
    """Return kind and text of every block that is content, after checking that the offsets are sound."""
    check_content(content)
    return [(b.kind.value, content.text[b.start : b.end]) for b in content.blocks if not b.furniture]


def furniture(content: Content) -> list[str]:
    return [content.text[block.start : block.end] for block in content.blocks if block.furniture]


def block(content: Content, kind: BlockKind) -> Block:
    return next(block for block in content.blocks if block.kind is kind)


def parts(content: Content, kind: BlockKind) -> list[str]:
    return [content.text[start:end] for start, end in block(content, kind).parts]


# HTML

PAGE = """<!doctype html>
<html lang="en"><head><title>Brewing tea</title>
<meta name="author" content="Ann Leaf"><meta property="article:published_time" content="2024-05-01">
<meta property="og:site_name" content="Tea Site"><link rel="canonical" href="https://tea.example/brew"></head>
<body class="has-sidebar">
<div id="cookie-banner"><p>We use cookies. Accept all cookies to go on reading this site today.</p></div>
<header><a href="/">Tea Site</a><nav><ul><li><a href="/">Home</a></li></ul></nav></header>
<main><article><h1>Brewing tea<a class="headerlink" href="#brew">¶</a></h1>
<p>Tea is brewed by steeping leaves in hot water. Green tea is steeped at 80&nbsp;degrees for two minutes.</p>
<div class="share-buttons"><a href="#">Share on Facebook</a> <a href="#">Post</a></div>
<h2>Steps</h2>
<ol start="3"><li>Boil the <b>water</b>.</li><li>Wait.<ul><li>Or do not.</li></ul></li></ol>
<pre><code>def brew(leaves):
    return   steep(leaves)
</code></pre>
<table><caption>Temperatures</caption><tr><th>Tea</th><th>Degrees</th></tr>
<tr><td>Green</td><td>80</td></tr><tr><td>Black</td><td>96</td></tr></table>
<blockquote><p>Tea is the elixir of life.</p></blockquote>
<div class="newsletter"><h3>Subscribe</h3><p>Get the best tea news in your inbox every week.</p></div>
<h3><button>Is tea healthy?</button></h3><div hidden role="region"><p>It holds tannins.</p></div>
<figure><img src="cup.png"><figcaption>A cup of tea</figcaption></figure>
<dl><dt>Oolong</dt><dd>Partly oxidised.</dd><dt>Puer</dt><dd>Fermented.</dd></dl>
<p>One line,<br>and un&shy;broken another.</p></article></main>
<aside><h2>Popular</h2><ul><li><a href="/1">Coffee is not tea at all</a></li></ul></aside>
<footer><p>Copyright Tea Site. All rights reserved.</p></footer>
<script>var hidden = "script";</script><div style="display: none">never shown</div></body></html>"""


def test_a_page_keeps_its_structure_and_loses_its_furniture() -> None:
    content = read_html(PAGE.encode(), LIMITS)
    assert outline(content) == [
        ("heading", "Brewing tea"),
        (
            "paragraph",
            "Tea is brewed by steeping leaves in hot water. Green tea is steeped at 80 degrees for two minutes.",
        ),
        ("heading", "Steps"),
        ("list", "3. Boil the water.\n4. Wait.\nOr do not."),
        ("code", "def brew(leaves):\n    return   steep(leaves)"),
        ("caption", "Temperatures"),
        ("table", "Tea | Degrees\nGreen | 80\nBlack | 96"),
        ("quote", "Tea is the elixir of life."),
        ("heading", "Is tea healthy?"),
        ("paragraph", "It holds tannins."),
        ("caption", "A cup of tea"),
        ("list", "Oolong\nPartly oxidised.\nPuer\nFermented."),
        ("paragraph", "One line,\nand unbroken another."),
    ]
    assert block(content, BlockKind.TABLE).header_rows == 1
    assert parts(content, BlockKind.LIST) == ["3. Boil the water.", "4. Wait.\nOr do not."]
    for lost in ("cookies", "Home", "Share", "inbox", "Coffee", "rights", "script", "never shown"):
        assert lost not in content.text


def test_a_page_says_who_wrote_it_and_where_it_stands() -> None:
    content = read_html(PAGE.encode(), LIMITS)
    assert content.title == "Brewing tea"
    assert content.metadata == {
        "author": "Ann Leaf",
        "date": "2024-05-01",
        "sitename": "Tea Site",
        "language": "en",
        "url": "https://tea.example/brew",
    }


def test_a_canonical_link_that_is_no_web_address_is_not_taken() -> None:
    page = b"<link rel=canonical href='javascript:alert(1)'><p>text</p>"
    assert "url" not in read_html(page, LIMITS).metadata


@pytest.mark.parametrize(
    ("fragment", "expected"),
    [
        (b"<html><body><p>tiny</p>", [("paragraph", "tiny")]),
        (b"just <b>words</b>", [("paragraph", "just words")]),
        (b"<td>cell</td>", [("paragraph", "cell")]),
        (b"<a href=x><p>linked</p></a>tail", [("paragraph", "linked"), ("paragraph", "tail")]),
        (b"<nav><a href=x>Only navigation</a></nav>", [("paragraph", "Only navigation")]),
        (b"", []),
        (b"<!-- comment --><script>x</script>", []),
    ],
)
def test_fragments_are_read_whole(fragment: bytes, expected: list[tuple[str, str]]) -> None:
    assert outline(read_html(fragment, LIMITS)) == expected


def test_text_outside_what_the_extractor_found_is_kept_as_furniture() -> None:
    story = "".join(f"<p>Heron {n} waits in the reeds, very still, for a fish to pass.</p>" for n in range(9))
    links = "<ul><li><a href=/b>All birds</a></li><li><a href=/f>All fish</a></li></ul>"
    page = f"<body><div><h1>Herons</h1>{story}</div><div>{links}</div></body>"
    content = read_html(page.encode(), LIMITS)
    assert furniture(content) == ["All birds\nAll fish"]
    assert len(outline(content)) == 10


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        ("<meta charset=iso-8859-1><p>Straße</p>".encode("latin-1"), "Straße"),
        ("<meta charset=windows-1251><p>Москва</p>".encode("cp1251"), "Москва"),
        ("<meta charset=iso-8859-1><p>Straße</p>".encode(), "Straße"),  # re-encoded, declaration forgotten
        ("\ufeff<p>Straße</p>".encode("utf-16"), "Straße"),
        ("<?xml version='1.0' encoding='shift_jis'?><p>東京</p>".encode("shift_jis"), "東京"),
        (b"<meta charset=base64><p>caf\xe9 au lait</p>", "café au lait"),
    ],
)
def test_a_page_is_decoded_as_it_was_written(page: bytes, expected: str) -> None:
    assert expected in read_html(page, LIMITS).text


def test_a_page_nested_too_deeply_is_refused() -> None:
    with pytest.raises(DocumentError, match="nested more than 200 deep"):
        read_html(b"<div>" * 1000 + b"x", LIMITS)


def test_a_layout_table_is_read_as_what_stands_in_it() -> None:
    page = b"<table><tr><td><h1>Title</h1><p>Left.</p></td><td><p>Right.</p></td></tr></table>"
    expected = [("heading", "Title"), ("paragraph", "Left."), ("paragraph", "Right.")]
    assert outline(read_html(page, LIMITS)) == expected


TAGS = [
    "p",
    "div",
    "ul",
    "li",
    "table",
    "tr",
    "td",
    "th",
    "h2",
    "pre",
    "blockquote",
    "dl",
    "dt",
    "dd",
    "b",
    "br",
    "a",
]
WORDS = st.lists(st.sampled_from(["alpha", "beta", "straße", "東京", "naïve", "x"]), min_size=1, max_size=6)
ELEMENTS = st.recursive(
    st.builds(" ".join, WORDS),
    lambda inner: st.builds(
        lambda tag, content: f"<{tag}>{''.join(content)}</{tag}>",
        st.sampled_from(TAGS),
        st.lists(inner, max_size=4),
    ),
    max_leaves=25,
)


@settings(max_examples=60, deadline=None)
@given(st.lists(ELEMENTS, max_size=6))
def test_no_word_of_a_body_is_lost(elements: list[str]) -> None:
    page = "".join(f"<div>{element}</div>" for element in elements)
    content = read_html(f"<html><body>{page}</body></html>".encode(), LIMITS)
    check_content(content)
    shown = "".join("".join(content.text[b.start : b.end].replace("|", "").split()) for b in content.blocks)
    written = "".join(page.replace("<", "\0<").replace(">", ">\0").split("\0"))
    plain = "".join(word for piece in written.split("<") for word in piece.rpartition(">")[2].split())
    assert sorted(shown) == sorted(plain)


# PDF


def pdf(*pages: str, prolog: str = "") -> bytes:
    """Write a PDF by hand: a content stream per page, with Helvetica as /F and its bold as /B, Courier as /C."""
    kids = " ".join(f"{6 + 2 * number} 0 R" for number in range(len(pages)))
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica-Bold /Encoding /WinAnsiEncoding >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Courier /Encoding /WinAnsiEncoding >>",
    ]
    fonts = "<< /Font << /F 3 0 R /B 4 0 R /C 5 0 R >> >>"
    for number, stream in enumerate(pages):
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 600 800] /Resources {fonts}"
            f" /Contents {7 + 2 * number} 0 R >>"
        )
        objects.append(f"<< /Length {len(stream.encode('cp1252'))} >>\nstream\n{stream}\nendstream")
    out = io.BytesIO(b"%PDF-1.4\n")
    out.seek(0, io.SEEK_END)
    offsets = []
    for number, body in enumerate(objects, start=1):
        offsets.append(out.tell())
        out.write(f"{number} 0 obj\n{body}\nendobj\n".encode("cp1252"))
    start = out.tell()
    rows = "".join(f"{offset:010} 00000 n \n" for offset in offsets)
    out.write(f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{rows}".encode())
    out.write(f"trailer << /Size {len(objects) + 1} /Root 1 0 R {prolog}>>\nstartxref\n{start}\n%%EOF".encode())
    return out.getvalue()


def line(text: str, x: float, y: float, *, size: int = 10, font: str = "F") -> str:
    return f"BT /{font} {size} Tf {x} {y} Td ({text}) Tj ET\n"


def test_a_pdf_is_put_together_again_page_by_page() -> None:
    first = (
        line("The Annual Report", 60, 780, size=8)
        + line("Otters of the North", 60, 740, size=18)
        + line("Habitat", 60, 700, font="B")
        + line("The sea otter lives along the coasts of the northern Pacific and rarely comes", 60, 685)
        + line("ashore. It was hunted for its fur.", 60, 673)
        + line("It eats urchins, which would other-", 60, 649)
        + line("wise graze the kelp forests bare, and crabs, and it is a well-known maker of tools that", 60, 637)
        + line("1", 300, 30, size=8)
    )
    second = (
        line("The Annual Report", 60, 780, size=8)
        + line("it carries about. Pups are born all year round.", 60, 740)
        + line("• They float.", 70, 710)
        + line("• They sleep wrapped in kelp so that they", 70, 698)
        + line("do not drift away.", 80, 686)
        + line("Year", 60, 650, font="B") + line("Otters", 200, 650, font="B")
        + line("1911", 60, 638) + line("2,000", 200, 638)
        + line("2007", 60, 626) + line("107,000", 200, 626)
        + line("def count\\(pups\\):", 60, 590, font="C")
        + line("return len\\(pups\\)", 84, 578, font="C")
        + line("2", 300, 30, size=8)
    )  # fmt: skip
    content = read_pdf(pdf(first, second), LIMITS)
    assert outline(content) == [
        ("heading", "Otters of the North"),
        ("heading", "Habitat"),
        (
            "paragraph",
            "The sea otter lives along the coasts of the northern Pacific and rarely comes ashore."
            " It was hunted for its fur.",
        ),
        (
            "paragraph",
            "It eats urchins, which would otherwise graze the kelp forests bare, and crabs, and it is"
            " a well-known maker of tools that it carries about.",
        ),
        ("paragraph", "Pups are born all year round."),
        ("list", "• They float.\n• They sleep wrapped in kelp so that they do not drift away."),
        ("table", "Year | Otters\n1911 | 2,000\n2007 | 107,000"),
        ("code", "def count(pups):\n    return len(pups)"),
    ]
    assert [block.level for block in content.blocks if block.kind is BlockKind.HEADING] == [1, 2]
    assert block(content, BlockKind.TABLE).header_rows == 1
    assert furniture(content) == ["The Annual Report", "1", "The Annual Report", "2"]
    assert [block.page for block in content.blocks] == [1] * 6 + [2] * 6
    assert content.title == "Otters of the North"


def test_two_columns_are_read_one_after_the_other() -> None:
    left = [line(text, 60, 700 - 12 * row) for row, text in enumerate(["Herons stand still", "in shallow water and"])]
    right = [line(text, 320, 700 - 12 * row) for row, text in enumerate(["wait for fish.", "Egrets stir the mud."])]
    content = read_pdf(pdf("".join(left + right)), LIMITS)
    expected = "Herons stand still in shallow water and wait for fish. Egrets stir the mud."
    assert outline(content) == [("paragraph", expected)]


@pytest.mark.parametrize(
    ("rotation", "matrix"),
    [
        (90, "0 1 -1 0 {down} {x}"),
        (180, "-1 0 0 -1 {left} {down}"),
        (270, "0 -1 1 0 {y} {left}"),
    ],
)
def test_a_page_that_is_turned_is_read_as_it_is_shown(rotation: int, matrix: str) -> None:
    width, height = (800, 600) if rotation != 180 else (600, 800)
    lines = [("A line of text that", 60, 500), ("goes on.", 60, 488)]
    rows = [("Year", 60, 440), ("Ships", 200, 440), ("1900", 60, 428), ("12", 200, 428)]
    stream = ""
    for text, x, y in lines + rows:
        place = matrix.format(x=x, y=y, left=width - x, down=height - y)
        stream += f"BT /F 10 Tf {place} Tm ({text}) Tj ET\n"
    turned = pdf(stream).replace(b"/MediaBox", b"/Rotate %d /MediaBox" % rotation)
    expected = [("paragraph", "A line of text that goes on."), ("table", "Year | Ships\n1900 | 12")]
    assert outline(read_pdf(turned, LIMITS)) == expected


def test_a_hyphen_of_a_word_is_kept_where_a_document_breaks_no_words() -> None:
    lines = [line(f"Line {n} of the letter ends here.", 60, 700 - 30 * n) for n in range(40)]
    letter = [*lines, line("It opened the way for self-", 60, 100), line("publishing, and more.", 60, 88)]
    assert (
        outline(read_pdf(pdf("".join(letter)), LIMITS))[-1][1] == "It opened the way for self-publishing, and more."
    )


def test_ligatures_are_spelled_out() -> None:
    assert _clean("of\ufb01ce \ufb02ow \ufb00 \U0001d465 e\u0301 \uf0b7") == "office flow ff \U0001d465 é •"


def test_a_scanned_pdf_has_no_blocks() -> None:
    assert read_pdf(pdf("0 0 100 100 re f"), LIMITS).blocks == ()


def test_a_protected_pdf_is_refused() -> None:
    secret = "/Encrypt << /Filter /Standard /V 1 /R 2 /P -4 /O <%s> /U <%s> >> /ID [<00> <00>] "
    with pytest.raises(DocumentError, match="is protected by a password; remove the protection"):
        read_pdf(pdf(line("secret", 60, 700), prolog=secret % ("00" * 32, "00" * 32)), LIMITS)


def test_a_damaged_pdf_is_refused() -> None:
    with pytest.raises(DocumentError, match=r"is damaged or cut short.*fresh copy"):
        read_pdf(b"%PDF-1.7\n" + b"\x00" * 100, LIMITS)


def test_a_pdf_with_too_many_pages_is_refused() -> None:
    with pytest.raises(DocumentError, match="it has 3 pages, more than 2"):
        read_pdf(pdf(*[line("page", 60, 700)] * 3), Limits(pages=2))


# Office documents


def saved(document: docx.document.Document | Presentation | Workbook) -> bytes:
    out = io.BytesIO()
    document.save(out)
    return out.getvalue()


def word_document() -> docx.document.Document:
    document = docx.Document()
    document.add_heading("The lighthouse", 0)
    document.add_heading("Keeping the light", 1)
    document.add_paragraph("The keeper trimmed the wick at dusk.")
    document.add_paragraph("Oil", style="List Bullet")
    document.add_paragraph("Matches", style="List Bullet")
    document.add_paragraph("A light is a promise.", style="Intense Quote")
    table = document.add_table(rows=2, cols=2, style="Table Grid")
    for cell, text in zip(table._cells, ["Year", "Ships", "1887", "412"], strict=True):
        cell.text = text
    document.add_paragraph("Table 1: ships", style="Caption")
    style = document.styles.add_style("Source Code", WD_STYLE_TYPE.PARAGRAPH)
    document.add_paragraph("while dark:", style=style)
    document.add_paragraph("    shine()", style=style)
    document.sections[0].footer.paragraphs[0].text = "Company confidential"
    return document


def test_a_word_document_keeps_its_structure() -> None:
    document = word_document()
    document.core_properties.author = "Ida Lewis"
    document.core_properties.title = "On lighthouses"
    content = read_docx(saved(document), LIMITS)
    assert outline(content) == [
        ("heading", "The lighthouse"),
        ("heading", "Keeping the light"),
        ("paragraph", "The keeper trimmed the wick at dusk."),
        ("list", "Oil\nMatches"),
        ("quote", "A light is a promise."),
        ("table", "Year | Ships\n1887 | 412"),
        ("caption", "Table 1: ships"),
        ("code", "while dark:\n    shine()"),
    ]
    assert block(content, BlockKind.TABLE).header_rows == 1
    assert furniture(content) == ["Company confidential"]
    assert (content.title, content.metadata["author"]) == ("On lighthouses", "Ida Lewis")


def test_text_in_boxes_controls_links_and_changes_of_a_word_document_is_read() -> None:
    document = docx.Document()
    xml = f"""<w:body {nsdecls("w")}
        xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006">
      <w:sdt><w:sdtContent><w:p><w:r><w:t>In a control.</w:t></w:r></w:p></w:sdtContent></w:sdt>
      <w:p><w:r><w:t xml:space="preserve">See </w:t></w:r><w:hyperlink><w:r><w:t>the link</w:t></w:r></w:hyperlink>
        <w:ins><w:r><w:t xml:space="preserve"> and more</w:t></w:r></w:ins>
        <w:del><w:r><w:delText>gone</w:delText></w:r></w:del>
        <w:r><mc:AlternateContent>
          <mc:Choice><w:txbxContent><w:p><w:r><w:t>In a box.</w:t></w:r></w:p></w:txbxContent></mc:Choice>
          <mc:Fallback><w:txbxContent><w:p><w:r><w:t>In a box.</w:t></w:r></w:p></w:txbxContent></mc:Fallback>
        </mc:AlternateContent></w:r></w:p>
      <w:p><w:pPr><w:outlineLvl w:val="1"/></w:pPr><w:r><w:t>By outline</w:t></w:r></w:p></w:body>"""
    for element in list(parse_xml(xml)):
        document.element.body.insert(len(document.element.body) - 1, element)
    assert outline(read_docx(saved(document), LIMITS)) == [
        ("paragraph", "In a control."),
        ("paragraph", "See the link and more"),
        ("paragraph", "In a box."),
        ("heading", "By outline"),
    ]


def test_slides_are_pages() -> None:
    presentation = Presentation()
    slide = presentation.slides.add_slide(presentation.slide_layouts[1])
    slide.shapes.title.text = "Whales"
    slide.placeholders[1].text = "They sing.\nThey dive."
    slide.notes_slide.notes_text_frame.text = "Mention the blue whale."
    slide = presentation.slides.add_slide(presentation.slide_layouts[5])
    slide.shapes.title.text = "Sizes"
    table = slide.shapes.add_table(2, 2, Inches(1), Inches(2), Inches(4), Inches(1)).table
    for cell, text in zip(table.iter_cells(), ["Kind", "Metres", "Blue", "30"], strict=True):
        cell.text = text
    data = CategoryChartData()
    data.categories = ["2001", "2002"]
    data.add_series("Sightings", (12, 14.5))
    slide.shapes.add_chart(XL_CHART_TYPE.LINE, Inches(1), Inches(4), Inches(4), Inches(2), data)
    group = slide.shapes.add_group_shape()
    group.shapes.add_textbox(Inches(1), Inches(6), Inches(4), Inches(1)).text_frame.text = "In a group."
    content = read_pptx(saved(presentation), LIMITS)
    assert outline(content) == [
        ("heading", "Whales"),
        ("list", "They sing.\nThey dive."),
        ("paragraph", "Mention the blue whale."),
        ("heading", "Sizes"),
        ("table", "Kind | Metres\nBlue | 30"),
        ("table", "| Sightings\n2001 | 12\n2002 | 14.5"),
        ("paragraph", "In a group."),
    ]
    assert [block.page for block in content.blocks] == [1, 1, 1, 2, 2, 2, 2]
    assert content.title == "Whales"


def test_sheets_become_tables_without_empty_rows_and_columns() -> None:
    workbook = Workbook()
    sheet = workbook.active
    sheet.title = "Harvest"
    sheet["B1"] = "Apples and pears"
    for row in (["Kind", None, "Tonnes"], ["Apple", None, 12.5], ["Pear\nwild", None, 3], [True, None, 0.1 + 0.2]):
        sheet.append([None, *row])
    sheet.insert_rows(2)
    workbook.create_sheet("Empty")
    content = read_xlsx(saved(workbook), LIMITS)
    assert outline(content) == [
        ("heading", "Harvest"),
        ("paragraph", "Apples and pears"),
        ("table", "Kind | Tonnes\nApple | 12.5\nPear wild | 3\nTRUE | 0.3"),
    ]
    assert block(content, BlockKind.TABLE).header_rows == 1
    assert content.title is None


ODT_BODY = """<text:h text:outline-level="2">Mushrooms</text:h>
<text:p>The <text:span>cep</text:span><text:s text:c="2"/>grows under spruce<text:note
><text:note-citation>1</text:note-citation>
<text:note-body><text:p>And pine.</text:p></text:note-body></text:note>.</text:p>
<text:list><text:list-item><text:p>Cep</text:p></text:list-item>
<text:list-item><text:p>Morel</text:p><text:list><text:list-item><text:p>black</text:p></text:list-item></text:list>
</text:list-item></text:list>
<text:p text:style-name="P1">Eat none you do not know.</text:p>
<table:table><table:table-header-rows><table:table-row><table:table-cell><text:p>Kind</text:p></table:table-cell>
<table:table-cell><text:p>Month</text:p></table:table-cell></table:table-row></table:table-header-rows>
<table:table-row><table:table-cell><text:p>Cep</text:p></table:table-cell>
<table:table-cell><text:p>August</text:p></table:table-cell></table:table-row></table:table>
<text:p><draw:frame><draw:text-box><text:p>In a box.</text:p></draw:text-box></draw:frame></text:p>"""


def odt(body: str = ODT_BODY, manifest: str = "") -> bytes:
    namespaces = {
        "office": "urn:oasis:names:tc:opendocument:xmlns:office:1.0",
        "text": "urn:oasis:names:tc:opendocument:xmlns:text:1.0",
        "table": "urn:oasis:names:tc:opendocument:xmlns:table:1.0",
        "style": "urn:oasis:names:tc:opendocument:xmlns:style:1.0",
        "draw": "urn:oasis:names:tc:opendocument:xmlns:drawing:1.0",
        "meta": "urn:oasis:names:tc:opendocument:xmlns:meta:1.0",
        "manifest": "urn:oasis:names:tc:opendocument:xmlns:manifest:1.0",
        "dc": "http://purl.org/dc/elements/1.1/",
    }
    declared = " ".join(f'xmlns:{prefix}="{uri}"' for prefix, uri in namespaces.items())
    styles = '<style:style style:name="P1" style:parent-style-name="Quotations"/>'
    return zipped(
        {
            "mimetype": "application/vnd.oasis.opendocument.text",
            "content.xml": f"<office:document-content {declared}><office:automatic-styles>{styles}"
            f"</office:automatic-styles><office:body><office:text>{body}</office:text></office:body>"
            "</office:document-content>",
            "meta.xml": f"<office:document-meta {declared}><office:meta><dc:title>The forest</dc:title>"
            "<meta:initial-creator>Elsa</meta:initial-creator></office:meta></office:document-meta>",
            "META-INF/manifest.xml": f"<manifest:manifest {declared}>{manifest}</manifest:manifest>",
        }
    )


def zipped(files: dict[str, str | bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return out.getvalue()


def test_an_opendocument_text_keeps_its_structure() -> None:
    content = read_odt(odt(), LIMITS)
    assert outline(content) == [
        ("heading", "Mushrooms"),
        ("paragraph", "The cep  grows under spruce."),
        ("paragraph", "And pine."),
        ("list", "Cep\nMorel\nblack"),
        ("quote", "Eat none you do not know."),
        ("table", "Kind | Month\nCep | August"),
        ("paragraph", "In a box."),
    ]
    assert parts(content, BlockKind.LIST) == ["Cep", "Morel\nblack"]
    assert block(content, BlockKind.TABLE).header_rows == 1
    assert (content.title, content.metadata) == ("The forest", {"author": "Elsa"})


def test_a_protected_opendocument_text_is_refused() -> None:
    entry = "<manifest:file-entry><manifest:encryption-data/></manifest:file-entry>"
    with pytest.raises(DocumentError, match="is protected by a password"):
        read_odt(odt(manifest=entry), LIMITS)


# E-books


def epub(chapters: dict[str, str], **extra: str) -> bytes:
    items = "".join(
        f'<item id="c{number}" href="text/{name}" media-type="application/xhtml+xml"/>'
        for number, name in enumerate(chapters)
    )
    spine = "".join(f'<itemref idref="c{number}"/>' for number in reversed(range(len(chapters))))
    package = f"""<package xmlns="http://www.idpf.org/2007/opf"><metadata xmlns:dc="http://purl.org/dc/elements/1.1/">
        <dc:title>Two tales</dc:title><dc:creator>Ann</dc:creator><dc:creator>Bob</dc:creator></metadata>
        <manifest>{items}</manifest><spine>{spine}</spine></package>"""
    container = '<container><rootfiles><rootfile full-path="OEBPS/book.opf"/></rootfiles></container>'
    files: dict[str, str | bytes] = {"META-INF/container.xml": container, "OEBPS/book.opf": package, **extra}
    for name, body in chapters.items():
        files[f"OEBPS/text/{name}"] = f"<html><body>{body}</body></html>"
    return zipped(files)


TALES = {
    "b.xhtml": "<h1>Second</h1><aside>A note.</aside>",
    "a%20b.xhtml": "<h1>First</h1><p>Once.</p><nav>toc</nav>",
}


def test_chapters_are_read_in_the_order_of_the_spine() -> None:
    book = epub({name.replace("%20", " "): body for name, body in TALES.items()})
    content = read_epub(book, LIMITS)
    expected = [("heading", "First"), ("paragraph", "Once."), ("heading", "Second"), ("paragraph", "A note.")]
    assert outline(content) == expected
    assert (content.title, content.metadata) == ("Two tales", {"author": ["Ann", "Bob"]})


def test_a_missing_chapter_is_named() -> None:
    with pytest.raises(DocumentError, match=r"OEBPS/text/a b\.xhtml is missing inside"):
        read_epub(epub(TALES), LIMITS)


def test_a_book_that_needs_a_key_is_refused() -> None:
    locked = '<encryption><CipherReference URI="OEBPS/text/b.xhtml"/></encryption>'
    with pytest.raises(DocumentError, match="digital rights management"):
        read_epub(epub({"b.xhtml": "x"}, **{"META-INF/encryption.xml": locked}), LIMITS)


# Hostile and damaged archives


def test_an_archive_that_would_inflate_too_much_is_refused_before_it_is_inflated() -> None:
    bomb = zipped({"word/document.xml": b"0" * 30_000_000})
    with pytest.raises(DocumentError, match=r"would inflate from .* to 30,000,000 bytes"):
        open_archive(bomb, LIMITS)
    with pytest.raises(DocumentError, match="would inflate to 30,000,000 bytes, more than 1,000,000"):
        open_archive(bomb, Limits(inflated_bytes=1_000_000))


def test_an_archive_of_too_many_files_is_refused() -> None:
    with pytest.raises(DocumentError, match="it holds 5 files, more than 4"):
        open_archive(zipped({str(number): "" for number in range(5)}), Limits(archive_entries=4))


@pytest.mark.parametrize("name", ["../evil.xml", "/etc/passwd", "a\\..\\..\\b", "C:evil"])
def test_an_archive_that_names_a_path_outside_itself_is_refused(name: str) -> None:
    with pytest.raises(DocumentError, match="names a path outside itself"):
        open_archive(zipped({name: "x"}), LIMITS)


def test_a_protected_archive_is_refused() -> None:
    data = bytearray(zipped({"content.xml": "x"}))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + offset] |= 1
    with pytest.raises(DocumentError, match="is protected by a password"):
        open_archive(bytes(data), LIMITS)


READERS = [
    (read_docx, saved(word_document())),
    (read_pptx, saved(Presentation())),
    (read_xlsx, saved(Workbook())),
    (read_odt, odt()),
    (read_epub, epub({"b.xhtml": "x"})),
]


@pytest.mark.parametrize(("reader", "data"), READERS)
def test_a_file_that_was_cut_short_is_refused(reader, data: bytes) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(DocumentError, match=r"is damaged or cut short.*get a fresh copy"):
        reader(data[: len(data) // 2], LIMITS)


@pytest.mark.parametrize(("reader", "data"), READERS)
def test_damage_inside_a_file_is_reported_or_harmless(reader, data: bytes) -> None:  # type: ignore[no-untyped-def]
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        files: dict[str, str | bytes] = {name: archive.read(name) for name in archive.namelist()}
    refused = set()
    for name in files:
        try:
            reader(zipped({**files, name: b"<unclosed>" + bytes(range(256))}), LIMITS)
        except DocumentError as error:
            assert re.search("get a fresh copy|save it in a supported format", str(error))
            refused.add(name)
    main_files = {"word/document.xml", "ppt/presentation.xml", "xl/workbook.xml", "content.xml", "OEBPS/book.opf"}
    assert len(refused & main_files) == 1


@pytest.mark.parametrize("reader", [reader for reader, _ in READERS])
def test_any_other_archive_is_refused(reader) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(DocumentError, match="is damaged"):
        reader(zipped({"readme.txt": "just an archive"}), LIMITS)


def test_entities_are_neither_expanded_nor_fetched(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("the secret")
    laughs = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 9))
    doctype = f'<!DOCTYPE x [<!ENTITY l0 "ha">{laughs}<!ENTITY file SYSTEM "{secret.as_uri()}">]>'
    with zipfile.ZipFile(io.BytesIO(odt("<text:p>before &l8; &file; after</text:p>"))) as archive:
        files: dict[str, str | bytes] = {name: archive.read(name) for name in archive.namelist()}
    files["content.xml"] = doctype.encode() + bytes(files["content.xml"])
    try:
        text = read_odt(zipped(files), LIMITS).text
    except DocumentError:
        return
    assert "secret" not in text
    assert len(text) < 100


def test_a_text_longer_than_the_limit_is_refused() -> None:
    for reader, data in READERS[:1]:
        with pytest.raises(DocumentError, match="longer than 20 characters"):
            reader(data, Limits(text_chars=20))
