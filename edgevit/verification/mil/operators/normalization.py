"""Normalizations over batches, instances and layers."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from .arguments import Arguments, Operator


def _batch_norm(a: Arguments) -> Tensor:
    return F.batch_norm(a["x"], a["mean"], a["variance"], a.get("gamma"), a.get("beta"), eps=a.number("epsilon", 1e-5))


def _instance_norm(a: Arguments) -> Tensor:
    return F.instance_norm(a["x"], weight=a.get("gamma"), bias=a.get("beta"), eps=a.number("epsilon", 1e-5))


def _layer_norm(a: Arguments) -> Tensor:
    x = a["x"]
    axes = sorted(axis % x.ndim for axis in a.ints("axes", range(x.ndim)))
    centred = x - x.mean(axes, keepdim=True)
    normal = centred / (centred.square().mean(axes, keepdim=True) + a.number("epsilon", 1e-5)).sqrt()
    shape = [size if axis in axes else 1 for axis, size in enumerate(x.shape)]
    gamma, beta = a.get("gamma"), a.get("beta")
    scaled = normal if gamma is None else normal * gamma.reshape(shape)
    return scaled if beta is None else scaled + beta.reshape(shape)


def _l2_norm(a: Arguments) -> Tensor:
    return a["x"] / (a["x"].square().sum((-3, -2, -1), keepdim=True) + a.number("epsilon", 1e-6)).sqrt()


OPERATORS: dict[str, Operator] = {
    "batch_norm": _batch_norm,
    "instance_norm": _instance_norm,
    "l2_norm": _l2_norm,
    "layer_norm": _layer_norm,
}
