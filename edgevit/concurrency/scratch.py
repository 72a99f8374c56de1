"""Temporary files and folders that name their process, so that a later run removes what a killed one left."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_DIGITS = 6  # hex digits of a digest in a mark
_MARK = re.compile(rf"(?P<pid>\d+)-(?P<host>[0-9a-f]{{{_DIGITS}}})(?P<start>[0-9a-f]{{{_DIGITS}}})")
_PREFIX = "edgevit-"
_BOOT = Path("/proc/sys/kernel/random/boot_id")
# A process of another host cannot be looked up. What it made counts as left behind after this time.
_FOREIGN_S = 7 * 86_400


def mark() -> str:
    """Return the mark of this process: its pid, its host and its start. No later process has the same."""
    return _mark_of(os.getpid())


@functools.cache
def _mark_of(pid: int) -> str:
    # By pid: a forked process has a mark of its own.
    return f"{pid}-{_host()}{_start(pid)}"


def is_left_behind(path: Path) -> bool:
    """Return whether the process whose mark is in the name of a path has ended. A name without a mark is kept."""
    found = _MARK.search(path.name)
    if not found:
        return False
    if found["host"] != _host():
        with suppress(OSError):
            return time.time() - path.lstat().st_mtime > _FOREIGN_S
        return False
    return _start(int(found["pid"])) != found["start"]


@contextmanager
def scratch_folder(purpose: str = "") -> Iterator[Path]:
    """Yield a new temporary folder, and remove it at the end. The first call removes those of killed processes.

    Raises OSError where the folder for temporary files cannot be written.
    """
    _clear_once(os.getpid(), tempfile.gettempdir())
    prefix = f"{_PREFIX}{purpose}{'-' if purpose else ''}{mark()}-"
    with tempfile.TemporaryDirectory(prefix=prefix) as folder:
        yield Path(folder)


def remove(path: Path) -> None:
    """Remove a file or a folder as far as that is possible."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


@functools.cache
def _clear_once(_pid: int, folder: str) -> None:
    clear_temporary(Path(folder))


def clear_temporary(folder: Path | None = None) -> None:
    """Remove the temporary folders of processes that have ended."""
    for path in (folder or Path(tempfile.gettempdir())).glob(f"{_PREFIX}*"):
        if is_left_behind(path):
            remove(path)


@functools.cache
def _host() -> str:
    """Return a digest of this host, and of the container where process numbers count anew."""
    numbers = ""
    with suppress(OSError):
        numbers = str(Path("/proc/self/ns/pid").readlink())
    return _digest(f"{socket.gethostname()}\0{numbers}")


def _start(pid: int) -> str:
    """Return a digest of the start of a running process; empty where none has this number. A zombie does not run."""
    if _BOOT.exists():
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            boot = _BOOT.read_text()
        except OSError:
            return ""
        # The state and the start, in ticks since the boot.
        return "" if fields[0] in "ZX" else _digest(f"{boot}\0{fields[19]}")
    command = ["ps", "-o", "lstart=", "-p", str(pid)]
    started = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return _digest(started) if started else ""


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]
