"""Folds the scale of scaled dot-product attention into the layer that computes its queries."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from edgevit.folding.graph import Net, aten, is_call
from edgevit.folding.layout import MAXIMA, MOVES, SELECTIONS, descendants, distinct

ATTENTION = aten.scaled_dot_product_attention.default


def scale_into_query(net: Net, node: Node) -> bool:
    """Fold the scale s of softmax(s q k), usually 1 / sqrt(d), into the rows of the linear map that computes q.

    Otherwise exporters scale both q and k. The rows must reach nothing but q. A positive s passes a maximum on the way,
    as in pooled queries.
    """
    if not is_call(node, ATTENTION):
        return False
    named = net.arguments(node)
    query, scale = net.input(node), named["scale"]
    scale = net.shape(query)[-1] ** -0.5 if scale is None else scale
    source = origin_of(net, query)
    if scale == 1.0 or scale <= 0.0 or source is None or net.shared(source):
        return False
    rows = _rows_of(net, source, node, query)
    if rows is None:
        return False
    kernel = net.kernel(source)
    factor = torch.ones(kernel.channels_out, dtype=torch.float64, device=kernel.weight.device)
    factor[rows.to(factor.device)] = scale
    net.set_kernel(source, kernel.then_affine(factor, None))
    node.args, node.kwargs = (*named.values(),)[:3], {**_without_defaults(named), "scale": 1.0}
    return True


def _without_defaults(named: dict[str, Any]) -> dict[str, Any]:
    defaults = {"attn_mask": None, "dropout_p": 0.0, "is_causal": False, "enable_gqa": False}
    return {name: named[name] for name, default in defaults.items() if named[name] != default}


def origin_of(net: Net, node: Node) -> Node | None:
    """Return the linear map whose outputs, only moved, selected or pooled, are all of a tensor's numbers, or None."""
    while is_call(node, *MOVES, *SELECTIONS, *MAXIMA):
        node = net.input(node)
    return node if net.is_linear(node) else None


def _rows_of(net: Net, source: Node, attention: Node, query: Node) -> Tensor | None:
    """Return the rows of a linear map that reach an attention's queries; None where they have other readers."""
    channels, readers = descendants(net, source, net.channel_axis(source))
    if query not in channels or attention.args.count(query) > 1:
        return None
    rows: Tensor = distinct(channels[query])
    others = (channels[tensor] for reader, tensor in readers if (reader, tensor) != (attention, query))
    return None if any(torch.isin(rows, distinct(other)).any() for other in others) else rows
