"""What can be drawn of a choice: its candidates as points, and the front of them."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from typing import Literal, NamedTuple

from edgevit.records.choice import Candidate, Choice, JointChoice
from edgevit.selection.constraints import latency_for_budget
from edgevit.selection.ranking import front_of

Standing = Literal["fits", "fits on all", "fits here only", "does not fit"]


class Point(NamedTuple):
    """A candidate that can be drawn: milliseconds that are held against the budget, and the ends of its bar."""

    item: Candidate
    x: float
    low: float
    high: float
    standing: Standing

    @property
    def top1(self) -> float:
        """In percent; a candidate without an accuracy is no point."""
        assert self.item.top1_percent is not None
        return self.item.top1_percent


class Panel(NamedTuple):
    """What one device's axes show."""

    choice: Choice
    points: list[Point]
    picked: Candidate | None


def panels(choice: Choice | JointChoice) -> list[Panel]:
    """One for each device; of several devices what is picked is what they have in common."""
    if isinstance(choice, Choice):
        return [Panel(choice, points(choice), choice.picked)]
    everywhere = {_artifact(found[0]) for found in choice.fitting}
    picked: Sequence[Candidate | None] = choice.picked or [None] * len(choice.devices)
    return [Panel(one, points(one, everywhere), item) for one, item in zip(choice.choices, picked, strict=True)]


def points(choice: Choice, everywhere: Collection[Hashable] | None = None) -> list[Point]:
    """What can be drawn of a choice: candidates that were held against the budget, with an accuracy and a latency.

    A point stands at what the budget is held against, the bound; of a published row at what its source tells. Its bar
    goes back to the percentile itself, and is the interval of a prediction. everywhere: artifacts that fit on all of
    several devices.
    """
    items: list[tuple[Candidate, Standing]] = [(item, _standing(item, everywhere)) for item in choice.fitting]
    items += [(rejection.candidate, "does not fit") for rejection in choice.rejected if rejection.kind == "budget"]
    found = []
    for item, standing in items:
        at = latency_for_budget(item)
        if at is not None and item.top1_percent is not None:
            found.append(Point(item, at, *_bar(item, at), standing))
    return found


def front(drawn: Sequence[Point]) -> list[Point]:
    """Those that no other one beats, fastest first; equal ones all."""
    return front_of(drawn, lambda point: (point.top1, point.x))


def _standing(item: Candidate, everywhere: Collection[Hashable] | None) -> Standing:
    if everywhere is None:
        return "fits"
    return "fits on all" if _artifact(item) in everywhere else "fits here only"


def _artifact(item: Candidate) -> Hashable:
    """What is the same on all devices, as edgevit.selection.joint has it."""
    return (item.model, item.target, item.precision, item.input_shape)


def _bar(item: Candidate, at: float) -> tuple[float, float]:
    """From where to where its bar goes, in milliseconds."""
    if item.basis and item.basis.lower_ms is not None and item.basis.upper_ms is not None:
        return min(item.basis.lower_ms, at), max(item.basis.upper_ms, at)
    return (at if item.latency_ms is None else item.latency_ms), at
