"""Imputation of missing cells: a Gaussian over the columns, fitted by EM to the known cells (Dempster et al. 1977).

A model's log latencies on D columns are one draw of N(mu, Sigma). The prior on Sigma has one factor that all columns
share, and a little of their own. It keeps Sigma proper where two columns have few models in common.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from edgevit.prediction.table import Array, Indices, Mask

_STEPS = 10  # of EM; later ones move a filled cell by less than a measurement's own noise
_PRIOR_ROWS = 2.0  # how many models the prior counts for
_OWN = 0.15  # standard deviation of what a column has to itself under the prior, in log units


def fill(logs: Array) -> Array:
    """Return (models, columns) with each NaN replaced by its expectation. Every model and every column needs a cell."""
    has_row = ~np.isnan(logs)
    if has_row.all():
        return logs.copy()
    mean, common = _additive(logs)
    prior = common + _OWN**2 * np.eye(logs.shape[1])
    covariance, filled = prior, logs
    patterns = _patterns(has_row)
    for _ in range(_STEPS):
        filled, doubt = _expect(logs, patterns, mean, covariance)
        mean = filled.mean(axis=0)
        deviation = filled - mean
        covariance = (deviation.T @ deviation + doubt + _PRIOR_ROWS * prior) / (len(logs) + _PRIOR_ROWS)
    return filled


def _additive(logs: Array) -> tuple[Array, Array]:
    """Return means of the columns once models are taken out, and the covariance of a factor that all columns share."""
    mean = np.nanmean(logs, axis=0)
    for _ in range(3):
        size = np.nanmean(logs - mean, axis=1)
        mean = np.nanmean(logs - size[:, None], axis=0)
    return mean, np.full((logs.shape[1],) * 2, max(float(np.var(size)), _OWN**2))


class _Pattern(NamedTuple):
    """Models that were measured on the same columns: they share a solution."""

    models: Indices
    here: Indices  # the columns that they have
    there: Indices  # those that they lack


def _patterns(has_row: Mask) -> list[_Pattern]:
    """Return the patterns of models that lack a column."""
    groups: dict[bytes, list[int]] = {}
    for i, row in enumerate(has_row):
        groups.setdefault(row.tobytes(), []).append(i)
    masks = ((np.array(group), has_row[group[0]]) for group in groups.values())
    return [_Pattern(group, np.flatnonzero(mask), np.flatnonzero(~mask)) for group, mask in masks if not mask.all()]


def _expect(logs: Array, patterns: list[_Pattern], mean: Array, covariance: Array) -> tuple[Array, Array]:
    """Return the E step: cells at their conditional expectation, and the summed conditional covariance."""
    filled, doubt = logs.copy(), np.zeros_like(covariance)
    # Patterns have few columns, so that most of the time would go into np.ix_.
    for models, here, there in patterns:
        of_known = covariance[here]
        across = of_known[:, there]
        gain = np.linalg.solve(of_known[:, here], across)
        off = logs[models][:, here] - mean[here]
        filled[models[:, None], there] = mean[there] + off @ gain
        doubt[there[:, None], there] += len(models) * (covariance[there][:, there] - across.T @ gain)
    return filled, doubt
