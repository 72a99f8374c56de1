"""Records of a diagnosis: a cell for each ability of a target, and checks of what all targets need."""

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
    """Whether a target has one ability here, with which versions, and the command or machine that enables it.

    elsewhere: no installation enables it on this machine.
    """

    state: State
    detail: str = ""
    versions: dict[str, str] = field(default_factory=dict)  # of the distributions that do it
    fix: str = ""


@dataclass(frozen=True)
class TargetCells:
    """One target's row. convert: the intermediate form can be made. build: the payload can be written and verified.

    run: the engine loads and computes. profile: it can be timed, in a worker process of its own.
    missing_instructions: instruction sets that this processor lacks, by the precision that needs them.
    """

    target: str
    convert: Cell
    build: Cell
    run: Cell
    profile: Cell
    missing_instructions: dict[str, str] = field(default_factory=dict, kw_only=True)

    @property
    def cells(self) -> dict[Ability, Cell]:
        """The four cells by ability, in the order of the work."""
        return {"convert": self.convert, "build": self.build, "run": self.run, "profile": self.profile}

    @property
    def complete(self) -> bool:
        """Whether the target can do all that is possible on this machine."""
        return all(cell.state != "no" for cell in self.cells.values())


@dataclass(frozen=True)
class Check:
    """A component that every target needs, whether it works, and the command that repairs it."""

    component: str
    works: bool
    detail: str
    fix: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """The cells and checks of one machine."""

    host: Host
    targets: tuple[TargetCells, ...]
    checks: tuple[Check, ...]


def combine(*cells: Cell) -> Cell:
    """Combine cells that are all needed: return the first that is not a yes, else one with all versions."""
    for cell in cells:
        if cell.state != "yes":
            return cell
    versions = {name: version for cell in cells for name, version in cell.versions.items()}
    return dataclasses.replace(cells[0], detail=describe_versions(versions), versions=versions)


def describe_versions(versions: dict[str, str]) -> str:
    """Describe versions in one line: `onnx 1.23.2, onnxsim 0.8.1`."""
    return ", ".join(f"{name} {version}" for name, version in versions.items())
