"""Biases, moved downstream into the linear maps that can take them."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor
from torch.fx import Node

from edgevit.folding.graph import CONVOLUTION, Net, aten, is_call
from edgevit.folding.kernel import plus

# f(x + b) = f(x) + b for a shift b that is constant over each channel's pixels.
_EQUIVARIANT = (
    aten.max_pool2d.default,
    aten.adaptive_avg_pool2d.default,
)
# max(x + b, y + b) = max(x, y) + b.
_LATTICE = (aten.maximum.default, aten.minimum.default, aten.max.other, aten.min.other)


def bias_downstream(net: Net, node: Node) -> bool:
    """A convolution's bias goes into the linear maps that read it, through all that lets a constant shift pass.

    Pooling, rolls, maxima and concatenations let it pass, a difference of two equal shifts cancels it, and a linear
    map without padding takes it into its own bias. If any reader does none of that, the bias stays.
    """
    if not is_call(node, CONVOLUTION) or not net.is_linear(node) or net.shared(node):
        return False
    kernel = net.kernel(node)
    if kernel.bias is None:
        return False
    takers = _follow(net, node, kernel.bias)
    if takers is None:
        return False
    for taker, gain in takers.items():
        own = net.kernel(taker)
        net.set_kernel(taker, dataclasses.replace(own, bias=plus(own.bias, gain)))
    net.set_kernel(node, dataclasses.replace(kernel, bias=None))
    return True


def _follow(net: Net, source: Node, bias: Tensor) -> dict[Node, Tensor] | None:
    """Each linear map the shift reaches and the bias it gains there; None where the shift cannot pass."""
    shifts: dict[Node, Tensor] = {source: bias}
    takers: dict[Node, Tensor] = {}
    for node in net.nodes():  # in order of execution, so inputs are settled before their readers
        if node is source or not any(item in shifts for item in node.all_input_nodes):
            continue
        if net.is_linear(node):
            kernel = net.kernel(node)
            vector = shifts.get(net.input(node))
            if vector is None or kernel.padded or net.shared(node) or net.channel_axis(node) != 1:
                return None
            gain = kernel.response(vector)
            if gain is not None:
                takers[node] = gain
            continue
        passed = _pass(net, node, shifts)
        if passed is None:
            return None
        if passed.numel():
            shifts[node] = passed
    return takers


def _pass(net: Net, node: Node, shifts: dict[Node, Tensor]) -> Tensor | None:
    """The shift of a node's output, empty where it cancels, None where it is not a shift any more."""
    known = [shifts[item] for item in node.all_input_nodes if item in shifts]
    if is_call(node, *_EQUIVARIANT) or _is_roll(net, node) or _is_pixel_mean(net, node) or _is_flatten(net, node):
        return known[0]
    if is_call(node, aten.cat.default) and net.arguments(node)["dim"] == 1:
        return _joined(net, node, shifts)
    operands = [item for item in node.args[:2] if isinstance(item, Node)]
    if len(operands) < 2 or any(shifts.get(item) is not known[0] for item in operands):
        return None
    if len({len(net.shape(item)) for item in operands}) > 1:  # broadcast: their channels do not meet
        return None
    if is_call(node, *_LATTICE):
        return known[0]
    if is_call(node, aten.sub.Tensor) and net.arguments(node)["alpha"] == 1:
        return known[0].new_empty(0)
    return None


def _joined(net: Net, node: Node, shifts: dict[Node, Tensor]) -> Tensor:
    like = next(iter(shifts.values()))
    parts = net.arguments(node)["tensors"]
    return torch.cat([shifts.get(item, like.new_zeros(net.shape(item)[1])) for item in parts])


def _is_roll(net: Net, node: Node) -> bool:
    """Along other axes than the channels; without an axis it rolls all numbers in a row."""
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
    """(B, C, 1, 1) -> (B, C): channels stay channels."""
    if not is_call(node, aten.flatten.using_ints):
        return False
    before = net.shape(net.input(node))
    return before[2:] == (1, 1) and net.shape(node)[1:] == before[1:2]
