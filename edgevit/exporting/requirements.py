"""Requirements of a target: what it refuses before anything slow starts. Importing this costs no torch."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from edgevit.errors import UsageError
from edgevit.recipes import load_recipe, toolchain
from edgevit_runtime.record import Recipe, RecipeModule


def check_request(
    recipe: RecipeModule,
    precision: str,
    *,
    dynamic_batch: bool = False,
    options: Mapping[str, str] | None = None,
    dtypes: Collection[str] = (),
) -> dict[str, str]:
    """Refuse what cannot work before anything slow starts; the versions of the tools it will use.

    `dtypes` are those of the inputs. Raises UsageError for what the target does not have, or refuses by its nature;
    TargetUnavailableError for a missing converter.
    """
    described = recipe.RECIPE
    if precision not in described.precisions:
        problem = f"target {described.target} has no precision {precision!r}"
        raise UsageError(problem, fix=f"--precision {' or '.join(described.precisions)}")
    if dynamic_batch:
        _check_batch(described)
    _check_dtypes(described, dtypes)
    versions = toolchain(described)
    _check_options(recipe, options or {})
    return versions


def _check_batch(described: Recipe) -> None:
    for name in filter(None, (described.target, described.source)):
        if why := load_recipe(name).RECIPE.fixed_batch:
            problem = f"target {described.target} takes no open batch"
            raise UsageError(problem, why=why, fix="--batch-size N, and one export for each batch size")


def _check_dtypes(described: Recipe, dtypes: Collection[str]) -> None:
    for name in filter(None, (described.target, described.source)):
        taken = load_recipe(name).RECIPE.input_dtypes
        if strangers := sorted(set(dtypes) - set(taken)) if taken else []:
            problem = f"target {described.target} takes no input of {' or '.join(strangers)}"
            fix = "without --embed-preprocess" if strangers == ["uint8"] else ""
            raise UsageError(problem, why=f"it takes {' and '.join(taken)}", fix=fix)


def _check_options(recipe: RecipeModule, options: Mapping[str, str]) -> None:
    described = recipe.RECIPE
    for name in options:
        if name not in described.options:
            offered = ", ".join(described.options) or "none"
            raise UsageError(f"target {described.target} has no option {name!r}", why=f"it takes: {offered}")
    check = getattr(recipe, "check", None)
    try:
        if check is not None:
            check(options)
    except ValueError as error:
        raise UsageError(f"target {described.target} refuses an option", why=str(error)) from error
