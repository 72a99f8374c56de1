"""Hardware, system and state of an Android phone, read from the output of one script of its own tools.

Values that the phone does not report are None or absent. Its clock is read after a run, when the governor may have
lowered it already. So the clock is stored, and the throttling check does not use it (`nominal_khz` stays None).
"""

from __future__ import annotations

import fnmatch
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass

from edgevit_runtime import silicon
from edgevit_runtime.record import DeviceInventory, Host, Snapshot
from edgevit_runtime.system_files import cores

_CPU = "/sys/devices/system/cpu"
_CACHE = tuple(f"{_CPU}/cpu*/cache/index*/{name}" for name in ("level", "size", "type"))
_ONCE = ("/proc/cpuinfo", "/proc/meminfo", f"{_CPU}/present", f"{_CPU}/cpu*/cpufreq/cpuinfo_max_freq", *_CACHE)
_NOW = (
    "/proc/loadavg",
    "/proc/self/status",
    f"{_CPU}/cpu*/cpufreq/scaling_governor",
    f"{_CPU}/cpu*/cpufreq/scaling_cur_freq",
    "/sys/class/thermal/thermal_zone*/type",
    "/sys/class/thermal/thermal_zone*/temp",
)
_COUNTERS = "grep -sHE '^(cpu|procs_running) ' /proc/stat"
SNAPSHOT = f"grep -sH . {' '.join(_NOW)}; {_COUNTERS}; dumpsys battery; dumpsys thermalservice; true"
EVERYTHING = f"uname -m; uname -r; getprop; grep -sH . {' '.join(_ONCE)}; {SNAPSHOT}"
_PROPERTY = re.compile(r"^\[([^\]]+)\]: \[(.*)\]$", re.MULTILINE)
_LINE = re.compile(r"^(/(?:proc|sys)/[^:\n]*):(.*)$", re.MULTILINE)
_STEAL, _GUEST = 7, 8  # columns of /proc/stat; guest time is already inside user time
_POWERED = re.compile(r"^ *(?:AC|USB|Wireless|Dock) powered: (true|false)$", re.MULTILINE)
_STATUS = re.compile(r"^Thermal Status: (\d+)$", re.MULTILINE)
_HAL_CPU = re.compile(r"Temperature\{mValue=([\d.]+), mType=0,")
_PLAUSIBLE_MC = range(1_000, 150_000)  # thousandths of a degree; some kernels count whole degrees, or nothing at all
# PowerManager.THERMAL_STATUS_LIGHT: from this level on the system slows the processor down.
_LEAST_THROTTLED = 1


@dataclass(frozen=True)
class PhoneReport:
    """The parsed output of EVERYTHING or SNAPSHOT: properties, lines of files by their path, and the whole text."""

    properties: Mapping[str, str]
    files: Mapping[str, tuple[str, ...]]
    output: str

    @classmethod
    def of(cls, text: str) -> PhoneReport:
        """Parse the output, whose line ends may be those of a terminal."""
        text = text.replace("\r\n", "\n")
        files: dict[str, list[str]] = {}
        for path, line in _LINE.findall(text):
            files.setdefault(path, []).append(line)
        return cls(dict(_PROPERTY.findall(text)), {path: tuple(lines) for path, lines in files.items()}, text)

    def first(self, *names: str) -> str:
        """Return the first of these properties that is set."""
        return next((self.properties[name] for name in names if self.properties.get(name)), "")

    def fields(self, path: str) -> dict[str, str]:
        """Return the `name: value` pairs of a file's lines. The first value of a name takes precedence."""
        pairs = (line.partition(":") for line in reversed(self.files.get(path, ())))
        return {name.strip(): value.strip() for name, _, value in pairs}

    def text(self, name: str) -> str:
        """Return a file's lines; those without a character are not sent."""
        return "\n".join(self.files.get(f"/{name}", ()))

    def names(self, pattern: str) -> list[str]:
        """Return the names of the files that match a pattern, sorted."""
        return sorted(path[1:] for path in self.files if fnmatch.fnmatchcase(path[1:], pattern))

    def ending(self, suffix: str) -> dict[str, str]:
        """Return the first line of each file whose path has this suffix, by path."""
        return {path: lines[0].strip() for path, lines in self.files.items() if path.endswith(suffix)}


def unit(report: PhoneReport) -> str:
    """Return the unit's own number; empty where the phone has none."""
    return report.first("ro.serialno", "ro.boot.serialno")


def emulated(report: PhoneReport) -> str:
    """Return the emulator of the phone, `qemu`; empty for a real one."""
    return "qemu" if "1" in (report.first("ro.kernel.qemu"), report.first("ro.boot.qemu")) else ""


