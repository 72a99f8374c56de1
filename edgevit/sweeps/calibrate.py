"""Calibration of a device: which few models to measure there, so that the others can be predicted best."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from edgevit.cards import load_cards
from edgevit.errors import UsageError
from edgevit.prediction import Prediction, Predictor, choose_anchors
from edgevit.recipes import engine_of, load_recipe
from edgevit.records.measurement import Device, Measurement
from edgevit.records.model import OperatorCost
from edgevit.selection.columns import Configuration, ModelAliases, is_comparable
from edgevit.selection.limits import BOUNDS
from edgevit.selection.other_devices import predictor_of
from edgevit.selection.predictions import LEAST_ROWS
from edgevit.selection.query import read_other_devices
from edgevit.selection.versions import age
from edgevit.store import LatencyDB


@dataclass(frozen=True)
class Spread:
    """How much is known of models that were not measured: how many are predicted, and how far their bounds are off.

    median_excess: of the bounds over the predictions, less one; None where nothing is predicted.
    """

    models: int
    predicted: int
    median_excess: float | None


@dataclass(frozen=True)
class Column:
    """What is calibrated: a device with a target in a precision on so many threads, at a percentile that rows keep."""

    device: Device
    target: str
    precision: str
    threads: int
    percentile: int = 90

    def configuration(self, rows: Iterable[Measurement]) -> Configuration:
        """Return the configuration as its rows have it; of a column without rows, as the recipe has it."""
        key = (self.target, self.precision, self.threads)
        comparable = [Configuration.of(row) for row in rows if (row.target, row.precision, row.threads) == key]
        if comparable:
            return max(sorted(set(comparable)), key=comparable.count)
        recipe = load_recipe(self.target).RECIPE
        return Configuration(self.device.device_id, "cpu", self.target, engine_of(recipe), self.precision, self.threads)


class Knowledge:
    """What the database says of a column now. costs: operators of models that have no card, by name."""

    def __init__(self, db: LatencyDB, column: Column, costs: Mapping[str, tuple[OperatorCost, ...]]) -> None:
        if column.percentile not in BOUNDS:
            raise UsageError(f"rows keep no p{column.percentile}", fix="calibrate for 50, 90 or 99")
        cards, device = load_cards(), column.device.device_id
        rows, former = db.history(device)
        mine = [row for row in rows if row.measurement_id not in former and is_comparable(row)]
        elsewhere = read_other_devices(db, device, cards, costs)
        others = [row for row in elsewhere.rows(elsewhere.models()) if is_comparable(row)]
        comparable = sorted([*mine, *others], key=age)
        self._names = ModelAliases(comparable, cards)
        self._predictor, _ = predictor_of(comparable, self._names, cards, column.percentile, elsewhere)
        configuration_used = column.configuration(mine)
        self._column = configuration_used.column(BOUNDS[column.percentile][0])
        self.measured = frozenset(self._names.of(row) for row in mine if Configuration.of(row) == configuration_used)

    @property
    def predictor(self) -> Predictor:
        """Over all comparable rows."""
        return self._predictor

    def anchors(self, cost_s: Mapping[str, float], budget_s: float) -> tuple[str, ...]:
        """Return models to measure, the one that helps most first: of those in `cost_s`, which says what each costs.

        Where nothing tells them apart, because none ran elsewhere while others did, the cheapest are taken: they tell
        how fast the device is.
        """
        new = {name: seconds for name, seconds in cost_s.items() if name not in self.measured}
        comparable = {name for name in new if name in set(self._predictor.models)}
        costs = {name: new[name] for name in comparable}
        anchors = choose_anchors(self._predictor, self._column, budget_s=budget_s, cost_s=costs, candidates=comparable)
        return anchors or _cheapest(new, budget_s)

    def predictions(self, models: Iterable[str], confidence: float) -> list[Prediction]:
        """Return predictions of these models."""
        return list(self._predictor.predict(self._column, set(models), confidence=confidence).values())


def _cheapest(cost_s: Mapping[str, float], budget_s: float) -> tuple[str, ...]:
    picked: list[str] = []
    for name in sorted(cost_s, key=lambda name: (cost_s[name], name)):
        if sum(cost_s[one] for one in picked) + cost_s[name] <= budget_s:
            picked.append(name)
    return tuple(picked)


def spread_of(predictions: Sequence[Prediction]) -> Spread:
    """Return how much these predictions say."""
    excesses = [
        prediction.at_most_ns / prediction.latency_ns - 1
        for prediction in predictions
        if prediction.at_most_ns and prediction.latency_ns
    ]
    return Spread(len(predictions), len(excesses), statistics.median(excesses) if excesses else None)


@dataclass(frozen=True)
class Calibrated:
    """What a calibration measured, and what that made of the intervals of all other models."""

    device: str
    target: str
    precision: str
    threads: int
    percentile: int
    confidence: float
    anchors: tuple[str, ...]  # measured, in their order
    not_measured: tuple[str, ...]  # planned, but the time was over or they failed
    before: Spread
    after: Spread

    @property
    def summary(self) -> str:
        """The change of the intervals, as a sentence."""
        after = _share(self.after)
        if self.after.median_excess is None:
            return f"nothing can be predicted yet: that takes {LEAST_ROWS} rows, and other rows or operators of a model"
        if self.before.median_excess is None:
            return (
                f"{self.after.predicted} of {self.after.models} models are predicted now, bounds {after}; before: none"
            )
        return f"bounds of {self.after.predicted} models: {_share(self.before)} before, {after} now"


def _share(spread: Spread) -> str:
    return "none" if spread.median_excess is None else f"{spread.median_excess:+.0%} above the prediction (median)"


def calibrate(
    db: LatencyDB,
    column: Column,
    cost_s: Mapping[str, float],
    budget_s: float,
    measure: Callable[[str], bool],
    *,
    operators: Mapping[str, tuple[OperatorCost, ...]],
    confidence: float = 0.9,
) -> Calibrated:
    """Pick anchors, measure them one after the other, and compare what can be said of all other models.

    cost_s: what can be measured, and the seconds that it takes. measure: of one of them; False where it was not done,
    because it failed or the time is over. operators: of models without a card, by name.

    Raises UsageError for a percentile that rows do not keep, StoreError.
    """
    first = Knowledge(db.trusting("trusted"), column, operators)
    planned = first.anchors(cost_s, budget_s)
    measured_models = tuple(name for name in planned if measure(name))
    last = Knowledge(db.trusting("trusted"), column, operators) if measured_models else first
    others = (set(cost_s) | set(load_cards()) | set(last.predictor.models)) - last.measured - set(measured_models)
    before, after = (spread_of(comparable.predictions(others, confidence)) for comparable in (first, last))
    configuration = (column.device.name, column.target, column.precision, column.threads, column.percentile, confidence)
    return Calibrated(
        *configuration, measured_models, tuple(name for name in planned if name not in measured_models), before, after
    )
