"""Flow of scales: where the channels of a tensor go through operators that a positive factor passes.

Each channel of a source has a label, and tensors of labels pass through the graph. A factor on a label can be taken
back in the layers that read it, unless the label reaches an operator that no factor passes.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from edgevit.folding.graph import Net, aten, is_call
from edgevit.folding.layout import ALL_MOVES, labels, shape_at_probe
from edgevit.folding.values import VALUE

_ELEMENTWISE = (aten.relu.default, aten.leaky_relu.default)
_POOLS = (
    aten.max_pool1d.default,
    aten.max_pool2d.default,
    aten.max_pool3d.default,
    aten.avg_pool1d.default,
    aten.avg_pool2d.default,
    aten.avg_pool3d.default,
    aten.adaptive_avg_pool1d.default,
    aten.adaptive_avg_pool2d.default,
    aten.adaptive_avg_pool3d.default,
    aten.upsample_nearest2d.vec,
    aten.upsample_bilinear2d.vec,
)
_REDUCTIONS = (aten.mean.dim, aten.amax.default, aten.sum.dim_IntList)
_JOINTS = (aten.cat.default, aten.stack.default)
_ATTENTION = aten.scaled_dot_product_attention.default
# The label of numbers that come from elsewhere.
FOREIGN = -1


@dataclass
class Flow:
    """Where the labels of a source end.

    readers: layers, with the label of each of their input channels (C,). blocked: labels that reach an operator which
    no factor passes. queries, keys: attention calls, with the labels (heads, channels) of what they read as that.
    """

    readers: list[tuple[Node, Tensor]] = field(default_factory=list)
    blocked: set[int] = field(default_factory=set)
    queries: dict[Node, Tensor] = field(default_factory=dict)
    keys: dict[Node, Tensor] = field(default_factory=dict)


def flow(net: Net, source: Node, axis: int) -> Flow:
    """Follow the channels of a tensor along an axis."""
    result = Flow()
    labels_of: dict[Node, Any] = {source: labels(source, axis)}
    pending, noted = list(source.users), set(source.users)
    heapq.heapify(pending)
    while pending:
        node = heapq.heappop(pending)
        passed = _passed(net, node, labels_of)
        operands = [operand for operand in node.all_input_nodes if operand in labels_of]
        if passed is not None:
            # Values pass an attention; its queries, its keys and its mask end there.
            ends_here = is_call(node, _ATTENTION)
            operands = [operand for operand in operands if ends_here and operand is not node.args[2]]
        _end(net, node, {operand: labels_of[operand] for operand in operands}, result)
        if passed is None:
            continue
        labels_of[node] = passed
        for user in node.users.keys() - noted:
            noted.add(user)
            heapq.heappush(pending, user)
    return result


def _passed(net: Net, node: Node, labels_of: Mapping[Node, Any]) -> Any:
    """Return the labels of a node's output; None where no factor passes it, or not the way its inputs are labelled."""
    if is_call(node, *_JOINTS):
        return _joined(node, labels_of)
    if is_call(node, _ATTENTION):
        return _mixed(node, 2, labels_of)
    source = next((operand for operand in node.all_input_nodes if operand in labels_of), None)
    if source is None:
        return None
    if is_call(node, *ALL_MOVES):
        if node.args[0] is not source or len([each for each in node.all_input_nodes if each in labels_of]) > 1:
            return None
        return _sent(net, node, {source: labels_of[source]})
    given = labels_of[source]
    if not isinstance(given, Tensor):
        return None
    if is_call(node, *_ELEMENTWISE):
        return given
    if is_call(node, *_POOLS):
        return _pooled(node, given)
    if is_call(node, *_REDUCTIONS):
        return _reduced(node, given)
    # A first operand with labels of its own would mix them.
    if is_call(node, aten.matmul.default) and node.args[0] not in labels_of:
        return _mixed(node, 1, labels_of)
    return None


