"""Compare the keyword index with tantivy and SQLite FTS5: speed, size, and the cost of a new generation.

    python benchmarks/lexical.py                            synthetic text, 300,000 chunks
    python benchmarks/lexical.py --texts corpus.jsonl       text of your own ({"text": ...}), repeated with variation
    python benchmarks/lexical.py --beir FOLDER              nDCG@10 on a data set in BEIR layout

Needs `pip install tantivy` beside the project. Everything runs on one thread; a generation counts as written
when all its files are on disk (fsync).
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from itertools import cycle, islice
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
import tantivy
from machine import machine

from index.evaluation import Run, evaluate, read_dataset
from index.lexical import LexicalIndex
from index.terms import STOP_WORDS

Result = TypeVar("Result")

TOP_K = 100
QUERY_BUDGET_S = 60.0  # an engine that needs longer for all questions is timed on those it managed


class Searcher(Protocol):
    """An opened index."""

    def search(self, query: str) -> list[int]:
        """Return the best `TOP_K` rows, best first."""


class Engine(Protocol):
    """A way to keep a keyword index as a sequence of immutable folders."""

    name: str

    def build(self, folder: Path, texts: Sequence[str]) -> None:
        """Index texts into an empty folder."""

    def add(self, parent: Path, folder: Path, row: int, text: str) -> None:
        """Write the parent's index and one more text into an empty folder."""

    def delete(self, parent: Path, folder: Path, row: int, texts: Sequence[str]) -> None:
        """Write the parent's index without a row, and without a trace of its words, into an empty folder."""

    def open(self, folder: Path) -> Searcher:
        """Open an index for searching."""


class WhenceSearcher:
    """Searches a `LexicalIndex`."""

    def __init__(self, folder: Path) -> None:
        self._index = LexicalIndex.load(folder)

    def search(self, query: str) -> list[int]:
        rows, _ = self._index.search(query, top_k=TOP_K)
        return [int(row) for row in rows]


class WhenceEngine:
    """Our own index."""

    name = "whence"

    def build(self, folder: Path, texts: Sequence[str]) -> None:
        LexicalIndex.from_texts(texts).save(folder)

    def add(self, parent: Path, folder: Path, row: int, text: str) -> None:
        rows = np.arange(row)
        LexicalIndex.load(parent).updated(rows, rows, [text]).save(folder)

    def delete(self, parent: Path, folder: Path, row: int, texts: Sequence[str]) -> None:
        kept = np.delete(np.arange(len(texts)), row)
        LexicalIndex.load(parent).updated(kept, np.arange(len(kept)), []).save(folder)

    def open(self, folder: Path) -> Searcher:
        return WhenceSearcher(folder)


class TantivySearcher:
    """Searches a tantivy index."""

    def __init__(self, index: tantivy.Index) -> None:
        self._index = index
        self._searcher = index.searcher()

    def search(self, query: str) -> list[int]:
        # Lower case and no punctuation: nothing in a question is meant as an operator.
        words = "".join(character if character.isalnum() else " " for character in query.lower())
        parsed = self._index.parse_query(words, ["text"])
        hits = self._searcher.search(parsed, TOP_K, count=False).hits
        rows = self._searcher.fast_field_values("row", [address for _, address in hits])
        return [int(row) for row in rows if row is not None]


