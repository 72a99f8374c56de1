"""export: a folded model and a recipe -> a payload file and what each stage of the conversion cost and left."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from edgevit.artifacts.folder_lock import is_full
from edgevit.errors import EdgevitError, ExportError
from edgevit.exporting.blame import refused_operator, root_cause
from edgevit.exporting.outputs import plain_outputs
from edgevit.exporting.spelling import spelled
from edgevit.folding import Folded, origin
from edgevit.recipes import load_recipe
from edgevit_runtime.dialect import QUANTIZED
from edgevit_runtime.record import RecipeModule, Stage

SOURCE = "source"  # folder beside a payload: the payload it was made from
_HALVES = (torch.float16, torch.bfloat16)


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
    measuring just that. Raises ExportError where the converter refuses the model, which names the first operator that
    the converter refuses alone.
    """
    if not isinstance(model, Folded) and not allow_unfolded:
        raise ExportError(f"{type(model).__name__} is not folded", fix="fold(model) first, or ask for it: --unfolded")
    if isinstance(model, Folded):
        _require_single_precision(model)
    try:
        return convert_alone(
            model, recipe, payload, inputs=inputs, precision=precision, dynamic_batch=dynamic_batch, options=options
        )
    except ExportError as error:
        # A quantization means nothing alone.
        divides = isinstance(model, Folded) and precision not in QUANTIZED
        operator = refused_operator(model, recipe, inputs, precision, error) if divides else None  # type: ignore[arg-type]
        if operator is None:
            raise
        name = operator.label.split()[0]
        why = f"{error.why}; {name} alone: {operator.reason}" if operator.reason else error.why
        fix = f"write {name} with other operators, or choose another target"
        raise ExportError(error.what, where=operator.label, why=why, fix=fix) from error.__cause__


def _require_single_precision(model: Folded) -> None:
    """Raise ExportError where a part of the model computes in half precision.

    An engine rounds otherwise there, so nothing could be compared with the model.
    """
    for node in model.net.graph.nodes:
        value = node.meta.get("val")
        if node.op == "call_function" and isinstance(value, Tensor) and value.dtype in _HALVES:
            raise ExportError(
                f"a part of the model computes in {str(value.dtype).removeprefix('torch.')}",
                where=f"{node.target} of {origin(node)}",
                why="the precision of an artifact is that of its export, for the whole model",
                fix="export the model in single precision: model.float(), and no cast to half in its forward; then "
                "--precision fp16 makes all of it half",
            )


def convert_alone(
    model: nn.Module,
    recipe: RecipeModule,
    payload: Path,
    *,
    inputs: Mapping[str, Tensor],
    precision: str,
    dynamic_batch: bool = False,
    options: Mapping[str, str] | None = None,
) -> tuple[Stage, ...]:
    """Convert any module as convert() does; its ExportError says what the converter said, and names no operator."""
    form = {"precision": precision, "dynamic_batch": dynamic_batch}
    spelled_form = spelled(model, recipe.RECIPE.spellings) if isinstance(model, Folded) else model
    plain, outputs = plain_outputs(spelled_form, inputs)
    source_form: nn.Module | Path = plain
    before: tuple[Stage, ...] = ()
    if source := recipe.RECIPE.source:
        base = load_recipe(source)
        source_form = payload.parent / SOURCE / f"{payload.name.removesuffix(recipe.RECIPE.suffix)}{base.RECIPE.suffix}"
        source_form.parent.mkdir()
        stages = convert_alone(spelled_form, base, source_form, inputs=inputs, **form)  # type: ignore[arg-type]
        before = tuple(dataclasses.replace(stage, target=stage.target or source) for stage in stages)
    with _Refusals() as refusals:
        stages = recipe.export(source_form, inputs, payload, outputs=outputs, options=options or {}, **form)  # type: ignore[arg-type]
        return (*before, *stages)
    raise ExportError(
        f"{recipe.RECIPE.target}'s converter refused the model", why=refusals.reason, fix="run it again with -v"
    ) from refusals.error


class _Refusals:
    """Takes what a converter raises. Converters have exception classes of their own, which have no base in common."""

    def __init__(self) -> None:
        self.error: Exception | None = None

    def __enter__(self) -> _Refusals:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, Exception) or isinstance(error, EdgevitError):
            return False
        cause = root_cause(error)
        if isinstance(cause, OSError) and is_full(cause):
            # No converter is to blame for a full disk.
            raise cause
        self.error = error
        return True

    @property
    def reason(self) -> str:
        """The first line that tells, or the name of the error."""
        error = root_cause(self.error) if self.error else None
        lines = (line.strip() for line in str(error).splitlines())
        return next(filter(None, lines), type(error).__name__)
