"""Opening files that anyone may have put there."""

from __future__ import annotations

import os
import stat
from io import BufferedReader
from pathlib import Path

from index.errors import DocumentError
from index.readers.limits import Limits

# A link is not followed, and a named pipe that nobody writes to is not waited for.
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def open_file(path: Path, limits: Limits) -> BufferedReader:
    """Open a regular file for reading.

    Raises:
        DocumentError: it cannot be opened, is a link or no regular file, or is larger than
            `Limits.source_bytes`.
    """
    try:
        descriptor = os.open(path, _FLAGS)
    except OSError as exc:
        raise unreadable(exc) from exc
    try:
        _check(os.fstat(descriptor), limits)
    except DocumentError:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb")


def _check(status: os.stat_result, limits: Limits) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise DocumentError("is no regular file; only files with text can be added")
    if status.st_size > limits.source_bytes:
        raise DocumentError(
            f"has {status.st_size:,} bytes, more than {limits.source_bytes:,}; split it into smaller files"
        )


def unreadable(error: OSError) -> DocumentError:
    """Return the error for a file or folder that the system does not let us open."""
    return DocumentError(f"cannot be opened ({error.strerror}); check that it exists and may be read")