def _sent(net: Net, node: Node, tensors: Mapping[Node, Any]) -> Any:
    arguments, keywords = torch.fx.map_arg(
        (node.args, dict(node.kwargs)),
        lambda each: tensors[each] if each in tensors else _constant_or_value(net, each),
    )
    return node.target(*arguments, **keywords)  # type: ignore[operator]


def _constant_or_value(net: Net, node: Node) -> Any:
    constant = net.constant(node)
    return node.meta[VALUE] if constant is None else constant


def _joined(node: Node, labels_of: Mapping[Node, Any]) -> Tensor | None:
    parts, *rest = node.args
    tensors = []
    for part in parts:  # type: ignore[union-attr]
        if not isinstance(part, Node):
            return None
        given = labels_of.get(part)
        tensors.append(torch.full(shape_at_probe(part), FOREIGN) if given is None else given)
    joined = node.target(tensors, *rest, **node.kwargs)  # type: ignore[operator]
    return joined if isinstance(joined, Tensor) else None


def _pooled(node: Node, given: Tensor) -> Tensor | None:
    """Return the labels behind a pool over the axes from 2 on, along which they must not change."""
    first = given[(slice(None), slice(None), *[slice(0, 1)] * (given.dim() - 2))]
    return first.expand(shape_at_probe(node)) if bool((given == first).all()) else None


def _reduced(node: Node, given: Tensor) -> Tensor | None:
    dims = node.args[1] if len(node.args) > 1 else None
    if dims is None or "dtype" in node.kwargs:
        return None
    keep = bool(node.args[2]) if len(node.args) > 2 else bool(node.kwargs.get("keepdim", False))
    minus_lowest, highest = (torch.amax(sign * given, dims, keep) for sign in (-1, 1))  # type: ignore[arg-type]
    return highest if torch.equal(-minus_lowest, highest) else None


def _mixed(node: Node, place: int, labels_of: Mapping[Node, Any]) -> Tensor | None:
    """Return the labels behind a product that sums the operand at this place over tokens, which share their labels."""
    values = node.args[place] if len(node.args) > place else None
    given = labels_of.get(values) if isinstance(values, Node) and list(node.args).count(values) == 1 else None
    if not isinstance(given, Tensor) or given.dim() < 2 or given.shape[:-2] != shape_at_probe(node)[:-2]:
        return None
    first = given[..., :1, :]
    return first.expand(shape_at_probe(node)) if bool((given == first).all()) else None


def _end(net: Net, node: Node, operands: Mapping[Node, Any], result: Flow) -> None:
    """Take down what a node does to the labels of operands that end there."""
    for operand, given in operands.items():
        if isinstance(given, Tensor):
            along = _of_layer(net, node, operand, given)
            if along is not None:
                result.readers.append((node, along))
                continue
            heads = _of_product(node, operand, given)
            if heads is not None:
                (result.queries if node.args[0] is operand else result.keys)[node] = heads
                continue
        leaves = given if isinstance(given, (tuple, list)) else [given]
        for leaf in leaves:
            result.blocked |= set(leaf.unique().tolist())
    result.blocked.discard(FOREIGN)


def _of_layer(net: Net, node: Node, operand: Node, given: Tensor) -> Tensor | None:
    """Return the labels of a layer's input channels; None where it has none of its own, or where they mix."""
    if not net.is_linear(node) or node.args[0] is not operand or net.shared(node):
        return None
    rows = given.movedim(net.channel_axis(node), 0).flatten(1)
    return rows[:, 0] if bool((rows == rows[:, :1]).all()) else None


def _of_product(node: Node, operand: Node, given: Tensor) -> Tensor | None:
    """Return the labels (heads, channels) of an attention's queries or keys; None for any other operand."""
    if not is_call(node, _ATTENTION) or list(node.args).count(operand) != 1 or given.dim() != 4:
        return None
    first = given[:1, :, :1, :]
    return first[0, :, 0] if operand in node.args[:2] and bool((given == first).all()) else None
