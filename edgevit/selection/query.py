"""A question to the database: what is read for it, and the answer."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from edgevit.cards import load_operators
from edgevit.errors import UnknownNameError
from edgevit.records.choice import Budget, Choice
from edgevit.records.measurement import Measurement, NoiseFloor
from edgevit.records.model import ModelCard, OperatorCost
from edgevit.selection.accuracy import TOP1, Ratings
from edgevit.selection.answer import Known, choose_among
from edgevit.selection.candidates import EVERYTHING, Wanted
from edgevit.selection.limits import BOUNDS, Reading, check_budget, check_confidence
from edgevit.selection.other_devices import Elsewhere
from edgevit.selection.predictions import predictions

if TYPE_CHECKING:
    from edgevit.store import LatencyDB

MOST_OTHER_ROWS = 10_000  # that a prediction is made from: reading one takes some 30 us


class How(NamedTuple):
    """In what way an answer is found. dataset: see edgevit.ratings. predict: fill in what was not measured.

    confidence: of what is predicted; measured bounds hold with 99%.
    """

    predict: bool = True
    confidence: float = 0.9
    dataset: str | None = None


USUAL = How()


def ask(
    db: LatencyDB,
    device: str,
    budget: Budget,
    *,
    cards: Mapping[str, ModelCard],
    wanted: Wanted = EVERYTHING,
    how: How = USUAL,
    says: str = "",
) -> Choice:
    """The answer for a device (its name, device_id or device_class). `says`: what the answer calls it.

    Raises UsageError for a budget or confidence that makes no sense, UnknownNameError for a device with no rows at all,
    StoreError.
    """
    check_budget(budget)
    check_confidence(how.confidence)
    rows, former = db.history(device)
    if not rows:
        raise not_measured(db, says or device)
    known = Known(
        noise_floors(db, rows),
        Ratings.of(db.accuracies(metric=TOP1), how.dataset),
        former,
        told=_told(db, [row for row in rows if row.measurement_id not in former], budget.percentile),
    )
    if how.predict:
        current = [row for row in rows if row.measurement_id not in former]
        found = predictions(
            current, cards, wanted, budget.percentile, how.confidence, elsewhere_than(db, device, cards)
        )
        known = known._replace(predicted=found)
    return choose_among(rows, says or device, budget, cards=cards, wanted=wanted, known=known)


def elsewhere_than(
    db: LatencyDB,
    device: str,
    cards: Mapping[str, ModelCard],
    more: Mapping[str, tuple[OperatorCost, ...]] | None = None,
) -> Elsewhere:
    """What is known beside the rows of a device, read when it is asked for: in the database, of the models with cards,
    and `more`: operators of models by name.
    """

    def others(models: Collection[str]) -> list[Measurement]:
        return db.others(device, models, MOST_OTHER_ROWS)

    def operators() -> dict[str, tuple[OperatorCost, ...]]:
        return {name: costs for name, costs in load_operators().items() if name in cards} | dict(more or {})

    return Elsewhere(db.models, others, db.graphs, operators)


def not_measured(db: LatencyDB, device: str) -> UnknownNameError:
    """The error for a device without a row, with those that have some."""
    known = {name for unit in db.devices() for name in (unit.name, unit.device_class)} - {"local"}
    listing = f"edgevit sweep --device {device} --models 'mobilevig_*' --targets TARGETS"
    return UnknownNameError("measured device", device, known or ["none yet"], listing=listing)


def noise_floors(db: LatencyDB, rows: Iterable[Measurement]) -> list[NoiseFloor]:
    """Of the rows' devices, as far as they were measured. Raises StoreError."""
    return [floor for unit in sorted({row.device_id for row in rows}) if (floor := db.noise(unit)) is not None]


def _told(db: LatencyDB, rows: Sequence[Measurement], percentile: int) -> dict[str, Reading]:
    """Readings of a percentile that no column holds, from the samples, of rows that have some."""
    if percentile in BOUNDS:
        return {}
    from edgevit.measurement.summary import tail

    found: dict[str, Reading] = {}
    for row in rows:
        if row.status == "ok" and row.provenance == "measured":
            samples = db.get(row.measurement_id).samples_ns
            if samples:
                found[row.measurement_id] = tail(samples, percentile / 100)
    return found
