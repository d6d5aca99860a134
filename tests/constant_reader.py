"""A process that does nothing but ask, while somebody else publishes; prints what it saw as JSON.

It ends with an error at the first answer that is torn: that does not fit the generation it names.

python constant_reader.py HOME LAST       until the generation with the documents of version LAST is asked
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path

from checking import check_answer, cited
from tiny_encoder import WordEncoder

from index.answers import Question, answer_questions
from index.generations import Generation, Home

PATIENCE_S = 600.0
ROUNDS = 2
QUESTIONS = [Question(text) for text in ("Which version is this?", "Who counts?", "What does the last one say?")]


def version(number: int) -> dict[str, str]:
    """Return the documents of a version, all of whose sentences say which one it is; their number differs."""
    counting = f"Version {number} counts {'on and ' * (number % 7)}on.\n"
    texts = {
        "guide.md": f"# Guide\n\nThis is version {number}.\n\n## More\n\n{counting}",
        "last.md": f"# Last\n\nThe last one says {number}.\n",
    }
    return {**texts, f"only-in-{number}.md": f"# Only\n\nThis document is only in version {number}.\n"}


@dataclass
class Tally:
    """What a reader saw.

    Attributes:
        answers: that it got.
        citations: that it checked.
        versions: that it has opened, in order.
    """

    answers: int = 0
    citations: int = 0
    versions: list[int] = field(default_factory=list)


def watch(home: Home, last: int) -> Tally:
    """Ask until the last version answers, opening the published generation anew all the time."""
    tally, deadline = Tally(), time.monotonic() + PATIENCE_S
    while tally.versions[-1:] != [last]:
        assert time.monotonic() < deadline, f"version {last} was never published"
        with closing(home.open_current()) as generation:
            _ask(generation, tally)
    return tally


def _ask(generation: Generation, tally: Tally) -> None:
    """Ask a generation for a while, in which it may be pruned."""
    texts = {record.doc_id: generation.corpus.text(record) for record in generation.corpus.documents()}
    number = int(texts["last.md"].split()[-1].rstrip("."))
    assert texts == version(number), f"{generation.name} mixes versions: {texts}"
    tally.versions.append(number)
    for answer in answer_questions(generation, ENCODER, ROUNDS * QUESTIONS):
        assert (answer.generation, bool(answer.passages)) == (generation.name, True)
        check_answer(answer, texts)
        tally.answers += 1
        tally.citations += len(cited(answer))


ENCODER = WordEncoder()

if __name__ == "__main__":
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdout.write(json.dumps(asdict(watch(Home(Path(sys.argv[1])), int(sys.argv[2])))))
