"""Whether a process that a test had started is still there."""

from __future__ import annotations

from pathlib import Path


def is_running(pid: int) -> bool:
    """A zombie is dead: its new parent has not looked yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # gone before its file is opened, or read
        return False
