"""Regression of source columns on the features alone: ridge regression, with a few knots for curves.

It takes the noise out of rows that were measured, and stands in for rows of a model that was measured nowhere.
"""

from __future__ import annotations

import numpy as np

from edgevit.prediction.table import Array, Indices, Mask

_KNOTS = 100
_RIDGES = tuple(10.0**power for power in range(-6, 3))
_FOLDS = 5


def smooth(profiles: Array, features: Array, measured: Mask) -> Array:
    """Return (models, columns): the regression of the measured models' profiles on features, at every model."""
    basis = _basis(features, measured)
    return np.asarray(basis @ _ridge(basis[measured], profiles[measured]))


def smooth_across(profiles: Array, features: Array, measured: Mask, blocks: Indices) -> Array:
    """Return the same without a model's own block in its regression, as for a model that was measured nowhere."""
    basis = _basis(features, measured)
    smoothed = basis @ _ridge(basis[measured], profiles[measured])
    _, block_of = np.unique(blocks, return_inverse=True)
    if len(set(block_of[measured].tolist())) < 2:
        return smoothed
    fold = _deal(block_of, measured)
    for number in range(_FOLDS):
        inside = measured & (fold == number)
        outside = measured & (fold != number)
        if inside.any() and outside.any():
            smoothed[inside] = basis[inside] @ _ridge(basis[outside], profiles[outside])
    return smoothed


def _deal(block_of: Indices, measured: Mask) -> Indices:
    """Return a fold for each model: blocks stay whole, the largest are dealt first, each to the emptiest fold."""
    sizes = np.bincount(block_of[measured], minlength=block_of.max() + 1)
    load, fold_of = np.zeros(_FOLDS, dtype=np.intp), np.zeros(len(sizes), dtype=np.intp)
    for block in np.argsort(-sizes, kind="stable"):
        fold_of[block] = load.argmin()
        load[fold_of[block]] += sizes[block]
    return np.asarray(fold_of[block_of])


def _basis(features: Array, measured: Mask) -> Array:
    """Return (models, ...): one, the features, and Matern kernels at knots among the measured models."""
    values_at = np.nan_to_num(features)
    here = np.flatnonzero(measured)
    knots = values_at[here[np.linspace(0, len(here) - 1, min(_KNOTS, len(here))).astype(int)]]
    squares = (values_at**2).sum(axis=1)[:, None] + (knots**2).sum(axis=1) - 2 * values_at @ knots.T
    scaled = np.sqrt(3 * np.maximum(squares, 0) / max(values_at.shape[1], 1))
    return np.concatenate([np.ones((len(values_at), 1)), values_at, (1 + scaled) * np.exp(-scaled)], axis=1)


def _ridge(basis: Array, values: Array) -> Array:
    """Return (..., columns): for each column the ridge of least generalised cross-validation (Golub et al. 1979).

    A ridge is in units of the mean eigenvalue; the mean is not shrunk.
    """
    mean = values.mean(axis=0)
    eigenvalues, vectors = np.linalg.eigh(basis.T @ basis)
    eigenvalues = np.maximum(eigenvalues, 0)
    turned = vectors.T @ (basis.T @ (values - mean))
    best: Array = np.zeros_like(turned)
    lowest_error = np.full(values.shape[1], np.inf)
    for ridge in _RIDGES:
        shrunk = eigenvalues + ridge * eigenvalues.mean()
        weights = vectors @ (turned / shrunk[:, None])
        freedom = float((eigenvalues / shrunk).sum())
        error = ((values - mean - basis @ weights) ** 2).mean(axis=0) / max(1 - freedom / len(basis), 1e-6) ** 2
        better = error < lowest_error
        best[:, better], lowest_error[better] = weights[:, better], error[better]
    # The first function of the basis is one.
    best[0] += mean
    return best
