"""Locks of devices: one run at a time measures on a device, because two disturb each other's numbers.

A lock belongs to one unit under all its names. It stands in the user's data folder on this machine: it
keeps this user's runs apart, and not those of others or of another machine that reaches the same device.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import platformdirs

from edgevit.concurrency.lock_file import locked_file, warn_in_log
from edgevit.errors import DeviceError
from edgevit.records.measurement import Device

_DIGITS = 16  # hex digits of a lock file's name


class _Held(threading.local):
    """The lock files that this thread holds."""

    def __init__(self) -> None:
        self.paths: set[Path] = set()


_HELD = _Held()


@contextmanager
def locked_device(device: Device, on_wait: Callable[[str], None] = warn_in_log) -> Iterator[None]:
    """Hold a device for measurements. While another run of this user holds it, wait.

    on_wait: called once before waiting, with the run that holds the device. A thread that holds the device may enter
    again. Raises DeviceError where the lock cannot be written.
    """
    path = lock_path(device)
    if path in _HELD.paths:
        yield
        return
    with ExitStack() as stack:
        try:
            stack.enter_context(locked_file(path, f"the device {device.name}", on_wait))
        except OSError as error:
            raise DeviceError(
                "the device cannot be locked",
                where=str(path),
                why=str(error.strerror or error),
                fix="make the folder writable, or set XDG_DATA_HOME to one that is",
            ) from error
        _HELD.paths.add(path)
        stack.callback(_HELD.paths.discard, path)
        yield


def lock_path(device: Device) -> Path:
    """Return the lock file of a unit. A device of unknown unit is known by its name."""
    unit = device.device_id or f"{device.transport}\0{device.name}"
    return platformdirs.user_data_path("edgevit") / "locks" / f"{hashlib.sha256(unit.encode()).hexdigest()[:_DIGITS]}"
