"""The points that a picture of a choice draws, and those of them that the chooser put on its front."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from typing import Literal, NamedTuple

from edgevit.records.choice import Candidate, Choice, JointChoice
from edgevit.selection.constraints import latency_for_budget

Standing = Literal["fits", "fits on all", "fits here only", "does not fit"]


class Point(NamedTuple):
    """A candidate that can be drawn: the milliseconds held against the budget, and the ends of its bar."""

    candidate: Candidate
    x: float
    low: float
    high: float
    standing: Standing

    @property
    def top1(self) -> float:
        """Return the accuracy in percent; a candidate without one is no point."""
        assert self.candidate.top1_percent is not None
        return self.candidate.top1_percent


class Panel(NamedTuple):
    """What the axes of one device show."""

    choice: Choice
    points: list[Point]
    picked: Candidate | None

    @property
    def front(self) -> list[Point]:
        """Return the points of the choice's own front, fastest first."""
        by_candidate = {point.candidate: point for point in self.points}
        return [by_candidate[candidate] for candidate in self.choice.front]


def panels(choice: Choice | JointChoice) -> list[Panel]:
    """Return one panel per device. Of several devices the pick is the artifact that they have in common."""
    if isinstance(choice, Choice):
        return [Panel(choice, points(choice), choice.picked)]
    everywhere = {_artifact(candidates[0]) for candidates in choice.fitting}
    picked: Sequence[Candidate | None] = choice.picked or [None] * len(choice.devices)
    return [Panel(one, points(one, everywhere), pick) for one, pick in zip(choice.choices, picked, strict=True)]


def points(choice: Choice, everywhere: Collection[Hashable] | None = None) -> list[Point]:
    """Return the candidates that were held against the budget and have an accuracy and a latency.

    A point stands at the bound, which the budget is held against; a published row stands at its source's number. The
    bar goes back to the percentile itself; of a prediction it is the interval. everywhere: artifacts that fit on all of
    several devices.
    """
    standings: list[tuple[Candidate, Standing]] = [
        (candidate, _standing(candidate, everywhere)) for candidate in choice.fitting
    ]
    standings += [(rejection.candidate, "does not fit") for rejection in choice.rejected if rejection.kind == "budget"]
    drawn: list[Point] = []
    for candidate, standing in standings:
        x = latency_for_budget(candidate)
        if x is not None and candidate.top1_percent is not None:
            drawn.append(Point(candidate, x, *_bar(candidate, x), standing))
    return drawn


def _standing(candidate: Candidate, everywhere: Collection[Hashable] | None) -> Standing:
    if everywhere is None:
        return "fits"
    return "fits on all" if _artifact(candidate) in everywhere else "fits here only"


def _artifact(candidate: Candidate) -> Hashable:
    """Return what an artifact has in common on all devices, as edgevit.selection.joint has it."""
    return (candidate.model, candidate.target, candidate.precision, candidate.input_shape, candidate.network_id)


def _bar(candidate: Candidate, x: float) -> tuple[float, float]:
    """Return the ends of a candidate's bar in milliseconds."""
    basis = candidate.basis
    if basis and basis.lower_ms is not None and basis.upper_ms is not None:
        return min(basis.lower_ms, x), max(basis.upper_ms, x)
    return (x if candidate.latency_ms is None else candidate.latency_ms), x
