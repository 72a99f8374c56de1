"""Parts that several forms are made of."""

from __future__ import annotations

from collections.abc import Sequence

from torch.fx import Node

from edgevit.folding.graph import CONVOLUTION, Net, aten, is_call


def padded(net: Net, source: Node, padding: tuple[int, int], *, before: Node) -> Node:
    """Return maps (B, C, H, W) with zeros around them: so many rows and columns on either side."""
    rows, columns = padding
    if not rows and not columns:
        return source
    return net.call(aten.constant_pad_nd.default, source, [columns, columns, rows, rows], 0.0, before=before)


def summed(net: Net, terms: Sequence[Node], *, before: Node) -> Node:
    """Return the sum of one or more tensors of one shape."""
    total = terms[0]
    for term in terms[1:]:
        total = net.call(aten.add.Tensor, total, term, before=before)
    return total


def is_depthwise(net: Net, node: Node) -> bool:
    """Return whether a node is a convolution of one kernel a channel, whose kernel has more than one tap."""
    if not is_call(node, CONVOLUTION) or not net.is_linear(node):
        return False
    kernel = net.kernel(node)
    return kernel.weight.shape[1] == 1 and kernel.groups == kernel.channels_out and kernel.size != (1, 1)
