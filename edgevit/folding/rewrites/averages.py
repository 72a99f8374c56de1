"""Moves averages over pixels or tokens ahead of the affine and linear maps that they commute with."""

from __future__ import annotations

from torch.fx import Node

from edgevit.folding.graph import BATCH_NORM, LINEAR, Net, aten, is_call
from edgevit.folding.values import ORIGIN


def affine_after_average(net: Net, node: Node) -> bool:
    """Move a norm past an average that keeps it from the next linear map: mean(s x + t) = s mean(x) + t.

    The average is over windows without counted padding, over all pixels, or a flattening of one pixel. The norm passes
    one reader. The others must be convolutions that the norm folds into: otherwise it would stay, and be there twice.
    """
    if not is_call(node, aten.avg_pool2d.default, aten.adaptive_avg_pool2d.default, aten.mean.dim, _FLATTEN):
        return False
    source = net.input(node)
    affine = net.affine(source, 1) if _is_average(net, node, net.shape(source)) else None
    if affine is None or not (is_call(source, BATCH_NORM) or len(net.shape(node)) == 4):
        return False
    x, _, shift = affine
    if not all(reader is node or _takes(net, reader, source, shifted=shift is not None) for reader in source.users):
        return False
    average = net.call(node.target, x, *node.args[1:], before=node, **node.kwargs)  # type: ignore[arg-type]
    arguments = [average if argument is x else argument for argument in source.args]
    moved = net.call(source.target, *arguments, before=node, **source.kwargs)  # type: ignore[arg-type]
    moved.meta[ORIGIN] = source.meta[ORIGIN]
    net.replace(node, moved)
    return True


_FLATTEN = aten.flatten.using_ints


def _is_average(net: Net, node: Node, shape: tuple[int, ...]) -> bool:
    """Return whether a node averages each channel of its input (B, C, H, W) and keeps the channels as second axis."""
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
    """Return whether a reader is a convolution that the affine map ahead of it can fold into."""
    if not net.is_linear(reader) or net.input(reader) is not source or net.channel_axis(reader) != 1:
        return False
    return not net.shared(reader) and not (shifted and net.kernel(reader).padded)


def linear_after_average(net: Net, node: Node) -> bool:
    """Move a linear map behind an average, where it meets one pixel or token: mean(W x + b) = W mean(x) + b.

    In a sum this holds term by term. Convolutions must be pointwise, and the mean over all pixels. A fully connected
    layer admits an average over any tokens.
    """
    source = net.input(node) if _is_mean(net, node) else None
    if source is None or len(source.users) > 1:
        return False
    if _commutes(net, source, node):
        net.replace(node, _averaged_first(net, source, node))
        return True
    # Other operators may read a list of tensors, which has no shape.
    if not is_call(source, aten.add.Tensor) or net.arguments(source)["alpha"] != 1:
        return False
    shape = net.shape(source)
    terms = [term for term in source.args[:2] if isinstance(term, Node) and net.shape(term) == shape]
    if len(terms) != 2 or not any(len(term.users) == 1 and _commutes(net, term, node) for term in terms):
        return False
    means = [_same_average(net, term, node) for term in terms]
    net.replace(node, net.call(aten.add.Tensor, *means, before=node))
    return True


def _is_mean(net: Net, node: Node) -> bool:
    if is_call(node, aten.mean.dim):
        return net.arguments(node)["dtype"] is None and bool(net.arguments(node)["dim"])
    return is_call(node, aten.adaptive_avg_pool2d.default) and tuple(net.arguments(node)["output_size"]) == (1, 1)


def _commutes(net: Net, source: Node, node: Node) -> bool:
    """Return whether `source` is a linear map of single pixels or tokens, and `node` averages all along some axes."""
    if not net.is_linear(source) or net.shared(source) or not net.kernel(source).pointwise:
        return False
    rank = len(net.shape(source))
    axes = {2, 3} if not is_call(node, aten.mean.dim) else {axis % rank for axis in net.arguments(node)["dim"]}
    sizes = [net.shape(source)[axis] for axis in axes]
    if net.channel_axis(source) == 1:
        return rank == 4 and axes == {2, 3} and sizes != [1, 1]
    return net.channel_axis(source) not in axes and any(size != 1 for size in sizes)


def _averaged_first(net: Net, source: Node, node: Node) -> Node:
    weights = source.args[1:]
    if is_call(source, LINEAR) or not is_call(node, aten.mean.dim):
        return net.call(source.target, _same_average(net, net.input(source), node), *weights, before=node)  # type: ignore[arg-type]
    mean = net.call(aten.mean.dim, net.input(source), [2, 3], True, before=node)
    mapped = net.call(source.target, mean, *weights, before=node)  # type: ignore[arg-type]
    return mapped if len(net.shape(node)) == 4 else net.call(aten.flatten.using_ints, mapped, 1, before=node)


def _same_average(net: Net, source: Node, node: Node) -> Node:
    return net.call(node.target, source, *node.args[1:], before=node, **node.kwargs)  # type: ignore[arg-type]
