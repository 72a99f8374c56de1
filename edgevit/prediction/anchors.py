"""Choice of anchors: models to measure on a device, within a budget of time, so that the others are predicted best."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from edgevit.errors import UsageError
from edgevit.prediction.cross_validation import pose
from edgevit.prediction.gaussian_process import KERNELS, kernels
from edgevit.prediction.hyperparameters import all_settings
from edgevit.prediction.predictor import Predictor
from edgevit.prediction.table import Array, Indices

_OFFSET = 10.0  # variance of a device's speed, which is not known at all
_SHARE = {"level": 0.2, "near": 0.2, "bend": 0.2, "near bend": 0.3, "near makeup": 0.2}
_SHARES = np.array([_SHARE.get(name, 0.0) for name in KERNELS])
# Models with a row, candidates, and others, each at most; of more, so many that are spread evenly over their sizes.
_MOST = 300


def choose_anchors(
    predictor: Predictor,
    column: str,
    *,
    count: int | None = None,
    budget_s: float | None = None,
    cost_s: Mapping[str, float] | None = None,
    candidates: Collection[str] | None = None,
) -> tuple[str, ...]:
    """Choose models to measure on this column, the one that helps most first; models with a row there are left out.

    Greedy: each model is the one that takes most variance off all others, per second it costs, under the kernels of the
    predictor. This is A-optimal design; Krause et al. (JMLR 9, 2008) show why greedy is near the best. The result has
    at most `count` models, and as many as `budget_s` seconds pay for; it may be shorter, and empty. cost_s: seconds
    that measuring a model takes (default: 1 each). candidates: the models that can be measured (default: all models of
    the predictor). Raises UsageError without count and budget, and for a cost that is not positive or not given.
    """
    if count is None and budget_s is None:
        raise UsageError("neither a number of anchors nor a budget is given", fix="give count or budget_s")
    costs = {name: _cost(name, cost_s) for name in (predictor.models if candidates is None else candidates)}
    names, covariance, measured, noise = _prior(predictor, column, costs)
    price = np.array([costs.get(name, np.inf) for name in names])
    return tuple(names[i] for i in _greedy(covariance, noise, measured, price, count, budget_s))


def _cost(name: str, cost_s: Mapping[str, float] | None) -> float:
    cost = 1.0 if cost_s is None else cost_s.get(name, 0.0)
    if not cost > 0:
        fix = "give each candidate's cost, or fewer candidates"
        raise UsageError(f"measuring {name} costs {cost} s", why="a cost is positive", fix=fix)
    return cost


def _prior(predictor: Predictor, column: str, candidates: Collection[str]) -> tuple[list[str], Array, list[int], float]:
    """Return models, their prior covariance on this column, the numbers of those with a row here, and the noise."""
    settings = all_settings()
    target = predictor.logs(column)
    for blind in (False, True):
        sources = predictor.sources(column, blind=blind)
        if (sources.logs.shape[1] or blind) and sources.usable.any():
            break
    usable = np.flatnonzero(sources.usable)
    if len(usable) == 0:
        return [], np.zeros((0, 0)), [], 1.0
    problem = pose(sources, usable, np.zeros(len(usable)), whole_families=False)
    size = (problem.profiles if problem.profiles.shape[1] else problem.sizes).sum(axis=1)
    has_row = ~np.isnan(target[usable])
    is_candidate = np.isin(np.array(predictor.models)[usable], list(candidates)) & ~has_row
    groups = (has_row, is_candidate, ~has_row & ~is_candidate)
    measured, *others = (_thinned(usable[group], size) for group in groups)
    chosen = np.concatenate([measured, np.sort(np.concatenate(others))])
    grams, _ = kernels(pose(sources, chosen, np.zeros(len(chosen)), whole_families=False), chosen)
    covariance = np.tensordot(_SHARES, grams, 1) + _OFFSET
    noise = float(np.exp(np.log(settings.noise).mean()))
    return [predictor.models[i] for i in chosen], covariance, list(range(len(measured))), noise


def _thinned(models: Indices, size: Array) -> Indices:
    """Return at most _MOST of the models, spread evenly over their sizes, in their order."""
    by_size = models[np.argsort(size[models], kind="stable")]
    return np.sort(by_size[np.linspace(0, len(models) - 1, min(len(models), _MOST)).astype(int)])


def _greedy(
    covariance: Array, noise: float, measured: list[int], price: Array, count: int | None, budget: float | None
) -> list[int]:
    for i in measured:
        covariance = _conditioned(covariance, i, noise)
    remaining = np.inf if budget is None else budget
    price = price.copy()
    price[measured] = np.inf
    picked: list[int] = []
    while len(picked) < (len(price) if count is None else count):
        gain = (covariance**2).sum(axis=0) / (np.diag(covariance) + noise) / price
        gain = np.where(np.isfinite(price) & (price <= remaining), gain, -np.inf)
        if not np.isfinite(gain).any():
            break
        best = int(np.argmax(gain))
        picked.append(best)
        remaining -= price[best]
        covariance = _conditioned(covariance, best, noise)
        price[best] = np.inf
    return picked


def _conditioned(covariance: Array, i: int, noise: float) -> Array:
    """Return the covariance once model i is measured."""
    return np.asarray(covariance - np.outer(covariance[:, i], covariance[i]) / (covariance[i, i] + noise))
