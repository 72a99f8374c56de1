"""Merges linear maps in sequence, without a nonlinearity between them; branches.py merges parallel ones."""

from __future__ import annotations

from torch.fx import Node

from edgevit.folding.graph import Net


def compose(net: Net, node: Node) -> bool:
    """Merge linear -> linear into one linear map, where one of them is pointwise and the result costs no more."""
    if not net.is_linear(node) or not net.is_linear(first := net.input(node)):
        return False
    if first.target != node.target or len(first.users) > 1 or net.shared(first) or net.shared(node):
        return False
    a, b = net.kernel(first), net.kernel(node)
    if not b.composes(a) or b.composed_macs(a) > a.macs_per_pixel + b.macs_per_pixel:
        return False
    node.replace_input_with(first, net.input(first))
    net.set_kernel(node, b.compose(a))
    net.drop(first)
    return True
