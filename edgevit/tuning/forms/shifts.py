"""Rolls of one axis as slices, as a gather, and slices as a roll; gathers of few runs as slices."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor
from torch.fx import Node

from edgevit.folding.graph import Net, aten, is_call
from edgevit.tuning.form import Form
from edgevit.tuning.forms_parts import called, cut, enclosed, is_plain, joined

_MOST_RUNS = 8


def _axis_and_shift(net: Net, node: Node) -> tuple[int, int] | None:
    """Return the only axis of a roll, and its shift in 1 .. size - 1; None for other calls."""
    if not is_call(node, aten.roll.default) or not is_plain(net, node):
        return None
    named = net.arguments(node)
    if len(named["dims"]) != 1 or len(named["shifts"]) != 1:
        return None
    axis = named["dims"][0] % len(net.shape(node))
    size = net.shape(node)[axis]
    # The open axis is the batch.
    return (axis, named["shifts"][0] % size) if size > 0 and named["shifts"][0] % size else None


def _roll_nodes(net: Net, node: Node) -> tuple[Node, ...] | None:
    return None if _axis_and_shift(net, node) is None else (node,)


def _write_slices(net: Net, node: Node) -> Node:
    reading = _axis_and_shift(net, node)
    assert reading is not None
    axis, shift = reading
    size, source = net.shape(node)[axis], net.input(node)
    last = cut(net, source, axis, size - shift, size, before=node)
    return joined(net, [last, cut(net, source, axis, 0, size - shift, before=node)], axis, before=node)


def _write_gather(net: Net, node: Node) -> Node:
    reading = _axis_and_shift(net, node)
    assert reading is not None
    axis, shift = reading
    index = torch.arange(net.shape(node)[axis], device=net.device).roll(shift)
    return called(net, aten.index_select.default, net.input(node), axis, index, before=node)


# ---- a roll that is spelled ---------------------------------------------------------------------------------------


def _spelled(net: Net, node: Node) -> tuple[Node, int, int] | None:
    """Read cat(x[size - shift:], x[:size - shift]) as (x, axis, shift)."""
    if not is_call(node, aten.cat.default) or not is_plain(net, node):
        return None
    named = net.arguments(node)
    axis, parts = named["dim"] % len(net.shape(node)), named["tensors"]
    if len(parts) != 2 or not all(is_call(part, aten.slice.Tensor) and is_plain(net, part) for part in parts):
        return None
    (source, first), (other, second) = ((net.input(part), _range(net, part, axis)) for part in parts)
    if source is not other or first is None or second is None:
        return None
    size = net.shape(source)[axis]
    wraps = second[0] == 0 and first == (second[1], size)
    return (source, axis, size - second[1]) if wraps else None


def _range(net: Net, node: Node, axis: int) -> tuple[int, int] | None:
    """Return (start, stop) of a slice along an axis of fixed size, or None."""
    named, size = net.arguments(node), net.shape(net.input(node))[axis]
    bounds = [0 if named["start"] is None else named["start"], size if named["end"] is None else named["end"]]
    if named["dim"] % len(net.shape(node)) != axis or named["step"] != 1 or size <= 0:
        return None
    if not all(isinstance(bound, int) for bound in bounds):
        return None
    start, stop = (min(max(bound + size if bound < 0 else bound, 0), size) for bound in bounds)
    return (start, stop) if start < stop else None


def _spelled_nodes(net: Net, node: Node) -> tuple[Node, ...] | None:
    return None if _spelled(net, node) is None else enclosed([*node.all_input_nodes, node])


def _write_roll(net: Net, node: Node) -> Node:
    reading = _spelled(net, node)
    assert reading is not None
    source, axis, shift = reading
    return net.call(aten.roll.default, source, [shift], [axis], before=node)


# ---- gathers ------------------------------------------------------------------------------------------------------


def _runs(index: Tensor) -> list[tuple[int, int]]:
    """Return (start, stop) of the runs of consecutive numbers in an index."""
    ends = (index[1:] != index[:-1] + 1).nonzero().flatten() + 1
    bounds = [0, *ends.tolist(), len(index)]
    return [(int(index[a]), int(index[b - 1]) + 1) for a, b in itertools.pairwise(bounds)]


def _gather(net: Net, node: Node) -> tuple[int, list[tuple[int, int]]] | None:
    """Return the axis and the runs of a gather by a constant index, where they are few."""
    if not is_call(node, aten.index_select.default) or not is_plain(net, node):
        return None
    named = net.arguments(node)
    axis, index = named["dim"] % len(net.shape(node)), net.constant(named["index"])
    if index is None or index.is_meta or index.dim() != 1 or not len(index) or net.shape(net.input(node))[axis] <= 0:
        return None
    runs = _runs(index)
    return (axis, runs) if len(runs) <= _MOST_RUNS else None


def _gather_nodes(net: Net, node: Node) -> tuple[Node, ...] | None:
    return None if _gather(net, node) is None else (node,)


def _write_runs(net: Net, node: Node) -> Node:
    reading = _gather(net, node)
    assert reading is not None
    axis, runs = reading
    parts = [cut(net, net.input(node), axis, start, stop, before=node) for start, stop in runs]
    return joined(net, parts, axis, before=node)


FORMS = (
    Form("roll_sliced", "rolls as two slices, joined", _roll_nodes, _write_slices),
    Form("roll_gathered", "rolls as gathers", _roll_nodes, _write_gather),
    Form("slices_rolled", "two slices joined the other way round as a roll", _spelled_nodes, _write_roll),
    Form("gather_sliced", "gathers of few runs as slices, joined", _gather_nodes, _write_runs),
)
