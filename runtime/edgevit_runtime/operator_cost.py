"""Multiply-accumulates and bytes of an operator from the shapes an engine tells, for recipes that offer `layers`."""

from __future__ import annotations

import math
from collections.abc import Sequence

Shape = Sequence[int]


def convolution_macs(weight: Shape, output: Shape) -> int:
    """Weight is [C_out, C_in/g, k...] or [g, C_out/g, C_in/g, k...], which has one dimension more than the output."""
    return math.prod(output) * math.prod(weight[1 + len(weight) - len(output) :])


def product_macs(first: Shape, second: Shape, output: Shape) -> int:
    """(..., n, k) x (..., k, m): k per number of the result.

    Engines do not tell which of the operands is transposed, so k is found without: nk km nm = (nkm)^2. A second operand
    that is not told ((), packed weights) leaves k to the first one's last dimension.
    """
    if min(len(first), len(second), len(output)) < 2:
        return math.prod(output) * first[-1]
    matrices = math.prod(math.prod(shape[-2:]) for shape in (first, second, output))
    return math.prod(output[:-2]) * math.isqrt(matrices)


def tensors_bytes(shapes: Sequence[Shape], item_bytes: int) -> int:
    """Of all these tensors, each counted once."""
    return item_bytes * sum(map(math.prod, shapes))
