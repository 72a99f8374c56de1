"""Computes expressions of constants alone."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch.fx import Node

from edgevit.folding.graph import Net, is_call
from edgevit.folding.one_dtype import OneDtype
from edgevit.folding.values import VALUE


def constant_expression(net: Net, node: Node) -> bool:
    """Replace a call on constants by its value: a reshaped layer scale, a masked weight, a part of a split.

    A value with more numbers than what it is computed from stays an expression where the network may not grow by it.
    """
    sequence: Any = node.args[0] if is_call(node, operator.getitem) else None
    value = _value(net, sequence)[node.args[1]] if _is_constant(net, sequence) else _value(net, node)
    if not isinstance(value, torch.Tensor):
        return False
    if value.is_floating_point() and not net.grow(value.numel() - _freed(net, node)):
        return False
    net.replace(node, net.add_constant(value.detach(), before=node, dtype=node.meta[VALUE].dtype))
    return True


def _freed(net: Net, node: Node) -> int:
    """Return the number of weights that go with a call on constants: its share of what several calls read."""
    if is_call(node, operator.getitem):
        return int(node.meta[VALUE].numel())
    sources = ((net.constant(source), len(source.users)) for source in node.all_input_nodes)
    return sum(
        constant.numel() // readers
        for constant, readers in sources
        # Indices are no weights.
        if constant is not None and constant.is_floating_point()
    )


def _is_constant(net: Net, node: Any) -> bool:
    """Return whether a node is a deterministic call on constants alone."""
    if not isinstance(node, Node) or node.op != "call_function" or _is_random(node):
        return False
    return bool(node.all_input_nodes) and all(net.constant(source) is not None for source in node.all_input_nodes)


def _value(net: Net, node: Node) -> Any:
    """Return the result of a call on constants; None for other calls."""
    if not _is_constant(net, node):
        return None
    arguments = torch.fx.map_arg((node.args, dict(node.kwargs)), net.constant)
    # Constants are in float64 here whatever their dtype, so a cast rounds nothing before the end.
    with OneDtype(torch.float64):
        return node.target(*arguments[0], **arguments[1])  # type: ignore[operator]


def _is_random(node: Node) -> bool:
    return torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())
