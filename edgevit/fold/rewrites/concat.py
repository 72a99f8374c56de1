"""Linear steps inside a concatenation, into the pointwise map that reads it."""

from __future__ import annotations

import dataclasses

import torch
from torch.fx import Node

from edgevit.fold.graph import Net, aten, is_call


def difference_into_weights(net: Net, node: Node) -> bool:
    """[W1 W2] cat(a, a - b) = [W1 + W2, -W2] cat(a, b): the difference is never computed."""
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
            weights = list(torch.split(kernel.weight, [net.shape(item)[axis] for item in parts], 1))
            j = parts.index(part.args[0])
            weights[j], weights[i] = weights[j] + weights[i], -weights[i]
            parts[i] = part.args[1]
            rejoined = net.call(aten.cat.default, parts, axis, before=node)
            net.set_kernel(node, dataclasses.replace(kernel, weight=torch.cat(weights, 1)))
            node.replace_input_with(joined, rejoined)
            net.drop(joined)
            return True
    return False


def _is_difference(net: Net, node: Node) -> bool:
    """a - b that nobody else reads, of two maps of one size and kind."""
    if not is_call(node, aten.sub.Tensor) or len(node.users) > 1 or net.arguments(node)["alpha"] != 1:
        return False
    operands = [item for item in node.args if isinstance(item, Node)]
    kinds = {(net.shape(item), item.meta["val"].dtype) for item in (node, *operands)}
    return len(operands) == 2 and len(kinds) == 1
