"""Ask labelled questions about a folder of documents, and count the right documents and the right silences.

    python benchmarks/questions.py LABELS DOCUMENTS

LABELS has one JSON object a line, {"question": "...", "documents": ["guide.md", ...]}: the documents that answer it,
none where nothing does.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from index.answers import Answer, Question, answer_questions
from index.build import sync
from index.embeddings import load_encoder
from index.generations import Home
from index.models import DEFAULT_MODEL
from index.sources import Source
from service.settings import read_settings


def main() -> None:
    """Index, ask, count, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels", type=Path)
    parser.add_argument("documents", type=Path)
    arguments = parser.parse_args()
    labels = [json.loads(line) for line in arguments.labels.read_text(encoding="utf-8").splitlines()]
    answers = ask_all([label["question"] for label in labels], arguments.documents)
    answerable = [pair for pair in zip(labels, answers, strict=True) if pair[0]["documents"]]
    others = [answer for label, answer in zip(labels, answers, strict=True) if not label["documents"]]
    print("| questions | right document first | among the first three | answered | of others not answered |")
    print("|---|---|---|---|---|")
    shares = (
        share([is_right(answer, label["documents"], 1) for label, answer in answerable]),
        share([is_right(answer, label["documents"], 3) for label, answer in answerable]),
        share([answer.answered for _, answer in answerable]),
        share([not answer.answered for answer in others]),
    )
    print(f"| {len(answerable)} + {len(others)} | {' | '.join(shares)} |")


def ask_all(questions: list[str], documents: Path) -> list[Answer]:
    """Answer questions from an index of the documents."""
    settings = read_settings()
    encoder = load_encoder(DEFAULT_MODEL, cache_folder=settings.cache / "models")
    home = Home(settings.cache / "questions" / documents.resolve().name)
    sync(home, [Source(documents.resolve())], encoder)
    generation = home.open_current()
    try:
        return answer_questions(generation, encoder, [Question(question) for question in questions])
    finally:
        generation.close()


def is_right(answer: Answer, documents: list[str], within: int) -> bool:
    """Tell whether one of the first passages is of a right document."""
    return any(passage.citation.document.id in documents for passage in answer.passages[:within])


def share(hits: list[bool]) -> str:
    """Return the share of hits as text."""
    return f"{sum(hits) / len(hits):.1%}" if hits else ""


if __name__ == "__main__":
    main()
