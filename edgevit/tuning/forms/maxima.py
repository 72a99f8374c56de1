"""Maxima over a short axis as one reduction, or as maxima of two of its slices."""

from __future__ import annotations

import operator
from typing import Any

from torch.fx import Node

from edgevit.folding.graph import Net, aten, is_call
from edgevit.tuning.form import Form
from edgevit.tuning.forms_parts import cut, enclosed, is_plain, reshaped

_MAXIMA = (aten.maximum.default, aten.max.other)
_MOST_SLICES = 8


def _tree(net: Net, node: Any) -> tuple[list[Node], list[Node]]:
    """Return the leaves of a tree of maxima of two, and its nodes."""
    if not is_call(node, *_MAXIMA) or not is_plain(net, node):
        return [node], []
    parts = [_tree(net, each) for each in node.args[:2]]
    return [*parts[0][0], *parts[1][0]], [*parts[0][1], *parts[1][1], node]


def _unbound(net: Net, node: Node) -> tuple[Node, tuple[Node, ...]] | None:
    """Return the unbind whose slices a tree of maxima reads, each once, and all nodes of both."""
    if not is_call(node, *_MAXIMA) or any(is_call(reader, *_MAXIMA) for reader in node.users):
        return None
    leaves, nodes = _tree(net, node)
    if not all(is_call(leaf, operator.getitem) for leaf in leaves):
        return None
    [unbind, *others] = dict.fromkeys(net.input(leaf) for leaf in leaves)
    if others or not is_call(unbind, aten.unbind.int):
        return None
    size = net.shape(net.input(unbind))[net.arguments(unbind)["dim"]]
    if sorted(int(leaf.args[1]) for leaf in leaves) != list(range(size)):  # type: ignore[arg-type]
        return None
    closed = enclosed([unbind, *leaves, *nodes])
    return None if closed is None else (unbind, closed)


def _reduced_nodes(net: Net, node: Node) -> tuple[Node, ...] | None:
    unbound = _unbound(net, node)
    return None if unbound is None else unbound[1]


def _write_reduced(net: Net, node: Node) -> Node:
    unbound = _unbound(net, node)
    assert unbound is not None
    unbind = unbound[0]
    return net.call(aten.amax.default, net.input(unbind), [net.arguments(unbind)["dim"]], before=node)


def _slices_nodes(net: Net, node: Node) -> tuple[Node, ...] | None:
    """Return an unbind and its tree of maxima along the second of four axes, or a maximum over that axis."""
    axis = _axis(net, node)
    return None if axis is None else (_reduced_nodes(net, node) or (node,))


def _axis(net: Net, node: Node) -> tuple[Node, int] | None:
    """Return the source and the axis of a maximum over few slices, which are not the images of a batch."""
    unbound = _unbound(net, node)
    if unbound is not None:
        source, axis = net.input(unbound[0]), net.arguments(unbound[0])["dim"]
    elif is_call(node, aten.amax.default) and is_plain(net, node) and len(net.arguments(node)["dim"]) == 1:
        if net.arguments(node)["keepdim"]:
            return None
        source, axis = net.input(node), net.arguments(node)["dim"][0]
    else:
        return None
    axis %= len(net.shape(source))
    fits = axis > 0 and 2 <= net.shape(source)[axis] <= _MOST_SLICES and min(net.shape(source)[1:]) > 0
    return (source, axis) if fits else None


def _write_slices(net: Net, node: Node) -> Node:
    reading = _axis(net, node)
    assert reading is not None
    source, axis = reading
    size = net.shape(source)[axis]
    parts = [cut(net, source, axis, i, i + 1, before=node) for i in range(size)]
    result = parts[0]
    for part in parts[1:]:
        result = net.call(aten.maximum.default, result, part, before=node)
    return reshaped(net, result, *net.shape(node)[1:], before=node)


FORMS = (
    Form("maxima_reduced", "maxima of slices of an axis as one reduction", _reduced_nodes, _write_reduced),
    Form("maxima_sliced", "maxima over a short axis as maxima of two slices", _slices_nodes, _write_slices),
)
