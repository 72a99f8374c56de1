"""The answer for all rows in any order: the pick fits, nothing better fits, and every row is accounted for."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import random
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgevit.errors import UnknownNameError, UsageError
from edgevit.records.choice import Budget, Choice, Rejection
from edgevit.records.measurement import MEAN_ONLY, NOT_AS_VERIFIED, SUMMARY_ONLY, Measurement, NoiseFloor
from edgevit.selection import CandidateFilter, Evidence, PredictionOptions, ask, choose_among, parse_latency
from edgevit.selection.accuracy import Ratings
from edgevit.selection.wording import NOT_AT_CARD_SIZE, OLDER_ENGINE, TOP1_OF_FP32
from edgevit.store import LatencyDB
from edgevit_runtime.codec import from_json, to_json
from edgevit_runtime.record import TensorSpec
from support.candidates import BOUND, BUDGETS, CARDS, DAYS, MS, ROWS, answer, row, texts
from support.measured import INPUT, card, failed, measured, published, rated


def reasons(choice: Choice) -> dict[str, str]:
    return {rejection.candidate.model: rejection.reason for rejection in choice.rejected}


def picked(choice: Choice) -> str | None:
    return choice.picked.model if choice.picked else None


# What is picked


def test_the_most_accurate_that_fits() -> None:
    rows = (row("a", 5), row("b", 10), row("c", 30))
    choice = answer(*rows, max_latency_ms=10)
    assert picked(choice) == "b" and [candidate.model for candidate in choice.fitting] == ["b", "a"]
    assert reasons(choice) == {"c": "p90 is up to 30 ms, above 10 ms"}
    assert choice.rejected[0].excess == pytest.approx(2.0)
    assert choice.nearest_misses == () and choice.unmeasured == ("d",)
    assert picked(answer(*rows)) == "c"
    assert from_json(Choice, to_json(choice)) == choice


NOT_PROVEN = "the artifact is not proven to compute the model"


@pytest.mark.parametrize("percentile", BOUND)
def test_the_bound_counts_and_not_the_percentile(percentile: int) -> None:
    times = {"p50_ns": 1 * MS, "p50_high_ns": 2 * MS, "p90_ns": 3 * MS, "p90_upper_ns": 4 * MS, "p99_ns": 5 * MS}
    one = row("a", **times, p99_upper_ns=6 * MS)
    value, upper = {50: (1, 2), 90: (3, 4), 99: (5, 6)}[percentile]
    assert answer(one, percentile=percentile, max_latency_ms=upper).picked
    assert not answer(one, percentile=percentile, max_latency_ms=math.nextafter(upper, 0)).picked
    candidate = answer(one, percentile=percentile).fitting[0]
    assert (candidate.latency_ms, candidate.latency_upper_ms) == (value, upper)


def test_ties_go_to_the_faster_the_smaller_the_name() -> None:
    cards = {name: card(name, 70.0) for name in "abcd"}
    rows = [row("d", 5), row("c", 9, artifact_bytes=1 * MS), row("a", 9, artifact_bytes=3 * MS), row("b", 9)]
    rows.append(row("b", 9, target="coreml"))
    fitting = choose_among(rows, "pi5", Budget(), cards=cards).fitting
    assert [(one.model, one.target) for one in fitting] == [
        ("d", "onnx"), ("c", "onnx"), ("b", "coreml"), ("b", "onnx"), ("a", "onnx"),
    ]  # fmt: skip


def noisy(share: float, unit: str = measured().device_id) -> NoiseFloor:
    return NoiseFloor(unit, "pi5", "mixed", 1, share, (100, 102), "2026-11-21T10:00:00+00:00")


def alike(*rows: Measurement, floors: Sequence[NoiseFloor] = (), **budget: Any) -> Choice:
    return choose_among(
        rows, "pi5", Budget(**budget), cards=dict.fromkeys("abcdef", card("x", 75.0)), evidence=Evidence(floors)
    )


def test_of_models_that_the_device_cannot_tell_apart_the_smaller_is_picked() -> None:
    rows = (row("a", 10.0, artifact_bytes=9 * MS), row("b", 10.4, artifact_bytes=3 * MS), row("c", 10.6))
    assert picked(alike(*rows)) == "a", "4% are more than the protocol's least"
    choice = alike(*rows, floors=[noisy(0.05), noisy(0.02)])
    assert [candidate.model for candidate in choice.fitting] == ["b", "a", "c"], "c is the smallest, but beyond 5%"
    assert texts(choice) == (
        "a onnx fp32 is faster by less than 5.0% (the noise floor of pi5): the smaller one is picked",
    )


def test_what_is_alike_does_not_lead_round_in_circles() -> None:
    """Each is within 5% of the next one, and the ends are 22% apart."""
    rows = [row(name, 10 * 1.04**i, artifact_bytes=(9 - i) * MS) for i, name in enumerate("abcdef")]
    for _ in range(5):
        choice = alike(*random.sample(rows, len(rows)), floors=[noisy(0.05)])
        assert [candidate.model for candidate in choice.fitting] == ["b", "a", "d", "c", "f", "e"]


def test_noise_never_outweighs_accuracy() -> None:
    rows = (row("b", 10.1, artifact_bytes=9 * MS), row("a", 10.0, artifact_bytes=1 * MS))
    assert picked(choose_among(rows, "pi5", Budget(), cards=CARDS, evidence=Evidence([noisy(0.5)]))) == "b"


def test_a_pick_within_the_noise_of_the_limit_is_told() -> None:
    text = "the pick is nearer to the limit than 5.0% (the noise floor of pi5), so another measurement may break it"
    assert alike(row("a", 10), max_latency_ms=10.4, floors=[noisy(0.05)]).notes[0].text == text
    assert alike(row("a", 10), max_latency_ms=10.6, floors=[noisy(0.05)]).notes == ()
    assert alike(row("a", 10), max_latency_ms=10.2).notes == ()
    assert alike(row("a", 10), floors=[noisy(0.05)]).notes == ()


def test_unknown_accuracy_ranks_below_all_known() -> None:
    rows = (row("d", 1), row("a", 9))
    assert [candidate.model for candidate in answer(*rows).fitting] == ["a", "d"]
    assert reasons(answer(*rows, min_top1_percent=60)) == {"d": "accuracy unknown"}
    assert answer(row("of my own", 1)).fitting[0].top1_percent is None


def test_accuracy_holds_at_the_card_size_only() -> None:
    small = row("a", inputs=(TensorSpec("x", (1, 3, 192, 192)),))
    [candidate] = answer(small).fitting
    assert candidate.top1_percent is None and candidate.flags == (NOT_AT_CARD_SIZE,)
    assert answer(row("a", inputs=(INPUT,))).fitting[0].top1_percent == 70.0


def test_emulated_rows_are_never_picked_and_speak_for_nobody() -> None:
    real, emulated = row("a", 5), row("a", 500, flags=("emulated",), device_id="qemu", started=DAYS[4])
    choice = answer(real, emulated, row("c", 1, flags=("emulated",)), max_latency_ms=10)
    assert picked(choice) == "a"
    assert [(rejection.reason, rejection.kind) for rejection in choice.rejected] == [
        ("measured under emulation, which says nothing of a real device", "unusable")
    ] * 2


def test_quantised_accuracy_is_said_to_be_of_the_float_model() -> None:
    assert answer(row(precision="int8")).fitting[0].flags == (TOP1_OF_FP32,)
    assert answer(row(precision="fp16")).fitting[0].flags == ()


def test_provenance_travels_with_the_numbers() -> None:
    cards, candidate_filter = {"a": card("a", 70.0, provenance="reconstructed")}, CandidateFilter(reconstructed=True)
    [candidate] = choose_among([row("a")], "pi5", Budget(), cards=cards, candidate_filter=candidate_filter).fitting
    assert (candidate.top1_provenance, candidate.latency_provenance) == ("reconstructed", "measured")


def test_a_paper_without_weights_does_not_win_by_its_accuracy_unless_it_is_asked_for() -> None:
    cards = {"a": card("a", 90.0, provenance="reconstructed"), "b": card("b", 70.0)}
    rows = [row("a"), row("b")]
    result = choose_among(rows, "pi5", Budget(), cards=cards)
    assert picked(result) == "b"
    assert [(rejection.candidate.model, rejection.kind) for rejection in result.rejected] == [("a", "not_asked")]
    assert any(note.startswith("left out: a, reconstructed") for note in texts(result))
    assert (
        picked(choose_among(rows, "pi5", Budget(), cards=cards, candidate_filter=CandidateFilter(reconstructed=True)))
        == "a"
    )
    of_this = {"model": "a", "artifact_sha256": rows[0].artifact_sha256, "dataset": "birds", "provenance": "measured"}
    ratings = Ratings.of([rated(80.0, **of_this)], "birds")
    assert picked(choose_among(rows, "pi5", Budget(), cards=cards, evidence=Evidence(ratings=ratings))) == "a", (
        "what was measured counts"
    )


# Why the others are not


@pytest.mark.parametrize(
    ("one", "budget", "reason", "excess"),
    [
        (row(upper_ms=12), {"max_latency_ms": 10}, "p90 is up to 12 ms, above 10 ms", 0.2),
        (row(p99_upper_ns=None), {"max_latency_ms": 99, "percentile": 99}, "too few runs for a bound on p99", None),
        (row(), {"max_size_mb": 1.6}, "size is 2 MB, above 1.6 MB", 0.25),
        (row(artifact_bytes=0), {"max_size_mb": 1}, "size unknown", None),
        (row(), {"min_top1_percent": 80}, "top-1 is 70%, below 80%", 0.125),
        (row("d"), {"min_top1_percent": 80}, "accuracy unknown", None),
        (
            row(upper_ms=12),
            {"max_latency_ms": 10, "max_size_mb": 1},
            "p90 is up to 12 ms, above 10 ms; size is 2 MB, above 1 MB",
            1.0,
        ),
        (row("d", upper_ms=12), {"max_latency_ms": 10, "min_top1_percent": 1}, None, None),
        (row(batch=8), {}, "measured in batches of 8; a budget is for one input", None),
        (row(protocol_version=0), {}, "measured by protocol 0, not 1: measure again", None),
        (row(parity_status="failed"), {}, f"parity failed: {NOT_PROVEN}", None),
        (row(parity_status="built_not_run"), {}, f"parity built_not_run: {NOT_PROVEN}", None),
        (row(parity_status="needs_processor"), {}, f"parity needs_processor: {NOT_PROVEN}", None),
        (row(parity_status=""), {}, f"parity unknown: {NOT_PROVEN}", None),
        (row(status="crashed", error="SIGSEGV\nat 0x0"), {}, "cannot run here: crashed: SIGSEGV", None),
        (row(status="unsupported", error=""), {}, "cannot run here: unsupported", None),
        (row(status="timeout", error="300 s"), {}, "cannot run here: timeout: 300 s", None),
        (row(status="throttled", error=""), {}, "not measured: the device was throttled", None),
        (published(model="a", parity_status="passed"), {}, "not asked for: published by arXiv:2206.04040", None),
    ],
)
def test_reasons(one: Measurement, budget: dict[str, Any], reason: str | None, excess: float | None) -> None:
    [rejection] = answer(one, **budget).rejected
    assert reason is None or rejection.reason == reason
    assert rejection.excess == (None if excess is None else pytest.approx(excess))


def test_published_rows_count_only_where_they_are_asked_for() -> None:
    ours, theirs = row("a", 9, p50_ns=8 * MS), published(model="b", p50_ns=5 * MS, p90_ns=6 * MS)
    alone = answer(ours, theirs, max_latency_ms=10)
    assert [candidate.model for candidate in alone.fitting] == ["a"] and "b" in alone.unmeasured
    [left_out] = alone.rejected
    assert (left_out.kind, left_out.candidate.latency_provenance) == ("not_asked", "published")
    assert any("1 published row(s) left out" in note for note in texts(alone))

    both = answer(ours, theirs, candidate_filter=CandidateFilter(published=True), max_latency_ms=10)
    assert {candidate.model: candidate.latency_provenance for candidate in both.fitting} == {
        "a": "measured",
        "b": "published",
    }
    assert "b" not in both.unmeasured and not any("left out" in note for note in texts(both))


def test_of_a_published_row_the_number_itself_is_held_against_the_budget() -> None:
    theirs, candidate_filter = published(model="a", p50_ns=5 * MS, p90_ns=6 * MS), CandidateFilter(published=True)
    [fits] = answer(theirs, candidate_filter=candidate_filter, max_latency_ms=6).fitting
    assert (fits.latency_ms, fits.latency_upper_ms) == (6.0, None)
    assert reasons(answer(theirs, candidate_filter=candidate_filter, max_latency_ms=5)) == {
        "a": "p90 is 6 ms, above 5 ms"
    }
    assert reasons(answer(theirs, candidate_filter=candidate_filter, max_latency_ms=9, percentile=99)) == {
        "a": "its source tells no p99"
    }
    rows = [published(model=name, p50_ns=1 * MS, p90_ns=ms * MS) for name, ms in {"c": 7, "a": 5, "b": 3}.items()]
    rows = [dataclasses.replace(one, device_id=one.model) for one in rows]
    cards = {name: card(name, 70.0) for name in "abc"}
    ranked = choose_among(
        rows, "pi5", Budget(max_latency_ms=10), cards=cards, candidate_filter=candidate_filter
    ).fitting
    assert [candidate.model for candidate in ranked] == ["b", "a", "c"], "faster first, where accuracy is equal"


@pytest.mark.parametrize("name", "abcdef")  # whatever their ids are
def test_of_published_units_the_slowest_one_counts(name: str) -> None:
    units = [published(model="a", device_id=f"{name}{ms}", p50_ns=1 * MS, p90_ns=ms * MS) for ms in (9, 5, 7)]
    result = answer(*units, candidate_filter=CandidateFilter(published=True), max_latency_ms=10)
    assert [candidate.latency_ms for candidate in result.fitting] == [9.0]


def test_rows_of_programs_that_keep_their_samples() -> None:
    """A budget is held against what the row tells, and where that is nothing the reason says so."""
    facts = {"p90_upper_ns": None, "p99_upper_ns": None, "flags": (SUMMARY_ONLY,)}
    silent, bound = row("a", 5, **facts), row("b", 5, **{**facts, "p90_upper_ns": 6 * MS})
    mean = row("c", None, p50_ns=None, flags=(MEAN_ONLY, SUMMARY_ONLY))
    choice = answer(silent, bound, mean, max_latency_ms=10)
    assert picked(choice) == "b"
    assert "tells no bound on p90: the program that measured it keeps its samples" in reasons(choice)["a"]
    assert "tells a mean and no p90" in reasons(choice)["c"]
    choice = answer(silent, bound, mean, max_latency_ms=10, percentile=50)
    assert {candidate.model for candidate in choice.fitting} == {"a", "b"} and "a mean and no p50" in reasons(choice)[
        "c"
    ]
    assert all("p99" in reason for reason in reasons(answer(silent, bound, max_latency_ms=10, percentile=99)).values())


def test_what_computed_otherwise_than_what_was_verified_is_never_picked() -> None:
    choice = answer(row("a", 5, flags=(NOT_AS_VERIFIED,)), max_latency_ms=10)
    assert picked(choice) is None and "other weights or in another arithmetic" in reasons(choice)["a"]


@pytest.mark.parametrize("first", ["sha256:ff", "sha256:00"])
def test_of_programs_that_tell_no_version_the_last_one_counts(first: str) -> None:
    second = {"sha256:ff": "sha256:00", "sha256:00": "sha256:ff"}[first]
    old, new = row("a", 5, engine_version=first, started=DAYS[0]), row("a", 20, engine_version=second, started=DAYS[1])
    for rows in ((old, new), (new, old)):
        choice = answer(*rows, max_latency_ms=10)
        assert picked(choice) is None
        assert f"older engine: onnxruntime {first}, superseded by {second}" in {
            rejection.reason for rejection in choice.rejected
        }
    alone = answer(row("b", 5, engine_version=first, started=DAYS[0]), new, max_latency_ms=10)
    assert alone.picked and alone.picked.model == "b" and OLDER_ENGINE in alone.picked.flags


def test_a_camera_is_not_the_closed_loop() -> None:
    choice = answer(row("a", 3, rate_hz=30.0, started=DAYS[2]), row("a", 12, started=DAYS[1]), max_latency_ms=10)
    assert picked(choice) is None
    assert {rejection.kind: rejection.reason for rejection in choice.rejected} == {
        "not_asked": "not asked for: at 30 frames a second, which is no measure of run after run",
        "budget": "p90 is up to 12 ms, above 10 ms",
    }


def test_what_is_not_asked_for() -> None:
    rows = (row("a", target="coreml"), row("b", precision="fp16"), row("c", threads=1), row("d"))
    choice = answer(*rows, candidate_filter=CandidateFilter(["onnx"], ["fp32"], 4))
    assert picked(choice) == "d"
    assert reasons(choice) == {
        "a": "not asked for: target coreml",
        "b": "not asked for: precision fp16",
        "c": "not asked for: 1 threads",
    }


def test_nearest_misses_when_nothing_fits() -> None:
    rows = [row("a", 40), row("b", 12), row("c", 11), row("d", 20), row("a", 10.5, target="coreml", parity_status="")]
    choice = answer(*rows, max_latency_ms=10)
    assert choice.picked is None and choice.fitting == ()
    assert [(miss.candidate.model, round(miss.excess or 0, 3)) for miss in choice.nearest_misses] == [
        ("c", 0.1), ("b", 0.2), ("d", 1.0),
    ]  # fmt: skip


# Which row speaks


def test_the_latest_row_counts() -> None:
    old, new = row("a", 5, started=DAYS[0]), row("a", 9, started=DAYS[1])
    choice = answer(new, old)
    assert choice.picked and choice.picked.measurement_id == new.measurement_id
    assert reasons(choice) == {"a": f"superseded by the row of {DAYS[1]}"}
    # times sort as times; as text "00Z" comes after "00.5+00:00"
    newest = row("a", 7, started="2026-01-03T00:00:00.5+00:00")
    zulu = row("a", 6, started="2026-01-03T00:00:00Z")
    assert answer(old, newest, zulu).fitting[0].measurement_id == newest.measurement_id


@pytest.mark.parametrize("status", ["failed", "crashed", "timeout", "unsupported"])
def test_a_newer_failure_counts(status: str) -> None:
    ok = row("a", started=DAYS[0])
    crash = dataclasses.replace(  # as the profiler writes it: it does not know the engine's version
        failed(status), model="a", started=DAYS[1], engine_version="", provider="", host=None, measurement_id="x"
    )
    choice = answer(ok, crash)
    assert choice.picked is None
    assert [rejection.reason.split(":")[0] for rejection in choice.rejected] == [
        f"superseded by the row of {DAYS[1].split(':')[0]}", "cannot run here",
    ]  # fmt: skip
    assert picked(answer(dataclasses.replace(crash, started=DAYS[0]), dataclasses.replace(ok, started=DAYS[1]))) == "a"


def test_a_throttled_run_does_not_take_back_an_earlier_number() -> None:
    for version in ("1.31.1", "1.32.0"):
        hot = row("a", started=DAYS[1], status="throttled", engine_version=version)
        choice = answer(row("a", started=DAYS[0]), hot)
        assert picked(choice) == "a" and reasons(choice) == {"a": "not measured: the device was throttled"}


def test_different_things_do_not_supersede_each_other() -> None:
    changes: list[dict[str, Any]] = [
        {}, {"threads": 1}, {"precision": "fp16"}, {"target": "coreml"}, {"provider": "xnnpack"},
        {"compute_unit": "gpu"}, {"batch": 8}, {"inputs": (TensorSpec("x", (1, 3, 192, 192)),)},
        {"provenance": "predicted"},
    ]  # fmt: skip
    choice = answer(*(row("a", started=day, **change) for day, change in zip(DAYS + DAYS, changes, strict=False)))
    assert not [rejection for rejection in choice.rejected if "superseded" in rejection.reason]


def test_the_newest_engine_counts() -> None:
    old, new = row("a", 5, engine_version="1.9.1", started=DAYS[3]), row("a", 9, engine_version="1.10.0")
    choice = answer(old, new)
    assert choice.picked and choice.picked.engine_version == "1.10.0" and choice.picked.flags == ()
    assert reasons(choice) == {"a": "older engine: onnxruntime 1.9.1, superseded by 1.10.0"}
    assert choice.rejected[0].candidate.flags == (OLDER_ENGINE,)


def test_an_older_engine_is_used_only_with_a_flag() -> None:
    rows = (row("b", engine_version="1.9.1"), row("a", engine_version="1.10.0"))
    choice = answer(*rows)
    assert choice.picked and choice.picked.model == "b" and choice.picked.flags == (OLDER_ENGINE,)
    assert texts(choice) == ("the pick was measured with onnxruntime 1.9.1; 1.10.0 is on the device: measure again",)
    other_target = answer(rows[0], dataclasses.replace(rows[1], target="openvino", engine="openvino"))
    assert other_target.fitting[0].flags == ()


def test_release_candidates_come_before_the_release() -> None:
    rows = [row("a", engine_version=version) for version in ("1.10", "1.10rc1", "1.9", "1.10.dev20260101")]
    choice = answer(*rows)
    assert choice.picked and choice.picked.engine_version == "1.10"
    assert answer(*rows[1:]).fitting[0].engine_version == "1.10rc1"


def test_of_two_units_the_slower_one_counts() -> None:
    rows = [row("a", 5, device_id="pi-1"), row("a", 9, device_id="pi-2"), row("b", 5, device_id="pi-1")]
    choice = answer(*rows, max_latency_ms=6)
    assert picked(choice) == "b" and texts(choice)[0].startswith("2 units answer to 'pi5'")
    assert sorted(rejection.reason for rejection in choice.rejected) == [
        "p90 is up to 9 ms, above 6 ms", "superseded by the slower unit pi-2",
    ]  # fmt: skip
    crashed = row("b", device_id="pi-2", status="crashed", engine_version="", provider="")
    assert picked(answer(*rows, crashed, max_latency_ms=6)) is None
    throttled = row("b", device_id="pi-2", status="throttled")
    assert picked(answer(*rows, throttled, max_latency_ms=6)) == "b"


def test_a_pick_that_was_evaluated_and_not_run_says_so() -> None:
    choice = choose_among([row(target="coreml", parity_status="evaluated")], "pi-1", Budget(), cards=CARDS)
    assert choice.picked is not None and choice.picked.parity_status == "evaluated"
    assert any("own engine has not been compared" in note for note in texts(choice))
    run = choose_among([row(target="coreml")], "pi-1", Budget(), cards=CARDS)
    assert run.notes == ()


# For all rows in any order


def breaks(one: Measurement, budget: Budget) -> bool:
    """Return whether a row breaks a limit, by the row alone."""
    top1 = CARDS[one.model].top1_percent if one.inputs in ((INPUT,), ()) else None
    bound, size = getattr(one, BOUND[budget.percentile]), one.artifact_bytes
    return (
        (budget.max_latency_ms is not None and (bound is None or bound > budget.max_latency_ms * MS))
        or (budget.max_size_mb is not None and (not size or size > budget.max_size_mb * MS))
        or (budget.min_top1_percent is not None and (top1 is None or top1 < budget.min_top1_percent))
    )


def usable(one: Measurement) -> bool:
    ours = one.provenance == "measured"  # nobody asks for others
    return ours and one.status == "ok" and one.batch == 1 and one.parity_status in ("passed", "evaluated")


@settings(deadline=None)
@given(ROWS, BUDGETS)
def test_every_row_is_accounted_for(rows: list[Measurement], budget: Budget) -> None:
    choice = choose_among(rows, "pi5", budget, cards=CARDS)
    ids = [one.measurement_id for one in (*choice.fitting, *(rejection.candidate for rejection in choice.rejected))]
    assert sorted(ids) == sorted(one.measurement_id for one in rows)
    assert choice.picked == (choice.fitting[0] if choice.fitting else None)
    assert all(rejection.reason for rejection in choice.rejected)
    assert set(choice.unmeasured) == set(CARDS) - {one.model for one in rows if one.provenance == "measured"}
    assert choice.picked is None or choice.nearest_misses == ()
    assert set(choice.nearest_misses) <= set(choice.rejected) and len(choice.nearest_misses) <= 3


@settings(deadline=None)
@given(ROWS, BUDGETS)
def test_what_fits_fits_and_what_does_not_has_a_cause(rows: list[Measurement], budget: Budget) -> None:
    by_id = {one.measurement_id: one for one in rows}
    choice = choose_among(rows, "pi5", budget, cards=CARDS)
    for candidate in choice.fitting:
        one = by_id[candidate.measurement_id]
        assert usable(one) and not breaks(one, budget)
    for rejection in choice.rejected:
        one = by_id[rejection.candidate.measurement_id]
        assert has_cause(one, rejection, rows, budget)


def has_cause(one: Measurement, rejection: Rejection, rows: list[Measurement], budget: Budget) -> bool:
    if "superseded" not in rejection.reason:
        return not usable(one) or breaks(one, budget)
    rivals = [other for other in rows if configuration(other) == configuration(one) and other is not one]
    if "slower unit" in rejection.reason:
        return any(other.device_id != one.device_id for other in rivals)
    rivals = [other for other in rivals if other.device_id == one.device_id]
    if "older engine" in rejection.reason:
        return any(other.engine_version != one.engine_version for other in rivals)
    return any(other.started >= one.started for other in rivals)


def configuration(one: Measurement) -> tuple[object, ...]:
    return (one.model, one.target, one.precision, one.threads, one.batch, one.provenance)


@settings(deadline=None)
@given(ROWS, BUDGETS)
def test_nothing_better_fits(rows: list[Measurement], budget: Budget) -> None:
    choice = choose_among(rows, "pi5", budget, cards=CARDS)
    ranks = [rank(candidate.top1_percent, candidate.latency_upper_ms) for candidate in choice.fitting]
    assert ranks == sorted(ranks)
    for one in rows:
        alone = sum(configuration(other) == configuration(one) for other in rows) == 1
        if alone and usable(one) and not breaks(one, budget):  # nothing can speak in its place
            assert one.measurement_id in {candidate.measurement_id for candidate in choice.fitting}


def rank(top1: float | None, upper: float | None) -> tuple[float, float]:
    return (1.0 if top1 is None else -top1, math.inf if upper is None else upper)


@settings(deadline=None)
@given(ROWS, BUDGETS)
def test_an_older_row_or_engine_is_never_used_in_silence(rows: list[Measurement], budget: Budget) -> None:
    by_id = {one.measurement_id: one for one in rows}
    versions = ["", "1.9", "1.10rc1", "1.10"]
    for candidate in choose_among(rows, "pi5", budget, cards=CARDS).fitting:
        one = by_id[candidate.measurement_id]
        same_unit = [other for other in rows if other.device_id == one.device_id]
        rerun = [
            other for other in same_unit if configuration(other) == configuration(one) and other.inputs == one.inputs
        ]
        rerun = [other for other in rerun if other.provider == one.provider and other.status != "throttled"]
        assert not any(same_version(other, one) and other.started > one.started for other in rerun)
        newest = max((other.engine_version for other in same_unit if other.target == one.target), key=versions.index)
        older = bool(one.engine_version) and versions.index(one.engine_version) < versions.index(newest)
        assert older == (OLDER_ENGINE in candidate.flags)
        if one.engine_version:
            assert not any(versions.index(other.engine_version) > versions.index(one.engine_version) for other in rerun
                           if not superseded(other, rows))  # fmt: skip


def same_version(one: Measurement, other: Measurement) -> bool:
    return one.engine_version == other.engine_version


def superseded(one: Measurement, rows: list[Measurement]) -> bool:
    """Return whether a newer row of the same configuration and unit exists: then it may not decide about others."""
    rivals = (
        other for other in rows if configuration(other) == configuration(one) and other.device_id == one.device_id
    )
    return any(other.started >= one.started and other is not one for other in rivals)


@settings(deadline=None)
@given(ROWS, BUDGETS, st.randoms(use_true_random=False))
def test_order_does_not_matter(rows: list[Measurement], budget: Budget, noise: random.Random) -> None:
    shuffled = noise.sample(rows, len(rows))
    assert choose_among(rows, "pi5", budget, cards=CARDS) == choose_among(shuffled, "pi5", budget, cards=CARDS)


@settings(deadline=None)
@given(ROWS, BUDGETS, BUDGETS)
def test_a_tighter_budget_never_gives_more(rows: list[Measurement], one: Budget, other: Budget) -> None:
    def tighter(a: float | None, b: float | None) -> float | None:
        return min((limit for limit in (a, b) if limit is not None), default=None)

    floors = [limit for limit in (one.min_top1_percent, other.min_top1_percent) if limit is not None]
    tight = Budget(
        tighter(one.max_latency_ms, other.max_latency_ms),
        one.percentile,
        max(floors, default=None),
        tighter(one.max_size_mb, other.max_size_mb),
    )
    wide_choice, tight_choice = (choose_among(rows, "pi5", budget, cards=CARDS) for budget in (one, tight))
    assert set(tight_choice.fitting) <= set(wide_choice.fitting)
    if tight_choice.picked and wide_choice.picked:
        assert (tight_choice.picked.top1_percent or 0) <= (wide_choice.picked.top1_percent or 0)


# Through the database


@pytest.fixture
def db(tmp_path: Path) -> Iterator[LatencyDB]:
    with LatencyDB.open(str(tmp_path / "x.db"), shipped=False) as database:
        database.add(measured([[10 * MS] * 3], model="a"))
        database.add(measured([[30 * MS] * 3], model="c"))
        database.add(failed(model="b"))
        database.add(measured([[1 * MS]], model="c", device="mac", device_id="m-1", device_class="m4"))
        yield database


@pytest.mark.parametrize("device", ["pi5", "pi-0001", "raspberry-pi-5"])
def test_choosing_from_a_database(db: LatencyDB, device: str) -> None:
    choice = ask(db, device, Budget(max_latency_ms=20), cards=CARDS)
    assert picked(choice) == "a" and choice.device == device and choice.unmeasured == ("d",)
    few = "not predicted: 2 row(s) of this engine, precision and thread count; 3 say how fast it is"
    assert reasons(choice) == {
        "b": "cannot run here: crashed: SIGSEGV", "c": "p90 is up to 30 ms, above 20 ms", "d": few,
    }  # fmt: skip
    assert {rejection.kind for rejection in choice.rejected if rejection.reason == few} == {"unmeasured"}


def test_the_noise_floor_that_the_database_keeps_is_used(db: LatencyDB) -> None:
    db.add_noise(noisy(0.9, "m-1"))
    assert ask(db, "pi5", Budget(max_latency_ms=10.3), cards=CARDS).notes == (), "another unit's"
    db.add_noise(noisy(0.05))
    assert "5.0%" in ask(db, "pi5", Budget(max_latency_ms=10.3), cards=CARDS).notes[0].text


def test_options_of_choose(db: LatencyDB) -> None:
    assert picked(ask(db, "pi5", Budget(), cards=CARDS, candidate_filter=CandidateFilter(["onnx"], ["fp32"], 4))) == "c"
    for nothing in (
        CandidateFilter(threads=1),
        CandidateFilter(["coreml"]),
        CandidateFilter(precisions=["int8"]),
        CandidateFilter(engines=["ncnn"]),
    ):
        choice = ask(db, "pi5", Budget(), cards=CARDS, candidate_filter=nothing, prediction=PredictionOptions(False))
        assert choice.picked is None and len(choice.rejected) == 3 and choice.unmeasured == ("d",)


def test_a_device_that_was_never_measured(db: LatencyDB, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="pi5") as caught:
        ask(db, "pi4", Budget(), cards=CARDS)
    assert "edgevit sweep --device pi4" in caught.value.fix
    with (
        LatencyDB.open(str(tmp_path / "empty.db"), shipped=False) as empty,
        pytest.raises(UnknownNameError, match="none yet"),
    ):
        ask(empty, "pi4", Budget(), cards=CARDS)


def test_a_device_where_nothing_runs(db: LatencyDB) -> None:
    db.add(failed(model="a", device="watch", device_id="w", device_class="watch"))
    choice = ask(db, "watch", Budget(), cards=CARDS)
    assert choice.picked is None and texts(choice) == ("no run on 'watch' succeeded yet",)


@pytest.mark.parametrize(
    "budget",
    [
        Budget(percentile=0),
        Budget(percentile=100),
        Budget(max_latency_ms=0),
        Budget(max_latency_ms=math.nan),
        Budget(max_size_mb=-1),
        Budget(min_top1_percent=math.inf),
    ],
)
def test_budgets_that_make_no_sense(db: LatencyDB, budget: Budget) -> None:
    with pytest.raises(UsageError) as caught:
        ask(db, "pi5", budget, cards=CARDS)
    assert caught.value.exit_code == 2
    assert budget.percentile == 90 or "from 1 to 99" in caught.value.why


def test_choosing_imports_nothing_heavy() -> None:
    code = "import sys, edgevit.selection; print(*{name.split('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "numpy", "sqlalchemy", "alembic"} & set(loaded)


# Latencies as people write them


@pytest.mark.parametrize(
    ("text", "latency_ms"),
    [
        ("25ms", 25), ("25 ms", 25), (" 25 MS ", 25), ("0.025s", 25), ("25000us", 25), ("25000 µs", 25),
        ("25000μs", 25), ("25", 25), ("2.5e1", 25), (".5ms", 0.5), ("25000000ns", 25), ("1s", 1000),
    ],
)  # fmt: skip
def test_parse_latency(text: str, latency_ms: float) -> None:
    assert parse_latency(text) == pytest.approx(latency_ms)


@pytest.mark.parametrize(
    "text",
    [
        "ten",
        "",
        "ms",
        "-25ms",
        "0",
        "0ms",
        "nan",
        "inf",
        "1e999",
        "25 minutes",
        "25,5ms",
        "25m\u017f",
        "\u0662\u0665ms",
        "25ms 3",
        "1e-999",
    ],
)
def test_parse_latency_refuses(text: str) -> None:
    with pytest.raises(UsageError, match="25ms"):
        parse_latency(text)


@settings(deadline=None)
@given(st.text())
def test_parse_latency_never_fails_otherwise(text: str) -> None:
    with contextlib.suppress(UsageError):
        assert 0 < parse_latency(text) < math.inf
