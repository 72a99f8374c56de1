"""Depthwise convolutions as sums over bands of kernel rows, each of its own slice of the padded map.

Engines have fast kernels for a certain number of taps, and slow ones for more.
"""

from __future__ import annotations

from functools import partial

from torch.fx import Node

from edgevit.folding.graph import Net, aten
from edgevit.folding.kernel import Kernel
from edgevit.tuning.form import Form
from edgevit.tuning.forms_parts import is_depthwise, padded, summed


def _nodes(height: int, net: Net, node: Node) -> tuple[Node, ...] | None:
    return (node,) if is_depthwise(net, node) and net.kernel(node).weight.shape[2] > height else None


def _write(height: int, net: Net, node: Node) -> Node:
    kernel = net.kernel(node)
    rows, (stride, step), (dilation, _) = kernel.weight.shape[2], kernel.stride, kernel.dilation
    source = padded(net, net.input(node), kernel.padding, before=node)
    outputs = net.shape(node)[2]
    terms = []
    for start in range(0, rows, height):
        weight = kernel.weight[:, :, start : start + height]
        first = start * dilation
        last = first + (outputs - 1) * stride + (weight.shape[2] - 1) * dilation
        band = net.call(aten.slice.Tensor, source, 2, first, last + 1, before=node)
        bias = kernel.bias if start == 0 else None
        part = Kernel(weight, bias, (stride, step), (0, 0), kernel.dilation, kernel.groups)
        terms.append(net.convolve(band, part, before=node))
    return summed(net, terms, before=node)


FORMS = tuple(
    Form(
        f"depthwise_bands_{height}" if height > 1 else "depthwise_rows",
        f"depthwise kernels as sums over {height} of their rows at a time"
        if height > 1
        else "depthwise kernels as sums over their rows",
        partial(_nodes, height),
        partial(_write, height),
    )
    for height in (1, 2, 3)
)
