"""The share of the processor that the control groups of this process allow it, and how often they held it back.

Version 2 has one tree; version 1 has one for the processor. The strictest group above a process counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from edgevit_runtime.system_files import text

_MOUNTS = ("sys/fs/cgroup/cpu", "sys/fs/cgroup/cpu,cpuacct")  # of version 1


def quota_cores(root: Path = Path("/")) -> float | None:
    """Return the cores that a quota allows this process, as 1.5; None without a quota."""
    quotas = [quota for folder in _folders(root) if (quota := _quota(folder)) is not None]
    return min(quotas, default=None)


def throttled_us(root: Path = Path("/")) -> int | None:
    """Return the microseconds for which a quota held this process' groups back so far; None where nothing counts."""
    held = [count for folder in _folders(root) if (count := _throttled_us(folder)) is not None]
    return max(held, default=None)


def _folders(root: Path) -> Iterator[Path]:
    """Yield the folders of this process' groups, from the innermost one to the root of its tree."""
    for line in text(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if number == "0" and not controllers:
            mounts: tuple[str, ...] = ("sys/fs/cgroup",)
        elif "cpu" in controllers.split(","):
            mounts = _MOUNTS
        else:
            continue
        for mount in mounts:
            top = root / mount
            inner = top / group.strip("/")
            # In a container the group's name may be the host's, and its files stand at the top.
            yield from (folder for folder in (inner, *inner.parents) if folder == top or top in folder.parents)


def _quota(folder: Path) -> float | None:
    allowed, _, period = text(folder / "cpu.max").partition(" ")
    if not allowed:
        allowed, period = text(folder / "cpu.cfs_quota_us"), text(folder / "cpu.cfs_period_us")
    if not (allowed.isdecimal() and period.isdecimal() and int(period)):
        return None
    return int(allowed) / int(period)


def _throttled_us(folder: Path) -> int | None:
    fields = dict(line.split(" ", 1) for line in text(folder / "cpu.stat").splitlines() if " " in line)
    if fields.get("throttled_usec", "").isdecimal():
        return int(fields["throttled_usec"])
    nanoseconds = fields.get("throttled_time", "")
    return int(nanoseconds) // 1000 if nanoseconds.isdecimal() else None
