"""Structure recognised from the shape of plain text, where no markup tells it.

What is recognised is what a reader would see at a glance: underlined, numbered, capitalised or short title
lines followed by text, lists, and quoted lines. In doubt it is a paragraph.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from index.documents import BlockKind, Span
from index.readers.blocks import Blocks, Lines

_Take = Callable[[Lines, int, Blocks], int | None]

_RULER = re.compile(r"\s*([-=_*~^#])(?:[ \t]*\1){2,}\s*")
_UNDERLINE_LEVELS = {"=": 1, "-": 2}
_ITEM = re.compile(r"\s*(?:[-*•‣◦▪·–]|\(?\d{1,3}[.)]|\(?[a-zA-Z]\))[ \t]+\S")
_BULLET = re.compile(r"\s*[-*•‣◦▪·–][ \t]+\S")
_MARKED = re.compile(r"(#{1,6})[ \t]+(\S.*)")  # Markdown's headings are common in plain text, too
_NUMBERED = re.compile(r"\s*(\d{1,2}(?:\.\d{1,2})*)[.)]?[ \t]+(\S.*)")
_SENTENCE_END = re.compile(r"[.!?…。！？][\"'”’»)\]]*\s*$")
_NO_TITLE_END = re.compile(r"[.!,;:…。！，；：]\s*$")

_TITLE_CHARS = 80
_TITLE_WORDS = 12
_UNWRAPPED_CHARS = 160  # a longer line is a paragraph of its own
_LOOK_AHEAD = 3
_ITEM_LINES = 200  # how far the second item of a numbered list is looked for


def find_blocks(text: str, start: int = 0) -> Blocks:
    """Find the blocks of plain text from an offset on."""
    lines, blocks = Lines(text, start), Blocks(text)
    number = lines.skip_blank(0, len(lines))
    while number < len(lines):
        number = lines.skip_blank(_take_block(lines, number, blocks), len(lines))
    return blocks


def _take_block(lines: Lines, number: int, blocks: Blocks) -> int:
    """Take the block that begins on a line; each of the attempts returns the line after it, or None."""
    attempts: tuple[_Take, ...] = (_take_underlined, _take_ruler, _take_quote, _take_list, _take_heading)
    for attempt in attempts:
        end = attempt(lines, number, blocks)
        if end is not None:
            return end
    return _take_paragraph(lines, number, blocks)


def _take_underlined(lines: Lines, number: int, blocks: Blocks) -> int | None:
    title = number + 1 if _RULER.fullmatch(lines[number]) else number
    if lines.is_blank(title) or lines.is_blank(title + 1):
        return None
    ruler = _RULER.fullmatch(lines[title + 1])
    if ruler is None or not _is_titled(lines[title].strip()) or len(ruler[0]) < len(lines[title]) / 2:
        return None
    blocks.add_heading(lines.span(title, title + 1), _UNDERLINE_LEVELS.get(ruler[1], 3))
    return title + 2


def _take_ruler(lines: Lines, number: int, blocks: Blocks) -> int | None:
    return number + 1 if _RULER.fullmatch(lines[number]) else None


def _take_quote(lines: Lines, number: int, blocks: Blocks) -> int | None:
    end = number
    while end < len(lines) and lines[end].lstrip().startswith(">"):
        end += 1
    if end == number:
        return None
    blocks.add(BlockKind.QUOTE, lines.span(number, end))
    return end


def _take_list(lines: Lines, number: int, blocks: Blocks) -> int | None:
    if not _ITEM.match(lines[number]):
        return None
    is_numbered = not _BULLET.match(lines[number])
    base, firsts, end = lines.indent(number), [number], number + 1
    while end < len(lines):
        following = lines.skip_blank(end, len(lines))
        if following == len(lines) or not _continues_list(lines, end, following, base):
            break
        if len(firsts) == 1 and is_numbered and following > number + _ITEM_LINES:
            break
        if _ITEM.match(lines[following]) and lines.indent(following) <= base:
            firsts.append(following)
        end = following + 1
    if len(firsts) == 1 and is_numbered:
        return None  # a number alone is a heading or the start of a sentence
    blocks.add_parts(BlockKind.LIST, _parts(lines, firsts, end))
    return end


def _continues_list(lines: Lines, end: int, following: int, base: int) -> bool:
    if _ITEM.match(lines[following]):
        return True
    was_blank = following > end
    return lines.indent(following) > base if was_blank else not _RULER.fullmatch(lines[following])


def _parts(lines: Lines, firsts: list[int], end: int) -> list[Span]:
    return [lines.span(first, after) for first, after in zip(firsts, [*firsts[1:], end], strict=True)]


def _take_heading(lines: Lines, number: int, blocks: Blocks) -> int | None:
    line = lines[number].strip()
    marked, numbered = _MARKED.fullmatch(line), _NUMBERED.fullmatch(line)
    words = marked[2] if marked else numbered[2] if numbered else line
    if not _is_titled(words) or not _leads_to_text(lines, number):
        return None
    if marked:
        level = len(marked[1])
    elif numbered:
        level = numbered[1].count(".") + 2
    else:
        level = 2 if blocks.found else 1
    end = lines.start(number) + len(lines[number].rstrip())
    blocks.add_heading((end - len(words if marked else line), end), level)
    return number + 1


def _is_titled(line: str) -> bool:
    """Whether a line could be a title: short, capitalised, mostly letters, and not the end of a sentence."""
    if len(line) > _TITLE_CHARS or len(line.split()) > _TITLE_WORDS or _NO_TITLE_END.search(line):
        return False
    if line[:1].islower() or "://" in line or "|" in line or "\t" in line:
        return False
    letters = sum(character.isalpha() for character in line)
    return letters > len(line.replace(" ", "")) / 2


def _leads_to_text(lines: Lines, number: int) -> bool:
    """Whether text follows a title line, either right below it or after an empty line and further titles."""
    if not lines.is_blank(number + 1):
        return _stands_above(lines[number].strip(), lines[number + 1].strip())
    for _ in range(_LOOK_AHEAD):
        number = lines.skip_blank(number + 1, len(lines))
        if number == len(lines):
            return False
        if _is_prose(lines[number]) or not lines.is_blank(number + 1):
            return True
    return False


def _stands_above(title: str, line: str) -> bool:
    """Whether a line ends early although the next word had room: then it is not the same paragraph."""
    first_word = line.split(maxsplit=1)[0]
    had_room = len(title) + 1 + len(first_word) < 0.75 * len(line)
    return had_room and line[0].isalnum() and _is_prose(line)


def _is_prose(line: str) -> bool:
    is_item = _BULLET.match(line) is not None
    return is_item or len(line) > _TITLE_CHARS or _SENTENCE_END.search(line) is not None


def _take_paragraph(lines: Lines, number: int, blocks: Blocks) -> int:
    end = number + 1
    while not lines.is_blank(end) and not _begins_anew(lines, end):
        end += 1
    blocks.add(BlockKind.PARAGRAPH, lines.span(number, end))
    return end


def _begins_anew(lines: Lines, number: int) -> bool:
    """Whether a line within a run of lines is not the same paragraph as the line above."""
    above, line = lines[number - 1], lines[number]
    if max(len(above), len(line)) > _UNWRAPPED_CHARS or line.startswith(">"):
        return True
    if _RULER.fullmatch(line):
        return True
    if not _ITEM.match(line):
        return False
    next_is_bullet = not lines.is_blank(number + 1) and _BULLET.match(lines[number + 1])
    return above.rstrip().endswith(":") or bool(_BULLET.match(line) and next_is_bullet)
