"""Cross-validation over columns: each other column is predicted as if it was new, and rates settings and intervals."""

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
    """The evidence for a column to be predicted: all other columns, features and families.

    logs: (models, columns), NaN where there is no row. features: (models, features), NaN for models without any; or
    without columns. is_size: (features,). families: (models,), as numbers. blind: the model counts as measured nowhere.
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
            # Without any feature the row of a model is empty, and counts as all missing.
            return np.asarray(~np.isnan(self.features).all(axis=1))
        return np.asarray(~np.isnan(self.logs).all(axis=1))

    def without(self, column: int) -> Sources:
        """Return the same evidence without one column."""
        return replace(self, logs=np.delete(self.logs, column, axis=1))


def pose(sources: Sources, anchors: Indices, target: Array, *, whole_families: bool) -> Problem:
    """Return the problem of a column whose anchors have the log latencies `target`.

    whole_families: anchors of one family are held out together.
    """
    profiles, regression = _profiles(sources)
    features = np.nan_to_num(sources.features)
    sizes, makeup = features[:, sources.is_size], features[:, ~sources.is_size]
    doubt = _doubt(profiles[anchors], target)
    return Problem(profiles, regression, sizes, makeup, sources.families, anchors, target, whole_families, doubt)


def _doubt(profiles: Array, target: Array) -> Array:
    """Return (k,): 1, and more for anchors far off the others, on the column that most of the anchors follow."""
    if not profiles.shape[1] or len(target) < _LEAST_MODELS:
        return np.ones(len(target))
    off = target[:, None] - profiles
    off = np.abs(off - np.median(off, axis=0))
    typical = np.median(off, axis=0)
    best = int(np.argmin(typical))
    return np.asarray(np.maximum(1.0, (off[:, best] / (_FAR * typical[best] + _SAME)) ** 2))


def _profiles(sources: Sources) -> tuple[Array, Array]:
    """Return the filled columns and their regression on features; rows of unusable models are never read."""
    has_row = ~np.isnan(sources.logs).all(axis=1)
    nothing = np.zeros((len(sources.logs), 0))
    if not sources.logs.shape[1] or not has_row.any():
        return nothing, nothing
    filled = np.zeros_like(sources.logs)
    filled[has_row] = fill(sources.logs[has_row])
    filled[~has_row] = filled[has_row].mean(axis=0)
    described = np.logical_and(has_row, ~np.isnan(sources.features).any(axis=1))
    if not sources.features.shape[1] or described.sum() < _LEAST_MODELS:
        return (nothing, nothing) if sources.blind else (filled, nothing)
    if sources.blind:
        return smooth_across(filled, sources.features, described, sources.families), nothing
    return filled, np.where(described[:, None], smooth(filled, sources.features, described), filled)


def rehearse(sources: Sources, anchors: Indices, at: Indices, *, whole_families: bool) -> list[Rehearsal]:
    """Return the source columns with rows for the models `at` and for anchors, each as a problem of its own."""
    columns = range(sources.logs.shape[1]) if sources.logs.shape[1] > 1 else range(0)
    at = _like(sources, anchors, at, whole_families=whole_families)
    counts = [(~np.isnan(sources.logs[at, j])).sum() for j in columns]
    chosen = sorted(np.argsort(-np.array(counts), kind="stable")[:_MOST_COLUMNS].tolist())
    rehearsals = (_rehearsal(sources, j, anchors, at, whole_families=whole_families) for j in chosen)
    return [rehearsal for rehearsal in rehearsals if rehearsal is not None]


def _like(sources: Sources, anchors: Indices, at: Indices, *, whole_families: bool) -> Indices:
    """Return models to judge by. Blind ones have no rows, so others are predicted as if they had none either."""
    if not sources.blind:
        return at
    strange = ~np.isin(sources.families, sources.families[anchors])
    return np.setdiff1d(np.flatnonzero(sources.usable & (strange | (not whole_families))), anchors)


def _rehearsal(
    sources: Sources, column: int, anchors: Indices, at: Indices, *, whole_families: bool
) -> Rehearsal | None:
    others = sources.without(column)
    values = sources.logs[:, column]
    there = np.flatnonzero(others.usable & ~np.isnan(values))
    stand_ins = _stand_ins(there, anchors, values)
    judged = np.setdiff1d(np.intersect1d(at, there), stand_ins)
    if len(judged) < _LEAST_MODELS or len(stand_ins) < min(len(anchors), _LEAST_MODELS):
        return None
    judged = judged[np.linspace(0, len(judged) - 1, min(len(judged), _MOST_MODELS)).astype(int)]
    return Rehearsal(pose(others, stand_ins, values[stand_ins], whole_families=whole_families), judged, values[judged])


def _stand_ins(there: Indices, anchors: Indices, values: Array) -> Indices:
    """Return the anchors; in place of those without a row here, models spread evenly over the column's latencies."""
    present = np.intersect1d(anchors, there)
    others = np.setdiff1d(there, present)
    missing = min(len(anchors) - len(present), len(others) // 2)
    by_size = others[np.argsort(values[others], kind="stable")]
    extra = by_size[((np.arange(missing) + 0.5) * len(others) / max(missing, 1)).astype(int)]
    return np.sort(np.concatenate([present, extra]))
