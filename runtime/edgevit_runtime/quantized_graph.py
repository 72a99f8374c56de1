"""Spellings of int8 numbers in a graph that several converters need. These functions run on the host, with torch."""

from __future__ import annotations

import copy
from typing import Any


def float_weights(model: Any) -> Any:
    """Return the model with each weight in int8 as one in float that is quantized and dequantized on the way.

    Some converters have an operator for both steps together, and none for a weight that comes as int8. The numbers are
    the same: each weight is on its grid.
    """
    import torch
    from torch.ao.quantization.fx import _decomposed  # noqa: F401, which registers the operators

    operators = torch.ops.quantized_decomposed
    copied = copy.deepcopy(model)
    for net in [module for module in copied.modules() if isinstance(module, torch.fx.GraphModule)]:
        for node in list(net.graph.nodes):
            if node.target is not operators.dequantize_per_channel.default or node.args[0].op != "get_attr":
                continue
            steps, scales, zeros = (_attribute(net, each.target) for each in node.args[:3])
            axis = node.args[3]
            shape = [-1 if dim == axis else 1 for dim in range(steps.dim())]
            name = f"{str(node.args[0].target).replace('.', '_')}_in_float"
            net.register_buffer(name, (steps.float() - zeros.reshape(shape)) * scales.reshape(shape))
            with net.graph.inserting_before(node):
                weight = net.graph.get_attr(name)
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
    import torch
    from torch.ao.quantization.fx import _decomposed  # noqa: F401, which registers the operators

    copied = copy.deepcopy(model)
    for net in [module for module in copied.modules() if isinstance(module, torch.fx.GraphModule)]:
        for node in list(net.graph.nodes):
            if node.target is torch.ops.quantized_decomposed.dequantize_per_tensor.default:
                for reader in list(node.users)[1:]:
                    with net.graph.inserting_before(reader):
                        reader.replace_input_with(node, net.graph.node_copy(node))
        net.recompile()
    return copied


def _attribute(net: Any, target: str) -> Any:
    for part in target.split("."):
        net = getattr(net, part)
    return net
