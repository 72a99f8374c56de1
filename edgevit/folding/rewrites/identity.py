"""Drops calls that change nothing in inference."""

from __future__ import annotations

import torch
from torch.fx import Node

from edgevit.folding.graph import DROPOUTS, Net, aten, is_call
from edgevit.folding.values import VALUE

_COPIES = (
    aten.alias.default,
    aten.clone.default,
    aten.contiguous.default,
    aten.detach.default,
    aten.lift_fresh_copy.default,
)
_CASTS = (aten.to.dtype, aten.to.dtype_layout, aten._to_copy.default)
# These depend on a tensor's memory layout, which a copy may have arranged for them.
_LAYOUT_READERS = (aten.as_strided.default, aten.view.dtype, aten.view_as_complex.default)


def drop_identity(net: Net, node: Node) -> bool:
    """Drop dropouts in inference, leaky ReLUs of slope 1, copies, and casts to the same dtype."""
    dropout = is_call(node, *DROPOUTS) and not net.arguments(node)["train"]
    linear_relu = is_call(node, aten.leaky_relu.default) and net.arguments(node)["negative_slope"] == 1
    if not (dropout or linear_relu or is_call(node, *_COPIES) or _casts_nothing(net, node)):
        return False
    if any(is_call(reader, *_LAYOUT_READERS) for reader in node.users):
        return False
    net.replace(node, net.input(node))
    return True


def _casts_nothing(net: Net, node: Node) -> bool:
    if not is_call(node, *_CASTS):
        return False
    device = net.arguments(node).get("device")
    same_device = device is None or torch.device(device) == net.device
    return bool(same_device and net.input(node).meta[VALUE].dtype == node.meta[VALUE].dtype)
