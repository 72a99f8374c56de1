"""Intervals that hold whatever the distribution: quantiles of errors made on what is known (Vovk et al. 2005, ch. 2).

A score is an error over the deviation predicted for it. Scores come from other columns, each taken for new, and from
this column's own anchors, each held out. The first are many but of other devices; the second are few but of this one.
So that the more is known of a device the more its own errors count, all other columns together count for as much as
`_OTHERS` anchors (weighted quantiles: Tibshirani et al. 2019).
"""

from __future__ import annotations

import math

import numpy as np

from edgevit.prediction.table import Array

_OTHERS = 40.0


def quantile(own: Array, others: list[Array], confidence: float) -> float:
    """The score that the next one does not exceed, with this confidence. own: (k,); others: one array per column.

    Beyond the largest score there is no evidence; an exponential tail goes on from there, so that a bound exists for
    every confidence and grows with it. There must be a score at all.
    """
    filled = [item for item in others if len(item)]
    scores = np.concatenate([own, *filled])
    shares = [np.full(len(item), _OTHERS / len(filled) / len(item)) for item in filled]
    weights = np.concatenate([np.ones(len(own)), *shares])
    order = np.argsort(scores, kind="stable")
    reached = np.cumsum(weights[order]) / (weights.sum() + 1)  # one for the score to come
    place = int(np.searchsorted(reached, confidence - 1e-12))
    if place < len(scores):
        return float(scores[order[place]])
    return float(np.abs(scores).max()) * math.log(1 - confidence) / math.log(1 - reached[-1])
