"""export: a folded model and a recipe -> a payload file and what each stage of the conversion cost and left."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from edgevit.errors import ExportError, UsageError
from edgevit.fold import Folded
from edgevit.recipes import load_recipe, toolchain
from edgevit_runtime.record import RecipeModule, Stage

SOURCE = "source"  # folder beside a payload: the payload it was made from


def check_request(recipe: RecipeModule, precision: str) -> dict[str, str]:
    """Refuse what cannot work before anything slow starts; the versions of the tools it will use.

    Raises UsageError for a precision the target does not have, TargetUnavailableError for a missing converter.
    """
    offered = recipe.RECIPE.precisions
    if precision not in offered:
        what = f"target {recipe.RECIPE.target} has no precision {precision!r}"
        raise UsageError(what, fix=f"--precision {' or '.join(offered)}")
    return toolchain(recipe.RECIPE)


def check_options(recipe: RecipeModule, options: Mapping[str, str]) -> None:
    """Raises UsageError for an option that the target does not take."""
    for name in options:
        if name not in recipe.RECIPE.options:
            known = ", ".join(recipe.RECIPE.options) or "none"
            raise UsageError(f"target {recipe.RECIPE.target} has no option {name!r}", why=f"it takes: {known}")


def convert(
    model: nn.Module,
    recipe: RecipeModule,
    payload: Path,
    *,
    inputs: Mapping[str, Tensor],
    precision: str,
    dynamic_batch: bool = False,
    allow_unfolded: bool = False,
    options: Mapping[str, str] | None = None,
) -> tuple[Stage, ...]:
    """Run a recipe's export() on a folded model, which leaves the payload and `stages/` beside it.

    A recipe that starts from another target's payload gets that one, made in `source/` with stages of its own.
    A model that is not folded is refused, because it would run slower and look all right; `allow_unfolded` is for
    measuring just that. Raises ExportError where the converter refuses the model.
    """
    if not isinstance(model, Folded) and not allow_unfolded:
        raise ExportError(f"{type(model).__name__} is not folded", fix="fold(model) first, or ask for it: --unfolded")
    target, source = recipe.RECIPE.target, recipe.RECIPE.source
    how = {"precision": precision, "dynamic_batch": dynamic_batch}
    before: tuple[Stage, ...] = ()
    given: nn.Module | Path = model
    if source:
        base = load_recipe(source)
        given = payload.parent / SOURCE / f"{payload.name.removesuffix(recipe.RECIPE.suffix)}{base.RECIPE.suffix}"
        given.parent.mkdir()
        made = convert(model, base, given, inputs=inputs, allow_unfolded=allow_unfolded, **how)  # type: ignore[arg-type]
        before = tuple(dataclasses.replace(stage, target=stage.target or source) for stage in made)
    try:
        done = recipe.export(given, inputs, payload, options=options or {}, **how)  # type: ignore[arg-type]
        return (*before, *done)
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:
        why = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ExportError(
            f"{target}'s converter refused the model", why=why.strip(), fix="run it again with -v"
        ) from error
