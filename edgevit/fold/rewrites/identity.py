"""Calls that change nothing in inference."""

from __future__ import annotations

from torch.fx import Node

from edgevit.fold.graph import Net, aten, is_call

_COPIES = (aten.alias.default, aten.clone.default, aten.contiguous.default, aten.detach.default)


def drop_identity(net: Net, node: Node) -> bool:
    """Dropout in inference, a leaky ReLU of slope 1, copies: read the input instead."""
    dropout = is_call(node, aten.dropout.default) and not net.arguments(node)["train"]
    linear_relu = is_call(node, aten.leaky_relu.default) and net.arguments(node)["negative_slope"] == 1
    if not (dropout or linear_relu or is_call(node, *_COPIES)):
        return False
    net.replace(node, net.input(node))
    return True
