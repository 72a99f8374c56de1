"""How far two networks differ on the same inputs."""

from __future__ import annotations

import copy
import dataclasses
import math
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from edgevit.folding.model_code import FAILURES, ModelCode


def max_rel(reference: Tensor, other: Tensor) -> float:
    """Return max |reference - other| / max |reference| over finite numbers.

    It is infinite where shapes differ, or where a number is finite in one of the two only. Equal infinities agree: a
    mask puts them there. A NaN agrees with nothing.
    """
    a, b = (_as_real(tensor.detach()).double() for tensor in (reference, other))
    if a.shape != b.shape:
        return math.inf
    masked = a.isinf() & (a == b)
    if bool(masked.any()):
        a, b = a.masked_fill(masked, 0.0), b.masked_fill(masked, 0.0)
    if not bool(torch.isfinite(a).all() and torch.isfinite(b).all()):
        return math.inf
    if not a.numel():
        return 0.0
    scale, difference = float(a.abs().max()), float((a - b).abs().max())
    return difference / scale if scale > 0 else math.inf if difference > 0 else 0.0


def _as_real(tensor: Tensor) -> Tensor:
    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor


def cast(inputs: Sequence[Tensor], dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Return the inputs with every floating one in this dtype."""
    return tuple(tensor.to(dtype) if tensor.is_floating_point() else tensor for tensor in inputs)


def outputs(model: Callable[..., Any], inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Return a model's outputs as a flat tuple of tensors. What it raises is among FAILURES."""
    with ModelCode():
        result = model(*inputs)
    register_records(result)
    return tuple(leaf for leaf in torch.utils._pytree.tree_leaves(result) if isinstance(leaf, Tensor))


def register_records(result: Any) -> bool:
    """Tell torch the dataclasses in a result, so that it takes them apart as it does dictionaries.

    Returns whether there are new ones.
    """
    pending, found = torch.utils._pytree.tree_leaves(result), False
    while pending:
        leaf = pending.pop()
        if dataclasses.is_dataclass(leaf) and not isinstance(leaf, type):
            torch.export.register_dataclass(type(leaf))
            pending += torch.utils._pytree.tree_leaves(leaf)
            found = True
    return found


def compare(trained: nn.Module, folded: nn.Module, inputs: Sequence[Tensor]) -> float:
    """Return the worst `max_rel` over the outputs of the two on the same inputs; infinite without any output."""
    with torch.inference_mode():
        return worst(outputs(trained, inputs), outputs(folded, inputs))


def worst(expected: Sequence[Tensor], computed: Sequence[Tensor]) -> float:
    """Return the worst `max_rel` over two lists of outputs; infinite without any output."""
    pairs = zip(expected, computed, strict=True)
    return max((max_rel(reference, other) for reference, other in pairs), default=math.inf)


def copied(model: nn.Module) -> nn.Module | None:
    """Return a copy of the model; None if it holds something that cannot be copied, such as a lock."""
    # A tensor with the history of its gradient does not let itself be copied; here its numbers are.
    computed = (tensor for module in model.modules() for tensor in torch.utils._pytree.tree_leaves(vars(module)))
    copies: dict[int, Any] = {
        id(tensor): tensor.detach().clone()
        for tensor in computed
        if isinstance(tensor, Tensor) and tensor.requires_grad and not tensor.is_leaf
    }
    try:
        return copied_with(model, copies)
    except FAILURES:
        return None


def copied_with(model: nn.Module, replacements: dict[int, Any]) -> nn.Module:
    """Return a copy of the model that has these objects in place of those with the ids. Raises one of FAILURES."""
    with ModelCode(), warnings.catch_warnings():
        # torch 2.13 copies its own tree specs and warns about it.
        warnings.filterwarnings("ignore", message=r".*treespec, LeafSpec.*", category=FutureWarning)
        return copy.deepcopy(model, replacements)


def in_dtype(model: nn.Module, dtype: torch.dtype) -> nn.Module | None:
    """Return a copy of the model with every floating parameter and buffer in this dtype; None if it cannot be copied.

    Tensors that are plain attributes, such as filled caches, are in it too.
    """
    copy_ = copied(model)
    if copy_ is None:
        return None
    # A module's own `to` makes complex numbers real.
    for module in copy_._apply(partial(_cast_leaf, dtype=dtype)).modules():  # type: ignore[no-untyped-call]
        for name, value in vars(module).items():
            if isinstance(value, (Tensor, dict, list, tuple)) and not name.startswith("_"):
                vars(module)[name] = torch.utils._pytree.tree_map(partial(_cast_leaf, dtype=dtype), value)
    return copy_


def _cast_leaf(leaf: Any, dtype: torch.dtype) -> Any:
    if isinstance(leaf, Tensor) and leaf.is_complex():
        return leaf.to(dtype.to_complex())
    return leaf.to(dtype) if isinstance(leaf, Tensor) and leaf.is_floating_point() else leaf
