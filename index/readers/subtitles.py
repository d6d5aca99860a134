"""Subtitles (WebVTT, SubRip), joined into paragraphs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from html import unescape
from io import StringIO

from webvtt import WebVTT
from webvtt.errors import MalformedCaptionError, MalformedFileError

from index.documents import BlockKind, Content
from index.errors import DocumentError
from index.readers.builder import ContentBuilder
from index.readers.limits import Limits
from index.readers.text import canonical_text, clean

PAUSE_S = 3.0
PARAGRAPH_CHARS = 600

_VOICE = re.compile(r"<v(?:\.[^\s<>]*+)?\s++([^<>]++)>")
_TAG = re.compile(r"<[^<>]*>|\{\\[^{}]*\}")
_NEW_SPEAKER = re.compile(r"(?:>>|[-–—]\s*(?=\S)|[^\W\d_][\w .'-]{0,30}:\s)")
_SENTENCE_END = re.compile(r"[.!?…。！？][\"'”’»)\]]*$")


@dataclass(frozen=True)
class _Line:
    """A line of a subtitle: who speaks (None when it is not said), the words, and when, in seconds."""

    speaker: str | None
    words: str
    start_s: float
    end_s: float


def read_vtt(data: bytes, limits: Limits) -> Content:
    """Read WebVTT subtitles; see `read_srt`."""
    return _read(canonical_text(data, limits), "vtt", limits)


def read_srt(data: bytes, limits: Limits) -> Content:
    """Read SubRip subtitles.

    Lines are joined into paragraphs, which end where another speaker begins, with a pause, or with a sentence
    once they are long. Metadata: `duration`, the end of the last subtitle in seconds.

    Raises:
        DocumentError: the file does not have the form of its format.
    """
    return _read(canonical_text(data, limits), "srt", limits)


def _read(text: str, form: str, limits: Limits) -> Content:
    try:
        subtitles = WebVTT.from_buffer(StringIO(text.lstrip()), format=form)
    except (MalformedFileError, MalformedCaptionError) as exc:
        raise DocumentError(f"its subtitles are malformed: {exc}; export them again as {form.upper()}") from exc
    lines = list(_lines(subtitles))
    builder = ContentBuilder(limits)
    for paragraph in _paragraphs(lines):
        builder.add(BlockKind.PARAGRAPH, paragraph)
    return builder.content(metadata={"duration": max(line.end_s for line in lines)} if lines else {})


def _lines(subtitles: WebVTT) -> Iterator[_Line]:
    """Yield the lines without tags; those that rolling subtitles merely show again are left out."""
    shown: list[str] = []
    shown_until = 0.0
    for caption in subtitles.captions:
        start, end = (time.in_milliseconds() / 1000 for time in (caption.start_time, caption.end_time))
        lines = [_line(raw, start, end) for raw in caption.raw_text.split("\n")]
        visible = [line for line in lines if line.words]
        again = [line.words for line in visible[:1]] == shown[-1:] and start - shown_until < 0.05
        yield from visible[1:] if again else visible
        shown, shown_until = [line.words for line in visible] or shown, end


def _line(raw: str, start: float, end: float) -> _Line:
    voice = _VOICE.search(raw)
    words = " ".join(clean(unescape(_TAG.sub("", raw))).split())
    return _Line(unescape(voice[1]).strip() if voice else None, words, start, end)


def _paragraphs(lines: Iterable[_Line]) -> Iterator[str]:
    words = ""
    speaker: str | None = None
    until = 0.0
    for line in lines:
        is_new_speaker = line.speaker is not None and line.speaker != speaker
        paused = line.start_s - until > PAUSE_S
        is_long = len(words) >= PARAGRAPH_CHARS and _SENTENCE_END.search(words) is not None
        if words and (is_new_speaker or paused or is_long or _NEW_SPEAKER.match(line.words)):
            yield words
            words = ""
        label = f"{line.speaker}: " if is_new_speaker else ""
        words = f"{words} {label}{line.words}".strip()
        speaker, until = line.speaker or speaker, line.end_s
    if words:
        yield words
