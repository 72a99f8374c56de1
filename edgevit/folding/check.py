"""The check of a fold before it is handed over: on one sample it computes what the model computes.

The proof (proof.py) tells more, with two precisions and the inputs of its caller. This check is the least that every
fold passes. It is made in float64 where the graph and the model can run in it, because no rounding hides a small
error there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from edgevit.errors import FoldError
from edgevit.folding.agreement import cast, copied, outputs, worst

# A right fold is about 1e-15 in float64 and 1e-7 in float32. In half precision this finds gross errors only.
LIMITS = {torch.float64: 1e-10, torch.float32: 1e-5, torch.float16: 5e-2, torch.bfloat16: 5e-1}


def check_fold(model: nn.Module, folded: nn.Module, inputs: Sequence[Tensor], *, wide: nn.Module | None = None) -> None:
    """Raise FoldError where the folded form differs from its model, or where nothing can be compared.

    wide: the folded form in float64, where the graph is right in that too. A model on the meta device computes nothing,
    so nothing is checked.
    """
    if any(tensor.is_meta for tensor in (*model.parameters(), *inputs)):
        return
    # A network may count its calls, so copies run.
    if wide is not None and (trained := copied(model)) is not model:
        # One that names float32 in its code does not run in float64.
        with contextlib.suppress(RuntimeError):
            _judge(trained.double(), wide, cast(inputs, torch.float64), LIMITS[torch.float64], "float64")
            return
    limit = max((LIMITS[kind] for kind in _kinds(model, inputs)), default=0.0)
    dtype = "float64" if limit == LIMITS[torch.float64] else "the dtype of the model"
    _judge(copied(model), copied(folded), inputs, limit, dtype)


def _judge(trained: nn.Module, folded: nn.Module, inputs: Sequence[Tensor], limit: float, dtype: str) -> None:
    """Compare on the first sample that the model has an answer to. Raise FoldError as check_fold does."""
    name = type(trained).__name__
    for sample in _samples(inputs):
        with torch.inference_mode():
            expected = outputs(trained, [tensor.clone() for tensor in sample])
            if not _has_numbers(expected):
                continue
            error = worst(expected, outputs(folded, [tensor.clone() for tensor in sample]))
            if error <= limit:
                return
            again = worst(expected, outputs(trained, [tensor.clone() for tensor in sample]))
        if again > 0:
            raise FoldError(
                "the model gives two answers to one input",
                where=name,
                why=f"two runs differ by {again:.1e} of the output: something random is left on, such as a dropout",
                fix="turn it off in evaluation mode; fold(model, inputs, check=False) does not compare",
            )
        raise FoldError(
            "the folded form does not compute what the model computes",
            where=name,
            why=f"on noise they differ by {error:.1e} of the output, in {dtype}; the limit is {limit:.0e}",
            fix="report it, with the model; export --unfolded does without the fold",
        )
    raise FoldError(
        "the fold cannot be checked",
        where=name,
        why="the model itself gives no finite number for noise, for numbers from 0 to 1, nor for the example inputs",
        fix="give inputs that the model is made for; fold(model, inputs, check=False) does not compare",
    )


def _kinds(model: nn.Module, inputs: Sequence[Tensor]) -> set[torch.dtype]:
    """Return the floating dtypes of a model's tensors and inputs; one without a limit counts as float32."""
    tensors = (*model.parameters(), *model.buffers(), *inputs)
    return {kind if (kind := tensor.dtype) in LIMITS else torch.float32 for tensor in tensors if not _is_whole(tensor)}


def _is_whole(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() and not tensor.is_complex()


def _samples(inputs: Sequence[Tensor]) -> Iterator[tuple[Tensor, ...]]:
    """Yield noise, then numbers from 0 to 1, then the inputs themselves; integers are as they were given."""
    for draw in (torch.randn, torch.rand):
        generator = torch.Generator().manual_seed(0)
        yield tuple(
            draw(tensor.shape, generator=generator).to(tensor) if tensor.is_floating_point() else tensor
            for tensor in inputs
        )
    yield tuple(inputs)


def _has_numbers(tensors: Sequence[Tensor]) -> bool:
    """Return whether outputs have no NaN, and a number that is finite."""
    return (
        bool(tensors)
        and not any(bool(tensor.isnan().any()) for tensor in tensors)
        and any(bool(tensor.isfinite().any()) for tensor in tensors)
    )
