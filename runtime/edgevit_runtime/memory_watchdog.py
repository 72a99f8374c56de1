"""Memory watchdog: a process that kills a worker above its memory limit, and the processes that a worker leaves behind.

A limit of address space (RLIMIT_AS) would count memory that an engine maps and never touches. A thread of the worker
cannot check the memory while the engine holds the interpreter's lock. So a child is forked before the engine is
imported; it reads the resident memory of the worker and its children. One reading takes some 0.1 ms.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

POLL_S = 0.2  # a memory bomb fills a gigabyte meanwhile; polling twice as often would disturb twice as many runs
MEMORY_SHARE = 0.8  # of all memory, for a job without a limit: the system itself and the caller need the rest
# Memory that only this process needs. The system can take back pages of mapped files, so they do not count.
_PRIVATE_FIELDS = (b"RssAnon:", b"RssShmem:", b"VmSwap:")
_MAX_BYTES = 1 << 16  # read of a file of /proc


def start(limit_bytes: int | None, exceeded: Callable[[], None]) -> int | None:
    """Watch this process from a new one until it ends, and return the watcher's pid.

    The pid is `None` where the system has no fork or no /proc. Above the limit the watcher calls `exceeded` and kills
    this process. When this process is gone and led its process group, the watcher kills the remaining group.
    """
    worker = os.getpid()
    if not hasattr(os, "fork") or memory_bytes(worker) is None:
        return None
    # The worker's end of the pipe closes when the worker dies, for any reason.
    end, _kept_open = os.pipe()
    if child := os.fork():
        os.close(end)
        return child
    try:
        os.close(_kept_open)
        _watch(worker, end, limit_bytes, exceeded)
    finally:
        # This process is a copy of the worker, and must not run the worker's cleanup.
        os._exit(0)


def stop(watcher: int | None) -> None:
    """End the watcher of a worker that ends normally, so that no zombie process remains."""
    if watcher is not None:
        os.kill(watcher, signal.SIGKILL)
        os.waitpid(watcher, 0)


def _watch(worker: int, end: int, limit_bytes: int | None, exceeded: Callable[[], None]) -> None:
    leads = os.getpgrp() == worker
    while os.getppid() == worker and not select.select([end], [], [], POLL_S)[0]:
        if limit_bytes is not None and (memory_bytes(worker) or 0) > limit_bytes:
            exceeded()
            os.kill(worker, signal.SIGKILL)
    # The worker is gone, and its parent may be gone too.
    if leads:
        os.killpg(worker, signal.SIGKILL)


def memory_bytes(pid: int, root: Path = Path("/")) -> int | None:
    """Return the memory and swap of a process and its descendants in bytes; None where unknown."""
    process_bytes = _private_bytes(pid, root)
    if process_bytes is None:
        return None
    children = [child for child in _children(pid, root) if child != os.getpid()]
    return process_bytes + sum(memory_bytes(child, root) or 0 for child in children)


def _private_bytes(pid: int, root: Path) -> int | None:
    lines = _read(f"{root}/proc/{pid}/status").splitlines()
    sizes = [int(line.split()[1]) for line in lines if line.startswith(_PRIVATE_FIELDS)]
    return 1024 * sum(sizes) if sizes else None


def _children(pid: int, root: Path) -> Iterator[int]:
    """Yield the children of all its threads; none where the kernel has no list of them."""
    folder = f"{root}/proc/{pid}/task"
    with contextlib.suppress(OSError):
        for task in os.listdir(folder):  # noqa: PTH208 - pathlib takes three times as long, and this runs beside a model
            yield from map(int, _read(f"{folder}/{task}/children").split())


def _read(path: str) -> bytes:
    """Read a file of /proc; empty if it is gone."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return b""
    try:
        return os.read(descriptor, _MAX_BYTES)
    except OSError:
        return b""
    finally:
        os.close(descriptor)
