"""Rows as a table of log latencies: models down, columns across, NaN where nobody measured."""

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
    """One latency in nanoseconds. column: all that it was measured with - device, engine, precision, threads."""

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
        """The log latencies of one column, (models,); all NaN for a column without rows."""
        if name not in self.columns:
            return np.full(len(self.models), np.nan)
        return self.logs[:, self.columns.index(name)]

    def linked(self, name: str, least: int) -> set[int]:
        """Places of the columns with so many models in common with this one, or with another one that is linked."""
        if name not in self.columns:
            return set()
        seen = ~np.isnan(self.logs)
        shares = seen.T.astype(np.intp) @ seen.astype(np.intp) >= least
        found, new = set[int](), {self.columns.index(name)}
        while new:
            found |= new
            new = {int(j) for i in new for j in np.flatnonzero(shares[i])} - found
        return found


def make_table(rows: Iterable[Row], *, also: Iterable[str] = ()) -> Table:
    """The table of these rows and of the models `also`, which may have none.

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
    places = {name: i for i, name in enumerate(models)}, {name: j for j, name in enumerate(columns)}
    for (model, column), values in cells.items():
        logs[places[0][model], places[1][column]] = statistics.median(values)
    return Table(models, columns, logs)


SIZE = "log "  # features of such a name are sizes; the others say what a model is made of


def feature_matrix(models: Sequence[str], features: Mapping[str, Mapping[str, float]]) -> tuple[Array, Mask]:
    """(models, features) in standard units, and which of them are sizes. Features that do not vary are left out.

    A feature that a model lacks is 0 for it. A model without any has a row of NaN: nothing can be said of it. Raises
    UsageError for what is not finite.
    """
    known = [i for i, name in enumerate(models) if features.get(name)]
    names = sorted({key for i in known for key in features[models[i]]})
    raw = np.array([[features[models[i]].get(key, 0.0) for key in names] for i in known], dtype=np.float64)
    if not raw.size:
        return np.full((len(models), 0), np.nan), np.zeros(0, dtype=np.bool_)
    if not np.isfinite(raw).all():
        place = np.argwhere(~np.isfinite(raw))[0]
        what = f"the feature {names[place[1]]!r} of {models[known[place[0]]]} is not finite"
        raise UsageError(what, fix="leave it out where it is not known")
    spread = raw.std(axis=0)
    varies = spread > 1e-9 * (1 + np.abs(raw).max(axis=0))
    found = np.full((len(models), int(varies.sum())), np.nan)
    found[known] = (raw[:, varies] - raw[:, varies].mean(axis=0)) / spread[varies]
    return found, np.array([name.startswith(SIZE) for name in names], dtype=np.bool_)[varies]
