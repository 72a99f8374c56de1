"""Rows as a table of log latencies: models down, columns across, NaN where nobody measured."""

from __future__ import annotations

import math
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
        logs[places[0][model], places[1][column]] = np.median(values)
    return Table(models, columns, logs)


def feature_matrix(models: Sequence[str], features: Mapping[str, Mapping[str, float]]) -> Array:
    """(models, features) in standard units; a feature that a model lacks is 0 for it. Constant features are left out.

    A model without any features has a row of NaN: nothing can be said of it. Raises UsageError for what is not finite.
    """
    known = [name for name in models if features.get(name)]
    names = sorted({key for name in known for key in features[name]})
    raw = np.array([[features[name].get(key, 0.0) for key in names] for name in known], dtype=np.float64)
    raw = raw.reshape(len(known), len(names))
    if not np.isfinite(raw).all():
        bad = names[int(np.argwhere(~np.isfinite(raw))[0][1])]
        raise UsageError(f"the feature {bad} is not finite", fix="leave it out where it is not known")
    spread = raw.std(axis=0) if known else np.zeros(0)
    varies = spread > 1e-9 * (1 + np.abs(raw).max(axis=0, initial=0.0))
    found = np.full((len(models), int(varies.sum())), np.nan)
    places = {name: i for i, name in enumerate(models)}
    found[[places[name] for name in known]] = (raw[:, varies] - raw[:, varies].mean(axis=0)) / spread[varies]
    return found
