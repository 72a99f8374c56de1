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
    """A convolution plus another of the same map, or plus the map itself, scaled and shifted or not, is one."""
    if not is_call(node, aten.add.Tensor) or len(node.all_input_nodes) != 2 or net.arguments(node)["alpha"] != 1:
        return False
    a, b = node.all_input_nodes
    return _absorb(net, node, a, b) or _absorb(net, node, b, a)


def _absorb(net: Net, node: Node, branch: Node, other: Node) -> bool:
    """Let `branch` compute `node` = branch + other, if it is a convolution and one can."""
    if not _is_branch(net, branch) or (kernel := _as_kernel(net, other, net.input(branch))) is None:
        return False
    own = net.kernel(branch)
    try:
        merged = own.add(kernel)
    except ValueError:  # they do not meet on one grid: both branches stay
        return False
    if merged.macs_per_pixel > own.macs_per_pixel + kernel.macs_per_pixel:
        return False
    net.set_kernel(branch, merged)
    net.replace(node, branch)
    return True


def _is_branch(net: Net, node: Node) -> bool:
    return is_call(node, CONVOLUTION) and net.is_linear(node) and len(node.users) == 1 and not net.shared(node)


def _as_kernel(net: Net, node: Node, source: Node) -> Kernel | None:
    """A node as a kernel on `source`: a convolution, a norm or scale (RepVGG's third branch), `source` itself."""
    if _is_branch(net, node):
        return net.kernel(node) if net.input(node) is source else None
    read = (node, None, None) if node is source else net.affine(node, 1)
    if read is None or read[0] is not source:
        return None
    identity = Kernel.identity(net.shape(source)[1], like=source.meta["val"])
    return identity if read[1] is None else identity.then_affine(read[1], read[2])
