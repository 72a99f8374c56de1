"""Scale and shift of norms that compute their statistics in inference (GroupNorm, LayerNorm), into what reads them."""

from __future__ import annotations

from torch import Tensor
from torch.fx import Node

from edgevit.folding.graph import Net, aten, is_call


def norm_affine_into_next(net: Net, node: Node) -> bool:
    """norm with scale and shift -> linear becomes bare norm -> linear, where every reader is linear and takes both.

    Statistics are of the input, so what follows them is an affine map per channel like any other. A shift before zero
    padding is not taken: the padding's zeros come after it.
    """
    axis, readers = _channel_axis(net, node), list(node.users)
    if axis is None or not readers or not all(_takes(net, item, node, axis) for item in readers):
        return False
    named = net.arguments(node)
    scale, shift = net.constant(named["weight"]), net.constant(named["bias"])
    if scale is None or _is_computed(named["bias"], shift):  # torch has no norm with a shift alone
        return False
    kernels = [net.kernel(item) for item in readers]
    if shift is not None and any(kernel.padded for kernel in kernels):
        return False
    for item, kernel in zip(readers, kernels, strict=True):
        net.set_kernel(item, kernel.after_affine(scale, shift))
    _strip(net, node)
    return True


def _strip(net: Net, node: Node) -> None:
    """Take scale and shift off a norm."""
    named = net.arguments(node)
    source, size = list(named.values())[:2]  # of groups, or of what is normalized
    node.args, node.kwargs = (source, size, None, None, named["eps"]), {}
    for constant in (named["weight"], named["bias"]):
        if isinstance(constant, Node):
            net.drop(constant)


def _channel_axis(net: Net, node: Node) -> int | None:
    """The axis that scale and shift run along, None for other calls and for more axes than one."""
    if is_call(node, aten.group_norm.default):
        return 1
    if is_call(node, aten.layer_norm.default) and len(net.arguments(node)["normalized_shape"]) == 1:
        return len(net.shape(node)) - 1
    return None


def _takes(net: Net, reader: Node, node: Node, axis: int) -> bool:
    alone = net.is_linear(reader) and reader.args[0] is node and not net.shared(reader)
    return alone and net.channel_axis(reader) == axis


def _is_computed(value: object, constant: Tensor | None) -> bool:
    return value is not None and constant is None
