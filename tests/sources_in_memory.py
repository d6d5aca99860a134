"""Documents written down in a test, as a source that can be synced."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from index.documents import Document
from index.readers.limits import Limits
from index.readers.markdown import read_markdown
from index.sources import Rejected, Unchanged


def markdown_document(doc_id: str, text: str) -> Document:
    """Read a document from Markdown text."""
    data = text.encode()
    content = read_markdown(data, Limits())
    return Document(
        doc_id,
        content.title or doc_id,
        "text/markdown",
        hashlib.sha256(data).hexdigest(),
        len(data),
        content,
    )


@dataclass(frozen=True)
class MemorySource:
    """A source whose documents are Markdown texts.

    Attributes:
        texts: doc_id -> Markdown.
        key: what tells it from other sources.
        rejected: what it says cannot be read.
    """

    texts: Mapping[str, str]
    key: str = "memory"
    prefix: str = ""
    is_bundled: bool = False
    rejected: tuple[Rejected, ...] = ()

    def read(self, known: Mapping[str, str]) -> Iterator[Document | Unchanged | Rejected]:
        """Yield its documents in order of their ids, then what was rejected."""
        for doc_id in sorted(self.texts):
            document = markdown_document(self.prefix + doc_id, self.texts[doc_id])
            is_known = known.get(document.doc_id) == document.sha256
            yield Unchanged(document.doc_id) if is_known else document
        yield from self.rejected
