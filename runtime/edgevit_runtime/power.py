"""What the runs took in joules, where the machine has meters that this user may read. Otherwise nothing, never zero.

Intel and AMD processors count energy (RAPL, most often readable by root alone). A Jetson's board tells the power of its
rails at a moment, which is added up over the time between readings. Both count all of the processor or board, idle
parts and other programs included: what a run costs the battery, and not what its arithmetic costs.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from edgevit_runtime.environment import text

READ_EVERY_NS = 100_000_000  # a rail is read over a slow bus, in about a millisecond; RAPL wraps after minutes
_TOTAL_RAILS = ("VDD_IN", "POM_5V_IN", "VIN_SYS_5V0", "VDD_TOTAL")  # of all else on a board, by its makers' names


class Meter(Protocol):
    """Energy between start() and stop(); tick() is called between runs."""

    def start(self) -> None:
        """Begin to count."""

    def tick(self) -> None:
        """Read what must be read often."""

    def stop(self) -> float | None:
        """Joules since start(); None if a reading failed meanwhile."""


def meter(root: Path = Path("/")) -> Meter | None:
    """The best meter this process may read. None: there is none."""
    packages = [path for path in sorted((root / "sys/class/powercap").glob("*-rapl:[0-9]*")) if _is_package(path)]
    if packages:
        return EnergyCounter(packages)
    rails = _rails(root)
    return PowerRail(*rails) if rails else None


class EnergyCounter:
    """Counters of microjoules, one per processor package, that begin anew at their range's end."""

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
        """Read again now and then, so that no counter goes round twice unseen."""
        if time.perf_counter_ns() >= self._due:
            self._add()
            self._due = time.perf_counter_ns() + READ_EVERY_NS

    def stop(self) -> float | None:
        """Joules of all packages."""
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
    """Millivolts and milliamperes of a board's supply, added up over time: each reading holds until the next."""

    def __init__(self, millivolts: Path, milliamperes: Path) -> None:
        self._files = millivolts, milliamperes
        self._watts: float | None = 0.0
        self._joules: float | None = 0.0
        self._at = 0

    def start(self) -> None:
        """Begin to count."""
        self._watts, self._joules, self._at = self._read(), 0.0, time.perf_counter_ns()

    def tick(self) -> None:
        """Read the rail, unless it was read a moment ago."""
        if time.perf_counter_ns() - self._at >= READ_EVERY_NS:
            self._add()

    def stop(self) -> float | None:
        """Joules of the whole board."""
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
    """A whole processor package, by its name: its cores are in it already, and psys is the board.

    A counter that says nothing to this user is none.
    """
    return text(path / "name").startswith("package") and _integer(path / "energy_uj") is not None


def _rails(root: Path) -> tuple[Path, Path] | None:
    """Voltage and current of the rail that supplies all of a Jetson."""
    for label in sorted((root / "sys/bus/i2c/drivers").glob("ina3221*/*/hwmon/hwmon*/in*_label")):
        number = label.name.removeprefix("in").removesuffix("_label")
        files = label.with_name(f"in{number}_input"), label.with_name(f"curr{number}_input")
        if text(label) in _TOTAL_RAILS and None not in map(_integer, files):
            return files
    return None


def _integer(path: Path) -> int | None:
    said = text(path)
    return int(said) if said.isdigit() else None
