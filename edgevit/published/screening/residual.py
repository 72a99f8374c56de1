"""Residuals of rows against other devices and other models: a robust additive model in log space.

log(latency) of model i on device j is taken as a_i + b_j (a median polish; Tukey, Exploratory Data Analysis, 1977).
The remainder shows how well i suits j, and similar devices leave similar remainders. It is compared twice: with those
of the same model on the most similar devices, and with those of the most similar models on the same device. A wrong
number differs from both; a peculiarity of a device or a model differs from one only.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Numbers = NDArray[np.integer]

# Neighbouring devices, or models, whose median is the comparison.
NEAREST = 3
# Ratio: repeats of one job on hosted phones differ by less in 91 to 96 of 100 cases.
SAME = 1.1
# Models that two devices must both have run to be compared; and devices that two models must share.
COMMON = 8
# Larger differences count as this much: one wrong number must not separate two devices.
_CLIP = float(np.log(2))
_ROUNDS = 20


def residuals(i: Numbers, j: Numbers, nanoseconds: Numbers | Floats) -> tuple[Floats, Floats]:
    """Compute residuals of observations in natural logarithms: as neighbours agree, and after the median polish.

    `i` and `j` number models and devices from 0. The first result is the smaller of the two comparisons where both
    have one sign, and 0 where they contradict each other. It is 0 too where another run of the same model on the same
    device repeats the number, and NaN where either comparison lacks neighbours. The second result is NaN where model
    or device was observed fewer than COMMON times.
    """
    if not len(i):
        return np.empty(0), np.empty(0)
    y = np.log(nanoseconds)
    remainder = polish(i, j, y)
    table = _table(i, j, remainder)
    of_devices = remainder - _neighbours(table)[i, j]
    of_models = remainder - _neighbours(table.T)[j, i]
    smaller = np.where(np.abs(of_devices) < np.abs(of_models), of_devices, of_models)
    agreed = np.where(np.sign(of_devices) == np.sign(of_models), smaller, 0.0)
    agreed[np.isnan(of_devices) | np.isnan(of_models)] = np.nan
    agreed[_repeated(i * table.shape[1] + j, y) & ~np.isnan(agreed)] = 0.0
    remainder[(np.bincount(i)[i] < COMMON) | (np.bincount(j)[j] < COMMON)] = np.nan
    return agreed, remainder


def _repeated(cells: Numbers, y: Floats) -> NDArray[np.bool_]:
    """Return whether the next larger or next smaller observation of the same cell is within SAME."""
    order = np.lexsort((y, cells))
    close = (np.diff(cells[order]) == 0) & (np.diff(y[order]) < np.log(SAME))
    repeated = np.zeros(len(y), bool)
    repeated[order[1:][close]] = True
    repeated[order[:-1][close]] = True
    return repeated


def polish(i: Numbers, j: Numbers, y: Floats) -> Floats:
    """Return the remainder of y[k], observed in row i[k] and column j[k], after a median polish."""
    remainder = y.copy()
    groups = [_groups(i), _groups(j)]
    for _ in range(_ROUNDS):
        moved = 0.0
        for parts in groups:
            for part in parts:
                centre = float(np.median(remainder[part]))
                remainder[part] -= centre
                moved = max(moved, abs(centre))
        if moved < 1e-6:
            break
    return remainder


def _groups(labels: Numbers) -> list[Numbers]:
    order = np.argsort(labels, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)


def _table(i: Numbers, j: Numbers, remainder: Floats) -> Floats:
    """Arrange remainders as rows by columns: the median of repeated observations, NaN where there is no observation."""
    table = np.full((int(i.max()) + 1, int(j.max()) + 1), np.nan)
    for part in _groups(i * table.shape[1] + j):
        table[i[part[0]], j[part[0]]] = np.median(remainder[part])
    return table


def _neighbours(table: Floats) -> Floats:
    """Return, per cell, the median of the NEAREST most similar columns with a value in its row; NaN: too few."""
    medians = np.full(table.shape, np.nan)
    for column, distance in enumerate(_distances(table)):
        nearest = np.argsort(distance, kind="stable")
        nearest = nearest[np.isfinite(distance[nearest])]
        values = table[:, nearest]
        present = ~np.isnan(values)
        counted = present & (np.cumsum(present, axis=1) <= NEAREST)
        enough = np.flatnonzero(counted.sum(axis=1) == NEAREST)
        if len(enough):
            medians[enough, column] = np.nanmedian(np.where(counted, values, np.nan)[enough], axis=1)
    return medians


def _distances(table: Floats) -> Floats:
    """Compute distances of columns: the mean clipped difference over common rows, infinite where those are too few."""
    present = ~np.isnan(table)
    distance = np.full((table.shape[1],) * 2, np.inf)
    for column in range(table.shape[1]):
        rows = np.flatnonzero(present[:, column])
        differences = np.minimum(np.abs(table[rows] - table[rows, column, None]), _CLIP)
        common = present[rows].sum(axis=0)
        enough = (common >= COMMON) & (np.arange(table.shape[1]) != column)
        distance[column, enough] = np.nansum(differences, axis=0)[enough] / common[enough]
    return distance
