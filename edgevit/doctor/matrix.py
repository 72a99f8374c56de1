"""The matrix of targets and their abilities here, derived from imports and from the machine's hardware."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence

from edgevit.doctor.imports import Import, ask, why_not_importable
from edgevit.doctor.records import Cell, TargetCells, combine, describe_versions
from edgevit.recipes import MODELS_NEED, engine_of, load_recipe
from edgevit_runtime.record import Recipe

_ASK_PROCESSOR = (
    "import json; from edgevit.recipes import missing_instructions as m; "
    "print(json.dumps({{name: m({0!r}, name) for name in {1!r}}}))"
)
_ASK_MACHINE = (
    "import json; from edgevit.recipes import why_unavailable as why; "
    "print(json.dumps([why({0!r}, 'build'), why({0!r}, 'run')]))"
)


def needed(recipe: Recipe) -> list[str]:
    """Return every distribution whose import decides what the target can do."""
    return [*_converters(recipe), *_engines(recipe)]


def target_cells(recipe: Recipe, imports: Mapping[str, Import], worker: Cell) -> TargetCells:
    """Return a target's row. A lack of hardware is reported before one of software, as no command enables it here."""
    to_build, to_run = _machine(recipe)
    convert = _installed(recipe, _converters(recipe), imports)
    engine = _engine(recipe, imports)
    run = combine(to_run, engine)
    if run.state == "elsewhere" and recipe.evaluator and imports[MODELS_NEED[0]].works:
        run = dataclasses.replace(run, detail=f"evaluated by the reference evaluator; {run.detail}")
    return TargetCells(
        recipe.target,
        convert=convert,
        build=combine(to_build, convert, engine, worker),
        run=run,
        profile=combine(to_run, engine, worker),
        missing_instructions=_missing_instructions(recipe) if engine.state == "yes" else {},
    )


def _missing_instructions(recipe: Recipe) -> dict[str, str]:
    """Return the instruction sets that this processor lacks, by precision. Ask in a fresh process: an engine loads."""
    if not recipe.processor_needs:
        return {}
    error, output = ask(_ASK_PROCESSOR.format(recipe.target, list(recipe.processor_needs)))
    missing: dict[str, str] = {} if error else json.loads(output)
    return {precision: name for precision, name in missing.items() if name}


def _converters(recipe: Recipe) -> list[str]:
    """Return the distributions that make the intermediate form, with those of the target it starts from."""
    source = needed(load_recipe(recipe.source).RECIPE) if recipe.source else []
    return list(dict.fromkeys((*MODELS_NEED, *source, *recipe.requires)))


def _engines(recipe: Recipe) -> list[str]:
    name = engine_of(recipe)
    return [name] if name else []


def _installed(recipe: Recipe, names: Sequence[str], imports: Mapping[str, Import]) -> Cell:
    versions = {name: imports[name].version for name in names}
    if reason := why_not_importable(names, imports):
        broken = [f"{name}=={version}" for name, version in versions.items() if imports[name].error]
        again = f"pip install --force-reinstall --no-deps {' '.join(broken)}"
        return Cell("no", reason, fix=again if all(versions.values()) else _install(recipe))
    return Cell("yes", describe_versions(versions), versions)


def _engine(recipe: Recipe, imports: Mapping[str, Import]) -> Cell:
    """Return the cell of the engine as a worker finds it: every payload is verified in a worker."""
    names = _engines(recipe)
    if not names:
        choices = " nor ".join((recipe.engine, *recipe.engine_choices))
        reason = f"neither {choices} is installed; an export leaves what builds the payload elsewhere"
        return Cell("no", reason, fix=_install(recipe))
    cell = _installed(recipe, names, imports)
    if cell.state == "yes" and imports[names[0]].hidden:
        reason = f"{cell.detail} is where a worker does not look: PYTHONPATH, or the user's site-packages"
        return Cell("no", reason, cell.versions, f"in a virtual environment: {_install(recipe)}")
    return cell


def _install(recipe: Recipe) -> str:
    return f"pip install 'edgevit[{recipe.extra}]'"


def _machine(recipe: Recipe) -> tuple[Cell, Cell]:
    """Return whether this machine can build and run the target. Ask in a fresh process: a driver may be opened."""
    if not recipe.needs:
        return Cell("yes"), Cell("yes")
    error, output = ask(_ASK_MACHINE.format(recipe.target))
    if error:
        unknown = Cell("no", f"looking for {recipe.needs} failed: {error}", fix=f"repair the driver of {recipe.needs}")
        return unknown, unknown
    build, run = json.loads(output)
    return (
        _cell(recipe, build, f"edgevit export MODEL --target {recipe.target}"),
        _cell(recipe, run, "edgevit profile ARTIFACT --device NAME"),
    )


def _cell(recipe: Recipe, lacking: str, command: str) -> Cell:
    if not lacking:
        return Cell("yes")
    return Cell("elsewhere", lacking, fix=f"a device with {recipe.needs}: {command}")
