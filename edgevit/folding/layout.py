"""Tracks numbers that are only moved: through reshapes, transpositions, slices and similar operators.

To find where a channel of one tensor ends up in another, tensors of labels pass through the graph's own operators. So
no second definition of `reshape` or `split` is needed. An open batch has the size BATCHES[0] here.
"""

from __future__ import annotations

import heapq
import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from edgevit.folding.graph import Net, aten, is_call
from edgevit.folding.values import VALUE

# Operators that keep the same numbers, each once.
MOVES = (
    aten.reshape.default,
    aten.flatten.using_ints,
    aten.unflatten.int,
    aten.permute.default,
    aten.transpose.int,
    aten.movedim.int,
    aten.movedim.intlist,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.unsqueeze.default,
)
# Operators that keep some of the numbers.
SELECTIONS = (
    aten.slice.Tensor,
    aten.select.int,
    aten.split.Tensor,
    aten.split_with_sizes.default,
    aten.chunk.default,
    aten.unbind.int,
    aten.index_select.default,
    operator.getitem,
)
# All of these, and others that keep, select or repeat numbers.
ALL_MOVES = (
    *MOVES,
    *SELECTIONS,
    aten.channel_shuffle.default,
    aten.expand.default,
    aten.flip.default,
    aten.narrow.default,
    aten.pixel_shuffle.default,
    aten.pixel_unshuffle.default,
    aten.repeat.default,
    aten.roll.default,
    aten.squeeze.default,
    aten.t.default,
)
MAXIMA = (aten.amax.default, aten.maximum.default)


def labels(node: Node, axis: int) -> Tensor:
    """Return int64 labels of a node's shape: each number's index along `axis`."""
    shape = shape_at_probe(node)
    ids = torch.arange(shape[axis], device="cpu")
    return ids.reshape(-1, *(1,) * (len(shape) - axis - 1)).expand(shape)


def distinct(labels: Tensor) -> Tensor:
    """Return the labels that occur, in order. Unlike `unique`, it takes time in proportion to their number."""
    counts = torch.bincount(labels.flatten())
    return counts.nonzero().flatten()


def shape_at_probe(node: Node) -> tuple[int, ...]:
    """Return the shape of a node's output at batch size BATCHES[0]: of 4 windows for each image, 4 times as many."""
    return tuple(node.meta[VALUE].shape)


def send(net: Net, node: Node, tensors: Mapping[Node, Any]) -> Any:
    """Return the result of a call on these tensors in place of its inputs, at batch size BATCHES[0]."""

    def value(source: Node) -> Any:
        constant = net.constant(source)
        if source in tensors:
            return tensors[source]
        return source.meta[VALUE] if constant is None else constant

    arguments, keywords = torch.fx.map_arg((node.args, dict(node.kwargs)), value)
    return node.target(*arguments, **keywords)  # type: ignore[operator]


def descendants(net: Net, source: Node, axis: int) -> tuple[dict[Node, Any], list[tuple[Node, Node]]]:
    """Return the labels of `source` in all tensors moved, selected or pooled from it, and the readers of these.

    The second list has a pair (reader, tensor) for every reader that does anything else.
    """
    labels_of: dict[Node, Any] = {source: labels(source, axis)}
    readers: list[tuple[Node, Node]] = []
    # A heap gives the nodes in the order of execution.
    pending, noted = list(source.users), set(source.users)
    heapq.heapify(pending)
    while pending:
        node = heapq.heappop(pending)
        moved = _moved(net, node, labels_of)
        if moved is None:
            readers += [(node, tensor) for tensor in node.all_input_nodes if tensor in labels_of]
            continue
        labels_of[node] = moved
        for user in node.users.keys() - noted:
            noted.add(user)
            heapq.heappush(pending, user)
    return labels_of, readers


def _moved(net: Net, node: Node, labels_of: Mapping[Node, Any]) -> Any:
    if is_call(node, *MOVES, *SELECTIONS) and node.all_input_nodes[0] in labels_of:
        return send(net, node, labels_of)
    if is_call(node, aten.amax.default):
        pooled = labels_of[node.all_input_nodes[0]]
        minus_lowest, highest = (torch.amax(sign * pooled, *node.args[1:]) for sign in (-1, 1))  # type: ignore[arg-type]
        return highest if torch.equal(-minus_lowest, highest) else None
    if is_call(node, aten.maximum.default):
        first, second = (labels_of.get(operand) for operand in node.args)  # type: ignore[arg-type]
        alike = first is not None and second is not None and torch.equal(first, second)
        return first if alike else None
    return None