def host(report: PhoneReport) -> Host:
    """Return the phone's constant properties. It has no Python; the processor bears the name of its chip."""
    machine, kernel, *_ = [*report.output.splitlines(), "", ""]
    chip = " ".join(filter(None, (report.first("ro.soc.manufacturer"), report.first("ro.soc.model"))))
    named = report.fields("/proc/cpuinfo").get("Hardware", "") or report.first("ro.board.platform", "ro.hardware")
    memory = report.fields("/proc/meminfo").get("MemTotal", "").split()
    return Host(
        machine=machine.strip(),
        system="Android",
        kernel=kernel.strip(),
        python="",
        cpu_model=chip or named,
        cores=len(cores("".join(report.files.get(f"{_CPU}/present", ())))) or 1,
        memory_bytes=int(memory[0]) * 1024 if memory and memory[0].isdigit() else None,
        silicon=None if emulated(report) else silicon.of_files(report),
    )


def detected(report: PhoneReport, engines: Mapping[str, str]) -> DeviceInventory:
    """Return the phone's hardware and engines. An accelerator bears the name of its OpenGL or Vulkan driver."""
    release, level = report.first("ro.build.version.release"), report.first("ro.build.version.sdk")
    board = " ".join(filter(None, (report.first("ro.product.manufacturer"), report.first("ro.product.model"))))
    driver = report.first("ro.hardware.vulkan", "ro.hardware.egl")
    return DeviceInventory(
        os=f"Android {release}" + (f", API {level}" if level else "") if release else None,
        board=board or None,
        physical_cores=None,
        accelerators=(f"GPU, driver {driver}",) if driver else (),
        engines=dict(engines),
    )


def snapshot(report: PhoneReport) -> Snapshot:
    """Return the phone's present state, with this machine's clock as time stamp."""
    load = "".join(report.files.get("/proc/loadavg", ())).split()
    ticks = _ticks(report)
    governors = set(report.ending("/cpufreq/scaling_governor").values())
    clocks = [int(value) for value in report.ending("/cpufreq/scaling_cur_freq").values() if value.isdigit()]
    return Snapshot(
        unix_ns=time.time_ns(),
        affinity=cores(report.fields("/proc/self/status").get("Cpus_allowed_list", "")),
        governor=",".join(sorted(governors)) or None,
        frequency_khz=max(clocks, default=None),
        temperature_mc=_temperature_mc(report),
        load_1min=float(load[0]) if load and re.fullmatch(r"\d+\.\d+", load[0]) else None,
        steal_ticks=ticks[_STEAL] if ticks else None,
        total_ticks=sum(ticks[:_GUEST]) if ticks else None,
        power_source=_power_source(report),
        throttled=_throttled(report),
        runnable=_runnable(report),
    )


def _ticks(report: PhoneReport) -> list[int]:
    words = " ".join(line for line in report.files.get("/proc/stat", ()) if line.startswith("cpu ")).split()[1:]
    return [int(word) for word in words] if len(words) > _STEAL and all(word.isdigit() for word in words) else []


def _runnable(report: PhoneReport) -> int | None:
    """Return the threads that run or wait for a core; the shell that asks is one of them."""
    counts = [line.split()[1] for line in report.files.get("/proc/stat", ()) if line.startswith("procs_running ")]
    return int(counts[0]) if counts and counts[0].isdecimal() else None


def _temperature_mc(report: PhoneReport) -> int | None:
    """Return the temperature of the hottest processor zone, else that of the system's thermal service."""
    kinds = report.ending("/type")
    of_cpu = {path.removesuffix("type") + "temp" for path, kind in kinds.items() if "cpu" in kind.lower()}
    zones = [int(text) for path, text in report.ending("/temp").items() if path in of_cpu and text.isdigit()]
    current = report.output.partition("Current temperatures")[2].partition("Current cooling")[0]
    service = [round(float(value) * 1000) for value in _HAL_CPU.findall(current)]
    plausible = ([value for value in readings if value in _PLAUSIBLE_MC] for readings in (zones, service))
    return max(next(filter(None, plausible), []), default=None)


def _power_source(report: PhoneReport) -> str | None:
    """Return mains or battery. A phone on a cable is charged by it, which counts as mains."""
    powered = _POWERED.findall(report.output)
    return None if not powered else "mains" if "true" in powered else "battery"


def _throttled(report: PhoneReport) -> bool | None:
    status = _STATUS.search(report.output)
    return int(status[1]) >= _LEAST_THROTTLED if status else None
