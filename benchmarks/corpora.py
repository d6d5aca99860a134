"""What services are asked about: passages, questions, and the folder where indexes of them are kept."""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from index.evaluation import CorpusEntry, Dataset, Qrels, read_dataset
from service.settings import read_settings

SEEDS = Path(__file__).parents[1] / "seeds"
QUESTIONS = 1_000
SENTENCE = re.compile(r"(?<=[.!?]) ")
PARAGRAPH_CHARS = 80  # what is shorter is a heading or a line of a list
SENTENCE_CHARS = (40, 200)  # of one that serves as a question


@dataclass(frozen=True)
class Asked:
    """A question, and the documents that are right for it."""

    text: str
    doc_ids: frozenset[str]


@dataclass(frozen=True)
class Corpus:
    """What is indexed and asked.

    Attributes:
        name: as tables call it.
        documents: folder that Whence indexes: in BEIR layout, or of files.
        kept: folder for indexes of it.
        passages: passage_id -> text, as the other services index it.
        doc_ids: passage_id -> doc_id.
        questions: in the order in which they are asked.
    """

    name: str
    documents: Path
    kept: Path
    passages: Mapping[str, str]
    doc_ids: Mapping[str, str]
    questions: Sequence[Asked]

    @property
    def passages_file(self) -> Path:
        """A line of JSON for each passage: id and text."""
        return self.kept / "passages.jsonl"


def read_corpus(folder: Path | None, *, passages: int | None = None) -> Corpus:
    """Read a data set in BEIR layout, or the bundled documents.

    Args:
        folder: of the data set; None for the bundled documents.
        passages: read only so many, with the questions about them; None reads all.
    """
    corpus = _bundled() if folder is None else _beir(folder, passages)
    corpus.kept.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps({"id": key, "text": text}) for key, text in corpus.passages.items())
    corpus.passages_file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return corpus


def kept_folder(name: str, content: str) -> Path:
    """Return the folder for indexes of some content; other content of the same name gets another one."""
    return read_settings().cache / "benchmarks" / f"{name}-{hashlib.sha256(content.encode()).hexdigest()[:12]}"


def sentences_of(texts: Sequence[str]) -> list[str]:
    """Return the distinct sentences of texts, roughly: prose cut behind full stops, without the shortest."""
    found = (sentence.strip() for text in texts for line in text.splitlines() for sentence in SENTENCE.split(line))
    long = (each for each in found if len(each) >= SENTENCE_CHARS[0])
    return list(dict.fromkeys(each for each in long if each[0].isalnum() and each[-1] in ".!?"))


def _beir(folder: Path, limit: int | None) -> Corpus:
    dataset = read_dataset(folder)
    entries = list(islice((entry for entry in dataset.corpus() if entry.text.strip()), limit))
    passages = {entry.doc_id: f"{entry.title}\n{entry.text}".strip() for entry in entries}
    judged = {
        key: marks for key, marks in dataset.qrels.items() if relevant(marks) and relevant(marks) <= set(passages)
    }
    name = f"{folder.resolve().name}, {len(passages):,} passages"
    kept = kept_folder(f"{folder.resolve().name}-{len(passages)}", "\n".join(passages.values()))
    if limit is not None:
        _write_part(kept / "documents", dataset, entries, judged)
    return Corpus(
        name=name,
        documents=folder if limit is None else kept / "documents",
        kept=kept,
        passages=passages,
        doc_ids={key: key for key in passages},
        questions=_mixed([Asked(dataset.queries[key], relevant(marks)) for key, marks in judged.items()]),
    )


def relevant(marks: Mapping[str, int]) -> frozenset[str]:
    """Return the documents that are judged relevant."""
    return frozenset(doc_id for doc_id, mark in marks.items() if mark > 0)


def _write_part(folder: Path, dataset: Dataset, entries: Sequence[CorpusEntry], qrels: Qrels) -> None:
    """Write a part of a data set in BEIR layout."""
    (folder / "qrels").mkdir(parents=True, exist_ok=True)
    corpus = ({"_id": each.doc_id, "title": each.title, "text": each.text} for each in entries)
    queries = ({"_id": key, "text": dataset.queries[key]} for key in qrels)
    for name, records in (("corpus", corpus), ("queries", queries)):
        (folder / f"{name}.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in records))
    rows = (f"{key}\t{doc_id}\t{mark}\n" for key, marks in qrels.items() for doc_id, mark in marks.items())
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(rows))


def _bundled() -> Corpus:
    """Read the bundled documents by paragraphs; sentences of theirs are the questions."""
    found = {path.name: list(_paragraphs(path)) for path in sorted(SEEDS.glob("*.md"))}
    passages = {f"{name}#{place}": text for name, texts in found.items() for place, text in enumerate(texts)}
    doc_ids = {f"{name}#{place}": name for name, texts in found.items() for place, _ in enumerate(texts)}
    asked = [Asked(text, frozenset([name])) for name, texts in found.items() for text in sentences_of(texts)]
    return Corpus(
        name="bundled documents",
        documents=SEEDS,
        kept=kept_folder("bundled", "\n".join(passages.values())),
        passages=passages,
        doc_ids=doc_ids,
        questions=_mixed([each for each in asked if len(each.text) <= SENTENCE_CHARS[1]]),
    )


def _paragraphs(path: Path) -> Iterator[str]:
    for paragraph in path.read_text(encoding="utf-8").split("\n\n"):
        text = " ".join(paragraph.split())
        if len(text) >= PARAGRAPH_CHARS:
            yield text


def _mixed(asked: list[Asked]) -> list[Asked]:
    random.Random(1).shuffle(asked)
    return asked[:QUESTIONS]
