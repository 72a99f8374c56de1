"""The settings that are tried: a fixed, evenly spread set, so that every run tries the same ones."""

from __future__ import annotations

from functools import cache

import numpy as np

from edgevit.prediction.gaussian_process import KERNELS, Settings
from edgevit.prediction.table import Array, Indices, Mask

_COUNT = 64
_LEAST_SHARE = 0.02  # of a kernel against the largest, before they are made to sum to 1
_NOISE = (0.003, 0.3)
_TRUST = (0.1, 0.3, 0.6)


@cache
def all_settings() -> Settings:
    """Return the settings, in a fixed order."""
    points = _spread(_COUNT, len(KERNELS) + 2)
    shares = _LEAST_SHARE ** points[:, : len(KERNELS)]
    noise = _NOISE[0] * (_NOISE[1] / _NOISE[0]) ** points[:, -2]
    trust = np.array(_TRUST)[(points[:, -1] * len(_TRUST)).astype(int)]
    return Settings(shares / shares.sum(axis=1, keepdims=True), noise, trust)


def pick(settings: Settings, which: Indices | Mask) -> Settings:
    """Return some of the settings."""
    return Settings(settings.kernels[which], settings.noise[which], settings.trust[which])


def _spread(count: int, dimensions: int) -> Array:
    """Return points in the unit cube, (count, dimensions), by the additive recurrence of the generalised golden ratio.

    M. Roberts, "The unreasonable effectiveness of quasirandom sequences", 2018.
    """
    ratio = 2.0
    for _ in range(64):  # x = (1 + x) ** (1 / (d + 1)) converges to the root of x^(d+1) = x + 1
        ratio = (1 + ratio) ** (1 / (dimensions + 1))
    steps = ratio ** -np.arange(1, dimensions + 1)
    return np.asarray((0.5 + np.arange(1, count + 1)[:, None] * steps) % 1)
