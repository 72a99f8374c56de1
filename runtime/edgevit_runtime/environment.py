"""Environment of a measurement: a Host once, and a Snapshot before and after each block of runs.

Every reader takes the root of the file system, so that a test can pass a temporary one. Unknown values are None (or
empty text, or no cores), because a zero would be a measurement.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from edgevit_runtime import cgroup, silicon
from edgevit_runtime.record import Host, Snapshot
from edgevit_runtime.system_files import integers, text

_DROPS = 3  # attempts to take a file out of the cache
# hwmon chips that report the processor; others on the same bus are disks, radios and power supplies.
_CPU_CHIPS = {"coretemp", "k10temp", "zenpower", "cpu_thermal", "scpi_sensors"}
# Flags of a Raspberry Pi's present state: low voltage, clock capped, throttled, soft limit of temperature.
_PI_FILE = "sys/devices/platform/soc/soc:firmware/get_throttled"
_PI_NOW = 0b1111
_STEAL, _GUEST = 7, 8  # columns of /proc/stat; guest time is already inside user time


def host(root: Path = Path("/")) -> Host:
    """Return the machine that this process runs on."""
    return Host(
        machine=platform.machine(),
        system=platform.system(),
        kernel=platform.release(),
        python=platform.python_version(),
        cpu_model=_cpu_model(root),
        cores=os.cpu_count() or 1,
        memory_bytes=_memory_bytes(),
        silicon=silicon.read(root),
    )


def snapshot(root: Path = Path("/")) -> Snapshot:
    """Return the present state of the machine: frequency in kHz, temperature in thousandths of a degree Celsius."""
    cores = affinity()
    steal, total = _cpu_ticks(root)
    return Snapshot(
        unix_ns=time.time_ns(),
        affinity=cores,
        governor=_governor(root, cores),
        frequency_khz=_frequency_khz(root, cores),
        temperature_mc=_temperature_mc(root),
        load_1min=_load_1min(),
        steal_ticks=steal,
        total_ticks=total,
        power_source=_power_source(root),
        nominal_khz=_nominal_khz(root, cores),
        throttled=_throttled(root),
        throttle_events=_throttle_events(root),
        runnable=_runnable(root),
        quota_throttled_us=cgroup.throttled_us(root),
    )


def affinity() -> tuple[int, ...]:
    """Return the cores that this process may run on; empty where the system does not report them (macOS)."""
    return tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else ()


def installed(distributions: Sequence[str]) -> tuple[str, str]:
    """Return the first installed distribution with its version, else the first one with an empty version."""
    for name in distributions:
        try:
            return name, importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return distributions[0], ""


def peak_rss_bytes(root: Path = Path("/")) -> int | None:
    """Return the largest resident size of this process so far, in bytes.

    VmHWM takes precedence: Linux keeps ru_maxrss over an exec, so a worker started by a large process would report its
    parent's peak.
    """
    for line in text(root / "proc/self/status").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else peak * 1024


def _cpu_model(root: Path) -> str:
    lines = [line.partition(":") for line in text(root / "proc/cpuinfo").splitlines()]
    fields = {name.strip(): value.strip() for name, _, value in reversed(lines)}  # reversed: the first core wins
    if fields.get("model name"):
        return fields["model name"]
    # ARM kernels name the board in the device tree and the core only by number.
    part = " ".join(fields[name] for name in ("CPU implementer", "CPU part") if name in fields)
    return text(root / "proc/device-tree/model") or part or platform.processor()


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _cpufreq(root: Path, cores: tuple[int, ...], name: str) -> list[Path]:
    folder = root / "sys/devices/system/cpu"
    return [folder / f"cpu{core}/cpufreq/{name}" for core in cores]


def _governor(root: Path, cores: tuple[int, ...]) -> str | None:
    names = {text(path) for path in _cpufreq(root, cores, "scaling_governor")} - {""}
    return ",".join(sorted(names)) or None


def _frequency_khz(root: Path, cores: tuple[int, ...]) -> int | None:
    """Return the clock of the fastest of our cores, because an idle core does not represent the working one.

    "cpu MHz" of /proc/cpuinfo is no substitute: in a virtual machine it is the nominal clock and not the real one.
    """
    return max(integers(_cpufreq(root, cores, "scaling_cur_freq")), default=None)


def _nominal_khz(root: Path, cores: tuple[int, ...]) -> int | None:
    """Return the nominal clock of our cores, or the highest one where there is no other (ARM boards).

    A boost that lasts as long as the cooling does is not nominal, so the highest clock is the last choice.
    """
    base = integers(_cpufreq(root, cores, "base_frequency"))
    folder = root / "sys/devices/system/cpu"
    rated = [1000 * mhz for mhz in integers(folder / f"cpu{core}/acpi_cppc/nominal_freq" for core in cores)]
    return max(base or rated or integers(_cpufreq(root, cores, "cpuinfo_max_freq")), default=None)


def _throttled(root: Path) -> bool | None:
    """Return whether a Raspberry Pi's firmware reports throttling now."""
    bits = text(root / _PI_FILE) or _vcgencmd(root).removeprefix("throttled=")
    try:
        return bool(int(bits, 16) & _PI_NOW)
    except ValueError:
        return None


