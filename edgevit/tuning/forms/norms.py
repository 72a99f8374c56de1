"""Norms with statistics of their input as one operator, or spelled: (x - mean) / sqrt(mean of squares + eps)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import Node

from edgevit.folding.graph import Net, aten, is_call
from edgevit.folding.kernel import Kernel
from edgevit.tuning.form import Form
from edgevit.tuning.forms_parts import called, enclosed, has_fixed_sizes, is_plain, operands, reshaped, with_number

_LAYER_NORM, _GROUP_NORM = aten.layer_norm.default, aten.group_norm.default


def _normalized(net: Net, source: Node, axes: list[int], eps: float, *, before: Node) -> Node:
    """Return a tensor less its mean over these axes, over its deviation."""
    mean = net.call(aten.mean.dim, source, axes, True, before=before)
    centred = net.call(aten.sub.Tensor, source, mean, before=before)
    squares = net.call(aten.mul.Tensor, centred, centred, before=before)
    variance = net.call(aten.mean.dim, squares, axes, True, before=before)
    shifted = net.call(aten.add.Tensor, variance, eps, before=before)
    return net.call(aten.mul.Tensor, centred, net.call(aten.rsqrt.default, shifted, before=before), before=before)


def _scaled(net: Net, result: Node, node: Node, shape: tuple[int, ...] | None) -> Node:
    """Return a result with the scale and shift of a norm, reshaped where they run along another axis."""
    named = net.arguments(node)
    for operator, name in ((aten.mul.Tensor, "weight"), (aten.add.Tensor, "bias")):
        constant = net.constant(named[name])
        if constant is not None:
            result = called(net, operator, result, constant.reshape(shape or constant.shape), before=node)
    return result


def _has_constants(net: Net, node: Node) -> bool:
    """Return whether scale and shift of a norm are absent or constant."""
    named = net.arguments(node)
    return all(named[name] is None or net.constant(named[name]) is not None for name in ("weight", "bias"))


# ---- layer norm ---------------------------------------------------------------------------------------------------


def _layer_nodes(net: Net, node: Node) -> tuple[Node, ...] | None:
    is_norm = is_call(node, _LAYER_NORM) and is_plain(net, node)
    return (node,) if is_norm and _has_constants(net, node) else None


def _write_layer_spelled(net: Net, node: Node) -> Node:
    named, rank = net.arguments(node), len(net.shape(node))
    axes = list(range(rank - len(named["normalized_shape"]), rank))
    return _scaled(net, _normalized(net, net.input(node), axes, named["eps"], before=node), node, None)


# ---- group norm ---------------------------------------------------------------------------------------------------


def _group_nodes(net: Net, node: Node) -> tuple[Node, ...] | None:
    is_norm = is_call(node, _GROUP_NORM) and is_plain(net, node) and has_fixed_sizes(net, node)
    return (node,) if is_norm and _has_constants(net, node) else None


def _grouped(net: Net, node: Node) -> Node:
    """Return the input of a group norm as (B, groups, numbers of a group)."""
    groups, shape = net.arguments(node)["num_groups"], net.shape(node)
    numbers = 1
    for size in shape[1:]:
        numbers *= size
    return reshaped(net, net.input(node), groups, numbers // groups, before=node)


def _write_group_spelled(net: Net, node: Node) -> Node:
    result = _normalized(net, _grouped(net, node), [2], net.arguments(node)["eps"], before=node)
    return _ungrouped(net, result, node)


def _write_group_as_layer(net: Net, node: Node) -> Node:
    rows = _grouped(net, node)
    size = [net.shape(rows)[2]]
    result = net.call(_LAYER_NORM, rows, size, None, None, net.arguments(node)["eps"], before=node)
    return _ungrouped(net, result, node)


def _ungrouped(net: Net, result: Node, node: Node) -> Node:
    shape = net.shape(node)
    per_channel = (shape[1], *[1] * (len(shape) - 2))
    return _scaled(net, reshaped(net, result, *shape[1:], before=node), node, per_channel)


def _one_group_nodes(net: Net, node: Node) -> tuple[Node, ...] | None:
    nodes = _group_nodes(net, node)
    return nodes if nodes is not None and net.arguments(node)["num_groups"] == 1 else None


def _write_maps_spelled(net: Net, node: Node) -> Node:
    axes = list(range(1, len(net.shape(node))))
    result = _normalized(net, net.input(node), axes, net.arguments(node)["eps"], before=node)
    return _scaled(net, result, node, (net.shape(node)[1], *[1] * (len(axes) - 1)))


def _write_maps_as_layer(net: Net, node: Node) -> Node:
    sizes = list(net.shape(node)[1:])
    result = net.call(_LAYER_NORM, net.input(node), sizes, None, None, net.arguments(node)["eps"], before=node)
    return _scaled(net, result, node, (sizes[0], *[1] * (len(sizes) - 1)))


def _map_nodes(net: Net, node: Node) -> tuple[Node, ...] | None:
    nodes = _one_group_nodes(net, node)
    return nodes if nodes is not None and len(net.shape(node)) == 4 else None


def _write_maps_pooled(net: Net, node: Node) -> Node:
    """Write a norm of whole maps whose means are global pools and products with a constant over channels."""
    source, channels = net.input(node), net.shape(node)[1]
    average = Kernel(torch.full((1, channels, 1, 1), 1 / channels, dtype=torch.float64, device=net.device))

    def mean(tensor: Node) -> Node:
        pooled = net.call(aten.adaptive_avg_pool2d.default, tensor, [1, 1], before=node)
        return net.convolve(pooled, average, before=node)

    centred = net.call(aten.sub.Tensor, source, mean(source), before=node)
    variance = mean(net.call(aten.mul.Tensor, centred, centred, before=node))
    shifted = net.call(aten.add.Tensor, variance, net.arguments(node)["eps"], before=node)
    root = net.call(aten.rsqrt.default, shifted, before=node)
    return _scaled(net, net.call(aten.mul.Tensor, centred, root, before=node), node, (channels, 1, 1))


# ---- norms that are spelled ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Spelled:
    """A norm over one axis of a tensor, as it is spelled in these nodes."""

    nodes: tuple[Node, ...]
    source: Node
    axis: int
    eps: float


def _mean(net: Net, node: Any) -> tuple[Node, int] | None:
    """Read a mean over one axis that stays, as (tensor, axis)."""
    if not is_call(node, aten.mean.dim) or not is_plain(net, node):
        return None
    named, rank = net.arguments(node), len(net.shape(node))
    usable = named["keepdim"] and named["dtype"] is None and len(named["dim"] or ()) == 1
    return (net.input(node), named["dim"][0] % rank) if usable else None


def _centred(net: Net, node: Any) -> tuple[Node, int, list[Node]] | None:
    """Read x - mean(x) as (x, axis, nodes)."""
    pair = operands(net, node, aten.sub.Tensor)
    mean = None if pair is None else _mean(net, pair[1])
    if pair is None or mean is None or mean[0] is not pair[0]:
        return None
    return mean[0], mean[1], [pair[1], node]


def _variance(net: Net, node: Any, source: Node, centred: Node, axis: int) -> list[Node] | None:
    """Return the nodes of the mean of squares of a centred tensor, or of the variance of the tensor itself."""
    if is_call(node, aten.var.correction):
        named = net.arguments(node)
        axes = [dim % len(net.shape(node)) for dim in named["dim"] or ()]
        usable = named["correction"] == 0 and named["keepdim"] and axes == [axis]
        return [node] if usable and named["self"] in (source, centred) else None
    mean = _mean(net, node)
    if mean is None or mean[1] != axis:
        return None
    square = mean[0]
    if is_call(square, aten.pow.Tensor_Scalar):
        is_square = square.args[0] is centred and square.args[1] == 2
    else:
        is_square = operands(net, square, aten.mul.Tensor) == (centred, centred)
    return [square, node] if is_square else None


def _read_spelled(net: Net, node: Node) -> _Spelled | None:
    """Read (x - mean) * rsqrt(v + eps), or a quotient by sqrt(v + eps)."""
    pair = operands(net, node, aten.mul.Tensor, aten.div.Tensor)
    if pair is None:
        return None
    divides = is_call(node, aten.div.Tensor)
    for numerator, root in (pair,) if divides else (pair, pair[::-1]):
        centred = _centred(net, numerator)
        if centred is None or not is_call(root, aten.sqrt.default if divides else aten.rsqrt.default):
            continue
        source, axis, nodes = centred
        shifted = with_number(net, net.input(root), aten.add.Tensor)
        variance = None if shifted is None else _variance(net, shifted[0], source, numerator, axis)
        if shifted is None or variance is None or net.shape(source)[axis] < 0:
            continue
        closed = enclosed([*nodes, *variance, net.input(root), root, node])
        if closed is not None:
            return _Spelled(closed, source, axis, shifted[1])
    return None


def _spelled_nodes(net: Net, node: Node) -> tuple[Node, ...] | None:
    norm = _read_spelled(net, node)
    return None if norm is None else norm.nodes


def _write_layer(net: Net, node: Node) -> Node:
    norm = _read_spelled(net, node)
    assert norm is not None
    rank, size = len(net.shape(node)), net.shape(node)[norm.axis]
    order = [*(axis for axis in range(rank) if axis != norm.axis), norm.axis]
    is_last = norm.axis == rank - 1
    source = norm.source if is_last else net.call(aten.permute.default, norm.source, order, before=node)
    result = net.call(_LAYER_NORM, source, [size], None, None, norm.eps, before=node)
    back = [order.index(axis) for axis in range(rank)]
    return result if is_last else net.call(aten.permute.default, result, back, before=node)


# ---- norms between transpositions ---------------------------------------------------------------------------------


def _permuted_nodes(net: Net, node: Node) -> tuple[Node, ...] | None:
    """Return channels moved to the end, a layer norm and channels moved back, of maps."""
    if not is_call(node, aten.permute.default) or [axis % 4 for axis in net.arguments(node)["dims"]] != [0, 3, 1, 2]:
        return None
    norm = net.input(node)
    if _layer_nodes(net, norm) is None or len(net.arguments(norm)["normalized_shape"]) != 1:
        return None
    first = net.input(norm)
    if not is_call(first, aten.permute.default) or [axis % 4 for axis in net.arguments(first)["dims"]] != [0, 2, 3, 1]:
        return None
    return enclosed([first, norm, node])


def _write_permuted(net: Net, node: Node) -> Node:
    norm = net.input(node)
    source = net.input(net.input(norm))
    result = _normalized(net, source, [1], net.arguments(norm)["eps"], before=node)
    named = net.arguments(norm)
    for operator, name in ((aten.mul.Tensor, "weight"), (aten.add.Tensor, "bias")):
        constant = net.constant(named[name])
        if constant is not None:
            result = called(net, operator, result, constant.reshape(-1, 1, 1), before=node)
    return result


FORMS = (
    Form("layer_norm_spelled", "layer norms in arithmetic", _layer_nodes, _write_layer_spelled),
    Form("group_norm_spelled", "group norms in arithmetic on rows of groups", _group_nodes, _write_group_spelled),
    Form("group_norm_as_layer", "group norms as layer norms of rows of groups", _group_nodes, _write_group_as_layer),
    Form("map_norm_spelled", "norms of whole maps in arithmetic", _one_group_nodes, _write_maps_spelled),
    Form(
        "map_norm_as_layer", "norms of whole maps as layer norms of three axes", _one_group_nodes, _write_maps_as_layer
    ),
    Form("map_norm_pooled", "norms of whole maps with pools and 1x1 layers as means", _map_nodes, _write_maps_pooled),
    Form("norm_node", "spelled norms as one operator", _spelled_nodes, _write_layer),
    Form("channel_norm_spelled", "norms between two transpositions without these", _permuted_nodes, _write_permuted),
)
