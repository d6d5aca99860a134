"""What array operations tell of the words of chunks is what a reading of their text tells."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import pytest

from index.build import sync
from index.embeddings import Encoder
from index.generations import Generation, Home
from index.sequences import Wording, digest
from index.sources import Source
from index.terms import STOP_WORDS, analyse, every_term

TEXTS = {
    "kettle.md": """# Kettle

## How do I descale the kettle?

Descale the kettle every three months. Use water and vinegar in equal parts! Is vinegar safe? It is.

## Parts

| part | price |
|---|---|
| lid | 5 |
| base | 12 |
""",
    "router.md": "# Router\n\nThe red light means there is no power.\n\nPower off the router (“really?”) at night.\n",
    "empty title.txt": "To be or not to be.\n",
}
QUESTIONS = [
    "How often should I descale the kettle?",
    "the kettle, the kettle: descale months",
    "light red power",
    "What is the price of the base?",
    "To be or not to be",
    "xylophone",
    "Router",
]


@pytest.fixture(scope="module")
def generation(encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Generation]:
    folder = tmp_path_factory.mktemp("sequences")
    for name, text in TEXTS.items():
        (folder / name).write_text(text, encoding="utf-8")
    home = Home(tmp_path_factory.mktemp("home"))
    sync(home, [Source(folder)], encoder)
    with_all = home.open_current()
    yield with_all
    with_all.close()


def rows_of(generation: Generation) -> np.ndarray:
    return np.arange(generation.manifest.chunks)


def asked(generation: Generation, question: str, rows: np.ndarray | None = None) -> Wording:
    query = generation.lexical.query(question)
    return generation.sequences.wording([(query, rows_of(generation) if rows is None else rows)])


@pytest.mark.parametrize("question", QUESTIONS)
def test_shares_are_those_of_the_text(generation: Generation, question: str) -> None:
    query, found = generation.lexical.query(question), asked(generation, question)
    total = sum(query.term_weights.values())

    def share(terms: set[str]) -> float:
        return sum(weight for term, weight in query.term_weights.items() if term in terms) / total

    coverages, with_context = [], []
    for row, chunk in enumerate(generation.corpus.chunks(rows_of(generation).tolist())):
        context, sentences = (
            set(every_term(chunk.context)),
            [set(every_term(text)) for text in chunk.embedded_sentences],
        )
        assert found.held[row].tolist() == [term in context.union(*sentences) for term in query.term_weights]
        assert found.coverage[row] == pytest.approx(share(context.union(*sentences)))
        assert found.best_coverage[row] == pytest.approx(max(share(context | terms) for terms in sentences))
        coverages.extend(share(terms) for terms in sentences)
        with_context.extend(share(context | terms) for terms in sentences)
    assert found.sentence_coverage == pytest.approx(coverages)
    assert found.context_coverage == pytest.approx(with_context)


@pytest.mark.parametrize("question", QUESTIONS)
def test_phrases_are_pairs_of_neighbours_in_either_order(generation: Generation, question: str) -> None:
    query, found = generation.lexical.query(question), asked(generation, question)
    terms = analyse(question)
    assert set(query.neighbours) == {(min(pair), max(pair)) for pair in pairwise(terms) if pair[0] != pair[1]}
    for row, chunk in enumerate(generation.corpus.chunks(rows_of(generation).tolist())):
        text = list(chain.from_iterable(every_term(sentence) for sentence in chunk.embedded_sentences))
        beside = {frozenset(pair) for pair in pairwise(term for term in text if term not in STOP_WORDS)}
        weights = {pair: sum(query.term_weights[term] for term in pair) for pair in query.neighbours}
        held = sum(weight for pair, weight in weights.items() if frozenset(pair) in beside)
        assert found.phrases[row] == pytest.approx(held / sum(weights.values()) if weights else 0)


def test_what_a_chunk_gets_does_not_depend_on_the_others(generation: Generation) -> None:
    rows = rows_of(generation)
    together = asked(generation, QUESTIONS[0])
    alone = [asked(generation, QUESTIONS[0], rows[row : row + 1]) for row in rows]
    for name in ("coverage", "best_coverage", "phrases", "sentence_coverage", "context_coverage"):
        assert np.concatenate([getattr(each, name) for each in alone]).tobytes() == getattr(together, name).tobytes()


def test_what_a_chunk_gets_does_not_depend_on_other_questions(generation: Generation) -> None:
    chosen = [rows_of(generation)[number % 3 :: 1 + number % 2] for number in range(len(QUESTIONS))]
    chosen[3] = chosen[3][:0]
    queries = [generation.lexical.query(question) for question in QUESTIONS]
    together = generation.sequences.wording(list(zip(queries, chosen, strict=True)))
    alone = [generation.sequences.wording([each]) for each in zip(queries, chosen, strict=True)]
    for name in ("coverage", "best_coverage", "phrases", "sentence_coverage", "context_coverage"):
        assert np.concatenate([getattr(each, name) for each in alone]).tobytes() == getattr(together, name).tobytes()
    ends = np.cumsum([len(rows) for rows in chosen])
    for held, each in zip(np.split(together.held, ends[:-1]), alone, strict=True):
        terms = each.held.shape[1]
        np.testing.assert_array_equal(held[:, :terms], each.held)
        assert not held[:, terms:].any()


def test_words_that_no_chunk_holds_have_no_share(generation: Generation) -> None:
    found = asked(generation, "Xylophone zymurgy?")
    for name in ("held", "coverage", "best_coverage", "phrases", "sentence_coverage", "context_coverage"):
        assert not getattr(found, name).any()


def test_sentences_that_ask_are_known(generation: Generation) -> None:
    rows = rows_of(generation)[::-1]
    texts = chain.from_iterable(chunk.sentence_texts for chunk in generation.corpus.chunks(rows.tolist()))
    is_question = generation.sequences.questions[generation.sentences.of_chunks(rows).positions]
    asking = [text for text, asks in zip(texts, is_question, strict=True) if asks]
    assert "Is vinegar safe?" in asking
    assert all("?" in text for text in asking)
    assert len(asking) < len(generation.sentences)


def test_a_stop_word_is_marked_in_its_digest() -> None:
    assert [digest(term) & 1 for term in ("the", "kettle", "", "𐍈")] == [1, 0, 0, 0]
    assert digest("kettle") != digest("kettles")


def test_the_files_depend_on_the_documents_alone(encoder: Encoder, tmp_path: Path) -> None:
    folder = tmp_path / "docs"
    folder.mkdir()
    for name, text in TEXTS.items():
        (folder / name).write_text(text, encoding="utf-8")
    at_once, by_and_by = Home(tmp_path / "at once"), Home(tmp_path / "by and by")
    sync(at_once, [Source(folder)], encoder)
    router = folder / "router.md"
    router.write_text("# Router\n\nSomething else.\n", encoding="utf-8")
    (folder / "a.txt").write_text("This comes first, and goes again.", encoding="utf-8")
    sync(by_and_by, [Source(folder)], encoder)
    (folder / "a.txt").unlink()
    router.write_text(TEXTS["router.md"], encoding="utf-8")
    sync(by_and_by, [Source(folder)], encoder)
    files = [sorted((home.open_current().folder / "sequences").iterdir()) for home in (at_once, by_and_by)]
    assert [path.name for path in files[0]] == ["questions.npy", "shingles.npy", "starts.npy", "terms.npy"]
    assert [path.read_bytes() for path in files[0]] == [path.read_bytes() for path in files[1]]