def _vcgencmd(root: Path) -> str:
    """Return `throttled=0x50005` from the firmware's own tool, for kernels without a file for it."""
    if "Raspberry Pi" not in text(root / "proc/device-tree/model"):
        return ""
    try:
        query = subprocess.run(["vcgencmd", "get_throttled"], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return query.stdout.strip()


def _throttle_events(root: Path) -> int | None:
    """Return how often Intel's processors were throttled for heat: the events of packages and of cores."""
    counts = integers((root / "sys/devices/system/cpu").glob("cpu[0-9]*/thermal_throttle/*_throttle_count"))
    return sum(counts) if counts else None


def drop_from_cache(path: Path) -> bool:
    """Take a file, or all files of a folder, out of the system's file cache, and return whether that succeeded.

    It fails on file systems that live in memory, and on systems without the calls for it.
    """
    if not hasattr(os, "posix_fadvise") or not hasattr(os, "RWF_NOWAIT"):
        return False
    files = [file for file in sorted(path.rglob("*")) if file.is_file()] if path.is_dir() else [path]
    # The list drops all files, also after a failure.
    return False not in [_drop(file) for file in files]


def _drop(file: Path) -> bool:
    with file.open("rb") as stream:
        number, size = stream.fileno(), os.fstat(stream.fileno()).st_size
        # Pages that are not on disk yet would stay in the cache.
        os.fsync(number)
        # Without read-ahead, the check of a page does not load others.
        os.posix_fadvise(number, 0, 0, os.POSIX_FADV_RANDOM)
        # A page in use stays in the cache, so the drop is repeated.
        for _ in range(_DROPS):
            os.posix_fadvise(number, 0, 0, os.POSIX_FADV_DONTNEED)
            try:
                if size == 0 or not any(_is_cached(number, offset) for offset in (0, size // 2, size - 1)):
                    return True
            except OSError:  # the file system does not support the check
                return False
        return False


def _is_cached(number: int, offset: int) -> bool:
    try:
        return os.preadv(number, [bytearray(1)], offset, os.RWF_NOWAIT) > 0
    except BlockingIOError:
        return False


def _temperature_mc(root: Path) -> int | None:
    zones = list((root / "sys/class/thermal").glob("thermal_zone*/temp"))
    chips = (root / "sys/class/hwmon").glob("hwmon*")
    sensors = [path for chip in chips if text(chip / "name") in _CPU_CHIPS for path in chip.glob("temp*_input")]
    # A zone that is switched off reads 0 or much less.
    return max((value for value in integers(zones + sensors) if value > 0), default=None)


def _runnable(root: Path) -> int | None:
    """Return the threads that run or wait for a core."""
    for line in text(root / "proc/stat").splitlines():
        name, _, count = line.partition(" ")
        if name == "procs_running" and count.isdecimal():
            return int(count)
    return None


def _load_1min() -> float | None:
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):
        return None


def _cpu_ticks(root: Path) -> tuple[int | None, int | None]:
    """Return the ticks that a hypervisor took from this machine, and all ticks, since it started."""
    first = text(root / "proc/stat").partition("\n")[0].split()
    if first[:1] != ["cpu"] or len(first) <= _STEAL + 1:
        return None, None
    ticks = [int(value) for value in first[1:]]
    return ticks[_STEAL], sum(ticks[:_GUEST])


def _power_source(root: Path) -> str | None:
    """Return mains or battery. A connected charger takes precedence over a full battery."""
    supplies = [
        (text(path / "type"), text(path / "online"), text(path / "status"))
        for path in (root / "sys/class/power_supply").glob("*")
    ]
    if any(kind != "Battery" and online == "1" for kind, online, _ in supplies):
        return "mains"
    states = {status for kind, _, status in supplies if kind == "Battery"}
    if not states:
        return None
    return "battery" if states & {"Discharging"} else "mains"