class TantivyEngine:
    """tantivy: English stemming, our stop words, term frequencies without positions.

    Its Python package cannot merge segments on demand, so words of a deleted text are gone only after a rebuild.
    """

    name = "tantivy"

    def build(self, folder: Path, texts: Sequence[str]) -> None:
        self._write(folder, enumerate(texts))

    def add(self, parent: Path, folder: Path, row: int, text: str) -> None:
        """Link the parent's immutable segments and commit one more text."""
        shutil.copytree(parent, folder, copy_function=os.link, dirs_exist_ok=True)
        self._write(folder, [(row, text)])

    def delete(self, parent: Path, folder: Path, row: int, texts: Sequence[str]) -> None:
        """Index all other texts."""
        self._write(folder, ((other, text) for other, text in enumerate(texts) if other != row))

    def open(self, folder: Path) -> Searcher:
        return TantivySearcher(self._open(folder))

    def _write(self, folder: Path, rows: Sequence[tuple[int, str]] | Iterator[tuple[int, str]]) -> None:
        writer = self._open(folder).writer(heap_size=256_000_000, num_threads=1)
        for row, text in rows:
            writer.add_document(tantivy.Document(row=row, text=text))
        writer.commit()
        writer.wait_merging_threads()

    def _open(self, folder: Path) -> tantivy.Index:
        schema = tantivy.SchemaBuilder()
        schema.add_integer_field("row", fast=True)
        schema.add_text_field("text", tokenizer_name="english", index_option="freq")
        index = tantivy.Index(schema.build(), path=str(folder))
        index.register_tokenizer("english", self._analyser())
        return index

    @staticmethod
    def _analyser() -> tantivy.TextAnalyzer:
        builder = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.simple()).filter(tantivy.Filter.lowercase())
        builder = builder.filter(tantivy.Filter.custom_stopword(sorted(STOP_WORDS)))
        return builder.filter(tantivy.Filter.stemmer("English")).build()


class SqliteSearcher:
    """Searches an FTS5 table."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path)

    def search(self, query: str) -> list[int]:
        words = query.replace('"', "").split()
        telling = [word for word in words if word.casefold() not in STOP_WORDS] or words
        rows = self._connection.execute(
            "SELECT rowid FROM chunks WHERE chunks MATCH ? ORDER BY rank LIMIT ?",
            (" OR ".join(f'"{word}"' for word in telling), TOP_K),
        )
        return [row for (row,) in rows]


class SqliteEngine:
    """SQLite FTS5 without a copy of the texts: Porter stemming, bm25()."""

    name = "SQLite FTS5"

    def build(self, folder: Path, texts: Sequence[str]) -> None:
        with closing(sqlite3.connect(folder / "chunks.sqlite")) as connection, connection:
            connection.execute(
                "CREATE VIRTUAL TABLE chunks USING fts5(text, content='', tokenize='porter unicode61')"
            )
            connection.executemany("INSERT INTO chunks(rowid, text) VALUES (?, ?)", enumerate(texts))
            connection.execute("INSERT INTO chunks(chunks) VALUES ('optimize')")

    def add(self, parent: Path, folder: Path, row: int, text: str) -> None:
        """Copy the parent's file and insert one more text."""
        path = shutil.copy(parent / "chunks.sqlite", folder)
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("INSERT INTO chunks(rowid, text) VALUES (?, ?)", (row, text))

    def delete(self, parent: Path, folder: Path, row: int, texts: Sequence[str]) -> None:
        """Copy the parent's file, delete, merge all segments and give the freed pages back."""
        path = shutil.copy(parent / "chunks.sqlite", folder)
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("INSERT INTO chunks(chunks, rowid, text) VALUES ('delete', ?, ?)", (row, texts[row]))
            connection.execute("INSERT INTO chunks(chunks) VALUES ('optimize')")
            connection.commit()
            connection.execute("VACUUM")

    def open(self, folder: Path) -> Searcher:
        return SqliteSearcher(folder / "chunks.sqlite")


ENGINES: list[Engine] = [WhenceEngine(), TantivyEngine(), SqliteEngine()]


def synthetic_texts(count: int, random: np.random.Generator) -> list[str]:
    """Make chunk-sized texts whose words are distributed as in running English.

    About 100 words each, two in five of them stop words. The other words follow a Zipf-Mandelbrot law over
    150,000 forms of 50,000 made-up stems, and a quarter of them come from a few words the text is about.
    """
    function_words = sorted(STOP_WORDS - {word for word in STOP_WORDS if "'" in word})
    content_words = [stem + ending for stem in _made_up_stems(50_000) for ending in ("", "s", "ing")]
    random.shuffle(content_words)
    draw_function = _zipf(len(function_words), offset=2.0, random=random)
    draw_content = _zipf(len(content_words), offset=50.0, random=random)

    def text() -> str:
        size = int(np.clip(random.lognormal(4.55, 0.4), 8, 300))
        topic = draw_content(8)
        content = np.where(random.random(size) < 0.25, topic[random.integers(8, size=size)], draw_content(size))
        is_function = random.random(size) < 0.42
        functions = draw_function(size)
        words = [
            function_words[function] if here else content_words[word]
            for here, function, word in zip(is_function, functions, content, strict=True)
        ]
        sentences = [" ".join(words[start : start + 15]).capitalize() for start in range(0, size, 15)]
        return ". ".join(sentences) + "."

    return [text() for _ in range(count)]


