"""Strided 1x1 convolutions as a slice of the pixels that they read and a 1x1 convolution of these."""

from __future__ import annotations

import dataclasses

from torch.fx import Node

from edgevit.folding.graph import CONVOLUTION, Net
from edgevit.tuning.form import Form
from edgevit.tuning.forms_parts import cut, kernel_of


def _nodes(net: Net, node: Node) -> tuple[Node, ...] | None:
    kernel = kernel_of(net, node, CONVOLUTION)
    if kernel is None or kernel.size != (1, 1) or kernel.stride == (1, 1) or kernel.padded:
        return None
    return (node,)


def _write(net: Net, node: Node) -> Node:
    kernel, source = net.kernel(node), net.input(node)
    for axis, stride in zip((2, 3), kernel.stride, strict=True):
        source = cut(net, source, axis, 0, net.shape(source)[axis], step=stride, before=node)
    return net.convolve(source, dataclasses.replace(kernel, stride=(1, 1)), before=node)


FORMS = (Form("strided_pointwise_sliced", "strided 1x1 convolutions as a slice and a 1x1 convolution", _nodes, _write),)
