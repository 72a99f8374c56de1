"""Attention with few queries: keys and values are projected on the queries' side, where that is cheaper.

With n the tokens that keys K n and values V n are projected from, q the queries, in each head:
softmax(q (K n + b)^T) (V n + c) = (softmax((q K) n^T) n) V^T + c. The keys' bias b adds the same to all scores of a
query and cancels; the weights of a softmax sum to 1, so that the values' bias c passes.

What is read: operands made by reshape(N, L / units, units * heads, C / heads) and transpose(1, 2) from (N, L, C), with
units = 1 where all tokens attend to all. What is made has the same form with units as heads, and heads as queries.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import Node

from edgevit.folding.graph import LINEAR, Net, aten, is_call
from edgevit.folding.layout import MAXIMA, MOVES, SELECTIONS, descendants, labels
from edgevit.folding.rewrites.attention import ATTENTION, origin_of


@dataclass(frozen=True)
class _Part:
    """Rows of a fully connected layer as one tensor (N, L, C) of its own: `weight` (C, C_in), `bias` (C,) or None."""

    node: Node
    source: Node
    weight: Tensor
    bias: Tensor | None


@dataclass(frozen=True)
class _Sizes:
    """Of attention in `units` groups of tokens: heads, keys and queries in each, channels of a head and of a token."""

    units: int
    heads: int
    keys: int
    queries: int
    channels: int
    inputs: int
    scale: float

    @property
    def saves(self) -> bool:
        """Whether projecting on the queries' side takes fewer multiply-accumulates."""
        scores = self.heads * self.queries * self.keys
        matrix = self.heads * self.channels * self.inputs
        return self.queries * matrix + scores * self.inputs < self.keys * matrix + scores * self.channels


def project_late(net: Net, node: Node) -> bool:
    """Attention on projected keys and values becomes attention on the tokens themselves, see above."""
    if not is_call(node, ATTENTION) or not set(node.kwargs) <= {"scale"} or len(node.args) != 3:
        return False  # masks would have to be as many as heads
    out, operands = _tokens_of(net, node), [_before_heads(net, item) for item in node.all_input_nodes]
    if out is None or len(operands) != 3:
        return False
    query, *projected = operands
    parts = [part for item in projected if item is not None and (part := _part(net, item)) is not None]
    if query is None or len(parts) != 2 or net.shape(out) != net.shape(query):
        return False
    sizes, own = _sizes(net, node, query, parts), _own(net, query, {part.source for part in parts})
    if sizes is None or not sizes.saves or not all(_dies(net, part.source, node, own) for part in parts):
        return False
    if own is not None:
        net.replace(own.node, _layer(net, own))
    net.replace(out, _projected_late(net, query, parts, sizes, out))
    return True


def _tokens_of(net: Net, node: Node) -> Node | None:
    """The (N, L, C) that transpose(1, 2) and a reshape make of what an attention gives, if all read that."""
    for target in (aten.transpose.int, aten.reshape.default):
        if len(node.users) != 1 or not is_call(reader := next(iter(node.users)), target):
            return None
        node = reader
    return node


def _before_heads(net: Net, node: Node) -> Node | None:
    """The (N, L, C) that an operand of attention is made of."""
    if not is_call(node, aten.transpose.int) or {int(axis) % 4 for axis in node.args[1:3]} != {1, 2}:  # type: ignore[arg-type]
        return None
    reshaped = net.input(node)
    if not is_call(reshaped, aten.reshape.default) or len(reshaped.users) > 1 or len(net.shape(reshaped)) != 4:
        return None
    source = net.input(reshaped)
    return source if len(net.shape(source)) == 3 and net.shape(source)[0] == net.shape(node)[0] else None


