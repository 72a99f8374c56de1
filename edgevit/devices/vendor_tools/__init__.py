"""Vendors' own benchmark programs, for checking our numbers against theirs, and for measuring where no worker runs.

A harness is one module here; its name is the program's. Each knows how the program is told to do what our worker does,
and reads what it prints. It serves this machine and a device alike: the file to open is given by the path it has there.
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
    """How the program shall run: at least `runs` runs and `seconds` seconds, after warming up for `warmup_runs`."""

    threads: int
    batch: int
    runs: int
    seconds: int
    warmup_runs: int


@dataclass(frozen=True)
class ProgramOutput:
    """What the program printed of one process. None, or no samples: it does not print that. Nanoseconds."""

    summary: VendorSummary
    load_ns: int | None = None
    first_ns: int | None = None
    warmup_ns: tuple[int, ...] = ()
    samples_ns: tuple[int, ...] = ()


class HarnessModule(Protocol):
    """What a module here has."""

    DISTRIBUTION: str  # that brings it; empty: none does
    DIFFERS: str  # what it does differently from our worker; empty: nothing that is known

    def command(self) -> list[str] | None:
        """How it is called here; None: it is not here."""

    def model(self, artifact: Artifact) -> Path:
        """The file of an artifact on this machine that it opens."""

    def arguments(self, artifact: Artifact, asked: BenchmarkOptions, model: str) -> list[str]:
        """What it is told; `model` is the path of that file where it runs. Raises ValueError for what it cannot do."""

    def parse(self, text: str, asked: BenchmarkOptions) -> ProgramOutput:
        """Read what it printed when it was told this. Raises ValueError where the times are not in it."""


class NativeModule(HarnessModule, Protocol):
    """What a module has besides whose program is native, and opens one file: it can be sent to a device."""

    AS_VERIFIED: bool  # it computes with the artifact's weights, and in the arithmetic that parity is checked of
    COUNTS_RUNS: bool  # it makes as many runs as it is told, however long they take; no clock tells it to go on

    def provider(self, text: str) -> str:
        """Which kernels ran, as far as what it printed says."""


def list_harnesses() -> list[str]:
    """Names of all of them."""
    return sorted(item.name for item in pkgutil.iter_modules(__path__))


def load_harness(name: str) -> HarnessModule:
    """The harness of this name, which a recipe has as RECIPE.harness. Raises UnknownNameError."""
    if name not in (known := list_harnesses()):
        raise UnknownNameError("harness", name, known, listing="edgevit profile --help")
    return typing.cast(HarnessModule, importlib.import_module(f"{__name__}.{name}"))


def load_native(name: str) -> NativeModule:
    """The harness of this name, which a recipe has as RECIPE.native. Raises UnknownNameError."""
    return typing.cast(NativeModule, load_harness(name))


def python_command(distribution: str, script: str, before: str = "pass") -> list[str] | None:
    """A distribution's console script, run by this Python after `before`; None where it is not installed."""
    try:
        offered = importlib.metadata.distribution(distribution).entry_points
    except importlib.metadata.PackageNotFoundError:
        return None
    scripts = offered.select(group="console_scripts", name=script)
    starts = [f"{before}; from {item.module} import {item.attr}; {item.attr}()" for item in scripts]
    return [sys.executable, "-I", "-c", starts[0]] if starts else None


def read(text: str, *, median: str, least: str, most: str, mean: str, runs: str) -> ProgramOutput:
    """What these patterns find, each in its one group: times like `1.25 ms`, and the number of runs if it is printed.

    Raises ValueError for a time that is not there, or too short for the digits that are printed.
    """
    count = re.search(runs, text)
    times = [_nanoseconds(text, pattern) for pattern in (median, least, most, mean)]
    return ProgramOutput(VendorSummary(times[0], times[1], times[2], times[3], int(count[1]) if count else None))


def positive_ns(value: float, unit: str, what: str) -> int:
    """A printed time in ns. Raises ValueError for one that is too short for the digits that are printed."""
    if not value > 0:
        raise ValueError(f"{what} was printed: too short for its digits")
    return round(value * _UNITS_NS[unit])


def _nanoseconds(text: str, pattern: str) -> int:
    found = re.search(pattern, text, re.MULTILINE)
    if found is None:
        raise ValueError(f"nothing that was printed matches {pattern!r}")
    value, unit = found[1].split()
    return positive_ns(float(value), unit, repr(found[0]))
