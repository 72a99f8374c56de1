"""Linear maps that meet without a nonlinearity between them: in sequence, or side by side in a sum."""

from __future__ import annotations

from collections.abc import Iterator

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
    """In a sum, a convolution plus another of the same map, or plus the map itself (scaled, shifted or not), is one."""
    summands = list(_summands(net, node))
    return any(
        _absorb(net, branch, other, place)
        for branch, _ in summands
        for other, place in summands
        if other is not branch and _is_branch(net, branch)
    )


def _summands(net: Net, node: object) -> Iterator[tuple[Node, Node]]:
    """What a sum of sums adds up, each with the node that adds it. A partial sum that others read is a summand."""
    if not is_call(node, aten.add.Tensor) or net.arguments(node)["alpha"] != 1:
        return
    operands = [item for item in node.args if isinstance(item, Node)]
    for item in operands if len(operands) == 2 else ():  # a number is a shift: see affine.py
        inner = list(_summands(net, item)) if len(item.users) == 1 else []
        yield from inner or [(item, node)]


def _absorb(net: Net, branch: Node, other: Node, place: Node) -> bool:
    """Let the convolution `branch` compute branch + other, if one can, and leave `other` out of the sum `place`."""
    if (kernel := _as_kernel(net, other, net.input(branch))) is None:
        return False
    own = net.kernel(branch)
    try:
        merged = own.add(kernel)
    except ValueError:  # they do not meet on one grid: both branches stay
        return False
    if merged.macs_per_pixel > own.macs_per_pixel + kernel.macs_per_pixel:
        return False
    net.set_kernel(branch, merged)
    first, second = place.args[:2]
    net.replace(place, second if first is other else first)  # type: ignore[arg-type]
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
