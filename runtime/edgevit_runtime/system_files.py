"""Files of the system by which a kernel describes a machine, below any root: a test can pass a temporary one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol


class SystemFiles(Protocol):
    """The system's files by name without a leading slash: those of this machine, or those that a phone sent."""

    def text(self, name: str) -> str:
        """Return a file's text without its final NUL and line end; empty if it cannot be read."""

    def names(self, pattern: str) -> Sequence[str]:
        """Return the names that match a pattern of `*` and `[0-9]`, sorted."""


class RootFiles:
    """The files below a root."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root

    def text(self, name: str) -> str:
        """Return a file's text, as text() does."""
        return text(self._root / name)

    def names(self, pattern: str) -> Sequence[str]:
        """Return the names that match a pattern, sorted."""
        return sorted(path.relative_to(self._root).as_posix() for path in self._root.glob(pattern))


def text(path: Path) -> str:
    """Return a file's text without its final NUL and line end; empty if it is missing or its driver refuses to read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0\n ")
    except OSError:
        return ""


def integers(paths: Iterable[Path]) -> list[int]:
    """Return the numbers that these files hold, in the order of their paths; others are left out."""
    texts = [text(path) for path in sorted(paths)]
    return [int(text) for text in texts if text.lstrip("-").isdigit()]


def cores(listed: str) -> tuple[int, ...]:
    """Parse a list of cores like `0-3,6` into numbers. Any other text gives none."""
    numbers: list[int] = []
    for part in listed.strip().split(","):
        if not (ends := re.fullmatch(r"(\d+)(?:-(\d+))?", part)):
            return ()
        numbers += range(int(ends[1]), int(ends[2] or ends[1]) + 1)
    return tuple(numbers)
