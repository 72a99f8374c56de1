"""Commands that are ended by signals, and what they leave."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from support.command_line import programs
from support.new_databases import OWN
from support.processes import is_running, queued_s, running_in
from support.speed import seconds, wait_until

ENDING = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
KILLS = (signal.SIGKILL, *ENDING)
TEMPORARY = "tmp"
_POLL_S = 0.02


class End(NamedTuple):
    """The end of a command: its exit code, the seconds until then, its standard output and standard error.

    Seconds after a signal do not count while the command waits for a processor.
    """

    code: int
    took_s: float
    printed: str
    text: str


def start(arguments: Sequence[object], folder: Path, temporary: Path, *, warm: bool = False) -> subprocess.Popen[str]:
    """Start a command in a folder, with a folder for temporary files of its own.

    A warm program skips the imports. It gets SIGINT and SIGTERM from its client, and is killed where that is gone.
    """
    program = programs() if warm else Path(sys.executable).parent
    command = [str(program / "edgevit"), *map(str, arguments)]
    environment = {**os.environ, "TMPDIR": str(temporary), OWN: "1"}
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True, stdin=subprocess.DEVNULL)  # fmt: skip


def end(process: subprocess.Popen[str], number: int) -> End:
    """Send a signal to a command, and return its end."""
    begin, waited_s = time.monotonic(), queued_s(process.pid)
    process.send_signal(number)
    queue_s = waited_s
    while is_running(process.pid) and time.monotonic() - begin < seconds(30):
        queue_s = max(queue_s, queued_s(process.pid))
        time.sleep(_POLL_S)
    took_s = time.monotonic() - begin - (queue_s - waited_s)
    printed, text = process.communicate(timeout=seconds(30))
    return End(process.returncode, took_s, printed, text)


def pid_of(out: Path) -> int:
    """Return the process that exports into a folder, once its hidden folder is there."""
    assert wait_until(lambda: bool(list(out.glob(".*.partial"))), 60), "no export began"
    return int(next(out.glob(".*.partial")).name.split(".")[-2].partition("-")[0])


def leftovers(out: Path, temporary: Path) -> list[str]:
    """Return the hidden entries of an output folder, and all temporary files."""
    hidden = [*out.glob(".*")] if out.exists() else []
    return sorted(path.name for path in (*hidden, *temporary.iterdir()))


def end_all_in(folder: Path) -> list[int]:
    """Kill the processes that work in a folder or below it; return their numbers."""
    pids = running_in(folder)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    assert wait_until(lambda: not any(map(is_running, pids)))
    return pids


def kill_often(
    arguments: Sequence[object],
    folder: Path,
    numbers: Sequence[int],
    look: Callable[[End], None],
    *,
    seed: int = 0,
    warm: bool = False,
) -> None:
    """End a command by each of these signals at a random moment of its life; then let it run to its end.

    The moments are spread evenly over the life of a whole run before. `look` examines what each end has left, that of
    whole runs included. What a signal leaves that a program hears is nothing, and nothing goes on.
    """
    temporary, dice = folder / TEMPORARY, random.Random(seed)
    # The first of several warm programs waits until their imports are done.
    for _ in range(1 + warm):
        ended = finish(arguments, folder, warm=warm)
        look(ended)
    life_s = ended.took_s
    moments = [(turn + dice.random()) / len(numbers) * life_s for turn in range(len(numbers))]
    for number, moment in zip(numbers, dice.sample(moments, len(moments)), strict=True):
        process = start(arguments, folder, temporary, warm=warm)
        time.sleep(moment)
        ended = end(process, number)
        # Ahead of the command's own handlers a signal ends the process itself, which a shell shows as the same code.
        assert ended.code in (0, ENDING.get(signal.Signals(number), -number), -number), (moment, ended)
        assert "Traceback" not in ended.text or ended.code == -number, (moment, ended)
        assert wait_until(lambda: not running_in(folder), 5), (moment, running_in(folder))
        if number != signal.SIGKILL:
            assert (left := leftovers(folder / "out", temporary)) == [], (left, moment, ended)
        look(ended)
    look(finish(arguments, folder, warm=warm))


def finish(arguments: Sequence[object], folder: Path, *, warm: bool = False) -> End:
    """Let a command run to its end, which must be good, and nothing may be left of it and of those before."""
    begin = time.monotonic()
    process = start(arguments, folder, folder / TEMPORARY, warm=warm)
    printed, text = process.communicate(timeout=seconds(120))
    assert process.returncode == 0, text
    assert (left := leftovers(folder / "out", folder / TEMPORARY)) == [], left
    assert running_in(folder) == [], "something goes on"
    return End(process.returncode, time.monotonic() - begin, printed, text)
