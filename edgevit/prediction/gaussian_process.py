"""Gaussian processes over models: from k anchors on a column to all models, in log units (Rasmussen and Williams 2006).

The mean of a column is a mixture of the other columns, each weighted by how well it explains the anchors. A device that
is a known one at another clock is recognized by that. Around the mean stands a sum of kernels. They compare models by
their latencies on other columns (their profile) and by their features. The weights of the kernels are part of
`Settings`, of which many are tried at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgevit.prediction.table import Array, Indices

KERNELS = (
    "level",  # of the profile: slower or faster altogether
    "near",
    "bend",  # of the profile: what is left of it without its level
    "near bend",
    "smooth bend",
    "sizes",
    "near sizes",
    "makeup",
    "near makeup",
    "family",
)
_OFFSET = 10.0  # variance of a column's offset, in units of the anchors' own: anything goes
_SAME = 2e-3  # log units: two runs on one device differ by more
_LEAST = 1e-6  # log units: spreads below are rounding


@dataclass(frozen=True)
class Settings:
    """H ways to weigh the kernels. All shares are of the variance that the mean leaves at the anchors."""

    kernels: Array  # (H, len(KERNELS)); each row sums to 1
    noise: Array  # (H,)
    trust: Array  # (H,); how sharply the mean prefers the columns that explain the anchors best


@dataclass(frozen=True)
class Problem:
    """One column to be predicted.

    profiles: (models, columns), without gaps; smooth: what features say of them. Either may have no columns.
    sizes, makeup: (models, features); without columns where none are known. families: (models,), as numbers.
    anchors: (k,), places of models; target: (k,), their log latencies; doubt: (k,), the variance of their noise, in
    units of a setting's. whole_families: anchors of one family are held out together.
    """

    profiles: Array
    smooth: Array
    sizes: Array
    makeup: Array
    families: Indices
    anchors: Indices
    target: Array
    whole_families: bool
    doubt: Array

    @property
    def blocks(self) -> Indices:
        """(k,): anchors of one number are held out together."""
        return self.families[self.anchors] if self.whole_families else np.arange(len(self.anchors))


@dataclass(frozen=True)
class Fit:
    """The posterior of H settings.

    mean, variance: at the requested models, (H, m). held_out, held_out_variance: of each anchor held out, (H, k), the
    error (true less predicted) and its variance.
    """

    mean: Array
    variance: Array
    held_out: Array
    held_out_variance: Array


def fit(problem: Problem, settings: Settings, at: Indices) -> Fit:
    """Return the posterior of each setting at these models."""
    grams, variances = kernels(problem, at)
    among, _ = kernels(problem, problem.anchors)
    means, held_means = _means(problem, settings.trust)
    residual = problem.target[None, :] - means[:, problem.anchors]
    scale: Array = np.maximum(residual.var(axis=1), _LEAST**2)
    eye = np.diag(problem.doubt)
    weighed = np.tensordot(settings.kernels, among, 1) + _OFFSET + settings.noise[:, None, None] * eye
    inverse = np.linalg.inv(weighed)
    offset = residual.mean(axis=1)[:, None]
    cross = np.tensordot(settings.kernels, grams, 1) + _OFFSET  # (H, m, k)
    gain = cross @ inverse
    mean = means[:, at] + offset + np.einsum("hmk,hk->hm", gain, residual - offset)
    prior = settings.kernels @ variances + _OFFSET + settings.noise[:, None]
    variance = np.maximum(prior - np.einsum("hmk,hmk->hm", gain, cross), settings.noise[:, None])
    errors, doubts = _hold_out(problem, np.asarray(inverse, dtype=np.float64), held_means)
    return Fit(mean, variance * scale[:, None], errors, doubts * scale[:, None])


def _hold_out(problem: Problem, inverse: Array, held_means: Array) -> tuple[Array, Array]:
    """Return errors at anchors that the fit does not see, block by block: the inverse of the block of the inverse.

    held_means: (H, k, k), row i is the mean at all anchors once anchor i is not looked at.
    """
    residual = problem.target - held_means
    residual = residual - residual.mean(axis=2, keepdims=True)
    blocks = problem.blocks
    if len(set(blocks.tolist())) == len(blocks):
        diagonal = np.einsum("hii->hi", inverse)
        return np.einsum("hij,hij->hi", inverse, residual) / diagonal, 1 / diagonal
    errors, doubts = np.zeros(residual.shape[:2]), np.zeros(residual.shape[:2])
    for block in np.unique(blocks):
        inside = np.flatnonzero(blocks == block)
        part = np.linalg.inv(inverse[:, inside[:, None], inside])
        weighted = np.einsum("hij,hij->hi", inverse[:, inside], residual[:, inside])
        errors[:, inside] = np.einsum("hij,hj->hi", part, weighted)
        doubts[:, inside] = np.einsum("hii->hi", part)
    return errors, doubts


def _means(problem: Problem, trust: Array) -> tuple[Array, Array]:
    """Return (H, models): the mixture of columns; (H, k, k): at the anchors, row i without the rows of i's block."""
    columns = np.concatenate([problem.profiles, problem.smooth], axis=1)
    k = len(problem.anchors)
    if not columns.shape[1]:
        return np.zeros((len(trust), len(columns))), np.zeros((len(trust), k, k))
    columns = columns - columns.mean(axis=0)
    distance = problem.target[:, None] - columns[problem.anchors]
    distance = np.abs(distance - np.median(distance, axis=0))
    say = 1 / problem.doubt[:, None]
    without = (distance * say).sum(axis=0) - _by_block(distance * say, problem.blocks)
    count = say.sum() - _by_block(say, problem.blocks)
    shares = _shares((distance * say).sum(axis=0)[None, :] / say.sum(), trust, k)[:, 0]
    shares_without = _shares(without / np.maximum(count, 1e-9), trust, k - 1)
    return shares @ columns.T, shares_without @ columns[problem.anchors].T


