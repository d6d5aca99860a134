"""Saved answers in, citations out: whatever shape they were saved in."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from index.citations import PresentText, SavedCitation, Verification, verify
from index.corpus import Corpus
from index.documents import HALF_SURROGATE
from index.errors import CitationError
from index.generations import Home
from index.present import PresentDocuments
from index.store import Store


def read_citations(path: Path) -> list[SavedCitation]:
    """Read every citation in a file of saved answers, each once, in order.

    Args:
        path: JSON or JSON Lines with answers, passages or bare citations; `-` for standard input.

    Raises:
        CitationError: the file cannot be read, is not JSON, or holds no citation.
    """
    try:
        data = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
        text = data.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as exc:
        raise CitationError(f"{path} cannot be read: {exc}. Name a file written by whence ask --json.") from exc
    found = citations_in(_records(text, path))
    if not found:
        raise CitationError(f"{path} holds no citation. Name a file written by whence ask --json or whence batch.")
    return found


def citations_in(value: Any) -> list[SavedCitation]:
    """Find every citation in parsed JSON, at any depth, each once, in order.

    Raises:
        CitationError: one lacks what is needed to check it, or the value is nested too deeply.
    """
    try:
        return list(dict.fromkeys(_citations(value)))
    except RecursionError as exc:
        raise _too_deep() from exc


def verify_citations(
    citations: Sequence[SavedCitation], home: Home, *, store: Store | None = None
) -> list[Verification]:
    """Check citations against the documents as they are now, see `index.present`.

    Those of a store are as they were indexed: their files are elsewhere.
    """
    if store is not None:
        with closing(store.open_current()) as stored:
            return [verify(citation, partial(_as_indexed, stored.corpus)) for citation in citations]
    generation = home.open_current()
    try:
        with PresentDocuments(generation) as documents:
            return [verify(citation, documents.text) for citation in citations]
    finally:
        generation.close()


def _as_indexed(corpus: Corpus, doc_id: str) -> PresentText | None:
    record = corpus.document(doc_id)
    return None if record is None else PresentText(corpus.text(record), record.sha256)


def _records(text: str, path: Path) -> list[Any]:
    try:
        return [json.loads(text)]
    except ValueError:
        return list(_lines(text, path))
    except RecursionError as exc:
        raise _too_deep() from exc


def _lines(text: str, path: Path) -> Iterator[Any]:
    # Not splitlines(): a quote may hold one of the rarer line breaks, which JSON leaves as they are.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield json.loads(line)
            except RecursionError as exc:
                raise _too_deep() from exc
            except ValueError as exc:
                raise CitationError(f"{path}, line {number} is not JSON: {exc}.") from exc


def _too_deep() -> CitationError:
    return CitationError("What was given is nested too deeply. Give answers as they were saved.")


def _citations(value: Any) -> Iterator[SavedCitation]:
    """Find citations at any depth: objects with a document, a quote and its place."""
    if isinstance(value, list):
        for each in value:
            yield from _citations(each)
    elif isinstance(value, dict):
        if {"document", "quote", "start", "end"} <= value.keys():
            yield _saved(value)
        else:
            for each in value.values():
                yield from _citations(each)


def _saved(value: dict[str, Any]) -> SavedCitation:
    try:
        citation = SavedCitation(
            doc_id=value["document"]["id"],
            sha256=value["document"].get("sha256", ""),
            start=value["start"],
            end=value["end"],
            quote=value["quote"],
            prefix=value.get("prefix", ""),
            suffix=value.get("suffix", ""),
        )
    except (KeyError, TypeError, AttributeError) as exc:
        raise CitationError(f"A citation lacks its document's id: {str(value)[:120]}") from exc
    texts = (citation.doc_id, citation.sha256, citation.quote, citation.prefix, citation.suffix)
    offsets = (citation.start, citation.end)
    if not all(map(_is_text, texts)) or not all(map(_is_offset, offsets)):
        raise CitationError(f"A citation has values of the wrong kind: {ascii(value)[:120]}")
    return citation


def _is_text(value: Any) -> bool:
    # JSON can spell half a character, which is in no document and cannot be printed.
    return isinstance(value, str) and not HALF_SURROGATE.search(value)


def _is_offset(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
