"""Convolutions, matrix products and attention."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .arguments import Arguments, Operator
from .padding import pad_sides, spatial_padding


def _conv(a: Arguments) -> Tensor:
    x, weight = a["x"], a["weight"]
    rank = x.ndim - 2
    dilations = a.ints("dilations", [1] * rank)
    spans = [(size - 1) * dilation + 1 for size, dilation in zip(weight.shape[2:], dilations, strict=True)]
    padded = pad_sides(x, spatial_padding(a, spans, x.shape[2:]))
    convolve = (F.conv1d, F.conv2d, F.conv3d)[rank - 1]
    strides = a.ints("strides", [1] * rank)
    return convolve(padded, weight, a.get("bias"), strides, 0, dilations, a.int("groups", 1))


def _conv_transpose(a: Arguments) -> Tensor:
    """Compute the whole transposed convolution and cut it to the output shape; beyond it, the bias fills."""
    x, weight = a["x"], a["weight"]
    rank = x.ndim - 2
    strides = a.ints("strides", [1] * rank)
    convolve = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[rank - 1]
    dilations = a.ints("dilations", [1] * rank)
    whole = convolve(x, weight, None, strides, 0, 0, a.int("groups", 1), dilations)
    shape, cut = _transposed_window(a, x.shape[2:], whole.shape[2:], strides)
    for i, size in enumerate(shape):
        whole = whole.narrow(2 + i, cut[2 * i], min(size, whole.shape[2 + i] - cut[2 * i]))
    whole = pad_sides(whole, [side for i, n in enumerate(shape) for side in (0, n - whole.shape[2 + i])])
    bias = a.get("bias")
    return whole if bias is None else whole + bias.reshape(-1, *[1] * rank)


def _transposed_window(
    a: Arguments, sizes: Sequence[int], whole: Sequence[int], strides: Sequence[int]
) -> tuple[list[int], list[int]]:
    """Return the output's spatial shape, and the elements to cut before and after each dimension of the whole."""
    rank, kind = len(sizes), a.text("pad_type", "valid")
    cut = a.ints("pad", [0] * 2 * rank) if kind == "custom" else [0] * 2 * rank
    shape = a.ints("output_shape")[2:]
    if not shape:
        shape = [size - cut[2 * i] - cut[2 * i + 1] for i, size in enumerate(whole)]
        shape = [size * stride for size, stride in zip(sizes, strides, strict=True)] if kind == "same" else shape
    if kind == "same":
        excess = [have - want for have, want in zip(whole, shape, strict=True)]
        cut = [side for total in excess for side in (max(total, 0) // 2, 0)]
    return shape, cut


def _matmul(a: Arguments) -> Tensor:
    x, y = a["x"], a["y"]
    return (x.mT if a.int("transpose_x") else x) @ (y.mT if a.int("transpose_y") else y)


def _attention(a: Arguments) -> Tensor:
    scores = a["query"] @ a["key"].mT / math.sqrt(a["query"].shape[-1])
    mask = a.get("attn_mask")
    if mask is not None:
        scores = scores.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else scores + mask
    return scores.softmax(-1) @ a["value"]


OPERATORS: dict[str, Operator] = {
    "conv": _conv,
    "conv_transpose": _conv_transpose,
    "einsum": lambda a: torch.einsum(a.text("equation", ""), *a.all("values")),
    "linear": lambda a: F.linear(a["x"], a["weight"], a.get("bias")),
    "matmul": _matmul,
    "scaled_dot_product_attention": _attention,
}
