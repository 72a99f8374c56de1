"""The check of a fold before it is handed over: on one sample it computes what the model computes.

The proof (proof.py) tells more, with two precisions and the inputs of its caller. This check is the least that every
fold passes. It is made in float64 where the graph and the model can run in it, because no rounding hides a small
error there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from edgevit.errors import FoldError
from edgevit.folding.agreement import cast, copied, in_dtype, outputs, worst
from edgevit.folding.answers import ROUNDINGS, sensitivity
from edgevit.folding.model_code import FAILURES, first_line
from edgevit.folding.one_dtype import OneDtype
from edgevit.folding.restoration import State

if TYPE_CHECKING:
    from edgevit.folding.inference_form import Folded

# A right fold is about 1e-15 in float64 and 1e-7 in float32. In half precision this finds gross errors only.
LIMITS = {torch.float64: 1e-10, torch.float32: 1e-5, torch.float16: 5e-2, torch.bfloat16: 5e-1}
# What rounding may move in a network that amplifies it. A mistake is larger.
LARGEST_ROUNDING = 1e-7
Refold = Callable[[nn.Module, tuple[Tensor, ...]], nn.Module]
# Two answers to one input are the same up to rounding of threads.
LARGEST_CHANGE = 1e-6


def check_fold(model: nn.Module, folded: Folded, inputs: Sequence[Tensor]) -> None:
    """Raise FoldError where the folded form differs from its model, or where nothing can be compared.

    A model on the meta device computes nothing, so nothing is checked.
    """
    if _computes_nothing(model, inputs):
        return
    limit = _limit(model, folded, inputs)
    dtype = "float64" if limit == LIMITS[torch.float64] else "the dtype of the model"
    # A network may count its calls, so copies run.
    _judge(copied(model) or model, copied(folded) or folded, inputs, limit, dtype)


def agrees_in_float64(model: nn.Module, wide: Folded, inputs: Sequence[Tensor], *, refold: Refold) -> bool:
    """Return whether the folded form computes what its model computes, in float64. Raises FoldError as check_fold does.

    False: they do not run in float64, or they are not to be compared in it. wide: the folded form with all its weights
    in float64. A network of several dtypes is compared in float64 alone. refold: a fold without a check, for one that
    reads its own precision.
    """
    if _computes_nothing(model, inputs):
        return False
    limit = _limit(model, wide, inputs)
    trained = in_dtype(model, torch.float64)
    if trained is None:
        return False
    # One that makes tensors of its own in float32 may not run in float64.
    with contextlib.suppress(RuntimeError):
        mode = contextlib.nullcontext() if wide.follows_dtype else OneDtype(torch.float64)
        return _agree(trained, wide, cast(inputs, torch.float64), mode, refold, limit)
    return False


def _computes_nothing(model: nn.Module, inputs: Sequence[Tensor]) -> bool:
    return any(tensor.is_meta for tensor in (*model.parameters(), *inputs))


def _limit(model: nn.Module, folded: Folded, inputs: Sequence[Tensor]) -> float:
    """Return the limit of the coarsest dtype in which a model computes."""
    return max((LIMITS[kind] for kind in _kinds(model, folded, inputs)), default=0.0)


def _agree(
    trained: nn.Module,
    wide: nn.Module,
    inputs: tuple[Tensor, ...],
    mode: contextlib.AbstractContextManager[Any],
    refold: Refold,
    limit: float,
) -> bool:
    """Raise FoldError as _judge does; return False for a model that reads its precision, whose own fold agrees there.

    limit: that of the model's own dtypes. In half precision it would hide a mistake.
    """
    try:
        with mode:
            _judge(trained, wide, inputs, LIMITS[torch.float64], "float64")
        return True
    except FoldError:
        if limit > LIMITS[torch.float32]:
            raise
    # A capture of its own needs the model to run without the mode.
    with torch.inference_mode():
        outputs(trained, inputs)
    _judge(trained, refold(trained, inputs), inputs, LIMITS[torch.float64], "float64")
    return False


def _judge(trained: nn.Module, folded: nn.Module, inputs: Sequence[Tensor], limit: float, dtype: str) -> None:
    """Compare on the first sample that the model has an answer to. Raise FoldError as check_fold does."""
    name, state = type(trained).__name__, State(trained)
    why = "the model itself gives no finite number for noise, for numbers from 0 to 1, nor for the example inputs"
    for sample in _samples(inputs):
        with torch.inference_mode():
            try:
                expected = outputs(trained, [tensor.clone() for tensor in sample])
            except FAILURES as failure:
                why = f"the model itself fails, {first_line(failure)}"
                continue
            if not _has_numbers(expected):
                continue
            error = worst(expected, outputs(folded, [tensor.clone() for tensor in sample]))
            if error <= limit:
                if state.has_changed():
                    _require_same_memory(trained, folded, sample, max(limit, LARGEST_CHANGE))
                return
            again = worst(expected, outputs(trained, [tensor.clone() for tensor in sample]))
            rounding = ROUNDINGS * sensitivity(trained, sample)
        if again > 0:
            raise FoldError(
                "the model gives two answers to one input",
                where=name,
                why=f"two runs differ by {again:.1e} of the output: something random is left on, such as a dropout",
                fix="turn it off in evaluation mode; fold(model, inputs, check=False) does not compare",
            )
        if error <= min(rounding, LARGEST_ROUNDING):
            return
        if error <= rounding:
            raise FoldError(
                "the fold cannot be checked",
                where=name,
                why=f"they differ by {error:.1e} of the output, and rounding alone may move the model's own by "
                f"{min(rounding, 1):.1e}",
                fix="load trained weights; fold(model, inputs, check=False) does not compare",
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
        why=why,
        fix="give inputs that the model is made for; fold(model, inputs, check=False) does not compare",
    )


def _require_same_memory(trained: nn.Module, folded: nn.Module, sample: Sequence[Tensor], limit: float) -> None:
    """Raise FoldError where a model that changes its own attributes answers otherwise than its fold after other inputs.

    A buffer that counts is part of the graph. Any other tensor of one call is unknown to the fold in the next one.
    """
    answers = []
    for network in (trained, folded):
        outputs(network, [-tensor if tensor.is_floating_point() else tensor.clone() for tensor in sample])
        # Twice, because a forward may do something else at every other call.
        again = [outputs(network, [tensor.clone() for tensor in sample]) for _ in range(2)]
        answers.append([tensor for answer in again for tensor in answer])
    if worst(*answers) > limit:
        raise FoldError(
            "the model's answer depends on the inputs that it had before",
            where=type(trained).__name__,
            why="its forward keeps tensors of one call for the next, and a folded form has no memory",
            fix="let such a tensor be an input and an output; fold(model, inputs, check=False) does not compare",
        )


def _kinds(model: nn.Module, folded: Folded, inputs: Sequence[Tensor]) -> set[torch.dtype]:
    """Return the floating dtypes in which a model computes; one without a limit counts as float32."""
    values = torch.utils._pytree.tree_leaves([node.meta.get("val") for node in folded.net.graph.nodes])
    computed = (value for value in values if isinstance(value, Tensor))
    tensors = (*model.parameters(), *model.buffers(), *inputs, *computed)
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
