"""Objectives: the fastest and the smallest of what fits, and answers in which no accuracy is known."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given, settings

from edgevit.errors import UnknownNameError, UsageError
from edgevit.records.choice import Budget, Choice, Objective
from edgevit.records.measurement import Measurement
from edgevit.selection import (
    CandidateFilter,
    Commands,
    Evidence,
    PredictedCell,
    check_budget,
    choose_among,
    choose_jointly,
    parse_latency,
)
from edgevit.selection.constraints import latency_for_budget
from support.candidates import BUDGETS, CARDS, GUESSES, MS, ROWS, guess, noisy, picked, row, texts

OBJECTIVES: tuple[Objective, ...] = ("fastest", "smallest")


def asked(
    *rows: Measurement, predicted: list[PredictedCell] | None = None, share: float = 0.001, **budget: Any
) -> Choice:
    """Return the answer from these rows and predictions, on a device with this noise."""
    evidence = Evidence([noisy(share)], predicted=predicted or (), commands=Commands("pi5"))
    return choose_among(rows, "pi5", Budget(**budget), cards=CARDS, evidence=evidence)


# Budgets as people state them


@pytest.mark.parametrize(
    ("text", "latency_ms"),
    [("30fps", 1000 / 30), ("30 FPS", 1000 / 30), ("33ms", 33), ("33", 33), ("50Hz", 20), ("0.5fps", 2000)],
)
def test_a_rate_is_the_time_of_one_frame(text: str, latency_ms: float) -> None:
    assert parse_latency(text) == pytest.approx(latency_ms)


@pytest.mark.parametrize("text", ["0fps", "-5fps", "fps", "30fp", "30 frames", "1e999fps", "30fps/2"])
def test_what_is_no_latency_says_how_to_write_one(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_latency(text)
    assert "30fps" in caught.value.fix


@pytest.mark.parametrize(("share", "percent"), [(0.757, "75.7"), (0.8, "80"), (1.0, "100"), (0.07, "7")])
def test_a_share_in_place_of_percent_is_asked_about(share: float, percent: str) -> None:
    with pytest.raises(UsageError, match=f"{percent}% meant by {share:g}") as caught:
        check_budget(Budget(min_top1_percent=share))
    assert caught.value.fix == f"--min-top1 {percent}"
    check_budget(Budget(min_top1_percent=float(percent)))


def test_no_accuracy_is_above_a_hundred_percent() -> None:
    with pytest.raises(UsageError, match="757%"):
        check_budget(Budget(min_top1_percent=757))


def test_an_unknown_objective_names_near_ones() -> None:
    with pytest.raises(UnknownNameError, match="smallest"):
        check_budget(Budget(objective="smalest"))  # type: ignore[arg-type]


# The fastest and the smallest


def test_the_fastest_that_fits_is_picked() -> None:
    rows = (row("a", 5), row("b", 4), row("c", 9), row("a", 3, target="coreml"))
    assert [(one.model, one.target) for one in asked(*rows, objective="fastest").fitting] == [
        ("a", "coreml"), ("b", "onnx"), ("a", "onnx"), ("c", "onnx"),
    ]  # fmt: skip
    assert picked(asked(*rows, objective="fastest", min_top1_percent=72)) == "b"
    assert picked(asked(*rows)) == "c"


def test_of_those_that_the_device_cannot_tell_apart_the_more_accurate_is_picked() -> None:
    rows = (row("a", 10.0, artifact_bytes=1 * MS), row("b", 10.2), row("c", 10.6))
    choice = asked(*rows, share=0.05, objective="fastest")
    assert [one.model for one in choice.fitting] == ["b", "a", "c"]
    assert texts(choice) == (
        "a onnx fp32 is faster by less than 5.0% (the noise floor of pi5): the more accurate one is picked",
    )


def test_the_smallest_that_fits_is_picked_and_of_equal_ones_the_most_accurate() -> None:
    rows = (row("a", 1, artifact_bytes=3 * MS), row("b", 5), row("c", 9), row("c", 8, threads=1))
    choice = asked(*rows, objective="smallest")
    assert [(one.model, one.threads) for one in choice.fitting] == [("c", 1), ("c", 4), ("b", 4), ("a", 4)]
    assert texts(choice) == ()


@pytest.mark.parametrize(
    ("objective", "unknown", "reason"),
    [
        ("fastest", {"upper_ms": None}, "too few runs for a bound on p90"),
        ("smallest", {"artifact_bytes": 0}, "size unknown"),
    ],
)
def test_what_lacks_the_number_of_the_objective_is_no_answer(objective: Objective, unknown: Any, reason: str) -> None:
    choice = asked(row("c", **unknown), row("a", 5), objective=objective)
    assert picked(choice) == "a" and [(one.reason, one.is_open) for one in choice.rejected] == [(reason, True)]
    assert asked(row("c", **unknown), objective=objective).outcome == "unmeasured"
    assert picked(asked(row("c", **unknown), row("a", 5))) == "c", "without an objective of that number it fits"


@pytest.mark.parametrize(("objective", "word"), [("fastest", "faster"), ("smallest", "smaller")])
def test_a_known_accuracy_comes_first_and_a_better_one_without_is_named(objective: Objective, word: str) -> None:
    rows = (row("d", 1, artifact_bytes=1 * MS), row("a", 5), row("b", 6, artifact_bytes=3 * MS))
    choice = asked(*rows, objective=objective)
    assert picked(choice) == "a" and choice.outcome == "chosen"
    assert texts(choice) == (f"d onnx fp32 is {word} than the pick, and its accuracy is not known",)


@settings(deadline=None, max_examples=80)
@given(ROWS, GUESSES, BUDGETS)
def test_no_other_candidate_of_known_accuracy_beats_the_pick(
    rows: list[Measurement], guesses: list[PredictedCell], budget: Budget
) -> None:
    for objective in OBJECTIVES:
        question = dataclasses.replace(budget, objective=objective)
        choice = choose_among(rows, "pi5", question, cards=CARDS, evidence=Evidence(predicted=guesses))
        rated = [one for one in choice.fitting if one.top1_percent is not None]
        assert (choice.outcome == "chosen") == bool(rated)
        if not rated:
            continue
        assert choice.picked == rated[0] == choice.fitting[0]
        if objective == "smallest":
            assert choice.picked.size_mb == min(one.size_mb or 0 for one in rated)
        else:
            fastest = min(latency_for_budget(one) or 0.0 for one in rated)
            assert (latency_for_budget(choice.picked) or 0.0) <= 1.06 * fastest


def test_two_devices_have_one_objective() -> None:
    rows = (row("a", 2, artifact_bytes=9 * MS), row("b", 4), row("c", 9, artifact_bytes=1 * MS), row("d", 1))
    for objective, model in (("fastest", "a"), ("smallest", "c"), ("accurate", "c")):
        budget: dict[str, Any] = {"objective": objective}
        joint = choose_jointly([asked(*rows, **budget), asked(*rows, **budget)])
        assert (joint.picked[0].model, joint.outcome) == (model, "chosen")
    alone = choose_jointly([asked(row("d", 1)), asked(row("d", 1))])
    assert alone.picked and alone.outcome == "no_accuracy"


# No accuracy


def test_what_fits_without_a_known_accuracy_is_never_chosen() -> None:
    choice = asked(row("d", 5), row("d", 3, target="coreml"), row("c", 50), max_latency_ms=10)
    assert choice.outcome == "no_accuracy" and choice.picked and choice.picked.target == "coreml"
    assert [one.kind for one in choice.notes if one.kind == "pick_accuracy_unknown"]
    assert [(one.does, one.target, one.why) for one in choice.measure_next] == [
        ("evaluate", "coreml", "it fits, and its accuracy is not known"),
        ("evaluate", "onnx", "it fits, and its accuracy is not known"),
    ]  # fmt: skip
    assert asked(row("d", 5), row("c", 9), max_latency_ms=10).outcome == "chosen"


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_another_objective_does_not_choose_it_either(objective: Objective) -> None:
    assert asked(row("d", 5), objective=objective).outcome == "no_accuracy"


def test_a_least_accuracy_that_nothing_known_reaches_is_no_proof_that_nothing_fits() -> None:
    choice = asked(row("d", 5), min_top1_percent=70)
    assert choice.picked is None and choice.outcome == "no_accuracy"
    assert [one.does for one in choice.measure_next] == ["evaluate"]
    assert asked(row("d", 50), min_top1_percent=70, max_latency_ms=10).outcome == "infeasible"
    joint = choose_jointly([asked(row("d", 5), min_top1_percent=70)] * 2)
    assert joint.outcome == "no_accuracy" and not joint.picked


# What to measure next


def test_a_prediction_that_may_be_faster_is_to_be_measured() -> None:
    choice = asked(
        row("a", 10), predicted=[guess("b", 6, 12), guess("c", 9, 30)], objective="fastest", max_latency_ms=20
    )
    assert picked(choice) == "a"
    assert [(one.model, one.why.rpartition("it is ")[2]) for one in choice.measure_next] == [
        ("b", "40.0% faster than the pick"),
        ("c", "10.0% faster than the pick"),
    ]
    assert asked(row("a", 5), predicted=[guess("b", 6, 12)], objective="fastest").measure_next == ()


def test_a_prediction_that_may_be_smaller_is_to_be_measured() -> None:
    rows, guesses = [row("a", 5)], [guess("b", 8, 30, artifact_bytes=1 * MS), guess("c", 8, 30, artifact_bytes=3 * MS)]
    choice = asked(*rows, predicted=guesses, objective="smallest", max_latency_ms=10)
    [suggestion] = choice.measure_next
    assert (suggestion.model, suggestion.why.rpartition("it is ")[2]) == ("b", "50.0% smaller than the pick")


# Medians


def only_medians(**changes: Any) -> Measurement:
    """Return a published row that tells a median and nothing else."""
    return row("a", None, provenance="published", p50_ns=5 * MS, p90_ns=None, p99_ns=None, inputs=(), **changes)


def test_medians_are_offered_where_nothing_else_is_known() -> None:
    def answer(*rows: Measurement, **budget: Any) -> Choice:
        published = CandidateFilter(published=True)
        return choose_among(rows, "pi5", Budget(**budget), cards=CARDS, candidate_filter=published)

    rows = (only_medians(), only_medians(target="coreml"))
    text = "no p90 is known of 2 candidate(s) whose median is: --percentile 50 compares medians"
    assert text in texts(answer(*rows, max_latency_ms=10)) and text in texts(answer(*rows))
    assert not any("--percentile" in note for note in texts(answer(*rows, max_latency_ms=10, percentile=50)))
    assert picked(answer(*rows, max_latency_ms=10, percentile=50)) == "a"
    assert text not in texts(answer(*rows, row("b", 5), max_latency_ms=10)), "something known fits"


def test_few_runs_have_a_median_too() -> None:
    few = row("a", None, p50_high_ns=6 * MS)
    assert "--percentile 50" in " ".join(texts(asked(few, max_latency_ms=10)))
    none = row("a", None)
    assert "--percentile 50" not in " ".join(texts(asked(none, max_latency_ms=10)))
