"""Passages come from both searches, with one score that depends on nothing but question, chunk and corpus."""

from __future__ import annotations

import itertools
from dataclasses import asdict, replace

import numpy as np
import pytest
from handbook import RESET
from sources_in_memory import MemorySource

from index import retrieval as module
from index.build import sync
from index.embeddings import Embeddings, Encoder
from index.generations import Generation, Home
from index.retrieval import RESCORED, Passage, Wanted, retrieve, score_candidates
from index.store import CANDIDATES
from index.terms import every_term
from index.weights import ScoreWeights

PARTS = {
    "dense": 0.3,
    "sentence": 0.25,
    "question": 0.05,
    "coverage": 0.15,
    "either": 0.1,
    "sentence_coverage": 0.05,
    "phrases": 0.1,
}
WEIGHTS = ScoreWeights(**PARTS, furniture=0.5)
NO_WEIGHTS = ScoreWeights(**dict.fromkeys(PARTS, 0.0), furniture=1.0)
RESETTING = "How do I reset the router?"
QUESTIONS = [
    RESETTING,
    "What does the red light mean?",
    "crumb tray of the toaster",
    "Who won the world cup in 1998?",
    "東京タワー",
    "to be or not to be",
]


def embedded(encoder: Encoder, question: str) -> Embeddings:
    (embedding,) = encoder.encode_queries([question])
    return np.asarray(embedding)


def found(
    generation: Generation,
    encoder: Encoder,
    question: str,
    *,
    top_k: int = 5,
    allowed: np.ndarray | None = None,
    weights: ScoreWeights = WEIGHTS,
) -> list[Passage]:
    wanted = Wanted(generation.lexical.query(question), embedded(encoder, question), top_k, allowed)
    (passages,) = retrieve(generation, [wanted], weights)
    return passages


def scores_by_row(passages: list[Passage]) -> dict[int, tuple[object, ...]]:
    return {
        passage.chunk.row: (passage.score, passage.evidence, passage.bm25, passage.sentence_similarities)
        for passage in passages
    }


def test_the_passage_that_answers_comes_first(handbook: Generation, encoder: Encoder) -> None:
    first = {question: found(handbook, encoder, question)[0].chunk.text for question in QUESTIONS[:3]}
    assert first[QUESTIONS[0]].casefold() == RESET.casefold()  # which stands in capitals elsewhere
    assert first[QUESTIONS[1]].startswith("The red light means that there is no power.")
    assert first[QUESTIONS[2]].startswith("Crumbs fall into a tray.")


def test_a_score_is_the_weighted_sum_of_its_parts(handbook: Generation, encoder: Encoder) -> None:
    embedding = embedded(encoder, RESETTING)
    query = handbook.lexical.query(RESETTING)
    for passage in found(handbook, encoder, RESETTING, top_k=100):
        row = passage.chunk.row
        sentences = encoder.encode_documents(passage.chunk.sentence_texts) @ embedding
        (whole,) = encoder.encode_documents([passage.chunk.embedded_text]) @ embedding
        np.testing.assert_allclose(passage.evidence.dense, max(0, whole), atol=0.002)
        np.testing.assert_allclose(passage.sentence_similarities, sentences, atol=0.01)
        np.testing.assert_allclose(passage.evidence.sentence, max(0, *sentences, 0), atol=0.01)
        assert passage.bm25 == query.scores[row]
        neither = (1 - passage.evidence.sentence) * (1 - passage.evidence.coverage)
        assert passage.evidence.either == pytest.approx(1 - neither, abs=1e-6)
        fused = sum(weight * getattr(passage.evidence, name) for name, weight in PARTS.items())
        assert passage.score == pytest.approx(fused * (0.5 if passage.chunk.is_furniture else 1))


@pytest.mark.parametrize("question", [*QUESTIONS, "Is it so?", "router router kettle"])
def test_coverage_is_the_share_of_the_words_that_a_passage_holds(
    handbook: Generation, encoder: Encoder, question: str
) -> None:
    weights = handbook.lexical.query(question).term_weights
    for passage in found(handbook, encoder, question, top_k=100):
        held = set(every_term(passage.chunk.embedded_text))
        share = sum(weight for term, weight in weights.items() if term in held) / sum(weights.values())
        assert passage.evidence.coverage == pytest.approx(share)


