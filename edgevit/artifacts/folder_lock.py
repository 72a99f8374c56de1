"""Locks of output folders: one run at a time writes into a folder, and removes what killed runs left there."""

from __future__ import annotations

import errno
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

from edgevit.artifacts.folder import MANIFEST
from edgevit.errors import ArtifactError
from edgevit.scratch import is_left_behind, remove

_LOG = logging.getLogger(__name__)
_LOCK = ".edgevit.lock"
_POLL_S = 0.2  # between two attempts to get a lock
_PASSWORD = re.compile(r"(?<=://)[^/@\s]*@")


def warn_in_log(text: str) -> None:
    """Write a warning into the log."""
    _LOG.warning(text)


@contextmanager
def locked_folder(out: Path, on_wait: Callable[[str], None] = warn_in_log) -> Iterator[None]:
    """Hold an output folder, and remove what killed runs left in it. While another run holds it, wait.

    on_wait: called once before waiting, with the run that holds the folder. The folder is made where it is missing, and
    removed at the end if nothing came of it. Raises ArtifactError where it cannot be written.
    """
    is_new = not out.exists()
    lock = FileLock(out / _LOCK, poll_interval=_POLL_S)
    try:
        _acquire(lock, out, on_wait)
        (out / _LOCK).write_text(json.dumps(_this_run()), encoding="utf-8")
    except OSError as error:
        lock.release(force=True)
        raise unwritable(out, error) from error
    try:
        clear_output(out)
        yield
    finally:
        # It is removed while it is held: one that waits for it notices, and makes a new one.
        with suppress(OSError):
            (out / _LOCK).unlink()
        lock.release()
        if is_new:
            with suppress(OSError):
                out.rmdir()


def unwritable(out: Path, error: OSError) -> ArtifactError:
    """Return the error for an output folder that cannot be written, with the advice for its cause."""
    why = str(error.strerror or error)
    fix = "free some space there, or name another folder with -o" if _is_full(error) else "-o FOLDER you may write to"
    return ArtifactError("cannot write to the output folder", where=str(out), why=why, fix=fix)


def _is_full(error: OSError) -> bool:
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


def _acquire(lock: FileLock, out: Path, on_wait: Callable[[str], None]) -> None:
    is_told = False
    while True:
        out.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=_POLL_S if is_told else 0)
            return
        except Timeout:
            if not is_told:
                on_wait(f"{out} is in use by {_holder(out)}; waiting until that ends")
            is_told = True
        except FileNotFoundError:
            # The run before removed the folder, because nothing came of it.
            continue


def _this_run() -> dict[str, object]:
    command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    since = datetime.now().astimezone().isoformat(timespec="seconds")
    return {"pid": os.getpid(), "host": socket.gethostname(), "command": _PASSWORD.sub("***@", command), "since": since}


def _holder(out: Path) -> str:
    """Return which run holds the folder, as far as that can be read."""
    try:
        run = json.loads((out / _LOCK).read_text(encoding="utf-8"))
        return f"process {run['pid']} on {run['host']} since {run['since']}: {run['command']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another run"


def clear_output(out: Path) -> None:
    """Remove what runs left that were killed; an older artifact that was about to be replaced gets its name back."""
    for path in out.glob(".*"):
        if not is_left_behind(path):
            continue
        name, _, rest = path.name.removeprefix(".").rpartition(".old.")
        if rest and name and not (out / name).exists():
            with suppress(OSError):
                path.rename(out / name)
                continue
        remove(path)
    for path in out.glob(f"*/.{MANIFEST}.*"):
        if is_left_behind(path):
            remove(path)
