"""Depthwise convolutions as sums over pieces of their kernels, each of its own slice of the padded map.

Engines have fast kernels for a certain number of taps, and slow ones for more.
"""

from __future__ import annotations

from functools import partial

from torch.fx import Node

from edgevit.folding.graph import Net
from edgevit.folding.kernel import Kernel
from edgevit.tuning.form import Form
from edgevit.tuning.forms_parts import cut, is_depthwise, padded, summed


def _nodes(height: int | None, width: int | None, net: Net, node: Node) -> tuple[Node, ...] | None:
    if not is_depthwise(net, node):
        return None
    sizes = zip((height, width), net.kernel(node).size, strict=True)
    return (node,) if all(piece is None or size > piece for piece, size in sizes) else None


def _write(height: int | None, width: int | None, net: Net, node: Node) -> Node:
    kernel = net.kernel(node)
    rows, columns = kernel.size
    height, width = height or rows, width or columns
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


_PIECES: dict[str, tuple[str, tuple[int | None, int | None]]] = {
    "depthwise_rows": ("their rows", (1, None)),
    "depthwise_bands_2": ("2 of their rows at a time", (2, None)),
    "depthwise_bands_3": ("3 of their rows at a time", (3, None)),
    "depthwise_columns": ("their columns", (None, 1)),
    "depthwise_blocks_3": ("blocks of 3x3", (3, 3)),
    "depthwise_blocks_4": ("blocks of 4x4", (4, 4)),
    "depthwise_blocks_5": ("blocks of 5x5", (5, 5)),
}
FORMS = tuple(
    Form(name, f"depthwise kernels as sums over {words}", partial(_nodes, *size), partial(_write, *size))
    for name, (words, size) in _PIECES.items()
)