def _made_up_stems(count: int) -> Iterator[str]:
    syllables = [first + second for first in "bdfgklmnprstvz" for second in "aeiou"]
    for number in range(count):
        rest, word = divmod(number, len(syllables))
        stem = syllables[word]
        for _ in range(2):
            rest, word = divmod(rest, len(syllables))
            stem += syllables[word]
        yield stem + "nrlt"[number % 4]


def _zipf(count: int, *, offset: float, random: np.random.Generator) -> Callable[[int], np.ndarray]:
    cumulated = np.cumsum((np.arange(count) + offset) ** -1.07)
    return lambda size: np.searchsorted(cumulated, random.random(size) * cumulated[-1])


def varied_texts(path: Path, count: int, random: np.random.Generator) -> list[str]:
    """Repeat the texts of a JSON Lines file, one word in ten of each copy taken from another text."""
    with path.open(encoding="utf-8") as stream:
        originals = [json.loads(line)["text"].split() for line in stream]
    pool = [word for words in originals for word in words]

    def vary(words: list[str]) -> str:
        strange = random.random(len(words)) < 0.1
        others = random.integers(len(pool), size=len(words))
        return " ".join(
            pool[other] if here else word for word, here, other in zip(words, strange, others, strict=True)
        )

    return [vary(words) for words in islice(cycle(originals), count)]


def made_up_questions(texts: Sequence[str], count: int, random: np.random.Generator) -> list[str]:
    """Make questions of 6 to 12 words: three to six telling words of some text among stop words."""
    fillers = ["what", "is", "the", "of", "how", "does", "in", "a", "which", "and", "for", "to"]

    def question() -> str:
        words = texts[int(random.integers(len(texts)))].replace(".", "").casefold().split()
        telling = [word for word in words if word not in STOP_WORDS] or words
        chosen = random.choice(telling, size=random.integers(3, 7))
        size = int(random.integers(max(6, len(chosen)), 13))
        asked = [*chosen, *random.choice(fillers, size=size - len(chosen))]
        random.shuffle(asked)
        return " ".join(asked)

    return [question() for _ in range(count)]


@dataclass(frozen=True)
class Figures:
    """What was measured of one engine; seconds, bytes, and milliseconds of the questions."""

    build_s: float
    size: int
    open_s: float
    add_s: float
    delete_s: float
    question_ms: np.ndarray
    rankings: list[list[int]]


def measure(engine: Engine, home: Path, texts: Sequence[str], questions: Sequence[str]) -> Figures:
    """Build, open, search, then write two further generations from the first."""
    first, second, third = (home / name for name in ("first", "second", "third"))
    build_s, _ = _timed(lambda: _write(first, lambda: engine.build(first, texts)))
    open_s, searcher = _timed(lambda: engine.open(first))
    question_ms, rankings = ask(searcher, questions)
    new = " ".join(texts[0].split()[::2]) + " whence-benchmark"
    add_s, _ = _timed(lambda: _write(second, lambda: engine.add(first, second, len(texts), new)))
    row = len(texts) // 2
    delete_s, _ = _timed(lambda: _write(third, lambda: engine.delete(first, third, row, texts)))
    return Figures(build_s, _size(first), open_s, add_s, delete_s, question_ms, rankings)


def ask(searcher: Searcher, questions: Sequence[str]) -> tuple[np.ndarray, list[list[int]]]:
    """Time questions one by one until the budget is spent."""
    for question in questions[:20]:
        searcher.search(question)
    seconds: list[float] = []
    rankings: list[list[int]] = []
    for question in questions:
        taken, ranking = _timed(partial(searcher.search, question))
        seconds.append(taken)
        rankings.append(ranking)
        if sum(seconds) > QUERY_BUDGET_S:
            break
    return np.array(seconds) * 1_000, rankings


