"""Commands that are ended by a signal: soon, with the exit code of a shell, and without a trace."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from support.command_line import edgevit
from support.killing import ENDING, end, leftovers, pid_of, start
from support.processes import is_running
from support.speed import seconds, wait_until

# What a command does, and what it prints at its end.
SLEEPER = """
import sys, time
from edgevit.cli.signals import unwinding
try:
    with unwinding():
        try:
            print("ready", flush=True)
            time.sleep(60)
        finally:
            print("cleaned up", flush=True)
            if "again" in sys.argv:
                print("ready", flush=True)
                time.sleep(0.5)
                print("undisturbed", flush=True)
finally:
    print("after", flush=True)
"""

# No signal handler of Python runs while sum() computes, as while a converter does.
STUCK = """
from pathlib import Path
from torch import nn
from net import tiny

class Stuck(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = tiny()

    def forward(self, x):
        if list(Path("out").glob(".*.partial")):
            sum(range(10**14))
        return self.net(x)

def stuck():
    return Stuck().eval()
"""


@pytest.fixture
def here(here: Path) -> Path:
    """A folder with a network, and one whose conversion does not end."""
    (here / "stuck.py").write_text(STUCK)
    return here


def exports(model: str = "stuck.py:stuck") -> Sequence[object]:
    """Return an export into `out`."""
    return ("export", model, "-t", "onnx", "--input-size", "32", "-o", "out", "--db", "x.db")


def sleeper(*arguments: str, before: str = "") -> subprocess.Popen[str]:
    """Start a program that waits for a signal."""
    command = [sys.executable, "-c", before + SLEEPER, *arguments]
    process = subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("number", ENDING, ids=lambda number: number.name)
def test_a_signal_unwinds_a_command_and_gives_its_exit_code(number: signal.Signals) -> None:
    process = sleeper()
    process.send_signal(number)
    printed, text = process.communicate(timeout=seconds(20))
    assert (process.returncode, printed, text) == (ENDING[number], "cleaned up\nafter\n", "")


def test_a_second_signal_does_not_disturb_the_end() -> None:
    process = sleeper("again")
    process.send_signal(signal.SIGTERM)
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in range(2)] == ["cleaned up\n", "ready\n"]
    process.send_signal(signal.SIGHUP)
    printed, _ = process.communicate(timeout=seconds(20))
    assert (process.returncode, printed) == (143, "undisturbed\nafter\n"), "the first one counts"


def test_what_nohup_ignores_stays_ignored() -> None:
    process = sleeper(before="import signal\nsignal.signal(signal.SIGHUP, signal.SIG_IGN)\n")
    process.send_signal(signal.SIGHUP)
    time.sleep(0.3)
    assert process.poll() is None
    process.terminate()
    assert process.communicate(timeout=seconds(20))[0].startswith("cleaned up") and process.returncode == 143


@pytest.mark.parametrize(
    "number",
    [signal.SIGINT, signal.SIGTERM, pytest.param(signal.SIGHUP, marks=pytest.mark.slow)],
    ids=lambda number: number.name,
)
def test_an_export_hears_a_signal_while_its_converter_computes(number: signal.Signals, here: Path) -> None:
    process = start(exports(), here, here / "tmp")
    child = pid_of(here / "out")
    time.sleep(0.3)
    code, took_s, _, text = end(process, number)
    assert code == ENDING[number], text
    assert took_s < seconds(2), text
    assert not is_running(child) and "Traceback" not in text
    assert not (here / "out").exists() and leftovers(here / "out", here / "tmp") == []


@pytest.mark.slow
def test_what_a_killed_export_leaves_is_removed_by_the_next_one(here: Path) -> None:
    process = start(exports(), here, here / "tmp")
    child = pid_of(here / "out")
    process.kill()
    process.communicate()
    assert leftovers(here / "out", here / "tmp") != []
    assert wait_until(lambda: not is_running(child)), "its child computes on"
    outcome = edgevit(*exports("net.py:tiny"), folder=here)
    assert outcome.returncode == 0, outcome.stderr
    assert leftovers(here / "out", here / "tmp") == [] and [one.name for one in (here / "out").iterdir()] == [
        "net-tiny-32-onnx-fp32"
    ]


@pytest.mark.slow
def test_a_second_export_waits_for_the_first(here: Path) -> None:
    first = start(exports(), here, here / "tmp")
    pid_of(here / "out")
    second = start(exports("net.py:tiny"), here, here / "tmp")
    assert second.stderr is not None
    line = second.stderr.readline()
    assert f"out is in use by process {first.pid} on " in line and "edgevit export stuck.py:stuck" in line
    assert end(first, signal.SIGTERM)[0] == 143
    _, text = second.communicate(timeout=seconds(60))
    assert second.returncode == 0, text
    assert leftovers(here / "out", here / "tmp") == []


def test_a_mistyped_database_is_not_made(here: Path) -> None:
    (here / "latency.db").write_bytes(b"")
    reading = [("choose",), ("report",), ("db", "show"), ("db", "stats"), ("db", "epochs"), ("db", "check"),
               ("db", "quarantine"), ("db", "export", "rows.jsonl"), ("db", "sql", "SELECT 1")]  # fmt: skip
    for words in reading:
        outcome = edgevit(*words, "--db", "latncy.db", folder=here)
        assert outcome.returncode == 1 and "there is no such database" in outcome.stderr, words
        assert "latency.db" in outcome.stderr and not (here / "latncy.db").exists(), words
