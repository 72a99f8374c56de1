"""Linear maps that meet without a nonlinearity between them: in sequence, or side by side in a sum."""

from __future__ import annotations

from torch.fx import Node

from edgevit.fold.graph import CONVOLUTION, Net, aten, is_call
from edgevit.fold.kernel import Kernel


def compose(net: Net, node: Node) -> bool:
    """linear -> pointwise becomes one linear map, where that costs no more than the two did."""
    if not net.is_linear(node) or not net.is_linear(first := net.input(node)):
        return False
    if first.target != node.target or len(first.users) > 1 or net.shared(first) or net.shared(node):
        return False
    a, b = net.kernel(first), net.kernel(node)
    if not b.pointwise or b.composed_macs(a) > a.macs_per_pixel + b.macs_per_pixel:
        return False
    node.replace_input_with(first, net.input(first))
    net.set_kernel(node, b.compose(a))
    net.drop(first)
    return True


def merge_parallel(net: Net, node: Node) -> bool:
    """The sum of two convolutions of one map, or of a convolution and the map itself, becomes one convolution."""
    if not is_call(node, aten.add.Tensor) or len(node.all_input_nodes) != 2 or net.arguments(node)["alpha"] != 1:
        return False
    a, b = node.all_input_nodes
    branches = [item for item in (a, b) if _is_branch(net, item)]
    if len(branches) == 2 and net.input(a) is net.input(b):
        return _sum(net, node, branches[0], net.kernel(b), net.kernel(a))
    for branch, other in ((a, b), (b, a)):
        if branch in branches and net.input(branch) is other:
            return _sum(net, node, branch, Kernel.identity(net.shape(other)[1], like=net.kernel(branch).weight))
    return False


def _is_branch(net: Net, node: Node) -> bool:
    return is_call(node, CONVOLUTION) and net.is_linear(node) and len(node.users) == 1 and not net.shared(node)


def _sum(net: Net, node: Node, branch: Node, other: Kernel, own: Kernel | None = None) -> bool:
    own = own or net.kernel(branch)
    try:
        merged = own.add(other)
    except ValueError:  # they do not meet on one grid: both branches stay
        return False
    if merged.macs_per_pixel > own.macs_per_pixel + other.macs_per_pixel:
        return False
    net.set_kernel(branch, merged)
    net.replace(node, branch)
    return True
