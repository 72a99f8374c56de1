"""Whether this processor is an emulated one: then the system's files are those of the machine around it."""

from __future__ import annotations

import platform
import re
from contextlib import suppress
from pathlib import Path

from edgevit_runtime.system_files import text

# Fields of /proc/cpuinfo on x86 kernels and on ARM kernels; those of a foreign architecture reveal emulation.
_X86_FIELDS, _ARM_FIELDS = ("vendor_id",), ("CPU implementer",)
_QEMU_WHOLE = "QEMU TCG"  # the model name of a whole machine that QEMU emulates in software


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
