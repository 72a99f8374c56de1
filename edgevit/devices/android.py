"""What an Android phone tells of itself: one script of its own tools, and how its answer is read.

What it does not tell is None or left out. Its clock is read after a run has ended, when the governor may have lowered
it already: it is kept, and no gate goes by it (`nominal_khz` stays None).
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from edgevit_runtime.record import DeviceInventory, Host, Snapshot

_CPU = "/sys/devices/system/cpu"
_CACHE = tuple(f"{_CPU}/cpu0/cache/index*/{name}" for name in ("level", "size", "type"))
_ONCE = ("/proc/cpuinfo", "/proc/meminfo", f"{_CPU}/present", *_CACHE)
_NOW = (
    "/proc/loadavg",
    "/proc/self/status",
    f"{_CPU}/cpu*/cpufreq/scaling_governor",
    f"{_CPU}/cpu*/cpufreq/scaling_cur_freq",
    "/sys/class/thermal/thermal_zone*/type",
    "/sys/class/thermal/thermal_zone*/temp",
)
SNAPSHOT = f"grep -sH . {' '.join(_NOW)}; grep -sH '^cpu ' /proc/stat; dumpsys battery; dumpsys thermalservice; true"
EVERYTHING = f"uname -m; uname -r; getprop; grep -sH . {' '.join(_ONCE)}; {SNAPSHOT}"
_PROPERTY = re.compile(r"^\[([^\]]+)\]: \[(.*)\]$", re.MULTILINE)
_LINE = re.compile(r"^(/(?:proc|sys)/[^:\n]*):(.*)$", re.MULTILINE)
_SIZE = re.compile(r"(\d+)([KMG]?)")
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}
_CACHE_KINDS = {"Data": "d", "Instruction": "i"}
_STEAL, _GUEST = 7, 8  # columns of /proc/stat; guest time is already inside user time
_POWERED = re.compile(r"^ *(?:AC|USB|Wireless|Dock) powered: (true|false)$", re.MULTILINE)
_STATUS = re.compile(r"^Thermal Status: (\d+)$", re.MULTILINE)
_HAL_CPU = re.compile(r"Temperature\{mValue=([\d.]+), mType=0,")
_PLAUSIBLE_MC = range(1_000, 150_000)  # thousandths of a degree; some kernels count whole degrees, or nothing at all
# PowerManager.THERMAL_STATUS_LIGHT: from here on the system slows the processor down.
_LEAST_THROTTLED = 1


@dataclass(frozen=True)
class PhoneReport:
    """What EVERYTHING or SNAPSHOT printed: properties, lines of files by their path, and the rest as it stands."""

    properties: Mapping[str, str]
    files: Mapping[str, tuple[str, ...]]
    text: str

    @classmethod
    def of(cls, text: str) -> PhoneReport:
        """Read what was printed; the phone's line ends may be those of a terminal."""
        text = text.replace("\r\n", "\n")
        files: dict[str, list[str]] = {}
        for path, line in _LINE.findall(text):
            files.setdefault(path, []).append(line)
        return cls(dict(_PROPERTY.findall(text)), {path: tuple(lines) for path, lines in files.items()}, text)

    def first(self, *names: str) -> str:
        """The first of these properties that is set."""
        return next((self.properties[name] for name in names if self.properties.get(name)), "")

    def fields(self, path: str) -> dict[str, str]:
        """`name: value` of a file's lines; the first of a name wins."""
        pairs = (line.partition(":") for line in reversed(self.files.get(path, ())))
        return {name.strip(): value.strip() for name, _, value in pairs}

    def ending(self, suffix: str) -> dict[str, str]:
        """Path -> first line, of the files whose path ends so."""
        return {path: lines[0].strip() for path, lines in self.files.items() if path.endswith(suffix)}


def unit(told: PhoneReport) -> str:
    """The unit's own number; empty where it tells none."""
    return told.first("ro.serialno", "ro.boot.serialno")


def emulated(told: PhoneReport) -> str:
    """What stands in for the phone: `qemu`; empty for a real one."""
    return "qemu" if "1" in (told.first("ro.kernel.qemu"), told.first("ro.boot.qemu")) else ""


