"""Which timing blocks do not represent their device: throttled or robbed ones are discarded, other rows are flagged."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence

from edgevit.records.measurement import BUSY, OVERSUBSCRIBED
from edgevit_runtime.record import Host, Snapshot, Timing

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
    if (share := _hypervisors_share(before, after)) > STOLEN_LIMIT:
        return f"the hypervisor took {share:.0%} of the time"
    if (share := _quotas_share(before, after)) > STOLEN_LIMIT:
        return f"a quota of a control group held the process back for {share:.0%} of the time"
    return ""


def stolen_share(before: Snapshot, after: Snapshot) -> float:
    """Return the share of the time between two moments that other guests or a quota took; 0 where unknown."""
    return max(_hypervisors_share(before, after), _quotas_share(before, after))


def _hypervisors_share(before: Snapshot, after: Snapshot) -> float:
    """Return the share of the machine's ticks that went to other guests."""
    return growth(before.steal_ticks, after.steal_ticks) / max(1, growth(before.total_ticks, after.total_ticks))


def _quotas_share(before: Snapshot, after: Snapshot) -> float:
    """Return the share of the time for which a quota held the process back. Its counter adds up over cores."""
    held_us = growth(before.quota_throttled_us, after.quota_throttled_us)
    return min(1.0, 1000 * held_us / max(1, after.unix_ns - before.unix_ns))


def circumstances(threads: int, host: Host | None, snapshots: Sequence[Snapshot]) -> Iterator[str]:
    """Yield the flags of a row that was measured under circumstances that do not represent its device.

    `oversubscribed`: the engine had more threads than the process may use, by its affinity or a quota. `busy`: in half
    of the snapshots or more, the machine had more threads to run than cores.
    """
    if host is None:
        return
    quota = host.silicon.quota_cores if host.silicon else None
    usable = min((len(snapshot.affinity) for snapshot in snapshots if snapshot.affinity), default=host.cores)
    if threads > min(usable, math.inf if quota is None else quota):
        yield OVERSUBSCRIBED
    runnable = [snapshot.runnable for snapshot in snapshots if snapshot.runnable is not None]
    if runnable and statistics.median(runnable) > host.cores:
        yield BUSY


def growth(before: int | None, after: int | None) -> int:
    """Return how far a counter moved; 0 where it is unknown."""
    return 0 if before is None or after is None else after - before
