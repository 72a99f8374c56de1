"""Attention with few queries: projects keys and values on the queries' side, where that is cheaper.

With n the tokens that keys K n and values V n are projected from, q the queries, in each head:
softmax(q (K n + b)^T) (V n + c) = (softmax((q K) n^T) n) V^T + c. The keys' bias b adds the same to all scores of a
query and cancels. The weights of a softmax sum to 1, so the values' bias c passes.

The operands must come from (N, L, C) by reshape(N, L / units, units * heads, C / heads) and transpose(1, 2), with
units = 1 where all tokens attend to all. The result has the same form, with units as heads and heads as queries.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import Node

from edgevit.folding.graph import LINEAR, Net, aten, is_call
from edgevit.folding.layout import MAXIMA, MOVES, SELECTIONS, descendants, distinct, labels
from edgevit.folding.rewrites.attention import ATTENTION, origin_of
from edgevit.folding.values import VALUE


@dataclass(frozen=True)
class _Part:
    """Rows of a fully connected layer that form one tensor (N, L, C): `weight` (C, C_in), `bias` (C,) or None."""

    node: Node
    source: Node
    weight: Tensor
    bias: Tensor | None


@dataclass(frozen=True)
class _Sizes:
    """Sizes of attention in `units` groups: heads, keys and queries in each, channels of a head and of a token."""

    units: int
    heads: int
    keys: int
    queries: int
    channels: int
    inputs: int
    scale: float

    @property
    def saves(self) -> bool:
        """Return whether projecting on the queries' side takes fewer multiply-accumulates."""
        scores = self.heads * self.queries * self.keys
        matrix = self.heads * self.channels * self.inputs
        return self.queries * matrix + scores * self.inputs < self.keys * matrix + scores * self.channels


def project_late(net: Net, node: Node) -> bool:
    """Replace attention on projected keys and values by attention on the tokens themselves, see the module."""
    # With a mask, there would have to be one for each head.
    if not is_call(node, ATTENTION) or not set(node.kwargs) <= {"scale"} or len(node.args) != 3:
        return False
    out, operands = _tokens_of(net, node), [_before_heads(net, operand) for operand in node.all_input_nodes]
    projections = [operand for operand in operands if operand is not None]
    if out is None or len(operands) != 3 or len(projections) != 3:
        return False
    query, *projected = projections
    if net.shape(out) != net.shape(query):
        return False
    # Sizes tell most cases, and parts take longer to find.
    sizes = _sizes(net, node, query, projected)
    if sizes is None or not sizes.saves:
        return False
    parts = [part for tokens in projected if (part := _part(net, tokens)) is not None]
    if len(parts) != 2:
        return False
    query_part = _query_part(net, query, {part.source for part in parts})
    if not all(_is_removable(net, part.source, node, query_part) for part in parts):
        return False
    if query_part is not None:
        layer = _layer(net, query_part)
        net.replace(query_part.node, layer)
        query = layer if query is query_part.node else query
    net.replace(out, _projected_late(net, query, parts, sizes, out))
    return True


def _tokens_of(net: Net, node: Node) -> Node | None:
    """Return the (N, L, C) that transpose(1, 2) and a reshape make of an attention, if it has no other reader."""
    for target in (aten.transpose.int, aten.reshape.default):
        if len(node.users) != 1 or not is_call(reader := next(iter(node.users)), target):
            return None
        node = reader
    return node


def _before_heads(net: Net, node: Node) -> Node | None:
    """Return the (N, L, C) that an operand of attention is reshaped from."""
    if not is_call(node, aten.transpose.int) or {int(axis) % 4 for axis in node.args[1:3]} != {1, 2}:  # type: ignore[arg-type]
        return None
    reshaped = net.input(node)
    if not is_call(reshaped, aten.reshape.default) or len(reshaped.users) > 1 or len(net.shape(reshaped)) != 4:
        return None
    source = net.input(reshaped)
    return source if len(net.shape(source)) == 3 and net.shape(source)[0] == net.shape(node)[0] else None


