"""A mixture of many settings: each setting counts by how well it predicts known rows.

Those are the other columns, each in turn taken for new and predicted from the same anchors; and the anchors themselves,
each predicted without it. The first say which settings work in general, the second which work here. Of the column to be
predicted only the anchors are used.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from edgevit.prediction.gaussian_process import Fit, Problem, Settings, fit
from edgevit.prediction.hyperparameters import all_settings, pick
from edgevit.prediction.table import Array, Indices

_FLOOR = 0.03  # log units: errors below are as good as none
_GENERAL = 30.0  # how sharply a setting is preferred for its mean score on other columns
_HERE = 0.5  # the same for its score on the anchors, per anchor
_MOST_HERE = 40  # anchors; more add no weight
_TRIED = 150  # anchors at most while settings are compared: beyond, their order does not change
_KEPT = 0.02  # share of the best setting's weight below which a setting is left out
_MOST_KEPT = 8
_ROBUST_STEPS = 1
_FREEDOM = 4.0  # of Student's t
_TYPICAL_ANCHORS = 4.0  # how many anchors the typical size of an error counts for


@dataclass(frozen=True)
class Estimate:
    """Log latency and standard deviation at the models asked for, (m,); at each anchor held out: error over deviation.

    The deviation is that of the settings' mixture, scaled to the errors that this column's anchors show.
    """

    mean: Array
    deviation: Array
    held_out: Array


@dataclass(frozen=True)
class Rehearsal:
    """A source column taken for new: the problem, the models to be predicted, and their true log latencies."""

    problem: Problem
    at: Indices
    truth: Array


@dataclass(frozen=True)
class Mixture:
    """The settings that count, and their weights, which sum to 1."""

    settings: Settings
    weights: Array


def mix(problem: Problem, rehearsals: list[Rehearsal]) -> tuple[Mixture, list[Mixture]]:
    """Return the mixture of the problem, and that of each rehearsal in its place, judged by all the others."""
    settings = all_settings()
    on_anchors = _here(fit(_thinned(problem), settings, problem.anchors[:1]))
    if not rehearsals:
        return _kept(settings, on_anchors), []
    fits = [fit(_thinned(rehearsal.problem), settings, rehearsal.at) for rehearsal in rehearsals]
    heres = [_here(posterior) for posterior in fits]
    pairs = zip(rehearsals, fits, strict=True)
    general = [_GENERAL * _score(rehearsal.truth - posterior.mean) for rehearsal, posterior in pairs]
    total = np.sum(general, axis=0)
    count = max(len(rehearsals) - 1, 1)
    others = [_kept(settings, here + (total - score) / count) for here, score in zip(heres, general, strict=True)]
    return _kept(settings, on_anchors + total / len(rehearsals)), others


def _here(posterior: Fit) -> Array:
    """Return (H,): the score of each setting on the anchors, each predicted without it."""
    return np.asarray(_HERE * min(posterior.held_out.shape[1], _MOST_HERE) * _score(posterior.held_out))


def _kept(settings: Settings, score: Array) -> Mixture:
    weights = np.exp(score - score.max())
    chosen = np.argsort(-weights, kind="stable")[:_MOST_KEPT]
    chosen = chosen[weights[chosen] > _KEPT]
    return Mixture(pick(settings, chosen), weights[chosen] / weights[chosen].sum())


def estimate(problem: Problem, mixture: Mixture, at: Indices) -> Estimate:
    """Return the estimate of a mixture at these models."""
    settings, weights = mixture.settings, mixture.weights
    for _ in range(_ROBUST_STEPS):
        problem = _doubted(problem, settings, weights)
    posterior = fit(problem, settings, at)
    mean, variance = _mixture(posterior.mean, posterior.variance, weights)
    error, doubt = _mixture(posterior.held_out, posterior.held_out_variance, weights)
    held_out = error / np.sqrt(doubt)
    factor = _factor(held_out)
    return Estimate(mean, np.sqrt(variance) * factor, held_out / factor)


def _doubted(problem: Problem, settings: Settings, weights: Array) -> Problem:
    """Return the problem with more noise at anchors that the others contradict: Student's t instead of the normal."""
    posterior = fit(problem, settings, problem.anchors[:1])
    error, doubt = _mixture(posterior.held_out, posterior.held_out_variance, weights)
    far = error**2 / doubt
    far = far / max(float(np.median(far)), 1e-12) * 0.45  # the median of a squared normal
    return replace(problem, doubt=problem.doubt * (_FREEDOM + far) / (_FREEDOM + 1))


def _mixture(means: Array, variances: Array, weights: Array) -> tuple[Array, Array]:
    mean = weights @ means
    return mean, weights @ (variances + (means - mean) ** 2)


def _factor(held_out: Array) -> float:
    """Return the ratio of the errors here to those of the process; errors are cut, so that no one anchor sets it."""
    cut = np.minimum(np.abs(held_out), 3 * np.median(np.abs(held_out)) + 1e-9)
    return float(np.sqrt((_TYPICAL_ANCHORS + (cut**2).sum()) / (_TYPICAL_ANCHORS + len(held_out))))


def _score(errors: Array) -> Array:
    """Return (H,): the mean log of the errors, which neither a few large ones nor differences in the noise decide."""
    return np.asarray(-np.log(_FLOOR + np.abs(errors)).mean(axis=1))


def _thinned(problem: Problem) -> Problem:
    """Return the same problem with evenly picked anchors, _TRIED at most."""
    k = len(problem.anchors)
    if k <= _TRIED:
        return problem
    chosen = np.linspace(0, k - 1, _TRIED).astype(int)
    return replace(problem, anchors=problem.anchors[chosen], target=problem.target[chosen], doubt=problem.doubt[chosen])
