"""Expressions of constants alone."""

from __future__ import annotations

import torch
from torch.fx import Node

from edgevit.fold.graph import Net


def constant_expression(net: Net, node: Node) -> bool:
    """A call that reads nothing but constants becomes one: a reshaped layer scale, a masked weight."""
    inputs = node.all_input_nodes
    if not inputs or any(net.constant(item) is None for item in inputs) or _is_random(node):
        return False
    arguments = torch.fx.map_arg((node.args, dict(node.kwargs)), net.constant)
    value = node.target(*arguments[0], **arguments[1])  # type: ignore[operator]
    if not isinstance(value, torch.Tensor):
        return False
    net.replace(node, net.add_constant(value.detach(), before=node, dtype=node.meta["val"].dtype))
    return True


def _is_random(node: Node) -> bool:
    return torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())
