"""How much of an untrusted file a reader is willing to take in."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds on one file. Crossing one is a `DocumentError` that names the bound.

    Attributes:
        source_bytes: size of the file itself.
        inflated_bytes: what an archive (DOCX, EPUB, ...) may inflate to in total.
        archive_entries: files inside an archive.
        text_chars: code points of canonical text.
        pages: of a PDF or slides of a presentation.
        nesting: depth of elements, lists or JSON values.
        seconds: wall-clock time for one file; enforced by killing the process that reads it.
        memory_bytes: address space of that process.
    """

    source_bytes: int = 200_000_000
    inflated_bytes: int = 500_000_000
    archive_entries: int = 10_000
    text_chars: int = 20_000_000
    pages: int = 5_000
    nesting: int = 200
    seconds: float = 60.0
    memory_bytes: int = 1_500_000_000
