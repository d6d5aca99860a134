"""A build whose reading, splitting and encoding is done by the workers of a Ray cluster.

Sources are listed, and what is new is told, where the command runs; there, too, everything is written.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice

import numpy as np

from index.chunks import TARGET_TOKENS
from index.documents import Document
from index.embeddings import Embeddings, OnProgress
from index.engines import DocumentSource, SplitDocument
from index.jobs import EncodeJob, FileBlock, Pool, ReadJob, SharedModel
from index.readers.limits import Limits
from index.readers.worker import ReaderPool
from index.sources import Rejected, Source, SourceFile, Unchanged, compared, read_file, source_files

FILES_OF_BLOCK = 8
TEXTS_OF_BLOCK = 64


class RayEngine:
    """Gives work to a cluster; see `index.engines.Engine`.

    Args:
        pool: of workers, open.
        model: that measures chunks, and encodes.
        target_tokens: see `index.chunks.split`.
        limits: on each file.
    """

    def __init__(
        self,
        pool: Pool,
        model: SharedModel,
        *,
        target_tokens: int = TARGET_TOKENS,
        limits: Limits | None = None,
    ) -> None:
        self._pool = pool
        self._model = model
        self._target_tokens = target_tokens
        self._limits = limits or Limits()

    def read(
        self, source: DocumentSource, known: Mapping[str, str]
    ) -> Iterator[Document | SplitDocument | Unchanged | Rejected]:
        """See `Engine.read`. What is not a folder or a file is read here."""
        if not isinstance(source, Source):
            yield from source.read(known)
            return
        listed: deque[SourceFile | Unchanged | Rejected] = deque()
        job = ReadJob(self._model, self._target_tokens, self._limits)
        with ReaderPool(self._limits, processes=1) as reader:
            for results in self._pool.map(job, self._blocks(source, known, listed)):
                for result in results:
                    file = yield from _decided(listed)
                    # A busy worker may have run out of time or memory: what this machine says of the file counts.
                    yield read_file(file, reader) if isinstance(result, Rejected) and file is not None else result
            yield from _decided(listed)

    def encode(self, groups: Iterable[Sequence[str]], *, on_progress: OnProgress | None) -> Iterator[Embeddings]:
        """See `Engine.encode`."""
        sizes: deque[int] = deque()
        parts = self._pool.map(EncodeJob(self._model), _parts(groups, sizes))
        for first in parts:
            group = []
            for part in chain([first], islice(parts, sizes.popleft() - 1)):
                group.append(part)
                if on_progress is not None:
                    on_progress(len(part))
            yield np.concatenate(group)

    def _blocks(
        self, source: Source, known: Mapping[str, str], listed: deque[SourceFile | Unchanged | Rejected]
    ) -> Iterator[FileBlock]:
        """Yield files that have to be read, and list them among all that was found."""
        waiting: list[SourceFile] = []
        for found in source_files(source):
            verdict = found if isinstance(found, Rejected) else compared(found, known, self._limits)
            listed.append(verdict or found)
            if verdict is None and isinstance(found, SourceFile):
                waiting.append(found)
            if len(waiting) == FILES_OF_BLOCK:
                yield FileBlock.of(waiting, self._limits)
                waiting = []
        if waiting:
            yield FileBlock.of(waiting, self._limits)


def _decided(
    listed: deque[SourceFile | Unchanged | Rejected],
) -> Generator[Unchanged | Rejected, None, SourceFile | None]:
    """Yield what was found before the next file that had to be read, and return that file; None after the last."""
    while listed:
        found = listed.popleft()
        if isinstance(found, SourceFile):
            return found
        yield found
    return None


def _parts(groups: Iterable[Sequence[str]], sizes: deque[int]) -> Iterator[Sequence[str]]:
    """Cut groups into blocks, noting how many each has."""
    for group in groups:
        blocks = [group[first : first + TEXTS_OF_BLOCK] for first in range(0, len(group), TEXTS_OF_BLOCK)]
        sizes.append(len(blocks))
        yield from blocks
