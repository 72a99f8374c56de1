"""What the features alone say of a model's latencies on the source columns: ridge regression, a few knots for curves.

It takes the noise out of rows that were measured, and stands in for rows of a model that was measured nowhere.
"""

from __future__ import annotations

import numpy as np

from edgevit.prediction.table import Array, Indices, Mask

_KNOTS = 100
_RIDGES = tuple(10.0**power for power in range(-6, 3))
_FOLDS = 5


def smooth(profiles: Array, features: Array, seen: Mask) -> Array:
    """(models, columns): the regression of the seen models' profiles on features, at every model."""
    basis = _basis(features, seen)
    return np.asarray(basis @ _ridge(basis[seen], profiles[seen]))


def smooth_across(profiles: Array, features: Array, seen: Mask, blocks: Indices) -> Array:
    """The same, but no model's block is in its own regression: as for a model that was measured nowhere."""
    basis = _basis(features, seen)
    found = basis @ _ridge(basis[seen], profiles[seen])
    _, place = np.unique(blocks, return_inverse=True)
    if len(set(place[seen].tolist())) < 2:
        return found
    fold = _deal(place, seen)
    for number in range(_FOLDS):
        inside = seen & (fold == number)
        outside = seen & (fold != number)
        if inside.any() and outside.any():
            found[inside] = basis[inside] @ _ridge(basis[outside], profiles[outside])
    return found


def _deal(place: Indices, seen: Mask) -> Indices:
    """A fold for each model: blocks stay whole, the largest are dealt first, each to the emptiest fold."""
    sizes = np.bincount(place[seen], minlength=place.max() + 1)
    load, fold_of = np.zeros(_FOLDS, dtype=np.intp), np.zeros(len(sizes), dtype=np.intp)
    for block in np.argsort(-sizes, kind="stable"):
        fold_of[block] = load.argmin()
        load[fold_of[block]] += sizes[block]
    return np.asarray(fold_of[place])


def _basis(features: Array, seen: Mask) -> Array:
    """(models, ...): one, the features, and Matern kernels at knots among the seen models."""
    known = np.nan_to_num(features)
    here = np.flatnonzero(seen)
    knots = known[here[np.linspace(0, len(here) - 1, min(_KNOTS, len(here))).astype(int)]]
    squares = (known**2).sum(axis=1)[:, None] + (knots**2).sum(axis=1) - 2 * known @ knots.T
    scaled = np.sqrt(3 * np.maximum(squares, 0) / max(known.shape[1], 1))
    return np.concatenate([np.ones((len(known), 1)), known, (1 + scaled) * np.exp(-scaled)], axis=1)


def _ridge(basis: Array, values: Array) -> Array:
    """(..., columns): for each column the ridge with the least generalised cross-validation (Golub et al. 1979).

    A ridge is in units of the mean eigenvalue; the mean is not shrunk.
    """
    mean = values.mean(axis=0)
    eigenvalues, vectors = np.linalg.eigh(basis.T @ basis)
    eigenvalues = np.maximum(eigenvalues, 0)
    turned = vectors.T @ (basis.T @ (values - mean))
    best: Array = np.zeros_like(turned)
    least = np.full(values.shape[1], np.inf)
    for ridge in _RIDGES:
        shrunk = eigenvalues + ridge * eigenvalues.mean()
        found = vectors @ (turned / shrunk[:, None])
        freedom = float((eigenvalues / shrunk).sum())
        error = ((values - mean - basis @ found) ** 2).mean(axis=0) / max(1 - freedom / len(basis), 1e-6) ** 2
        better = error < least
        best[:, better], least[better] = found[:, better], error[better]
    best[0] += mean  # the first function of the basis is one
    return best
