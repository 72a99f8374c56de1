"""Activations as fewer, plainer steps."""

from __future__ import annotations

from torch.fx import Node

from edgevit.folding.graph import Net, aten, is_call


def plain_softshrink(net: Net, node: Node) -> bool:
    """softshrink(x) = x - clamp(x, -lambda, lambda), to the bit: exporters spell the operator in nine steps."""
    if not is_call(node, aten.softshrink.default):
        return False
    source, bound = net.input(node), net.arguments(node)["lambd"]
    near = net.call(aten.clamp.default, source, -bound, bound, before=node)
    net.replace(node, net.call(aten.sub.Tensor, source, near, before=node))
    return True
