"""The joint answer for several devices: an artifact that fits on each of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from edgevit.records.choice import Candidate, Choice, JointChoice, JointRejection, Note, Objective, Outcome, Reason
from edgevit.records.network import Network
from edgevit.selection.caveats import notes_on_prediction
from edgevit.selection.constraints import latency_for_budget
from edgevit.selection.ranking import accuracy_tiers, front_of
from edgevit.selection.wording import FITS, UNKNOWN_THERE, describe_devices


class _Key(NamedTuple):
    """The identity of an artifact on all devices; thread counts may differ."""

    model: str
    target: str
    precision: str
    input_shape: tuple[int, ...]
    network_id: str


class _OnDevice(NamedTuple):
    """An artifact on one device: the candidate that fits best there, or the reasons why none does."""

    candidate: Candidate | None
    reasons: tuple[Reason, ...]
    text: str
    is_open: bool


_UNKNOWN = _OnDevice(None, (), UNKNOWN_THERE, True)
_Candidates = tuple[Candidate, ...]


def choose_jointly(choices: Sequence[Choice]) -> JointChoice:
    """Join the answers of several devices into one.

    Most accurate first; artifacts that no evaluation tells apart rank by the latency on the device where it is highest.
    """
    tables = [_by_artifact(choice) for choice in choices]
    keys = sorted({key for table in tables for key in table})
    on_all = {key: [table.get(key, _UNKNOWN) for table in tables] for key in keys}
    devices = tuple(choice.device for choice in choices)
    fitting = [candidates for on_devices in on_all.values() if (candidates := _fitting(on_devices))]
    fitting = list(_best_first(fitting, choices[0].budget.objective))
    everything = [one for choice in choices for one in (*choice.fitting, *(miss.candidate for miss in choice.rejected))]
    networks = {(one.model, one.network_id): one.network for one in everything}
    rejected = tuple(_rejections(on_all, devices, networks))
    picked = fitting[0] if fitting else ()
    return JointChoice(
        devices=devices,
        budget=choices[0].budget,
        picked=picked,
        fitting=tuple(fitting),
        rejected=rejected,
        choices=tuple(choices),
        notes=tuple(_notes(choices, picked)),
        outcome=_outcome(picked, rejected, choices),
        front=tuple(front_of(fitting, lambda candidates: (_accuracy(candidates), _slowest(candidates)))),
    )


def _fitting(on_devices: Sequence[_OnDevice]) -> _Candidates:
    """Return the candidates of an artifact that fits on all devices; empty for another one."""
    candidates = tuple(one.candidate for one in on_devices if one.candidate is not None)
    return candidates if len(candidates) == len(on_devices) else ()


def _rejections(
    on_all: Mapping[_Key, Sequence[_OnDevice]],
    devices: Sequence[str],
    networks: Mapping[tuple[str, str], Network | None],
) -> Iterator[JointRejection]:
    for key, on_devices in on_all.items():
        if not _fitting(on_devices):
            text = describe_devices(devices, [one.text for one in on_devices])
            is_open = all(one.candidate is not None or one.is_open for one in on_devices)
            reasons = tuple(one.reasons for one in on_devices)
            identity = (key.model, key.target, key.precision)
            network = networks.get((key.model, key.network_id))
            yield JointRejection(*identity, reasons, text, is_open, key.input_shape, network, key.network_id)


def _notes(choices: Sequence[Choice], picked: Sequence[Candidate]) -> Iterator[Note]:
    """Yield the notes on the devices, equal notes of several once; and those on the joint pick, not on their own."""
    devices_of: dict[Note, list[str]] = {}
    for choice in choices:
        for one in choice.notes:
            if not one.about_pick:
                devices_of.setdefault(one, []).append(choice.device)
    for choice, candidate in zip(choices, picked, strict=False):
        for one in notes_on_prediction(candidate):
            devices_of.setdefault(one, []).append(choice.device)
    for one, devices in devices_of.items():
        yield replace(one, text=f"{', '.join(devices)}: {one.text}", devices=tuple(devices))


def _by_artifact(choice: Choice) -> dict[_Key, _OnDevice]:
    """Return the artifacts of a device: by the best candidate that fits, else by the one that misses by least."""
    artifacts: dict[_Key, _OnDevice] = {}
    for candidate in choice.fitting:
        artifacts.setdefault(_key(candidate), _OnDevice(candidate, (), FITS, False))
    misses = [one for one in choice.rejected if one.is_open or one.kind not in ("not_asked", "superseded")]
    for miss in sorted(misses, key=lambda one: (not one.is_open, math.inf if one.excess is None else one.excess)):
        is_open = miss.is_open or miss.kind == "unmeasured"
        artifacts.setdefault(_key(miss.candidate), _OnDevice(None, miss.reasons, miss.reason, is_open))
    return artifacts


def _key(candidate: Candidate) -> _Key:
    return _Key(candidate.model, candidate.target, candidate.precision, candidate.input_shape, candidate.network_id)


def _rank(candidates: _Candidates) -> tuple[float | str, ...]:
    top1, slowest, first = _accuracy(candidates), _slowest(candidates), candidates[0]
    numbers = (math.inf if top1 is None else -top1, math.inf if slowest is None else slowest)
    return (*numbers, _largest(candidates), first.model, first.target, first.precision, first.network_id)


def _best_first(fitting: Sequence[_Candidates], objective: Objective) -> Iterator[_Candidates]:
    """Yield the artifacts that fit, best first; for another objective than accuracy, those of known accuracy lead."""
    if objective == "accurate":
        for tier in accuracy_tiers(sorted(fitting, key=_rank), _least_accurate):
            yield from sorted(tier, key=_rank_by_speed)
        return
    order = _rank_by_speed if objective == "fastest" else _rank_by_size
    yield from sorted(fitting, key=lambda candidates: (_accuracy(candidates) is None, *order(candidates)))


def _rank_by_size(candidates: _Candidates) -> tuple[float | str, ...]:
    return (_largest(candidates), *_rank(candidates))


def _largest(candidates: _Candidates) -> float:
    return max((one.size_mb for one in candidates if one.size_mb is not None), default=math.inf)


def _rank_by_speed(candidates: _Candidates) -> tuple[float | str, ...]:
    slowest = _slowest(candidates)
    return (math.inf if slowest is None else slowest, *_rank(candidates))


def _least_accurate(candidates: _Candidates) -> Candidate:
    """Return the candidate whose accuracy is not known, or is the lowest."""
    return min(candidates, key=lambda one: -1.0 if one.top1_percent is None else one.top1_percent)


def _accuracy(candidates: _Candidates) -> float | None:
    """Return the lowest accuracy; None where one is not known."""
    accuracies = [one.top1_percent for one in candidates if one.top1_percent is not None]
    return min(accuracies) if len(accuracies) == len(candidates) else None


def _slowest(candidates: _Candidates) -> float | None:
    latencies = [latency for one in candidates if (latency := latency_for_budget(one)) is not None]
    return max(latencies) if len(latencies) == len(candidates) else None


def _outcome(picked: _Candidates, rejected: Sequence[JointRejection], choices: Sequence[Choice]) -> Outcome:
    if picked:
        return "no_accuracy" if _accuracy(picked) is None else "chosen"
    if any(choice.outcome == "unsupported" for choice in choices):
        return "unsupported"
    if any(rejection.is_open for rejection in rejected):
        return "unmeasured"
    codes = ({reason.code for reasons in rejection.reasons for reason in reasons} for rejection in rejected)
    return "no_accuracy" if any(one == {"accuracy_unknown"} for one in codes) else "infeasible"
