"""Moves biases downstream into the linear maps that can absorb them."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor
from torch.fx import Node

from edgevit.folding.graph import CONVOLUTION, Net, aten, is_call
from edgevit.folding.kernel import plus

# f(x + b) = f(x) + b where b is constant over each channel's pixels.
_EQUIVARIANT = (
    aten.max_pool2d.default,
    aten.adaptive_avg_pool2d.default,
)
# max(x + b, y + b) = max(x, y) + b.
_LATTICE = (aten.maximum.default, aten.minimum.default, aten.max.other, aten.min.other)


def bias_downstream(net: Net, node: Node) -> bool:
    """Move a convolution's bias into the linear maps that read it, through operators that pass a constant shift.

    Pooling, rolls, maxima and concatenations pass it. A difference of two equal shifts cancels it. A linear map without
    padding absorbs it into its own bias. If any reader does none of these, the bias stays.
    """
    if not is_call(node, CONVOLUTION) or not net.is_linear(node) or net.shared(node):
        return False
    kernel = net.kernel(node)
    if kernel.bias is None:
        return False
    gains = _gains(net, node, kernel.bias)
    if gains is None:
        return False
    for linear, gain in gains.items():
        absorbing = net.kernel(linear)
        net.set_kernel(linear, dataclasses.replace(absorbing, bias=plus(absorbing.bias, gain)))
    net.set_kernel(node, dataclasses.replace(kernel, bias=None))
    return True


def _gains(net: Net, source: Node, bias: Tensor) -> dict[Node, Tensor] | None:
    """Return each linear map that the shift reaches, with the bias that it gains; None where the shift cannot pass."""
    shifts: dict[Node, Tensor] = {source: bias}
    gains: dict[Node, Tensor] = {}
    # In order of execution, inputs are settled before their readers.
    for node in net.nodes():
        if node is source or not any(tensor in shifts for tensor in node.all_input_nodes):
            continue
        if net.is_linear(node):
            kernel = net.kernel(node)
            vector = shifts.get(net.input(node))
            if vector is None or kernel.padded or net.shared(node) or net.channel_axis(node) != 1:
                return None
            gain = kernel.response(vector)
            if gain is not None:
                gains[node] = gain
            continue
        passed = _pass(net, node, shifts)
        if passed is None:
            return None
        if passed.numel():
            shifts[node] = passed
    return gains


def _pass(net: Net, node: Node, shifts: dict[Node, Tensor]) -> Tensor | None:
    """Return the shift of a node's output: empty where it cancels, None where the result is no constant shift."""
    incoming = [shifts[tensor] for tensor in node.all_input_nodes if tensor in shifts]
    if is_call(node, *_EQUIVARIANT) or _is_roll(net, node) or _is_pixel_mean(net, node) or _is_flatten(net, node):
        return incoming[0]
    if is_call(node, aten.cat.default) and net.arguments(node)["dim"] == 1:
        return _joined(net, node, shifts)
    operands = [operand for operand in node.args[:2] if isinstance(operand, Node)]
    if len(operands) < 2 or any(shifts.get(operand) is not incoming[0] for operand in operands):
        return None
    # Operands of other ranks broadcast, so that their channels do not meet.
    if len({len(net.shape(operand)) for operand in operands}) > 1:
        return None
    if is_call(node, *_LATTICE):
        return incoming[0]
    if is_call(node, aten.sub.Tensor) and net.arguments(node)["alpha"] == 1:
        return incoming[0].new_empty(0)
    return None


def _joined(net: Net, node: Node, shifts: dict[Node, Tensor]) -> Tensor:
    like = next(iter(shifts.values()))
    parts = net.arguments(node)["tensors"]
    return torch.cat([shifts.get(part, like.new_zeros(net.shape(part)[1])) for part in parts])


def _is_roll(net: Net, node: Node) -> bool:
    """Return whether a node rolls along other axes than the channels; without axes, it rolls all numbers in a row."""
    if not is_call(node, aten.roll.default):
        return False
    rank = len(net.shape(node))
    axes = {axis % rank for axis in net.arguments(node)["dims"]}
    return bool(axes) and 1 not in axes


def _is_pixel_mean(net: Net, node: Node) -> bool:
    if not is_call(node, aten.mean.dim) or len(net.shape(net.input(node))) != 4:
        return False
    return {axis % 4 for axis in net.arguments(node)["dim"] or ()} == {2, 3}


def _is_flatten(net: Net, node: Node) -> bool:
    """Return whether a node flattens (B, C, 1, 1) to (B, C), so that channels stay channels."""
    if not is_call(node, aten.flatten.using_ints):
        return False
    before = net.shape(net.input(node))
    return before[2:] == (1, 1) and net.shape(node)[1:] == before[1:2]
