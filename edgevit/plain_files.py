"""Plain files, read without waiting: a pipe in the place of a file would block for ever, and a device may act."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path


class NotPlainError(OSError):
    """What has the name of a file is a pipe, a device, a socket or a folder."""

    def __init__(self, path: Path) -> None:
        super().__init__(errno.EINVAL, "it is no plain file", str(path))


def read_plain(path: Path, most: int = -1) -> bytes:
    """Return the bytes of a plain file, at most so many. Raises OSError where it cannot be read, and NotPlainError."""
    # Opening a device may already do something.
    require_plain(path)
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with os.fdopen(descriptor, "rb") as file:
        # Another file may have taken its name.
        _require_regular(os.fstat(descriptor), path)
        return file.read(most)


def require_plain(path: Path) -> None:
    """Raise NotPlainError for what is no plain file, and OSError for what is not there."""
    _require_regular(path.stat(), path)


def _require_regular(status: os.stat_result, path: Path) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise NotPlainError(path)
