"""How far a row is from what other devices and other models say of it: a robust additive model in log space.

log(latency) of model i on device j is taken as a_i + b_j (a median polish; Tukey, Exploratory Data Analysis, 1977).
What is left says how far i suits j, and devices that are alike leave alike remainders. So the remainder is compared
once with those of the same model on the devices most like this one, and once with those of the models most like this
one on the same device. A number that is wrong differs from both; a device's or a model's own ways differ from one only.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Numbers = NDArray[np.integer]

NEAREST = 3  # devices, or models, whose word is taken together: their median
SAME = 1.1  # times: repeats of one job on hosted phones differ by less in 91 to 96 of 100 cases
COMMON = 8  # models that two devices must both have run before they are called alike; and the other way round
_CLIP = float(np.log(2))  # differences beyond this count as this much: one wrong number must not part two devices
_ROUNDS = 20


def residuals(i: Numbers, j: Numbers, nanoseconds: Numbers) -> tuple[Floats, Floats]:
    """Of each observation how far it is off, in natural logarithms: as neighbours agree, and after the median polish.

    `i` and `j` number models and devices from 0. The first result is the smaller of the two comparisons
    where both have one sign, 0 where they contradict each other or where another run of the same model on the same
    device says the same, and NaN where either lacks neighbours. The second is NaN where model or device was observed
    fewer than COMMON times.
    """
    if not len(i):
        return np.empty(0), np.empty(0)
    y = np.log(nanoseconds)
    left = polish(i, j, y)
    table = _table(i, j, left)
    of_devices = left - _neighbours(table)[i, j]
    of_models = left - _neighbours(table.T)[j, i]
    smaller = np.where(np.abs(of_devices) < np.abs(of_models), of_devices, of_models)
    agreed = np.where(np.sign(of_devices) == np.sign(of_models), smaller, 0.0)
    agreed[np.isnan(of_devices) | np.isnan(of_models)] = np.nan
    agreed[_repeated(i * table.shape[1] + j, y) & ~np.isnan(agreed)] = 0.0
    left[(np.bincount(i)[i] < COMMON) | (np.bincount(j)[j] < COMMON)] = np.nan
    return agreed, left


def _repeated(cells: Numbers, y: Floats) -> NDArray[np.bool_]:
    """Whether the next larger or next smaller observation of the same cell is within SAME."""
    order = np.lexsort((y, cells))
    near = (np.diff(cells[order]) == 0) & (np.diff(y[order]) < np.log(SAME))
    found = np.zeros(len(y), bool)
    found[order[1:][near]] = True
    found[order[:-1][near]] = True
    return found


def polish(i: Numbers, j: Numbers, y: Floats) -> Floats:
    """What a median polish leaves of y[k], observed in row i[k] and column j[k]."""
    left = y.copy()
    groups = [_groups(i), _groups(j)]
    for _ in range(_ROUNDS):
        moved = 0.0
        for parts in groups:
            for part in parts:
                centre = float(np.median(left[part]))
                left[part] -= centre
                moved = max(moved, abs(centre))
        if moved < 1e-6:
            break
    return left


def _groups(labels: Numbers) -> list[Numbers]:
    order = np.argsort(labels, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)


def _table(i: Numbers, j: Numbers, left: Floats) -> Floats:
    """Rows by columns, the median where a pair was observed more than once, NaN where never."""
    table = np.full((int(i.max()) + 1, int(j.max()) + 1), np.nan)
    for part in _groups(i * table.shape[1] + j):
        table[i[part[0]], j[part[0]]] = np.median(left[part])
    return table


def _neighbours(table: Floats) -> Floats:
    """For each cell the median of the NEAREST most similar other columns that have a value in its row; NaN: too few."""
    told = np.full(table.shape, np.nan)
    for column, distance in enumerate(_distances(table)):
        near = np.argsort(distance, kind="stable")
        near = near[np.isfinite(distance[near])]
        found = table[:, near]
        there = ~np.isnan(found)
        counted = there & (np.cumsum(there, axis=1) <= NEAREST)
        enough = np.flatnonzero(counted.sum(axis=1) == NEAREST)
        if len(enough):
            told[enough, column] = np.nanmedian(np.where(counted, found, np.nan)[enough], axis=1)
    return told


def _distances(table: Floats) -> Floats:
    """Columns by columns: mean clipped difference over the rows that both have; infinite where those are too few."""
    there = ~np.isnan(table)
    distance = np.full((table.shape[1],) * 2, np.inf)
    for column in range(table.shape[1]):
        mine = np.flatnonzero(there[:, column])
        differences = np.minimum(np.abs(table[mine] - table[mine, column, None]), _CLIP)
        common = there[mine].sum(axis=0)
        enough = (common >= COMMON) & (np.arange(table.shape[1]) != column)
        distance[column, enough] = np.nansum(differences, axis=0)[enough] / common[enough]
    return distance
