"""compare: four verdicts, the same whichever row comes first, and none that the rows do not carry."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevit.errors import UsageError
from edgevit.measurement.compare import LEAST_DIFFERENCE, compare
from edgevit.records.measurement import Measurement, NoiseFloor
from support.measured import failed, measured, published

MS = 1_000_000
OPPOSITE = {"FASTER": "SLOWER", "SLOWER": "FASTER", "SAME": "SAME", "AMBIGUOUS": "AMBIGUOUS"}


def row(low: float, middle: float, high: float, **changes: Any) -> Measurement:
    times: dict[str, Any] = {
        "p50_low_ns": round(low * MS),
        "p50_ns": round(middle * MS),
        "p50_high_ns": round(high * MS),
    }
    return dataclasses.replace(measured(), **times, **changes)


def floor(share: float, device_id: str = "pi-0001") -> NoiseFloor:
    return NoiseFloor(device_id, "pi5", "hash", 1, share, (100, 101), "2026-11-21T10:00:00+00:00")


@pytest.mark.parametrize(
    ("first", "second", "verdict"),
    [
        ((9.0, 9.1, 9.2), (10.0, 10.1, 10.2), "FASTER"),
        ((10.0, 10.1, 10.2), (9.0, 9.1, 9.2), "SLOWER"),
        ((10.0, 10.01, 10.02), (10.0, 10.01, 10.02), "SAME"),
        ((10.0, 10.02, 10.03), (10.04, 10.06, 10.08), "SAME"),  # apart, and nobody would care
        ((9.0, 10.0, 11.0), (9.0, 10.0, 11.0), "AMBIGUOUS"),  # equal headlines of rows that know nothing
        ((9.0, 9.4, 10.1), (10.0, 10.1, 10.2), "AMBIGUOUS"),  # 7%, and the ranges touch
        ((9.95, 9.98, 9.99), (10.0, 10.05, 10.2), "AMBIGUOUS"),  # apart, by less than the floor, or by 2.5%
    ],
)
def test_verdicts(first: tuple[float, float, float], second: tuple[float, float, float], verdict: str) -> None:
    comparison = compare(row(*first), row(*second))
    assert comparison.verdict == verdict
    assert comparison.ratio == pytest.approx(first[1] / second[1])
    assert (comparison.floor, comparison.floor_from) == (LEAST_DIFFERENCE, "the protocol's least")


def test_a_noisy_device_sees_no_small_difference() -> None:
    first, second = row(9.60, 9.61, 9.62), row(10.0, 10.01, 10.02)
    assert compare(first, second, [floor(0.005)]).verdict == "FASTER", "never below the protocol's own floor"
    assert compare(first, second, [floor(0.06)]).verdict == "SAME"
    comparison = compare(first, second, [floor(0.02), floor(0.5, "another")])
    assert (comparison.verdict, comparison.floor, comparison.floor_from) == ("FASTER", 0.02, "the noise floor of pi5")
    elsewhere = dataclasses.replace(second, device_id="another")
    assert compare(first, elsewhere, [floor(0.02), floor(0.06, "another")]).floor == 0.06, "the noisier of the two"


@given(st.lists(st.floats(1, 2), min_size=6, max_size=6), st.floats(0, 0.2))
def test_exchanging_the_rows_exchanges_the_verdict(times: list[float], share: float) -> None:
    one, other = row(*sorted(times[:3])), row(*sorted(times[3:]))
    assert compare(one, other, [floor(share)]).verdict == OPPOSITE[compare(other, one, [floor(share)]).verdict]


@pytest.mark.parametrize(
    ("other", "words"),
    [
        (measured(rate_hz=30.0), "another rate"),
        (measured(protocol_version=2), "another protocol"),
        (failed(), "has no latency"),
        (published(), "is published"),
        (measured(flags=("emulated",)), "under emulation"),
    ],
)
def test_rows_that_cannot_be_compared(other: Measurement, words: str) -> None:
    for pair in ((measured(), other), (other, measured())):
        with pytest.raises(UsageError, match=words):
            compare(*pair)
    with pytest.raises(UsageError, match="another rate"):
        compare(measured(rate_hz=30.0), measured(rate_hz=60.0))


def test_two_rows_of_one_engine_are_rarely_told_apart() -> None:
    """Processes differ by 1%, as on a quiet machine; a difference of 6% is told apart nearly always."""
    dice = random.Random(0)

    def synthetic(true_ms: float) -> Measurement:
        medians = sorted(dice.gauss(true_ms, 0.01 * true_ms) for _ in range(5))
        return row(medians[0], medians[2], medians[4])

    alike = [compare(synthetic(10), synthetic(10)).verdict for _ in range(1000)]
    assert alike.count("FASTER") + alike.count("SLOWER") < 30
    different = [compare(synthetic(10), synthetic(10.6)).verdict for _ in range(1000)]
    assert different.count("FASTER") > 950 and "SLOWER" not in different and "SAME" not in different
