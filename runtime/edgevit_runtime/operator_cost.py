"""Multiply-accumulates and bytes of an operator from its tensors' shapes, for recipes that have `layers`."""

from __future__ import annotations

import math
from collections.abc import Sequence

Shape = Sequence[int]


def convolution_macs(weight: Shape, output: Shape) -> int:
    """Count the MACs of a convolution with weight [C_out, C_in/g, k...] or [g, C_out/g, C_in/g, k...].

    The second layout has one dimension more than the output.
    """
    return math.prod(output) * math.prod(weight[1 + len(weight) - len(output) :])


def product_macs(first: Shape, second: Shape, output: Shape) -> int:
    """Count the MACs of (..., n, k) x (..., k, m): k for each element of the result.

    Engines do not report which operand is transposed, so k follows from nk km nm = (nkm)^2. Where the second operand is
    unknown ((), packed weights), k is the first one's last dimension.
    """
    if min(len(first), len(second), len(output)) < 2:
        return math.prod(output) * first[-1]
    matrices = math.prod(math.prod(shape[-2:]) for shape in (first, second, output))
    return math.prod(output[:-2]) * math.isqrt(matrices)


def tensors_bytes(shapes: Sequence[Shape], item_bytes: int) -> int:
    """Return the bytes of these tensors, each counted once."""
    return item_bytes * sum(map(math.prod, shapes))
