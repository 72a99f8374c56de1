"""Several devices at once: an artifact that fits on each of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from edgevit.records.choice import Candidate, Choice, JointChoice, JointRejection, Outcome
from edgevit.selection.caveats import is_about_pick, on_prediction
from edgevit.selection.constraints import held
from edgevit.selection.ranking import accuracy_tiers, front_of

_FITS = "fits"


class _Key(NamedTuple):
    """What is the same on all devices; thread counts may differ."""

    model: str
    target: str
    precision: str
    input_shape: tuple[int, ...]


class _On(NamedTuple):
    """What a device says of an artifact: the candidate that fits best there, or why none does."""

    candidate: Candidate | None
    reason: str
    is_open: bool


def joint(choices: Sequence[Choice]) -> JointChoice:
    """One answer from those of several devices. Most accurate first; those that no evaluation tells apart by the
    latency where it is highest.
    """
    tables = [_by_artifact(choice) for choice in choices]
    keys = sorted({key for table in tables for key in table})
    missing = _On(None, "nothing is known of it there", True)
    on_all = {key: [table.get(key, missing) for table in tables] for key in keys}
    fitting = []
    rejected = []
    for key, said in on_all.items():
        found = tuple(item.candidate for item in said if item.candidate is not None)
        if len(found) == len(choices):
            fitting.append(found)
        else:
            reasons = (f"{choice.device}: {item.reason}" for choice, item in zip(choices, said, strict=True))
            is_open = all(item.candidate is not None or item.is_open for item in said)
            rejected.append(JointRejection(key.model, key.target, key.precision, "; ".join(reasons), is_open))
    tiers = accuracy_tiers(sorted(fitting, key=_rank), _least_accurate)
    fitting = [found for tier in tiers for found in sorted(tier, key=_rank_by_speed)]
    return JointChoice(
        devices=tuple(choice.device for choice in choices),
        budget=choices[0].budget,
        picked=fitting[0] if fitting else (),
        fitting=tuple(fitting),
        rejected=tuple(rejected),
        choices=tuple(choices),
        notes=tuple(_notes(choices, fitting[0] if fitting else ())),
        outcome=_outcome(bool(fitting), rejected, choices),
        front=tuple(front_of(fitting, lambda item: (_accuracy(item), _slowest(item)))),
    )


def _notes(choices: Sequence[Choice], picked: Sequence[Candidate]) -> Iterator[str]:
    """What is said of the devices, equal notes of several once; and of what is picked here, not of their own picks."""
    whose: dict[str, list[str]] = {}
    for choice in choices:
        for note in choice.notes:
            if not is_about_pick(note):
                whose.setdefault(note, []).append(choice.device)
    for choice, item in zip(choices, picked, strict=False):
        for note in on_prediction(item):
            whose.setdefault(note, []).append(choice.device)
    yield from (f"{', '.join(devices)}: {note}" for note, devices in whose.items())


def _by_artifact(choice: Choice) -> dict[_Key, _On]:
    """Best first: what fits speaks for its artifact, and of what does not, what misses by least."""
    found: dict[_Key, _On] = {}
    for candidate in choice.fitting:
        found.setdefault(_key(candidate), _On(candidate, _FITS, False))
    asked = [item for item in choice.rejected if item.is_open or item.kind not in ("not_asked", "superseded")]
    for item in sorted(asked, key=lambda item: (not item.is_open, math.inf if item.excess is None else item.excess)):
        found.setdefault(_key(item.candidate), _On(None, item.reason, item.is_open or item.kind == "unmeasured"))
    return found


def _key(candidate: Candidate) -> _Key:
    return _Key(candidate.model, candidate.target, candidate.precision, candidate.input_shape)


def _rank(found: tuple[Candidate, ...]) -> tuple[float | str, ...]:
    top1, slowest, first = _accuracy(found), _slowest(found), found[0]
    sizes = [item.size_mb for item in found if item.size_mb is not None]
    numbers = (math.inf if top1 is None else -top1, math.inf if slowest is None else slowest)
    return (*numbers, max(sizes, default=math.inf), first.model, first.target, first.precision)


def _rank_by_speed(found: tuple[Candidate, ...]) -> tuple[float | str, ...]:
    slowest = _slowest(found)
    return (math.inf if slowest is None else slowest, *_rank(found))


def _least_accurate(found: tuple[Candidate, ...]) -> Candidate:
    """The one whose accuracy is not known, or is the lowest."""
    return min(found, key=lambda item: -1.0 if item.top1_percent is None else item.top1_percent)


def _accuracy(found: tuple[Candidate, ...]) -> float | None:
    """The lowest; None where one is not known."""
    known = [item.top1_percent for item in found if item.top1_percent is not None]
    return min(known) if len(known) == len(found) else None


def _slowest(found: tuple[Candidate, ...]) -> float | None:
    known = [latency for item in found if (latency := held(item)) is not None]
    return max(known) if len(known) == len(found) else None


def _outcome(fits: bool, rejected: Sequence[JointRejection], choices: Sequence[Choice]) -> Outcome:
    if fits:
        return "chosen"
    if any(choice.outcome == "unsupported" for choice in choices):
        return "unsupported"
    return "unmeasured" if any(item.is_open for item in rejected) else "infeasible"
