"""Activation functions and the softmax."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .arguments import Arguments, Operator


def _gelu(a: Arguments) -> Tensor:
    mode = a.text("mode", "EXACT")
    if mode == "SIGMOID_APPROXIMATION":
        return a["x"] * (1.702 * a["x"]).sigmoid()
    return F.gelu(a["x"], approximate="none" if mode == "EXACT" else "tanh")


def _per_channel(a: Arguments, name: str) -> Tensor:
    return a[name].reshape(-1, *[1] * (a["x"].ndim - 2))


def _clamped_relu(a: Arguments) -> Tensor:
    x = a["x"]
    return torch.where(x >= 0, x, a.number("alpha") * x).clamp(max=a.number("beta"))


OPERATORS: dict[str, Operator] = {
    "clamped_relu": _clamped_relu,
    "elu": lambda a: F.elu(a["x"], a.number("alpha")),
    "gelu": _gelu,
    "leaky_relu": lambda a: F.leaky_relu(a["x"], a.number("alpha")),
    "linear_activation": lambda a: a["x"] * a.number("alpha") + a.number("beta"),
    "prelu": lambda a: torch.where(a["x"] >= 0, a["x"], a["x"] * _per_channel(a, "alpha")),
    "relu": lambda a: torch.relu(a["x"]),
    "relu6": lambda a: F.relu6(a["x"]),
    "scaled_tanh": lambda a: a.number("alpha") * (a["x"] * a.number("beta")).tanh(),
    "sigmoid": lambda a: torch.sigmoid(a["x"]),
    "sigmoid_hard": lambda a: (a["x"] * a.number("alpha") + a.number("beta")).clamp(0, 1),
    "silu": lambda a: F.silu(a["x"]),
    "softmax": lambda a: a["x"].softmax(a.int("axis", -1)),
    "softplus": lambda a: torch.logaddexp(a["x"], torch.zeros_like(a["x"])),
    "softplus_parametric": lambda a: _per_channel(a, "alpha") * F.softplus(a["x"] * _per_channel(a, "beta")),
    "softsign": lambda a: F.softsign(a["x"]),
    "threshold": lambda a: a["x"].clamp(min=a.number("alpha")),
    "thresholded_relu": lambda a: torch.where(a["x"] >= a.number("alpha"), a["x"], 0.0),
}