def _part(net: Net, node: Node) -> _Part | None:
    """Return a tensor (N, L, C) as rows of the layer it comes from; None for any other tensor."""
    source = origin_of(net, node)
    if source is None or not is_call(source, LINEAR) or net.shared(source) or len(net.shape(source)) != 3:
        return None
    # A split gives a list of tensors.
    if not isinstance(node.meta[VALUE], Tensor) or len(net.shape(node)) != 3:
        return None
    if net.shape(node)[:2] != net.shape(source)[:2]:
        return None
    rows, tokens = (descendants(net, source, axis)[0].get(node) for axis in (2, 1))
    if rows is None or tokens is None or not torch.equal(tokens, labels(node, 1)):
        return None
    kernel = net.kernel(source)
    chosen = rows[0, 0].to(kernel.weight.device)
    return _Part(node, source, kernel.weight[chosen, :, 0, 0], None if kernel.bias is None else kernel.bias[chosen])


def _query_part(net: Net, query: Node, sources: set[Node]) -> _Part | None:
    """Return the queries' rows of a layer that also computes keys or values; None where they have another layer."""
    while (part := _part(net, query)) is None and is_call(query, *MOVES, *SELECTIONS, *MAXIMA):
        query = net.input(query)
    return part if part is not None and part.source in sources else None


def _sizes(net: Net, node: Node, query: Node, projected: list[Node]) -> _Sizes | None:
    """Return the sizes that all shapes agree on; None where they do not agree, or no layer makes keys and values."""
    sources = [origin_of(net, tokens) for tokens in projected]
    of_query, of_key, of_value = (net.shape(operand) for operand in node.all_input_nodes)
    if of_key != of_value or of_query[3] != of_key[3] or min(of_query[1:] + of_key[1:]) < 0:
        return None
    (_, groups, queries, channels), keys = of_query, of_key[2]
    units = net.shape(projected[0])[1] // keys
    inputs = {net.shape(net.input(source))[-1] for source in sources if source is not None}
    if units < 1 or None in sources:
        return None
    heads = groups // units
    whole = groups == units * heads and net.shape(query)[1:] == (queries * units, heads * channels)
    if not whole or len(inputs) != 1:
        return None
    scale = channels**-0.5 if net.arguments(node)["scale"] is None else net.arguments(node)["scale"]
    return _Sizes(units, heads, keys, queries, channels, inputs.pop(), scale)


def _is_removable(net: Net, source: Node, attention: Node, query_part: _Part | None) -> bool:
    """Return whether the layer of keys or values has no other users, the queries aside, and can be removed."""
    rows_of, readers = descendants(net, source, 2)
    has_queries = query_part is not None and query_part.source is source
    query_rows = distinct(rows_of[query_part.node]) if query_part and has_queries else torch.empty(0)
    others = (distinct(rows_of[tensor]) for reader, tensor in readers if reader is not attention)
    return all(bool(torch.isin(rows, query_rows).all()) for rows in others)


def _layer(net: Net, part: _Part) -> Node:
    """Add a part as a layer of its own."""
    weight = net.add_constant(part.weight, before=part.node)
    bias = None if part.bias is None else net.add_constant(part.bias, before=part.node)
    return net.call(LINEAR, net.input(part.source), weight, bias, before=part.node)


def _projected_late(net: Net, query: Node, parts: list[_Part], sizes: _Sizes, before: Node) -> Node:
    """Add the attention on tokens, and return its result (N, L, C) in the order of `query`."""
    units, heads, queries, inputs = sizes.units, sizes.heads, sizes.queries, sizes.inputs

    def shaped(node: Node, *shape: int) -> Node:
        return net.call(aten.reshape.default, node, [-1, *shape], before=before)

    def swapped(node: Node) -> Node:
        return net.call(aten.transpose.int, node, 1, 2, before=before)

    def times(node: Node, matrices: Tensor) -> Node:
        return net.call(aten.matmul.default, node, net.add_constant(matrices, before=before), before=before)

    into_keys, out_of_values = (part.weight.reshape(heads, sizes.channels, inputs) for part in parts)
    rows = times(swapped(shaped(query, queries * units, heads, sizes.channels)), into_keys)
    rows = swapped(shaped(rows, heads * queries, units, inputs))
    tokens = [swapped(shaped(net.input(part.source), sizes.keys, units, inputs)) for part in parts]
    # (N, units, heads * queries, inputs)
    attended = net.call(ATTENTION, rows, *tokens, before=before, scale=sizes.scale)
    result = times(shaped(swapped(attended), heads, queries * units, inputs), out_of_values.mT.contiguous())
    result = shaped(swapped(result), queries * units, heads * sizes.channels)
    bias = parts[1].bias
    if bias is None:
        return result
    return net.call(aten.add.Tensor, result, net.add_constant(bias, before=before), before=before)
