"""Comparison of two measurements: faster, slower, same or ambiguous.

The ratio of two percentiles has a range: from the fastest process of one row over the slowest of the other, to the
reverse. A difference counts if the whole range lies on one side of 1 and the ratio differs from 1 by more than the
device resolves. Two rows are the same if the whole range lies within that resolution. Everything else is ambiguous,
and a longer measurement decides it.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from edgevit.errors import UsageError
from edgevit.records.measurement import EMULATED, MEAN_ONLY, Measurement, NoiseFloor

Verdict = Literal["FASTER", "SLOWER", "SAME", "AMBIGUOUS"]
# Share of a headline. A smaller difference decides no choice, and few devices repeat themselves better.
LEAST_DIFFERENCE = 0.01
PERCENTILES = (50, 90, 99)
ObstacleCode = Literal[
    "other_protocol", "other_rate", "not_measured", "emulated", "no_latency", "no_percentile",
    "other_silicon", "unknown_silicon", "no_counterpart", "untrusted_origin",
]  # fmt: skip


@dataclass(frozen=True)
class Obstacle:
    """A reason why two rows cannot be compared, or why their comparison cannot judge. detail: its names and numbers."""

    code: ObstacleCode
    detail: str = ""


@dataclass(frozen=True)
class Comparison:
    """The verdict on the first row against the second. ratio: of their percentiles, first over second."""

    verdict: Verdict
    ratio: float
    ratio_low: float
    ratio_high: float
    floor: float  # share below which a difference does not count
    floor_from: str
    first_id: str
    second_id: str
    percentile: int = 50


@dataclass(frozen=True)
class Times:
    """A percentile of a row in nanoseconds, with the range that it is compared by."""

    low_ns: int
    ns: int
    high_ns: int


_WHAT: dict[ObstacleCode, str] = {
    "other_protocol": "the rows cannot be compared: another protocol",
    "other_rate": "the rows cannot be compared: another rate",
    "not_measured": "only measured rows have a spread to compare",
    "emulated": "emulated rows are not compared",
    "no_latency": "a row has no latency to compare",
    "no_percentile": "a row does not tell the percentile",
    "other_silicon": "the rows are of different silicon",
    "unknown_silicon": "a row does not tell its silicon, and the rows are of two devices",
    "no_counterpart": "a row has no counterpart",
    "untrusted_origin": "a row was read from a source that is not trusted",
}
_FIX: dict[ObstacleCode, str] = {
    "other_protocol": "measure both alike",
    "other_rate": "measure both alike",
    "no_percentile": "measure again, with --percentile and without --quick",
}


def compare(
    first: Measurement, second: Measurement, floors: Collection[NoiseFloor] = (), percentile: int = 50
) -> Comparison:
    """Compare two rows that ran, with the largest of their devices' noise floors as the resolution.

    Percentiles other than 50 need rows with their samples. Raises UsageError for rows that cannot be compared. That
    holds where one did not run, was published or is emulated, where the two differ in protocol or rate, and where a
    row has too few runs for the percentile.
    """
    if (obstacle := why_incomparable(first, second, percentile)) is not None:
        what, fix = _WHAT[obstacle.code], _FIX.get(obstacle.code, "")
        raise UsageError(what, why=obstacle.detail, fix=fix)
    a, b = times(first, percentile), times(second, percentile)
    assert a is not None and b is not None  # as why_incomparable found
    low, ratio, high = a.low_ns / b.high_ns, a.ns / b.ns, a.high_ns / b.low_ns
    device_ids = (first.device_id, second.device_id)
    floor, source = resolution([noise_floor for noise_floor in floors if noise_floor.device_id in device_ids])
    decided = verdict(low, ratio, high, floor)
    ids = (first.measurement_id, second.measurement_id)
    return Comparison(decided, ratio, low, high, floor, source, *ids, percentile)


def describe_obstacle(obstacle: Obstacle) -> str:
    """Return an obstacle in words."""
    return f"{_WHAT[obstacle.code]}: {obstacle.detail}" if obstacle.detail else _WHAT[obstacle.code]


def resolution(floors: Collection[NoiseFloor]) -> tuple[float, str]:
    """Return the share of a latency that these devices resolve, and the source of that number."""
    noisiest = max(floors, key=lambda floor: floor.share, default=None)
    if noisiest is None or noisiest.share <= LEAST_DIFFERENCE:
        return LEAST_DIFFERENCE, "the protocol's least"
    return noisiest.share, f"the noise floor of {noisiest.device}"


def verdict(low: float, ratio: float, high: float, floor: float) -> Verdict:
    """Judge a ratio and its range, where differences below `floor` do not count.

    The limits are 1 + floor and its inverse. So exchanging the rows only exchanges FASTER and SLOWER.
    """
    beyond = 1 + floor
    if high < 1 and ratio < 1 / beyond:
        return "FASTER"
    if low > 1 and ratio > beyond:
        return "SLOWER"
    return "SAME" if 1 / beyond <= low and high <= beyond else "AMBIGUOUS"


def times(row: Measurement, percentile: int) -> Times | None:
    """Return a percentile with its range; None where the row does not tell it.

    The range of p50 is that of the processes' medians. That of another one begins at the fastest process' percentile,
    and ends at the upper bound that holds with 99% confidence.
    """
    if percentile == 50:
        low, middle, high = row.p50_low_ns or row.p50_ns, row.p50_ns, row.p50_high_ns or row.p50_ns
    else:
        # It imports numpy, and a choice needs this module without it.
        from edgevit.measurement.summary import percentile as percentile_of

        middle, high = (row.p90_ns, row.p90_upper_ns) if percentile == 90 else (row.p99_ns, row.p99_upper_ns)
        low = min((percentile_of(process, percentile / 100) for process in row.samples_ns), default=None)
    return None if low is None or middle is None or high is None else Times(low, middle, high)


def why_incomparable(first: Measurement, second: Measurement, percentile: int = 50) -> Obstacle | None:
    """Return the reason why two rows cannot be compared; None where they can."""
    if first.protocol_version != second.protocol_version:
        return Obstacle("other_protocol", f"{first.protocol_version} and {second.protocol_version}")
    if first.rate_hz != second.rate_hz:
        return Obstacle("other_rate", f"{first.rate_hz or 'run after run'} and {second.rate_hz or 'run after run'}")
    for row in (first, second):
        if (obstacle := _why_unusable(row, percentile)) is not None:
            return obstacle
    return None


def _why_unusable(row: Measurement, percentile: int) -> Obstacle | None:
    name = f"{row.model} {row.target} ({row.measurement_id[:12]})"
    if row.provenance != "measured":
        return Obstacle("not_measured", f"{name} is {row.provenance}")
    if EMULATED in row.flags:
        return Obstacle("emulated", f"{name} was measured under emulation, which says nothing of a real device")
    if row.status != "ok" or row.p50_ns is None:
        why = "it has a mean and no median" if MEAN_ONLY in row.flags else f"{row.status}: {row.error}"
        return Obstacle("no_latency", f"{name}: {why}")
    if times(row, percentile) is None:
        return Obstacle("no_percentile", f"{name} has too few runs for p{percentile}, or no samples")
    return None
