"""E-mail messages (EML)."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from contextlib import suppress
from email import message_from_bytes
from email.errors import MessageError
from email.header import decode_header, make_header
from email.message import Message
from email.utils import parsedate_to_datetime

from index.documents import BlockKind, Content, MetadataValue
from index.errors import DocumentError
from index.readers.blocks import copy_blocks
from index.readers.builder import ContentBuilder
from index.readers.html import read_html
from index.readers.limits import Limits
from index.readers.shape import find_blocks
from index.readers.text import clean, decode

_TOO_DEEP = "its parts are nested too deeply to be read; save the message without them"
_BODIES = ("text/plain", "text/html")


def read_mail(data: bytes, limits: Limits) -> Content:
    """Read a message: its subject as heading, then its texts; of alternatives the plain one.

    Quoted lines of earlier messages are quotes. Metadata: `from`, `to`, `cc`, `date` (ISO 8601) and the names
    of the `attachments`, which are not read.

    Raises:
        DocumentError: its parts are nested deeper than `Limits.nesting`, or a body is not text.
    """
    try:
        message = message_from_bytes(data)
    except RecursionError as exc:
        raise DocumentError(_TOO_DEEP) from exc
    parts = list(_parts(message, limits.nesting))
    builder = ContentBuilder(limits)
    subject = _header(message, "subject")
    builder.add(BlockKind.HEADING, subject, level=1)
    for part in parts:
        if _is_body(part):
            copy_blocks(_body(part, limits), builder)
    return builder.content(title=subject or None, metadata=_metadata(message, parts))


def _parts(message: Message, depth: int) -> Iterator[Message]:
    """Yield the parts that are not made of others; of alternatives only the one that is read."""
    if depth < 0:
        raise DocumentError(_TOO_DEEP)
    if message.get_content_maintype() != "multipart" or not message.is_multipart():
        yield message
        return
    inner = [part for part in message.get_payload() if isinstance(part, Message)]
    if message.get_content_subtype() == "alternative":
        inner = [_preferred(inner)] if inner else []
    for part in inner:
        yield from _parts(part, depth - 1)


def _preferred(alternatives: list[Message]) -> Message:
    """Choose the plain text unless it is empty, else the richest, which comes last."""
    plain = (part for part in alternatives if part.get_content_type() == "text/plain" and _payload(part).strip())
    return next(plain, alternatives[-1])


def _is_body(part: Message) -> bool:
    return part.get_content_type() in _BODIES and part.get_content_disposition() != "attachment"


def _body(part: Message, limits: Limits) -> Content:
    text = _decoded(_payload(part), part.get_content_charset())
    if part.get_content_type() == "text/html":
        return read_html(codecs.BOM_UTF8 + text.encode(errors="replace"), limits)
    return find_blocks(clean(text)).content()


def _payload(part: Message) -> bytes:
    payload = part.get_payload(decode=True)
    return payload if isinstance(payload, bytes) else b""


def _decoded(payload: bytes, charset: str | None) -> str:
    """Decode a body as it declares, or as text of undeclared encoding when the declaration is wrong."""
    try:
        return payload.decode(charset or "utf-8")
    except (LookupError, ValueError):  # an unknown encoding, or bytes that are not in it
        return decode(payload)


def _header(message: Message, name: str) -> str:
    """Return a header in one line, with encoded words decoded; empty when it is missing."""
    raw = next((str(value) for key, value in message.raw_items() if key.lower() == name), "")
    return _unencoded(decode(raw.encode(errors="surrogateescape")))


def _unencoded(value: str) -> str:
    """Decode the encoded words of a header value; what is not well-formed stays as it is."""
    with suppress(LookupError, ValueError, MessageError):
        value = str(make_header(decode_header(value)))
    return " ".join(clean(value).split())


def _metadata(message: Message, parts: list[Message]) -> dict[str, MetadataValue]:
    metadata: dict[str, MetadataValue] = {name: _header(message, name) for name in ("from", "to", "cc")}
    metadata["date"] = _date(_header(message, "date"))
    metadata["attachments"] = [name for part in parts if not _is_body(part) and (name := _file_name(part))]
    return {name: value for name, value in metadata.items() if value}


def _date(value: str) -> str:
    try:
        return parsedate_to_datetime(value).isoformat()
    except (TypeError, ValueError, OverflowError):  # overflow: of an hour or a time zone
        return value


def _file_name(part: Message) -> str:
    return _unencoded(part.get_filename() or "")
