"""The picks and fronts that the page looks up: for each setting of its filters a step function of the budget.

Filters that leave one target, precision or thread count are answered where predictions take no part. With predictions
such a filter asks another question, because what is predicted depends on which rows may be asked about.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple

from edgevit.records.choice import Candidate, Choice
from edgevit.reporting.chooser_answers import Setting, UnitAnswers
from edgevit.reporting.page_records import PERCENTILES, DeviceAnswers, View
from edgevit.selection import pick_steps
from edgevit.selection.constraints import latency_for_budget
from edgevit.selection.ranking import front_of

CandidateKey = tuple[object, ...]


class _Single(NamedTuple):
    """The one target, precision and thread count that a filter leaves; None: all of them."""

    target: str | None
    precision: str | None
    threads: int | None

    def keeps(self, candidate: Candidate) -> bool:
        """Return whether a candidate passes."""
        configuration = (candidate.target, candidate.precision, candidate.threads)
        return all(value is None or value == has for value, has in zip(self, configuration, strict=True))


def key_of(candidate: Candidate) -> CandidateKey:
    """Return what names a candidate of a unit at every percentile."""
    return (candidate.measurement_id, candidate.model, candidate.target, candidate.precision, candidate.threads)


def device_answers(answers: UnitAnswers, entry_places: Mapping[CandidateKey, int], floor: float) -> DeviceAnswers:
    """Return what the page looks up for a unit. entry_places: of the candidates among the report's entries.

    floor: the share below which latencies of the unit count as equal.
    """
    listed = [candidate for choice in answers.listed for candidate in choice.fitting]
    targets = tuple(sorted({candidate.target for candidate in listed}))
    precisions = tuple(sorted({candidate.precision for candidate in listed}))
    threads = tuple(sorted({candidate.threads for candidate in listed}))
    singles = [_Single(*values) for values in product(*map(_all_or_each, (targets, precisions, threads)))]
    distinct: dict[View, int] = {}

    def number_of(fitting: Sequence[Candidate]) -> int:
        view = _view(fitting, entry_places, floor)
        return distinct.setdefault(view, len(distinct))

    # Settings that take nothing away share their choice.
    measured: dict[int, list[int]] = {}
    for choice in _without_predictions(answers.by_setting):
        if id(choice) not in measured:
            measured[id(choice)] = [number_of(list(filter(single.keeps, choice.fitting))) for single in singles]
    return DeviceAnswers(
        targets,
        precisions,
        threads,
        predicted=tuple(number_of(choice.fitting) for choice in _with_predictions(answers.by_setting)),
        measured=tuple(
            number for choice in _without_predictions(answers.by_setting) for number in measured[id(choice)]
        ),
        distinct=tuple(distinct),
    )


def _all_or_each(values: Sequence[Any]) -> tuple[Any, ...]:
    """Return None for all of the values, then each of them where there are several."""
    return (None, *values) if len(values) > 1 else (None,)


def _with_predictions(by_setting: Mapping[Setting, Choice]) -> Iterator[Choice]:
    """Yield the answers in the order of DeviceAnswers.predicted."""
    published = any(setting.published for setting in by_setting)
    for percentile, reconstructed in product(PERCENTILES, (False, True)):
        yield by_setting[Setting(percentile, True, published, reconstructed)]


def _without_predictions(by_setting: Mapping[Setting, Choice]) -> Iterator[Choice]:
    """Yield the answers in the order of DeviceAnswers.measured, each for all targets, precisions and thread counts."""
    may_be_published = any(setting.published for setting in by_setting)
    for percentile, reconstructed, published in product(PERCENTILES, (False, True), (False, True)):
        yield by_setting[Setting(percentile, False, published and may_be_published, reconstructed)]


def _view(fitting: Sequence[Candidate], entry_places: Mapping[CandidateKey, int], floor: float) -> View:
    steps = pick_steps(fitting, floor)
    by_bound = front_of(fitting, lambda candidate: (candidate.top1_percent, latency_for_budget(candidate)))
    by_value = front_of(fitting, lambda candidate: (candidate.top1_percent, candidate.latency_ms))
    return View(
        from_ms=tuple(step.from_ms for step in steps),
        picks=tuple(entry_places[key_of(step.pick)] for step in steps),
        front=tuple(entry_places[key_of(candidate)] for candidate in by_bound),
        front_by_value=tuple(entry_places[key_of(candidate)] for candidate in by_value),
    )
