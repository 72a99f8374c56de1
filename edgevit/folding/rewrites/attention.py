"""Scaled dot-product attention: what can be known of it before it runs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from edgevit.folding.graph import Net, aten, is_call
from edgevit.folding.layout import MAXIMA, MOVES, SELECTIONS, descendants

ATTENTION = aten.scaled_dot_product_attention.default


def scale_into_query(net: Net, node: Node) -> bool:
    """softmax(s q k) with q from a linear map: its rows take s, usually 1 / sqrt(d). Exporters else scale q and k.

    The rows must reach nothing but q. A maximum on the way, as where queries are pooled, lets a positive s pass.
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
    """The linear map that all of a tensor's numbers come from, only moved, selected or pooled on their way."""
    while is_call(node, *MOVES, *SELECTIONS, *MAXIMA):
        node = net.input(node)
    return node if net.is_linear(node) else None


def _rows_of(net: Net, source: Node, attention: Node, query: Node) -> Tensor | None:
    """The rows of a linear map that reach the queries of an attention, and nothing else; None where they do."""
    known, readers = descendants(net, source, net.channel_axis(source))
    if query not in known or attention.args.count(query) > 1:
        return None
    rows: Tensor = known[query].unique()
    others = (known[item] for reader, item in readers if (reader, item) != (attention, query))
    return None if any(torch.isin(rows, item.unique()).any() for item in others) else rows
