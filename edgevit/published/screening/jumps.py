"""Rows of a device that changed: they differ from what neighbours say, and are not wrong. Epochs tell of them."""

from __future__ import annotations

import statistics

import numpy as np

from edgevit.published.screening.observations import Observations
from edgevit.published.screening.residual import COMMON, Floats, Numbers
from edgevit.store.mixed_hardware import belongs, mixed_factor

JUMPED = 1.3  # times: three times the noise floor of a device whose floor nobody measured (store.epochs)


def without_jumps(agreed: Floats, seen: Observations) -> Floats:
    """The residuals with 0 for rows of a device that jumped.

    A device jumped where, of the rows of one day that repeat earlier ones of the source, a part did so by one factor
    (store.mixtures), or the middle one did.
    """
    told = agreed.copy()
    device, day, times = seen.column("device"), seen.column("day"), seen.column("time")
    cells = list(zip(seen.column("model").tolist(), seen.column("where").tolist(), strict=True))
    earlier: dict[tuple[int, int], list[float]] = {}
    order = np.lexsort((day, device))
    changes = (np.diff(device[order]) != 0) | (np.diff(day[order]) != 0)
    for together in np.split(order, np.flatnonzero(changes) + 1):
        repeats = {int(k): times[k] / statistics.median(earlier[cells[k]]) for k in together if cells[k] in earlier}
        told[_jumped(repeats)] = 0.0
        for k in together:
            earlier.setdefault(cells[k], []).append(float(times[k]))
    return told


def _jumped(ratios: dict[int, float]) -> Numbers:
    """Which rows of a device and day jumped, of those that repeat earlier ones: their times over those before."""
    if len(ratios) < COMMON:
        return np.empty(0, np.intp)
    factor = mixed_factor(list(ratios.values()))
    if factor is not None:
        return np.array([k for k, ratio in ratios.items() if belongs(ratio, factor)], np.intp)
    middle = statistics.median(ratios.values())
    return np.array([] if 1 / JUMPED < middle < JUMPED else list(ratios), np.intp)
