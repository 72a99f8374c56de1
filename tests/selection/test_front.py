"""choose beyond one question: predictions, the front, several devices, what to measure next, how an answer ends."""

from __future__ import annotations

import dataclasses
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgevit.records.choice import Basis, Budget, Candidate, Choice
from edgevit.records.measurement import Measurement
from edgevit.selection import CandidateFilter, Commands, Evidence, PredictedCell, choose_among, choose_jointly
from edgevit.selection.constraints import latency_for_budget
from edgevit_runtime.codec import from_json, to_json
from support.candidates import BUDGETS, CARDS, GUESSES, LIMITS, MS, ROWS, answer, guess, row, texts
from support.measured import card


def asked(
    rows: list[Measurement],
    guesses: list[PredictedCell],
    budget: Budget,
    candidate_filter: CandidateFilter | None = None,
) -> Choice:
    evidence = Evidence(predicted=guesses, commands=Commands("pi5"))
    return choose_among(
        rows, "pi5", budget, cards=CARDS, candidate_filter=candidate_filter or CandidateFilter(), evidence=evidence
    )


def breaks(candidate: Candidate, budget: Budget) -> bool:
    """Return whether the numbers that a candidate shows break a limit."""
    limits = (
        (latency_for_budget(candidate), budget.max_latency_ms), (candidate.size_mb, budget.max_size_mb),
        (candidate.memory_mb, budget.max_memory_mb), (candidate.energy_mj, budget.max_energy_mj),
    )  # fmt: skip
    too_much = any(limit is not None and (value is None or value > limit) for value, limit in limits)
    lowest = budget.min_top1_percent
    return too_much or (lowest is not None and (candidate.top1_percent is None or candidate.top1_percent < lowest))


# Predictions among rows


def test_a_prediction_fits_only_by_its_upper_bound() -> None:
    choice = asked([row("a", 5)], [guess("c", 8, 12)], Budget(max_latency_ms=10))
    assert choice.picked and choice.picked.model == "a", "the prediction itself fits, its bound does not"
    [miss] = choice.rejected
    assert (miss.reason, miss.is_open) == ("p90 may be up to 12 ms, above 10 ms", True)
    choice = asked([row("a", 5)], [guess("c", 8, 12)], Budget(max_latency_ms=12))
    assert choice.picked and (choice.picked.model, choice.picked.latency_provenance) == ("c", "predicted")
    assert choice.picked.basis == Basis("transfer", 0.9, 5, "pi4, onnx fp32, 4 thread(s)", 64 / 12, 12)
    assert texts(choice)[0].startswith(
        "the pick is predicted (transfer, 5 rows of the device, nearest pi4, onnx fp32, 4 "
    )
    assert from_json(Choice, to_json(choice)) == choice


def test_a_refused_prediction_is_a_candidate_with_its_reason() -> None:
    [rejection] = asked([], [guess("c", level="refused")], Budget()).rejected
    assert (rejection.kind, rejection.reason) == (
        "unmeasured",
        "not predicted: no 3 rows are of models that ran elsewhere, too, or whose operators are known",
    )
    assert rejection.candidate.latency_ms is None


@settings(deadline=None, max_examples=60)
@given(ROWS, GUESSES, LIMITS)
def test_what_fits_breaks_nothing_by_the_numbers_it_shows(
    rows: list[Measurement], guesses: list[PredictedCell], budget: Budget
) -> None:
    choice = asked(rows, guesses, budget)
    assert not any(breaks(candidate, budget) for candidate in choice.fitting)
    assert all(breaks(rejection.candidate, budget) for rejection in choice.rejected if rejection.kind == "budget")


@settings(deadline=None, max_examples=60)
@given(ROWS, GUESSES, LIMITS)
def test_every_candidate_is_there_once(rows: list[Measurement], guesses: list[PredictedCell], budget: Budget) -> None:
    choice = asked(rows, guesses, budget)
    result = Counter(candidate.measurement_id for candidate in choice.fitting)
    result += Counter(rejection.candidate.measurement_id for rejection in choice.rejected)
    assert result == Counter([one.measurement_id for one in rows] + [prediction.cell.cell_id for prediction in guesses])
    assert all(rejection.reason for rejection in choice.rejected)


@settings(deadline=None, max_examples=60)
@given(ROWS, GUESSES, LIMITS, st.randoms(use_true_random=False))
def test_their_order_does_not_matter(
    rows: list[Measurement], guesses: list[PredictedCell], budget: Budget, noise: random.Random
) -> None:
    shuffled = asked(noise.sample(rows, len(rows)), noise.sample(guesses, len(guesses)), budget)
    assert shuffled == asked(rows, guesses, budget)


