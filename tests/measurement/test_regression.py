"""Regression gates: which rows are pairs, what forbids a verdict, and when a gate passes."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevit.measurement.regression import (
    JudgedPair,
    RowPair,
    judge,
    outcome,
    paired,
    reduced,
)
from edgevit.records.measurement import Measurement, NoiseFloor
from edgevit.records.network import Network
from support.measured import HOST, SILICON, failed, floor, measured, published, vendor_row

MS = 1_000_000
ZEN = dataclasses.replace(HOST, silicon=SILICON)


def samples(ms: float) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(round((ms + 0.001 * (run + process)) * MS) for run in range(10)) for process in range(3))


def row(ms: float = 10.0, **changes: Any) -> Measurement:
    return measured(samples(ms), **({"host": ZEN, "nonce": str(ms)} | changes))


def trained(ms: float, letter: str) -> Measurement:
    """Return a row of a network of its own."""
    network = Network("function", letter * 64, letter * 64, "2.9.0")
    return row(ms, model="n.py:net", network=network, artifact_sha256=letter * 64)


def ids(pairs: list[RowPair]) -> list[tuple[str | None, str | None]]:
    return [(id_of(pair.baseline), id_of(pair.candidate)) for pair in pairs]


def id_of(one: Measurement | None) -> str | None:
    return None if one is None else one.measurement_id


def pairs_of(baseline: list[Measurement], candidates: list[Measurement]) -> list[RowPair]:
    return paired(*reduced(baseline, candidates))


@pytest.mark.parametrize(
    "changes",
    [
        {"model": "net_m"}, {"target": "ncnn"}, {"precision": "fp16"}, {"threads": 2}, {"batch": 2},
        {"compute_unit": "gpu"}, {"rate_hz": 30.0, "missed": 0}, {"device": "pi4", "device_id": "pi-4"},
        {"inputs": (dataclasses.replace(measured().inputs[0], shape=(1, 3, 256, 256)),)},
    ],
    ids=str,
)  # fmt: skip
def test_rows_of_two_configurations_are_no_pair(changes: dict[str, Any]) -> None:
    pairs = pairs_of([row()], [row(11, **changes)])
    assert len(pairs) == 2 and all(None in (pair.baseline, pair.candidate) for pair in pairs)
    judged = [judge(pair, (), 50) for pair in pairs]
    assert {obstacle.code for one in judged for obstacle in one.obstacles} == {"no_counterpart"}
    assert outcome(judged, "slower") == "undecided"


def test_the_newest_row_of_each_configuration_counts() -> None:
    old, new, other, now = row(9), row(10), row(20, threads=2), row(11)
    assert ids(pairs_of([old, new, other], [now])) == [
        (other.measurement_id, None),  # of two threads
        (new.measurement_id, now.measurement_id),  # of four
    ]


def test_networks_of_one_model_meet_their_like_and_a_lone_one_meets_the_newest() -> None:
    a, b = (trained(10, letter) for letter in "ab")
    a2, b2 = (trained(11, letter) for letter in "ab")
    assert set(ids(pairs_of([a, b], [b2, a2]))) == {
        (a.measurement_id, a2.measurement_id),
        (b.measurement_id, b2.measurement_id),
    }
    # Trained anew each night: the row of the first night must not meet itself under a tag that is used each night.
    [pair] = pairs_of([a], [a2, b2])
    assert pair.candidate == b2
    assert "other_network" in [caveat.code for caveat in judge(pair, (), 50).caveats]
    c, d = (trained(12, letter) for letter in "cd")
    assert all(None in pair for pair in ids(pairs_of([a, b], [c, d]))), "nothing says which is whose"


def test_two_units_are_compared_where_their_silicon_is_equal() -> None:
    one, other = row(), row(11, device_id="pi-0002")
    [pair] = pairs_of([one], [other])
    judged = judge(pair, [floor()], 50)
    assert judged.is_judged and "other_unit" in [caveat.code for caveat in judged.caveats]
    silent = [dataclasses.replace(one, host=HOST) for one in (one, other)]
    [pair] = pairs_of(silent[:1], silent[1:])
    assert [obstacle.code for obstacle in judge(pair, (), 50).obstacles] == ["unknown_silicon"]


SLOW = row(20)
FASTER_CLOCK = dataclasses.replace(HOST, silicon=dataclasses.replace(SILICON, stepping=2))


@pytest.mark.parametrize(
    ("baseline", "candidate", "code"),
    [
        (row(), row(9, host=FASTER_CLOCK), "other_silicon"),
        (row(), row(9, device_class="raspberry-pi-4", host=HOST), "other_silicon"),
        (row(), failed(host=ZEN), "no_latency"),
        (failed(host=ZEN), row(), "no_latency"),
        (row(), row(9, flags=("emulated",)), "emulated"),
        (row(), published(), "not_measured"),
        (row(), row(9, protocol_version=2), "other_protocol"),
        (row(), row(9, rate_hz=30.0), "other_rate"),
    ],
)
def test_what_cannot_be_judged_leaves_a_gate_undecided(
    baseline: Measurement, candidate: Measurement, code: str
) -> None:
    judged = judge(RowPair(baseline, candidate), [floor()], 50)
    assert [obstacle.code for obstacle in judged.obstacles] == [code] and not judged.is_judged
    good = judge(RowPair(row(), row(10.001)), [floor()], 50)
    slow = judge(RowPair(row(), SLOW), [floor()], 50)
    assert outcome([good, judged], "slower") == "undecided", "what was not judged does not pass"
    assert outcome([good, judged, slow], "slower") == "failed", "and does not hide what is slower"


def test_a_gate_passes_only_on_what_it_judged() -> None:
    same, slow, fast = (judge(RowPair(row(), row(ms)), [floor()], 50) for ms in (10.001, 20, 5))
    wide = tuple(tuple(round(ms * MS) for _ in range(10)) for ms in (8, 10, 12))
    unclear = judge(RowPair(row(), measured(wide, host=ZEN)), [floor()], 50)
    verdicts = [one.comparison and one.comparison.verdict for one in (same, slow, fast, unclear)]
    assert verdicts == ["SAME", "SLOWER", "FASTER", "AMBIGUOUS"], "the candidate's, against the baseline"
    assert outcome([], "slower") == "undecided"
    assert outcome([same, fast, unclear], "slower") == "passed"
    assert outcome([same, fast, unclear], "ambiguous") == outcome([same, slow], "slower") == "failed"


def test_a_tail_is_judged_by_its_own_range() -> None:
    """Both have equal medians; every tenth run of one takes twice as long."""
    steady = tuple(tuple([10 * MS] * 95 + [round(10.1 * MS)] * 5) for _ in range(3))
    spiky = tuple(tuple([10 * MS] * 85 + [20 * MS] * 15) for _ in range(3))
    pair = RowPair(measured(steady, host=ZEN), measured(spiky, host=ZEN, nonce="1"))
    at = {q: judge(pair, [floor()], q).comparison for q in (50, 90, 99)}
    assert [one and one.verdict for one in at.values()] == ["SAME", "SLOWER", "SLOWER"]
    assert (one := at[90]) is not None and one.ratio == pytest.approx(2.0) and one.percentile == 90


@pytest.mark.parametrize(
    "candidate",
    [
        measured(samples(10), host=ZEN, p90_upper_ns=None),
        vendor_row(host=ZEN),
        dataclasses.replace(row(11), samples_ns=()),
    ],
)
def test_a_percentile_that_a_row_does_not_tell_is_not_judged(candidate: Measurement) -> None:
    judged = judge(RowPair(row(), candidate), (), 90)
    assert [obstacle.code for obstacle in judged.obstacles] == ["no_percentile"]


def test_another_engine_is_told() -> None:
    judged = judge(RowPair(row(), row(10.001, engine_version="2.0")), [floor()], 50)
    [caveat] = judged.caveats
    assert caveat.code == "other_engine" and "1.31.1" in caveat.detail and "2.0" in caveat.detail


def test_a_device_without_a_noise_floor_is_told() -> None:
    def codes(floors: list[NoiseFloor]) -> list[str]:
        return [caveat.code for caveat in judge(RowPair(row(), row(10.001)), floors, 50).caveats]

    assert (codes([]), codes([floor()])) == (["no_noise_floor"], [])


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(1, 2), st.sampled_from("xy"), st.booleans()), max_size=8))
def test_each_row_is_in_one_pair(facts: list[tuple[str, int, str, bool]]) -> None:
    rows = [
        (row(10 + number, model=f"n.py:{model}", threads=threads, device_id=unit), is_baseline)
        for number, (model, threads, unit, is_baseline) in enumerate(facts)
    ]
    baseline, candidates = ([one for one, flag in rows if flag is side] for side in (True, False))
    left, right = reduced(baseline, candidates)
    pairs = paired(left, right)
    shown = [one.measurement_id for pair in pairs for one in (pair.baseline, pair.candidate) if one is not None]
    assert sorted(shown) == sorted(one.measurement_id for one in (*left, *right))
    judged: list[JudgedPair] = [judge(pair, (), 50) for pair in pairs]
    assert all(one.pair.baseline is None or one.pair.candidate is None for one in judged if not one.is_judged) or any(
        obstacle.code == "unknown_silicon" for one in judged for obstacle in one.obstacles
    )
