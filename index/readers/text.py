"""Decoding bytes into canonical text, and plain text and source code as documents."""

from __future__ import annotations

import codecs
import re
from collections.abc import Sequence

from charset_normalizer import from_bytes

from index.documents import HALF_SURROGATE, BlockKind, Content
from index.errors import DocumentError
from index.readers.blocks import Blocks, Lines
from index.readers.front_matter import front_matter, front_title
from index.readers.limits import Limits
from index.readers.shape import find_blocks

# UTF-32 first: its little-endian mark begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)

# Letters outside ASCII are few in a text of the first alphabets and most of it in the second.
_WESTERN = "cp1252"
_LATIN = (_WESTERN, "cp1250", "cp1254")
_OTHER = ("cp932", "euc_jp", "gb18030", "big5", "cp949", "cp1251", "koi8_r", "cp1253", "cp1255", "cp1256")
_LATIN_SHARE = 0.25
_SAMPLE_BYTES = 64_000

_OUTSIDE_ASCII = re.compile(rb"[\x80-\xff]+")
_LINE_BREAKS = re.compile("\r\n?")
_CONTROLS = re.compile("[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f-\x84\x86-\x9f]")
_MAX_CONTROL_SHARE = 0.02
_MEANINGLESS = re.compile("\x1b\\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ufffe\uffff]")


def decode(data: bytes) -> str:
    """Decode bytes into the canonical text of a text format.

    A byte order mark is honoured and dropped. Without one it is UTF-8, also where a few bytes of it are
    damaged, or else the encoding that gives the most natural text, Windows-1252 (Latin-1) in doubt. Every
    line ends with a line feed alone.

    Raises:
        DocumentError: the bytes are no text.
    """
    text = _LINE_BREAKS.sub("\n", _decode(data))
    controls = sum(1 for _ in _CONTROLS.finditer(text))
    if "\0" in text or controls > _MAX_CONTROL_SHARE * len(text):
        raise DocumentError("it looks binary, not like text; save it in a supported format and add it again")
    return text


def canonical_text(data: bytes, limits: Limits) -> str:
    """Decode the bytes of a text format within the limits.

    Raises:
        DocumentError: the bytes are no text, or more of it than `Limits.text_chars`.
    """
    text = decode(data)
    if len(text) > limits.text_chars:
        raise DocumentError(f"its text is longer than {limits.text_chars:,} characters; split it into smaller files")
    return text


def clean(text: str) -> str:
    """Free extracted text of what no document means: colours of a terminal, controls, half surrogate pairs."""
    text = _MEANINGLESS.sub("", _LINE_BREAKS.sub("\n", text))
    return HALF_SURROGATE.sub("\N{REPLACEMENT CHARACTER}", text)


def read_text(data: bytes, limits: Limits) -> Content:
    """Read plain text; headings, lists and quotes are recognised from their shape."""
    text = canonical_text(data, limits)
    metadata, start = front_matter(text)
    return find_blocks(text, start).content(title=front_title(metadata), metadata=metadata)


def read_code(data: bytes, limits: Limits) -> Content:
    """Read source code: a block runs to an empty line that is followed by one without indentation."""
    text = canonical_text(data, limits)
    lines, blocks = Lines(text), Blocks(text)
    first = 0
    for number in range(1, len(lines)):
        if lines.is_blank(number - 1) and lines[number][:1].strip():
            blocks.add(BlockKind.CODE, lines.span(first, number))
            first = number
    blocks.add(BlockKind.CODE, lines.span(first, len(lines)))
    return blocks.content()


def _decode(data: bytes) -> str:
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return data[len(mark) :].decode(encoding, errors="replace")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return _decode_undeclared(data)


def _decode_undeclared(data: bytes) -> str:
    damaged = data.decode("utf-8", errors="replace")
    sound = sum(1 for character in damaged if character > "\x7f" and character != "\ufffd")
    if sound > 4 * damaged.count("\ufffd"):  # by chance, other encodings hardly ever form valid UTF-8
        return damaged
    return data.decode(_guess_encoding(data), errors="replace")


def _guess_encoding(data: bytes) -> str:
    sample = _telling_lines(data)
    outside = sum(len(run) for run in _OUTSIDE_ASCII.findall(sample))
    is_latin = outside < _LATIN_SHARE * len(sample)
    return _most_natural(sample, _LATIN if is_latin else _OTHER) or _most_natural(sample, _OTHER) or _WESTERN


def _telling_lines(data: bytes) -> bytes:
    """Join the first lines that are not plain ASCII: the others fit any encoding."""
    telling: list[bytes] = []
    size = 0
    for line in data.splitlines():
        if not line.isascii():
            telling.append(line[:_SAMPLE_BYTES])
            size += len(line)
        if size >= _SAMPLE_BYTES:
            break
    return b"\n".join(telling)


def _most_natural(sample: bytes, encodings: Sequence[str]) -> str | None:
    matches = from_bytes(sample, cp_isolation=list(encodings))
    best = matches.best()
    if best is None:
        return None
    as_natural = (match for match in matches if match.chaos <= best.chaos)
    in_doubt = any(_WESTERN in match.could_be_from_charset for match in as_natural)
    return _WESTERN if in_doubt else best.encoding
