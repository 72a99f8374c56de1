"""What the system tells of itself: a Host once, a Snapshot before and after each block of runs.

Every reader takes the root of the file system, so that a test can hand it a made-up one. What a system does not tell is
None (or empty text, or no cores): a zero would be a measurement.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from edgevit_runtime.record import Host, Snapshot

_DROPS = 3  # times that a file is taken out of the cache before it is said to stay there
# hwmon chips that report the processor; others on the same bus are disks, radios and power supplies.
_CPU_CHIPS = {"coretemp", "k10temp", "zenpower", "cpu_thermal", "scpi_sensors"}
# Of a Raspberry Pi, at this moment: too little voltage, clock capped, throttled, soft limit of temperature.
_PI_FILE = "sys/devices/platform/soc/soc:firmware/get_throttled"
_PI_NOW = 0b1111
_STEAL, _GUEST = 7, 8  # columns of /proc/stat; guest time is already inside user time


def host(root: Path = Path("/")) -> Host:
    """The machine this process runs on."""
    return Host(
        machine=platform.machine(),
        system=platform.system(),
        kernel=platform.release(),
        python=platform.python_version(),
        cpu_model=_cpu_model(root),
        cores=os.cpu_count() or 1,
        memory_bytes=_memory_bytes(),
    )


def snapshot(root: Path = Path("/")) -> Snapshot:
    """The state of the machine at this moment: frequency in kHz, temperature in thousandths of a degree Celsius."""
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
    )


def affinity() -> tuple[int, ...]:
    """The cores this process may run on; empty where the system does not tell (macOS)."""
    return tuple(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else ()


def installed(distributions: Sequence[str]) -> tuple[str, str]:
    """The first of these distributions that is installed, with its version; else the first, with an empty one."""
    for name in distributions:
        try:
            return name, importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return distributions[0], ""


def peak_rss_bytes(root: Path = Path("/")) -> int | None:
    """The largest resident size this process ever had, in bytes.

    VmHWM first: Linux carries ru_maxrss over an exec, so a worker that a large process started would report its
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


def text(path: Path) -> str:
    """A file's text less the NUL and line end behind it; empty if it is not there or its driver refuses, as in /sys."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0\n ")
    except OSError:
        return ""


def _integers(paths: Iterable[Path]) -> list[int]:
    texts = [text(path) for path in sorted(paths)]
    return [int(text) for text in texts if text.lstrip("-").isdigit()]


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
    """The fastest of our cores: a core that idles at this moment says nothing about the one that works.

    "cpu MHz" of /proc/cpuinfo is no substitute: in a virtual machine it is the nominal clock, whatever really happens.
    """
    return max(_integers(_cpufreq(root, cores, "scaling_cur_freq")), default=None)


def _nominal_khz(root: Path, cores: tuple[int, ...]) -> int | None:
    """The clock our cores are sold with; where only a highest one is told (ARM boards) that is it.

    A boost that lasts as long as the cooling does is not nominal, so the highest clock is asked for last.
    """
    base = _integers(_cpufreq(root, cores, "base_frequency"))
    folder = root / "sys/devices/system/cpu"
    rated = [1000 * mhz for mhz in _integers(folder / f"cpu{core}/acpi_cppc/nominal_freq" for core in cores)]
    return max(base or rated or _integers(_cpufreq(root, cores, "cpuinfo_max_freq")), default=None)


def _throttled(root: Path) -> bool | None:
    """What a Raspberry Pi's firmware says of this moment."""
    bits = text(root / _PI_FILE) or _vcgencmd(root).removeprefix("throttled=")
    try:
        return bool(int(bits, 16) & _PI_NOW)
    except ValueError:
        return None


def _vcgencmd(root: Path) -> str:
    """`throttled=0x50005`, from the firmware's own tool where the kernel has no file for it."""
    if "Raspberry Pi" not in text(root / "proc/device-tree/model"):
        return ""
    try:
        done = subprocess.run(["vcgencmd", "get_throttled"], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()


def _throttle_events(root: Path) -> int | None:
    """How often Intel's processors were slowed down for heat: the packages' events and the cores' own."""
    counts = _integers((root / "sys/devices/system/cpu").glob("cpu[0-9]*/thermal_throttle/*_throttle_count"))
    return sum(counts) if counts else None


def drop_from_cache(path: Path) -> bool:
    """Take a file, or all files of a folder, out of the system's file cache; whether they are out of it.

    Not on file systems that live in memory, and not where the system cannot be asked.
    """
    if not hasattr(os, "posix_fadvise") or not hasattr(os, "RWF_NOWAIT"):
        return False
    files = [item for item in sorted(path.rglob("*")) if item.is_file()] if path.is_dir() else [path]
    return False not in [_drop(file) for file in files]  # all of them, whatever became of the first


def _drop(file: Path) -> bool:
    with file.open("rb") as stream:
        number, size = stream.fileno(), os.fstat(stream.fileno()).st_size
        os.fsync(number)  # pages that are not on disk yet would stay
        os.posix_fadvise(number, 0, 0, os.POSIX_FADV_RANDOM)  # whoever looks at a page has no others read with it
        for _ in range(_DROPS):  # a page that somebody holds at that moment stays
            os.posix_fadvise(number, 0, 0, os.POSIX_FADV_DONTNEED)
            try:
                if size == 0 or not any(_is_cached(number, place) for place in (0, size // 2, size - 1)):
                    return True
            except OSError:  # a file system that cannot tell
                return False
        return False


def _is_cached(number: int, place: int) -> bool:
    try:
        return os.preadv(number, [bytearray(1)], place, os.RWF_NOWAIT) > 0
    except BlockingIOError:
        return False


def _temperature_mc(root: Path) -> int | None:
    zones = list((root / "sys/class/thermal").glob("thermal_zone*/temp"))
    chips = (root / "sys/class/hwmon").glob("hwmon*")
    sensors = [path for chip in chips if text(chip / "name") in _CPU_CHIPS for path in chip.glob("temp*_input")]
    # A zone that is switched off reads 0 or far below.
    return max((value for value in _integers(zones + sensors) if value > 0), default=None)


def _load_1min() -> float | None:
    try:
        return os.getloadavg()[0]
    except (AttributeError, OSError):
        return None


def _cpu_ticks(root: Path) -> tuple[int | None, int | None]:
    """Ticks that a hypervisor took from this machine, and all ticks, since it started."""
    first = text(root / "proc/stat").partition("\n")[0].split()
    if first[:1] != ["cpu"] or len(first) <= _STEAL + 1:
        return None, None
    ticks = [int(value) for value in first[1:]]
    return ticks[_STEAL], sum(ticks[:_GUEST])


def _power_source(root: Path) -> str | None:
    """mains or battery. A charger that is plugged in wins over a battery that is full."""
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