@pytest.mark.parametrize("question", [*QUESTIONS, "Is it so?"])
def test_answer_coverage_is_that_of_the_nearest_sentence_with_its_headings(
    handbook: Generation, encoder: Encoder, question: str
) -> None:
    weights = handbook.lexical.query(question).term_weights
    for passage in found(handbook, encoder, question, top_k=100):
        nearest = int(np.argmax(passage.sentence_similarities))
        held = set(every_term(f"{passage.chunk.context}\n{passage.chunk.embedded_sentences[nearest]}"))
        share = sum(weight for term, weight in weights.items() if term in held) / sum(weights.values())
        assert passage.evidence.answer_coverage == pytest.approx(share)


@pytest.mark.parametrize(
    ("question", "names", "unknown"),
    [
        ("how does the café reach Straße", 1, 0),
        ("what is the Wi-Fi of the café", 1, 0),
        ("what is the WiFi of the café", 1, 0),
        ("is the network of the café in Straße 8", 0, 1),
        ("does the café at Straße 7 sell a Cortado", 0, 1),
    ],
)
def test_a_passage_holds_the_names_in_a_question_or_it_does_not(
    handbook: Generation, encoder: Encoder, question: str, names: float, unknown: float
) -> None:
    (passage,) = found(handbook, encoder, question, top_k=1)
    assert passage.chunk.text.startswith("The café network")
    assert (passage.evidence.names, passage.evidence.unknown) == (names, unknown)


@pytest.mark.parametrize("question", QUESTIONS)
def test_scores_are_in_order_and_in_bounds(handbook: Generation, encoder: Encoder, question: str) -> None:
    passages = found(handbook, encoder, question, top_k=100)
    scores = [passage.score for passage in passages]
    assert scores == sorted(scores, reverse=True)
    for passage in passages:
        parts = asdict(passage.evidence)
        assert -1 <= parts.pop("background") <= 1
        assert all(0 <= part <= 1 for part in (passage.score, *parts.values()))


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("top_k", [1, 2, 3, 7])
def test_scores_do_not_depend_on_how_many_are_wanted(
    handbook: Generation, encoder: Encoder, question: str, top_k: int
) -> None:
    everything = found(handbook, encoder, question, top_k=100)
    few = found(handbook, encoder, question, top_k=top_k)
    assert [passage.chunk.row for passage in few] == [passage.chunk.row for passage in everything[:top_k]]
    assert scores_by_row(few).items() <= scores_by_row(everything).items()


@pytest.mark.parametrize("question", QUESTIONS)
def test_scores_do_not_depend_on_what_is_allowed(handbook: Generation, encoder: Encoder, question: str) -> None:
    everything = scores_by_row(found(handbook, encoder, question, top_k=100))
    for kept in itertools.combinations(everything, 3):
        allowed = np.zeros(handbook.manifest.chunks, dtype=np.bool_)
        allowed[list(kept)] = True
        some = scores_by_row(found(handbook, encoder, question, top_k=100, allowed=allowed))
        assert some.keys() == set(kept)
        # Exactly: not one bit of a float differs.
        assert some.items() <= everything.items()


def test_a_question_finds_the_same_alone_and_with_others(handbook: Generation, encoder: Encoder) -> None:
    some, none = (np.zeros(handbook.manifest.chunks, dtype=np.bool_) for _ in range(2))
    some[::2] = True
    long = " ".join(f"{RESETTING} word{number}" for number in range(100))
    wanted = [
        Wanted(handbook.lexical.query(question), embedded(encoder, question), top_k, allowed)
        for question, (top_k, allowed) in zip(
            [*QUESTIONS, long, RESETTING],
            itertools.cycle([(5, None), (100, some), (3, none), (1, None)]),
            strict=False,
        )
    ]
    together = retrieve(handbook, wanted, WEIGHTS)
    assert [len(passages) for passages in together[:4]] == [5, min(100, int(some.sum())), 0, 1]
    for each, passages in zip(wanted, together, strict=True):
        assert retrieve(handbook, [each], WEIGHTS) == [passages]


