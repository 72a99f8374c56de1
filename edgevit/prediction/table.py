"""Rows as a table of log latencies: models down, columns across, NaN for cells without a row."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from edgevit.errors import UsageError

Array = NDArray[np.float64]
Indices = NDArray[np.intp]
Mask = NDArray[np.bool_]


class Row(NamedTuple):
    """One latency in nanoseconds. column: names the device, engine, precision and thread count."""

    model: str
    column: str
    latency_ns: float


@dataclass(frozen=True)
class Table:
    """Natural logarithms of nanoseconds, (models, columns), NaN where there is no row. Names are sorted."""

    models: tuple[str, ...]
    columns: tuple[str, ...]
    logs: Array

    def column(self, name: str) -> Array:
        """Return the log latencies of one column, (models,); all NaN for a column without rows."""
        if name not in self.columns:
            return np.full(len(self.models), np.nan)
        return self.logs[:, self.columns.index(name)]

    def linked(self, name: str, count: int) -> set[int]:
        """Return the numbers of columns with so many models in common with this one, or with another linked one."""
        if name not in self.columns:
            return set()
        has_row = ~np.isnan(self.logs)
        shares = has_row.T.astype(np.intp) @ has_row.astype(np.intp) >= count
        reached, new = set[int](), {self.columns.index(name)}
        while new:
            reached |= new
            new = {int(j) for i in new for j in np.flatnonzero(shares[i])} - reached
        return reached


def make_table(rows: Iterable[Row], *, also: Iterable[str] = ()) -> Table:
    """Return the table of these rows and of the models `also`, which may have none.

    Of several rows for one cell the median of the logs counts. Raises UsageError for a latency that is not positive
    and finite.
    """
    cells: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        if not 0 < row.latency_ns < math.inf:
            why = "a latency is a positive, finite number of nanoseconds"
            raise UsageError(f"{row.model} on {row.column} has a latency of {row.latency_ns}", why=why)
        cells.setdefault((row.model, row.column), []).append(math.log(row.latency_ns))
    models = tuple(sorted({model for model, _ in cells} | set(also)))
    columns = tuple(sorted({column for _, column in cells}))
    logs = np.full((len(models), len(columns)), np.nan)
    rows_of, columns_of = {name: i for i, name in enumerate(models)}, {name: j for j, name in enumerate(columns)}
    for (model, column), values in cells.items():
        logs[rows_of[model], columns_of[column]] = statistics.median(values)
    return Table(models, columns, logs)


SIZE = "log "  # features of such a name are sizes; the others say what a model is made of


def feature_matrix(models: Sequence[str], features: Mapping[str, Mapping[str, float]]) -> tuple[Array, Mask]:
    """Return (models, features) in standard units, and which are sizes. Features that do not vary are left out.

    A feature that a model lacks is 0 for it. A model without any has a row of NaN, and cannot be predicted by features.
    Raises UsageError for a feature that is not finite.
    """
    described = [i for i, name in enumerate(models) if features.get(name)]
    names = sorted({key for i in described for key in features[models[i]]})
    raw = np.array([[features[models[i]].get(key, 0.0) for key in names] for i in described], dtype=np.float64)
    if not raw.size:
        return np.full((len(models), 0), np.nan), np.zeros(0, dtype=np.bool_)
    if not np.isfinite(raw).all():
        row, column = np.argwhere(~np.isfinite(raw))[0]
        problem = f"the feature {names[column]!r} of {models[described[row]]} is not finite"
        raise UsageError(problem, fix="leave it out where it is not known")
    spread = raw.std(axis=0)
    varies = spread > 1e-9 * (1 + np.abs(raw).max(axis=0))
    matrix = np.full((len(models), int(varies.sum())), np.nan)
    matrix[described] = (raw[:, varies] - raw[:, varies].mean(axis=0)) / spread[varies]
    return matrix, np.array([name.startswith(SIZE) for name in names], dtype=np.bool_)[varies]
