"""Energy meters: the joules of the runs, where this user may read the machine's meters. Otherwise None, never zero.

Intel and AMD processors count energy (RAPL, most often readable by root alone). A Jetson's board reports the present
power of its rails, which is integrated over the time between readings. Both cover the whole processor or board, with
idle parts and other programs. So they measure the cost of a run for the battery, and not the cost of its arithmetic.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from edgevit_runtime.system_files import text

READ_EVERY_NS = 100_000_000  # a rail is read over a slow bus, in about a millisecond; RAPL wraps after minutes
_TOTAL_RAILS = ("VDD_IN", "POM_5V_IN", "VIN_SYS_5V0", "VDD_TOTAL")  # rails that supply a whole board, by vendor's name


class Meter(Protocol):
    """A meter of the energy between start() and stop(); tick() is called between runs."""

    def start(self) -> None:
        """Begin to count."""

    def tick(self) -> None:
        """Take a reading if one is due."""

    def stop(self) -> float | None:
        """Return the joules since start(); None if a reading failed meanwhile."""


def meter(root: Path = Path("/")) -> Meter | None:
    """Return the best meter that this process may read; None without one."""
    packages = [path for path in sorted((root / "sys/class/powercap").glob("*-rapl:[0-9]*")) if _is_package(path)]
    if packages:
        return EnergyCounter(packages)
    rails = _rails(root)
    return PowerRail(*rails) if rails else None


class EnergyCounter:
    """Counters of microjoules, one per processor package, that wrap around at the end of their range."""

    def __init__(self, packages: Sequence[Path]) -> None:
        self._packages = packages
        self._last: list[int | None] = []
        self._joules: float | None = 0.0
        self._due = 0

    def start(self) -> None:
        """Begin to count."""
        self._last, self._joules = self._read(), 0.0
        self._due = time.perf_counter_ns() + READ_EVERY_NS

    def tick(self) -> None:
        """Read the counters from time to time, so that none wraps around twice between readings."""
        if time.perf_counter_ns() >= self._due:
            self._add()
            self._due = time.perf_counter_ns() + READ_EVERY_NS

    def stop(self) -> float | None:
        """Return the joules of all packages."""
        self._add()
        return self._joules

    def _add(self) -> None:
        now = self._read()
        for package, before, after in zip(self._packages, self._last, now, strict=True):
            limit = _integer(package / "max_energy_range_uj")
            if before is None or after is None or self._joules is None or (after < before and limit is None):
                self._joules = None
                return
            self._joules += (after - before + (limit or 0) * (after < before)) / 1e6
        self._last = now

    def _read(self) -> list[int | None]:
        return [_integer(package / "energy_uj") for package in self._packages]


class PowerRail:
    """Millivolts and milliamperes of a board's supply, integrated over the time between readings."""

    def __init__(self, millivolts: Path, milliamperes: Path) -> None:
        self._files = millivolts, milliamperes
        self._watts: float | None = 0.0
        self._joules: float | None = 0.0
        self._at = 0

    def start(self) -> None:
        """Begin to count."""
        self._watts, self._joules, self._at = self._read(), 0.0, time.perf_counter_ns()

    def tick(self) -> None:
        """Read the rail if the last reading is old enough."""
        if time.perf_counter_ns() - self._at >= READ_EVERY_NS:
            self._add()

    def stop(self) -> float | None:
        """Return the joules of the whole board."""
        self._add()
        return self._joules

    def _add(self) -> None:
        watts, now = self._read(), time.perf_counter_ns()
        if self._watts is None or watts is None or self._joules is None:
            self._joules = None
        else:
            self._joules += (self._watts + watts) / 2 * (now - self._at) / 1e9
        self._watts, self._at = watts, now

    def _read(self) -> float | None:
        volts, amperes = map(_integer, self._files)
        return None if volts is None or amperes is None else volts * amperes / 1e6


def _is_package(path: Path) -> bool:
    """Return whether a counter covers a whole processor package and is readable.

    Its name tells: the cores are part of the package, and psys is the board.
    """
    return text(path / "name").startswith("package") and _integer(path / "energy_uj") is not None


def _rails(root: Path) -> tuple[Path, Path] | None:
    """Return the files with voltage and current of the rail that supplies a whole Jetson."""
    for label in sorted((root / "sys/bus/i2c/drivers").glob("ina3221*/*/hwmon/hwmon*/in*_label")):
        number = label.name.removeprefix("in").removesuffix("_label")
        files = label.with_name(f"in{number}_input"), label.with_name(f"curr{number}_input")
        if text(label) in _TOTAL_RAILS and None not in map(_integer, files):
            return files
    return None


def _integer(path: Path) -> int | None:
    digits = text(path)
    return int(digits) if digits.isdigit() else None
