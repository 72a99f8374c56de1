"""Elementwise arithmetic, comparisons, logic and constant tensors."""

from __future__ import annotations

import operator
from collections.abc import Callable

import torch
from torch import Tensor

from .arguments import Arguments, Operator


def _unary(function: Callable[[Tensor], Tensor]) -> Operator:
    return lambda a: function(a["x"])


def _binary(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    return lambda a: function(a["x"], a["y"])


def _cast(a: Arguments) -> Tensor:
    """Return the input; its declared type rounds it, like every result. Only bool is another function."""
    return a["x"] != 0 if a.text("dtype", "fp32") == "bool" else a["x"]


_UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    "abs": torch.abs, "acos": torch.acos, "asin": torch.asin, "atan": torch.atan, "atanh": torch.atanh,
    "ceil": torch.ceil, "cos": torch.cos, "cosh": torch.cosh, "erf": torch.erf, "exp": torch.exp, "exp2": torch.exp2,
    "floor": torch.floor, "identity": lambda x: x, "logical_not": torch.logical_not, "round": torch.round,
    "sign": torch.sign, "sin": torch.sin, "sinh": torch.sinh, "sqrt": torch.sqrt, "square": torch.square,
    "tan": torch.tan, "tanh": torch.tanh,
}  # fmt: skip
_BINARY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": operator.add, "sub": operator.sub, "mul": operator.mul, "real_div": operator.truediv,
    "maximum": torch.maximum, "minimum": torch.minimum, "pow": operator.pow, "floor_div": torch.floor_divide,
    "mod": torch.remainder, "equal": torch.eq, "not_equal": torch.ne, "greater": torch.gt, "greater_equal": torch.ge,
    "less": torch.lt, "less_equal": torch.le, "logical_and": torch.logical_and, "logical_or": torch.logical_or,
    "logical_xor": torch.logical_xor,
}  # fmt: skip

OPERATORS: dict[str, Operator] = {
    **{name: _unary(function) for name, function in _UNARY.items()},
    **{name: _binary(function) for name, function in _BINARY.items()},
    "cast": _cast,
    "clip": lambda a: a["x"].clamp(a.number("alpha"), a.number("beta")),
    "fill": lambda a: torch.full(a.ints("shape"), a.number("value")),
    "fill_like": lambda a: torch.full(tuple(a["ref_tensor"].shape), a.number("value")),
    "inverse": lambda a: 1 / (a["x"] + a.number("epsilon", 1e-4)),
    "log": lambda a: (a["x"] + a.number("epsilon", 1e-45)).log(),
    "range_1d": lambda a: torch.arange(a["start"].item(), a["end"].item(), a["step"].item()),
    "rsqrt": lambda a: (a["x"] + a.number("epsilon", 1e-12)).rsqrt(),
    "select": lambda a: torch.where(a["cond"], a["a"], a["b"]),
}
