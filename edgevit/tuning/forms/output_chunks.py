"""Wide 1x1 convolutions and fully connected layers in chunks of their outputs, so that weights stay in a cache.

The chunks stay apart through the operators behind them that compute each channel alone. They are joined where a reader
mixes channels, or the next layer reads each of them and its results are summed.
"""

from __future__ import annotations

import dataclasses
from functools import partial

from torch.fx import Node

from edgevit.folding.graph import CONVOLUTION, Net, aten, is_call
from edgevit.folding.kernel import Kernel
from edgevit.tuning.form import Form
from edgevit.tuning.forms_parts import (
    ARITHMETIC,
    ELEMENTWISE,
    enclosed,
    is_channelwise,
    is_plain,
    joined,
    kernel_of,
    linear_as,
    summed,
)

# Engines compute so many channels at a time.
_MULTIPLE = 16
_POOLS = (
    aten.max_pool2d.default,
    aten.avg_pool2d.default,
    aten.adaptive_avg_pool2d.default,
    aten.constant_pad_nd.default,
)
_FLATTEN = aten.flatten.using_ints


def _chunk(net: Net, kernel: Kernel, limit: int) -> int:
    """Return the channels of a chunk whose weights fill about so many bytes; all of them where one is enough."""
    total = kernel.weight.numel() * net.dtype.itemsize
    even = -(-kernel.channels_out // -(-total // limit))
    return min(kernel.channels_out, -(-even // _MULTIPLE) * _MULTIPLE)


def _is_wide(net: Net, node: Node, limit: int) -> bool:
    kernel = kernel_of(net, node)
    is_product = kernel is not None and kernel.pointwise and kernel.groups == 1
    return is_product and kernel is not None and _chunk(net, kernel, limit) < kernel.channels_out


def _keeps_channels(net: Net, node: Node, source: Node, axis: int) -> bool:
    """Return whether a node computes each channel of a tensor alone, along the same axis."""
    if not is_plain(net, node) or not is_plain(net, source) or node.all_input_nodes[0] is not source:
        return False
    rank = len(net.shape(source))
    if is_call(node, *ELEMENTWISE):
        return True
    if is_call(node, *ARITHMETIC):
        others = node.all_input_nodes[1:]
        return net.shape(node) == net.shape(source) and all(net.constant(other) is not None for other in others)
    if axis != 1 or rank != 4:
        return False
    kernel = kernel_of(net, node, CONVOLUTION)
    if kernel is not None:
        return is_channelwise(kernel)
    if is_call(node, aten.mean.dim):
        return {dim % rank for dim in net.arguments(node)["dim"] or ()} == {2, 3}
    if is_call(node, _FLATTEN):
        return net.shape(source)[2:] == (1, 1) and net.shape(node)[1:] == net.shape(source)[1:2]
    spatial_only = not is_call(node, aten.constant_pad_nd.default) or len(net.arguments(node)["pad"]) <= 4
    return is_call(node, *_POOLS) and spatial_only


def _chain(net: Net, node: Node, limit: int) -> list[Node] | None:
    """Return a wide layer and the operators behind it up to this node; None where there is no such layer."""
    chain = [node]
    while not _is_wide(net, chain[0], limit):
        # A constant may be the first operand, so the source is the one that is computed.
        sources = [source for source in chain[0].all_input_nodes if source.op == "call_function"]
        if len(sources) != 1 or len(sources[0].users) != 1:
            return None
        chain.insert(0, sources[0])
        if len(chain) > _LONGEST:
            return None
    axis = net.channel_axis(chain[0])
    steps = zip(chain[1:], chain, strict=False)
    return chain if all(_keeps_channels(net, step, source, axis) for step, source in steps) else None


# Operators between a layer and its reader; a chain that is longer ends nowhere near.
_LONGEST = 12


def _reader(net: Net, chain: list[Node]) -> Node | None:
    """Return the only reader of a chain's end where it is a layer that reads all channels once."""
    end = chain[-1]
    reader = next(iter(end.users)) if len(end.users) == 1 else None
    kernel = kernel_of(net, reader)
    if reader is None or kernel is None or kernel.groups != 1 or reader.args[0] is not end:
        return None
    return reader if net.channel_axis(reader) == net.channel_axis(chain[0]) else None


def _joined_nodes(limit: int, net: Net, node: Node) -> tuple[Node, ...] | None:
    chain = _chain(net, node, limit) if node.op == "call_function" and is_plain(net, node) else None
    if chain is None:
        return None
    readers, axis = list(node.users), net.channel_axis(chain[0])
    # The chunks go on as far as they can.
    goes_on = len(readers) == 1 and len(chain) < _LONGEST and _keeps_channels(net, readers[0], node, axis)
    return None if goes_on else enclosed(chain)


def _summed_nodes(limit: int, net: Net, node: Node) -> tuple[Node, ...] | None:
    if kernel_of(net, node) is None or not isinstance(node.args[0], Node) or node.args[0].op != "call_function":
        return None
    chain = _chain(net, node.args[0], limit)
    return None if chain is None or _reader(net, chain) is not node else enclosed([*chain, node])


def _chunks(limit: int, net: Net, chain: list[Node], before: Node) -> list[tuple[int, int, Node]]:
    """Return (first channel, end, result) of each chunk of a chain."""
    first, axis = chain[0], net.channel_axis(chain[0])
    kernel = net.kernel(first)
    size, chunks = _chunk(net, kernel, limit), []
    for start in range(0, kernel.channels_out, size):
        stop = min(start + size, kernel.channels_out)
        bias = None if kernel.bias is None else kernel.bias[start:stop]
        part = dataclasses.replace(kernel, weight=kernel.weight[start:stop], bias=bias)
        result = linear_as(net, first, net.input(first), part, before=before)
        for step, source in zip(chain[1:], chain, strict=False):
            result = _step(net, step, source, result, axis, (start, stop), before)
        chunks.append((start, stop, result))
    return chunks


def _step(net: Net, step: Node, source: Node, chunk: Node, axis: int, channels: tuple[int, int], before: Node) -> Node:
    """Return what a step computes of some channels."""
    kernel = kernel_of(net, step, CONVOLUTION)
    start, stop = channels
    if kernel is not None:
        bias = None if kernel.bias is None else kernel.bias[start:stop]
        part = dataclasses.replace(kernel, weight=kernel.weight[start:stop], bias=bias, groups=stop - start)
        return net.convolve(chunk, part, before=before)
    arguments = [chunk if argument is source else argument for argument in step.args]
    for i, argument in enumerate(arguments):
        constant = net.constant(argument)
        along = -1 if constant is None else axis - len(net.shape(source)) + constant.dim()
        if constant is not None and along >= 0 and constant.shape[along] > 1:
            arguments[i] = net.add_constant(constant.narrow(along, start, stop - start), before=before)
    return net.call(step.target, *arguments, before=before, **step.kwargs)  # type: ignore[arg-type]


def _write_joined(limit: int, net: Net, node: Node) -> Node:
    chain = _chain(net, node, limit)
    assert chain is not None
    parts = [result for _, _, result in _chunks(limit, net, chain, node)]
    axis = net.channel_axis(chain[0])
    return joined(net, parts, axis, before=node)


def _write_summed(limit: int, net: Net, node: Node) -> Node:
    chain = _chain(net, net.input(node), limit)
    assert chain is not None
    kernel, terms = net.kernel(node), list[Node]()
    for start, stop, result in _chunks(limit, net, chain, node):
        bias = None if terms else kernel.bias
        part = dataclasses.replace(kernel, weight=kernel.weight[:, start:stop], bias=bias)
        terms.append(linear_as(net, node, result, part, before=node))
    return summed(net, terms, before=node)


FORMS = tuple(
    form
    for megabytes in (1, 2)
    for form in (
        Form(
            f"output_chunks_{megabytes}mb",
            f"wide 1x1 layers in chunks of {megabytes} MB of weights, joined where channels mix",
            partial(_joined_nodes, megabytes << 20),
            partial(_write_joined, megabytes << 20),
        ),
        Form(
            f"output_chunks_{megabytes}mb_summed",
            f"wide 1x1 layers in chunks of {megabytes} MB of weights, summed by the next layer",
            partial(_summed_nodes, megabytes << 20),
            partial(_write_summed, megabytes << 20),
        ),
    )
)
