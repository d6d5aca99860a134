"""Pieces: what a marked-up page is made of, before it is known which of it is content.

The structure is read off the page itself, so that tables, lists and code keep their form. What is never shown
(scripts, hidden elements, form controls) is left out here; what is furniture is judged in `furniture.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum

from lxml.html import HtmlElement

from index.documents import BlockKind
from index.readers.builder import ContentBuilder


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_BLOCKS = _words(
    "address article aside blockquote body caption center dd details dialog dir div dl dt fieldset figcaption"
    " figure footer form h1 h2 h3 h4 h5 h6 header hgroup hr legend li main menu nav ol p pre search section"
    " summary table tbody td tfoot th thead tr ul"
)
_NEVER_SHOWN = _words(
    "annotation annotation-xml applet area audio base canvas colgroup datalist embed frame frameset head iframe"
    " img input link map meta noframes noscript object optgroup option param picture script select source"
    " style svg template textarea title track video"
)
_LISTS = _words("ul ol menu dir dl")
_TOO_RICH_FOR_A_LIST = _words("table blockquote h1 h2 h3 h4 h5 h6")
_TOO_RICH_FOR_A_QUOTE = _TOO_RICH_FOR_A_LIST | _LISTS | {"pre"}
_TOO_RICH_FOR_A_CELL = _TOO_RICH_FOR_A_LIST | {"pre"}
_MAIN_CONTENT = _words("main article h1")

_NAVIGATION_ROLES = _words("navigation menu menubar search tablist toolbar dialog alertdialog")
_MARGIN_ROLES = _words("banner contentinfo complementary")
_MARGIN_NAMES = _words(
    "ad ads advert advertisement banner breadcrumb breadcrumbs catlinks consent cookie cookies editsection"
    " footer gdpr login masthead menu modal nav navbar navbox navigation newsletter noprint overlay pager"
    " pagination popup promo recommended related share sharing sidebar signup skip social sponsor sponsored"
    " subscribe subscription toc toolbar"
)
_GUTTER_NAMES = _words("gutter lineno linenos linenodiv")  # line numbers beside code
_HEADING_TOOLS = _words("editsection headerlink permalink")  # "[edit]" and "¶" beside a heading
_DISCLOSED_ROLES = _words("tabpanel region")  # content behind a tab or a question

_HIDDEN_STYLE = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)
_CLASS_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")
_INVISIBLE = str.maketrans("", "", "\xad\u200b\u2060\ufeff")  # soft hyphens and the like would split words


class Zone(IntEnum):
    """Where on a page a piece stands, from what the page declares its main content to its navigation."""

    MAIN = 0
    BODY = 1
    MARGIN = 2
    NAVIGATION = 3


@dataclass(frozen=True)
class Piece:
    """A block of a page.

    Attributes:
        kind: of the block.
        parts: of a list its items, of a table its rows, otherwise one text; none is empty.
        level: of a heading, 1 to 6.
        header_rows: of a table.
        zone: where it stands.
        link_share: how much of its text is links, 0 to 1.
        furniture: whether it was judged not to be content.
    """

    kind: BlockKind
    parts: tuple[str, ...]
    level: int = 0
    header_rows: int = 0
    zone: Zone = Zone.BODY
    link_share: float = 0.0
    furniture: bool = False


def pieces(root: HtmlElement) -> list[Piece]:
    """Cut a page into pieces in reading order, leaving out what is never shown."""
    body = root.find(".//body")
    return list(_Walk(root).container(body if body is not None else root, Zone.BODY))


def write(builder: ContentBuilder, kept: Iterable[Piece]) -> None:
    """Append the pieces to a document."""
    for piece in kept:
        if piece.kind in (BlockKind.LIST, BlockKind.TABLE):
            builder.add_parts(piece.kind, piece.parts, header_rows=piece.header_rows, furniture=piece.furniture)
        else:
            builder.add(piece.kind, piece.parts[0], level=piece.level, furniture=piece.furniture)


def shown_text(element: HtmlElement) -> str:
    """Return what a reader of the page sees of an element, a line for every line."""
    lines = _Lines()
    lines.add_content(element)
    return lines.text()


class _Walk:
    """Turns elements into pieces, depth first."""

    def __init__(self, root: HtmlElement) -> None:
        self._around_blocks = _ancestors_of_blocks(root)
        self._main = _main_element(root)

    def container(self, element: HtmlElement, zone: Zone) -> Iterator[Piece]:
        """Yield the pieces of an element that holds blocks, inline text, or both."""
        run = _Lines()
        run.add(element.text)
        for child in element:
            if child.tag in _BLOCKS or child in self._around_blocks:
                yield from run.piece(BlockKind.PARAGRAPH, zone)
                run = _Lines()
                yield from self._block(child, self._zone(child, zone))
            else:
                run.add_element(child)
            run.add(child.tail)
        yield from run.piece(BlockKind.PARAGRAPH, zone)

    def _zone(self, element: HtmlElement, around: Zone) -> Zone:
        return Zone.MAIN if element is self._main else max(around, _zone_of(element))

    def _block(self, element: HtmlElement, zone: Zone) -> Iterator[Piece]:
        if not _is_shown(element):
            return iter(())
        tag = element.tag
        if tag in _HEADINGS:
            return _single(BlockKind.HEADING, element, zone, level=_HEADINGS[tag])
        if tag in ("figcaption", "caption"):
            return _single(BlockKind.CAPTION, element, zone)
        if tag == "pre":
            return _code(element, zone)
        if tag == "blockquote" and not _holds(element, _TOO_RICH_FOR_A_QUOTE):
            return _single(BlockKind.QUOTE, element, zone)
        if tag in _LISTS and not _holds(element, _TOO_RICH_FOR_A_LIST) and _is_whole_list(element):
            return _list(element, zone)
        if tag == "table" and _is_data_table(element):
            return _table(element, zone)
        return self.container(element, zone)


class _Lines:
    """Collects the shown text of elements; white space collapses except in preformatted text."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._open: list[str] = []
        self._link_letters = 0

    def add(self, text: str | None, *, is_link: bool = False) -> None:
        """Append text to the open line."""
        if text:
            self._open.append(text.translate(_INVISIBLE))
            self._link_letters += is_link * _letters(text)

    def add_element(self, element: HtmlElement, *, is_link: bool = False) -> None:
        """Append what is shown of an element; a block begins and ends a line."""
        if not _is_shown(element):
            return
        if element.tag == "pre":
            self._end_line()
            self._lines.extend(_verbatim(element).split("\n"))
        elif element.tag in _BLOCKS or element.tag == "br":
            self._end_line()
            self.add_content(element, is_link=is_link)
            self._end_line()
        else:
            self.add_content(element, is_link=is_link or (element.tag == "a" and "href" in element.attrib))

    def add_content(self, element: HtmlElement, *, is_link: bool = False) -> None:
        """Append what is shown inside an element."""
        self.add(element.text, is_link=is_link)
        for child in element:
            self.add_element(child, is_link=is_link)
            self.add(child.tail, is_link=is_link)

    def text(self) -> str:
        """Return the lines; an empty text when nothing can be seen."""
        self._end_line()
        return "\n".join(self._lines).strip("\n")

    def link_share(self) -> float:
        """Return how much of the visible text stands in links, 0 to 1."""
        letters = sum(map(_letters, self._lines))
        return self._link_letters / letters if letters else 0.0

    def piece(self, kind: BlockKind, zone: Zone, *, level: int = 0) -> Iterator[Piece]:
        """Yield the text as one piece, if there is any."""
        text = self.text()
        if text.strip():
            yield Piece(kind, (text,), level=level, zone=zone, link_share=self.link_share())

    def _end_line(self) -> None:
        line = " ".join("".join(self._open).split())
        if line:
            self._lines.append(line)
        self._open = []


