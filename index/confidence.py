"""Fitting the confidence: the weights of a logistic regression, from questions of which is known what answers them.

The fit is a maximum a posteriori adaptation (Chelba & Acero 2004, "Adaptation of Maximum Entropy Capitalizer: Little
Data Can Help a Lot"): each weight has a Gaussian prior around the one that is known already. A few questions change
little, many decide. The intercept is free: how many questions find an answer differs from place to place, and a few
questions tell it.

SciPy and scikit-learn are loaded with this module, which only fitting needs.
"""

from __future__ import annotations

import math
from dataclasses import asdict, astuple, dataclass, fields, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize  # type: ignore[import-untyped]
from scipy.special import expit  # type: ignore[import-untyped]
from sklearn.metrics import roc_auc_score  # type: ignore[import-untyped]
from sklearn.model_selection import StratifiedKFold  # type: ignore[import-untyped]

from index.labels import Outcomes
from index.weights import ConfidenceWeights, Evidence

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

FEATURES = tuple(field.name for field in fields(Evidence))
# Log loss on quebec-faq, squad-train-sample and seeds, each with a prior from the other two and 60 labels of its own:
# 0.57, 0.33, 0.47 for the prior alone; 0.56, 0.30, 0.37 at strength 0.1; 0.55, 0.29, 0.35 at 1; 0.57, 0.32, 0.35 at
# 10. Two numbers alone, a slope and an intercept (Platt scaling), give 0.57, 0.33, 0.36.
PRIOR_STRENGTH = 1.0
FOLDS, REPEATS = 5, 10
STEPS = 10_000  # in 1: what is stored has four digits


@dataclass(frozen=True)
class Figures:
    """How well a confidence holds on labelled questions; all are shares from 0 to 1.

    Attributes:
        auroc: how often a first passage that answers is surer than one that does not.
        calibration_error: expected calibration error, see `calibration_error`.
        silenced_answerable: of the questions that a document answers, those below the threshold.
        silenced_unanswerable: of the others.
        coverage_90: of all questions, those that could be answered if 90 % of the answers were to be right.
        coverage_95: likewise for 95 %.
    """

    auroc: float
    calibration_error: float
    silenced_answerable: float
    silenced_unanswerable: float
    coverage_90: float
    coverage_95: float


def fit(
    evidence: Floats,
    is_right: Bools,
    *,
    prior: ConfidenceWeights,
    strength: float,
    question_weights: Floats | None = None,
) -> ConfidenceWeights:
    """Fit the weights of the confidence.

    Args:
        evidence: shape (questions, features), in the order of `Evidence`.
        is_right: which first passages answer; some must and some must not.
        prior: weights that they are drawn to.
        strength: by how much: the inverse of the prior's variance.
        question_weights: how much each question counts; None for 1.

    Returns:
        Weights with the threshold of `prior`.
    """
    known = _coefficients(prior)
    counts = np.ones(len(is_right)) if question_weights is None else question_weights
    inputs = np.column_stack([np.ones(len(evidence)), evidence])
    strengths = np.array([0.0, *([strength] * len(FEATURES))])

    def loss(weights: Floats) -> tuple[float, Floats]:
        logits, change = inputs @ weights, weights - known
        value = counts @ (np.logaddexp(0, logits) - is_right * logits) + strengths @ change**2 / 2
        return float(value), inputs.T @ (counts * (expit(logits) - is_right)) + strengths * change

    found = minimize(loss, known, jac=True, method="L-BFGS-B", options={"ftol": 1e-12, "gtol": 1e-6}).x
    values = dict(zip(("intercept", *FEATURES), (np.round(STEPS * found) / STEPS).tolist(), strict=True))
    return replace(prior, **values)


def adapt(outcomes: Outcomes, *, prior: ConfidenceWeights, silence: float) -> ConfidenceWeights:
    """Adapt known weights to labelled questions, and choose the threshold.

    Args:
        outcomes: of the questions.
        prior: the weights that are known.
        silence: the share of the answerable questions that may be silenced, 0 to 1.
    """
    weights = fit(outcomes.evidence, outcomes.is_right, prior=prior, strength=PRIOR_STRENGTH)
    confidence = probabilities(weights, outcomes.evidence)
    return replace(weights, threshold=threshold(confidence[outcomes.is_answerable], silence))


