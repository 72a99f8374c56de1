"""The Gaussian process against scikit-learn: the same kernels, anchors and noise give the same posterior."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import DotProduct, Kernel, Matern

from edgevit.prediction.gaussian_process import KERNELS, Problem, Settings, fit
from edgevit.prediction.table import Array, Indices

OFFSET = 10.0  # the documented variance of a column's offset
MODELS = 14


class Precomputed(Kernel):  # type: ignore[misc]  # scikit-learn has no types
    """A kernel over the numbers of models, by their covariances."""

    def __init__(self, covariance: Array) -> None:
        self.covariance = covariance

    def __call__(self, one: Array, other: Array | None = None, eval_gradient: bool = False) -> Array:
        rows, columns = one.ravel(), (one if other is None else other).ravel()
        return np.asarray(self.covariance[np.ix_(rows, columns)])

    def diag(self, one: Array) -> Array:
        """Return the variances."""
        return np.asarray(np.diag(self.covariance)[one.ravel()])

    def is_stationary(self) -> bool:
        """Return False: the covariance does not depend on a distance."""
        return False


def unit(parts: Array) -> Array:
    """Return the vectors with a mean squared length of 1."""
    return np.asarray(parts / np.sqrt((parts**2).sum(axis=1).mean()))


def problem_of(seed: int, anchors: Indices) -> Problem:
    """Return a column to predict from one other column, features and families, with uneven noise."""
    generator = np.random.default_rng(seed)
    profile = generator.normal(15, 1, (MODELS, 1))
    target = profile[anchors, 0] + generator.normal(0.5, 0.2, len(anchors))
    sizes, makeup = generator.normal(0, 1, (MODELS, 2)), generator.normal(0, 1, (MODELS, 3))
    doubt = generator.uniform(1, 4, len(anchors))
    families = np.arange(MODELS) // 2
    return Problem(profile, np.zeros((MODELS, 0)), sizes, makeup, families, anchors, target, False, doubt)


def covariances(problem: Problem) -> dict[str, Array]:
    """Return each kernel among all models, made of scikit-learn's kernels."""
    profile = unit(problem.profiles - problem.profiles.mean())
    sizes, makeup = unit(problem.sizes), unit(problem.makeup)
    linear, matern = DotProduct(sigma_0=0.0), Matern(length_scale=1.0, nu=1.5)
    same_family = np.equal.outer(problem.families, problem.families).astype(float)
    nothing, everything = np.zeros((MODELS, MODELS)), np.ones((MODELS, MODELS))
    # One column has a level and no bend; a distance of zero is a covariance of one.
    return {
        "level": linear(profile), "near": matern(profile), "bend": nothing, "near bend": everything,
        "smooth bend": nothing, "sizes": linear(sizes), "near sizes": matern(sizes), "makeup": linear(makeup),
        "near makeup": matern(np.concatenate([sizes, makeup], axis=1)), "family": same_family,
    }  # fmt: skip


@pytest.mark.parametrize("seed", range(4))
def test_the_posterior_is_that_of_scikit_learn(seed: int) -> None:
    anchors = np.arange(0, MODELS, 2)
    problem, generator = problem_of(seed, anchors), np.random.default_rng(seed + 100)
    shares = generator.dirichlet(np.ones(len(KERNELS)), 3)
    settings = Settings(shares, noise=np.array([0.003, 0.03, 0.3]), trust=np.array([0.1, 0.3, 0.6]))
    everywhere = np.arange(MODELS)
    posterior = fit(problem, settings, everywhere)
    mean_function = (problem.profiles - problem.profiles.mean())[:, 0]
    residual = problem.target - mean_function[anchors]
    kernels = covariances(problem)
    assert tuple(kernels) == KERNELS
    for number, weights in enumerate(shares):
        covariance = sum(weight * kernels[name] for weight, name in zip(weights, KERNELS, strict=True)) + OFFSET
        noise = settings.noise[number]
        regressor: Any = GaussianProcessRegressor(
            Precomputed(np.asarray(covariance)), alpha=noise * problem.doubt, optimizer=None
        )
        regressor.fit(anchors[:, None], residual - residual.mean())
        mean, deviation = regressor.predict(everywhere[:, None], return_std=True)
        expected_mean = mean_function + residual.mean() + mean
        expected_variance = (deviation**2 + noise) * residual.var()
        np.testing.assert_allclose(posterior.mean[number], expected_mean, rtol=1e-9)
        np.testing.assert_allclose(posterior.variance[number], expected_variance, rtol=1e-6)
