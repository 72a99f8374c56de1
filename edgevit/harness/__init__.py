"""Vendors' own benchmark programs, for checking our numbers against theirs. A harness is one module here; its name is
the program's. Each knows how the program is told to do what our worker does, and reads what it prints.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import pkgutil
import re
import sys
import typing
from dataclasses import dataclass
from typing import Protocol

from edgevit.errors import UnknownNameError
from edgevit.types import Artifact

_UNITS_NS = {"ms": 1e6, "us": 1e3}


@dataclass(frozen=True)
class Asked:
    """How the program shall run: at least `runs` runs and `seconds` seconds, after warming up for `warmup_runs`."""

    threads: int
    batch: int
    runs: int
    seconds: int
    warmup_runs: int


@dataclass(frozen=True)
class Told:
    """What the program says of one process of runs; times in nanoseconds, as fine as it prints them."""

    median_ns: int
    min_ns: int
    max_ns: int
    mean_ns: int
    runs: int | None = None


class HarnessModule(Protocol):
    """What a module here has."""

    DISTRIBUTION: str  # that brings it; empty: none does
    DIFFERS: str  # what it does differently from our worker; empty: nothing that is known

    def command(self) -> list[str] | None:
        """How it is called here; None: it is not here."""

    def arguments(self, artifact: Artifact, asked: Asked) -> list[str]:
        """What it is told. Raises ValueError for what it cannot do."""

    def parse(self, text: str) -> Told:
        """Read what it printed. Raises ValueError where the times are not in it."""


def list_harnesses() -> list[str]:
    """Names of all of them."""
    return sorted(item.name for item in pkgutil.iter_modules(__path__))


def load_harness(name: str) -> HarnessModule:
    """The harness of this name, which a recipe has as RECIPE.harness. Raises UnknownNameError."""
    if name not in (known := list_harnesses()):
        raise UnknownNameError("harness", name, known, listing="edgevit profile --help")
    return typing.cast(HarnessModule, importlib.import_module(f"{__name__}.{name}"))


def python_command(distribution: str, script: str, before: str = "pass") -> list[str] | None:
    """A distribution's console script, run by this Python after `before`; None where it is not installed."""
    try:
        offered = importlib.metadata.distribution(distribution).entry_points
    except importlib.metadata.PackageNotFoundError:
        return None
    scripts = offered.select(group="console_scripts", name=script)
    starts = [f"{before}; from {item.module} import {item.attr}; {item.attr}()" for item in scripts]
    return [sys.executable, "-I", "-c", starts[0]] if starts else None


def read(text: str, *, median: str, least: str, most: str, mean: str, runs: str) -> Told:
    """What these patterns find, each in its one group: times like `1.25 ms`, and the number of runs if it is printed.

    Raises ValueError for a time that is not there, or too short for the digits that are printed.
    """
    count = re.search(runs, text)
    times = [_nanoseconds(text, pattern) for pattern in (median, least, most, mean)]
    return Told(times[0], times[1], times[2], times[3], int(count[1]) if count else None)


def _nanoseconds(text: str, pattern: str) -> int:
    found = re.search(pattern, text, re.MULTILINE)
    if found is None:
        raise ValueError(f"nothing that was printed matches {pattern!r}")
    value, unit = found[1].split()
    if not float(value):
        raise ValueError(f"{found[0]!r} was printed: too short for its digits")
    return round(float(value) * _UNITS_NS[unit])