def _part(net: Net, node: Node) -> _Part | None:
    """A tensor (N, L, C) as rows of the layer it comes from; None where it is anything else."""
    source = origin_of(net, node)
    if source is None or not is_call(source, LINEAR) or net.shared(source) or len(net.shape(source)) != 3:
        return None
    if not isinstance(node.meta["val"], Tensor) or len(net.shape(node)) != 3:  # several, of a split
        return None
    if net.shape(node)[:2] != net.shape(source)[:2]:
        return None
    rows, places = (descendants(net, source, axis)[0].get(node) for axis in (2, 1))
    if rows is None or places is None or not torch.equal(places, labels(net, node, 1)):
        return None
    kernel = net.kernel(source)
    chosen = rows[0, 0].to(kernel.weight.device)
    return _Part(node, source, kernel.weight[chosen, :, 0, 0], None if kernel.bias is None else kernel.bias[chosen])


def _own(net: Net, query: Node, sources: set[Node]) -> _Part | None:
    """Where the queries come from a layer that gives keys or values too: the rows that are theirs."""
    while (part := _part(net, query)) is None and is_call(query, *MOVES, *SELECTIONS, *MAXIMA):
        query = net.input(query)
    return part if part is not None and part.source in sources else None


def _sizes(net: Net, node: Node, query: Node, parts: list[_Part]) -> _Sizes | None:
    """What the shapes agree on; None where they do not."""
    of_query, of_key, of_value = (net.shape(item) for item in node.all_input_nodes)
    if of_key != of_value or of_query[3] != of_key[3] or -1 in of_query[1:] + of_key[1:]:
        return None
    (_, groups, queries, channels), keys = of_query, of_key[2]
    units = net.shape(parts[0].node)[1] // keys
    heads, inputs = groups // units, {net.shape(net.input(part.source))[2] for part in parts}
    whole = groups == units * heads and net.shape(query)[1:] == (queries * units, heads * channels)
    if not whole or len(inputs) != 1:
        return None
    scale = channels**-0.5 if net.arguments(node)["scale"] is None else net.arguments(node)["scale"]
    return _Sizes(units, heads, keys, queries, channels, inputs.pop(), scale)


def _dies(net: Net, source: Node, attention: Node, own: _Part | None) -> bool:
    """Whether nobody else reads what a layer gives for keys and values, so that it goes."""
    known, readers = descendants(net, source, 2)
    kept = known[own.node].unique() if own is not None and own.source is source else torch.empty(0)
    others = (known[item].unique() for reader, item in readers if reader is not attention)
    return all(bool(torch.isin(rows, kept).all()) for rows in others)


def _layer(net: Net, part: _Part) -> Node:
    """A part as a layer of its own."""
    weight = net.add_constant(part.weight, before=part.node)
    bias = None if part.bias is None else net.add_constant(part.bias, before=part.node)
    return net.call(LINEAR, net.input(part.source), weight, bias, before=part.node)


def _projected_late(net: Net, query: Node, parts: list[_Part], sizes: _Sizes, before: Node) -> Node:
    """The (N, L, C) that the attention gave, in the order of `query`."""
    units, heads, queries, inputs = sizes.units, sizes.heads, sizes.queries, sizes.inputs

    def shaped(node: Node, *shape: int) -> Node:
        return net.call(aten.reshape.default, node, [-1, *shape], before=before)

    def swapped(node: Node) -> Node:
        return net.call(aten.transpose.int, node, 1, 2, before=before)

    def times(node: Node, matrices: Tensor) -> Node:
        return net.call(aten.matmul.default, node, net.add_constant(matrices, before=before), before=before)

    into_keys, out_of_values = (part.weight.reshape(heads, sizes.channels, inputs) for part in parts)
    asked = times(swapped(shaped(query, queries * units, heads, sizes.channels)), into_keys)
    asked = swapped(shaped(asked, heads * queries, units, inputs))
    tokens = [swapped(shaped(net.input(part.source), sizes.keys, units, inputs)) for part in parts]
    seen = net.call(ATTENTION, asked, *tokens, before=before, scale=sizes.scale)  # (N, units, heads * queries, inputs)
    result = times(shaped(swapped(seen), heads, queries * units, inputs), out_of_values.mT.contiguous())
    result = shaped(swapped(result), queries * units, heads * sizes.channels)
    bias = parts[1].bias
    if bias is None:
        return result
    return net.call(aten.add.Tensor, result, net.add_constant(bias, before=before), before=before)
