"""Attention as one operator, or spelled in products with the scale in one of three places, or with heads as images.

softmax(s q k^T + m) v is the same with s on q, on k, or on their product.
"""

from __future__ import annotations

from functools import partial

from torch.fx import Node

from edgevit.folding.graph import Net, aten, is_call
from edgevit.tuning.attentions import (
    FUSED,
    ON_KEY,
    ON_PRODUCT,
    ON_QUERY,
    Attention,
    read_attention,
    swaps_last_two,
)
from edgevit.tuning.form import Form
from edgevit.tuning.forms_parts import reshaped, swapped


def _attention(net: Net, node: Node) -> Attention:
    attention = read_attention(net, node)
    assert attention is not None
    return attention


def _scaled(net: Net, tensor: Node, attention: Attention, is_here: bool) -> Node:
    """Return a tensor times the scale, where that stands here and is not 1."""
    if not is_here or attention.scale == 1.0:
        return tensor
    return net.call(aten.mul.Tensor, tensor, attention.scale, before=attention.result)


def _transposed(net: Net, key: Node, before: Node) -> Node:
    """Return keys (.., S, d) as (.., d, S); keys that were transposed are taken as they were."""
    if _is_own_move(net, key):
        return net.input(key)
    rank = len(net.shape(key))
    return swapped(net, key, rank - 2, rank - 1, before=before)


def _is_own_move(net: Net, key: Node) -> bool:
    """Return whether keys are a transposition that nothing else reads."""
    return swaps_last_two(net, key) and len(key.users) == 1


def _with_move(net: Net, attention: Attention) -> tuple[Node, ...]:
    """Return the nodes of an attention, with the transposition that its keys come from."""
    moves = [attention.key] if _is_own_move(net, attention.key) else []
    return tuple(sorted({*attention.nodes, *moves}))


# ---- spelled ------------------------------------------------------------------------------------------------------


def _spelled_nodes(place: str, net: Net, node: Node) -> tuple[Node, ...] | None:
    attention = read_attention(net, node)
    if attention is None:
        return None
    if attention.places is None:
        # Without a scale the three are one.
        return _with_move(net, attention) if attention.scale != 1.0 or place == ON_PRODUCT else None
    moves = bool(attention.places) and attention.places != {place}
    return _with_move(net, attention) if moves else None


def _write_spelled(place: str, net: Net, node: Node) -> Node:
    attention = _attention(net, node)
    query = _scaled(net, attention.query, attention, place == ON_QUERY)
    key = _scaled(net, _transposed(net, attention.key, node), attention, place == ON_KEY)
    scores = net.call(aten.matmul.default, query, key, before=node)
    return _weighted(net, _scaled(net, scores, attention, place == ON_PRODUCT), attention)


def _weighted(net: Net, scores: Node, attention: Attention) -> Node:
    """Return the values weighted by the softmax of scores."""
    node = attention.result
    if attention.mask is not None:
        scores = net.call(aten.add.Tensor, scores, attention.mask, before=node)
    weights = net.call(aten.softmax.int, scores, -1, before=node)
    return net.call(aten.matmul.default, weights, attention.value, before=node)


# ---- keys moved once ----------------------------------------------------------------------------------------------


def _moved_keys(net: Net, attention: Attention) -> Node | None:
    """Return the (B, S, h, d) that keys (B, h, S, d) are made of by a transposition, or None."""
    key = attention.key
    if not is_call(key, aten.transpose.int) or len(net.shape(key)) != 4 or len(key.users) > 1:
        return None
    named = net.arguments(key)
    return net.input(key) if {named["dim0"] % 4, named["dim1"] % 4} == {1, 2} else None


def _moved_nodes(net: Net, node: Node) -> tuple[Node, ...] | None:
    attention = read_attention(net, node)
    if attention is None or _moved_keys(net, attention) is None:
        return None
    return tuple(sorted({*attention.nodes, attention.key}))


def _write_moved(net: Net, node: Node) -> Node:
    attention = _attention(net, node)
    tokens = _moved_keys(net, attention)
    assert tokens is not None
    key = net.call(aten.permute.default, tokens, [0, 2, 3, 1], before=node)
    query = _scaled(net, attention.query, attention, True)
    return _weighted(net, net.call(aten.matmul.default, query, key, before=node), attention)


# ---- fused, and heads as images -----------------------------------------------------------------------------------


def _fused_nodes(net: Net, node: Node) -> tuple[Node, ...] | None:
    attention = read_attention(net, node)
    return None if attention is None or attention.places is None else attention.nodes


def _write_fused(net: Net, node: Node) -> Node:
    attention = _attention(net, node)
    masks = [] if attention.mask is None else [attention.mask]
    inputs = (attention.query, attention.key, attention.value, *masks)
    return net.call(FUSED, *inputs, before=node, scale=attention.scale)


def _batched_nodes(net: Net, node: Node) -> tuple[Node, ...] | None:
    attention = read_attention(net, node)
    is_by_head = attention is not None and attention.mask is None and len(net.shape(attention.query)) == 4
    return attention.nodes if attention is not None and is_by_head else None


def _write_batched(net: Net, node: Node) -> Node:
    attention = _attention(net, node)
    query, key, value = (
        reshaped(net, each, *net.shape(each)[2:], before=node)
        for each in (attention.query, attention.key, attention.value)
    )
    query = _scaled(net, query, attention, True)
    scores = net.call(aten.bmm.default, query, swapped(net, key, 1, 2, before=node), before=node)
    weights = net.call(aten.softmax.int, scores, -1, before=node)
    result = net.call(aten.bmm.default, weights, value, before=node)
    return net.call(aten.reshape.default, result, [-1, *net.shape(node)[1:]], before=node)


FORMS = (
    *(
        Form(
            f"attention_scaled_{place}",
            f"attention spelled in products, with the scale on the {words}",
            partial(_spelled_nodes, place),
            partial(_write_spelled, place),
        )
        for place, words in ((ON_PRODUCT, "scores"), (ON_QUERY, "queries"), (ON_KEY, "keys"))
    ),
    Form("attention_keys_once", "attention spelled, with keys transposed in one move", _moved_nodes, _write_moved),
    Form("attention_fused", "spelled attention as one operator", _fused_nodes, _write_fused),
    Form("attention_batched", "attention spelled, with heads as images of the batch", _batched_nodes, _write_batched),
)
