"""Spatial padding, as convolutions and pools share it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch.nn.functional as F  # the name that torch's documentation uses
from torch import Tensor

from .arguments import Arguments


def spatial_padding(a: Arguments, kernel: Sequence[int], sizes: Sequence[int]) -> list[int]:
    """Return the elements before and after each spatial dimension: [before, after, before, after...]."""
    kind, strides = a.text("pad_type", "valid"), a.ints("strides", [1] * len(kernel))
    if kind == "custom":
        return a.ints("pad", [0] * 2 * len(kernel))
    if kind == "valid":
        return [0] * 2 * len(kernel)
    padding = []
    for span, size, stride in zip(kernel, sizes, strides, strict=True):
        total = max((math.ceil(size / stride) - 1) * stride + span - size, 0)
        small, large = total // 2, total - total // 2
        padding += [small, large] if kind == "same" else [large, small]
    return padding


def pad_sides(x: Tensor, padding: Sequence[int], value: float = 0.0) -> Tensor:
    """Pad the last dimensions; MIL lists them first to last, torch last to first."""
    pairs = [padding[i : i + 2] for i in range(0, len(padding), 2)]
    return F.pad(x, [side for pair in reversed(pairs) for side in pair], value=value) if any(padding) else x
