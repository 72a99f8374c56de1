"""What happens to numbers that are only moved: tensors followed through reshapes, transpositions, slices and the like.

To know where a channel of one tensor ends up in another, small tensors of labels are sent through the very operators
of the graph, so that there is no second account of what `reshape` or `split` do. An open batch is followed at PROBE.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from edgevit.folding.graph import Net, aten, is_call

PROBE = 2  # a batch of one would let an operator that mixes images pass for one that does not

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
)  # the same numbers, each once
SELECTIONS = (
    aten.slice.Tensor,
    aten.select.int,
    aten.split.Tensor,
    aten.split_with_sizes.default,
    aten.chunk.default,
    aten.unbind.int,
    aten.index_select.default,
    operator.getitem,
)  # some of them
MAXIMA = (aten.amax.default, aten.maximum.default)


def labels(net: Net, node: Node, axis: int) -> Tensor:
    """int64 of a node's shape that holds each number's place along `axis`."""
    shape = probed(net.shape(node))
    ids = torch.arange(shape[axis], device="cpu")
    return ids.reshape(-1, *(1,) * (len(shape) - axis - 1)).expand(shape)


def probed(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape with an open batch at PROBE."""
    return tuple(PROBE if size == -1 else size for size in shape)


def send(net: Net, node: Node, known: Mapping[Node, Any]) -> Any:
    """What a call gives for known tensors in place of its inputs; sizes that depend on the batch are those of PROBE."""

    def value(item: Node) -> Any:
        constant = net.constant(item)
        return known[item] if item in known else at_probe(item.meta["val"]) if constant is None else constant

    arguments, keywords = torch.fx.map_arg((node.args, dict(node.kwargs)), value)
    return node.target(*arguments, **keywords)  # type: ignore[operator]


def at_probe(size: Any) -> Any:
    """A size that depends on the batch as a number; anything else as it is."""
    if not isinstance(size, torch.SymInt):
        return size
    expression = size.node.expr
    return int(expression.subs(dict.fromkeys(expression.free_symbols, PROBE)))


def descendants(net: Net, source: Node, axis: int) -> tuple[dict[Node, Any], list[tuple[Node, Node]]]:
    """The labels of `source` along an axis in all that is moved, selected or pooled from it, and who reads those.

    The second is (reader, what it reads) for every reader that does anything else.
    """
    known: dict[Node, Any] = {source: labels(net, source, axis)}
    readers: list[tuple[Node, Node]] = []
    for node in net.nodes():
        inputs = [item for item in node.all_input_nodes if item in known]
        if node is source or not inputs:
            continue
        moved = _moved(net, node, known)
        if moved is None:
            readers += [(node, item) for item in inputs]
        else:
            known[node] = moved
    return known, readers


def _moved(net: Net, node: Node, known: Mapping[Node, Any]) -> Any:
    if is_call(node, *MOVES, *SELECTIONS) and node.all_input_nodes[0] in known:
        return send(net, node, known)
    if is_call(node, aten.amax.default):
        least, most = (torch.amax(sign * known[node.all_input_nodes[0]], *node.args[1:]) for sign in (-1, 1))  # type: ignore[arg-type]
        return most if torch.equal(-least, most) else None
    if is_call(node, aten.maximum.default):
        first, second = (known.get(item) for item in node.args)  # type: ignore[arg-type]
        alike = first is not None and second is not None and torch.equal(first, second)
        return first if alike else None
    return None
