"""Depthwise convolutions as sums over pieces of their kernels, each of its own slice of the padded map.

Engines have fast kernels for a certain number of taps, and slow ones for more.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

from torch.fx import Node

from edgevit.folding.graph import Net
from edgevit.folding.kernel import Kernel
from edgevit.tuning.form import Form
from edgevit.tuning.forms_parts import cut, is_depthwise, padded, summed

# Returns rows and columns of a piece from those of a kernel; None where the kernel is no larger.
_Size = Callable[[int, int], tuple[int, int] | None]


def _nodes(size: _Size, net: Net, node: Node) -> tuple[Node, ...] | None:
    return (node,) if is_depthwise(net, node) and size(*net.kernel(node).size) is not None else None


def _write(size: _Size, net: Net, node: Node) -> Node:
    kernel = net.kernel(node)
    rows, columns = kernel.size
    height, width = size(rows, columns) or (rows, columns)
    source = padded(net, net.input(node), kernel.padding, before=node)
    terms: list[Node] = []
    for top in range(0, rows, height):
        band = source if height == rows else _reach(net, node, source, kernel, 2, top, min(height, rows - top))
        for side in range(0, columns, width):
            part = band if width == columns else _reach(net, node, band, kernel, 3, side, min(width, columns - side))
            weight = kernel.weight[:, :, top : top + height, side : side + width]
            bias = None if terms else kernel.bias
            piece = Kernel(weight, bias, kernel.stride, (0, 0), kernel.dilation, kernel.groups)
            terms.append(net.convolve(part, piece, before=node))
    return summed(net, terms, before=node)


def _reach(net: Net, node: Node, source: Node, kernel: Kernel, axis: int, tap: int, taps: int) -> Node:
    """Return the slice of a padded map that some taps of an axis read."""
    stride, dilation = kernel.stride[axis - 2], kernel.dilation[axis - 2]
    first = tap * dilation
    last = first + (net.shape(node)[axis] - 1) * stride + (taps - 1) * dilation
    return cut(net, source, axis, first, last + 1, before=node)


def _fixed(height: int | None, width: int | None, rows: int, columns: int) -> tuple[int, int] | None:
    """Return a piece of so many rows and columns; None: all of them."""
    is_larger = (height is None or rows > height) and (width is None or columns > width)
    return (height or rows, width or columns) if is_larger else None


def _of_taps(taps: int, rows: int, columns: int) -> tuple[int, int] | None:
    """Return the piece of at most so many taps of which a kernel needs fewest, the widest of these."""
    if rows * columns <= taps:
        return None
    sizes = [(min(rows, taps // width), width) for width in range(min(columns, taps), 0, -1)]
    return min(sizes, key=lambda size: math.ceil(rows / size[0]) * math.ceil(columns / size[1]))


_PIECES: dict[str, tuple[str, _Size]] = {
    "depthwise_rows": ("their rows", partial(_fixed, 1, None)),
    "depthwise_bands_2": ("2 of their rows at a time", partial(_fixed, 2, None)),
    "depthwise_bands_3": ("3 of their rows at a time", partial(_fixed, 3, None)),
    "depthwise_columns": ("their columns", partial(_fixed, None, 1)),
    "depthwise_blocks_3": ("blocks of 3x3", partial(_fixed, 3, 3)),
    "depthwise_blocks_4": ("blocks of 4x4", partial(_fixed, 4, 4)),
    "depthwise_blocks_5": ("blocks of 5x5", partial(_fixed, 5, 5)),
    "depthwise_taps_9": ("as few pieces as have 9 taps at most", partial(_of_taps, 9)),
    "depthwise_taps_25": ("as few pieces as have 25 taps at most", partial(_of_taps, 25)),
}
FORMS = tuple(
    Form(name, f"depthwise kernels as sums over {words}", partial(_nodes, size), partial(_write, size))
    for name, (words, size) in _PIECES.items()
)
