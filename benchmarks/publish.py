"""Measure what it takes to publish a change: one document added to or deleted from a large index, and opening it.

    python benchmarks/publish.py                      100,000 chunks; writes benchmarks/results/publish.md
    python benchmarks/publish.py --chunks 20000 --results FILE

The text is made up, its words distributed as in running English. Embeddings are made up too, from a digest of
each text: what is timed is everything but the model, which is loaded in a running service and sees one document.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from machine import machine
from tokenizers import Tokenizer

from index.build import BuildSettings, sync
from index.documents import Document
from index.embeddings import Embeddings, ModelIdentity, ModelTokenizer, OnProgress
from index.generations import Generation, Home
from index.models import find_model
from index.readers.limits import Limits
from index.readers.markdown import read_markdown
from index.sources import Rejected, Unchanged

DIMENSION = 384
ROUNDS = 5
SECTIONS = 20  # of a document; each becomes a chunk
RESULTS = Path(__file__).parent / "results" / "publish.md"


class DigestEncoder:
    """Gives each text an embedding made from its digest: always the same one, at no cost."""

    def __init__(self) -> None:
        self.identity = ModelIdentity("digests", "", "", dimension=DIMENSION, max_tokens=256)
        tokenizer = Tokenizer.from_file(str(find_model().folder / "tokenizer.json"))
        self.tokenizer = ModelTokenizer(tokenizer, self.identity)
        self._directions = np.random.default_rng(1).standard_normal((8_192, DIMENSION), dtype=np.float32)

    def encode_documents(self, texts: Sequence[str], *, on_progress: OnProgress | None = None) -> Embeddings:
        """Add up two directions that the digest of a text chooses."""
        digests = np.array([zlib.crc32(text.encode()) for text in texts], dtype=np.int64)
        first, second = digests % 8_192, digests // 8_192 % 8_192
        sums = self._directions[first] + 0.5 * self._directions[second]
        embeddings: Embeddings = sums / np.linalg.norm(sums, axis=1, keepdims=True)
        if on_progress is not None:
            on_progress(len(texts))
        return embeddings

    def encode_queries(self, texts: Sequence[str]) -> Embeddings:
        """As documents."""
        return self.encode_documents(texts)


@dataclass(frozen=True)
class MadeUpSource:
    """Documents of made-up text, each from its own number.

    Attributes:
        numbers: of the documents it has.
    """

    numbers: Sequence[int]
    key: str = "made-up"
    prefix: str = ""
    is_bundled: bool = False

    def read(self, known: Mapping[str, str]) -> Iterator[Document | Unchanged | Rejected]:
        """Make up the documents that are not known."""
        for number in self.numbers:
            doc_id = f"{number * 7_919 % 1_000_003:07d}.md"  # a new one lies anywhere among the others
            yield Unchanged(doc_id) if doc_id in known else _document(doc_id, number)


def _document(doc_id: str, number: int) -> Document:
    random = np.random.default_rng(number)
    sections = [f"## Section {place}\n\n{_prose(random)}\n" for place in range(SECTIONS)]
    content = read_markdown("\n".join([f"# Document {number}\n", *sections]).encode(), Limits())
    digest = f"{number:064x}"
    return Document(doc_id, content.title or doc_id, "text/markdown", digest, len(content.text), content)


def _prose(random: np.random.Generator) -> str:
    """Make five sentences of some 100 words by a Zipf law over 150,000 words."""
    ranks = np.minimum(random.zipf(1.3, size=100), 150_000)
    words = [made_up_word(int(rank)) for rank in ranks]
    return " ".join(" ".join(words[start : start + 20]).capitalize() + "." for start in range(0, 100, 20))


def made_up_word(rank: int) -> str:
    """Make a word of syllables, another one for each rank."""
    syllables = ["ba", "ce", "di", "fo", "gu", "ka", "le", "mi", "no", "pu", "ra", "se", "ti", "vo", "zu"]
    word = ""
    while rank or not word:
        rank, place = divmod(rank, len(syllables))
        word += syllables[place]
    return word


@dataclass
class Stages:
    """Adds up the seconds between the starts of stages."""

    seconds: dict[str, float] = field(default_factory=dict)
    _since: float = 0.0

    def start(self, stage: str, total: int | None) -> None:
        """Book the time since the last start on the stage before."""
        now = time.perf_counter()
        if self.seconds:
            self.seconds[next(reversed(self.seconds))] += now - self._since
        self.seconds[stage] = 0.0
        self._since = now

    def advance(self, steps: int) -> None:
        """Steps do not matter here."""


def publish(home: Home, numbers: Sequence[int], encoder: DigestEncoder) -> dict[str, float]:
    """Sync documents and return the seconds of each stage and of all of them."""
    stages, start = Stages(), time.perf_counter()
    sync(home, [MadeUpSource(numbers)], encoder, settings=BuildSettings(allow_empty=True), progress=stages)
    stages.start("in all", None)
    return {**stages.seconds, "in all": time.perf_counter() - start}


def opening(home: Home) -> tuple[float, float]:
    """Return the seconds of opening the published generation, and of that without the check of its files."""
    start = time.perf_counter()
    with closing(home.open_current()) as generation:
        checked_s = time.perf_counter() - start
        start = time.perf_counter()
        Generation(generation.folder, generation.manifest).close()
    return checked_s, time.perf_counter() - start


@dataclass(frozen=True)
class Figures:
    """What was measured: the seconds of each stage in each round, and those of opening."""

    built: list[dict[str, float]]
    added: list[dict[str, float]]
    deleted: list[dict[str, float]]
    opened: list[tuple[float, float]]


def measure(home: Home, chunks: int) -> Figures:
    """Build an index, then change and open it several times."""
    encoder, numbers = DigestEncoder(), list(range(chunks // SECTIONS))
    built = [publish(home, numbers, encoder)]
    added, deleted = [], []
    for number in range(len(numbers), len(numbers) + ROUNDS):
        added.append(publish(home, [*numbers, number], encoder))
        deleted.append(publish(home, numbers, encoder))
    return Figures(built, added, deleted, [opening(home) for _ in range(ROUNDS)])


def table(figures: Figures) -> Iterator[str]:
    """Write the medians of each stage, and the slowest round."""
    operations = (figures.built, figures.added, figures.deleted)
    yield "| seconds | build | add one document | delete one document |"
    yield "|---|---|---|---|"
    for stage in figures.built[0]:
        medians = [float(np.median([seconds[stage] for seconds in rounds])) for rounds in operations]
        yield f"| {stage} | {' | '.join(f'{median:.2f}' for median in medians)} |"
    slowest = [max(seconds["in all"] for seconds in rounds) for rounds in operations]
    yield f"| slowest of all rounds | {' | '.join(f'{seconds:.2f}' for seconds in slowest)} |"


def report(chunks: int) -> Iterator[str]:
    """Measure, and yield the lines of the report."""
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder))
        figures = measure(home, chunks)
        with closing(home.open_current()) as generation:
            manifest = generation.manifest
    megabytes = sum(file.size for file in manifest.files.values()) / 1e6
    yield (
        f"{manifest.documents:,} documents, {manifest.chunks:,} chunks, {manifest.sentences:,} sentences of made-up "
        f"text, {DIMENSION} dimensions, {megabytes:,.0f} MB on disk; `python benchmarks/publish.py`."
    )
    yield f"{machine()}. The build once, all else the median of {ROUNDS} rounds.\n"
    yield from table(figures)
    checked_s, unchecked_s = np.median(figures.opened, axis=0)
    yield f"\nOpening it takes {checked_s:.2f} s, {checked_s - unchecked_s:.2f} s of it for the digests of all files."


def main() -> None:
    """Read the command line, print the report, and keep it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, default=100_000, help="chunks in the index")
    parser.add_argument("--results", type=Path, default=RESULTS, help="file the table is written to")
    arguments = parser.parse_args()
    lines = []
    for line in report(arguments.chunks):
        print(line, flush=True)
        lines.append(line)
    arguments.results.parent.mkdir(exist_ok=True)
    arguments.results.write_text("# Publishing a change\n\n" + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