def test_the_rest_is_scored_for_the_question_that_wants_more_than_are_scored_first(
    handbook: Generation, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RESCORED", 4)
    wanted = [
        Wanted(handbook.lexical.query(question), embedded(encoder, question), top_k)
        for question, top_k in zip(QUESTIONS, itertools.cycle([3, 10]), strict=False)
    ]
    together = retrieve(handbook, wanted, WEIGHTS)
    assert together == [retrieve(handbook, [each], WEIGHTS)[0] for each in wanted]
    assert [len(passages) for passages in together] == [each.top_k for each in wanted]


def test_nothing_allowed_gives_no_passages(handbook: Generation, encoder: Encoder) -> None:
    nothing = np.zeros(handbook.manifest.chunks, dtype=np.bool_)
    assert found(handbook, encoder, RESETTING, allowed=nothing) == []


def test_more_passages_than_there_are_can_be_wanted(handbook: Generation, encoder: Encoder) -> None:
    passages = found(handbook, encoder, RESETTING, top_k=100)
    rows = [row for passage in passages for row in (passage.chunk.row, *(chunk.row for chunk in passage.also_in))]
    assert sorted(rows) == list(range(handbook.manifest.chunks))


def test_what_says_the_same_is_one_passage(handbook: Generation, encoder: Encoder) -> None:
    first, *others = found(handbook, encoder, RESETTING, top_k=100)
    (twin,) = first.also_in
    texts = {chunk.document.doc_id: chunk.text for chunk in (first.chunk, twin)}
    assert texts == {"router.md": RESET, "guide/router reset & tips (ä).md": RESET.upper()}
    assert twin.row not in {passage.chunk.row for passage in others}


def test_what_says_nearly_the_same_is_one_passage_only_when_it_is_very_near(encoder: Encoder, home: Home) -> None:
    words = [f"word{number}" for number in range(100)]
    texts = {
        "0.md": " ".join(words),
        # One word of a hundred differs: 3 of its 98 runs of three words, 95 of 101 are shared.
        "1.md": " ".join(["other" if number == 50 else word for number, word in enumerate(words)]),
        # Four do: 86 of 110 are shared.
        "2.md": " ".join(["other" if number % 25 == 10 else word for number, word in enumerate(words)]),
    }
    sync(home, [MemorySource(texts)], encoder)
    generation = home.open_current()
    passages = found(generation, encoder, "word1 word2 word3")
    groups = [
        {passage.chunk.document.doc_id, *(chunk.document.doc_id for chunk in passage.also_in)} for passage in passages
    ]
    assert sorted(map(sorted, groups)) == [["0.md", "1.md"], ["2.md"]]
    generation.close()


def test_duplicates_do_not_use_up_the_passages_wanted(encoder: Encoder, home: Home) -> None:
    texts = {f"copy{number:02}.md": f"# Copy {number}\n\n{RESET}" for number in range(30)}
    texts["light.md"] = "The red light of the router means that there is no power."
    sync(home, [MemorySource(texts)], encoder)
    generation = home.open_current()
    copies, light = found(generation, encoder, RESETTING, top_k=2)
    assert (copies.chunk.text, len(copies.also_in)) == (RESET, 29)
    assert light.chunk.document.doc_id == "light.md"
    generation.close()


def test_what_says_the_same_does_not_depend_on_how_many_are_wanted(encoder: Encoder, home: Home) -> None:
    # By its title the last copy is far from the question, and many passages come between.
    texts = {f"copy{number}.md": f"# Reset\n\n{RESET}" for number in range(3)}
    texts |= {f"room{number:02}.md": f"The router in room {number} restarts at night." for number in range(60)}
    texts["late.md"] = f"# {'Plum cake with cinnamon and cream for eight people. ' * 8}\n\n{RESET}"
    sync(home, [MemorySource(texts)], encoder)
    generation = home.open_current()
    by_meaning = replace(NO_WEIGHTS, dense=1.0)
    query = generation.lexical.query(RESETTING)
    ranked = score_candidates(generation, query, embedded(encoder, RESETTING), weights=by_meaning).rows.tolist()
    doc_ids = [chunk.document.doc_id for chunk in generation.corpus.chunks(ranked)]
    assert doc_ids.index("late.md") > 45
    everything = found(generation, encoder, RESETTING, top_k=100, weights=by_meaning)
    assert [chunk.document.doc_id for chunk in everything[0].also_in] == ["copy1.md", "copy2.md", "late.md"]
    for top_k in (1, 5, 12, 60):
        few = found(generation, encoder, RESETTING, top_k=top_k, weights=by_meaning)
        assert few == everything[:top_k]
    generation.close()


def test_more_passages_than_are_scored_at_first_come_after_these(encoder: Encoder, home: Home) -> None:
    texts = {
        f"{number:03}.md": f"Router number {number} resets room {7 * number}." for number in range(RESCORED + 30)
    }
    sync(home, [MemorySource(texts)], encoder)
    generation = home.open_current()
    everything = found(generation, encoder, RESETTING, top_k=100)
    assert len(everything) == RESCORED + 30
    scores = [passage.score for passage in everything]
    assert scores == sorted(scores[:RESCORED], reverse=True) + sorted(scores[RESCORED:], reverse=True)
    for top_k in (1, RESCORED - 1, RESCORED, RESCORED + 1):
        assert found(generation, encoder, RESETTING, top_k=top_k) == everything[:top_k]
    ranked = score_candidates(
        generation, generation.lexical.query(RESETTING), embedded(encoder, RESETTING), weights=WEIGHTS
    )
    assert ranked.rows.tolist() == [passage.chunk.row for passage in everything]
    generation.close()


def test_page_furniture_comes_after_content_that_says_the_same(handbook: Generation, encoder: Encoder) -> None:
    question = "Empty the crumb tray of the toaster weekly"
    content, furniture = found(handbook, encoder, question)[:2]
    assert (content.chunk.is_furniture, furniture.chunk.is_furniture) == (False, True)
    assert furniture.chunk.text == question
    unweighted = replace(WEIGHTS, furniture=1.0)
    whole = scores_by_row(found(handbook, encoder, question, weights=unweighted))
    assert whole[furniture.chunk.row][0] == pytest.approx(2 * furniture.score)
    assert whole[content.chunk.row][0] == content.score


def test_a_question_whose_words_are_nowhere_is_found_by_meaning(handbook: Generation, encoder: Encoder) -> None:
    (passage,) = found(handbook, encoder, "guaranteed for how long", top_k=1)
    assert passage.chunk.text.startswith("The warranty of every appliance")
    assert (passage.bm25, passage.evidence.coverage) == (0, 0)


def test_candidates_come_from_both_searches(encoder: Encoder, home: Home) -> None:
    # More chunks than either search gives: the word is in one that means something else.
    texts = {f"{number:03}.md": f"Router number {number} resets itself." for number in range(CANDIDATES + 50)}
    texts["word.md"] = "Granny's recipe for plum cake calls for zwetschgen and a router, of all things."
    sync(home, [MemorySource(texts)], encoder)
    generation = home.open_current()
    question = "zwetschgen"
    scored = score_candidates(
        generation, generation.lexical.query(question), embedded(encoder, question), weights=WEIGHTS
    )
    assert CANDIDATES <= len(scored.rows) <= CANDIDATES + 1
    assert generation.corpus.chunks([int(scored.rows[0])])[0].document.doc_id == "word.md"
    assert np.count_nonzero(scored.bm25) == 1
    generation.close()


def test_equal_scores_come_in_the_order_of_the_corpus(encoder: Encoder, home: Home) -> None:
    # Texts of one length with the word in each: no duplicates, but all with the same keyword score.
    texts = {f"{number}.md": f"pear and {chr(97 + number) * 4} and {chr(107 + number) * 4}" for number in range(6)}
    sync(home, [MemorySource(texts)], encoder)
    generation = home.open_current()
    by_words = replace(NO_WEIGHTS, coverage=1.0)
    passages = found(generation, encoder, "pear", top_k=6, weights=by_words)
    assert len({passage.score for passage in passages}) == 1
    assert [passage.chunk.row for passage in passages] == [0, 1, 2, 3, 4, 5]
    generation.close()
