"""Parts that several forms are made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from edgevit.folding.graph import CONVOLUTION, LINEAR, Net, aten, is_call
from edgevit.folding.kernel import Kernel
from edgevit.folding.values import VALUE

# Activations that compute each number alone, with f(x) <= f(y) for x <= y at their usual parameters.
INCREASING = (
    aten.relu.default,
    aten.relu6.default,
    aten.hardtanh.default,
    aten.sigmoid.default,
    aten.hardsigmoid.default,
    aten.tanh.default,
)
# Operators that compute each number alone, from one tensor.
ELEMENTWISE = (
    *INCREASING,
    aten.clamp.default,
    aten.elu.default,
    aten.gelu.default,
    aten.hardswish.default,
    aten.leaky_relu.default,
    aten.mish.default,
    aten.silu.default,
    aten.softplus.default,
    aten.softshrink.default,
)
ARITHMETIC = (aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor)

# ---- reading ------------------------------------------------------------------------------------------------------


def enclosed(nodes: Iterable[Node]) -> tuple[Node, ...] | None:
    """Return nodes in order of execution; None where one ahead of the last has a reader outside of them."""
    ordered = sorted(set(nodes))
    inside = set(ordered)
    is_closed = all(reader in inside for node in ordered[:-1] for reader in node.users)
    return tuple(ordered) if is_closed else None


def is_plain(net: Net, node: Any) -> bool:
    """Return whether a value is a tensor in the network's own dtype, as the constants of a form are."""
    value = node.meta.get(VALUE) if isinstance(node, Node) else None
    return isinstance(value, Tensor) and value.dtype == net.dtype


def kernel_of(net: Net, node: Any, *targets: Any) -> Kernel | None:
    """Return the kernel of a convolution or fully connected layer that calls one of these; None for other nodes."""
    if not is_call(node, *targets or (CONVOLUTION, LINEAR)) or not net.is_linear(node) or not is_plain(net, node):
        return None
    kernel = net.kernel(node)
    return kernel if kernel.weight.dim() == 4 else None


def is_depthwise(net: Net, node: Node) -> bool:
    """Return whether a node is a convolution of one kernel a channel, whose kernel has more than one tap."""
    kernel = kernel_of(net, node, CONVOLUTION)
    return kernel is not None and is_channelwise(kernel) and kernel.size != (1, 1)


def is_channelwise(kernel: Kernel) -> bool:
    """Return whether each output channel reads the input channel of the same number alone."""
    return kernel.weight.shape[1] == 1 and kernel.groups == kernel.channels_out


def has_fixed_sizes(net: Net, node: Node) -> bool:
    """Return whether a tensor has no open axis but the first one."""
    return min(net.shape(node)[1:], default=0) > 0


def only_reader(node: Node, *targets: Any) -> Node | None:
    """Return the only reader of a node where it calls one of these operators."""
    reader = next(iter(node.users)) if len(node.users) == 1 else None
    return reader if is_call(reader, *targets) else None


def number_of(net: Net, value: Any) -> float | None:
    """Return a number that stands in a call, or the only one of a constant; None for other values."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    tensor = net.constant(value)
    return float(tensor) if tensor is not None and tensor.numel() == 1 and not tensor.is_meta else None


def operands(net: Net, node: Any, *targets: Any) -> tuple[Any, Any] | None:
    """Return the two operands of a sum, difference, product or quotient; None for other nodes."""
    if not is_call(node, *targets) or not is_plain(net, node) or node.kwargs.get("alpha", 1) != 1:
        return None
    return (node.args[0], node.args[1]) if len(node.args) == 2 else None


def with_number(net: Net, node: Any, *targets: Any) -> tuple[Node, float] | None:
    """Return (tensor, number) of a call on both, the number first only where that is the same; None for others."""
    pair = operands(net, node, *targets)
    if pair is None:
        return None
    commutes = is_call(node, aten.add.Tensor, aten.mul.Tensor)
    for source, value in (pair, pair[::-1]) if commutes else (pair,):
        number = number_of(net, value)
        if number is not None and is_plain(net, source) and net.constant(source) is None:
            return (source, number) if net.shape(source) == net.shape(node) else None
    return None


# ---- writing ------------------------------------------------------------------------------------------------------


def padded(net: Net, source: Node, padding: tuple[int, int], *, before: Node) -> Node:
    """Return maps (B, C, H, W) with zeros around them: so many rows and columns on either side."""
    rows, columns = padding
    if not rows and not columns:
        return source
    return net.call(aten.constant_pad_nd.default, source, [columns, columns, rows, rows], 0.0, before=before)


def cut(net: Net, source: Node, axis: int, start: int, stop: int, *, step: int = 1, before: Node) -> Node:
    """Return source[start:stop:step] along an axis, which is the tensor itself where that is all of it."""
    if start == 0 and step == 1 and stop >= net.shape(source)[axis]:
        return source
    steps = [step] if step > 1 else []
    return net.call(aten.slice.Tensor, source, axis, start, stop, *steps, before=before)


def reshaped(net: Net, source: Node, *sizes: int, before: Node) -> Node:
    """Return a tensor with these sizes behind the first axis, which takes all that is left."""
    shape = net.shape(source)
    return source if shape[1:] == sizes else net.call(aten.reshape.default, source, [-1, *sizes], before=before)


def swapped(net: Net, source: Node, first: int, second: int, *, before: Node) -> Node:
    """Return a tensor with two axes swapped."""
    return net.call(aten.transpose.int, source, first, second, before=before)


def joined(net: Net, parts: Sequence[Node], axis: int, *, before: Node) -> Node:
    """Return one or more tensors one behind the other along an axis."""
    return parts[0] if len(parts) == 1 else net.call(aten.cat.default, list(parts), axis, before=before)


def summed(net: Net, terms: Sequence[Node], *, before: Node) -> Node:
    """Return the sum of one or more tensors of one shape."""
    total = terms[0]
    for term in terms[1:]:
        total = net.call(aten.add.Tensor, total, term, before=before)
    return total


def projected(net: Net, source: Node, weight: Tensor, bias: Tensor | None, *, before: Node) -> Node:
    """Return a fully connected layer of a tensor (.., in): weight (out, in), bias (out,)."""
    constants = [None if tensor is None else net.add_constant(tensor, before=before) for tensor in (weight, bias)]
    return net.call(LINEAR, source, *constants, before=before)


def linear_as(net: Net, like: Node, source: Node, kernel: Kernel, *, before: Node) -> Node:
    """Return a kernel on a tensor as the operator that another node calls."""
    if is_call(like, LINEAR):
        return projected(net, source, kernel.weight[:, :, 0, 0], kernel.bias, before=before)
    return net.convolve(source, kernel, before=before)


def called(net: Net, operator: Any, *arguments: Any, before: Node) -> Node:
    """Return the result of an operator; tensors among the arguments become constants."""
    nodes = [net.add_constant(each, before=before) if isinstance(each, torch.Tensor) else each for each in arguments]
    return net.call(operator, *nodes, before=before)
