"""What people look for and do not find: questions without a good answer, grouped when they ask the same.

Two wordings ask the same when the cosine similarity of their embeddings reaches a threshold. It was chosen with
all-MiniLM-L6-v2 on pairs of questions as support teams get them (`tests/question_pairs.py`), and on two public sets:
1,467 questions on government FAQs, where pairs count as the same if one entry answers both, and 1,500 quiz questions
on encyclopedia articles, where nearly every question is another one.

    threshold                                         0.70   0.75   0.80   0.85   0.90
    pairs grouped: the same, nearly as worded          98%    98%    96%    92%    60%
    pairs grouped: the same in other words             49%    38%    20%    16%     4%
    pairs grouped: another question on the topic       26%    13%     4%     0%     0%
    FAQ: pairs within groups that are the same         63%    78%    85%    89%    93%
    FAQ: pairs that are the same within groups         36%    30%    21%    12%     6%
    quiz: questions that are not alone in a group      38%    28%    17%     9%     4%

0.80 it is: a wrong group hides a gap in the documents behind another one, while a missed one shows it twice. What no
threshold groups are typing errors in the one word that matters.
"""

from __future__ import annotations

import asyncio
import threading
from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from index.embeddings import Embeddings, Encoder
from service.feedback import Complaint, MissedQuestion

THRESHOLD = 0.80
# Questions that have nothing to do with each other, and their mean similarity with the model it was measured with.
UNRELATED_SIMILARITY = 0.066
UNRELATED = (
    "How do I reset my password?",
    "Which vaccinations does a puppy need?",
    "When does the museum open on Sundays?",
    "How much flour goes into a pancake?",
    "What causes an eclipse of the moon?",
    "Who won the election for mayor?",
    "Can I return shoes that I have worn?",
    "How deep must the roots of a rose be planted?",
    "Why does the engine of my car rattle?",
    "What is the tax rate for freelancers?",
)
MAX_REMEMBERED = 10_000  # embeddings: 15 MB with the default model


@dataclass(frozen=True)
class Group:
    """Questions that ask the same.

    Attributes:
        wordings: at least one, those missed most often first.
    """

    wordings: tuple[MissedQuestion, ...]

    @property
    def question(self) -> str:
        """The wording that was missed most often."""
        return self.wordings[0].text

    @property
    def count(self) -> int:
        """How often somebody went without a good answer; see `MissedQuestion`."""
        return sum(wording.count for wording in self.wordings)

    @property
    def unanswered(self) -> int:
        """How often there was no answer."""
        return sum(wording.unanswered for wording in self.wordings)

    @property
    def thumbed_down(self) -> int:
        """How often what was shown was thumbed down."""
        return sum(wording.thumbed_down for wording in self.wordings)

    @property
    def first(self) -> datetime:
        """When one of them was first missed."""
        return min(wording.first for wording in self.wordings)

    @property
    def last(self) -> datetime:
        """When one of them was last missed."""
        return max(wording.last for wording in self.wordings)

    def reasons(self, complaints: Iterable[Complaint], *, at_most: int) -> list[str]:
        """Return what was said against their answers, each once, in the order of the complaints."""
        said = (each.reason for each in self._own(complaints) if each.reason is not None)
        return list(dict.fromkeys(said))[:at_most]

    def documents(self, complaints: Iterable[Complaint], *, at_most: int) -> list[str]:
        """Return the ids of documents whose words were thumbed down, those with the most thumbs first."""
        counts = Counter[str]()
        for each in self._own(complaints):
            if each.doc_id is not None:
                counts[each.doc_id] += each.count
        return [doc_id for doc_id, _ in counts.most_common(at_most)]

    def _own(self, complaints: Iterable[Complaint]) -> list[Complaint]:
        texts = {wording.text for wording in self.wordings}
        return [each for each in complaints if each.question in texts]


class Insights:
    """Groups questions, and remembers their embeddings; any thread may call it, one at a time is served.

    Attributes:
        turn: to be held by a coroutine that has questions grouped, so that waiting keeps no thread from other work.
    """

    def __init__(self) -> None:
        self.turn = asyncio.Lock()
        self._lock = threading.Lock()
        self._embeddings: OrderedDict[tuple[str, str], Embeddings] = OrderedDict()
        self._thresholds: dict[str, float] = {}

    def groups(self, questions: Sequence[MissedQuestion], encoder: Encoder) -> list[Group]:
        """Group questions that ask the same, those missed most often first.

        Takes some milliseconds for each question that was not there before.
        """
        if not questions:
            return []
        with self._lock:
            embeddings = self._encoded([question.text for question in questions], encoder)
            threshold = self._threshold(encoder)
        found = group(embeddings, [question.count for question in questions], threshold=threshold)
        return [Group(tuple(questions[position] for position in positions)) for positions in found]

    def _encoded(self, texts: Sequence[str], encoder: Encoder) -> Embeddings:
        keys = [(encoder.identity.files_sha256, text) for text in texts]
        missing = [key for key in keys if key not in self._embeddings]
        if missing:
            self._embeddings.update(zip(missing, encoder.encode_queries([text for _, text in missing]), strict=True))
        for key in keys:
            self._embeddings.move_to_end(key)
        embeddings = np.stack([self._embeddings[key] for key in keys])
        while len(self._embeddings) > MAX_REMEMBERED:
            self._embeddings.popitem(last=False)
        return embeddings

    def _threshold(self, encoder: Encoder) -> float:
        model = encoder.identity.files_sha256
        if model not in self._thresholds:
            self._thresholds[model] = threshold_for(encoder.encode_queries(UNRELATED))
        return self._thresholds[model]


def group(embeddings: Embeddings, counts: Sequence[int], *, threshold: float) -> list[list[int]]:
    """Group questions that ask the same.

    In order of its count, each question joins the most similar of those that lead a group, if that one is similar
    enough, and else leads a group of its own. So each is compared with the wording that stands for its group, and no
    chain of small steps leads from one question to another. Average linkage was no better, and needs a library.

    Args:
        embeddings: float32, shape (n_questions, dim), rows of unit length.
        counts: of each question.
        threshold: cosine similarity from which on two ask the same.

    Returns:
        Positions of the questions of each group, its leader first, then by count; the groups by the sum of their
        counts, the largest first. The earlier position goes first where counts are equal.
    """
    similarities = embeddings @ embeddings.T
    groups: dict[int, list[int]] = {}
    for position in sorted(range(len(counts)), key=lambda each: -counts[each]):
        leaders = list(groups)
        nearest = leaders[int(np.argmax(similarities[position, leaders]))] if leaders else position
        if leaders and similarities[position, nearest] >= threshold:
            groups[nearest].append(position)
        else:
            groups[position] = [position]
    return sorted(groups.values(), key=lambda positions: -sum(counts[position] for position in positions))


def threshold_for(unrelated: Embeddings) -> float:
    """Return the threshold for a model: as far between unrelated and equal as 0.80 is with the measured one.

    Some models call everything similar: with them unrelated questions have a cosine similarity of 0.7 and more.

    Args:
        unrelated: the model's embeddings of `UNRELATED`; float32, rows of unit length.
    """
    similarities = (unrelated @ unrelated.T)[np.triu_indices(len(unrelated), 1)]
    return 1 - (1 - THRESHOLD) * (1 - float(similarities.mean())) / (1 - UNRELATED_SIMILARITY)
