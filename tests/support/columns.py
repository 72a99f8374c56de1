"""Rows for tests of predictions: made-up latencies of models on columns, and parts of them that are held out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgevit.prediction import Prediction, Row

MS = 1_000_000
MODELS = [f"m{i:02d}" for i in range(30)]
BOARDS = [f"board{i}" for i in range(5)]


def world(
    seed: int, *, noise: float = 0.02, models: Sequence[str] = MODELS, columns: Sequence[str] = BOARDS
) -> list[Row]:
    """Return latencies that follow a size and two traits of the models, which each column weighs its own way."""
    rng = np.random.default_rng(seed)
    traits = rng.normal(size=(len(models), 3)) * (1.0, 0.3, 0.2)
    weights = np.concatenate([rng.uniform(0.9, 1.1, (1, len(columns))), rng.normal(size=(2, len(columns)))])
    logs = traits @ weights + rng.normal(size=len(columns)) + noise * rng.normal(size=(len(models), len(columns)))
    times = 10 * MS * np.exp(logs)
    return [Row(m, c, float(times[i, j])) for i, m in enumerate(models) for j, c in enumerate(columns)]


def hold_out_column(rows: Sequence[Row], column: str, anchors: Sequence[str]) -> tuple[list[Row], dict[str, float]]:
    """Return the rows without those of a column that are no anchors; and the latencies of those."""
    known_rows = [row for row in rows if row.column != column or row.model in anchors]
    return known_rows, {row.model: row.latency_ns for row in rows if row.column == column and row.model not in anchors}


def numbers(prediction: Prediction) -> tuple[float, ...]:
    """Return the numbers of a prediction that is not refused: point, lower, upper, bound."""
    values = (prediction.latency_ns, prediction.lower_ns, prediction.upper_ns, prediction.at_most_ns)
    assert None not in values, prediction
    return tuple(value for value in values if value is not None)


def points(predictions: dict[str, Prediction]) -> dict[str, float]:
    """Return the predicted latencies by model."""
    return {name: numbers(prediction)[0] for name, prediction in predictions.items()}


def sized(count: int = 40, noise: float = 0.0) -> tuple[list[Row], dict[str, dict[str, float]]]:
    """Return rows and features of models whose latency follows their size alone."""
    rng = np.random.default_rng(5)
    logs = rng.uniform(0, 3, count)
    features = {f"s{i:02d}": {"log macs": float(size)} for i, size in enumerate(logs)}
    times = MS * np.exp(0.8 * logs + noise * rng.normal(size=count))
    return [Row(name, "x", float(value)) for name, value in zip(features, times, strict=True)], features
