"""The silicon of a machine as its kernel describes it: identity, instruction sets, clusters of cores, hypervisor.

A virtual machine's model name tells little: `AMD EPYC` is any of several generations, and one may take twice the time
of another. What is read here is raw; edgevit/devices/silicon_names.py gives it names.
"""

from __future__ import annotations

import dataclasses
import functools
import platform
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from edgevit_runtime import cgroup
from edgevit_runtime.emulation import emulated
from edgevit_runtime.record import CoreCluster, Silicon
from edgevit_runtime.system_files import RootFiles, SystemFiles, cores

# Instruction sets by which the engines choose their kernels, as the kernel spells them in /proc/cpuinfo.
X86_SETS = (
    "sse4_1", "avx", "f16c", "fma", "avx2", "avx_vnni", "avx_vnni_int8", "avx_ne_convert", "gfni",
    "avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni", "avx512vbmi", "avx512_bf16",
    "avx512_fp16", "avx10", "amx_tile", "amx_int8", "amx_bf16", "amx_fp16",
)  # fmt: skip
ARM_SETS = (
    "neon", "asimd", "vfpv4", "asimdhp", "asimddp", "asimdfhm", "i8mm", "bf16", "sve", "svei8mm", "svebf16", "sve2",
    "sme", "sme2",
)  # fmt: skip
RISCV_SETS = ("v", "zfh", "zvfh", "zvl256b", "zba", "zbb")
_CPU = "sys/devices/system/cpu"
_SIZE = re.compile(r"(\d+)([KMG]?)")
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}
_CACHE_KINDS = {"Data": "d", "Instruction": "i"}  # a unified cache has no letter
# Names of macOS for what Linux names otherwise.
_OF_APPLE = {
    "hw.optional.AdvSIMD": "asimd",
    "hw.optional.arm.FEAT_FP16": "asimdhp",
    "hw.optional.arm.FEAT_DotProd": "asimddp",
    "hw.optional.arm.FEAT_FHM": "asimdfhm",
    "hw.optional.arm.FEAT_I8MM": "i8mm",
    "hw.optional.arm.FEAT_BF16": "bf16",
    "hw.optional.arm.FEAT_SME": "sme",
    "hw.optional.arm.FEAT_SME2": "sme2",
    "hw.optional.avx2_0": "avx2",
    "hw.optional.avx512f": "avx512f",
    "hw.optional.avx512vnni": "avx512_vnni",
}


def read(root: Path = Path("/")) -> Silicon | None:
    """Return this machine's silicon; None where nothing tells it, or where the processor is emulated."""
    if emulated(root):
        return None
    known = _of_this_machine() if root == Path("/") else of_files(RootFiles(root))
    return known and dataclasses.replace(known, quota_cores=cgroup.quota_cores(root))


@functools.cache
def _of_this_machine() -> Silicon | None:
    """Return what does not change while this process runs: a listing asks for it with each of its rows."""
    return _of_apple(_sysctl()) if platform.system() == "Darwin" else of_files(RootFiles())


def of_files(files: SystemFiles) -> Silicon | None:
    """Return the silicon that the files of a Linux or Android system describe; None where they describe none."""
    blocks = list(_blocks(files.text("proc/cpuinfo")))
    if not blocks:
        return None
    first = blocks[0]
    return Silicon(
        vendor=first.get("vendor_id") or first.get("CPU implementer") or first.get("uarch", ""),
        family=_integer(first.get("cpu family", "")),
        model=_integer(first.get("model", "")),
        stepping=_integer(first.get("stepping", "")),
        instruction_sets=_instruction_sets(blocks),
        clusters=tuple(_clusters(files, blocks)),
        hypervisor=_hypervisor(files, first),
    )


def _caches(files: SystemFiles, core: int) -> Iterator[tuple[str, int]]:
    """Yield the caches of a core: level and bytes."""
    for level_file in files.names(f"{_CPU}/cpu{core}/cache/index[0-9]*/level"):
        folder = level_file.removesuffix("/level")
        size = _SIZE.fullmatch(files.text(f"{folder}/size"))
        if size and (level := files.text(level_file)):
            kind = _CACHE_KINDS.get(files.text(f"{folder}/type"), "")
            yield f"L{level}{kind}", int(size[1]) * _UNITS[size[2]]


