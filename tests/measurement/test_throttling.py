"""Which blocks count: each gate alone, at its limit, and nothing where the system does not tell."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from edgevit.measurement.throttling import CLOCK_SHARE, STOLEN_LIMIT, stolen_share, why_discarded
from edgevit_runtime.record import Snapshot, Timing

SILENT = Snapshot(1, (0,), None, None, None, None, None, None, None)
TALKING = dataclasses.replace(SILENT, frequency_khz=2_000_000, nominal_khz=2_000_000, steal_ticks=100, total_ticks=1000,
                              throttled=False, throttle_events=7)  # fmt: skip


def block(before: Snapshot, after: Snapshot) -> Timing:
    return Timing(1, 1, (), (1,), True, None, before, after)


def after(**changes: Any) -> Snapshot:
    return dataclasses.replace(TALKING, total_ticks=2000, **changes)


@pytest.mark.parametrize(
    ("end", "words"),
    [
        (after(), ""),
        (after(frequency_khz=round(CLOCK_SHARE * 2_000_000)), ""),
        (after(frequency_khz=round(CLOCK_SHARE * 2_000_000) - 1), "the clock was at 75%"),
        (after(frequency_khz=400_000), "the clock was at 20% of its nominal 2.00 GHz"),
        (after(frequency_khz=3_000_000), ""),
        (after(frequency_khz=None), ""),
        (after(throttled=True), "it throttles"),
        (after(throttle_events=9), "slowed down for heat 2 times"),
        (after(throttle_events=None), ""),
        (after(steal_ticks=100 + round(1000 * STOLEN_LIMIT)), ""),
        (after(steal_ticks=200), "the hypervisor took 10%"),
    ],
)
def test_each_gate(end: Snapshot, words: str) -> None:
    why = why_discarded(block(TALKING, end))
    assert words in why and bool(why) == bool(words)


def test_the_clock_before_the_first_run_may_idle() -> None:
    assert why_discarded(block(dataclasses.replace(TALKING, frequency_khz=400_000), after())) == ""


def test_throttling_that_began_before_counts() -> None:
    assert "throttles" in why_discarded(block(dataclasses.replace(TALKING, throttled=True), after()))


def test_a_silent_system_discards_nothing() -> None:
    assert why_discarded(block(SILENT, SILENT)) == ""
    assert stolen_share(SILENT, SILENT) == 0.0
