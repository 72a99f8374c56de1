"""Vendors' own benchmark programs. They check our numbers, and they measure where no worker runs.

Each harness is one module here, named after its program. It builds the program's arguments so that the program does
what our worker does, and it parses the output. A harness serves this machine and a device alike, because the file to
open is given by its path there.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import pkgutil
import re
import sys
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edgevit.errors import UnknownNameError
from edgevit.records.artifact import Artifact
from edgevit_runtime.record import VendorSummary

__all__ = ["BenchmarkOptions", "HarnessModule", "NativeModule", "ProgramOutput", "VendorSummary"]
_UNITS_NS = {"ms": 1e6, "us": 1e3}


@dataclass(frozen=True)
class BenchmarkOptions:
    """The length of a benchmark: at least `runs` runs and `seconds` seconds, after `warmup_runs` runs of warm-up."""

    threads: int
    batch: int
    runs: int
    seconds: int
    warmup_runs: int


@dataclass(frozen=True)
class ProgramOutput:
    """The parsed output of one process of the program, in ns. None, or no samples: it does not print that."""

    summary: VendorSummary
    load_ns: int | None = None
    first_ns: int | None = None
    warmup_ns: tuple[int, ...] = ()
    samples_ns: tuple[int, ...] = ()


class HarnessModule(Protocol):
    """The interface of a module here."""

    DISTRIBUTION: str  # with the program in it; empty: no distribution has it
    DIFFERS: str  # differences from our worker; empty: none is known

    def command(self) -> list[str] | None:
        """Return the program's command on this machine; None where it is missing."""

    def model(self, artifact: Artifact) -> Path:
        """Return the file of an artifact on this machine that the program opens."""

    def arguments(self, artifact: Artifact, options: BenchmarkOptions, model: str) -> list[str]:
        """Return the program's arguments. Raises ValueError for an artifact that it cannot run.

        `model` is the path of the artifact's file on the machine that runs the program.
        """

    def parse(self, text: str, options: BenchmarkOptions) -> ProgramOutput:
        """Parse the output of a run with these options. Raises ValueError where it contains no times."""


class NativeModule(HarnessModule, Protocol):
    """The interface of a module whose program is native and opens one file, so that it can be sent to a device."""

    AS_VERIFIED: bool  # it computes with the artifact's weights, in the arithmetic of the parity check
    COUNTS_RUNS: bool  # its number of runs is fixed; it cannot run for a given time

    def provider(self, text: str) -> str:
        """Return the kernels that ran, as far as the output names them."""


def list_harnesses() -> list[str]:
    """Return the names of all harnesses."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load_harness(name: str) -> HarnessModule:
    """Return the harness of this name, as in RECIPE.harness. Raises UnknownNameError."""
    if name not in (names := list_harnesses()):
        raise UnknownNameError("harness", name, names, listing="edgevit profile --help")
    return typing.cast(HarnessModule, importlib.import_module(f"{__name__}.{name}"))


def load_native(name: str) -> NativeModule:
    """Return the native harness of this name, as in RECIPE.native. Raises UnknownNameError."""
    return typing.cast(NativeModule, load_harness(name))


def python_command(distribution: str, name: str, before: str = "pass") -> list[str] | None:
    """Return the command that runs a distribution's console script after `before`; None where it is not installed."""
    try:
        entry_points = importlib.metadata.distribution(distribution).entry_points
    except importlib.metadata.PackageNotFoundError:
        return None
    scripts = entry_points.select(group="console_scripts", name=name)
    starts = [f"{before}; from {script.module} import {script.attr}; {script.attr}()" for script in scripts]
    return [sys.executable, "-I", "-c", starts[0]] if starts else None


def read(text: str, *, median: str, minimum: str, maximum: str, mean: str, runs: str) -> ProgramOutput:
    """Parse an output with patterns of one group each: times like `1.25 ms`, and the number of runs if it is printed.

    Raises ValueError for a missing time, and for one too short for the printed digits.
    """
    count = re.search(runs, text)
    times = [_nanoseconds(text, pattern) for pattern in (median, minimum, maximum, mean)]
    return ProgramOutput(VendorSummary(times[0], times[1], times[2], times[3], int(count[1]) if count else None))


def positive_ns(value: float, unit: str, printed: str) -> int:
    """Convert a printed time into ns. Raises ValueError for one that is too short for the printed digits."""
    if not value > 0:
        raise ValueError(f"{printed} was printed: too short for its digits")
    return round(value * _UNITS_NS[unit])


def _nanoseconds(text: str, pattern: str) -> int:
    match = re.search(pattern, text, re.MULTILINE)
    if match is None:
        raise ValueError(f"nothing that was printed matches {pattern!r}")
    value, unit = match[1].split()
    return positive_ns(float(value), unit, repr(match[0]))
