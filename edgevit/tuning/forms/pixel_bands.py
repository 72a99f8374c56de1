"""Layers of single pixels or tokens in sequence, in bands, so that the numbers between them stay in a cache."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

from torch.fx import Node

from edgevit.folding.graph import CONVOLUTION, LINEAR, Net, is_call
from edgevit.tuning.form import Form
from edgevit.tuning.forms_parts import (
    ELEMENTWISE,
    cut,
    enclosed,
    has_fixed_sizes,
    is_plain,
    joined,
    kernel_of,
    linear_as,
)


def _source(net: Net, node: Any) -> Node | None:
    """Return what a step of a chain computes its pixels from; None for other nodes."""
    if not is_plain(net, node) or len(net.shape(node)) not in (3, 4):
        return None
    kernel = kernel_of(net, node)
    is_layer = kernel is not None and kernel.pointwise
    return net.input(node) if is_layer or is_call(node, *ELEMENTWISE) else None


def _chain(net: Net, node: Node) -> list[Node]:
    """Return the longest chain that ends in a node, from its first layer on; empty without two layers of one kind."""
    chain: list[Node] = []
    while (source := _source(net, node)) is not None:
        chain.insert(0, node)
        if len(source.users) > 1:
            break
        node = source
    while chain and is_call(chain[0], *ELEMENTWISE):
        chain.pop(0)
    layers = [step.target for step in chain if is_call(step, CONVOLUTION, LINEAR)]
    return chain if len(layers) > 1 and len(set(layers)) == 1 else []


def _axis(net: Net, chain: list[Node]) -> int:
    """Return the axis of rows of pixels, or of tokens."""
    return 2 if net.channel_axis(chain[0]) == 1 else 1


def _band(net: Net, chain: list[Node], limit: int) -> int:
    """Return the rows of a band, whose largest tensor has about so many bytes, at one image."""
    axis = _axis(net, chain)
    rows = net.shape(chain[0])[axis]
    widest = max(math.prod(net.shape(step)[1:]) for step in chain) * net.dtype.itemsize
    bands = -(-widest // limit)
    return max(1, -(-rows // bands))


def _nodes(limit: int, net: Net, node: Node) -> tuple[Node, ...] | None:
    chain = _chain(net, node)
    readers = list(node.users)
    goes_on = len(readers) == 1 and _source(net, readers[0]) is node
    if not chain or goes_on or not all(has_fixed_sizes(net, step) for step in chain):
        return None
    is_large = _band(net, chain, limit) < net.shape(chain[0])[_axis(net, chain)]
    return enclosed(chain) if is_large else None


def _write(limit: int, net: Net, node: Node) -> Node:
    chain = _chain(net, node)
    axis, size = _axis(net, chain), _band(net, chain, limit)
    source, parts = net.input(chain[0]), list[Node]()
    for start in range(0, net.shape(source)[axis], size):
        part = cut(net, source, axis, start, min(start + size, net.shape(source)[axis]), before=node)
        for step in chain:
            kernel = kernel_of(net, step)
            part = (
                net.call(step.target, part, *step.args[1:], before=node, **step.kwargs)  # type: ignore[arg-type]
                if kernel is None
                else linear_as(net, step, part, kernel, before=node)
            )
        parts.append(part)
    return joined(net, parts, axis, before=node)


FORMS = tuple(
    Form(
        f"pixel_bands_{kilobytes}kb",
        f"layers of single pixels or tokens in sequence, in bands of {kilobytes} KB",
        partial(_nodes, kilobytes << 10),
        partial(_write, kilobytes << 10),
    )
    for kilobytes in (256, 1024)
)