def _timed(work: Callable[[], Result]) -> tuple[float, Result]:
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def _write(folder: Path, work: Callable[[], None]) -> None:
    folder.mkdir(parents=True)
    work()
    for path in folder.iterdir():
        with path.open("rb") as stream:
            os.fsync(stream.fileno())


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def agreement(ours: list[list[int]], theirs: list[list[int]]) -> float:
    """Return which share of our top 10 is in their top 10, averaged over the questions both answered."""
    both = list(zip(ours, theirs, strict=False))
    shares = [len(set(our[:10]) & set(their[:10])) / len(our[:10]) for our, their in both if our]
    return float(np.mean(shares))


def print_speed(chunks: int, asked: int, texts_path: Path | None, home: Path) -> None:
    """Measure all engines and print one table."""
    random = np.random.default_rng(1)
    texts = varied_texts(texts_path, chunks, random) if texts_path else synthetic_texts(chunks, random)
    questions = made_up_questions(texts, asked, random)
    origin = texts_path.name if texts_path else "synthetic"
    print(
        f"{len(texts):,} chunks ({origin}), {np.mean([len(text.split()) for text in texts]):.0f} words each; "
        f"{len(questions):,} questions of 6 to 12 words, top {TOP_K}.\n"
    )
    print("| engine | build s | MB | open ms | add one s | delete one s | p50 ms | p95 ms | top 10 as ours |")
    print("|---|---|---|---|---|---|---|---|---|")
    ours: list[list[int]] = []
    for engine in ENGINES:
        figures = measure(engine, home / engine.name, texts, questions)
        ours = ours or figures.rankings
        p50, p95 = np.percentile(figures.question_ms, [50, 95])
        print(
            f"| {engine.name} | {figures.build_s:.1f} | {figures.size / 1e6:.0f} | {figures.open_s * 1e3:.1f} "
            f"| {figures.add_s:.2f} | {figures.delete_s:.2f} | {p50:.2f} | {p95:.2f} "
            f"| {agreement(ours, figures.rankings):.2f} |",
            flush=True,
        )
        shutil.rmtree(home / engine.name)


def print_quality(folders: Sequence[Path], home: Path) -> None:
    """Print the nDCG@10 of all engines on data sets."""
    print(f"| nDCG@10 | {' | '.join(engine.name for engine in ENGINES)} |")
    print("|---" * (len(ENGINES) + 1) + "|")
    for folder in folders:
        figures = [_ndcg(engine, folder, home / engine.name / folder.name) for engine in ENGINES]
        print(f"| {folder.name} | {' | '.join(f'{figure:.3f}' for figure in figures)} |", flush=True)


def _ndcg(engine: Engine, dataset_folder: Path, index_folder: Path) -> float:
    dataset = read_dataset(dataset_folder)
    entries = list(dataset.corpus())
    index_folder.mkdir(parents=True)
    engine.build(index_folder, [f"{entry.title} {entry.text}" for entry in entries])
    searcher = engine.open(index_folder)
    run: Run = {
        query_id: {entries[row].doc_id: 1 / rank for rank, row in enumerate(searcher.search(query), 1)}
        for query_id, query in dataset.queries.items()
    }
    return evaluate(dataset.qrels, run)["ndcg@10"].mean


def main() -> None:
    """Read the command line and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chunks", type=int, default=300_000, help="texts to index")
    parser.add_argument("--questions", type=int, default=1_000, help="questions to ask")
    parser.add_argument("--texts", type=Path, help="JSON Lines file with a text in each line")
    parser.add_argument("--beir", type=Path, nargs="+", help="data sets in BEIR layout: print nDCG@10 instead")
    arguments = parser.parse_args()
    print(f"{machine()}; tantivy {version('tantivy')}, SQLite {sqlite3.sqlite_version}.\n")
    with tempfile.TemporaryDirectory() as home:
        if arguments.beir:
            print_quality(arguments.beir, Path(home))
        else:
            print_speed(arguments.chunks, arguments.questions, arguments.texts, Path(home))


if __name__ == "__main__":
    main()
