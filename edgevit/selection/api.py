"""`edgevit.choose(...)`: the question as a person asks it, from Python and from the command line alike."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, NamedTuple, TypedDict, Unpack, overload

from edgevit.cards import load_cards
from edgevit.devices.registry import LOCAL, list_devices, local_device
from edgevit.errors import UsageError
from edgevit.recipes import load_recipe
from edgevit.records.choice import Budget, Choice, JointChoice
from edgevit.selection.candidates import Wanted
from edgevit.selection.joint import joint
from edgevit.selection.limits import check_budget, check_confidence, parse_latency
from edgevit.selection.query import How, ask

if TYPE_CHECKING:
    from edgevit.store import LatencyDB


class Question(NamedTuple):
    """What is asked: for which devices, within which budget, among what, and how it is answered."""

    devices: tuple[str, ...]
    budget: Budget
    wanted: Wanted
    how: How


class Asked(TypedDict, total=False):
    """What can be asked beside the devices: the keywords of `question`, which says what each of them means."""

    max_latency: str | float | None
    percentile: int
    min_top1: float | None
    max_size_mb: float | None
    max_memory_mb: float | None
    max_energy_mj: float | None
    target: str | Collection[str] | None
    precision: str | Collection[str] | None
    engine: str | Collection[str] | None
    threads: int | None
    licence: str | Collection[str] | None
    published: bool
    reconstructed: bool
    predict: bool
    confidence: float
    dataset: str | None


@overload
def choose(device: str = LOCAL, *, db: str | LatencyDB | None = None, **asked: Unpack[Asked]) -> Choice: ...
@overload
def choose(
    device: list[str] | tuple[str, ...], *, db: str | LatencyDB | None = None, **asked: Unpack[Asked]
) -> JointChoice: ...
def choose(
    device: str | list[str] | tuple[str, ...] = LOCAL, *, db: str | LatencyDB | None = None, **asked: Unpack[Asked]
) -> Choice | JointChoice:
    """The most accurate model whose latency fits, on a device or on each of several, and why each other one is not it.

    device: a name, device_id or device_class; `local` is this very machine. db: a LatencyDB, the path of an SQLite file
    or a URL; default: EDGEVIT_DB, else the user's own. All else that can be asked is what `question` takes.

    Raises UsageError for what makes no sense, UnknownNameError for a device without rows, StoreError.
    """
    from edgevit.store import LatencyDB

    asked_for = question(device, **asked)
    with nullcontext(db) if isinstance(db, LatencyDB) else LatencyDB.open(db) as database:
        found = answers(database, asked_for)
    return found[0] if isinstance(device, str) else joint(found)


def question(
    device: str | Sequence[str] = LOCAL,
    *,
    max_latency: str | float | None = None,
    percentile: int = 90,
    min_top1: float | None = None,
    max_size_mb: float | None = None,
    max_memory_mb: float | None = None,
    max_energy_mj: float | None = None,
    target: str | Collection[str] | None = None,
    precision: str | Collection[str] | None = None,
    engine: str | Collection[str] | None = None,
    threads: int | None = None,
    licence: str | Collection[str] | None = None,
    published: bool = False,
    reconstructed: bool = False,
    predict: bool = True,
    confidence: float = 0.9,
    dataset: str | None = None,
) -> Question:
    """A question in one record.

    max_latency: "25ms", or a number of milliseconds, at `percentile` (1 to 99). min_top1: percent. max_memory_mb: of
    the process at its largest; max_energy_mj: of a run. target (a name or an alias), precision, engine, licence: only
    these, one or several; threads: only this count. published: rows that others published count, too. reconstructed:
    models whose papers published no weights count, too. predict: fill in what was not measured, with this confidence.
    dataset: by the accuracies that were measured on it.

    Raises UsageError for what makes no sense.
    """
    limit = parse_latency(max_latency) if isinstance(max_latency, str) else max_latency
    budget = Budget(limit, percentile, min_top1, max_size_mb, max_memory_mb, max_energy_mj)
    check_budget(budget)
    check_confidence(confidence)
    targets = _several(target)
    recipes = None if targets is None else [load_recipe(name).RECIPE.target for name in targets]
    wanted = Wanted(
        recipes, _several(precision), threads, published, _several(engine), _several(licence), reconstructed
    )
    devices = tuple(dict.fromkeys([device] if isinstance(device, str) else device))
    if not devices:
        raise UsageError("no device named", fix="name one of edgevit devices")
    return Question(devices, budget, wanted, How(predict, confidence, dataset))


def answers(db: LatencyDB, asked: Question) -> list[Choice]:
    """What the database says for each of the devices."""
    cards, found = load_cards(), []
    for name in asked.devices:
        choice = ask(db, unit_or_class(name), asked.budget, cards=cards, wanted=asked.wanted, how=asked.how, says=name)
        found.append(dataclasses.replace(choice, notes=(*_whose(db, name), *choice.notes)))
    return found


def unit_or_class(device: str) -> str:
    """What rows are looked up by: `local` is this very unit, not every machine that somebody called local."""
    return local_device().device_id if device == LOCAL else device


def _several(names: str | Collection[str] | None) -> tuple[str, ...] | None:
    if names is None:
        return None
    return (names,) if isinstance(names, str) else tuple(names)


def _whose(db: LatencyDB, name: str) -> Iterator[str]:
    """That no row is of this machine or of a device enrolled here: such rows ship with edgevit, or were merged."""
    asked = unit_or_class(name)
    units = {unit for unit in db.devices() if asked in (unit.name, unit.device_id, unit.device_class)}
    if not {unit.device_id for unit in units} & {device.device_id for device in list_devices()}:
        classes = ", ".join(sorted({unit.device_class for unit in units}))
        yield f"not measured on a device of yours, but on {len(units)} other unit(s) of {classes}: yours may differ"
