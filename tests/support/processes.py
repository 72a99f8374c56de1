"""State of processes that a test started."""

from __future__ import annotations

import os
from pathlib import Path


def is_running(pid: int) -> bool:
    """Return whether a process runs. A zombie does not: its new parent has not reaped it yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        # The process ended before its file was opened or read.
        return False


def running_in(folder: Path) -> list[int]:
    """Return the processes that work in a folder or below it, also in one that was removed meanwhile."""
    pids = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            place = (entry / "cwd").readlink()
        except OSError:
            # It ended, or is another user's.
            continue
        if place.is_relative_to(folder) and int(entry.name) != os.getpid() and is_running(int(entry.name)):
            pids.append(int(entry.name))
    return pids


def queued_s(pid: int) -> float:
    """Return the seconds for which a process was ready to run, and had no processor; 0 where that is not known."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0
