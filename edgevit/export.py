"""export: a folded model and a recipe -> a payload file and what each stage of the conversion cost and left."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from edgevit.errors import ExportError, UsageError
from edgevit.fold import Folded
from edgevit.recipes import toolchain
from edgevit_runtime.record import RecipeModule, Stage


def check_request(recipe: RecipeModule, precision: str) -> dict[str, str]:
    """Refuse what cannot work before anything slow starts; the versions of the tools it will use.

    Raises UsageError for a precision the target does not have, TargetUnavailableError for a missing converter.
    """
    offered = recipe.RECIPE.precisions
    if precision not in offered:
        what = f"target {recipe.RECIPE.target} has no precision {precision!r}"
        raise UsageError(what, fix=f"--precision {' or '.join(offered)}")
    return toolchain(recipe.RECIPE)


def convert(
    model: nn.Module,
    recipe: RecipeModule,
    payload: Path,
    *,
    inputs: Mapping[str, Tensor],
    precision: str,
    dynamic_batch: bool = False,
    allow_unfolded: bool = False,
) -> tuple[Stage, ...]:
    """Run a recipe's export() on a folded model, which leaves the payload and `stages/` beside it.

    A model that is not folded is refused, because it would run slower and look all right; `allow_unfolded` is for
    measuring just that. Raises ExportError where the converter refuses the model.
    """
    if not isinstance(model, Folded) and not allow_unfolded:
        raise ExportError(f"{type(model).__name__} is not folded", fix="fold(model) first, or ask for it: --unfolded")
    target = recipe.RECIPE.target
    try:
        return recipe.export(model, inputs, payload, precision=precision, dynamic_batch=dynamic_batch)
    except (RuntimeError, ValueError, TypeError, AssertionError) as error:
        why = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ExportError(
            f"{target}'s converter refused the model", why=why.strip(), fix="run it again with -v"
        ) from error
