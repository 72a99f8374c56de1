"""Which blocks count: each gate alone, at its limit, and nothing where the system does not tell."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from edgevit.measurement.throttling import CLOCK_SHARE, STOLEN_LIMIT, circumstances, stolen_share, why_discarded
from edgevit_runtime.record import Host, Silicon, Snapshot, Timing

SILENT = Snapshot(1, (0,), None, None, None, None, None, None, None)
TALKING = dataclasses.replace(SILENT, frequency_khz=2_000_000, nominal_khz=2_000_000, steal_ticks=100, total_ticks=1000,
                              throttled=False, throttle_events=7, quota_throttled_us=0)  # fmt: skip


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
        (after(unix_ns=1_000_001, quota_throttled_us=50), ""),
        (after(unix_ns=1_000_001, quota_throttled_us=100), "a quota of a control group held the process back for 10%"),
        (after(unix_ns=1_000_001, quota_throttled_us=None), ""),
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


HOST = Host("x86_64", "Linux", "6.1", "3.11.7", "AMD EPYC", 4, None, None)
QUOTA = dataclasses.replace(HOST, silicon=Silicon("AuthenticAMD", 25, 1, 1, (), (), "", quota_cores=1.5))


@pytest.mark.parametrize(
    ("threads", "host", "cores", "runnable", "flags"),
    [
        (4, HOST, (0, 1, 2, 3), [1, 4, 4], []),
        (2, HOST, (3,), [None], ["oversubscribed"]),
        (5, HOST, (), [], ["oversubscribed"]),
        (1, QUOTA, (0, 1), [], []),
        (2, QUOTA, (0, 1), [], ["oversubscribed"]),
        (1, HOST, (0,), [1, 5, 6, 9], ["busy"]),
        (1, HOST, (0,), [1, 1, 9, None], []),
        (9, None, (0,), [9], []),
    ],
)
def test_circumstances_are_flagged(
    threads: int, host: Host | None, cores: tuple[int, ...], runnable: list[int | None], flags: list[str]
) -> None:
    snapshots = [dataclasses.replace(SILENT, affinity=cores, runnable=count) for count in runnable or [None]]
    assert list(circumstances(threads, host, snapshots)) == flags


def test_a_quota_counts_as_stolen_time() -> None:
    end = after(unix_ns=1_000_001, quota_throttled_us=20)
    assert stolen_share(TALKING, end) == pytest.approx(0.02)
    assert stolen_share(TALKING, dataclasses.replace(end, quota_throttled_us=10**9)) == 1.0
