"""Registry of recipes by name. Only this module imports them; no other module contains the name of a target."""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.resources
import importlib.util
import pkgutil
import typing
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Literal

from edgevit.errors import TargetUnavailableError, UnknownNameError
from edgevit_runtime.environment import installed
from edgevit_runtime.record import HostBound, ProcessorBound, Recipe, RecipeModule

MODELS_NEED = ("torch", "safetensors")  # distributions that every model needs
_PACKAGE = "edgevit.export_recipes"


@cache
def _modules() -> dict[str, RecipeModule]:
    package = importlib.import_module(_PACKAGE)
    names = [module.name for module in pkgutil.iter_modules(package.__path__)]
    modules = [typing.cast(RecipeModule, importlib.import_module(f"{_PACKAGE}.{name}")) for name in names]
    return {module.RECIPE.target: module for module in sorted(modules, key=lambda module: module.RECIPE.target)}


def list_recipes() -> list[Recipe]:
    """Return all recipes, by target name. This imports no converter and no engine."""
    return [module.RECIPE for module in _modules().values()]


def load_recipe(name: str) -> RecipeModule:
    """Return the recipe module of a target, by its name or an alias (trt, ov, tflite...)."""
    modules = _modules()
    names = {alias: target for target, module in modules.items() for alias in (target, *module.RECIPE.aliases)}
    if name.lower() not in names:
        raise UnknownNameError("target", name, names, listing="edgevit targets")
    return modules[names[name.lower()]]


def recipe_file(target: str) -> Path:
    """Return the recipe's source file, which travels to the device."""
    return Path(str(importlib.resources.files(_PACKAGE))) / f"{target}.py"


@cache
def recipe_sha256(target: str) -> str:
    """Return the digest of the code that writes a target: its recipe, and the recipe whose output that one converts."""
    digest, recipe = hashlib.sha256(), load_recipe(target).RECIPE
    for name in filter(None, (recipe.target, recipe.source)):
        digest.update(recipe_file(name).read_bytes())
    return digest.hexdigest()


def evaluator_source(recipe: Recipe) -> Path:
    """Return the source of a recipe's reference evaluator, a package that travels to the worker process."""
    return Path(str(importlib.resources.files("edgevit"))) / "verification" / recipe.evaluator


def require_torch() -> None:
    """Raise TargetUnavailableError with the command that fixes it unless the distributions of models are installed."""
    for name in MODELS_NEED:
        if importlib.util.find_spec(name) is None:
            raise TargetUnavailableError(
                f"this needs {name}, which is not installed", fix="pip install 'edgevit[export]'"
            )


def engine_of(recipe: Recipe) -> str:
    """Return the distribution that runs the target; empty where several could, and none of them is installed."""
    name, version = installed((recipe.engine, *recipe.engine_choices))
    return name if version or not recipe.engine_choices else ""


def why_unavailable(target: str, to: Literal["build", "run"]) -> str:
    """Return the hardware that this machine lacks to build or run the target; empty where the recipe names none."""
    module = load_recipe(target)
    return module.why_unavailable(to) if isinstance(module, HostBound) else ""


def missing_instructions(target: str, precision: str) -> str:
    """Return the instruction set that the precision needs in this target and this processor lacks; empty if none."""
    module = load_recipe(target)
    return module.missing_instructions(precision) if isinstance(module, ProcessorBound) else ""


def missing(recipe: Recipe) -> list[str]:
    """Return the missing distributions of an export. An engine with several choices does not count."""
    source = missing(load_recipe(recipe.source).RECIPE) if recipe.source else []
    engine = () if recipe.engine_choices else (recipe.engine,)
    return source + [name for name in dict.fromkeys((*recipe.requires, *engine)) if not installed((name,))[1]]


def usable_target() -> str:
    """Return the first target that this machine can build and run, in the order of names; else the first of all."""
    recipes = list_recipes()
    usable = (recipe for recipe in recipes if not missing(recipe) and _is_at_home(recipe.target))
    return next(usable, recipes[0]).target


def _is_at_home(target: str) -> bool:
    return not (why_unavailable(target, "build") or why_unavailable(target, "run"))


def toolchain(recipe: Recipe) -> dict[str, str]:
    """Return the versions of a conversion's distributions. Raises TargetUnavailableError if one is missing."""
    versions = toolchain(load_recipe(recipe.source).RECIPE) if recipe.source else {}
    engine = engine_of(recipe)
    for name in dict.fromkeys((*recipe.requires, *filter(None, [engine]))):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError as error:
            raise TargetUnavailableError(
                f"target {recipe.target} needs {name}, which is not installed",
                fix=f"pip install 'edgevit[{recipe.extra}]'",
            ) from error
    return versions


def import_shared(modules: Iterable[str]) -> None:
    """Import modules that several exports need. The export itself says which ones are missing."""
    for name in modules:
        with suppress(ImportError):
            importlib.import_module(name)
