"""Checks that every answer of every generation must pass."""

from __future__ import annotations

from collections.abc import Mapping

from index.answers import Answer, Question, answer_questions
from index.citations import Citation, PresentText, SavedCitation, Standing, verify
from index.embeddings import Encoder
from index.generations import Generation

CONTEXT_CHARS = 32  # of prefix and suffix, as promised


def cited(answer: Answer) -> list[Citation]:
    """Return every citation of an answer."""
    passages = [citation for passage in answer.passages for citation in (passage.citation, *passage.also_in)]
    return passages if answer.answer is None else [answer.answer.citation, *passages]


def saved(citation: Citation) -> SavedCitation:
    """Return what somebody keeps of a citation."""
    document = citation.document
    place = (citation.start, citation.end, citation.quote, citation.prefix, citation.suffix)
    return SavedCitation(document.id, document.sha256, *place)


def check_answer(answer: Answer, texts: Mapping[str, str]) -> None:
    """Hold every citation of an answer against the documents that its generation must have."""
    for citation in cited(answer):
        text = texts[citation.document.id]  # one that was deleted is in no answer
        present = PresentText(text, citation.document.sha256)
        found = verify(saved(citation), lambda _, present=present: present)  # type: ignore[misc]
        assert (found.standing, found.is_same_source) == (Standing.FOUND, True)
        assert citation.prefix == text[max(0, citation.start - CONTEXT_CHARS) : citation.start]
        assert citation.suffix == text[citation.end : citation.end + CONTEXT_CHARS]
    for passage in answer.passages:
        assert passage.text == passage.citation.quote


def check_generation(generation: Generation, encoder: Encoder, texts: Mapping[str, str]) -> None:
    """Compare the documents of a generation, and ask for each of them."""
    records = {record.doc_id: record for record in generation.corpus.documents()}
    assert {doc_id: generation.corpus.text(record) for doc_id, record in records.items()} == texts
    questions = {doc_id: Question(text.splitlines()[-1], top_k=100) for doc_id, text in texts.items()}
    answers = answer_questions(generation, encoder, list(questions.values()))
    for doc_id, answer in zip(questions, answers, strict=True):
        assert answer.generation == generation.name
        check_answer(answer, texts)
        assert doc_id in {citation.document.id for citation in cited(answer)}