def _single(kind: BlockKind, element: HtmlElement, zone: Zone, *, level: int = 0) -> Iterator[Piece]:
    lines = _Lines()
    lines.add_content(element)
    return lines.piece(kind, _main_heading_zone(zone, level), level=level)


def _main_heading_zone(zone: Zone, level: int) -> Zone:
    """Count a page's top heading as content although it often stands in the page's header."""
    return Zone.BODY if level == 1 and zone is Zone.MARGIN else zone


def _code(element: HtmlElement, zone: Zone) -> Iterator[Piece]:
    text = _verbatim(element)
    if text.strip():
        yield Piece(BlockKind.CODE, (text,), zone=zone)


def _verbatim(element: HtmlElement) -> str:
    """Return preformatted text with its line breaks and indentation."""
    shown = "".join(_shown_strings(element))
    lines = [line.rstrip() for line in shown.translate(_INVISIBLE).replace("\xa0", " ").split("\n")]
    return "\n".join(lines).strip("\n")


def _shown_strings(element: HtmlElement) -> Iterator[str]:
    yield "\n" if element.tag == "br" else element.text or ""
    for child in element:
        if _is_shown(child):
            yield from _shown_strings(child)
        yield child.tail or ""


def _list(element: HtmlElement, zone: Zone) -> Iterator[Piece]:
    parts = _definitions(element) if element.tag == "dl" else _items(element)
    yield Piece(
        BlockKind.LIST,
        tuple(number + text for number, text in parts),
        zone=zone,
        link_share=_link_share(element),
    )