def _blocks(cpuinfo: str) -> Iterator[dict[str, str]]:
    """Yield the fields of each processor in /proc/cpuinfo; an old ARM kernel has the common ones at the end."""
    block: dict[str, str] = {}
    common: dict[str, str] = {}
    blocks = []
    for line in cpuinfo.splitlines():
        name, colon, value = line.partition(":")
        if not colon:
            continue
        name, value = name.strip(), value.strip()
        if name == "processor":
            block = {}
            blocks.append(block)
        block.setdefault(name, value)
        common[name] = value
    if blocks and not any("CPU part" in block or "flags" in block or "isa" in block for block in blocks[:-1]):
        blocks = [{**common, **block} for block in blocks]
    yield from blocks


def _integer(text: str) -> int | None:
    return int(text) if text.isdecimal() else None


def _instruction_sets(blocks: Sequence[Mapping[str, str]]) -> tuple[str, ...]:
    """Return the sets that every core has, in the order of the lists above. A thread may move to any core."""
    shared = set.intersection(*map(_sets_of, blocks))
    return tuple(name for name in (*X86_SETS, *ARM_SETS, *RISCV_SETS) if name in shared)


def _sets_of(block: Mapping[str, str]) -> set[str]:
    """Return the sets of one core. RISC-V has one word, `rv64imafdcv_zba_zbb`, whose first part is letters."""
    if "isa" in block:
        letters, *extensions = block["isa"].split("_")
        return {*letters[len("rv64") :], *extensions}
    return {*block.get("flags", "").split(), *block.get("Features", "").split()}


def _clusters(files: SystemFiles, blocks: Sequence[Mapping[str, str]]) -> Iterator[CoreCluster]:
    """Group the cores by their part number, on ARM by their highest clock too, and on x86 by the kernel's two kinds."""
    small = set(cores(files.text("sys/devices/cpu_atom/cpus")))
    groups: dict[tuple[str, int | None], list[int]] = {}
    clocks: dict[int, int | None] = {}
    for block in blocks:
        core = _integer(block.get("processor", ""))
        if core is None:
            continue
        clocks[core] = _integer(files.text(f"{_CPU}/cpu{core}/cpufreq/cpuinfo_max_freq"))
        if "CPU part" in block:
            part = f"{block.get('CPU implementer', '')}:{block['CPU part']}"
            groups.setdefault((part, clocks[core]), []).append(core)
        else:
            groups.setdefault(("small" if core in small else "", None), []).append(core)
    for (part, _), members in groups.items():
        highest = max((clock for core in members if (clock := clocks[core]) is not None), default=None)
        yield CoreCluster(len(members), part, highest, tuple(_caches(files, members[0])))


def _hypervisor(files: SystemFiles, first: Mapping[str, str]) -> str:
    """Return the hypervisor below this machine, `unknown` for one without a name; empty where there is no sign."""
    named = files.text("sys/hypervisor/type") or files.text("proc/device-tree/hypervisor/compatible")
    if named:
        return named
    if "hypervisor" not in first.get("flags", "").split():
        return ""
    return files.text("sys/class/dmi/id/sys_vendor") or "unknown"


def _sysctl() -> dict[str, str]:
    """Return what macOS says of its processor, by name."""
    try:
        query = subprocess.run(["sysctl", "-a"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return {}
    pairs = (line.partition(": ") for line in query.stdout.splitlines())
    return {name: value for name, _, value in pairs if name.startswith(("hw.", "machdep.cpu.", "kern.hv_vmm"))}


def _of_apple(values: Mapping[str, str]) -> Silicon | None:
    """Return the silicon that macOS describes: level 0 has the fast cores, level 1 the small ones."""
    if not values:
        return None
    brand = values.get("machdep.cpu.brand_string", "")
    clusters = []
    for level in range(int(values.get("hw.nperflevels", "0"))):
        prefix = f"hw.perflevel{level}"
        sizes = {"L1d": f"{prefix}.l1dcachesize", "L1i": f"{prefix}.l1icachesize", "L2": f"{prefix}.l2cachesize"}
        known = tuple((name, int(values[key])) for name, key in sizes.items() if values.get(key, "").isdecimal())
        clusters.append(CoreCluster(int(values.get(f"{prefix}.logicalcpu", "0")), brand, None, known))
    return Silicon(
        vendor=values.get("machdep.cpu.vendor") or ("Apple" if brand.startswith("Apple") else ""),
        family=_integer(values.get("machdep.cpu.family", "")),
        model=_integer(values.get("machdep.cpu.model", "")),
        stepping=_integer(values.get("machdep.cpu.stepping", "")),
        instruction_sets=tuple(set_ for name, set_ in _OF_APPLE.items() if values.get(name) == "1"),
        clusters=tuple(clusters),
        hypervisor="unknown" if values.get("kern.hv_vmm_present") == "1" else "",
    )
