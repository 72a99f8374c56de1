"""Placement: which operators of a network run in int8, and which of its tensors are int8 there.

A tensor is int8 for all its readers where an int8 kernel makes it; otherwise for int8 readers alone. Operators that
only move numbers pass them on as they are, on the same grid. Some engines average and join numbers on one grid, too.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any, cast

from torch import Tensor
from torch.fx import Graph, Node

from edgevit.folding.graph import LINEAR, TRANSPOSED, WEIGHTED, arguments, aten, is_call, pair
from edgevit.folding.layout import ALL_MOVES
from edgevit.folding.values import VALUE
from edgevit_runtime.dialect import Dialect, Keeper, Kind

# Operators whose results are numbers of their first argument, zeros aside.
_MOVES = (*ALL_MOVES, aten.max_pool1d.default, aten.max_pool2d.default, aten.max_pool3d.default)
# Activations that clip: an int8 kernel computes them by the ends of its grid.
_CLIPS = (aten.relu.default, aten.relu6.default, aten.hardtanh.default, aten.clamp.default)
_KEEPERS: dict[Keeper, tuple[Any, ...]] = {
    "uneven_average": (
        aten.avg_pool1d.default,
        aten.avg_pool2d.default,
        aten.adaptive_avg_pool2d.default,
    ),
    "clip": _CLIPS,
    "concatenation": (aten.cat.default,),
    "resize": (aten.upsample_bilinear2d.vec, aten.upsample_bilinear2d.default),
}


@dataclass(frozen=True)
class Placement:
    """The operators that run in int8 with their kinds, and the int8 tensors.

    results: the tensors that int8 kernels make. edges: tensors that something else makes, with their int8 readers.
    joined: concatenations in int8 whose operands have to be on their grids. sources: results that have the grid of
    another tensor, and that tensor.
    """

    operators: dict[Node, Kind]
    results: tuple[Node, ...]
    edges: dict[Node, tuple[Node, ...]]
    joined: tuple[Node, ...] = ()
    sources: dict[Node, Node] = field(default_factory=dict)


def place(graph: Graph, dialect: Dialect, excluded: Collection[str] = ()) -> Placement:
    """Return where a dialect's int8 numbers are in a graph; `excluded` names operators that stay in float.

    With activations in float, the operators are those whose weights are int8.
    """
    operators: dict[Node, Kind] = {}
    results: dict[Node, None] = {}
    edges: dict[Node, list[Node]] = {}
    joined: list[Node] = []
    sources: dict[Node, Node] = {}
    for node in graph.nodes:
        keeper = _keeper(node, dialect, results, excluded)
        if keeper == "concatenation":
            joined += [] if dialect.aligns else [node]
            results[node] = None
        elif keeper:
            source = source_of(node.args[0])
            if source not in results:
                source = node.args[0]
                edges.setdefault(source, []).append(node)
            # The kernel clips, too, on this grid.
            sources[end_of(node)] = sources.get(source, source)
            results[end_of(node)] = None
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
    readers = {tensor: tuple(readers) for tensor, readers in edges.items()}
    return Placement(operators, tuple(results), readers, tuple(joined), sources)


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


def _keeper(node: Node, dialect: Dialect, results: Collection[Node], excluded: Collection[str]) -> Keeper | None:
    """Return what an operator keeps the grid as: one that reads int8 numbers, or whose own are read in int8."""
    for keeper in dialect.keepers:
        if not is_call(node, *_KEEPERS[keeper]) or _is_mean(node) or even_window(node):
            continue
        if keeper == "concatenation" and not dialect.aligns:
            return keeper if all(_is_layer_in_int8(user, dialect, excluded) for user in node.users) else None
        if any(source_of(tensor) in results for tensor in node.all_input_nodes):
            # A kernel may clip already.
            return keeper if node not in results else None
        return keeper if keeper != "clip" and _is_read_in_int8(node, dialect, excluded) else None
    return None


def _is_mean(node: Node) -> bool:
    """Return whether a pool averages whole maps, for which engines have another kernel."""
    return is_call(node, aten.adaptive_avg_pool2d.default) and tuple(node.meta[VALUE].shape[2:]) == (1, 1)


def even_window(node: Node) -> tuple[list[int], list[int], list[int]] | None:
    """Return size, stride and padding of a pool that divides each sum by the size; None for another operator."""
    if is_call(node, aten.adaptive_avg_pool2d.default) and not _is_mean(node):
        sides, results = (each.meta[VALUE].shape[2:] for each in (node.all_input_nodes[0], node))
        if any(side % result for side, result in zip(sides, results, strict=True)):
            return None
        size = [side // result for side, result in zip(sides, results, strict=True)]
        return size, size, [0, 0]
    if not is_call(node, aten.avg_pool2d.default):
        return None
    named = arguments(node)
    size, padding = (list(pair(named[name])) for name in ("kernel_size", "padding"))
    is_plain = not named["ceil_mode"] and not named["divisor_override"]
    if not is_plain or (any(padding) and not named["count_include_pad"]):
        return None
    return size, list(pair(named["stride"] or size)), padding


def _is_read_in_int8(tensor: Node, dialect: Dialect, excluded: Collection[str]) -> bool:
    """Return whether a layer in int8 reads a tensor, moved or not."""
    for user in tensor.users:
        if _is_layer_in_int8(user, dialect, excluded):
            return True
        passes = is_call(user, *_MOVES, *(each for keeper in dialect.keepers for each in _KEEPERS[keeper]))
        if passes and _is_read_in_int8(user, dialect, excluded):
            return True
    return False


def _is_layer_in_int8(node: Node, dialect: Dialect, excluded: Collection[str]) -> bool:
    kind = kind_of(node)
    return kind not in (None, "add") and _has_kernel(node, kind, dialect) and node.name not in excluded


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
        if is_call(node, *(each for operators in _KEEPERS.values() for each in operators)):
            for tensor in (node, *node.all_input_nodes):
                yield tensor.name, channel_axis(tensor)
