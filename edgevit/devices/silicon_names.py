"""Names for silicon: the microarchitecture by a kept table, and the instruction sets that set it apart.

Numbers of families, models and parts are those of the Linux kernel (arch/x86/include/asm/intel-family.h,
arch/x86/kernel/cpu/amd.c, arch/arm64/include/asm/cputype.h) and of util-linux (sys-utils/lscpu-arm.c).
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter

from edgevit_runtime.codec import to_json
from edgevit_runtime.record import Silicon

_AVX = frozenset({"sse4_1", "avx"})
_AVX2 = _AVX | {"f16c", "fma", "avx2"}
_AVX512 = _AVX2 | {"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"}
_CASCADE_LAKE = _AVX512 | {"avx512_vnni"}
_ICE_LAKE = _CASCADE_LAKE | {"avx512vbmi", "gfni"}
_ZEN4 = _ICE_LAKE | {"avx512_bf16"}
_SAPPHIRE_RAPIDS = _ZEN4 | {"avx_vnni", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16"}
_ALDER_LAKE = _AVX2 | {"avx_vnni", "gfni"}
_ARROW_LAKE = _ALDER_LAKE | {"avx_vnni_int8", "avx_ne_convert"}
# The instruction sets of a microarchitecture, of those that silicon.X86_SETS lists.
_X86_SETS: dict[str, frozenset[str]] = {
    "bonnell": frozenset(), "silvermont": frozenset({"sse4_1"}), "airmont": frozenset({"sse4_1"}),
    "goldmont": frozenset({"sse4_1"}), "tremont": frozenset({"sse4_1", "gfni"}),
    "gracemont": _ALDER_LAKE, "crestmont": _ARROW_LAKE,
    "nehalem": frozenset({"sse4_1"}), "westmere": frozenset({"sse4_1"}), "sandybridge": _AVX,
    "ivybridge": _AVX | {"f16c"}, "haswell": _AVX2, "broadwell": _AVX2, "skylake": _AVX2, "kabylake": _AVX2,
    "cometlake": _AVX2, "skylake-avx512": _AVX512, "cascadelake": _CASCADE_LAKE,
    "cooperlake": _CASCADE_LAKE | {"avx512_bf16"}, "icelake": _ICE_LAKE, "tigerlake": _ICE_LAKE,
    "rocketlake": _ICE_LAKE,
    "alderlake": _ALDER_LAKE, "raptorlake": _ALDER_LAKE, "meteorlake": _ALDER_LAKE, "arrowlake": _ARROW_LAKE,
    "lunarlake": _ARROW_LAKE, "sapphirerapids": _SAPPHIRE_RAPIDS, "emeraldrapids": _SAPPHIRE_RAPIDS,
    "graniterapids": _SAPPHIRE_RAPIDS | {"amx_fp16"},
    "jaguar": _AVX | {"f16c"}, "bulldozer": _AVX, "piledriver": _AVX | {"f16c", "fma"},
    "steamroller": _AVX | {"f16c", "fma"}, "excavator": _AVX2,
    "zen": _AVX2, "zen2": _AVX2, "zen3": _AVX2, "zen4": _ZEN4, "zen5": _ZEN4 | {"avx_vnni"},
}  # fmt: skip
_INTEL = {
    "bonnell": (0x1C, 0x26, 0x27, 0x35, 0x36), "silvermont": (0x37, 0x4A, 0x4D, 0x5A, 0x5D), "airmont": (0x4C, 0x75),
    "goldmont": (0x5C, 0x5F, 0x7A), "tremont": (0x86, 0x8A, 0x96, 0x9C), "gracemont": (0xBE,),
    "crestmont": (0xAF, 0xB6),
    "nehalem": (0x1A, 0x1E, 0x1F, 0x2E), "westmere": (0x25, 0x2C, 0x2F), "sandybridge": (0x2A, 0x2D),
    "ivybridge": (0x3A, 0x3E), "haswell": (0x3C, 0x3F, 0x45, 0x46), "broadwell": (0x3D, 0x47, 0x4F, 0x56),
    "skylake": (0x4E, 0x5E), "kabylake": (0x8E, 0x9E), "cometlake": (0xA5, 0xA6),
    "icelake": (0x6A, 0x6C, 0x7D, 0x7E, 0x9D), "tigerlake": (0x8C, 0x8D), "rocketlake": (0xA7,),
    "alderlake": (0x97, 0x9A), "raptorlake": (0xB7, 0xBA, 0xBF), "meteorlake": (0xAA, 0xAC),
    "arrowlake": (0xB5, 0xC5, 0xC6), "lunarlake": (0xBD,), "sapphirerapids": (0x8F,), "emeraldrapids": (0xCF,),
    "graniterapids": (0xAD, 0xAE),
}  # fmt: skip
_INTEL_MODELS = {model: name for name, models in _INTEL.items() for model in models}
# Model 0x55 is three generations, told apart by the last stepping of each.
_INTEL_55 = ((4, "skylake-avx512"), (7, "cascadelake"), (11, "cooperlake"))
# (family, first model, last model, name)
_AMD = (
    (0x15, 0x00, 0x01, "bulldozer"), (0x15, 0x02, 0x1F, "piledriver"), (0x15, 0x30, 0x3F, "steamroller"),
    (0x15, 0x60, 0x7F, "excavator"), (0x16, 0x00, 0x3F, "jaguar"),
    (0x17, 0x00, 0x2F, "zen"), (0x17, 0x30, 0x4F, "zen2"), (0x17, 0x50, 0x5F, "zen"), (0x17, 0x60, 0x7F, "zen2"),
    (0x17, 0x84, 0x84, "zen2"), (0x17, 0x90, 0xAF, "zen2"),
    (0x18, 0x00, 0x0F, "zen"),
    (0x19, 0x00, 0x0F, "zen3"), (0x19, 0x10, 0x1F, "zen4"), (0x19, 0x20, 0x5F, "zen3"), (0x19, 0x60, 0xAF, "zen4"),
    (0x1A, 0x00, 0x2F, "zen5"), (0x1A, 0x40, 0x4F, "zen5"), (0x1A, 0x60, 0x7F, "zen5"),
)  # fmt: skip
_ARM_PARTS = {
    "0x41": {
        0xB76: "arm1176", 0xC05: "cortex-a5", 0xC07: "cortex-a7", 0xC08: "cortex-a8", 0xC09: "cortex-a9",
        0xC0D: "cortex-a12", 0xC0E: "cortex-a17", 0xC0F: "cortex-a15", 0xD01: "cortex-a32", 0xD02: "cortex-a34",
        0xD03: "cortex-a53", 0xD04: "cortex-a35", 0xD05: "cortex-a55", 0xD06: "cortex-a65", 0xD07: "cortex-a57",
        0xD08: "cortex-a72", 0xD09: "cortex-a73", 0xD0A: "cortex-a75", 0xD0B: "cortex-a76", 0xD0C: "neoverse-n1",
        0xD0D: "cortex-a77", 0xD0E: "cortex-a76ae", 0xD40: "neoverse-v1", 0xD41: "cortex-a78", 0xD42: "cortex-a78ae",
        0xD43: "cortex-a65ae", 0xD44: "cortex-x1", 0xD46: "cortex-a510", 0xD47: "cortex-a710", 0xD48: "cortex-x2",
        0xD49: "neoverse-n2", 0xD4A: "neoverse-e1", 0xD4B: "cortex-a78c", 0xD4C: "cortex-x1c", 0xD4D: "cortex-a715",
        0xD4E: "cortex-x3", 0xD4F: "neoverse-v2", 0xD80: "cortex-a520", 0xD81: "cortex-a720", 0xD82: "cortex-x4",
        0xD83: "neoverse-v3ae", 0xD84: "neoverse-v3", 0xD85: "cortex-x925", 0xD87: "cortex-a725", 0xD8E: "neoverse-n3",
    },
    "0x48": {0xD01: "tsv110", 0xD40: "cortex-a76"},
    "0x4e": {0x003: "denver-2", 0x004: "carmel"},
    "0x51": {
        0x001: "oryon", 0x201: "kryo", 0x205: "kryo", 0x211: "kryo", 0x800: "kryo-2xx-gold", 0x801: "kryo-2xx-silver",
        0x802: "kryo-3xx-gold", 0x803: "kryo-3xx-silver", 0x804: "kryo-4xx-gold", 0x805: "kryo-4xx-silver",
    },
    "0x53": {0x001: "exynos-m1", 0x002: "exynos-m3", 0x003: "exynos-m4", 0x004: "exynos-m5"},
    "0x61": {
        0x022: "apple-m1-small", 0x023: "apple-m1", 0x024: "apple-m1-small", 0x025: "apple-m1", 0x028: "apple-m1-small",
        0x029: "apple-m1", 0x032: "apple-m2-small", 0x033: "apple-m2", 0x034: "apple-m2-small", 0x035: "apple-m2",
        0x038: "apple-m2-small", 0x039: "apple-m2",
    },
    "0xc0": {0xAC3: "ampere-1", 0xAC4: "ampere-1a"},
}  # fmt: skip
# The best instruction set of a machine: the last one whose sets it has all. On ARM a processor has those before too.
_X86_LEVELS = (
    ("sse41", {"sse4_1"}), ("avx", _AVX), ("avx2", _AVX2), ("avxvnni", _AVX2 | {"avx_vnni"}), ("avx512", _AVX512),
    ("avx512vnni", _CASCADE_LAKE), ("avx512bf16", _AVX512 | {"avx512_bf16"}),
    ("avx512fp16", _AVX512 | {"avx512_fp16"}), ("amx", _AVX512 | {"amx_tile", "amx_int8"}),
)  # fmt: skip
_ARM_LEVELS = (
    ("fp16", {"asimdhp"}), ("dotprod", {"asimddp"}), ("fhm", {"asimdfhm"}), ("i8mm", {"i8mm", "bf16"}),
    ("sve", {"sve", "svei8mm", "svebf16"}), ("sve2", {"sve2"}), ("sme", {"sme"}), ("sme2", {"sme2"}),
)  # fmt: skip
_NEON = {"asimd", "neon", "vfpv4"}  # 64-bit kernels have another name for it
_UNUSUAL_DIGITS = 4


def microarchitecture(silicon: Silicon) -> str:
    """Return the kept table's name for the cores, `1x-cortex-x1-3x-cortex-a78`; empty where the table has none."""
    parts = Counter(cluster.part for cluster in silicon.clusters for _ in range(cluster.cores) if ":" in cluster.part)
    if parts:
        named = {part: _arm_part(part) for part in parts}
        if not all(named.values()):
            return ""
        kinds: Counter[str] = Counter()
        for part, cores in parts.items():
            kinds[named[part]] += cores
        return "-".join(f"{cores}x-{name}" if len(kinds) > 1 else name for name, cores in kinds.items())
    if silicon.vendor.startswith("Apple"):
        return _slug(silicon.clusters[0].part) if silicon.clusters else ""
    if silicon.family is None or silicon.model is None:
        return ""
    if silicon.vendor == "GenuineIntel" and silicon.family == 6:
        return _intel(silicon.model, silicon.stepping)
    if silicon.vendor in ("AuthenticAMD", "HygonGenuine"):
        return next((n for f, a, b, n in _AMD if silicon.family == f and a <= silicon.model <= b), "")
    return ""