def _is_whole_list(element: HtmlElement) -> bool:
    """Tell whether all that is shown of a list stands in its items, as it should."""
    parts = _definitions(element) if element.tag == "dl" else _items(element)
    return 0 < _letters(shown_text(element)) == sum(_letters(text) for _, text in parts)


def _items(element: HtmlElement) -> list[tuple[str, str]]:
    """Return the number, empty but in an ordered list, and the text of each item."""
    items: list[tuple[str, str]] = []
    number = _number(element.get("start"), 1)
    for item in element:
        text = shown_text(item) if _is_shown(item) else ""
        if element.tag == "ol" and item.tag == "li" and text:
            number = _number(item.get("value"), number)
            items.append((f"{number}. ", text))
            number += 1
        elif text:
            items.append(("", text))
    return items


def _number(value: str | None, default: int) -> int:
    return int(value) if value and re.fullmatch(r"-?\d{1,9}", value) else default


def _definitions(element: HtmlElement) -> list[tuple[str, str]]:
    """Return each term of a definition list together with what is said about it."""
    parts: list[list[str]] = [[]]
    previous = ""
    for item in element.iter("dt", "dd"):
        if next(item.iterancestors("dl")) is not element or not _is_shown(item):
            continue
        if item.tag == "dt" and previous == "dd":
            parts.append([])
        parts[-1].append(shown_text(item))
        previous = item.tag
    texts = ("\n".join(filter(None, part)) for part in parts)
    return [("", text) for text in texts if text]


def _table(element: HtmlElement, zone: Zone) -> Iterator[Piece]:
    for caption in element.iterchildren("caption"):
        yield from _single(BlockKind.CAPTION, caption, zone)
    rows = [(row, text) for row, text in _rows(element) if text]
    yield Piece(
        BlockKind.TABLE,
        tuple(text for _, text in rows),
        header_rows=_header_rows([row for row, _ in rows]),
        zone=zone,
        link_share=_link_share(element),
    )


def _rows(element: HtmlElement) -> list[tuple[HtmlElement, str]]:
    return [(row, _row(row)) for row in element.iter("tr") if _is_shown(row)]


def _row(row: HtmlElement) -> str:
    """Return a row as `cell | cell`; empty when no cell shows anything."""
    cells = [" ".join(shown_text(cell).split()) for cell in _cells(row) if _is_shown(cell)]
    return " | ".join(cells).strip() if any(cells) else ""


def _cells(row: HtmlElement) -> list[HtmlElement]:
    return [cell for cell in row if cell.tag in ("td", "th")]


