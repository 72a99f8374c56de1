"""Identity and hardware of a device: its unit number, board, cores and accelerators.

Every reader takes the root of the file system, so that a test can pass a temporary one. Unknown values are None or
absent; nothing is guessed.
"""

from __future__ import annotations

import platform
import re
import sys
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from edgevit_runtime.emulation import emulated
from edgevit_runtime.environment import installed
from edgevit_runtime.record import DeviceInventory
from edgevit_runtime.system_files import text

# Files that identify one unit, best first: a board's serial number, then the installation.
_SERIAL_FILES = ("proc/device-tree/serial-number", "sys/devices/soc0/serial_number")
_INSTALLATION_FILES = ("etc/machine-id", "var/lib/dbus/machine-id")
_PERMANENT = "0"  # how a network card got its address: it was made with it
_VIRTUAL = "hypervisor"  # a flag of a virtual machine's processor
_RANDOM_NODE = 1 << 40  # uuid.getnode() sets this bit of a random number, where there is no network card
_BOARD_FILES = ("proc/device-tree/model", "sys/devices/virtual/dmi/id/product_name")
_NODES = {  # device files that only an accelerator's driver creates
    "dev/nvhost-gpu": "NVIDIA integrated GPU",
    "dev/apex_0": "Coral Edge TPU",
    "dev/hailo0": "Hailo",
    "dev/accel/accel0": "accelerator of the kernel's accel subsystem",
}


def unit(root: Path = Path("/")) -> str:
    """Return this unit's own number; empty where it has none.

    A board's serial number stays with the board. An installation's number is copied with its disk, so it is joined with
    what the hardware adds to it.
    """
    if serial := next(filter(None, (text(root / name) for name in _SERIAL_FILES)), ""):
        return serial
    if installation := next(filter(None, (text(root / name) for name in _INSTALLATION_FILES)), ""):
        return " ".join(filter(None, (installation, _own_address(root))))
    node = uuid.getnode()
    return "" if node & _RANDOM_NODE else f"{node:012x}"


def is_clonable(root: Path = Path("/")) -> bool:
    """Return whether a copy of this machine's disk would answer with the same number on another machine."""
    has_serial = any(text(root / name) for name in _SERIAL_FILES)
    return not has_serial and any(text(root / name) for name in _INSTALLATION_FILES) and not _own_address(root)


def _own_address(root: Path) -> str:
    """Return the permanent address of the first network card on the board; empty for a board without one.

    Cards on USB move from machine to machine, and those of a virtual machine are new at every start.
    """
    if _VIRTUAL in text(root / "proc/cpuinfo").split():
        return ""
    cards = {}
    for card in (root / "sys/class/net").glob("*"):
        place = str((card / "device").resolve()) if (card / "device").exists() else ""
        if place and "/usb" not in place and text(card / "addr_assign_type") == _PERMANENT:
            cards[place] = text(card / "address")
    return cards[min(cards)] if cards else ""


def detect(engines: Sequence[str], root: Path = Path("/")) -> DeviceInventory:
    """Return this device's hardware, and the installed ones of these distributions.

    Under emulation the system files are those of another machine, and are not read.
    """
    real = not emulated(root)
    versions = {name: version for name in engines for _, version in [installed((name,))] if version}
    return DeviceInventory(
        os=_os(root),
        board=next(filter(None, (text(root / name) for name in _BOARD_FILES)), None) if real else None,
        physical_cores=_physical_cores(root) if real else None,
        accelerators=tuple(dict.fromkeys(_accelerators(root))) if real else (),
        engines=versions,
    )


def _os(root: Path) -> str | None:
    if platform.system() == "Darwin":
        return f"macOS {platform.mac_ver()[0]}"
    named = re.search(r'^PRETTY_NAME="?([^"\n]*)', text(root / "etc/os-release"), re.MULTILINE)
    if named:
        return named[1]
    return f"Android, API {sys.getandroidapilevel()}" if hasattr(sys, "getandroidapilevel") else None


def _physical_cores(root: Path) -> int | None:
    """Count the groups of threads that share a core."""
    files = (root / "sys/devices/system/cpu").glob("cpu[0-9]*/topology/thread_siblings_list")
    return len({text(path) for path in files} - {""}) or None


def _accelerators(root: Path) -> Iterator[str]:
    for path in sorted((root / "proc/driver/nvidia/gpus").glob("*/information")):
        if model := re.search(r"^Model:\s*(.+)$", text(path), re.MULTILINE):
            yield model[1].strip()
    yield from (accelerator for path, accelerator in _NODES.items() if (root / path).exists())
    for card in sorted((root / "sys/class/drm").glob("renderD*")):
        with suppress(OSError):
            yield f"GPU, driver {(card / 'device/driver').readlink().name}"
    # Every such chip has both.
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        yield from ("Apple GPU", "Apple Neural Engine")
