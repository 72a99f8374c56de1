"""Comparison of two measurements: faster, slower, same or ambiguous.

The ratio of the headlines has a range: from the fastest process of one row over the slowest of the other, to the
reverse. A difference counts if the whole range lies on one side of 1 and the headlines differ by more than the device
resolves. Two rows are the same if the whole range lies within that resolution. Everything else is ambiguous, and a
longer measurement decides it.
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


@dataclass(frozen=True)
class Comparison:
    """The verdict on the first row against the second. ratio: of the headlines, first over second."""

    verdict: Verdict
    ratio: float
    ratio_low: float
    ratio_high: float
    floor: float  # share below which a difference does not count
    floor_from: str
    first_id: str
    second_id: str


def compare(first: Measurement, second: Measurement, floors: Collection[NoiseFloor] = ()) -> Comparison:
    """Compare two rows that ran, with the largest of their devices' noise floors as the resolution.

    Raises UsageError for rows that cannot be compared. That holds where one did not run, was published or is emulated,
    and where the two differ in protocol or rate.
    """
    _check(first, second)
    a, b = _times(first), _times(second)
    low, ratio, high = a[0] / b[2], a[1] / b[1], a[2] / b[0]
    device_ids = (first.device_id, second.device_id)
    floor, source = resolution([noise_floor for noise_floor in floors if noise_floor.device_id in device_ids])
    decided = verdict(low, ratio, high, floor)
    return Comparison(decided, ratio, low, high, floor, source, first.measurement_id, second.measurement_id)


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


def _times(row: Measurement) -> tuple[int, int, int]:
    if row.p50_ns is None:
        why = "it has a mean and no median" if MEAN_ONLY in row.flags else f"{row.status}: {row.error}"
        raise UsageError(f"{row.model} {row.target} has no latency to compare", why=why)
    return row.p50_low_ns or row.p50_ns, row.p50_ns, row.p50_high_ns or row.p50_ns


def _check(first: Measurement, second: Measurement) -> None:
    for quantity, one, other in (
        ("protocol", first.protocol_version, second.protocol_version),
        ("rate", first.rate_hz or "run after run", second.rate_hz or "run after run"),
    ):
        if one != other:
            raise UsageError(
                f"the rows cannot be compared: another {quantity}", why=f"{one} and {other}", fix="measure both alike"
            )
    for row in (first, second):
        if row.provenance != "measured":
            raise UsageError("only measured rows have a spread to compare", why=f"{row.model} is {row.provenance}")
        if EMULATED in row.flags:
            why = f"{row.model} was measured under emulation, which says nothing of a real device"
            raise UsageError("emulated rows are not compared", why=why)
