"""Conformal intervals, which assume no distribution: quantiles of errors on known rows (Vovk et al. 2005, ch. 2).

A score is an error over the deviation predicted for it. Scores come from other columns, each taken for new, and from
this column's own anchors, each held out. The first are many but of other devices; the second are few but of this one.
All other columns together count for as much as `_OTHERS` anchors (weighted quantiles: Tibshirani et al. 2019). With
more anchors a device's own errors therefore count more.
"""

from __future__ import annotations

import math

import numpy as np

from edgevit.prediction.table import Array

_OTHERS = 40.0


def quantile(own_scores: Array, other_scores: list[Array], confidence: float) -> float:
    """Return the score that the next one does not exceed, with this confidence.

    own_scores: (k,), of this column's anchors; other_scores: one array per other column.

    Beyond the largest score there is no evidence. An exponential tail goes on from there, so that a bound exists for
    every confidence and grows with it. At least one score is required.
    """
    filled = [column for column in other_scores if len(column)]
    scores = np.concatenate([own_scores, *filled])
    shares = [np.full(len(column), _OTHERS / len(filled) / len(column)) for column in filled]
    weights = np.concatenate([np.ones(len(own_scores)), *shares])
    order = np.argsort(scores, kind="stable")
    # One more weight for the score to come.
    reached = np.cumsum(weights[order]) / (weights.sum() + 1)
    index = int(np.searchsorted(reached, confidence - 1e-12))
    if index < len(scores):
        return float(scores[order[index]])
    return float(np.abs(scores).max()) * math.log(1 - confidence) / math.log(1 - reached[-1])