def host(told: PhoneReport) -> Host:
    """The phone, but for what changes. It has no Python; its processor is called by the chip that it is in."""
    machine, kernel, *_ = [*told.text.splitlines(), "", ""]
    chip = " ".join(filter(None, (told.first("ro.soc.manufacturer"), told.first("ro.soc.model"))))
    named = told.fields("/proc/cpuinfo").get("Hardware", "") or told.first("ro.board.platform", "ro.hardware")
    memory = told.fields("/proc/meminfo").get("MemTotal", "").split()
    return Host(
        machine=machine.strip(),
        system="Android",
        kernel=kernel.strip(),
        python="",
        cpu_model=chip or named,
        cores=len(_cores("".join(told.files.get(f"{_CPU}/present", ())))) or 1,
        memory_bytes=int(memory[0]) * 1024 if memory and memory[0].isdigit() else None,
    )


def detected(told: PhoneReport, engines: Mapping[str, str]) -> DeviceInventory:
    """What it consists of. An accelerator is named as its driver for OpenGL or Vulkan is."""
    release, level = told.first("ro.build.version.release"), told.first("ro.build.version.sdk")
    board = " ".join(filter(None, (told.first("ro.product.manufacturer"), told.first("ro.product.model"))))
    driver = told.first("ro.hardware.vulkan", "ro.hardware.egl")
    return DeviceInventory(
        os=f"Android {release}" + (f", API {level}" if level else "") if release else None,
        board=board or None,
        physical_cores=None,
        caches=dict(_caches(told)),
        accelerators=(f"GPU, driver {driver}",) if driver else (),
        engines=dict(engines),
    )


def snapshot(told: PhoneReport) -> Snapshot:
    """The phone at this moment, of this machine's clock."""
    load = "".join(told.files.get("/proc/loadavg", ())).split()
    ticks = _ticks(told)
    governors = set(told.ending("/cpufreq/scaling_governor").values())
    clocks = [int(value) for value in told.ending("/cpufreq/scaling_cur_freq").values() if value.isdigit()]
    return Snapshot(
        unix_ns=time.time_ns(),
        affinity=_cores(told.fields("/proc/self/status").get("Cpus_allowed_list", "")),
        governor=",".join(sorted(governors)) or None,
        frequency_khz=max(clocks, default=None),
        temperature_mc=_temperature_mc(told),
        load_1min=float(load[0]) if load and re.fullmatch(r"\d+\.\d+", load[0]) else None,
        steal_ticks=ticks[_STEAL] if ticks else None,
        total_ticks=sum(ticks[:_GUEST]) if ticks else None,
        power_source=_power_source(told),
        throttled=_throttled(told),
    )


def _cores(text: str) -> tuple[int, ...]:
    """`0-3,6` as numbers; none for what is no such list."""
    found: list[int] = []
    for part in text.strip().split(","):
        if not (ends := re.fullmatch(r"(\d+)(?:-(\d+))?", part)):
            return ()
        found += range(int(ends[1]), int(ends[2] or ends[1]) + 1)
    return tuple(found)


def _caches(told: PhoneReport) -> Iterator[tuple[str, int]]:
    for path, level in sorted(told.ending("/level").items()):
        folder = path.removesuffix("/level")
        size = _SIZE.fullmatch("".join(told.files.get(f"{folder}/size", ())))
        if size:
            kind = _CACHE_KINDS.get("".join(told.files.get(f"{folder}/type", ())), "")
            yield f"L{level}{kind}", int(size[1]) * _UNITS[size[2]]


def _ticks(told: PhoneReport) -> list[int]:
    words = "".join(told.files.get("/proc/stat", ())).split()[1:]
    return [int(word) for word in words] if len(words) > _STEAL and all(word.isdigit() for word in words) else []


def _temperature_mc(told: PhoneReport) -> int | None:
    """The hottest zone that is called after the processor, else what the system's thermal service says of it."""
    kinds = told.ending("/type")
    of_cpu = {path.removesuffix("type") + "temp" for path, kind in kinds.items() if "cpu" in kind.lower()}
    zones = [int(text) for path, text in told.ending("/temp").items() if path in of_cpu and text.isdigit()]
    current = told.text.partition("Current temperatures")[2].partition("Current cooling")[0]
    service = [round(float(value) * 1000) for value in _HAL_CPU.findall(current)]
    plausible = ([value for value in found if value in _PLAUSIBLE_MC] for found in (zones, service))
    return max(next(filter(None, plausible), []), default=None)


def _power_source(told: PhoneReport) -> str | None:
    """A phone on a cable is charged by it, and then it is mains."""
    powered = _POWERED.findall(told.text)
    return None if not powered else "mains" if "true" in powered else "battery"


def _throttled(told: PhoneReport) -> bool | None:
    status = _STATUS.search(told.text)
    return int(status[1]) >= _LEAST_THROTTLED if status else None