def _by_block(values: Array, blocks: Indices) -> Array:
    """Return (k, D): the sum over the block of each anchor."""
    _, block_of = np.unique(blocks, return_inverse=True)
    sums = np.zeros((block_of.max() + 1, values.shape[1]))
    np.add.at(sums, block_of, values)
    return np.asarray(sums[block_of])


def _shares(spread: Array, trust: Array, k: int) -> Array:
    """Return (H, i, D): the posterior that a column is the right one, for Laplace residuals of unknown scale.

    Trust below 1 is for columns that are merely alike; of one within _SAME there is no doubt.
    """
    spread = spread + _LEAST
    sure = np.log(np.maximum(_SAME / spread, 1))
    logs = -k * (trust[:, None, None] * np.log(spread) - sure)
    shares = np.exp(logs - logs.max(axis=2, keepdims=True))
    return np.asarray(shares / shares.sum(axis=2, keepdims=True))


def kernels(problem: Problem, at: Indices) -> tuple[Array, Array]:
    """Return (KERNELS, m, k): each kernel between models and anchors; (KERNELS, m): of each model with itself."""
    grams, variances = [], []
    for parts, by_distance in _embeddings(problem):
        here, there = parts[at], parts[problem.anchors]
        if by_distance:
            squares = (here**2).sum(axis=1)[:, None] + (there**2).sum(axis=1) - 2 * here @ there.T
            grams.append(_matern(np.sqrt(np.maximum(squares, 0))))
            variances.append(np.ones(len(at)))
        else:
            grams.append(here @ there.T)
            variances.append((here**2).sum(axis=1))
    kin = float(len(set(problem.families.tolist())) < len(problem.families))  # else each model is its own family
    grams.append(kin * np.equal.outer(problem.families[at], problem.families[problem.anchors]))
    variances.append(np.full(len(at), kin))
    return np.array(grams), np.array(variances)


def _embeddings(problem: Problem) -> list[tuple[Array, bool]]:
    """Return, in the order of KERNELS, (models, ...) with a mean squared length of 1, and whether it is by distance."""
    profiles = problem.profiles - problem.profiles.mean(axis=0)
    smooth = problem.smooth - problem.smooth.mean(axis=0)
    level = profiles.mean(axis=1, keepdims=True) if profiles.shape[1] else profiles
    bent = smooth - smooth.mean(axis=1, keepdims=True) if smooth.shape[1] else smooth
    sizes, makeup = _unit(problem.sizes), _unit(problem.makeup)
    return [
        (_unit(level), False),
        (_unit(profiles), True),
        (_unit(profiles - level), False),
        (_unit(profiles - level), True),
        (_unit(bent), False),
        (sizes, False),
        (sizes, True),
        (makeup, False),
        (np.concatenate([sizes, makeup], axis=1), True),
    ]


def _unit(parts: Array) -> Array:
    length = float(np.sqrt((parts**2).sum() / len(parts)))
    return parts / length if length > _LEAST else np.zeros((len(parts), 1))


def _matern(distance: Array) -> Array:
    """Return the Matern kernel of smoothness 3/2: once differentiable, as latencies over sizes are."""
    scaled = np.sqrt(3) * distance
    return np.asarray((1 + scaled) * np.exp(-scaled))
