"""Receiving uploads: the body of a request goes into files as it comes, and nothing of it stays unless it is kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from anyio import to_thread
from fastapi import Request
from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from index.readers.limits import Limits
from index.uploads import Incoming, Uploads
from service.problems import Problem

if TYPE_CHECKING:  # there at no other time
    from python_multipart.multipart import MultipartCallbacks

BUFFER_BYTES = 1 << 20  # gathered before they are written
MAX_FILES = 1_000  # in one body
MAX_FIELDS = 20
MAX_FIELD_BYTES = 1_000_000
MULTIPART = "multipart/form-data"


@dataclass(frozen=True)
class ReceivedFile:
    """A file that has been received in full.

    Attributes:
        file: its name among the uploads.
        sha256: hexadecimal digest of its bytes.
        size: in bytes.
        media_type: as the sender says; empty when it does not.
        filename: as the sender says; empty when it does not.
    """

    file: str
    sha256: str
    size: int
    media_type: str
    filename: str


@dataclass(frozen=True)
class ReceivedForm:
    """A multipart body that has been received in full.

    Attributes:
        files: name of the part and its file, in order.
        fields: the other parts by name.
    """

    files: tuple[tuple[str, ReceivedFile], ...]
    fields: dict[str, str]


@contextmanager
def receiving(uploads: Uploads) -> Iterator[Receiver]:
    """Give a receiver; in the end, whatever that is, what it received and nobody kept is removed."""
    receiver = Receiver(uploads)
    try:
        yield receiver
    finally:
        receiver.discard()


class Receiver:
    """Receives one body.

    Args:
        uploads: where files go.
    """

    def __init__(self, uploads: Uploads) -> None:
        self._uploads = uploads
        self._incoming: list[Incoming] = []

    async def receive_file(self, request: Request) -> ReceivedFile:
        """Receive a body that is a file.

        Raises:
            Problem: it is too large.
            StateError: there is no room for it.
            ClientDisconnect: the sender has left.
        """
        file = await self.open()
        async for data in request.stream():
            await file.write(data)
        return await file.finish(media_type=media_type_of(request), filename="")

    async def receive_form(self, request: Request) -> ReceivedForm:
        """Receive a multipart body.

        Raises:
            Problem: it is not well-formed, or has too many or too large parts.
            StateError: there is no room for it.
            ClientDisconnect: the sender has left.
        """
        parts = _Parts(request.headers.get("content-type", ""))
        form = _Form(self)
        async for data in request.stream():
            for event in parts.read(data):
                await form.take(event)
        parts.finish()
        return ReceivedForm(tuple(form.files), form.fields)

    async def receive_bytes(self, request: Request, *, limit: int) -> bytes:
        """Receive a body into memory.

        Raises:
            Problem: it has more than `limit` bytes.
            ClientDisconnect: the sender has left.
        """
        body = bytearray()
        async for data in request.stream():
            body += data
            if len(body) > limit:
                raise Problem("body_too_large", f"As JSON a document may have {limit:,} bytes. Send the file itself.")
        return bytes(body)

    async def store(self, data: bytes) -> ReceivedFile:
        """Store bytes as if they had been received as a file."""
        file = await self.open()
        await file.write(data)
        return await file.finish(media_type="", filename="")

    def discard(self) -> None:
        """Remove what was received and not kept."""
        for incoming in self._incoming:
            incoming.discard()

    async def open(self) -> _File:
        """Begin another file."""
        incoming = await to_thread.run_sync(self._uploads.receive)
        self._incoming.append(incoming)
        return _File(incoming)


def media_type_of(request: Request) -> str:
    """Return the media type of a body, in lower case without parameters; empty when there is none."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


class _File:
    """A file being received; what comes in small pieces is written in large ones, beside the event loop."""

    def __init__(self, incoming: Incoming) -> None:
        self._incoming = incoming
        self._buffer = bytearray()
        self._size = 0

    async def write(self, data: bytes) -> None:
        """Add bytes."""
        self._size += len(data)
        if self._size > Limits().source_bytes:
            raise Problem(
                "body_too_large", f"A document may have {Limits().source_bytes:,} bytes. Split it into smaller ones."
            )
        self._buffer += data
        if len(self._buffer) >= BUFFER_BYTES:
            await self._flush()

    async def finish(self, *, media_type: str, filename: str) -> ReceivedFile:
        """Flush it to disk."""
        await self._flush()
        sha256 = await to_thread.run_sync(self._incoming.finish)
        return ReceivedFile(self._incoming.file, sha256, self._size, media_type, filename)

    async def _flush(self) -> None:
        data, self._buffer = bytes(self._buffer), bytearray()
        if data:
            await to_thread.run_sync(self._incoming.write, data)


