"""What a doctor finds: a cell for each of the four things a target can do here, and checks of what all targets need."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Literal

from edgevit_runtime.record import Host

Ability = Literal["convert", "build", "run", "profile"]
State = Literal["yes", "no", "elsewhere"]
ABILITIES: tuple[Ability, ...] = ("convert", "build", "run", "profile")


@dataclass(frozen=True)
class Cell:
    """Whether a target can do one thing here, with what, and the command or machine that makes it so.

    elsewhere: it cannot be had on this machine, whatever is installed.
    """

    state: State
    detail: str = ""
    versions: dict[str, str] = field(default_factory=dict)  # of the distributions that do it
    fix: str = ""


@dataclass(frozen=True)
class TargetCells:
    """One target's row. convert: the intermediate form can be made. build: the payload can be written and verified.

    run: the engine loads and computes. profile: it can be timed, in a worker process of its own.
    """

    target: str
    convert: Cell
    build: Cell
    run: Cell
    profile: Cell

    @property
    def cells(self) -> dict[Ability, Cell]:
        """The four by name, in the order of the work."""
        return {"convert": self.convert, "build": self.build, "run": self.run, "profile": self.profile}

    @property
    def complete(self) -> bool:
        """Whether nothing is missing that this machine could have."""
        return all(cell.state != "no" for cell in self.cells.values())


@dataclass(frozen=True)
class Check:
    """One thing that every target needs, whether it works, and the command that mends it."""

    what: str
    works: bool
    detail: str
    fix: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """All that was found on one machine."""

    host: Host
    targets: tuple[TargetCells, ...]
    checks: tuple[Check, ...]


def first_obstacle(*cells: Cell) -> Cell:
    """Of things that are all needed: the first that is missing, else all of them together."""
    for cell in cells:
        if cell.state != "yes":
            return cell
    versions = {name: version for cell in cells for name, version in cell.versions.items()}
    return dataclasses.replace(cells[0], detail=says(versions), versions=versions)


def says(versions: dict[str, str]) -> str:
    """`onnx 1.23.2, onnxsim 0.8.1`."""
    return ", ".join(f"{name} {version}" for name, version in versions.items())