def probabilities(weights: ConfidenceWeights, evidence: Floats) -> Floats:
    """Return the confidence for each row of evidence, as `ConfidenceWeights.probability` does for one."""
    intercept, *coefficients = _coefficients(weights)
    result: Floats = expit(intercept + evidence @ np.array(coefficients))
    return result


def threshold(confidence: Floats, silence: float) -> float:
    """Return the largest threshold below which at most a share of the confidences lie, rounded down."""
    may_be_silenced = min(int(silence * len(confidence)), len(confidence) - 1)
    bound = float(np.sort(confidence)[may_be_silenced])
    return math.floor(STEPS * bound) / STEPS


def measure(outcomes: Outcomes, weights: ConfidenceWeights) -> Figures:
    """Measure weights on questions that they were not fitted on."""
    confidence = probabilities(weights, outcomes.evidence)
    return _figures(outcomes, confidence, confidence < weights.threshold)


def cross_validate(outcomes: Outcomes, *, prior: ConfidenceWeights, silence: float) -> Figures:
    """Measure `adapt` on each question with weights and a threshold from questions that it is not among.

    The figures are means over several divisions of the questions into parts, the same ones each time. Arguments are
    those of `adapt`.
    """
    rounds = [_figures(outcomes, *_out_of_fold(outcomes, prior, silence, seed)) for seed in range(REPEATS)]
    return Figures(*np.mean([astuple(figures) for figures in rounds], axis=0).tolist())


def calibration_error(is_right: Bools, confidence: Floats) -> float:
    """Return the expected calibration error over ten bins of equal width.

    Guo et al. 2017, "On Calibration of Modern Neural Networks".
    """
    bins = np.minimum((confidence * 10).astype(int), 9)
    gaps = [
        abs(is_right[bins == place].mean() - confidence[bins == place].mean()) * (bins == place).mean()
        for place in np.unique(bins)
    ]
    return float(sum(gaps))


def coverage(is_right: Bools, confidence: Floats, *, precision: float) -> float:
    """Return the largest share of questions that can be answered so that a share of the answers is right.

    Geifman & El-Yaniv 2017, "Selective Classification for Deep Neural Networks". Equal confidences are answered
    together.
    """
    order = np.argsort(-confidence, kind="stable")
    answered = np.arange(1, len(order) + 1)
    is_last_of_equals = np.append(np.diff(confidence[order]) != 0, True)
    is_enough = (np.cumsum(is_right[order]) >= precision * answered) & is_last_of_equals
    return float(answered[is_enough].max(initial=0) / len(order))


def _out_of_fold(outcomes: Outcomes, prior: ConfidenceWeights, silence: float, seed: int) -> tuple[Floats, Bools]:
    """Return the confidence for each question, and whether it is silenced, from a fit on the other parts."""
    confidence = np.empty(len(outcomes.is_right))
    silenced = np.empty(len(outcomes.is_right), dtype=np.bool_)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    for others, part in folds.split(outcomes.evidence, outcomes.is_answerable):
        weights = adapt(outcomes.part(others), prior=prior, silence=silence)
        confidence[part] = probabilities(weights, outcomes.evidence[part])
        silenced[part] = confidence[part] < weights.threshold
    return confidence, silenced


def _figures(outcomes: Outcomes, confidence: Floats, silenced: Bools) -> Figures:
    is_right, is_answerable = outcomes.is_right, outcomes.is_answerable
    return Figures(
        auroc=float(roc_auc_score(is_right, confidence)),
        calibration_error=calibration_error(is_right, confidence),
        silenced_answerable=float(silenced[is_answerable].mean()),
        silenced_unanswerable=float(silenced[~is_answerable].mean()),
        coverage_90=coverage(is_right, confidence, precision=0.90),
        coverage_95=coverage(is_right, confidence, precision=0.95),
    )


def _coefficients(weights: ConfidenceWeights) -> Floats:
    values = asdict(weights)
    return np.array([values["intercept"], *(values[name] for name in FEATURES)])
