"""The JSON of an answer has the keys and the numbers that it promises, and nothing else."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from index.answers import Answer, CitedPassage, PassageScores, Question, Quote, answer_questions
from index.citations import Citation, CitedDocument, SavedCitation, Standing, Verification
from index.embeddings import Encoder, ModelIdentity
from index.evaluation import Measurement
from index.generations import Generation
from index.models import ModelFiles
from service.schemas.answers import AnswerJson, VerificationJson, answer_json
from service.schemas.evaluation import EvaluationJson
from service.schemas.operations import GenerationJson, StatusJson

CITATION_KEYS = [
    "document",
    "start",
    "end",
    "first_line",
    "last_line",
    "page",
    "headings",
    "quote",
    "prefix",
    "suffix",
    "url",
]


@pytest.fixture(scope="module")
def answer(handbook: Generation, encoder: Encoder) -> Answer:
    question = Question("How do I reset the router?", min_confidence=0)
    return answer_questions(handbook, encoder, [question])[0]


def parsed(answer: Answer) -> dict[str, Any]:
    record: dict[str, Any] = json.loads(AnswerJson.of(answer).model_dump_json())
    return record


def assert_is_citation(citation: dict[str, Any]) -> None:
    assert list(citation) == CITATION_KEYS
    assert list(citation["document"]) == ["id", "title", "uri", "media_type", "sha256", "metadata"]


def test_an_answer_has_these_keys_in_this_order(answer: Answer) -> None:
    record = parsed(answer)
    assert list(record) == [
        "question",
        "answered",
        "confidence",
        "answer",
        "passages",
        "generation",
        "model",
        "encoder",
        "took_ms",
    ]
    assert list(record["answer"]) == ["text", "citation"]
    assert list(record["model"]) == ["name", "sha256"]
    assert_is_citation(record["answer"]["citation"])
    for passage in record["passages"]:
        assert list(passage) == ["rank", "score", "text", "highlights", "scores", "citation", "also_in"]
        assert [list(highlight) for highlight in passage["highlights"]] == [["start", "end"]]
        assert list(passage["scores"]) == ["dense", "lexical", "sentence"]
        assert_is_citation(passage["citation"])
    assert_is_citation(record["passages"][0]["also_in"][0])


def test_the_values_are_those_of_the_answer(answer: Answer) -> None:
    record = parsed(replace(answer, confidence=0.123456, took_ms=4.26))
    assert (record["question"], record["answered"]) == ("How do I reset the router?", True)
    assert (record["confidence"], record["took_ms"]) == (0.1235, 4.3)
    assert record["generation"] == answer.generation
    assert record["model"] == {"name": answer.model.name, "sha256": answer.model.sha256}
    first, passage = answer.passages[0], record["passages"][0]
    assert passage["score"] == round(first.score, 4)
    assert passage["scores"] == {
        "dense": round(first.scores.dense, 4),
        "lexical": round(first.scores.lexical, 4),
        "sentence": round(first.scores.sentence, 4),
    }
    assert passage["highlights"] == [{"start": start, "end": end} for start, end in first.highlights]
    citation = passage["citation"]
    assert citation["document"]["metadata"] == {"product": "router", "year": 2025}
    assert citation["document"]["uri"] is None
    assert citation["page"] is None
    assert citation["headings"] == ["Tips"]
    assert citation["quote"] == passage["text"] == first.text


def test_the_answer_is_cut_out_of_its_passage_by_the_highlight(answer: Answer) -> None:
    record = parsed(answer)
    passage = record["passages"][0]
    (highlight,) = passage["highlights"]
    assert passage["text"][highlight["start"] : highlight["end"]] == record["answer"]["text"]
    assert record["answer"]["citation"]["start"] == passage["citation"]["start"] + highlight["start"]


def test_an_unanswered_question_has_null_for_an_answer(answer: Answer) -> None:
    record = parsed(replace(answer, answered=False, answer=None))
    assert record["answer"] is None
    assert len(record["passages"]) == 5


def test_text_is_written_as_it_is(answer: Answer) -> None:
    text = AnswerJson.of(replace(answer, question="naïve “東京”\u2028🦀")).model_dump_json()
    assert '"question":"naïve “東京”\u2028🦀"' in text
    assert "\n" not in text


def test_only_the_time_differs_between_two_answers_to_one_question(
    answer: Answer, handbook: Generation, encoder: Encoder
) -> None:
    (again,) = answer_questions(handbook, encoder, [Question("How do I reset the router?", min_confidence=0)])
    texts = [AnswerJson.of(replace(each, took_ms=1.0)).model_dump_json() for each in (answer, again)]
    assert texts[0] == texts[1]


TEXTS = st.text(st.characters(exclude_categories=("Cs",)))
OFFSETS = st.integers(0, 2**40)
SHARES = st.floats(0, 1)
METADATA = st.dictionaries(TEXTS, st.none() | st.booleans() | st.integers() | st.floats() | TEXTS | st.lists(TEXTS))
DOCUMENTS = st.builds(CitedDocument, TEXTS, TEXTS, st.none() | TEXTS, TEXTS, TEXTS, METADATA)
CITATIONS = st.builds(
    Citation,
    DOCUMENTS,
    *[OFFSETS] * 4,
    st.none() | OFFSETS,
    st.lists(TEXTS).map(tuple),
    *[TEXTS] * 4,
)
MODEL = ModelIdentity("all-MiniLM-L6-v2", "5" * 64, "6" * 64, 384, 256)
RERANKER = ModelFiles('a "reranker"', Path("/models"), "7" * 64, "8" * 64)


@st.composite
def passages(draw: st.DrawFn) -> CitedPassage:
    citation = draw(CITATIONS)
    return CitedPassage(
        rank=draw(st.integers(1, 100)),
        score=draw(SHARES),
        text=draw(st.just(citation.quote) | TEXTS),
        highlights=tuple(draw(st.lists(st.tuples(OFFSETS, OFFSETS), max_size=2))),
        scores=PassageScores(draw(SHARES), draw(st.floats(0, 1e6)), draw(SHARES), draw(st.none() | SHARES)),
        citation=citation,
        also_in=tuple(draw(st.lists(CITATIONS, max_size=2))),
    )


ANSWERS = st.builds(
    Answer,
    question=TEXTS,
    answered=st.booleans(),
    confidence=SHARES,
    answer=st.none() | CITATIONS.map(lambda citation: Quote(citation.quote, citation)),
    passages=st.lists(passages(), max_size=3).map(tuple),
    generation=TEXTS,
    model=st.just(MODEL),
    took_ms=st.floats(0, 1e9),
    encoder=st.sampled_from(["full", "instant"]),
    reranker=st.none() | st.just(RERANKER),
)


@given(ANSWERS, st.sets(st.sampled_from([*AnswerJson.model_fields])))
def test_an_answer_is_written_as_its_schema_writes_it(answer: Answer, wanted: set[str]) -> None:
    expected = AnswerJson.of(answer)
    assert answer_json(answer) == expected.model_dump_json().encode()
    assert answer_json(answer, include=wanted) == expected.model_dump_json(include=wanted).encode()


def test_what_is_written_of_a_citation_once_is_written_alike_the_next_time(answer: Answer) -> None:
    changed = replace(answer, passages=tuple(replace(each, rank=each.rank + 1) for each in answer.passages))
    assert answer_json(answer) == answer_json(answer) == AnswerJson.of(answer).model_dump_json().encode()
    assert answer_json(changed) == AnswerJson.of(changed).model_dump_json().encode() != answer_json(answer)


@pytest.mark.parametrize("standing", Standing)
def test_a_verification_has_these_keys(standing: Standing) -> None:
    citation = SavedCitation("a.md", "0" * 64, 3, 8, "words")
    is_there = standing in (Standing.FOUND, Standing.MOVED)
    start, end = (10, 15) if is_there else (None, None)
    record = VerificationJson.of(Verification(citation, standing, start, end, is_same_source=True)).model_dump()
    assert record == {
        "document": "a.md",
        "quote": "words",
        "status": standing.value,
        "start": start,
        "end": end,
        "same_source": True,
    }


def test_the_status_is_the_manifest_and_the_home(handbook: Generation) -> None:
    record = StatusJson.of(handbook.manifest, home=Path("/srv/whence")).model_dump_json()
    manifest = json.loads(json.dumps(asdict(handbook.manifest)))
    assert json.loads(record) == {"home": "/srv/whence", **manifest, "calibration": None, "reranker": None}


def test_a_generation_in_the_list_has_these_keys(handbook: Generation) -> None:
    record = GenerationJson.of(handbook.manifest, published=True).model_dump()
    counts = ["documents", "chunks", "sentences"]
    assert list(record) == ["name", "number", "created", "parent", *counts, "model", "published"]
    assert (record["model"], record["published"]) == (handbook.manifest.model.name, True)


def test_an_evaluation_has_the_interval_of_each_metric_and_not_every_query() -> None:
    measured = {"ndcg@10": Measurement(0.5, 0.4, 0.6, {"q1": 0.4, "q2": 0.6})}
    record = EvaluationJson.of("bm25", measured).model_dump()
    assert record == {"retrieval": "bm25", "ndcg@10": {"mean": 0.5, "low": 0.4, "high": 0.6}}
