"""Homes of any size for measurements: real text, repeated with variation, written by the library's own writers.

The first chunks are the passages of a corpus as they are, with the embeddings that the model gives them. When they
are used up, a chunk is four sentences of one article in a new company, each behind a made-up reference
(`※Kalenu 4711 `), so that no two chunks say the same and the words become more as the text does. The embedding of
such a sentence is the model's, of the sentence without its reference, and some noise; that of such a chunk the mean
of its sentences' and some noise: encoding a million chunks would take days, and here takes minutes.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np
from corpora import SENTENCE, Corpus
from large import NOISE, SENTENCES
from publish import SECTIONS, DigestEncoder, Stages, made_up_word

from index.build import BuildSettings
from index.chunks import Chunk, embedded_text
from index.documents import Block, BlockKind, Content, Document
from index.draft import PROBES, Draft
from index.embeddings import Embeddings, Encoder, OnProgress
from index.generations import Home
from index.manifest import Manifest, SourceRecord
from index.sources import Rejected, Unchanged

SOURCE = "varied"
REFERENCE = re.compile(r"※\w+ \d+ ")
NAMES = 2_000_000  # that references are made of; as with real words, few are frequent and most are rare
IN_ALL = "in all"
PLAIN = 100  # chunks on either side of those that are asked for themselves


@dataclass(frozen=True)
class Pool:
    """What the chunks are made of.

    Attributes:
        passages: title of the article and text of each.
        sentences: of each article, by its title.
    """

    passages: Sequence[tuple[str, str]]
    sentences: Mapping[str, Sequence[str]]

    @classmethod
    def of(cls, corpus: Corpus) -> Pool:
        """Take the passages of a corpus; where they have no title, the document has its name for one."""
        passages = [_titled(corpus.doc_ids[key], text) for key, text in corpus.passages.items()]
        sentences: dict[str, list[str]] = defaultdict(list)
        for title, text in passages:
            sentences[title] += SENTENCE.split(text)
        return cls(passages, sentences)

    def chunk(self, number: int, *, is_plain: bool) -> tuple[str, list[str]]:
        """Return title and sentences of a chunk, always the same ones for its number."""
        title, text = self.passages[number % len(self.passages)]
        if is_plain or number < len(self.passages):
            return title, SENTENCE.split(text)
        chosen = random.Random(number)
        known = self.sentences[title]
        return title, [_reference(chosen) + sentence for sentence in chosen.choices(known, k=SENTENCES)]

    def document(
        self, number: int, *, count: int = SECTIONS, doc_id: str | None = None, is_plain: bool = False
    ) -> tuple[Document, list[Chunk]]:
        """Return a document of so many chunks, with them.

        Args:
            number: of the document; its chunks are those from `SECTIONS * number` on.
            count: of its chunks.
            doc_id: None for one that stands in the order of the numbers.
            is_plain: whether passages are taken as they are, also when they are used up.
        """
        doc_id = doc_id or f"{number:07d}.txt"
        parts = [self.chunk(SECTIONS * number + place, is_plain=is_plain) for place in range(count)]
        texts = [" ".join(sentences) for _, sentences in parts]
        starts = [0, *accumulate(len(text) + 2 for text in texts)]
        chunks = [_chunk(doc_id, start, *part) for start, part in zip(starts, parts, strict=False)]
        blocks = tuple(Block(BlockKind.PARAGRAPH, chunk.start, chunk.end) for chunk in chunks)
        content = Content("\n\n".join(texts), blocks)
        digest = hashlib.sha256(content.text.encode()).hexdigest()
        return Document(doc_id, doc_id, "text/plain", digest, len(content.text), content), chunks


class VariedEncoder(DigestEncoder):
    """Gives texts of a pool the model's embedding, and varied ones an embedding near those of their sentences.

    What the model has encoded is kept in a file.

    Args:
        model: that encodes.
        file: keeps embeddings.
    """

    def __init__(self, model: Encoder, file: Path) -> None:
        super().__init__()
        self.identity, self.tokenizer = model.identity, model.tokenizer
        self._model, self._file = model, file
        self._rows: dict[bytes, int] = {}
        self._known = np.empty((0, model.identity.dimension), dtype=np.float32)
        if file.exists():
            with np.load(file) as kept:
                self._rows = {key.tobytes(): row for row, key in enumerate(kept["keys"])}
                self._known = kept["embeddings"]

    def learn(self, texts: Sequence[str]) -> None:
        """Encode what is not known yet, and keep it in the file."""
        if self._remember(texts):
            keys = np.array([list(key) for key in self._rows], dtype=np.uint8)
            np.savez(self._file, keys=keys, embeddings=self._known)

    def _remember(self, texts: Sequence[str]) -> int:
        """Encode what is not known yet, and return how many texts that were."""
        new = list(dict.fromkeys(text for text in texts if _key(text) not in self._rows))
        if new:
            embeddings = self._model.encode_documents(new)
            self._rows |= {_key(text): len(self._known) + place for place, text in enumerate(new)}
            self._known = np.concatenate([self._known, embeddings])
        return len(new)

    def encode_documents(self, texts: Sequence[str], *, on_progress: OnProgress | None = None) -> Embeddings:
        """Put together what is varied, and look up all else, which the model encodes where it is not known."""
        parts = [self._parts(text) for text in texts]
        self._remember([text for text, of_text in zip(texts, parts, strict=True) if not of_text])
        rows = [of_text or [self._rows[_key(text)]] for text, of_text in zip(texts, parts, strict=True)]
        sizes = np.array([len(each) for each in rows])
        flat = self._known[[row for each in rows for row in each]]
        sums = np.add.reduceat(flat, np.cumsum(sizes) - sizes) / sizes[:, None]
        is_varied = np.array([bool(of_text) for of_text in parts])
        sums[is_varied] += NOISE * super().encode_documents(texts, on_progress=on_progress)[is_varied]
        embeddings: Embeddings = (sums / np.linalg.norm(sums, axis=1, keepdims=True)).astype(np.float32)
        return embeddings

    def _parts(self, text: str) -> list[int]:
        """Return the rows of the sentences of a varied text, before whose first reference its context stands.

        A text without references, or that was cut elsewhere, has none.
        """
        rows = [self._rows.get(_key(part.rstrip())) for part in REFERENCE.split(text)[1:]]
        found = [row for row in rows if row is not None]
        return found if len(found) == len(rows) else []


@dataclass(frozen=True)
class Single:
    """A source of one document."""

    document: Document
    key: str = "single"
    prefix: str = ""
    is_bundled: bool = False

    def read(self, known: Mapping[str, str]) -> Iterator[Document | Unchanged | Rejected]:
        """Yield it."""
        yield self.document


def learn(encoder: VariedEncoder, pool: Pool) -> None:
    """Have the model encode what homes are made of."""
    sentences = [sentence for of_article in pool.sentences.values() for sentence in of_article]
    encoder.learn([*sentences, *(embedded_text(title, text) for title, text in pool.passages)])


def write_home(home: Home, pool: Pool, encoder: Encoder, *, chunks: int) -> tuple[Manifest, dict[str, float]]:
    """Write a home with one generation of so many chunks.

    Returns:
        Its manifest, and the seconds of each stage.
    """
    settings, stages = BuildSettings(), Stages()
    with (
        home.writer(),
        home.building_folder() as folder,
        closing(Draft(folder, encoder, None, target_tokens=settings.target_tokens, progress=stages)) as draft,
    ):
        stages.start("Storing documents", None)
        for document, its_chunks in documents(pool, chunks):
            draft.add(document, source=SOURCE, chunks=its_chunks)
        draft.write()
        manifest = draft.publish(home, parent=None, making=settings.making(), sources=[SourceRecord(SOURCE)])
        stages.start(IN_ALL, None)
    return manifest, {**stages.seconds, IN_ALL: sum(stages.seconds.values())}


def documents(pool: Pool, chunks: int) -> Iterator[tuple[Document, list[Chunk]]]:
    """Yield documents that have so many chunks together.

    The chunks that a build asks for themselves have to have the embeddings of the model, also when a service has
    added some documents: those around every quarter are plain.
    """
    quarter = chunks / (PROBES - 1)
    for first in range(0, chunks, SECTIONS):
        is_plain = abs(first - quarter * round(first / quarter)) <= PLAIN
        yield pool.document(first // SECTIONS, count=min(SECTIONS, chunks - first), is_plain=is_plain)


def _titled(name: str, passage: str) -> tuple[str, str]:
    title, _, text = passage.rpartition("\n")
    return title or name, text


def _reference(chosen: random.Random) -> str:
    rank = min(int(chosen.paretovariate(0.6)), NAMES)
    return f"※{made_up_word(rank).capitalize()} {chosen.randrange(10_000)} "


def _chunk(doc_id: str, start: int, title: str, sentences: Sequence[str]) -> Chunk:
    ends = list(accumulate((len(sentence) + 1 for sentence in sentences), initial=start))
    spans = tuple((first, first + len(sentence)) for first, sentence in zip(ends, sentences, strict=False))
    return Chunk(
        chunk_id=hashlib.sha256(f"{doc_id} {start}".encode()).hexdigest()[:32],
        start=start,
        end=spans[-1][1],
        headings=(title,),
        context=title,
        sentences=spans,
        kind=BlockKind.PARAGRAPH,
    )


def _key(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()
