"""Grouped convolutions as one for each group, or as one dense convolution with zeros."""

from __future__ import annotations

import dataclasses

from torch.fx import Node

from edgevit.folding.graph import CONVOLUTION, Net
from edgevit.tuning.form import Form
from edgevit.tuning.forms_parts import cut, joined, kernel_of

# Above, a convolution for each group is too many operators, and a dense one too many multiplications.
_MOST_APART, _MOST_DENSE = 16, 8


def _nodes(most: int, net: Net, node: Node) -> tuple[Node, ...] | None:
    kernel = kernel_of(net, node, CONVOLUTION)
    return (node,) if kernel is not None and 1 < kernel.groups <= most else None


def _apart_nodes(net: Net, node: Node) -> tuple[Node, ...] | None:
    return _nodes(_MOST_APART, net, node)


def _dense_nodes(net: Net, node: Node) -> tuple[Node, ...] | None:
    return _nodes(_MOST_DENSE, net, node)


def _write_apart(net: Net, node: Node) -> Node:
    kernel, parts = net.kernel(node), list[Node]()
    inputs, outputs = kernel.weight.shape[1], kernel.channels_out // kernel.groups
    for group in range(kernel.groups):
        source = cut(net, net.input(node), 1, group * inputs, (group + 1) * inputs, before=node)
        channels = slice(group * outputs, (group + 1) * outputs)
        bias = None if kernel.bias is None else kernel.bias[channels]
        part = dataclasses.replace(kernel, weight=kernel.weight[channels], bias=bias, groups=1)
        parts.append(net.convolve(source, part, before=node))
    return joined(net, parts, 1, before=node)


def _write_dense(net: Net, node: Node) -> Node:
    return net.convolve(net.input(node), net.kernel(node).dense(), before=node)


FORMS = (
    Form("groups_apart", "grouped convolutions as a convolution for each group", _apart_nodes, _write_apart),
    Form("groups_dense", "grouped convolutions as a dense one with zeros", _dense_nodes, _write_dense),
)
