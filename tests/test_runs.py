"""A data set becomes an index once, and its queries are ranked in each way of retrieval."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from beir import CORPUS, QUERIES, write_dataset

from index.answers import Question, answer_questions
from index.documents import Document
from index.draft import NoProgress
from index.embeddings import Encoder
from index.evaluation import Dataset, evaluate, read_dataset
from index.generations import Generation, Home
from index.runs import DatasetSource, index_dataset, rank_queries
from index.sources import Rejected, Unchanged


class Steps(NoProgress):
    """Counts the steps of each stage."""

    def __init__(self) -> None:
        self.done: dict[str, int] = {}

    def start(self, stage: str, total: int | None) -> None:
        self._stage = stage
        self.done[stage] = 0

    def advance(self, steps: int) -> None:
        self.done[self._stage] += steps


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("beir") / "appliances")


@pytest.fixture(scope="module")
def dataset(folder: Path) -> Dataset:
    return read_dataset(folder)


@pytest.fixture(scope="module")
def generation(
    dataset: Dataset, folder: Path, encoder: Encoder, tmp_path_factory: pytest.TempPathFactory
) -> Generation:
    return index_dataset(dataset, folder, Home(tmp_path_factory.mktemp("home")), encoder, NoProgress())


def test_each_entry_is_a_document_of_one_paragraph(dataset: Dataset) -> None:
    *documents, rejected = DatasetSource(dataset, key="appliances").read({})
    assert rejected == Rejected("empty", "holds no text")
    for document in documents:
        assert isinstance(document, Document)
        title, text = CORPUS[document.doc_id]
        assert (document.title, document.text) == (title, text)
        (block,) = document.content.blocks
        assert document.text[block.start : block.end] == text


def test_an_entry_is_known_by_its_title_and_text(dataset: Dataset) -> None:
    source = DatasetSource(dataset, key="appliances")
    known = {document.doc_id: document.sha256 for document in source.read({}) if isinstance(document, Document)}
    assert len(set(known.values())) == 4
    again = list(source.read({**known, "light": "0" * 64}))
    assert again[1:4] == [Unchanged("reset"), Unchanged("kettle"), Unchanged("bread")]
    assert isinstance(again[0], Document)


def test_a_data_set_is_indexed_once(dataset: Dataset, folder: Path, encoder: Encoder, home: Home) -> None:
    first, second = Steps(), Steps()
    generation = index_dataset(dataset, folder, home, encoder, first)
    assert generation.manifest.documents == 4
    assert first.done["Encoding chunks"] == 4
    again = index_dataset(dataset, folder, home, encoder, second)
    assert again.name == generation.name
    assert "Encoding chunks" not in second.done
    generation.close()
    again.close()


def test_every_way_ranks_every_query(generation: Generation, encoder: Encoder, dataset: Dataset) -> None:
    steps = Steps()
    runs = rank_queries(generation, encoder, dataset.queries, top_k=3, progress=steps)
    assert list(runs) == ["dense", "bm25", "whence"]
    assert steps.done == {"Ranking": 3}
    for run in runs.values():
        assert list(run) == ["q1", "q2", "q3"]
        for ranking in run.values():
            assert len(ranking) <= 3
            assert list(ranking.values()) == sorted(ranking.values(), reverse=True)
    for way in ("dense", "whence"):
        assert [next(iter(runs[way][query])) for query in ("q1", "q2", "q3")] == ["light", "reset", "kettle"]
        assert evaluate(dataset.qrels, runs[way])["recall@1"].mean == 1.0


def test_scores_are_those_of_each_search(generation: Generation, encoder: Encoder) -> None:
    query = QUERIES["q2"]
    runs = rank_queries(generation, encoder, {"q2": query}, top_k=100, progress=NoProgress())
    rows = {record.doc_id: record.first_row for record in generation.document_records}
    (embedding,) = encoder.encode_queries([query])
    for doc_id, score in runs["dense"]["q2"].items():
        assert score == pytest.approx(
            generation.vectors.similarities(embedding, np.array([rows[doc_id]]))[0], abs=1e-6
        )
    for doc_id, score in runs["bm25"]["q2"].items():
        assert score == generation.lexical.query(query).scores[rows[doc_id]] > 0
    (answer,) = answer_questions(generation, encoder, [Question(query, top_k=100)])
    answered = {passage.citation.document.id: passage.score for passage in answer.passages}
    assert runs["whence"]["q2"] == answered


def test_a_document_scores_as_its_best_chunk(encoder: Encoder, tmp_path: Path, home: Home) -> None:
    folder = write_dataset(tmp_path / "long")
    paragraphs = [f"Plum cake number {number} needs eggs. " * 40 for number in range(4)]
    corpus = folder / "corpus.jsonl"
    text = "\\n\\n".join([*paragraphs, "The zebra crossing is closed."])
    corpus.write_text(corpus.read_text() + f'{{"_id": "long", "text": "{text}"}}\n')
    generation = index_dataset(read_dataset(folder), folder, home, encoder, NoProgress())
    record = generation.corpus.document("long")
    assert record is not None
    assert record.chunk_count > 1
    runs = rank_queries(generation, encoder, {"q": "zebra crossing"}, top_k=10, progress=NoProgress())
    (embedding,) = encoder.encode_queries(["zebra crossing"])
    rows = np.arange(record.first_row, record.first_row + record.chunk_count)
    assert runs["dense"]["q"]["long"] == pytest.approx(
        generation.vectors.similarities(embedding, rows).max(), abs=1e-6
    )
    assert runs["bm25"]["q"] == {"long": pytest.approx(generation.lexical.query("zebra crossing").scores[rows].max())}
    assert len(runs["dense"]["q"]) == 5
    generation.close()


def test_no_queries_give_empty_runs(generation: Generation, encoder: Encoder) -> None:
    assert rank_queries(generation, encoder, {}, top_k=5, progress=NoProgress()) == {
        "dense": {},
        "bm25": {},
        "whence": {},
    }
