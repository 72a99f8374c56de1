"""Commands that are ended by signals, and what they leave."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from support.speed import seconds, wait_until


def start(arguments: Sequence[object], folder: Path, temporary: Path) -> subprocess.Popen[str]:
    """Start a command in a folder, with a folder for temporary files of its own.

    It is no warm program: those do not get the signals of their client.
    """
    command = [str(Path(sys.executable).with_name("edgevit")), *map(str, arguments)]
    environment = {**os.environ, "TMPDIR": str(temporary)}
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True, stdin=subprocess.DEVNULL)  # fmt: skip


def end(process: subprocess.Popen[str], number: int) -> tuple[int, float, str]:
    """Send a signal; return the exit code, the seconds until the end, and what stood on standard error."""
    begin = time.monotonic()
    process.send_signal(number)
    _, text = process.communicate(timeout=seconds(30))
    return process.returncode, time.monotonic() - begin, text


def pid_of(out: Path) -> int:
    """Return the process that exports into a folder, once its hidden folder is there."""
    assert wait_until(lambda: bool(list(out.glob(".*.partial"))), seconds(60)), "no export began"
    return int(next(out.glob(".*.partial")).name.split(".")[-2].partition("-")[0])


def leftovers(out: Path, temporary: Path) -> list[str]:
    """Return the hidden entries of an output folder, and what edgevit left among temporary files."""
    hidden = [*out.glob(".*")] if out.exists() else []
    return sorted(path.name for path in (*hidden, *temporary.glob("edgevit-*")))


ENDING = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
