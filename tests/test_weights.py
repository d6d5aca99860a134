"""Scores and confidence follow their formulas, with the numbers of a readable file."""

from __future__ import annotations

import math
from dataclasses import asdict, fields, replace
from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st

from index.weights import PARTS, ConfidenceWeights, Evidence, ScoreWeights, Weights, default_weights

NOTHING = Evidence(**{field.name: 0.0 for field in fields(Evidence)})
NO_WEIGHTS = ConfidenceWeights(**{field.name: 0.0 for field in fields(ConfidenceWeights)})


def test_the_weights_are_those_of_the_file() -> None:
    assert default_weights() == Weights.from_toml(files("index").joinpath("weights.toml").read_text("utf-8"))
    assert default_weights() is default_weights()


def test_the_parts_of_a_score_add_up_to_one() -> None:
    score = default_weights().score
    parts = {name: weight for name, weight in asdict(score).items() if name != "furniture"}
    assert parts.keys() < {field.name for field in fields(Evidence)}
    assert math.isclose(sum(parts.values()), 1.0)
    assert min(parts.values()) >= 0
    assert 0 < score.furniture < 1


def test_the_other_numbers_are_within_their_bounds() -> None:
    weights = default_weights()
    assert 0 < weights.confidence.threshold < 1
    answer = weights.answer
    assert math.isclose(answer.similarity + answer.coverage + answer.kind, 1.0)
    assert min(answer.similarity, answer.coverage, answer.kind) >= 0
    assert 0 < answer.near_best <= 1


def test_the_parts_of_a_score_come_first_in_evidence_and_in_weights() -> None:
    assert tuple(field.name for field in fields(Evidence))[: len(PARTS)] == PARTS
    assert tuple(field.name for field in fields(ScoreWeights)) == (*PARTS, "furniture")
    score = default_weights().score
    assert dict(zip(PARTS, score.of_parts.tolist(), strict=True)) == pytest.approx(
        {part: getattr(score, part) for part in PARTS}
    )


def test_every_piece_of_evidence_has_a_weight() -> None:
    weighted = {field.name for field in fields(ConfidenceWeights)} - {"intercept", "threshold"}
    assert weighted == {field.name for field in fields(Evidence)}


@pytest.mark.parametrize(
    ("intercept", "probability"), [(0.0, 0.5), (math.log(3), 0.75), (-math.log(9), 0.1), (40.0, 1.0)]
)
def test_without_evidence_the_intercept_alone_decides(intercept: float, probability: float) -> None:
    assert replace(NO_WEIGHTS, intercept=intercept).probability(NOTHING) == pytest.approx(probability)


@pytest.mark.parametrize("name", [field.name for field in fields(Evidence)])
def test_each_piece_of_evidence_counts_with_its_own_weight(name: str) -> None:
    weights = replace(NO_WEIGHTS, **{name: 2.0}, intercept=-1.0)
    assert weights.probability(replace(NOTHING, **{name: 0.5})) == pytest.approx(0.5)
    assert weights.probability(replace(NOTHING, **{name: 1.0})) == pytest.approx(1 / (1 + math.exp(-1)))


@given(intercept=st.floats(-1e6, 1e6))
def test_weights_of_any_size_give_a_probability(intercept: float) -> None:
    assert 0 <= replace(NO_WEIGHTS, intercept=intercept).probability(NOTHING) <= 1


def test_better_evidence_is_surer_by_the_weights_that_ship() -> None:
    confidence = default_weights().confidence
    poor = replace(NOTHING, dense=0.1, sentence=0.1, coverage=0.1, either=0.2)
    good = replace(NOTHING, dense=0.8, sentence=0.9, coverage=1.0, either=1.0, names=1.0, answer_coverage=1.0)
    assert confidence.probability(poor) < confidence.threshold < confidence.probability(good)
