"""Attention softmax(s q k^T + m) v as the graph has it, as one operator or spelled in products."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch.fx import Node

from edgevit.folding.graph import Net, aten, is_call
from edgevit.tuning.forms_parts import enclosed, is_plain, operands, with_number

FUSED = aten.scaled_dot_product_attention.default
PRODUCTS = (aten.matmul.default, aten.bmm.default)
# Where the scale of a spelled attention stands.
ON_PRODUCT, ON_QUERY, ON_KEY = "product", "query", "key"


@dataclass(frozen=True)
class Attention:
    """Attention of queries (.., L, d), keys (.., S, d) and values (.., S, v), all with the same axes ahead of these.

    nodes: those that compute it, with the result as the last. mask: added to the scores, or None. places: where the
    scale stands; empty where it is 1; None where attention is one operator.
    """

    nodes: tuple[Node, ...]
    query: Node
    key: Node
    value: Node
    scale: float
    mask: Node | None
    places: frozenset[str] | None

    @property
    def result(self) -> Node:
        """The node whose value is that of the attention."""
        return self.nodes[-1]


def read_attention(net: Net, node: Node) -> Attention | None:
    """Return the attention that ends in a node, or None."""
    attention = _fused(net, node) if is_call(node, FUSED) else _spelled(net, node) if is_call(node, *PRODUCTS) else None
    if attention is None or not all(is_plain(net, each) for each in _operands(attention)):
        return None
    query, key, value = (net.shape(each) for each in (attention.query, attention.key, attention.value))
    fits = len(query) >= 3 and query[:-2] == key[:-2] == value[:-2] and net.shape(node)[:-1] == query[:-1]
    sizes = (*query[1:], *key[-2:], value[-1])
    return attention if fits and min(sizes) > 0 and attention.scale != 0 else None


def _operands(attention: Attention) -> list[Node]:
    operands_ = [attention.query, attention.key, attention.value, attention.result]
    return operands_ if attention.mask is None else [*operands_, attention.mask]


def _fused(net: Net, node: Node) -> Attention | None:
    named = net.arguments(node)
    if named["dropout_p"] or named["is_causal"] or named["enable_gqa"]:
        return None
    scale = named["scale"]
    scale = net.shape(named["query"])[-1] ** -0.5 if scale is None else float(scale)
    return Attention((node,), named["query"], named["key"], named["value"], scale, named["attn_mask"], None)


def _spelled(net: Net, node: Node) -> Attention | None:
    """Read softmax(..) v; scales on queries, keys and their product, and a constant mask, belong to it."""
    softmax, value = node.args[:2]
    if not is_call(softmax, aten.softmax.int) or not isinstance(value, Node):
        return None
    named = net.arguments(softmax)
    if named["dtype"] is not None or named["dim"] % len(net.shape(softmax)) != len(net.shape(softmax)) - 1:
        return None
    scores, nodes, mask = named["self"], [softmax, node], None
    masked = operands(net, scores, aten.add.Tensor)
    if masked is not None and _is_mask(net, masked[1], scores, masked[0]):
        scores, mask = masked
        nodes.append(named["self"])
    steps = _Steps(net, nodes)
    scores = steps.without_scale(scores, ON_PRODUCT)
    if not is_call(scores, *PRODUCTS) or not all(isinstance(each, Node) for each in scores.args[:2]):
        return None
    nodes.append(scores)
    query = steps.without_scale(scores.args[0], ON_QUERY)
    # The scale of keys may stand behind their transposition, or ahead of it.
    transposed = steps.without_scale(scores.args[1], ON_KEY)
    if not swaps_last_two(net, transposed) or len(transposed.users) > 1:
        return None
    nodes.append(transposed)
    key = steps.without_scale(net.input(transposed), ON_KEY)
    closed = enclosed(nodes)
    if closed is None:
        return None
    return Attention(closed, query, key, value, steps.scale, mask, frozenset(steps.places))


class _Steps:
    """The scales that belong to an attention: their product, where they stand, and their nodes, which it appends."""

    def __init__(self, net: Net, nodes: list[Node]) -> None:
        self.net, self.nodes = net, nodes
        self.scale, self.places = 1.0, set[str]()

    def without_scale(self, tensor: Any, place: str) -> Any:
        """Return a tensor as it is ahead of its scale, which counts where nothing else reads its product."""
        scaled = _scaled(self.net, tensor)
        if scaled is None or len(tensor.users) > 1:
            return tensor
        self.nodes.append(tensor)
        self.places.add(place)
        self.scale *= scaled[1]
        return scaled[0]


def _scaled(net: Net, node: Any) -> tuple[Node, float] | None:
    """Read number * x or x / number as (x, factor)."""
    scaled = with_number(net, node, aten.mul.Tensor, aten.div.Tensor)
    if scaled is None or not is_call(node, aten.div.Tensor):
        return scaled
    return (scaled[0], 1 / scaled[1]) if scaled[1] else None


def _is_mask(net: Net, mask: Any, scores: Any, product: Any) -> bool:
    """Return whether a value is a constant that broadcasts over scores."""
    return net.constant(mask) is not None and isinstance(product, Node) and net.shape(product) == net.shape(scores)


def swaps_last_two(net: Net, node: Any) -> bool:
    """Return whether a node swaps the last two axes and no others."""
    if not is_call(node, aten.transpose.int, aten.permute.default):
        return False
    named, rank = net.arguments(node), len(net.shape(node))
    if is_call(node, aten.transpose.int):
        return {named["dim0"] % rank, named["dim1"] % rank} == {rank - 2, rank - 1}
    return [axis % rank for axis in named["dims"]] == [*range(rank - 2), rank - 1, rank - 2]
