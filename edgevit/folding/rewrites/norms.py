"""Folds scale and shift of norms with statistics of their input (GroupNorm, LayerNorm) into the next layer."""

from __future__ import annotations

from torch import Tensor
from torch.fx import Node

from edgevit.folding.graph import Net, aten, is_call


def norm_affine_into_next(net: Net, node: Node) -> bool:
    """Fold a norm's scale and shift into the linear maps behind it, where every reader is linear and absorbs both.

    The statistics come from the input, so scale and shift are an affine map per channel like any other. A shift before
    zero padding cannot be absorbed: the padding's zeros come after it.
    """
    axis, readers = _channel_axis(net, node), list(node.users)
    if axis is None or not readers or not all(_absorbs(net, reader, node, axis) for reader in readers):
        return False
    named = net.arguments(node)
    scale, shift = net.constant(named["weight"]), net.constant(named["bias"])
    # torch has no norm with a shift alone.
    if scale is None or _is_computed(named["bias"], shift):
        return False
    kernels = [net.kernel(reader) for reader in readers]
    if shift is not None and any(kernel.padded for kernel in kernels):
        return False
    for reader, kernel in zip(readers, kernels, strict=True):
        net.set_kernel(reader, kernel.after_affine(scale, shift))
    _strip(net, node)
    return True


def _strip(net: Net, node: Node) -> None:
    """Remove scale and shift from a norm."""
    named = net.arguments(node)
    # The second argument is the number of groups, or the normalized shape.
    source, size = list(named.values())[:2]
    node.args, node.kwargs = (source, size, None, None, named["eps"]), {}
    for constant in (named["weight"], named["bias"]):
        if isinstance(constant, Node):
            net.drop(constant)


def _channel_axis(net: Net, node: Node) -> int | None:
    """Return the axis that scale and shift run along; None for other calls and for several axes."""
    if is_call(node, aten.group_norm.default):
        return 1
    if is_call(node, aten.layer_norm.default) and len(net.arguments(node)["normalized_shape"]) == 1:
        return len(net.shape(node)) - 1
    return None


def _absorbs(net: Net, reader: Node, node: Node, axis: int) -> bool:
    alone = net.is_linear(reader) and reader.args[0] is node and not net.shared(reader)
    return alone and net.channel_axis(reader) == axis


def _is_computed(value: object, constant: Tensor | None) -> bool:
    return value is not None and constant is None
