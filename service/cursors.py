"""Cursors of lists: opaque to whoever gets one, and good in any generation."""

from __future__ import annotations

import base64
import binascii

from service.problems import Problem
from service.schemas.problems import FieldProblemJson


def cursor_after(doc_id: str) -> str:
    """Return the cursor of a list that goes on after a document."""
    return base64.urlsafe_b64encode(doc_id.encode()).decode().rstrip("=")


def document_before(cursor: str) -> str:
    """Return the id of the document after which a list goes on.

    Raises:
        Problem: it is no cursor.
    """
    try:
        return base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError) as exc:
        detail = "is no cursor; take it from next_cursor"
        raise Problem(
            "invalid_request",
            f"query/cursor {detail}.",
            fields=[FieldProblemJson(pointer="query/cursor", detail=detail)],
        ) from exc
