"""Markdown: CommonMark with tables, strikethrough and YAML front matter."""

from __future__ import annotations

import re
from collections.abc import Sequence

from markdown_it import MarkdownIt
from markdown_it.token import Token
from markdown_it.tree import SyntaxTreeNode

from index.documents import BlockKind, Content, Span
from index.readers.blocks import Blocks, Lines
from index.readers.front_matter import front_matter, front_title
from index.readers.limits import Limits
from index.readers.text import canonical_text

_KINDS = {
    "paragraph": BlockKind.PARAGRAPH,
    "blockquote": BlockKind.QUOTE,
    "code_block": BlockKind.CODE,
    "bullet_list": BlockKind.LIST,
    "ordered_list": BlockKind.LIST,
}
_ATX = re.compile(r"[ \t]*#{1,6}[ \t]+(.*?)(?:[ \t]+#+)?[ \t]*")
_ANCHOR = re.compile(r"\{:?[ \t]*[#.][^{}]*\}[ \t]*$")  # "{ #name }", as documentation generators write
_UNSEEN_HTML = re.compile(
    r"<!--.*?(?:-->|\Z)|<(script|style)\b.*?(?:</\1\s*>|\Z)|<[^<>]*>", re.DOTALL | re.IGNORECASE
)
_FOOTNOTE = "[^"

# Only headings need their inline markup parsed, which is most of the work.
_BLOCK_PARSER = MarkdownIt("commonmark").enable("table").disable("inline")
_INLINE_PARSER = MarkdownIt("commonmark").enable("strikethrough")


def read_markdown(data: bytes, limits: Limits) -> Content:
    """Read Markdown; the canonical text is the file with its marks, a heading's span only its words.

    Front matter, link definitions, comments, rulers and HTML tags without text are in no block.
    """
    return parse(canonical_text(data, limits))


def parse(text: str) -> Content:
    """Find the blocks of Markdown text."""
    metadata, start = front_matter(text)
    lines, blocks = Lines(text, start), Blocks(text)
    seen = 0
    for node in SyntaxTreeNode(_BLOCK_PARSER.parse(text[start:])).children:
        first, end = _lines_of(node)
        _add_footnotes(lines, seen, first, blocks)
        _add_node(node, lines, blocks)
        seen = end
    _add_footnotes(lines, seen, len(lines), blocks)
    return blocks.content(title=front_title(metadata), metadata=metadata)


def _lines_of(node: SyntaxTreeNode) -> Span:
    """Return the first line of a node and the line after its last."""
    first, end = node.map or (0, 0)
    return first, end


def _add_node(node: SyntaxTreeNode, lines: Lines, blocks: Blocks) -> None:
    span = lines.span(*_lines_of(node))
    if node.type == "heading":
        _add_heading(node, lines, blocks)
    elif node.type == "fence":
        _add_fence(node, lines, blocks)
    elif node.type == "table":
        rows = [lines.span(*_lines_of(row)) for section in node.children for row in section.children]
        blocks.add_parts(BlockKind.TABLE, rows, header_rows=1)
    elif node.type == "html_block":
        if _UNSEEN_HTML.sub("", node.content).strip():
            blocks.add(BlockKind.PARAGRAPH, span)
    elif node.type in _KINDS:
        items = [lines.span(*_lines_of(item)) for item in node.children if item.type == "list_item"]
        blocks.add(_KINDS[node.type], span, items)


def _add_heading(node: SyntaxTreeNode, lines: Lines, blocks: Blocks) -> None:
    if not node.children[0].content:
        return
    first, end = _lines_of(node)
    marked = _ATX.fullmatch(lines[first]) if node.markup.startswith("#") else None
    if marked is not None:
        start, stop = lines.start(first) + marked.start(1), lines.start(first) + marked.end(1)
    else:
        start, stop = lines.span(first, end - 1)  # the last line underlines the others
    anchor = _ANCHOR.search(blocks.text[start:stop])
    if anchor is not None:
        stop = start + anchor.start()
    title = _words(_INLINE_PARSER.parseInline(blocks.text[start:stop].strip()))
    blocks.add_heading((start, stop), int(node.tag[1:]), title)


def _words(tokens: Sequence[Token]) -> str:
    """Join what inline tokens show, without their markup."""
    return "".join(
        _words(token.children) if token.children else " " if token.type == "softbreak" else token.content
        for token in tokens
        if token.type != "html_inline"
    )


def _add_fence(node: SyntaxTreeNode, lines: Lines, blocks: Blocks) -> None:
    first, _ = _lines_of(node)
    count = node.content.removesuffix("\n").count("\n") + 1  # a fence that is never closed may end without a break
    if node.content.strip():
        blocks.add(BlockKind.CODE, lines.span(first + 1, first + 1 + count))


def _add_footnotes(lines: Lines, first: int, end: int, blocks: Blocks) -> None:
    """Add what CommonMark takes for a link definition although it is a footnote of one word."""
    for number in range(first, end):
        if lines[number].lstrip().startswith(_FOOTNOTE):
            blocks.add(BlockKind.PARAGRAPH, lines.span(number, number + 1))
