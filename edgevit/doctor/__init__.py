"""Diagnosis of this machine: what each target can do here, and what all targets need.

`examine` imports the installed distributions in other processes, each engine in its own, and asks the recipes what the
machine lacks. `try_targets` exports, verifies and times a small network.
"""

from __future__ import annotations

from collections.abc import Sequence

from edgevit.doctor.checks import (
    PHOTOGRAPHS,
    check_database,
    check_photographs,
    check_python,
    check_torch,
    check_worker,
)
from edgevit.doctor.imports import try_imports
from edgevit.doctor.matrix import needed, target_cells
from edgevit.doctor.records import ABILITIES as ABILITIES
from edgevit.doctor.records import Cell as Cell
from edgevit.doctor.records import Check as Check
from edgevit.doctor.records import Diagnosis as Diagnosis
from edgevit.doctor.records import TargetCells as TargetCells
from edgevit.doctor.smoke_test import try_targets as try_targets
from edgevit.recipes import MODELS_NEED, engine_of, list_recipes, load_recipe
from edgevit_runtime import environment


def examine(targets: Sequence[str] = (), db: str | None = None) -> Diagnosis:
    """Diagnose these targets, or all of them. A database that does not exist yet is made; nothing else changes.

    Raises UnknownNameError for an unknown target.
    """
    names = {load_recipe(name).RECIPE.target for name in targets}
    recipes = [recipe for recipe in list_recipes() if not targets or recipe.target in names]
    distributions = dict.fromkeys([*MODELS_NEED, *(name for recipe in recipes for name in needed(recipe))])
    # A worker imports its engine alone. An export imports converters beside torch.
    converters = distributions.keys() - {engine_of(recipe) for recipe in recipes}
    imports = try_imports([*distributions, PHOTOGRAPHS], converters)
    worker = check_worker()
    started = Cell("yes") if worker.works else Cell("no", f"no worker: {worker.detail}", fix=worker.fix)
    cells = tuple(target_cells(recipe, imports, started) for recipe in recipes)
    checks = (check_python(), check_torch(imports), check_photographs(imports), worker, check_database(db))
    return Diagnosis(environment.host(), cells, checks)
