"""Reductions over axes, cumulative sums and orders."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .arguments import Arguments, Operator


def _reduce(reduction: Callable[..., Tensor]) -> Operator:
    def apply(a: Arguments) -> Tensor:
        axes = a.ints("axes") or list(range(a["x"].ndim))
        return reduction(a["x"], axes, keepdim=bool(a.int("keep_dims")))

    return apply


def _reduce_arg(pick: Callable[..., Tensor]) -> Operator:
    return lambda a: pick(a["x"], a.int("axis", -1), keepdim=bool(a.int("keep_dims")))


def _product(x: Tensor, axes: Sequence[int], *, keepdim: bool) -> Tensor:
    for axis in sorted((axis % x.ndim for axis in axes), reverse=True):
        x = x.prod(axis, keepdim=keepdim)
    return x


def _cumsum(a: Arguments) -> Tensor:
    x, axis = a["x"], a.int("axis")
    x = x.flip(axis) if a.int("reverse") else x
    total = x.cumsum(axis) - x if a.int("exclusive") else x.cumsum(axis)
    return total.flip(axis) if a.int("reverse") else total


def _topk(a: Arguments) -> Tensor | tuple[Tensor, ...]:
    values, indices = a["x"].topk(a.int("k", 1), a.int("axis", -1), largest=not a.int("ascending"))
    return (values, indices) if a.int("return_indices", 1) else values


def _argsort(a: Arguments) -> Tensor:
    return a["x"].argsort(stable=True, dim=a.int("axis", -1), descending=not a.int("ascending"))


_REDUCTIONS: dict[str, Callable[..., Tensor]] = {
    "max": torch.amax, "min": torch.amin, "mean": torch.mean, "sum": torch.sum, "prod": _product,
    "l1_norm": lambda x, axes, keepdim: x.abs().sum(axes, keepdim=keepdim),
    "l2_norm": lambda x, axes, keepdim: x.square().sum(axes, keepdim=keepdim).sqrt(),
    "log_sum": lambda x, axes, keepdim: x.sum(axes, keepdim=keepdim).log(),
    "log_sum_exp": torch.logsumexp,
    "sum_square": lambda x, axes, keepdim: x.square().sum(axes, keepdim=keepdim),
}  # fmt: skip

OPERATORS: dict[str, Operator] = {
    **{f"reduce_{name}": _reduce(function) for name, function in _REDUCTIONS.items()},
    "argsort": _argsort,
    "cumsum": _cumsum,
    "reduce_argmax": _reduce_arg(torch.argmax),
    "reduce_argmin": _reduce_arg(torch.argmin),
    "topk": _topk,
}