def _intel(model: int, stepping: int | None) -> str:
    if model == 0x55:
        return next((name for last, name in _INTEL_55 if stepping is not None and stepping <= last), "")
    return _INTEL_MODELS.get(model, "")


def _arm_part(part: str) -> str:
    implementer, _, number = part.partition(":")
    try:
        return _ARM_PARTS.get(implementer.lower(), {}).get(int(number, 16), "")
    except ValueError:
        return ""


def silicon_name(silicon: Silicon) -> str:
    """Return what tells this silicon from other silicon: `zen3-avx2`, or `authenticamd-28-2-avx2-5c2e`.

    The best instruction set stands for all that its microarchitecture has. A digest of all sets is added where a
    machine has others, as in a virtual machine that hides some. Two machines of one name have the same sets.
    """
    name = microarchitecture(silicon)
    sets = set(silicon.instruction_sets)
    if sets & _NEON or any(":" in cluster.part for cluster in silicon.clusters):
        level, is_usual = _arm_level(sets - _NEON)
    else:
        level = next((level for level, needed in reversed(_X86_LEVELS) if sets >= needed), "")
        is_usual = name in _X86_SETS and sets == _X86_SETS[name]
    parts = [name or _numbers(silicon), level]
    if not (name and is_usual):
        parts.append(hashlib.sha256(to_json(sorted(sets)).encode()).hexdigest()[:_UNUSUAL_DIGITS])
    return "-".join(filter(None, parts))


def _arm_level(sets: set[str]) -> tuple[str, bool]:
    """Return the best level, and whether the machine has exactly the sets up to it."""
    level, usual = "neon", set[str]()
    reached: set[str] = set()
    for name, needed in _ARM_LEVELS:
        usual |= needed
        if sets >= needed:
            level, reached = name, set(usual)
    return level, sets == reached


def _numbers(silicon: Silicon) -> str:
    """Return the numbers of silicon that the table does not know."""
    parts = dict.fromkeys(cluster.part for cluster in silicon.clusters if ":" in cluster.part)
    known = [str(number) for number in (silicon.family, silicon.model) if number is not None]
    return _slug(" ".join(parts or [silicon.vendor, *known])) or "unknown"


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9_]+", "-", text.lower()).strip("-")
