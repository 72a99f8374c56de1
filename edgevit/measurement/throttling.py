"""Discards timing blocks that ran while the CPU was throttled or its time was stolen by other guests."""

from __future__ import annotations

from edgevit_runtime.record import Snapshot, Timing

CLOCK_SHARE = 0.75  # of the nominal clock: a slower processor does not represent the device
# Share of a block's ticks taken by the hypervisor. It is as large as the differences we tell apart, so it is a flag.
STOLEN_SHARE = 0.01
# A block with a larger stolen share is worth no more than grade B and is discarded.
STOLEN_LIMIT = 0.05
MAX_RETRIES = 3  # of a discarded block
COOL_DOWN_S = 30.0  # before each retry: a board's heat sink takes half a minute to lose half of its excess


def why_discarded(timing: Timing) -> str:
    """Return why a block of runs is discarded; empty if it counts. Missing sensor data never discards a block."""
    before, after = timing.before, timing.after
    # The clock is read right after the last run, because the processor may have been idle before the first one.
    if after.frequency_khz and after.nominal_khz and after.frequency_khz < CLOCK_SHARE * after.nominal_khz:
        share = after.frequency_khz / after.nominal_khz
        return f"the clock was at {share:.0%} of its nominal {after.nominal_khz / 1e6:.2f} GHz"
    if after.throttled or before.throttled:
        return "the system says that it throttles the processor"
    if events := growth(before.throttle_events, after.throttle_events):
        return f"the processor was slowed down for heat {events} times"
    if (share := stolen_share(before, after)) > STOLEN_LIMIT:
        return f"the hypervisor took {share:.0%} of the time"
    return ""


def stolen_share(before: Snapshot, after: Snapshot) -> float:
    """Return the share of the machine's ticks between two moments that went to other guests; 0 where unknown."""
    return growth(before.steal_ticks, after.steal_ticks) / max(1, growth(before.total_ticks, after.total_ticks))


def growth(before: int | None, after: int | None) -> int:
    """Return how far a counter moved; 0 where it is unknown."""
    return 0 if before is None or after is None else after - before
