"""An answer is the exact words of a document or an honest "not found", the same alone and in any company."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from handbook import RESET
from hypothesis import given
from hypothesis import strategies as st
from sources_in_memory import MemorySource

from index.answers import (
    DEFAULT_TOP_K,
    MAX_QUESTION_CHARS,
    MAX_TOP_K,
    Answer,
    Question,
    answer_questions,
    best_sentences,
)
from index.build import BuildSettings, sync
from index.citations import Citation
from index.embeddings import Encoder
from index.errors import QuestionError
from index.generations import Generation, Home
from index.kinds import expected_of
from index.retrieval import Passage, Wanted, retrieve
from index.weights import AnswerWeights, default_weights
from service.schemas.answers import AnswerJson

RED = "What does the red light mean?"
ANSWERS = {
    RED: "The red light means that there is no power.",
    "How often should I descale the kettle?": "Descale the kettle every three months.",
    "Which level of the browning dial suits frozen bread?": "Level four of the browning dial suits frozen bread.",
    "Where is the filter of the dishwasher?": (
        "The filter of the dishwasher sits under the lower basket - turn it to the left, lift it out and rinse it "
        "under warm water, once a month or whenever the plates come out with crumbs."
    ),
}
OUTSIDE = "Who won the football world cup in 1998?"
QUESTIONS = [*ANSWERS, OUTSIDE, "How do I reset the router?", "東京タワー", "to be or not to be", "crumb tray " * 200]


def ask(generation: Generation, encoder: Encoder, text: str, **wanted: Any) -> Answer:
    (answer,) = answer_questions(generation, encoder, [Question(text, **wanted)])
    return answer


def citations(answer: Answer) -> list[Citation]:
    found = [passage.citation for passage in answer.passages]
    found += [citation for passage in answer.passages for citation in passage.also_in]
    return found if answer.answer is None else [answer.answer.citation, *found]


def as_json(answer: Answer) -> str:
    """Return the JSON of an answer without the time it took."""
    return AnswerJson.of(replace(answer, took_ms=0)).model_dump_json()


@pytest.mark.parametrize("question", ANSWERS)
def test_a_question_gets_the_sentence_that_answers_it(handbook: Generation, encoder: Encoder, question: str) -> None:
    # Without neighbours that do nearly as well.
    weights = replace(default_weights(), answer=AnswerWeights(similarity=0.7, coverage=0.3, kind=0.0, near_best=1.0))
    (answer,) = answer_questions(handbook, encoder, [Question(question)], weights=weights)
    assert answer.answered
    assert answer.answer is not None
    assert answer.answer.text == answer.answer.citation.quote == ANSWERS[question]


def test_a_question_outside_the_corpus_gets_no_answer(handbook: Generation, encoder: Encoder) -> None:
    answer = ask(handbook, encoder, OUTSIDE)
    assert (answer.answered, answer.answer) == (False, None)
    assert answer.confidence < default_weights().confidence.threshold
    assert len(answer.passages) == DEFAULT_TOP_K


def test_an_answer_says_whence_it_comes(handbook: Generation, encoder: Encoder) -> None:
    answer = ask(handbook, encoder, RED)
    assert answer.question == RED
    assert answer.generation == handbook.name
    assert answer.model == encoder.identity
    assert answer.took_ms > 0
    assert [passage.rank for passage in answer.passages] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("question", QUESTIONS)
def test_every_quote_is_what_its_document_says_at_that_place(
    handbook: Generation, encoder: Encoder, question: str
) -> None:
    answer = ask(handbook, encoder, question, top_k=100, min_confidence=0)
    assert answer.answer is not None
    for citation in citations(answer):
        record = handbook.corpus.document(citation.document.id)
        assert record is not None
        text = handbook.corpus.text(record)
        assert text[citation.start : citation.end] == citation.quote
        assert text.count("\n", 0, citation.start) == citation.first_line - 1
        assert text.count("\n", 0, citation.end) == citation.last_line - 1


@pytest.mark.parametrize("question", QUESTIONS)
def test_highlights_are_sentences_of_their_passage(handbook: Generation, encoder: Encoder, question: str) -> None:
    answer = ask(handbook, encoder, question, top_k=100, min_confidence=0)
    for passage in answer.passages:
        assert passage.text == passage.citation.quote
        ((start, end),) = passage.highlights
        assert 0 <= start < end <= len(passage.text)
        assert passage.text[start:end] == passage.text[start:end].strip()
    assert answer.answer is not None
    (start, end), first = answer.passages[0].highlights[0], answer.passages[0].citation
    assert answer.answer.citation.start == first.start + start
    assert answer.answer.citation.end == first.start + end


def test_a_question_gets_the_same_answer_alone_and_in_a_batch(handbook: Generation, encoder: Encoder) -> None:
    together = answer_questions(handbook, encoder, [Question(text) for text in [*QUESTIONS, *reversed(QUESTIONS)]])
    alone = [ask(handbook, encoder, text) for text in QUESTIONS]
    assert together == [*alone, *reversed(alone)]
    assert [as_json(answer) for answer in together[: len(alone)]] == [as_json(answer) for answer in alone]


def test_no_questions_get_no_answers(handbook: Generation, encoder: Encoder) -> None:
    assert answer_questions(handbook, encoder, []) == []


def test_the_same_documents_give_the_same_answer_in_another_index(encoder: Encoder, home: Home) -> None:
    other = Home(home.path.parent / "other")
    texts = {"a.md": RESET, "b.md": "The red light means that there is no power.", "c.md": "Use salt."}
    sync(home, [MemorySource(texts)], encoder)
    # The other one gets there in two steps.
    sync(other, [MemorySource({"b.md": texts["b.md"], "d.md": "Gone soon."})], encoder)
    sync(other, [MemorySource(texts)], encoder, settings=BuildSettings(keep_generations=1))
    one, another = home.open_current(), other.open_current()
    assert replace(ask(one, encoder, RED), generation="") == replace(ask(another, encoder, RED), generation="")
    one.close()
    another.close()


def test_how_many_passages_are_wanted_changes_nothing_else(handbook: Generation, encoder: Encoder) -> None:
    many = ask(handbook, encoder, RED, top_k=100)
    for top_k in (1, 2, 3):
        few = ask(handbook, encoder, RED, top_k=top_k)
        assert (few.answer, few.confidence) == (many.answer, many.confidence)
        assert few.passages == many.passages[:top_k]


def test_a_filter_keeps_documents_out_and_leaves_the_scores_of_the_others(
    handbook: Generation, encoder: Encoder
) -> None:
    everywhere = ask(handbook, encoder, RED, top_k=100)
    filtered = ask(handbook, encoder, RED, top_k=100, filters={"product": "router"})
    scores = {passage.citation.start: passage.score for passage in everywhere.passages}
    assert {passage.citation.document.id for passage in filtered.passages} == {
        "router.md",
        "guide/router reset & tips (ä).md",
    }
    assert all(passage.score == scores[passage.citation.start] for passage in filtered.passages)
    assert (filtered.answer, filtered.confidence) == (everywhere.answer, everywhere.confidence)


@pytest.mark.parametrize(
    ("filters", "doc_id"),
    [
        ({"year": {"gte": 2025}}, "guide/router reset & tips (ä).md"),
        ({"tags": "kitchen"}, "kettle.md"),
        ({"beta": True}, "router.md"),
        ({"doc_id": {"prefix": "guide/"}}, "guide/router reset & tips (ä).md"),
        ({"media_type": "application/pdf"}, "toaster.pdf"),
        ({"doc_id": ["warranty.md"]}, "warranty.md"),
    ],
)
def test_filters_choose_documents(
    handbook: Generation, encoder: Encoder, filters: dict[str, Any], doc_id: str
) -> None:
    answer = ask(handbook, encoder, RED, filters=filters, top_k=100)
    assert {passage.citation.document.id for passage in answer.passages} == {doc_id}


def test_a_filter_that_nothing_passes_gives_no_passages(handbook: Generation, encoder: Encoder) -> None:
    answer = ask(handbook, encoder, RED, filters={"product": "spaceship"}, min_confidence=0)
    assert (answer.answered, answer.answer, answer.passages, answer.confidence) == (False, None, (), 0.0)


def test_a_malformed_filter_is_refused(handbook: Generation, encoder: Encoder) -> None:
    with pytest.raises(QuestionError, match=r"filter on 'year' has \['from'\]"):
        ask(handbook, encoder, RED, filters={"year": {"from": 2024}})


def test_an_empty_filter_keeps_nothing_out(handbook: Generation, encoder: Encoder) -> None:
    assert ask(handbook, encoder, RED, filters={}) == ask(handbook, encoder, RED)


def test_the_threshold_can_be_chosen(handbook: Generation, encoder: Encoder) -> None:
    certain = ask(handbook, encoder, RED, min_confidence=1)
    assert (certain.answered, certain.answer) == (False, None)
    guessed = ask(handbook, encoder, OUTSIDE, min_confidence=0)
    assert guessed.answered
    assert guessed.answer is not None
    exactly = ask(handbook, encoder, RED, min_confidence=certain.confidence)
    assert exactly.answered
    assert certain.passages == exactly.passages == ask(handbook, encoder, RED).passages


def test_an_index_without_documents_answers_nothing(encoder: Encoder, home: Home) -> None:
    sync(home, [MemorySource({})], encoder, settings=BuildSettings(allow_empty=True))
    generation = home.open_current()
    answer = ask(generation, encoder, RED, min_confidence=0)
    assert (answer.answered, answer.passages, answer.confidence) == (False, (), 0.0)
    assert ask(generation, encoder, RED, filters={"year": 2024}) == answer
    generation.close()


def test_a_duplicate_is_cited_beside_its_twin(handbook: Generation, encoder: Encoder) -> None:
    answer = ask(handbook, encoder, "How do I reset the router?")
    first = answer.passages[0]
    assert (first.citation.document.id, first.text) == ("guide/router reset & tips (ä).md", RESET.upper())
    (twin,) = first.also_in
    assert (twin.document.id, twin.quote) == ("router.md", RESET)
    assert twin.document.metadata == {"product": "router", "year": 2024, "beta": True}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "The question is empty"),
        (" \t\n\u3000", "The question is empty"),
        ("?!… – 🦀", "The question '\\?!… – 🦀' has no word in it"),
        ("x" * 100_000, "has 100,000 characters; at most 4,000"),
        ("a" * (MAX_QUESTION_CHARS + 1), "has 4,001 characters"),
        ("half a \ud800 character", "not valid Unicode"),
    ],
)
def test_a_text_that_is_no_question_is_refused(text: str, message: str) -> None:
    with pytest.raises(QuestionError, match=message):
        Question(text)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"top_k": 0}, "top_k is 0. Ask for 1 to 100"),
        ({"top_k": -5}, "top_k is -5"),
        ({"top_k": 10_000}, "top_k is 10000"),
        ({"min_confidence": -0.1}, "min_confidence is -0.1. Give a number from 0 to 1"),
        ({"min_confidence": 1.01}, "min_confidence is 1.01"),
        ({"min_confidence": float("nan")}, "min_confidence is nan"),
    ],
)
def test_what_is_wanted_has_bounds(wanted: dict[str, Any], message: str) -> None:
    with pytest.raises(QuestionError, match=message):
        Question(RED, **wanted)


def test_the_bounds_themselves_are_allowed(handbook: Generation, encoder: Encoder) -> None:
    longest = ("router " * MAX_QUESTION_CHARS)[:MAX_QUESTION_CHARS]
    answer = ask(handbook, encoder, longest, top_k=MAX_TOP_K, min_confidence=0)
    assert answer.passages[0].citation.document.id.endswith(".md")
    assert Question(RED, top_k=1, min_confidence=1).min_confidence == 1


@pytest.fixture(scope="module")
def three_sentences(handbook: Generation, encoder: Encoder) -> Passage:
    """A passage of three sentences."""
    (embedding,) = encoder.encode_queries([RED])
    wanted = Wanted(handbook.lexical.query(RED), embedding, top_k=100)
    (passages,) = retrieve(handbook, [wanted], default_weights().score)
    return next(passage for passage in passages if len(passage.chunk.sentences) == 3)


@pytest.mark.parametrize(
    ("similarities", "first", "last"),
    [
        ((0.9, 0.1, 0.1), 0, 0),
        ((0.1, 0.9, 0.1), 1, 1),
        ((0.1, 0.1, 0.9), 2, 2),
        ((0.9, 0.8, 0.1), 0, 1),
        ((0.8, 0.9, 0.8), 0, 2),
        ((0.8, 0.1, 0.9), 2, 2),
        ((0.5, 0.5, 0.5), 0, 1),
        ((-0.1, -0.5, -0.9), 0, 0),
        ((0.0, 0.0, 0.0), 0, 1),
    ],
)
def test_neighbours_that_do_nearly_as_well_join_the_best_sentence(
    three_sentences: Passage, similarities: tuple[float, ...], first: int, last: int
) -> None:
    passage = replace(three_sentences, sentence_similarities=similarities)
    weights = AnswerWeights(similarity=1.0, coverage=0.0, kind=0.0, near_best=0.85)
    sentences = passage.chunk.sentences
    assert best_sentences(passage, weights) == (sentences[first][0], sentences[last][1])


def test_of_equally_near_sentences_the_one_with_the_words_of_the_question_is_best(
    handbook: Generation, three_sentences: Passage
) -> None:
    passage = replace(three_sentences, sentence_similarities=(0.5, 0.5, 0.5))
    weights = AnswerWeights(similarity=0.5, coverage=0.5, kind=0.0, near_best=0.9)
    for sentence, text in zip(passage.chunk.sentences, passage.chunk.sentence_texts, strict=True):
        # The last word of each sentence is in no other one.
        query = handbook.lexical.query(text.rstrip(".。").split()[-1])
        coverages = handbook.sequences.wording([(query, np.array([passage.chunk.row]))]).sentence_coverage
        asked = replace(passage, sentence_coverages=tuple(coverages.tolist()))
        assert best_sentences(asked, weights) == sentence


@given(similarities=st.lists(st.floats(-1, 1, width=32), min_size=3, max_size=3))
def test_the_best_sentence_is_always_among_those_chosen(three_sentences: Passage, similarities: list[float]) -> None:
    passage = replace(three_sentences, sentence_similarities=tuple(similarities))
    start, end = best_sentences(passage, AnswerWeights(similarity=1.0, coverage=0.0, kind=0.0, near_best=0.85))
    best_start, best_end = passage.chunk.sentences[int(np.argmax(similarities))]
    assert start <= best_start < best_end <= end


@pytest.mark.parametrize(
    ("question", "sentence"),
    [
        ("When was the bridge built?", "Work on it began in June 1867."),
        ("Who designed the bridge?", "It was designed by James Eads."),
        ("Why is the bridge famous?", "It is famous because nobody had built with steel before."),
        ("Tell me about the bridge.", "The bridge crosses the river."),
    ],
)
def test_of_equally_near_sentences_the_one_with_what_is_asked_for_is_best(
    encoder: Encoder, home: Home, question: str, sentence: str
) -> None:
    texts = [
        "The bridge crosses the river.",
        "Work on it began in June 1867.",
        "It was designed by James Eads.",
        "It is famous because nobody had built with steel before.",
    ]
    sync(home, [MemorySource({"bridge.md": " ".join(texts)})], encoder)
    generation = home.open_current()
    (embedding,) = encoder.encode_queries([question])
    wanted = Wanted(generation.lexical.query(question), embedding)
    ((passage,),) = retrieve(generation, [wanted], default_weights().score)
    passage = replace(passage, sentence_similarities=(0.5,) * 4, sentence_coverages=(0.5,) * 4)
    weights = AnswerWeights(similarity=0.45, coverage=0.4, kind=0.15, near_best=0.95)
    start, end = best_sentences(passage, weights, expected_of(question))
    assert passage.chunk.text[start:end].startswith(sentence)
    generation.close()
