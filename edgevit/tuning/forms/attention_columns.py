"""Attention of maps whose pixels are the columns: the product of keys with queries, and values with their softmax.

With q, k and v as (.., d, N), v softmax(k^T q) over the keys is what softmax(q k^T) v is in rows. So only the keys are
transposed.
"""

from __future__ import annotations

from torch.fx import Node

from edgevit.folding.graph import Net, aten
from edgevit.tuning.attentions import Attention, read_attention, swaps_last_two
from edgevit.tuning.form import Form
from edgevit.tuning.forms_parts import enclosed


def _attention(net: Net, node: Node) -> Attention | None:
    """Return the attention that a transposition of its last two axes reads, with queries and values so transposed."""
    attention = read_attention(net, net.input(node)) if swaps_last_two(net, node) else None
    if attention is None or attention.mask is not None:
        return None
    operands = (attention.query, attention.value)
    return attention if all(swaps_last_two(net, each) and len(each.users) == 1 for each in operands) else None


def _nodes(net: Net, node: Node) -> tuple[Node, ...] | None:
    attention = _attention(net, node)
    return None if attention is None else enclosed([*attention.nodes, attention.query, attention.value, node])


def _write(net: Net, node: Node) -> Node:
    attention = _attention(net, node)
    assert attention is not None
    query = net.input(attention.query)
    if attention.scale != 1.0:
        query = net.call(aten.mul.Tensor, query, attention.scale, before=node)
    scores = net.call(aten.matmul.default, attention.key, query, before=node)
    weights = net.call(aten.softmax.int, scores, -2, before=node)
    return net.call(aten.matmul.default, net.input(attention.value), weights, before=node)


FORMS = (Form("attention_columns", "attention of columns, with fewer transpositions", _nodes, _write),)