@dataclass(frozen=True)
class _Start:
    """A part begins.

    Attributes:
        name: of the part.
        filename: None for a part that is no file.
        media_type: empty when it has none.
    """

    name: str
    filename: str | None
    media_type: str


@dataclass(frozen=True)
class _End:
    """A part ends."""


_Event = _Start | bytes | _End


class _Form:
    """Takes the parts of a form as they come: files to disk, fields into memory."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._start = _Start("", None, "")
        self._file: _File | None = None
        self._field = bytearray()
        self.files: list[tuple[str, ReceivedFile]] = []
        self.fields: dict[str, str] = {}

    async def take(self, event: _Event) -> None:
        """Take what comes next."""
        match event:
            case _Start():
                await self._begin(event)
            case bytes():
                await self._add(event)
            case _End():
                await self._end()

    async def _begin(self, start: _Start) -> None:
        self._start, self._file, self._field = start, None, bytearray()
        if start.filename is not None:
            if len(self.files) >= MAX_FILES:
                raise _malformed(f"has more than {MAX_FILES:,} files; send the rest in another one")
            self._file = await self._receiver.open()
        elif start.name in self.fields:
            raise _malformed(f"has the field {start.name!r} twice")
        elif len(self.fields) >= MAX_FIELDS:
            raise _malformed(f"has more than {MAX_FIELDS} fields")

    async def _add(self, data: bytes) -> None:
        if self._file is not None:
            await self._file.write(data)
            return
        self._field += data
        if len(self._field) > MAX_FIELD_BYTES:
            raise _malformed(f"has a field of more than {MAX_FIELD_BYTES:,} bytes; send a file with a file name")

    async def _end(self) -> None:
        if self._file is not None:
            received = await self._file.finish(media_type=self._start.media_type, filename=self._start.filename or "")
            self.files.append((self._start.name, received))
            return
        try:
            self.fields[self._start.name] = self._field.decode()
        except UnicodeDecodeError as exc:
            raise _malformed(f"has a field {self._start.name!r} that is not UTF-8") from exc


class _Parts:
    """Turns the bytes of a multipart body into events."""

    def __init__(self, content_type: str) -> None:
        _, parameters = parse_options_header(content_type)
        self._events: list[_Event] = []
        self._headers: dict[bytes, bytes] = {}
        self._name, self._value = bytearray(), bytearray()
        self._is_whole = False
        callbacks: MultipartCallbacks = {
            "on_part_begin": self._headers.clear,
            "on_header_field": self._add_name,
            "on_header_value": self._add_value,
            "on_header_end": self._end_header,
            "on_headers_finished": self._start,
            "on_part_data": self._add_data,
            "on_part_end": self._end,
            "on_end": self._finish,
        }
        try:
            self._parser = MultipartParser(parameters[b"boundary"], callbacks)
        except (KeyError, FormParserError) as exc:
            raise _malformed("has no boundary that makes sense in its Content-Type") from exc

    def read(self, data: bytes) -> list[_Event]:
        """Return the events in further bytes."""
        try:
            self._parser.write(data)
        except FormParserError as exc:
            raise _malformed(f"is not well-formed: {exc}") from exc
        events, self._events = self._events, []
        return events

    def finish(self) -> None:
        """Check that the body was not cut off."""
        if not self._is_whole:
            raise _malformed("ends before its last boundary")

    def _add_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _add_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        self._headers[bytes(self._name).lower()] = bytes(self._value)
        self._name, self._value = bytearray(), bytearray()

    def _start(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition"))
        if b"name" not in options:
            raise _malformed("has a part without a name")
        filename = options.get(b"filename")
        media_type, _ = parse_options_header(self._headers.get(b"content-type"))
        self._events.append(
            _Start(_text(options[b"name"]), None if filename is None else _text(filename), _text(media_type))
        )

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        self._events.append(data[start:end])

    def _end(self) -> None:
        self._events.append(_End())

    def _finish(self) -> None:
        self._is_whole = True


def _text(data: bytes) -> str:
    """Decode a header of a part, which is UTF-8 by now and was Latin-1 once."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _malformed(reason: str) -> Problem:
    return Problem("malformed_body", f"The multipart body {reason}.")
