"""The pick: the most accurate candidate that fits, and the smaller one where the device tells no difference."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

import pytest

from edgevit.records.choice import Budget, Choice
from edgevit.records.measurement import Measurement, NoiseFloor
from edgevit.selection import CandidateFilter, Evidence, choose_among
from edgevit.selection.accuracy import Ratings
from edgevit.selection.wording import NOT_AT_CARD_SIZE, NOT_EVALUATED_IN_INT8
from edgevit_runtime.codec import from_json, to_json
from edgevit_runtime.record import TensorSpec
from support.candidates import BOUND, CARDS, DAYS, MS, answer, noisy, picked, reasons, row, texts
from support.measured import INPUT, card, rated


def test_the_most_accurate_that_fits() -> None:
    rows = (row("a", 5), row("b", 10), row("c", 30))
    choice = answer(*rows, max_latency_ms=10)
    assert picked(choice) == "b" and [candidate.model for candidate in choice.fitting] == ["b", "a"]
    assert reasons(choice) == {"c": "p90 is up to 30 ms, above 10 ms"}
    assert choice.rejected[0].excess == pytest.approx(2.0)
    assert choice.nearest_misses == () and choice.unmeasured == ("d",)
    assert picked(answer(*rows)) == "c"
    assert from_json(Choice, to_json(choice)) == choice


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
    assert answer(row(precision="int8")).fitting[0].flags == (NOT_EVALUATED_IN_INT8,)
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
