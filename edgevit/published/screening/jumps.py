"""Rows of a device that changed: they differ from their neighbours without being wrong. Epochs report them."""

from __future__ import annotations

import statistics

import numpy as np

from edgevit.published.screening.observations import Observations
from edgevit.published.screening.residual import COMMON, Floats, Numbers
from edgevit.store.mixed_hardware import has_jumped, mixed_factor

# Ratio of a jump: three times the noise floor of a device without a measured one (store.epochs).
JUMPED = 1.3


def without_jumps(agreed: Floats, observations: Observations) -> Floats:
    """Return the residuals with 0 for rows of a device that jumped.

    The rows of one day that repeat earlier ones of the source decide. A device jumped where part of them did by one
    factor (store.mixed_hardware), or where the middle one did.
    """
    kept_residuals = agreed.copy()
    device, day, times = (observations.column(name) for name in ("device", "day", "time"))
    cells = list(zip(observations.column("model").tolist(), observations.column("setup").tolist(), strict=True))
    earlier: dict[tuple[int, int], list[float]] = {}
    order = np.lexsort((day, device))
    changes = (np.diff(device[order]) != 0) | (np.diff(day[order]) != 0)
    for together in np.split(order, np.flatnonzero(changes) + 1):
        repeats = {int(k): times[k] / statistics.median(earlier[cells[k]]) for k in together if cells[k] in earlier}
        kept_residuals[_jumped(repeats)] = 0.0
        for k in together:
            earlier.setdefault(cells[k], []).append(float(times[k]))
    return kept_residuals


def _jumped(ratios: dict[int, float]) -> Numbers:
    """Return the rows of a device and day that jumped. `ratios` has the times of repeats over the earlier times."""
    if len(ratios) < COMMON:
        return np.empty(0, np.intp)
    factor = mixed_factor(list(ratios.values()))
    if factor is not None:
        return np.array([k for k, ratio in ratios.items() if has_jumped(ratio, factor)], np.intp)
    middle = statistics.median(ratios.values())
    return np.array([] if 1 / JUMPED < middle < JUMPED else list(ratios), np.intp)
