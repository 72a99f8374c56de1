"""A process beside the worker: it ends a worker that takes too much memory, and what a worker leaves behind.

A limit of address space (RLIMIT_AS) would count what an engine maps and reserves but never touches, and a thread of the
worker cannot look while the engine holds the interpreter's lock. So a child is forked before the engine is imported,
which looks up what the worker and its children really hold. A look takes some 0.1 ms.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

POLL_S = 0.2  # a bomb fills a gigabyte meanwhile; twice as often would disturb twice as many runs
MEMORY_SHARE = 0.8  # of all memory, where nobody set a limit: the system itself and the caller need the rest
# Memory that nothing but this process needs. Pages of mapped files are the system's to take back, so they do not count.
_HELD = (b"RssAnon:", b"RssShmem:", b"VmSwap:")
_LARGEST = 1 << 16  # bytes of a file of /proc that are read


def start(limit_bytes: int | None, exceeded: Callable[[], None]) -> int | None:
    """Watch this process from a new one until it ends; its pid, or None where the system has no fork or no /proc.

    Above the limit `exceeded` is called, in the watching process, and this one is killed. When this process is gone and
    led its process group, all that is left of the group is killed.
    """
    worker = os.getpid()
    if not hasattr(os, "fork") or memory_bytes(worker) is None:
        return None
    end, _kept_open = os.pipe()  # the worker's end is closed when it dies, however it does
    if child := os.fork():
        os.close(end)
        return child
    try:
        os.close(_kept_open)
        _watch(worker, end, limit_bytes, exceeded)
    finally:
        os._exit(0)  # without the cleaning up of the worker, whose copy this is


def stop(watcher: int | None) -> None:
    """End the watch of a worker that comes to its end by itself, so that no zombie is left to whoever adopts it."""
    if watcher is not None:
        os.kill(watcher, signal.SIGKILL)
        os.waitpid(watcher, 0)


def _watch(worker: int, end: int, limit_bytes: int | None, exceeded: Callable[[], None]) -> None:
    leads = os.getpgrp() == worker
    while os.getppid() == worker and not select.select([end], [], [], POLL_S)[0]:
        if limit_bytes is not None and (memory_bytes(worker) or 0) > limit_bytes:
            exceeded()
            os.kill(worker, signal.SIGKILL)
    if leads:  # the worker is gone: whoever started it may be, too
        os.killpg(worker, signal.SIGKILL)


def memory_bytes(pid: int, root: Path = Path("/")) -> int | None:
    """What a process and all it started hold in memory or swap; None where the system does not tell."""
    own = _held(pid, root)
    if own is None:
        return None
    return own + sum(memory_bytes(child, root) or 0 for child in _children(pid, root) if child != os.getpid())


def _held(pid: int, root: Path) -> int | None:
    lines = _read(f"{root}/proc/{pid}/status").splitlines()
    held = [int(line.split()[1]) for line in lines if line.startswith(_HELD)]
    return 1024 * sum(held) if held else None


def _children(pid: int, root: Path) -> Iterator[int]:
    """Those that any of its threads started; none where the kernel keeps no list of them."""
    folder = f"{root}/proc/{pid}/task"
    with contextlib.suppress(OSError):
        for task in os.listdir(folder):  # noqa: PTH208 - pathlib takes three times as long, and this runs beside a model
            yield from map(int, _read(f"{folder}/{task}/children").split())


def _read(path: str) -> bytes:
    """A file of /proc; empty if it is gone."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return b""
    try:
        return os.read(descriptor, _LARGEST)
    except OSError:
        return b""
    finally:
        os.close(descriptor)