@settings(deadline=None, max_examples=60)
@given(ROWS, GUESSES, LIMITS)
def test_a_worse_candidate_never_changes_the_choice(
    rows: list[Measurement], guesses: list[PredictedCell], budget: Budget
) -> None:
    """Less accurate, slower, and larger than anything: nothing is picked in its place, or because of it."""
    before = asked(rows, guesses, budget)
    cards = {**CARDS, "worst": card("worst", 1.0)}
    worst = row("worst", 4, artifact_bytes=900 * MS, peak_rss_bytes=900 * MS)
    evidence = Evidence(predicted=guesses)
    after = choose_among([*rows, worst], "pi5", budget, cards=cards, evidence=evidence)
    known_accuracy = before.picked is not None and before.picked.top1_percent is not None
    assert after.picked == before.picked or not known_accuracy


@settings(deadline=None, max_examples=60)
@given(ROWS, GUESSES, LIMITS, st.sampled_from([1.5, 4.0]))
def test_a_wider_budget_never_picks_less(
    rows: list[Measurement], guesses: list[PredictedCell], budget: Budget, factor: float
) -> None:
    limit = budget.max_latency_ms
    wide = dataclasses.replace(budget, max_latency_ms=limit and limit * factor)
    one, other = asked(rows, guesses, budget), asked(rows, guesses, wide)
    assert {candidate.measurement_id for candidate in one.fitting} <= {
        candidate.measurement_id for candidate in other.fitting
    }
    if one.picked:
        assert other.picked and (one.picked.top1_percent or 0) <= (other.picked.top1_percent or 0)


# More limits, and who is asked


def test_memory_energy_engine_and_licence() -> None:
    rows = [row("a", 5, peak_rss_bytes=100 * MS, energy_j=0.02), row("b", 5, peak_rss_bytes=None)]
    assert [candidate.model for candidate in answer(*rows, max_memory_mb=100).fitting] == ["a"]
    reasons = {rejection.candidate.model: rejection.reason for rejection in answer(*rows, max_memory_mb=50).rejected}
    assert reasons == {"a": "peak memory is 100 MB, above 50 MB", "b": "peak memory unknown"}
    assert [candidate.model for candidate in answer(*rows, max_energy_mj=20).fitting] == ["a"]
    reasons = {rejection.candidate.model: rejection.reason for rejection in answer(*rows, max_energy_mj=10).rejected}
    assert reasons == {"a": "energy is 20 mJ, above 10 mJ", "b": "energy unknown"}
    for candidate_filter, why in (
        (CandidateFilter(engines=["ncnn"]), "not asked for: engine onnxruntime"),
        (CandidateFilter(licences=["Apache-2.0"]), "not asked for: licence MIT"),
    ):
        assert {rejection.reason for rejection in answer(*rows, candidate_filter=candidate_filter).rejected} == {why}
    assert answer(*rows, candidate_filter=CandidateFilter(engines=["OnnxRuntime"], licences=["mit"])).picked


def test_rows_of_before_the_device_changed_do_not_count() -> None:
    old, new = row("a", 5), row("b", 9)
    evidence = Evidence(former={old.measurement_id})
    choice = choose_among([old, new], "pi5", Budget(), cards=CARDS, evidence=evidence)
    assert [candidate.model for candidate in choice.fitting] == ["b"]
    [rejection] = choice.rejected
    assert (rejection.kind, rejection.reason) == (
        "superseded", "measured before the device changed: edgevit db epochs",
    )  # fmt: skip


def test_a_percentile_that_rows_do_not_keep_is_read_from_samples() -> None:
    one = row("a", 5)
    evidence = Evidence(estimates={one.measurement_id: (6 * MS, 7 * MS)})
    choice = choose_among([one, row("b", 5)], "pi5", Budget(7.0, 95), cards=CARDS, evidence=evidence)
    assert [(candidate.latency_ms, candidate.latency_upper_ms) for candidate in choice.fitting] == [(6.0, 7.0)]
    assert [rejection.reason for rejection in choice.rejected] == ["too few runs for a bound on p95"]


@pytest.mark.parametrize(
    ("rows", "guesses", "budget", "candidate_filter", "outcome"),
    [
        ([row("a", 5)], [], Budget(10.0), CandidateFilter(), "chosen"),
        ([row("a", 5)], [], Budget(1.0), CandidateFilter(), "infeasible"),
        ([row("a", 5)], [guess("c", level="refused")], Budget(1.0), CandidateFilter(), "infeasible"),
        ([row("a", 5)], [guess("c", 8, 12)], Budget(1.0), CandidateFilter(), "infeasible"),
        ([row("a", 15)], [guess("c", 8, 12)], Budget(10.0), CandidateFilter(), "unmeasured"),
        ([row("a", None)], [], Budget(1.0), CandidateFilter(), "unmeasured"),
        ([row("a", 5)], [], Budget(10.0, max_energy_mj=5.0), CandidateFilter(), "unmeasured"),
        ([row("a", 5)], [], Budget(10.0), CandidateFilter(["ncnn"]), "unmeasured"),
        ([row("a", 5, parity_status="")], [], Budget(10.0), CandidateFilter(), "unmeasured"),
        (
            [row("a", status="crashed"), row("b", status="unsupported")],
            [],
            Budget(10.0),
            CandidateFilter(),
            "unsupported",
        ),
        ([row("a", status="crashed"), row("b", status="throttled")], [], Budget(10.0), CandidateFilter(), "unmeasured"),
    ],
)
def test_what_an_answer_is_called(
    rows: list[Measurement],
    guesses: list[PredictedCell],
    budget: Budget,
    candidate_filter: CandidateFilter,
    outcome: str,
) -> None:
    assert asked(rows, guesses, budget, candidate_filter).outcome == outcome