def _header_rows(rows: Sequence[HtmlElement]) -> int:
    """Count the rows that name the columns: those of the table head, or a first row of header cells."""
    in_head = sum(1 for row in rows if row.getparent().tag == "thead")
    first = _cells(rows[0])
    return in_head or int(len(rows) > 1 and len(first) > 1 and all(cell.tag == "th" for cell in first))


def _is_data_table(element: HtmlElement) -> bool:
    """Tell a table of data from one that only lays out a page, or whose text is not all in its cells."""
    if element.get("role") in ("presentation", "none") or _holds(element, _TOO_RICH_FOR_A_CELL):
        return False
    if not any(len(_cells(row)) > 1 for row in element.iter("tr")):
        return False
    texts = [text.replace("|", "") for _, text in _rows(element)]
    texts += [shown_text(caption) for caption in element.iterchildren("caption")]
    shown = _letters(shown_text(element).replace("|", ""))
    return any(text for _, text in _rows(element)) and shown == sum(map(_letters, texts))


def _letters(text: str) -> int:
    """Count the visible characters of a text."""
    return sum(map(len, text.split()))


def _link_share(element: HtmlElement) -> float:
    lines = _Lines()
    lines.add_content(element)
    lines.text()
    return lines.link_share()


def _holds(element: HtmlElement, tags: Iterable[str]) -> bool:
    return any(found is not element for found in element.iter(*tags))


def _ancestors_of_blocks(root: HtmlElement) -> set[HtmlElement]:
    """Collect every element that holds a block, whatever its own kind (a link around a paragraph, say)."""
    around: set[HtmlElement] = set()
    for block in root.iter(*_BLOCKS):
        for ancestor in block.iterancestors():
            if ancestor in around:
                break
            around.add(ancestor)
    return around


def _is_shown(element: HtmlElement) -> bool:
    """Tell whether a reader of the page can see an element, now or after opening what holds it."""
    if element.tag in _NEVER_SHOWN or not isinstance(element.tag, str):
        return False
    if element.tag == "button":
        return any(ancestor.tag in _HEADINGS or ancestor.tag == "dt" for ancestor in element.iterancestors())
    words = _class_words(element)
    if words & _GUTTER_NAMES or (words & _HEADING_TOOLS and element.tag in ("a", "span")):
        return False
    return not _is_hidden(element) or element.get("role") in _DISCLOSED_ROLES


def _is_hidden(element: HtmlElement) -> bool:
    if element.tag == "dialog":
        return "open" not in element.attrib
    is_hidden = "hidden" in element.attrib and element.get("hidden") != "until-found"
    is_hidden |= element.get("aria-hidden") == "true"
    return is_hidden or _HIDDEN_STYLE.search(element.get("style", "")) is not None


def _main_element(root: HtmlElement) -> HtmlElement | None:
    """Return the element that a page declares its main content, or its only article."""
    for path in (".//main", ".//*[@role='main']", ".//article"):
        found = root.findall(path)
        if len(found) == 1:
            return found[0]
    return None


def _zone_of(element: HtmlElement) -> Zone:
    """Return the least zone that the element itself puts its text in."""
    role = element.get("role", "")
    if element.tag == "nav" or role in _NAVIGATION_ROLES:
        return Zone.NAVIGATION
    if element.tag == "aside" or role in _MARGIN_ROLES:
        return Zone.MARGIN
    if element.tag in ("header", "footer"):
        is_inside = any(ancestor.tag in ("main", "article", "section") for ancestor in element.iterancestors())
        return Zone.MAIN if is_inside else Zone.MARGIN
    is_named_so = bool(_class_words(element) & _MARGIN_NAMES) and element.tag not in _MAIN_CONTENT
    return Zone.MARGIN if is_named_so and not _holds(element, _MAIN_CONTENT) else Zone.MAIN


def _class_words(element: HtmlElement) -> frozenset[str]:
    names = f"{element.get('class', '')} {element.get('id', '')}"
    return frozenset(word.lower() for word in _CLASS_WORD.findall(names))
