"""The answer from rows: each of them is in it once."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from edgevit.choose.candidates import EVERYTHING, Wanted, candidate_of, hindrance
from edgevit.choose.limits import check_budget
from edgevit.choose.notes import left_out, nearness, notes_on
from edgevit.choose.ranking import nearest, rank, ranked
from edgevit.choose.speaking import overruled
from edgevit.choose.verdicts import verdict_of
from edgevit.choose.versions import newest_engines
from edgevit.compare import resolution
from edgevit.errors import UnknownNameError
from edgevit.ratings import TOP1, Ratings
from edgevit.types import EMULATED, IMAGENET, Budget, Candidate, Choice, Measurement, ModelCard, NoiseFloor, Rejection

if TYPE_CHECKING:
    from edgevit.store import LatencyDB

PUBLISHED = Ratings()


def choose(
    db: LatencyDB,
    device: str,
    budget: Budget,
    *,
    cards: Mapping[str, ModelCard],
    targets: Collection[str] | None = None,
    precisions: Collection[str] | None = None,
    threads: int | None = None,
    published: bool = False,
    dataset: str | None = None,
) -> Choice:
    """The answer for a device (its name, device_id or device_class) from the rows of a database.

    `published`: rows that others published count, too. `dataset`: by what was measured on it, as far as it was (see
    edgevit.ratings); None: by published accuracies.

    Raises UsageError for a budget that makes no sense, UnknownNameError for a device with no rows at all, StoreError.
    """
    check_budget(budget)
    rows = db.measurements(device=device)
    if not rows:
        known = {name for unit in db.devices() for name in (unit.name, unit.device_id, unit.device_class)}
        listing = f"measure it: edgevit sweep --device {device}"
        raise UnknownNameError("measured device", device, known or ["none yet"], listing=listing)
    wanted, ratings = Wanted(targets, precisions, threads, published), Ratings.of(db.accuracies(metric=TOP1), dataset)
    floors = noise_floors(db, rows)
    return choose_among(rows, device, budget, cards=cards, wanted=wanted, floors=floors, ratings=ratings)


def noise_floors(db: LatencyDB, rows: Iterable[Measurement]) -> list[NoiseFloor]:
    """Of the rows' devices, as far as they were measured. Raises StoreError."""
    return [floor for unit in sorted({row.device_id for row in rows}) if (floor := db.noise(unit)) is not None]


def choose_among(
    rows: Sequence[Measurement],
    device: str,
    budget: Budget,
    *,
    cards: Mapping[str, ModelCard],
    wanted: Wanted = EVERYTHING,
    floors: Collection[NoiseFloor] = (),
    ratings: Ratings = PUBLISHED,
) -> Choice:
    """The answer from these rows. Every row is in it once: `fitting` (best first, the pick leads) or `rejected`.

    `floors` are the noise floors of the rows' devices, `ratings` the accuracies to choose by.
    """
    floor = resolution(floors)
    spoken_for = overruled([row for row in rows if EMULATED not in row.flags], budget.percentile)
    newest = newest_engines(rows)
    fitting: list[Candidate] = []
    rejected: list[Rejection] = []
    for row in rows:
        candidate = candidate_of(row, ratings.top1(row, cards.get(row.model)), budget.percentile, newest)
        verdict = hindrance(row, wanted, spoken_for) or verdict_of(candidate, budget)
        if verdict is None:
            fitting.append(candidate)
        else:
            rejected.append(Rejection(candidate, *verdict))
    fitting = ranked(fitting, floor[0])
    rejected.sort(key=lambda rejection: rank(rejection.candidate))
    picked = fitting[0] if fitting else None
    counted = [row for row in rows if wanted.published or row.provenance != "published"]
    return Choice(
        device=device,
        budget=budget,
        picked=picked,
        fitting=tuple(fitting),
        rejected=tuple(rejected),
        nearest_misses=() if picked else nearest(rejected),
        unmeasured=tuple(sorted(set(cards) - {row.model for row in counted})),
        notes=(
            *notes_on(counted, device, picked, newest),
            *nearness(fitting, budget, floor),
            *ratings.notes(counted, [*fitting, *(item.candidate for item in rejected)], picked),
            *left_out(rows, counted),
        ),
        dataset=ratings.dataset or IMAGENET,
    )