# The front


@settings(deadline=None, max_examples=80)
@given(ROWS, GUESSES, BUDGETS)
def test_the_front_is_what_nothing_else_beats(
    rows: list[Measurement], guesses: list[PredictedCell], budget: Budget
) -> None:
    choice = asked(rows, guesses, budget)
    drawn = [one for one in choice.fitting if one.top1_percent is not None and latency_for_budget(one) is not None]
    expected = {candidate.measurement_id for candidate in drawn if not any(beats(other, candidate) for other in drawn)}
    assert {candidate.measurement_id for candidate in choice.front} == expected
    assert len(choice.front) == len(expected)
    assert [latency_for_budget(candidate) for candidate in choice.front] == sorted(
        latency_for_budget(candidate) or 0 for candidate in choice.front
    )


def beats(one: Candidate, other: Candidate) -> bool:
    mine, theirs = ((each.top1_percent or 0, -(latency_for_budget(each) or 0)) for each in (one, other))
    return mine != theirs and all(a >= b for a, b in zip(mine, theirs, strict=True))


# Several devices


@settings(deadline=None, max_examples=60)
@given(ROWS, ROWS, GUESSES, LIMITS)
def test_what_is_picked_for_several_devices_fits_on_each(
    rows: list[Measurement], others: list[Measurement], guesses: list[PredictedCell], budget: Budget
) -> None:
    choices = [asked(rows, guesses, budget), asked(others, [], budget)]
    result = choose_jointly(choices)
    for candidates in result.fitting:
        assert len({(one.model, one.target, one.precision, one.input_shape) for one in candidates}) == 1
        for candidate, choice in zip(candidates, choices, strict=True):
            assert candidate in choice.fitting and not breaks(candidate, budget)
    kinds = [{(i.model, i.target, i.precision, i.input_shape) for i in choice.fitting} for choice in choices]
    assert len(result.fitting) == len(kinds[0] & kinds[1])
    assert result.picked == (result.fitting[0] if result.fitting else ())
    assert (result.outcome == "chosen") == (bool(result.picked) and all(one.top1_percent for one in result.picked))


def test_what_does_not_fit_on_all_says_where_it_does_not() -> None:
    choices = [
        answer(row("a", 5), row("b", 5), max_latency_ms=10),
        answer(row("a", 20), row("b", 9), max_latency_ms=10),
    ]
    choices = [dataclasses.replace(choice, device=name) for choice, name in zip(choices, ("pi5", "pi4"), strict=True)]
    result = choose_jointly(choices)
    assert [candidate.model for candidate in result.picked] == ["b", "b"]
    [rejection] = result.rejected
    assert rejection.reason == "pi5: fits; pi4: p90 is up to 20 ms, above 10 ms"
    assert choose_jointly([choices[0], dataclasses.replace(choices[1], fitting=())]).outcome == "unmeasured"


# What to measure next


def test_a_predicted_pick_is_measured_first_then_what_may_beat_it() -> None:
    guesses = [guess("a", 4, 5), guess("b", 8, 12), guess("c", 80, 90), guess("c", 20, 42, target="coreml")]
    choice = asked([], guesses, Budget(max_latency_ms=10))
    assert choice.picked and choice.picked.model == "a"
    assert [(suggestion.model, suggestion.target) for suggestion in choice.measure_next] == [
        ("a", "onnx"), ("b", "onnx"), ("c", "coreml"),
    ]  # fmt: skip
    first, _, third = choice.measure_next
    assert first.why == "it is the pick, and only predicted"
    assert first.command == ("edgevit sweep --models a --targets onnx --precision fp32 --threads 4 --device pi5")
    assert third.why == (
        "predicted between 9.52 and 42 ms at p90; if it fits it is 10.0 points more accurate than the pick"
    )


def test_nothing_that_cannot_change_the_answer_is_suggested() -> None:
    choice = asked([row("c", 5)], [guess("a", 4, 12), guess("b", 4, 12)], Budget(max_latency_ms=10))
    assert choice.picked and choice.measure_next == ()
