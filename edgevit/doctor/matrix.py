"""The matrix of targets and what they can do here, from what can be imported and what the machine has."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence

from edgevit.doctor.imports import Import, ask, trouble
from edgevit.doctor.records import Cell, TargetCells, first_obstacle, says
from edgevit.recipes import MODELS_NEED, engine_of, load_recipe
from edgevit_runtime.record import Recipe

_ASK = (
    "import json; from edgevit.recipes import why_unavailable as why; "
    "print(json.dumps([why({0!r}, 'build'), why({0!r}, 'run')]))"
)


def needed(recipe: Recipe) -> list[str]:
    """Every distribution whose import says something of the target."""
    return [*_converters(recipe), *_engines(recipe)]


def target_cells(recipe: Recipe, imports: Mapping[str, Import], worker: Cell) -> TargetCells:
    """A target's row. What the machine lacks comes before what is not installed, because nothing mends it here."""
    to_build, to_run = _machine(recipe)
    convert = _installed(recipe, _converters(recipe), imports)
    engine = _engine(recipe, imports)
    run = first_obstacle(to_run, engine)
    if run.state == "elsewhere" and recipe.evaluator and imports[MODELS_NEED[0]].works:
        run = dataclasses.replace(run, detail=f"evaluated by the reference evaluator; {run.detail}")
    return TargetCells(
        recipe.target,
        convert=convert,
        build=first_obstacle(to_build, convert, engine, worker),
        run=run,
        profile=first_obstacle(to_run, engine, worker),
    )


def _converters(recipe: Recipe) -> list[str]:
    """The distributions that make the intermediate form, those of the target it starts from among them."""
    source = needed(load_recipe(recipe.source).RECIPE) if recipe.source else []
    return list(dict.fromkeys((*MODELS_NEED, *source, *recipe.requires)))


def _engines(recipe: Recipe) -> list[str]:
    name = engine_of(recipe)
    return [name] if name else []


def _installed(recipe: Recipe, names: Sequence[str], imports: Mapping[str, Import]) -> Cell:
    versions = {name: imports[name].version for name in names}
    if why := trouble(names, imports):
        broken = [f"{name}=={version}" for name, version in versions.items() if imports[name].error]
        again = f"pip install --force-reinstall --no-deps {' '.join(broken)}"
        return Cell("no", why, fix=again if all(versions.values()) else _install(recipe))
    return Cell("yes", says(versions), versions)


def _engine(recipe: Recipe, imports: Mapping[str, Import]) -> Cell:
    """The engine alone, as a worker finds it; every payload is verified in one before it gets its name."""
    names = _engines(recipe)
    if not names:
        known = " nor ".join((recipe.engine, *recipe.engine_choices))
        why = f"neither {known} is installed; an export leaves what builds the payload elsewhere"
        return Cell("no", why, fix=_install(recipe))
    cell = _installed(recipe, names, imports)
    if cell.state == "yes" and imports[names[0]].hidden:
        why = f"{cell.detail} is where a worker does not look: PYTHONPATH, or the user's site-packages"
        return Cell("no", why, cell.versions, f"in a virtual environment: {_install(recipe)}")
    return cell


def _install(recipe: Recipe) -> str:
    return f"pip install 'edgevit[{recipe.extra}]'"


def _machine(recipe: Recipe) -> tuple[Cell, Cell]:
    """Whether this machine can build and run the target. Asked in a fresh process, because it may open a driver."""
    if not recipe.needs:
        return Cell("yes"), Cell("yes")
    error, said = ask(_ASK.format(recipe.target))
    if error:
        unknown = Cell("no", f"looking for {recipe.needs} failed: {error}", fix=f"mend the driver of {recipe.needs}")
        return unknown, unknown
    build, run = json.loads(said)
    return (
        _cell(recipe, build, f"edgevit export MODEL --target {recipe.target}"),
        _cell(recipe, run, "edgevit profile ARTIFACT --device NAME"),
    )


def _cell(recipe: Recipe, lacking: str, command: str) -> Cell:
    if not lacking:
        return Cell("yes")
    return Cell("elsewhere", lacking, fix=f"a device with {recipe.needs}: {command}")
