"""Spellings of int8 numbers in a graph that several converters need. These functions run on the host, with torch."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from edgevit_runtime.silence_converters import quiet


def float_weights(model: Any) -> Any:
    """Return the model with each weight in int8 as one in float that is quantized and dequantized on the way.

    Some converters have an operator for both steps together, and none for a weight that comes as int8. The numbers are
    the same: each weight is on its grid.
    """
    operators = _operators()
    copied = _copy(model)
    for net in _nets(copied):
        for node in _dequantized_weights(net):
            with net.graph.inserting_before(node):
                weight = _float_weight(net, node)
                quantized = net.graph.call_function(operators.quantize_per_channel.default, (weight, *node.args[1:]))
            node.replace_input_with(node.args[0], quantized)
        net.graph.eliminate_dead_code()
        net.recompile()
    return copied


def one_reader_each(model: Any) -> Any:
    """Return the model with a step to float for each reader of an activation in int8, where several had one in common.

    Converters divide a graph by what a part computes, or by the order of its axes. A step that two parts share belongs
    to one of them then, and the other one gets what it does not expect.
    """
    target = _operators().dequantize_per_tensor.default
    copied = _copy(model)
    for net in _nets(copied):
        for node in net.graph.find_nodes(op="call_function", target=target):
            for reader in list(node.users)[1:]:
                with net.graph.inserting_before(reader):
                    reader.replace_input_with(node, net.graph.node_copy(node))
        net.recompile()
    return copied


def plain_arithmetic(model: Any) -> Any:
    """Return the model with int8 numbers in float: scaled, rounded and clipped by plain operators.

    It computes the same numbers as the model, for converters that know nothing of quantizations.
    """
    import torch

    aten, operators = torch.ops.aten, _operators()
    copied = _copy(model)
    for net in _nets(copied):

        def call(target: Any, *inputs: Any, graph: Any = net.graph) -> Any:
            return graph.call_function(target, inputs)

        for node in _dequantized_weights(net):
            with net.graph.inserting_before(node):
                node.replace_all_uses_with(_float_weight(net, node))
        for node in net.graph.find_nodes(op="call_function", target=operators.quantize_per_tensor.default):
            values, scale, zero_point, lowest, highest, _ = node.args
            with net.graph.inserting_before(node):
                steps = call(aten.round.default, call(aten.mul.Tensor, values, 1.0 / scale))
                steps = call(aten.add.Tensor, steps, zero_point) if zero_point else steps
                node.replace_all_uses_with(call(aten.clamp.default, steps, lowest, highest))
        for node in net.graph.find_nodes(op="call_function", target=operators.dequantize_per_tensor.default):
            steps, scale, zero_point = node.args[:3]
            with net.graph.inserting_before(node):
                steps = call(aten.sub.Tensor, steps, zero_point) if zero_point else steps
                node.replace_all_uses_with(call(aten.mul.Tensor, steps, scale))
        net.graph.eliminate_dead_code()
        net.recompile()
    return copied


@dataclass(frozen=True, eq=False)
class Int8Weight:
    """A weight of a layer in int8: steps of the weight's shape, scales of its output channels, and their product."""

    steps: Any
    scales: Any
    product: Any


def int8_weights(model: Any) -> list[Int8Weight]:
    """Return the weights in int8, once for each layer that reads one. Output channels are along the first axis."""
    weights = []
    for net in _nets(model):
        for node in _dequantized_weights(net):
            if node.args[3] != 0:
                raise RuntimeError(f"{node.args[0].target} has its scales along axis {node.args[3]}")
            steps, scales = (_attribute(net, each.target) for each in node.args[:2])
            weights += [Int8Weight(steps, scales, _product(net, node))] * len(node.users)
    return weights


def _copy(model: Any) -> Any:
    with quiet():
        return copy.deepcopy(model)


def _operators() -> Any:
    import torch
    from torch.ao.quantization.fx import _decomposed  # noqa: F401, which registers the operators

    return torch.ops.quantized_decomposed


def _nets(model: Any) -> list[Any]:
    import torch

    return [module for module in model.modules() if isinstance(module, torch.fx.GraphModule)]


def _dequantized_weights(net: Any) -> Iterator[Any]:
    """Yield the nodes that make a weight in float of one in int8."""
    target = _operators().dequantize_per_channel.default
    for node in net.graph.find_nodes(op="call_function", target=target):
        if node.args[0].op == "get_attr":
            yield node


def _float_weight(net: Any, node: Any) -> Any:
    """Add a constant with the product of a weight's steps and scales."""
    name = f"{str(node.args[0].target).replace('.', '_')}_in_float"
    net.register_buffer(name, _product(net, node))
    return net.graph.get_attr(name)


def _product(net: Any, node: Any) -> Any:
    steps, scales, zeros = (_attribute(net, each.target) for each in node.args[:3])
    shape = [-1 if dim == node.args[3] else 1 for dim in range(steps.dim())]
    return (steps.float() - zeros.reshape(shape)) * scales.reshape(shape)


def _attribute(net: Any, target: str) -> Any:
    for part in target.split("."):
        net = getattr(net, part)
    return net
