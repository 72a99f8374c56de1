"""Placement: which operators of a network run in int8, and which of its tensors are int8 there.

A tensor is int8 for all its readers where an int8 kernel makes it; otherwise for int8 readers alone. Operators that
only move numbers pass them on as they are, on the same grid.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import cast

from torch import Tensor
from torch.fx import Graph, Node

from edgevit.folding.graph import LINEAR, TRANSPOSED, WEIGHTED, arguments, aten, is_call
from edgevit.folding.layout import ALL_MOVES
from edgevit.folding.values import VALUE
from edgevit_runtime.dialect import Dialect, Kind

# Operators whose results are numbers of their first argument, zeros aside.
_MOVES = (*ALL_MOVES, aten.max_pool1d.default, aten.max_pool2d.default, aten.max_pool3d.default)
# Activations that clip: an int8 kernel computes them by the ends of its grid.
_CLIPS = (aten.relu.default, aten.relu6.default, aten.hardtanh.default, aten.clamp.default)


@dataclass(frozen=True)
class Placement:
    """The operators that run in int8 with their kinds, and the int8 tensors.

    results: the tensors that int8 kernels make. edges: tensors that something else makes, with their int8 readers.
    """

    operators: dict[Node, Kind]
    results: tuple[Node, ...]
    edges: dict[Node, tuple[Node, ...]]


def place(graph: Graph, dialect: Dialect, excluded: Collection[str] = ()) -> Placement:
    """Return where a dialect's int8 numbers are in a graph; `excluded` names operators that stay in float.

    With activations in float, the operators are those whose weights are int8.
    """
    operators: dict[Node, Kind] = {}
    results: dict[Node, None] = {}
    edges: dict[Node, list[Node]] = {}
    for node in graph.nodes:
        kind = kind_of(node)
        if kind is None or not _has_kernel(node, kind, dialect) or node.name in excluded:
            continue
        if dialect.activations == "float":
            if kind != "add":
                operators[node] = kind
            continue
        operands = operands_of(node, kind)
        # A sum in int8 of numbers in float would cost more than it saves.
        if kind == "add" and not all(source_of(operand) in results for operand in operands):
            continue
        operators[node] = kind
        for operand in operands:
            if operand not in results:
                edges.setdefault(operand, []).append(node)
        end = end_of(node)
        if kind in dialect.requantized and not (dialect.ends_in_float and _is_output(end)):
            results[end] = None
    return Placement(operators, tuple(results), {tensor: tuple(readers) for tensor, readers in edges.items()})


def kind_of(node: Node) -> Kind | None:
    """Return the kind of an operator that may run in int8; None for others and for weights that are computed."""
    if is_call(node, aten.add.Tensor):
        return "add" if _is_plain_sum(node) else None
    if not is_call(node, *WEIGHTED) or WEIGHTED[node.target] not in (0, _rank(node)):  # type: ignore[index]
        return None
    named = arguments(node)
    if any(isinstance(named[name], Node) and named[name].op != "get_attr" for name in ("weight", "bias")):
        return None
    if is_call(node, LINEAR):
        return "linear"
    if is_call(node, *TRANSPOSED):
        return "transposed"
    if named["groups"] == 1:
        return "convolution"
    return "depthwise" if named["weight"].meta[VALUE].shape[1] == 1 else "grouped"


def _has_kernel(node: Node, kind: Kind, dialect: Dialect) -> bool:
    """Return whether an engine computes an operator in int8."""
    is_of_maps = kind not in ("linear", "add")
    return kind in dialect.operators and not (is_of_maps and _rank(node) - 2 not in dialect.maps)


def _is_plain_sum(node: Node) -> bool:
    """Return whether a node adds two activations of one shape."""
    shapes = [
        operand.meta[VALUE].shape
        for operand in node.args[:2]
        if isinstance(operand, Node) and operand.op != "get_attr" and isinstance(operand.meta.get(VALUE), Tensor)
    ]
    return len(shapes) == 2 and tuple(shapes[0]) == tuple(shapes[1]) and node.kwargs.get("alpha", 1) in (1, 1.0)


def _rank(node: Node) -> int:
    return len(node.meta[VALUE].shape)


def operands_of(node: Node, kind: Kind) -> tuple[Node, ...]:
    """Return the activations that an operator reads."""
    return cast(tuple[Node, ...], node.args[:2] if kind == "add" else node.args[:1])


def source_of(tensor: Node) -> Node:
    """Return the tensor whose numbers a tensor has, only moved or selected; the tensor itself if it has its own."""
    while is_call(tensor, *_MOVES) and isinstance(first := tensor.args[0], Node):
        tensor = first
    return tensor


def end_of(node: Node) -> Node:
    """Return the tensor that an int8 kernel gives in place of a node's: behind an activation that clips, if alone."""
    reader = next(iter(node.users), None)
    return reader if reader is not None and len(node.users) == 1 and is_call(reader, *_CLIPS) else node


def _is_output(tensor: Node) -> bool:
    """Return whether a tensor leaves the network, and nothing but moves reads it before."""
    return all(user.op == "output" or (is_call(user, *_MOVES) and _is_output(user)) for user in tensor.users)


def input_axis(node: Node, kind: Kind) -> int:
    """Return the axis of the channels that a layer reads; for sums that of a map's."""
    if kind == "linear":
        return _rank(node.all_input_nodes[0]) - 1
    return 1 if kind != "add" else channel_axis(node)


def channel_axis(node: Node) -> int:
    """Return the axis of a tensor's channels where no reader states one: 1 of maps, otherwise the last."""
    rank = _rank(node)
    return 1 if rank == 4 else max(rank - 1, 0)


def watched(graph: Graph) -> set[tuple[str, int]]:
    """Return the tensors that any dialect may need the range of, each with the axis of its channels."""
    return set(_watched(graph))


def _watched(graph: Graph) -> Iterator[tuple[str, int]]:
    for node in graph.nodes:
        kind = kind_of(node)
        if kind is not None:
            for operand in operands_of(node, kind):
                yield operand.name, input_axis(node, kind)
                source = source_of(operand)
                yield source.name, channel_axis(source)
            end = end_of(node)
            yield end.name, channel_axis(end)
