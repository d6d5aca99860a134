"""Answers that were given already: the same question to the same generation gets the same answer, so it is kept."""

from __future__ import annotations

import json
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace

from index.answers import Answer, Question
from index.weights import EncoderName

Key = tuple[str, int, str, float | None, EncoderName]


class AnswerCache:
    """The answers of one generation under one calibration, those that were asked for last. For one thread.

    Args:
        most: answers kept; 0 for none.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._answers: OrderedDict[Key, Answer] = OrderedDict()

    def __len__(self) -> int:
        return len(self._answers)

    def answer(
        self,
        questions: Sequence[Question],
        encoder: EncoderName,
        ask: Callable[[Sequence[Question]], list[Answer]],
    ) -> list[Answer]:
        """Answer questions: from what is kept, or else by asking, all those together that have to be asked.

        Two questions are the same when they differ in white space only.
        """
        if not self._most:
            return ask(questions)
        keys = [_key(question, encoder) for question in questions]
        known = [self._known(question, key) for question, key in zip(questions, keys, strict=True)]
        asked = iter(ask([question for question, answer in zip(questions, known, strict=True) if answer is None]))
        answers = [next(asked) if answer is None else answer for answer in known]
        for key, answer in zip(keys, answers, strict=True):
            self._keep(key, answer)
        return answers

    def _known(self, question: Question, key: Key) -> Answer | None:
        started = time.perf_counter()
        answer = self._answers.get(key)
        if answer is None:
            return None
        return replace(answer, question=question.text, took_ms=1000 * (time.perf_counter() - started))

    def _keep(self, key: Key, answer: Answer) -> None:
        self._answers[key] = answer
        self._answers.move_to_end(key)
        if len(self._answers) > self._most:
            self._answers.popitem(last=False)


def _key(question: Question, encoder: EncoderName) -> Key:
    filters = json.dumps(question.filters, sort_keys=True, default=repr)
    return " ".join(question.text.split()), question.top_k, filters, question.min_confidence, encoder
