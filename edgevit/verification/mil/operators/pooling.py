"""Average, maximum and L2 pools."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .arguments import Arguments, Operator
from .padding import pad_sides, spatial_padding


def _pool(a: Arguments, kind: str) -> Tensor:
    """Pool the padded input; with ceil_mode, the last window may overhang, which an average does not count."""
    x, kernel = a["x"], a.ints("kernel_sizes")
    rank = x.ndim - 2
    strides, padding = a.ints("strides", [1] * rank), spatial_padding(a, kernel, x.shape[2:])
    padded = pad_sides(x, padding, -math.inf if kind == "max" else 0.0)
    overhang = _overhang(a, padded.shape[2:], kernel, strides, padding)
    windows = pad_sides(padded, overhang, -math.inf if kind == "max" else 0.0)
    if kind == "max":
        return (F.max_pool1d, F.max_pool2d, F.max_pool3d)[rank - 1](windows, kernel, strides)
    average = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[rank - 1]
    if kind == "l2":
        return (average(windows.square(), kernel, strides) * math.prod(kernel)).sqrt()
    ones = torch.ones_like(x if a.int("exclude_padding_from_average") else padded)
    counted = pad_sides(ones, padding) if a.int("exclude_padding_from_average") else ones
    share = average(pad_sides(counted, overhang), kernel, strides)
    return average(windows, kernel, strides) / share


def _overhang(
    a: Arguments, sizes: Sequence[int], kernel: Sequence[int], strides: Sequence[int], padding: Sequence[int]
) -> list[int]:
    """Return the elements that a last window needs after each dimension.

    A window that would begin behind the input and the padding before it needs none.
    """
    sides = [0] * 2 * len(kernel)
    for i, (size, span, stride) in enumerate(zip(sizes, kernel, strides, strict=True)):
        remainder = (size - span) % stride
        start = size - span - remainder + stride
        if a.int("ceil_mode") and remainder and not (padding[2 * i + 1] and start >= size - padding[2 * i + 1]):
            sides[2 * i + 1] = stride - remainder
    return sides


OPERATORS: dict[str, Operator] = {
    "avg_pool": lambda a: _pool(a, "average"),
    "l2_pool": lambda a: _pool(a, "l2"),
    "max_pool": lambda a: _pool(a, "max"),
}
