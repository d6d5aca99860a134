"""The numbers behind scores and confidence, read from `weights.toml` beside this file."""

from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

# Of a passage's score: the first fields of `Evidence` and of `ScoreWeights`, in their order.
PARTS = ("dense", "sentence", "question", "coverage", "either", "sentence_coverage", "phrases")

EncoderName = Literal["full", "instant"]  # what makes an embedding of a question: the model, or `index.instant`


@dataclass(frozen=True)
class Evidence:
    """What speaks for a passage; nothing in it depends on other passages, on filters or on how many are wanted.

    Attributes:
        dense: cosine similarity of question and chunk, in [0, 1], 0 if below.
        sentence: cosine similarity of question and the chunk's best sentence, likewise.
        question: cosine similarity of question and the nearest sentence of the chunk that is a question itself, as in
            a list of frequent questions; 0 without one.
        coverage: share of the question's terms that the chunk holds, rare ones weighing more.
        either: how near the chunk is by its best sentence or by its terms, 1 - (1 - sentence)(1 - coverage): where
            the one says much already, the other adds little (the probabilistic sum, as in Pearl 1988, "Probabilistic
            Reasoning in Intelligent Systems", section 4.3.2, the noisy-or).
        sentence_coverage: the largest share that one sentence with the chunk's title and headings holds.
        phrases: share of the pairs of neighbouring terms of the question that are neighbours in the chunk, too.
        names: 1 if the chunk holds every name in the question, or there is none; else 0.
        answer_coverage: share of the question's terms that the nearest sentence with the chunk's title and headings
            holds.
        background: cosine similarity of question and the corpus as a whole, in [-1, 1]: where everything is about
            one subject, everything is near to a question on it, and nearness says less.
        specificity: how rare the question's terms are in the corpus on average, see `index.vocabulary.LexicalQuery`:
            one on rare things has few passages that are nearly right.
        unknown: 1 if no chunk of the corpus holds one of the question's terms, else 0: what no passage has, this one
            need not have either.
    """

    dense: float
    sentence: float
    question: float
    coverage: float
    either: float
    sentence_coverage: float
    phrases: float
    names: float
    answer_coverage: float
    background: float
    specificity: float
    unknown: float


@dataclass(frozen=True)
class ScoreWeights:
    """Parts of a passage's score, see `Evidence`. All but `furniture`, which is a factor, add up to 1."""

    dense: float
    sentence: float
    question: float
    coverage: float
    either: float
    sentence_coverage: float
    phrases: float
    furniture: float

    @cached_property
    def of_parts(self) -> NDArray[np.float32]:
        """Those of `PARTS`: float32, shape (parts,)."""
        return np.array([getattr(self, part) for part in PARTS], np.float32)


@dataclass(frozen=True)
class AnswerWeights:
    """Parts of a sentence's score, and when its neighbour joins it."""

    similarity: float
    coverage: float
    kind: float
    near_best: float


@dataclass(frozen=True)
class ConfidenceWeights:
    """A logistic regression on the evidence for a passage."""

    intercept: float
    dense: float
    sentence: float
    question: float
    coverage: float
    either: float
    sentence_coverage: float
    phrases: float
    names: float
    answer_coverage: float
    background: float
    specificity: float
    unknown: float
    threshold: float

    def probability(self, evidence: Evidence) -> float:
        """Return the probability that a passage with this evidence answers the question, in [0, 1]."""
        parts = (getattr(self, name) * value for name, value in vars(evidence).items())
        # The logistic function by way of tanh, which does not overflow whatever the weights are.
        return 0.5 + 0.5 * math.tanh((self.intercept + math.fsum(parts)) / 2)


@dataclass(frozen=True)
class Weights:
    """All of them."""

    score: ScoreWeights
    answer: AnswerWeights
    confidence: ConfidenceWeights

    @classmethod
    def from_toml(cls, text: str, *, encoder: EncoderName = "full") -> Weights:
        """Parse the form of `weights.toml`, which has scores and confidence for questions of each encoder."""
        fields: dict[str, dict[str, Any]] = tomllib.loads(text)
        ending = "" if encoder == "full" else f"_{encoder}"
        return cls(
            score=ScoreWeights(**fields["score" + ending]),
            answer=AnswerWeights(**fields["answer"]),
            confidence=ConfidenceWeights(**fields["confidence" + ending]),
        )


def default_weights(encoder: EncoderName = "full") -> Weights:
    """Return the weights that ship with the package for questions of an encoder."""
    return _shipped_weights(encoder)


@cache
def _shipped_weights(encoder: EncoderName) -> Weights:
    text = files("index").joinpath("weights.toml").read_text(encoding="utf-8")
    return Weights.from_toml(text, encoder=encoder)
