"""Queries to the database for one device: the evidence that is read, and the answer."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from edgevit.cards import load_operators
from edgevit.devices.registry import LOCAL, reached_as
from edgevit.errors import UnknownNameError, UsageError
from edgevit.recipes import usable_target
from edgevit.records.choice import Budget, Choice
from edgevit.records.measurement import Measurement, NoiseFloor
from edgevit.records.model import ModelCard, OperatorCost
from edgevit.selection.accuracy import TOP1, Ratings
from edgevit.selection.answer import Evidence, choose_among
from edgevit.selection.candidates import EVERYTHING, CandidateFilter
from edgevit.selection.commands import Commands
from edgevit.selection.limits import BOUNDS, PercentileEstimate, check_budget, check_confidence
from edgevit.selection.other_devices import OtherDevices
from edgevit.selection.predictions import predicted_cells

if TYPE_CHECKING:
    from edgevit.store import LatencyDB

MOST_OTHER_ROWS = 10_000  # that a prediction is made from: reading one takes some 30 us


class PredictionOptions(NamedTuple):
    """Whether cells without a row are predicted, and with which confidence; measured bounds hold with 99%."""

    enabled: bool = True
    confidence: float = 0.9


USUAL = PredictionOptions()


def ask(
    db: LatencyDB,
    device: str,
    budget: Budget,
    *,
    cards: Mapping[str, ModelCard],
    candidate_filter: CandidateFilter = EVERYTHING,
    prediction: PredictionOptions = USUAL,
    dataset: str | None = None,
    label: str = "",
) -> Choice:
    """Answer the question for a device (its name, device_id or device_class), which the answer calls `label`.

    dataset: as for Ratings. Raises UsageError for a budget or confidence that makes no sense, UnknownNameError for a
    device without any row, StoreError.
    """
    from edgevit.artifacts.source_files import SourceFiles

    check_budget(budget)
    check_confidence(prediction.confidence)
    rows, former = db.history(device)
    if not rows:
        if left_out := db.left_out(device):
            raise _untrusted(label or device, left_out)
        raise not_measured(db, label or device)
    current = [row for row in rows if row.measurement_id not in former]
    evidence = Evidence(
        noise_floors(db, rows),
        Ratings.of(db.accuracies(metric=TOP1), dataset, bounded=candidate_filter.unevaluated),
        former,
        estimates=_estimates(db, current, budget.percentile),
        commands=Commands(reached_as(label or device)),
        files=SourceFiles(),
        origins=db.foreign_origins(),
    )
    if prediction.enabled:
        others = read_other_devices(db, device, cards)
        predicted = predicted_cells(current, cards, candidate_filter, budget.percentile, prediction.confidence, others)
        evidence = evidence._replace(predicted=predicted)
    return choose_among(
        rows, label or device, budget, cards=cards, candidate_filter=candidate_filter, evidence=evidence
    )


def read_other_devices(
    db: LatencyDB,
    device: str,
    cards: Mapping[str, ModelCard],
    more: Mapping[str, tuple[OperatorCost, ...]] | None = None,
) -> OtherDevices:
    """Return the evidence beside the rows of a device, which is read on demand: of the database and of the cards.

    more: operators of models without a card, by name.
    """

    def rows(models: Collection[str]) -> list[Measurement]:
        return db.rows_of_other_devices(device, models, MOST_OTHER_ROWS)

    def operators() -> dict[str, tuple[OperatorCost, ...]]:
        return {name: costs for name, costs in load_operators().items() if name in cards} | dict(more or {})

    return OtherDevices(db.models, rows, db.graphs, operators)


def not_measured(db: LatencyDB, device: str) -> UnknownNameError:
    """Return the error for a device without a row, with the devices that have some."""
    names = {name for unit in db.devices() for name in (unit.name, unit.device_class)} - {LOCAL}
    name = reached_as(device)
    words = ("edgevit", "sweep", "--device", name, "--models", "mobilevig_*", "--targets", usable_target())
    listing = shlex.join(words) if name else "edgevit devices"
    return UnknownNameError("measured device", device, names or ["none yet"], listing=listing)


def _untrusted(device: str, left_out: Mapping[str, int]) -> UsageError:
    """Return the error for a device whose rows all come from sources that are not trusted."""
    counted = ", ".join(f"{count} from {source}" for source, count in sorted(left_out.items()))
    words = shlex.join(["edgevit", "db", "trust", min(left_out)])
    fix = f"{words}, if they are to decide; --origin any takes them in once"
    return UsageError(f"no row of {device} is of a trusted source", why=counted, fix=fix)


def noise_floors(db: LatencyDB, rows: Iterable[Measurement]) -> list[NoiseFloor]:
    """Return the noise floors of the rows' devices, as far as they were measured. Raises StoreError."""
    return [floor for unit in sorted({row.device_id for row in rows}) if (floor := db.noise(unit)) is not None]


def _estimates(db: LatencyDB, rows: Sequence[Measurement], percentile: int) -> dict[str, PercentileEstimate]:
    """Return the estimates of a percentile that no column holds, from the samples of rows that have some."""
    if percentile in BOUNDS:
        return {}
    from edgevit.measurement.summary import tail

    estimates: dict[str, PercentileEstimate] = {}
    for row in rows:
        if row.status == "ok" and row.provenance == "measured":
            samples = db.get(row.measurement_id).samples_ns
            if samples:
                estimates[row.measurement_id] = tail(samples, percentile / 100)
    return estimates
