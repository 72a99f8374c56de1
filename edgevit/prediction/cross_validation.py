"""Other columns taken for new: what settings and intervals are judged by. Of the column asked for anchors count."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from edgevit.prediction.ensemble import Rehearsal
from edgevit.prediction.feature_regression import smooth, smooth_across
from edgevit.prediction.gaussian_process import Problem
from edgevit.prediction.imputation import fill
from edgevit.prediction.table import Array, Indices, Mask

_MOST_COLUMNS = 16  # rehearsals; more say the same
_MOST_MODELS = 300  # predicted in one
_LEAST_MODELS = 5  # to judge by
_FAR = 6.0  # times the typical deviation, beyond which an anchor is doubted: four standard deviations of a normal
_SAME = 0.01  # log units: nothing nearer is far


@dataclass(frozen=True)
class Sources:
    """What is known but for the column to be predicted.

    logs: (models, columns), NaN where there is no row. features: (models, features), NaN for models without; or no
    columns; is_size: (features,). families: (models,), as numbers. blind: predict as if the model was
    measured nowhere.
    """

    logs: Array
    features: Array
    is_size: Mask
    families: Indices
    blind: bool = False

    @property
    def usable(self) -> Mask:
        """(models,): those that can be predicted or serve as anchors."""
        if self.blind:
            return np.asarray(~np.isnan(self.features).all(axis=1))  # of none at all it is all that are missing
        return np.asarray(~np.isnan(self.logs).all(axis=1))

    def without(self, column: int) -> Sources:
        """The same but for one column."""
        return replace(self, logs=np.delete(self.logs, column, axis=1))


def pose(sources: Sources, anchors: Indices, target: Array, *, apart: bool) -> Problem:
    """The problem of a column whose anchors took `target`. apart: families are held out whole."""
    profiles, regression = _profiles(sources)
    features = np.nan_to_num(sources.features)
    sizes, makeup = features[:, sources.is_size], features[:, ~sources.is_size]
    doubt = _doubt(profiles[anchors], target)
    return Problem(profiles, regression, sizes, makeup, sources.families, anchors, target, apart, doubt)


def _doubt(profiles: Array, target: Array) -> Array:
    """(k,): 1, and more for anchors that are far off where the others agree: on the column that most of them follow."""
    if not profiles.shape[1] or len(target) < _LEAST_MODELS:
        return np.ones(len(target))
    off = target[:, None] - profiles
    off = np.abs(off - np.median(off, axis=0))
    typical = np.median(off, axis=0)
    best = int(np.argmin(typical))
    return np.asarray(np.maximum(1.0, (off[:, best] / (_FAR * typical[best] + _SAME)) ** 2))


def _profiles(sources: Sources) -> tuple[Array, Array]:
    """The filled columns and what features say of them; unusable models get rows that nobody reads."""
    seen = ~np.isnan(sources.logs).all(axis=1)
    nothing = np.zeros((len(sources.logs), 0))
    if not sources.logs.shape[1] or not seen.any():
        return nothing, nothing
    filled = np.zeros_like(sources.logs)
    filled[seen] = fill(sources.logs[seen])
    filled[~seen] = filled[seen].mean(axis=0)
    known = np.logical_and(seen, ~np.isnan(sources.features).any(axis=1))
    if not sources.features.shape[1] or known.sum() < _LEAST_MODELS:
        return (nothing, nothing) if sources.blind else (filled, nothing)
    if sources.blind:
        return smooth_across(filled, sources.features, known, sources.families), nothing
    return filled, np.where(known[:, None], smooth(filled, sources.features, known), filled)


def rehearse(sources: Sources, anchors: Indices, at: Indices, *, apart: bool) -> list[Rehearsal]:
    """The source columns with rows for the models `at` and for anchors, each as a problem of its own."""
    columns = range(sources.logs.shape[1]) if sources.logs.shape[1] > 1 else range(0)
    at = _like(sources, anchors, at, apart=apart)
    counts = [(~np.isnan(sources.logs[at, j])).sum() for j in columns]
    chosen = sorted(np.argsort(-np.array(counts), kind="stable")[:_MOST_COLUMNS].tolist())
    found = (_rehearsal(sources, j, anchors, at, apart=apart) for j in chosen)
    return [item for item in found if item is not None]


def _like(sources: Sources, anchors: Indices, at: Indices, *, apart: bool) -> Indices:
    """Models to judge by. Blind ones have no rows: others stand in, which are predicted as if they had none either."""
    if not sources.blind:
        return at
    strange = ~np.isin(sources.families, sources.families[anchors])
    return np.setdiff1d(np.flatnonzero(sources.usable & (strange | (not apart))), anchors)


def _rehearsal(sources: Sources, column: int, anchors: Indices, at: Indices, *, apart: bool) -> Rehearsal | None:
    rest = sources.without(column)
    values = sources.logs[:, column]
    there = np.flatnonzero(rest.usable & ~np.isnan(values))
    stand_ins = _stand_ins(there, anchors, values)
    left = np.setdiff1d(np.intersect1d(at, there), stand_ins)
    if len(left) < _LEAST_MODELS or len(stand_ins) < min(len(anchors), _LEAST_MODELS):
        return None
    left = left[np.linspace(0, len(left) - 1, min(len(left), _MOST_MODELS)).astype(int)]
    return Rehearsal(pose(rest, stand_ins, values[stand_ins], apart=apart), left, values[left])


def _stand_ins(there: Indices, anchors: Indices, values: Array) -> Indices:
    """The anchors; for those that lack a row in this column, models spread evenly over the column's latencies."""
    kept = np.intersect1d(anchors, there)
    others = np.setdiff1d(there, kept)
    missing = min(len(anchors) - len(kept), len(others) // 2)
    by_size = others[np.argsort(values[others], kind="stable")]
    extra = by_size[((np.arange(missing) + 0.5) * len(others) / max(missing, 1)).astype(int)]
    return np.sort(np.concatenate([kept, extra]))
