"""Folds linear steps inside a concatenation into the pointwise map that reads it."""

from __future__ import annotations

import dataclasses

import torch
from torch.fx import Node

from edgevit.folding.graph import Net, aten, is_call
from edgevit.folding.kernel import Kernel, plus
from edgevit.folding.values import VALUE


def difference_into_weights(net: Net, node: Node) -> bool:
    """Fold a difference into weights: [W1 W2] cat(a, a - b) = [W1 + W2, -W2] cat(a, b)."""
    if not net.is_linear(node) or not is_call(joined := net.input(node), aten.cat.default):
        return False
    axis = net.channel_axis(node)
    if net.arguments(joined)["dim"] % len(net.shape(joined)) != axis or len(joined.users) > 1 or net.shared(node):
        return False
    kernel, parts = net.kernel(node), list(net.arguments(joined)["tensors"])
    if kernel.groups != 1:
        return False
    for i, part in enumerate(parts):
        if _is_difference(net, part) and part.args[0] in parts:
            weights = list(torch.split(kernel.weight, [net.shape(part)[axis] for part in parts], 1))
            j = parts.index(part.args[0])
            weights[j], weights[i] = weights[j] + weights[i], -weights[i]
            parts[i] = part.args[1]
            rejoined = net.call(aten.cat.default, parts, axis, before=node)
            net.set_kernel(node, dataclasses.replace(kernel, weight=torch.cat(weights, 1)))
            node.replace_input_with(joined, rejoined)
            net.drop(joined)
            return True
    return False


def compose_through_concat(net: Net, node: Node) -> bool:
    """Merge pointwise maps through a concatenation, at no extra cost: [W1 W2] cat(a, P b) = [W1, W2 P] cat(a, b)."""
    if not net.is_linear(node) or not is_call(joined := net.input(node), aten.cat.default):
        return False
    axis, reader = net.channel_axis(node), net.kernel(node)
    over_channels = net.arguments(joined)["dim"] % len(net.shape(joined)) == axis
    if not over_channels or len(joined.users) > 1 or net.shared(node) or reader.groups != 1 or not reader.pointwise:
        return False
    parts = list(net.arguments(joined)["tensors"])
    weights = list(torch.split(reader.weight, [net.shape(part)[axis] for part in parts], 1))
    for i, part in enumerate(parts):
        block = dataclasses.replace(reader, weight=weights[i], bias=None)
        # What is joined twice would be computed twice.
        if parts.count(part) == 1 and part.target == node.target and _is_composable(net, part, block):
            merged = block.compose(net.kernel(part))
            parts[i], weights[i] = net.input(part), merged.dense().weight
            rejoined = net.call(aten.cat.default, parts, axis, before=node)
            bias = plus(reader.bias, merged.bias)
            node.replace_input_with(joined, rejoined)
            net.set_kernel(node, dataclasses.replace(reader, weight=torch.cat(weights, 1), bias=bias))
            net.drop(joined)
            return True
    return False


def _is_composable(net: Net, part: Node, reader: Kernel) -> bool:
    """Return whether a pointwise map has one reader and its own weights, and merges into `reader` at no extra cost."""
    if not net.is_linear(part) or len(part.users) > 1 or net.shared(part):
        return False
    kernel = net.kernel(part)
    dense = kernel.channels_in * reader.channels_out
    return kernel.pointwise and dense <= kernel.macs_per_pixel + reader.macs_per_pixel


def _is_difference(net: Net, node: Node) -> bool:
    """Return whether a node with at most one reader is a - b of two maps of one shape and dtype."""
    if not is_call(node, aten.sub.Tensor) or len(node.users) > 1 or net.arguments(node)["alpha"] != 1:
        return False
    operands = [operand for operand in node.args if isinstance(operand, Node)]
    kinds = {(net.shape(value), value.meta[VALUE].dtype) for value in (node, *operands)}
    return len(operands) == 2 and len(kinds) == 1
