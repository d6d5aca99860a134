"""Large indexes for measurements: real sentences put together anew, with embeddings near those of the sentences.

Every chunk has four sentences of a corpus, so that its words are spread as in real text. Its embedding is the mean of
theirs, by the model, and some noise: encoding 100,000 chunks would take most of an hour, and here takes seconds.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from corpora import SENTENCE, Corpus, sentences_of
from publish import SECTIONS, DigestEncoder

from index.build import BuildSettings, sync
from index.documents import Document
from index.embeddings import Embeddings, Encoder, OnProgress
from index.generations import Home
from index.models import DEFAULT_MODEL
from index.readers.limits import Limits
from index.readers.markdown import read_markdown
from index.sources import Rejected, Unchanged
from service.models import load_model
from service.settings import read_settings

SENTENCES = 4  # of a chunk
NOISE = 0.5  # length of the noise beside the mean of a text's sentences


def large_home(corpus: Corpus, chunks: int) -> Path:
    """Return a home with an index of so many chunks, made of the sentences of a corpus unless it is there."""
    home = Home(corpus.kept / f"home-of-{chunks}")
    if home.known_manifest() is None:
        sentences = sentences_of(list(corpus.passages.values()))
        encoder = NearbyEncoder(sentences, corpus.kept / "sentences.npy")
        source = RecombinedSource(sentences, chunks // SECTIONS)
        sync(home, [source], encoder, settings=BuildSettings(keep_generations=1))
    return home.path


@dataclass(frozen=True)
class RecombinedSource:
    """Documents of sections, each of sentences chosen at random."""

    sentences: Sequence[str]
    count: int
    key: str = "recombined"
    prefix: str = ""
    is_bundled: bool = False

    def read(self, known: Mapping[str, str]) -> Iterator[Document | Unchanged | Rejected]:
        """Make the documents."""
        for number in range(self.count):
            yield self._document(number)

    def _document(self, number: int) -> Document:
        chosen = random.Random(number)
        sections = [
            f"## Section {place}\n\n{' '.join(chosen.sample(self.sentences, SENTENCES))}\n"
            for place in range(SECTIONS)
        ]
        content = read_markdown("\n".join([f"# Report {number}\n", *sections]).encode(), Limits())
        doc_id = f"{number:06d}.md"
        return Document(
            doc_id, content.title or doc_id, "text/markdown", f"{number:064x}", len(content.text), content
        )


class NearbyEncoder(DigestEncoder):
    """Gives texts put together from known sentences an embedding near those of the sentences.

    Args:
        sentences: that texts are put together from.
        file: keeps their embeddings.
    """

    def __init__(self, sentences: Sequence[str], file: Path) -> None:
        super().__init__()
        model = load_model(read_settings(), DEFAULT_MODEL)
        self.identity, self.tokenizer = model.identity, model.tokenizer
        self._rows = {sentence: row for row, sentence in enumerate(sentences)}
        self._known = _embeddings_of(sentences, model, file)

    def encode_documents(self, texts: Sequence[str], *, on_progress: OnProgress | None = None) -> Embeddings:
        """Add noise, which the digest of a text chooses, to the mean of its sentences' embeddings."""
        noise = super().encode_documents(texts, on_progress=on_progress)
        means = [
            self._known[rows].mean(axis=0) if (rows := self._known_rows(text)) else 0 * noise[0] for text in texts
        ]
        sums = np.array(means, dtype=np.float32) + NOISE * noise
        embeddings: Embeddings = sums / np.linalg.norm(sums, axis=1, keepdims=True)
        return embeddings

    def _known_rows(self, text: str) -> list[int]:
        parts = (part for line in text.splitlines() for part in SENTENCE.split(line))
        return [self._rows[part] for part in parts if part in self._rows]


def _embeddings_of(sentences: Sequence[str], model: Encoder, file: Path) -> Embeddings:
    """Encode sentences, or read what was kept of them."""
    if not file.exists():
        np.save(file, model.encode_documents(sentences))
    embeddings: Embeddings = np.load(file)
    return embeddings
