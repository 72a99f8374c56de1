"""The reasons against candidates: limits, filters, and rows that cannot be compared with a budget."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from edgevit.records.choice import Budget
from edgevit.records.measurement import MEAN_ONLY, NOT_AS_VERIFIED, SUMMARY_ONLY, Measurement
from edgevit.selection import CandidateFilter, choose_among
from edgevit.selection.wording import OLDER_ENGINE
from support.candidates import DAYS, MS, answer, picked, reasons, row, texts
from support.measured import card, published

NOT_PROVEN = "the artifact is not proven to compute the model"


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
