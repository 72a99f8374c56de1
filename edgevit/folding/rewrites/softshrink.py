"""Replaces activations by fewer, plainer operators."""

from __future__ import annotations

from torch.fx import Node

from edgevit.folding.graph import Net, aten, is_call


def plain_softshrink(net: Net, node: Node) -> bool:
    """Replace softshrink(x) by x - clamp(x, -lambda, lambda), equal to the bit; exporters spell it in nine steps."""
    if not is_call(node, aten.softshrink.default):
        return False
    source, bound = net.input(node), net.arguments(node)["lambd"]
    clamped = net.call(aten.clamp.default, source, -bound, bound, before=node)
    net.replace(node, net.call(aten.sub.Tensor, source, clamped, before=node))
    return True
