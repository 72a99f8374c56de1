"""Scales and shifts per channel, past the averages that keep them what they are."""

from __future__ import annotations

from torch.fx import Node

from edgevit.fold.graph import BATCH_NORM, Net, aten, is_call


def affine_after_average(net: Net, node: Node) -> bool:
    """mean(s x + t) = s mean(x) + t: a norm that averaging keeps from the linear map behind it goes past it.

    Averages over windows, which must count no padding, over all pixels, and flattening where there is one pixel left.
    Of several readers only one is passed, and the others must be convolutions that take the norm: else it would stay
    and there would be two.
    """
    if not is_call(node, aten.avg_pool2d.default, aten.adaptive_avg_pool2d.default, aten.mean.dim, _FLATTEN):
        return False
    source = net.input(node)
    read = net.affine(source, 1) if _is_average(net, node, net.shape(source)) else None
    if read is None or not (is_call(source, BATCH_NORM) or len(net.shape(node)) == 4):
        return False
    if not all(item is node or _takes(net, item, source, shifted=read[2] is not None) for item in source.users):
        return False
    average = net.call(node.target, read[0], *node.args[1:], before=node)  # type: ignore[arg-type]
    average.kwargs = node.kwargs
    average.meta["val"] = node.meta["val"]
    arguments = [average if item is read[0] else item for item in source.args]
    affine = net.call(source.target, *arguments, before=node)  # type: ignore[arg-type]
    affine.kwargs = source.kwargs
    affine.meta |= {key: source.meta[key] for key in ("nn_module_stack", "stack_trace") if key in source.meta}
    net.replace(node, affine)
    return True


_FLATTEN = aten.flatten.using_ints


def _is_average(net: Net, node: Node, shape: tuple[int, ...]) -> bool:
    """Whether a node's output averages each channel of its input (B, C, H, W), its second axis still the channels."""
    named = net.arguments(node)
    if len(shape) != 4:
        return False
    if is_call(node, aten.avg_pool2d.default):
        counts_padding = named["count_include_pad"] and any(named["padding"])
        return not counts_padding and named["divisor_override"] is None
    if is_call(node, aten.mean.dim):
        return named["dtype"] is None and {axis % 4 for axis in named["dim"] or ()} in ({2}, {3}, {2, 3})
    return not is_call(node, _FLATTEN) or (shape[2:] == (1, 1) and net.shape(node)[1:] == shape[1:2])


def _takes(net: Net, reader: Node, source: Node, *, shifted: bool) -> bool:
    """Whether a reader is a convolution that the affine map ahead of it can go into."""
    if not net.is_linear(reader) or net.input(reader) is not source or net.channel_axis(reader) != 1:
        return False
    return not net.shared(reader) and not (shifted and net.kernel(reader).padded)
