"""Many settings, one prediction: each setting counts by how well it predicts what is known.

What is known: the other columns, each in turn taken for new and predicted from the same anchors; and the anchors
themselves, each predicted without it. The first says what works in general, the second what works here. Nothing of the
column to be predicted is used but its anchors.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from edgevit.predict.process import Problem, Settings, fit
from edgevit.predict.settings import all_settings, pick
from edgevit.predict.table import Array, Indices

_FLOOR = 0.03  # log units: errors below are as good as none
_GENERAL = 30.0  # how sharply a setting is preferred for its mean score on other columns
_HERE = 0.5  # the same for its score on the anchors, per anchor
_MOST_HERE = 40  # anchors; more add no weight
_TRIED = 150  # anchors at most while settings are compared: beyond, their order does not change
_KEPT = 0.02  # share of the best setting's weight below which a setting is left out
_MOST_KEPT = 8
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


def weigh(problem: Problem, rehearsals: list[Rehearsal]) -> tuple[Settings, Array]:
    """The settings that count, and their weights, which sum to 1."""
    settings = all_settings()
    tried = _thinned(problem, _TRIED)
    here = fit(tried, settings, tried.anchors[:1])
    score = _HERE * min(len(tried.anchors), _MOST_HERE) * _score(here.held_out)
    if rehearsals:
        fits = [fit(item.problem, settings, item.at) for item in rehearsals]
        scores = [_score(item.truth - found.mean) for item, found in zip(rehearsals, fits, strict=True)]
        score = score + _GENERAL * np.mean(scores, axis=0)
    weights = np.exp(score - score.max())
    kept = np.argsort(-weights, kind="stable")[:_MOST_KEPT]
    kept = kept[weights[kept] > _KEPT]
    return pick(settings, kept), weights[kept] / weights[kept].sum()


def estimate(problem: Problem, settings: Settings, weights: Array, at: Indices) -> Estimate:
    """The mixture of these settings."""
    found = fit(problem, settings, at)
    mean, variance = _mixture(found.mean, found.variance, weights)
    error, doubt = _mixture(found.held_out, found.held_out_variance, weights)
    held_out = error / np.sqrt(doubt)
    factor = _factor(held_out)
    return Estimate(mean, np.sqrt(variance) * factor, held_out / factor)


def _mixture(means: Array, variances: Array, weights: Array) -> tuple[Array, Array]:
    mean = weights @ means
    return mean, weights @ (variances + (means - mean) ** 2)


def _factor(held_out: Array) -> float:
    """How much larger errors are here than the process says. One anchor far off does not set it: errors are cut."""
    cut = np.minimum(np.abs(held_out), 3 * np.median(np.abs(held_out)) + 1e-9)
    return float(np.sqrt((_TYPICAL_ANCHORS + (cut**2).sum()) / (_TYPICAL_ANCHORS + len(held_out))))


def _score(errors: Array) -> Array:
    """(H,): mean log of the errors, which neither a few large ones nor differences in the noise decide."""
    return np.asarray(-np.log(_FLOOR + np.abs(errors)).mean(axis=1))


def _thinned(problem: Problem, most: int) -> Problem:
    """The same problem with evenly picked anchors, so many at most."""
    k = len(problem.anchors)
    if k <= most:
        return problem
    kept = np.linspace(0, k - 1, most).astype(int)
    return replace(problem, anchors=problem.anchors[kept], target=problem.target[kept], blocks=problem.blocks[kept])


