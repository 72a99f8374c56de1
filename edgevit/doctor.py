"""What works on this machine: Python, each target's converter and engine, photographs, the database's folder."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from edgevit.errors import StoreError
from edgevit.recipes import engine_of, list_recipes
from edgevit.store import LatencyDB

_IMPORT_TIMEOUT_S = 120  # torch takes seconds from a cold disk, not minutes


@dataclass(frozen=True)
class Check:
    """One thing that is needed, whether it works, and the command that mends it."""

    what: str
    works: bool
    detail: str
    fix: str = ""


def examine() -> list[Check]:
    """Try everything; nothing is changed but a database that did not exist yet."""
    checks = [Check("python", sys.version_info >= (3, 11), f"{platform.python_version()} {platform.platform()}")]
    for recipe in list_recipes():
        install = f"pip install 'edgevit[{recipe.extra}]'"
        checks.append(_importable(f"{recipe.target}: build", recipe.requires, install))
        engine = engine_of(recipe) or " or ".join((recipe.engine, *recipe.engine_choices))
        on = f" (on {recipe.needs})" if recipe.needs else ""  # which nothing here looks for
        checks.append(_importable(f"{recipe.target}: run{on}", (engine,), install))
    checks.append(_importable("photographs for verification", ("scikit-image",), "pip install 'edgevit[photos]'"))
    return [*checks, _database()]


def _importable(what: str, distributions: tuple[str, ...], fix: str) -> Check:
    """Import in a process of its own: a broken engine may crash, and must not take the doctor with it."""
    missing = [name for name in distributions if not _version(name)]
    if missing:
        return Check(what, False, f"{', '.join(missing)} not installed", fix)
    modules = [_module(name) for name in distributions]
    command = [sys.executable, "-c", "import " + ", ".join(modules)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_IMPORT_TIMEOUT_S, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return Check(what, False, last, fix)
    return Check(what, True, ", ".join(f"{name} {_version(name)}" for name in distributions))


def _module(distribution: str) -> str:
    """The name a distribution is imported by, which its metadata knows."""
    provided = importlib.metadata.packages_distributions()
    names = [module for module, owners in provided.items() if distribution in owners and not module.startswith("_")]
    return distribution if distribution in names or not names else min(names, key=len)


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _database() -> Check:
    try:
        with LatencyDB.open() as database:
            stats = database.stats()
    except StoreError as error:
        return Check("latency database", False, f"{error.what} {error.why}".strip(), error.fix)
    free = os.statvfs(Path(stats.where).parent) if Path(stats.where).exists() else None
    room = f", {free.f_bavail * free.f_frsize / 1e9:.0f} GB free" if free else ""
    return Check("latency database", True, f"{stats.tables.get('measurement', 0)} rows in {stats.where}{room}")
