"""The pick as a step function of the latency budget is what choose_among picks for every budget."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from edgevit.measurement.compare import resolution
from edgevit.records.choice import Budget, Choice
from edgevit.records.measurement import Measurement, NoiseFloor
from edgevit.selection import Evidence, PredictedCell, choose_among, pick_steps
from edgevit.selection.accuracy import Ratings
from edgevit.selection.constraints import latency_for_budget
from support.candidates import CARDS, GUESSES, LIMITS, MS, ROWS, row
from support.measured import card, rated

FLOORS = st.sampled_from([0.0, 0.02, 0.7, 1.2])


@settings(deadline=None, max_examples=60)
@given(ROWS, GUESSES, LIMITS, FLOORS)
def test_the_steps_are_the_picks_for_every_budget(
    rows: list[Measurement], guesses: list[PredictedCell], budget: Budget, share: float
) -> None:
    noise = NoiseFloor("pi-1", "pi5", "mixed", 1, share, (100, 102), "2026-11-21T10:00:00+00:00")
    evidence = Evidence(predicted=guesses, floors=[noise])

    def answer(limit: float | None) -> Choice:
        limits = replace(budget, max_latency_ms=limit)
        return choose_among(rows, "pi5", limits, cards=CARDS, evidence=evidence)

    steps = pick_steps(answer(None).fitting, resolution([noise])[0])
    starts = [step.from_ms for step in steps]
    assert starts == sorted(set(starts))
    for limit in (0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 9.0, 50.0):
        number = bisect_right(starts, limit)
        assert answer(limit).picked == (steps[number - 1].pick if number else None), limit


def test_a_slower_more_accurate_candidate_within_the_error_is_never_the_pick() -> None:
    """net a: 75.0 +- 0.5 at 10 ms, net b: 75.2 +- 0.5 at 20 ms: b is not told from a, and a is faster."""
    rows = [row("a", 10, artifact_sha256="a" * 64), row("b", 20, artifact_sha256="b" * 64)]
    facts: dict[str, Any] = {"provenance": "measured", "dataset": "birds", "error": 0.5, "untold": ()}
    accuracies = [
        rated(75.0, model="a", artifact_sha256="a" * 64, **facts),
        rated(75.2, model="b", artifact_sha256="b" * 64, **facts),
    ]
    evidence = Evidence(ratings=Ratings.of(accuracies, "birds"))
    answer = choose_among(rows, "pi5", Budget(), cards=CARDS, evidence=evidence)
    [step] = pick_steps(answer.fitting, 0.01)
    assert (step.pick.model, step.from_ms) == ("a", 10.0)
    assert [latency_for_budget(candidate) for candidate in answer.front] == [10.0, 20.0]


def test_without_candidates_there_is_no_step() -> None:
    assert pick_steps([], 0.01) == []


def test_a_smaller_artifact_within_the_noise_takes_over_once_it_fits() -> None:
    cards = dict.fromkeys("ab", card("x", 75.0))
    rows = [row("a", 10.0, artifact_bytes=9 * MS), row("b", 10.4, artifact_bytes=3 * MS)]
    fitting = choose_among(rows, "pi5", Budget(), cards=cards).fitting
    assert [(step.from_ms, step.pick.model) for step in pick_steps(fitting, 0.05)] == [(10.0, "a"), (10.4, "b")]
    assert [(step.from_ms, step.pick.model) for step in pick_steps(fitting, 0.01)] == [(10.0, "a")]
