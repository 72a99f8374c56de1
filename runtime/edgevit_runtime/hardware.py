"""Identity and hardware of a device: its unit number, an emulated processor, board, caches and accelerators.

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

from edgevit_runtime.environment import installed, text
from edgevit_runtime.record import DeviceInventory

# Files that identify one unit, best first: a board's serial number, then the installation.
_UNIT_FILES = ("proc/device-tree/serial-number", "etc/machine-id", "var/lib/dbus/machine-id")
_RANDOM_NODE = 1 << 40  # uuid.getnode() sets this bit of a random number, where there is no network card
_BOARD_FILES = ("proc/device-tree/model", "sys/devices/virtual/dmi/id/product_name")
_SIZE = re.compile(r"(\d+)([KMG]?)")
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}
_CACHE_KINDS = {"Data": "d", "Instruction": "i"}  # a unified cache has no letter
_NODES = {  # device files that only an accelerator's driver creates
    "dev/nvhost-gpu": "NVIDIA integrated GPU",
    "dev/apex_0": "Coral Edge TPU",
    "dev/hailo0": "Hailo",
    "dev/accel/accel0": "accelerator of the kernel's accel subsystem",
}
# Fields of /proc/cpuinfo on x86 kernels and on ARM kernels; those of a foreign architecture reveal emulation.
_X86_FIELDS, _ARM_FIELDS = ("vendor_id",), ("CPU implementer",)
_QEMU_WHOLE = "QEMU TCG"  # the model name of a whole machine that QEMU emulates in software


def unit(root: Path = Path("/")) -> str:
    """Return this unit's own number; empty where it has none."""
    for name in _UNIT_FILES:
        if number := text(root / name):
            return number
    node = uuid.getnode()
    return "" if node & _RANDOM_NODE else f"{node:012x}"


def emulated(root: Path = Path("/"), machine: str = platform.machine()) -> str:
    """Return the emulator of this processor; empty where there is no sign of one.

    qemu-user shows a program its own path as /proc/self/exe and, from release 8.1 on, a fitting processor in
    /proc/cpuinfo. It does not change /proc/thread-self, which contains the same link.
    """
    with suppress(OSError):
        name = (root / "proc/thread-self/exe").readlink().name
        if re.match(r"qemu-|box64|FEXInterpreter|rosetta", name):
            return name.removesuffix("-static")
    processor = text(root / "proc/cpuinfo")
    if _QEMU_WHOLE in processor:
        return "qemu"
    fields = {line.partition(":")[0].strip() for line in processor.splitlines()}
    is_arm, is_x86 = machine in ("aarch64", "armv7l", "armv6l"), machine in ("x86_64", "i686", "i386")
    if (is_arm and fields.issuperset(_X86_FIELDS)) or (is_x86 and fields.issuperset(_ARM_FIELDS)):
        return "unknown"
    return "rosetta" if _is_translated() else ""


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
        caches=dict(_caches(root)) if real else {},
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


def _caches(root: Path) -> Iterator[tuple[str, int]]:
    for folder in sorted((root / "sys/devices/system/cpu/cpu0/cache").glob("index[0-9]*")):
        level, size = text(folder / "level"), _SIZE.fullmatch(text(folder / "size"))
        if level and size:
            kind = _CACHE_KINDS.get(text(folder / "type"), "")
            yield f"L{level}{kind}", int(size[1]) * _UNITS[size[2]]


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


def _is_translated() -> bool:
    """Return whether macOS translates this x86 program (Rosetta)."""
    if platform.system() != "Darwin":
        return False
    import ctypes

    value, size = ctypes.c_int(0), ctypes.c_size_t(4)
    failed = ctypes.CDLL(None).sysctlbyname(
        b"sysctl.proc_translated", ctypes.byref(value), ctypes.byref(size), None, ctypes.c_size_t(0)
    )
    return not failed and value.value == 1
