"""The zeros around a map: inside of the convolution that reads them, or an operator of their own."""

from __future__ import annotations

import dataclasses
from typing import Any

from torch.fx import Node

from edgevit.folding.graph import CONVOLUTION, Net, aten, is_call
from edgevit.tuning.form import Form
from edgevit.tuning.forms_parts import enclosed, is_plain, kernel_of, number_of, padded


def _outside_nodes(net: Net, node: Node) -> tuple[Node, ...] | None:
    kernel = kernel_of(net, node, CONVOLUTION)
    return (node,) if kernel is not None and kernel.padded else None


def _write_outside(net: Net, node: Node) -> Node:
    kernel = net.kernel(node)
    source = padded(net, net.input(node), kernel.padding, before=node)
    return net.convolve(source, dataclasses.replace(kernel, padding=(0, 0)), before=node)


def _zeros_around(net: Net, node: Any) -> tuple[int, int] | None:
    """Return the rows and columns of zeros that a node adds on either side of maps; None for other nodes."""
    if not is_call(node, aten.constant_pad_nd.default, aten.pad.default) or not is_plain(net, node):
        return None
    named = net.arguments(node)
    is_constant = named.get("mode", "constant") == "constant"
    pads = [*named["pad"], 0, 0, 0, 0][:4]
    if not is_constant or len(net.shape(node)) != 4 or any(named["pad"][4:]) or number_of(net, named["value"] or 0):
        return None
    left, right, top, bottom = pads
    return (top, left) if (top, left) == (bottom, right) and min(pads) >= 0 and any(pads) else None


def _inside_nodes(net: Net, node: Node) -> tuple[Node, ...] | None:
    if kernel_of(net, node, CONVOLUTION) is None or _zeros_around(net, node.args[0]) is None:
        return None
    return enclosed([net.input(node), node])


def _write_inside(net: Net, node: Node) -> Node:
    pad, kernel = net.input(node), net.kernel(node)
    zeros = _zeros_around(net, pad)
    assert zeros is not None
    padding = (kernel.padding[0] + zeros[0], kernel.padding[1] + zeros[1])
    return net.convolve(net.input(pad), dataclasses.replace(kernel, padding=padding), before=node)


FORMS = (
    Form("padding_outside", "padding of convolutions as an operator of its own", _outside_nodes, _write_outside),
    Form("padding_inside", "zeros ahead of a convolution as its own padding", _inside_nodes, _write_inside),
)
