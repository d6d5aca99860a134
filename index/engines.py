"""Who does the work of a build: this process, or the workers of a cluster. What comes out is the same."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from index.chunks import Chunk
from index.documents import Document
from index.embeddings import Embeddings, Encoder, OnProgress
from index.sources import Rejected, Unchanged


class DocumentSource(Protocol):
    """Anything that yields documents: a folder or file (`index.sources.Source`), or what was put over HTTP."""

    @property
    def key(self) -> str:
        """What tells it from other sources."""

    @property
    def prefix(self) -> str:
        """Put before the ids of its documents."""

    @property
    def is_bundled(self) -> bool:
        """Whether it is the bundled corpus, which gives way to a user's own documents."""

    def read(self, known: Mapping[str, str]) -> Iterator[Document | Unchanged | Rejected]:
        """Yield its documents, and what cannot be one.

        Args:
            known: doc_id -> SHA-256 of the source bytes; one that is still the same may come as `Unchanged`.
        """


@dataclass(frozen=True)
class SplitDocument:
    """A document that has its chunks already."""

    document: Document
    chunks: Sequence[Chunk]


class Engine(Protocol):
    """Does what takes long in a build."""

    def read(
        self, source: DocumentSource, known: Mapping[str, str]
    ) -> Iterator[Document | SplitDocument | Unchanged | Rejected]:
        """Read a source, as its own `read` does and in the same order; documents may come with their chunks."""

    def encode(self, groups: Iterable[Sequence[str]], *, on_progress: OnProgress | None) -> Iterator[Embeddings]:
        """Encode groups of texts to be found.

        Args:
            groups: of texts; some may be taken ahead of the one that is yielded.
            on_progress: called now and then with the number of texts encoded since the last call.

        Returns:
            For each group, in order, what `Encoder.encode_documents` returns.
        """


class LocalEngine:
    """Does it in this process, a group at a time."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder

    def read(self, source: DocumentSource, known: Mapping[str, str]) -> Iterator[Document | Unchanged | Rejected]:
        """See `Engine.read`."""
        return source.read(known)

    def encode(self, groups: Iterable[Sequence[str]], *, on_progress: OnProgress | None) -> Iterator[Embeddings]:
        """See `Engine.encode`."""
        return (self._encoder.encode_documents(texts, on_progress=on_progress) for texts in groups)
