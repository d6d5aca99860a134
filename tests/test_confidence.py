"""The confidence is fitted as a library fits it, a few questions change it little, and its figures are honest."""

from __future__ import annotations

from dataclasses import astuple, fields, replace

import numpy as np
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from index.confidence import (
    FEATURES,
    Figures,
    adapt,
    calibration_error,
    coverage,
    cross_validate,
    fit,
    measure,
    probabilities,
    threshold,
)
from index.labels import Outcomes
from index.weights import ConfidenceWeights, Evidence, default_weights

SHIPPED = default_weights().confidence
NOTHING = ConfidenceWeights(**{field.name: 0.0 for field in fields(ConfidenceWeights)})
ELSEWHERE = replace(SHIPPED, intercept=SHIPPED.intercept - 3, dense=SHIPPED.dense + 4, names=SHIPPED.names - 1)


def simulated(count: int, weights: ConfidenceWeights, *, seed: int = 0) -> Outcomes:
    """Draw questions of which two thirds are answerable, and first passages that are right as the weights say."""
    random = np.random.default_rng(seed)
    is_answerable = np.arange(count) < 2 * count // 3
    centres = np.where(is_answerable, 0.75, 0.4)[:, np.newaxis]
    evidence = np.clip(random.normal(centres, 0.2, (count, len(FEATURES))), 0, 1)
    is_right = random.random(count) < probabilities(weights, evidence)
    return Outcomes(evidence, is_right & is_answerable, is_answerable)


def coefficients(weights: ConfidenceWeights) -> list[float]:
    return [getattr(weights, name) for name in ("intercept", *FEATURES)]


def log_loss(outcomes: Outcomes, weights: ConfidenceWeights) -> float:
    confidence = probabilities(weights, outcomes.evidence)
    return float(-np.log(np.where(outcomes.is_right, confidence, 1 - confidence)).mean())


def test_with_nothing_known_it_is_the_ridge_regression_of_scikit_learn() -> None:
    outcomes = simulated(500, SHIPPED)
    counts = np.linspace(0.5, 2, 500)
    ours = fit(outcomes.evidence, outcomes.is_right, prior=NOTHING, strength=0.5, question_weights=counts)
    model = LogisticRegression(C=2.0, tol=1e-10, max_iter=1_000)
    model.fit(outcomes.evidence, outcomes.is_right, sample_weight=counts)
    assert coefficients(ours) == pytest.approx([*model.intercept_, *model.coef_[0]], abs=2e-4)


def test_probabilities_are_those_of_the_weights() -> None:
    outcomes = simulated(5, SHIPPED)
    expected = [SHIPPED.probability(Evidence(*row)) for row in outcomes.evidence.tolist()]
    assert probabilities(SHIPPED, outcomes.evidence).tolist() == pytest.approx(expected, abs=1e-12)


def test_a_strong_prior_leaves_all_but_the_intercept() -> None:
    outcomes = simulated(100, ELSEWHERE)
    fitted = fit(outcomes.evidence, outcomes.is_right, prior=SHIPPED, strength=1e9)
    assert coefficients(fitted)[1:] == pytest.approx(coefficients(SHIPPED)[1:], abs=1e-3)
    assert probabilities(fitted, outcomes.evidence).mean() == pytest.approx(outcomes.is_right.mean(), abs=1e-3)


def test_few_questions_change_little_and_many_decide() -> None:
    def distance(count: int) -> float:
        weights = adapt(simulated(count, ELSEWHERE), prior=SHIPPED, silence=0.08)
        return float(np.abs(np.subtract(coefficients(weights), coefficients(SHIPPED)))[1:].max())

    assert distance(30) < 1.5 < distance(20_000)


def test_on_questions_that_are_otherwise_it_is_better_than_what_ships() -> None:
    unseen = simulated(5_000, ELSEWHERE, seed=99)
    shipped = log_loss(unseen, SHIPPED)
    losses = [
        log_loss(unseen, adapt(simulated(count, ELSEWHERE), prior=SHIPPED, silence=0.08)) for count in (30, 300)
    ]
    assert shipped > losses[0] > losses[1]


def test_on_questions_that_are_as_those_of_the_prior_little_is_lost() -> None:
    prior = fit(*(astuple(simulated(5_000, SHIPPED))[:2]), prior=SHIPPED, strength=1.0)
    unseen = simulated(5_000, SHIPPED, seed=99)
    losses = [
        log_loss(unseen, adapt(simulated(60, SHIPPED, seed=seed), prior=prior, silence=0.08)) for seed in range(1, 11)
    ]
    assert np.mean(losses) < log_loss(unseen, prior) + 0.03


@pytest.mark.parametrize(
    ("silence", "expected"), [(0.0, 0.0123), (0.08, 0.0123), (0.2, 0.3), (0.25, 0.3), (0.4, 0.5), (1.0, 0.9)]
)
def test_the_threshold_silences_at_most_the_share(silence: float, expected: float) -> None:
    confidence = np.array([0.9, 0.3, 0.01239, 0.5, 0.7])
    assert threshold(confidence, silence) == expected


def test_the_calibration_error_is_the_mean_gap_of_the_bins() -> None:
    confidence = np.array([0.05, 0.05, 0.95, 0.95, 1.0])
    is_right = np.array([False, True, True, True, True])
    assert calibration_error(is_right, confidence) == pytest.approx(0.4 * 0.45 + 0.6 * (0.1 / 3))


def test_coverage_is_the_largest_share_that_is_precise_enough() -> None:
    is_right = np.array([True, True, False, True, True, False])
    confidence = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    assert coverage(is_right, confidence, precision=0.8) == 5 / 6
    assert coverage(is_right, confidence, precision=0.9) == 2 / 6
    assert coverage(~is_right, confidence, precision=0.9) == 0
    assert coverage(is_right, np.full(6, 0.5), precision=0.9) == 0


def test_figures_are_those_worked_out_by_hand() -> None:
    logits = np.array([3.0, 2.0, 1.0, -1.0, 1.0, -2.0])
    evidence = np.zeros((6, len(FEATURES)))
    evidence[:, 0] = logits
    weights = replace(NOTHING, **{FEATURES[0]: 1.0}, threshold=0.7)
    outcomes = Outcomes(
        evidence,
        np.array([True, True, True, False, False, False]),
        np.array([True, True, True, True, False, False]),
    )
    measured = measure(outcomes, weights)
    assert measured == Figures(
        auroc=8.5 / 9,
        calibration_error=pytest.approx(calibration_error(outcomes.is_right, expit(logits))),
        silenced_answerable=0.25,
        silenced_unanswerable=0.5,
        coverage_90=2 / 6,
        coverage_95=2 / 6,
    )


def test_cross_validation_measures_each_question_by_a_fit_without_it() -> None:
    """Evidence that says nothing looks good only to those who have seen the answers."""
    random = np.random.default_rng(3)
    is_answerable = np.arange(90) < 60
    chance = Outcomes(random.random((90, len(FEATURES))), is_answerable & (random.random(90) < 0.8), is_answerable)
    validated = cross_validate(chance, prior=NOTHING, silence=0.08)
    fooled = measure(chance, adapt(chance, prior=NOTHING, silence=0.08))
    assert validated.auroc < 0.55 < fooled.auroc
    assert fooled.silenced_answerable <= 0.08 < validated.silenced_answerable
    assert validated == cross_validate(chance, prior=NOTHING, silence=0.08)
