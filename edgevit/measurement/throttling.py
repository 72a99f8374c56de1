"""Which blocks of runs do not count: those of a processor that was slowed down, or that somebody else had."""

from __future__ import annotations

from edgevit_runtime.record import Snapshot, Timing

CLOCK_SHARE = 0.75  # of the nominal clock: less is no longer the device that was asked about
STOLEN_SHARE = 0.01  # of a block's ticks, taken by the hypervisor: as large as the differences we tell apart; a flag
STOLEN_LIMIT = 0.05  # the same; a block beyond this is worth no more than grade B and is discarded
MAX_RETRIES = 3  # of a discarded block
COOL_DOWN_S = 30.0  # before each retry: a board's heat sink takes half a minute to lose half of its excess


def why_discarded(timing: Timing) -> str:
    """Why a block of runs does not count; empty if it does. What the system does not tell speaks for the block."""
    before, after = timing.before, timing.after
    # The clock is read right after the last run: before the first one the processor may have been idle.
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
    """Share of the machine's ticks between two moments that went to other guests of its host; 0 where nobody tells."""
    return growth(before.steal_ticks, after.steal_ticks) / max(1, growth(before.total_ticks, after.total_ticks))


def growth(before: int | None, after: int | None) -> int:
    """How far a counter moved; 0 where it is not told."""
    return 0 if before is None or after is None else after - before
