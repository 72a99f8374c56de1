"""Locks of devices: one run at a time measures on a device."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from edgevit.devices.device_lock import lock_path, locked_device
from edgevit.errors import DeviceError
from edgevit.records.measurement import Device
from support import toys
from support.speed import seconds, wait_until

HOLD = """
import sys
from edgevit.devices.device_lock import locked_device
from edgevit.records.measurement import Device
sys.argv = ["/bin/edgevit", "profile", "a b"]
with locked_device(Device("local", "unit", "any", "local")):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def another_run() -> Iterator[subprocess.Popen[str]]:
    """Start a process that holds the local device of the toys."""
    command = [sys.executable, "-c", HOLD]
    with subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


class Waiting(threading.Thread):
    """A thread that enters the lock of a device, and notes what it is told before."""

    def __init__(self, device: Device = toys.LOCAL) -> None:
        super().__init__(daemon=True)
        self.device, self.messages = device, list[str]()
        self.entered, self.entered_again = threading.Event(), threading.Event()
        self.start()

    def run(self) -> None:
        """Enter twice and leave."""
        with locked_device(self.device, self.messages.append):
            self.entered.set()
            with locked_device(self.device, self.messages.append):
                self.entered_again.set()


def test_a_second_run_waits_and_is_told_who_measures_there() -> None:
    with another_run() as process:
        waiting = Waiting()
        assert wait_until(lambda: waiting.messages) and not waiting.entered.wait(0.5)
        [message] = waiting.messages
        assert message.startswith(f"the device local is in use by process {process.pid} on ")
        assert " since 20" in message and "edgevit profile 'a b'; waiting until that ends" in message
        process.communicate("")
        assert waiting.entered.wait(seconds(10))
        waiting.join()
    assert not lock_path(toys.LOCAL).exists()


def test_a_killed_run_holds_nothing() -> None:
    with another_run() as process:
        process.kill()
        process.communicate()
        assert lock_path(toys.LOCAL).exists()
        waiting = Waiting()
        assert waiting.entered.wait(seconds(10)) and waiting.messages == []


def test_a_unit_has_one_lock_under_all_its_names_and_each_unit_its_own() -> None:
    same = replace(toys.LOCAL, name="board", transport="ssh", options={"host": "127.0.0.1"})
    other = replace(toys.LOCAL, device_id="another unit")
    unknown = [Device("phone", "", "any", transport) for transport in ("adb", "ssh")]
    assert lock_path(same) == lock_path(toys.LOCAL)
    assert len({lock_path(device) for device in (same, other, *unknown)}) == 4
    with another_run():
        assert Waiting(other).entered.wait(seconds(10))
        waiting = Waiting(same)
        assert wait_until(lambda: waiting.messages) and not waiting.entered.is_set()


def test_who_holds_a_device_enters_again_and_other_threads_wait() -> None:
    assert Waiting().entered_again.wait(seconds(10))
    with locked_device(toys.LOCAL):
        assert json.loads(lock_path(toys.LOCAL).read_text())["pid"] == os.getpid()
        waiting = Waiting()
        assert wait_until(lambda: waiting.messages) and not waiting.entered.is_set()
    assert waiting.entered.wait(seconds(10))


def test_a_lock_that_cannot_be_written_is_an_error_with_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "file"))
    with pytest.raises(DeviceError, match="cannot be locked") as caught, locked_device(toys.LOCAL):
        pass
    assert str(tmp_path / "file") in caught.value.where and "XDG_DATA_HOME" in caught.value.fix
