"""Calibration: the anchors that are picked are measured within the budget, and the bounds of the others shrink."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import edgevit.sweeps.calibrate as room
from edgevit.errors import UsageError
from edgevit.prediction import Prediction
from edgevit.records.measurement import Device
from edgevit.store import LatencyDB
from edgevit.sweeps.calibrate import Calibrated, Column, Spread, calibrate, spread_of
from support.predictable import CARDS, SIZES, SLOW, costs, row, rows

PI5 = Device("pi5", "pi-0001", "raspberry-pi-5", "ssh")
COLUMN = Column(PI5, "onnx", "fp32", 4)
COSTS = {name: 10.0 + size for name, size in SIZES.items()}
OPERATORS = {name: costs(size) for name, size in SIZES.items()}


@pytest.fixture
def db(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LatencyDB]:
    monkeypatch.setattr(room, "load_cards", lambda: CARDS)
    with LatencyDB.open(str(tmp_path / "x.db"), shipped=False) as database:
        yield database


def run(db: LatencyDB, budget_s: float, *, fails: frozenset[str] = frozenset()) -> tuple[Calibrated, list[str]]:
    """Calibrate with a device whose latencies follow SIZES. Return the result, and the models in the order measured."""
    models: list[str] = []

    def measure(name: str) -> bool:
        models.append(name)
        if name in fails:
            return False
        return db.add(row(name, SIZES[name]))

    return calibrate(db, COLUMN, COSTS, budget_s, measure, operators=OPERATORS), models


def test_a_new_device_is_told_from_a_few_models(db: LatencyDB) -> None:
    for measurement in rows(list(SIZES), 3.0, **SLOW):
        db.add(measurement)
    result, models = run(db, 100.0)
    assert result.anchors == tuple(models) and result.not_measured == () and 3 <= len(models) < len(SIZES)
    assert sum(COSTS[name] for name in models) <= 100.0
    others = len(SIZES) - len(models)
    assert result.before == Spread(others, 0, None) and (result.after.models, result.after.predicted) == (
        others,
        others,
    )
    assert result.after.median_excess is not None and 0 <= result.after.median_excess < 0.5
    assert result.summary.startswith(f"{others} of {others} models are predicted now, bounds +")
    assert result.summary.endswith("above the prediction (median); before: none")


def test_more_time_measures_others_and_the_bounds_shrink(db: LatencyDB) -> None:
    noisy = [row(name, 3 * size * (1.2 if number % 2 else 0.8), **SLOW)
             for number, (name, size) in enumerate(SIZES.items())]  # fmt: skip
    for measurement in noisy:
        db.add(measurement)
    first, models = run(db, 60.0)
    second, again = run(db, 60.0)
    assert not set(models) & set(again) and again, "what has a row is not measured again"
    assert second.before.median_excess is not None and second.after.median_excess is not None
    assert second.summary.startswith(f"bounds of {second.after.predicted} models: +")
    assert first.after.predicted >= second.after.predicted


def test_without_other_devices_operators_tell_models_apart(db: LatencyDB) -> None:
    result, models = run(db, 100.0)
    assert len(models) >= 3 and result.after.predicted == len(SIZES) - len(models)


def test_models_of_which_nothing_is_known_begin_with_the_cheapest(db: LatencyDB) -> None:
    column, names = Column(PI5, "onnx", "fp32", 4), list(SIZES)
    result = calibrate(db, column, COSTS, 35.0, lambda name: db.add(row(name, SIZES[name])), operators={})
    assert result.anchors == tuple(names[:3])
    assert result.after == Spread(len(SIZES) - 3, 0, None)
    assert result.summary == "nothing can be predicted yet: that takes 3 rows, and other rows or operators of a model"


def test_what_fails_is_left_and_the_rest_goes_on(db: LatencyDB) -> None:
    for measurement in rows(list(SIZES), 3.0, **SLOW):
        db.add(measurement)
    whole, _ = run_dry(db)
    result, models = run(db, 100.0, fails=frozenset(whole[:1]))
    assert result.not_measured == whole[:1] and result.anchors == whole[1:] and tuple(models) == whole


def run_dry(db: LatencyDB) -> tuple[tuple[str, ...], list[str]]:
    """Return the models that a calibration would measure."""
    result = calibrate(db, COLUMN, COSTS, 100.0, lambda name: False, operators=OPERATORS)
    assert result.anchors == ()
    return result.not_measured, []


def test_too_little_time_measures_nothing(db: LatencyDB) -> None:
    result, models = run(db, 1.0)
    assert (result.anchors, models) == ((), []) and result.before == result.after


def test_rows_keep_no_such_percentile(db: LatencyDB) -> None:
    with pytest.raises(UsageError, match="rows keep no p95"):
        calibrate(db, Column(PI5, "onnx", "fp32", 4, 95), COSTS, 1.0, lambda name: False, operators={})


def test_the_spread_is_the_median_of_the_bounds() -> None:
    bounded = [Prediction(name, "c", "transfer", 0.9, 10.0, 9.0, 11.0, at_most) for name, at_most in
            (("a", 11.0), ("b", 12.0), ("c", 15.0))]  # fmt: skip
    refused = Prediction("d", "c", "refused", 0.9)
    spread = spread_of([*bounded, refused])
    assert (spread.models, spread.predicted) == (4, 3) and spread.median_excess == pytest.approx(0.2)
