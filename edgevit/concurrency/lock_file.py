"""Lock files that name the run which holds them, so that another run can say what it waits for."""

from __future__ import annotations

import json
import logging
import os
import re
import shlex
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

_LOG = logging.getLogger(__name__)
_POLL_S = 0.2  # between two attempts to get a lock
# In a URL, ahead of the host or among its options.
_PASSWORD = re.compile(r"(?<=://)[^/@\s]*(?=@)|(?<=password=)[^&\s]*", re.IGNORECASE)


def warn_in_log(text: str) -> None:
    """Write a warning into the log."""
    _LOG.warning(text)


@contextmanager
def locked_file(path: Path, subject: str, on_wait: Callable[[str], None] = warn_in_log) -> Iterator[None]:
    """Hold a lock file, whose folder is made where it is missing. While another run holds it, wait.

    subject: what the lock protects. on_wait: called once before waiting, with the run that holds the lock. The lock
    ends with its process, however that ends. Raises OSError where the file cannot be written.
    """
    lock = FileLock(path, poll_interval=_POLL_S)
    _acquire(lock, path, subject, on_wait)
    try:
        path.write_text(json.dumps(_this_run()), encoding="utf-8")
        yield
    finally:
        # It is removed while it is held: one that waits for it notices, and makes a new one.
        with suppress(OSError):
            path.unlink()
        lock.release()


def _acquire(lock: FileLock, path: Path, subject: str, on_wait: Callable[[str], None]) -> None:
    is_told = False
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=_POLL_S if is_told else 0)
            return
        except Timeout:
            if not is_told:
                on_wait(f"{subject} is in use by {_holder(path)}; waiting until that ends")
            is_told = True
        except FileNotFoundError:
            # The run before removed the folder, because nothing came of it.
            continue


def _this_run() -> dict[str, object]:
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    since = datetime.now().astimezone().isoformat(timespec="seconds")
    return {"pid": os.getpid(), "host": socket.gethostname(), "command": without_password(command), "since": since}


def without_password(text: str) -> str:
    """Return a text with the passwords of URLs in it replaced by stars."""
    return _PASSWORD.sub("***", text)


def _holder(path: Path) -> str:
    """Return which run holds a lock file, as far as that can be read."""
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
        return f"process {run['pid']} on {run['host']} since {run['since']}: {run['command']}"
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return "another run"
