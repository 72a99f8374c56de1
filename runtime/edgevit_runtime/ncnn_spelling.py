"""Equal spellings of a graph in operators that ncnn has, or has faster kernels for. torch is imported inside."""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_MOST_SLICES = 32  # the slices that a gather may become
_MOST_AXES = 5  # of a tensor in ncnn: a batch and four
_Axis = tuple[int, int]  # size, and a number that no other axis has


def respell(captured: Any, int8: Sequence[Any] = ()) -> None:
    """Replace a captured graph's operators by those that ncnn has, in place. `int8` are weights of int8 layers."""
    _with_whole_norms(captured)
    _without_unbinds(captured)
    _with_rows_as_maps(captured, int8)
    _with_flat_rows(captured)
    _without_gathers(captured)
    _without_deep_moves(captured)


def _call(graph: Any, name: Any, *inputs: Any, **options: Any) -> Any:
    """Add a call of an ATen operator, or of a function, with its result's shape, which later rewrites may read."""
    import torch

    function = operator.attrgetter(name)(torch.ops.aten) if isinstance(name, str) else name
    node = graph.call_function(function, inputs, options)
    node.meta["val"] = function(*torch.fx.map_arg(inputs, lambda source: source.meta["val"]), **options)
    return node


def _with_whole_norms(captured: Any) -> None:
    """Give norms that have either weights or biases the other, too. pnnx takes both or none."""
    import torch

    aten, graph = torch.ops.aten, captured.graph
    for target in (aten.group_norm.default, aten.layer_norm.default):
        for node in graph.find_nodes(op="call_function", target=target):
            affine = [*node.args, None, None][2:4]
            if (affine[0] is None) == (affine[1] is None):
                continue
            missing = affine.index(None)
            value = affine[1 - missing].meta["val"]
            name = f"{node.name}_{('weight', 'bias')[missing]}"
            captured.register_buffer(name, torch.full(value.shape, float(missing == 0), dtype=value.dtype))
            with graph.inserting_before(node):
                affine[missing] = graph.get_attr(name)
            affine[missing].meta["val"] = value
            node.args = (*node.args[:2], *affine, *node.args[4:])


def _without_unbinds(captured: Any) -> None:
    """Replace unbind by reshaped chunks of size one. For unbind pnnx writes slow reshapes to sizes known at run time.

    Those were three quarters of TurboViT's time.
    """
    import torch

    aten, graph = torch.ops.aten, captured.graph
    for node in graph.find_nodes(op="call_function", target=aten.unbind.int):
        source, axis = node.args[0], node.args[1] if len(node.args) > 1 else 0
        size = source.meta["val"].shape[axis]
        with graph.inserting_before(node):
            chunks = _call(graph, "chunk.default", source, size, axis)
        for user in list(node.users):
            with graph.inserting_before(user):
                chunk = _call(graph, operator.getitem, chunks, user.args[1])
                new = _call(graph, "reshape.default", chunk, list(user.meta["val"].shape))
            user.replace_all_uses_with(new)
            graph.erase_node(user)
        graph.erase_node(node)


def _with_flat_rows(captured: Any) -> None:
    """Put the rows of products with a constant matrix in one axis, for the same reason: AFFNet took 4 times as long."""
    import torch

    graph, products = captured.graph, (torch.ops.aten.linear.default, torch.ops.aten.matmul.default)
    for node in [node for node in graph.nodes if node.target in products]:
        source, factor, shape = node.args[0], node.args[1], list(node.meta["val"].shape)
        if len(shape) < 4 or factor.meta["val"].ndim != 2:
            continue
        view = [shape[0], -1, source.meta["val"].shape[-1]]
        with graph.inserting_before(node):
            rows = _call(graph, "reshape.default", source, view)
        node.replace_input_with(source, rows)
        node.meta["val"] = node.meta["val"].reshape(*view[:-1], shape[-1])
        with graph.inserting_after(node):
            new = _call(graph, "reshape.default", node, shape)
        node.replace_all_uses_with(new, delete_user_cb=lambda user, new=new: user is not new)


def _with_rows_as_maps(captured: Any, int8: Sequence[Any]) -> None:
    """Spell products of rows with these weights as convolutions of maps of one pixel for each row.

    For rows, ncnn 1.0.20261020 has int8 kernels that are slower than those in float: 3.5 ms and 0.5 ms on 196 rows of
    256. With its transpositions, the convolution takes 0.3 ms.
    """
    import torch

    graph = captured.graph
    # The maps by the rows that are made of them.
    maps: dict[Any, Any] = {}
    for node in graph.find_nodes(op="call_function", target=torch.ops.aten.linear.default):
        source, weight, *bias = node.args
        shape = list(node.meta["val"].shape)
        if len(shape) < 3 or weight.op != "get_attr":
            continue
        matrix = operator.attrgetter(weight.target)(captured)
        if not any(matrix.shape == other.shape and torch.equal(matrix, other) for other in int8):
            continue
        outputs, inputs = matrix.shape
        name = f"{weight.target.replace('.', '_')}_as_kernel"
        captured.register_buffer(name, matrix.reshape(outputs, inputs, 1, 1))
        with graph.inserting_before(node):
            kernel = graph.get_attr(name)
            kernel.meta["val"] = weight.meta["val"].reshape(outputs, inputs, 1, 1)
            pixels = _map_of(graph, source, maps)
            if pixels is None:
                rows = _call(graph, "reshape.default", source, [shape[0], -1, inputs])
                columns = _call(graph, "transpose.int", rows, 1, 2)
                pixels = _call(graph, "reshape.default", columns, [shape[0], inputs, 1, -1])
            result = _call(graph, "conv2d.default", pixels, kernel, *bias)
            columns = _call(graph, "reshape.default", result, [shape[0], outputs, -1])
            new = _call(graph, "reshape.default", _call(graph, "transpose.int", columns, 1, 2), shape)
        maps[new] = result
        node.replace_all_uses_with(new)
        graph.erase_node(node)
    graph.eliminate_dead_code()


def _map_of(graph: Any, rows: Any, maps: Mapping[Any, Any]) -> Any:
    """Return the map of rows that a convolution made, computed on as they were; None where rows have no such origin."""
    import torch

    aten = torch.ops.aten
    activations = (aten.gelu.default, aten.relu.default, aten.silu.default, aten.hardswish.default)
    of_rounding = (aten.mul.Tensor, aten.round.default, aten.clamp.default)
    steps = []
    while rows not in maps:
        if rows.target not in activations + of_rounding or len(rows.all_input_nodes) > 1 or len(rows.users) > 1:
            return None
        steps.append(rows)
        rows = rows.args[0]
    value = maps[rows]
    for step in reversed(steps):
        value = _call(graph, step.target, value, *step.args[1:], **step.kwargs)
    return value


def _without_deep_moves(captured: Any) -> None:
    """Split transpositions of more axes than ncnn holds into several of fewer: window attention has them."""
    import torch

    aten, graph = torch.ops.aten, captured.graph
    reshapes = (aten.reshape.default, aten.view.default)
    for node in graph.find_nodes(op="call_function", target=aten.permute.default):
        source, shape = node.args[0], list(node.args[0].meta["val"].shape)
        order = [axis % len(shape) for axis in node.args[1]]
        if len(shape) <= _MOST_AXES:
            continue
        fixed = 1 if order[0] == 0 else 0
        axes = [(shape[i], i) for i in range(len(shape))]
        moves = _block_swaps(axes[fixed:], [axes[i] for i in order[fixed:]])
        # A reshape keeps the numbers in their order.
        while source.target in reshapes:
            source = source.args[0]
        with graph.inserting_before(node):
            moved = _transposed(graph, source, shape[0] if fixed else 1, moves)
            new = _call(graph, "reshape.default", moved, list(node.meta["val"].shape))
        for user in list(node.users):
            user.replace_input_with(node, moved if user.target in reshapes else new)
    graph.eliminate_dead_code()


def _without_gathers(captured: Any) -> None:
    """Replace index_select with a constant index by transpositions of blocks or a few slices; ncnn has no gather.

    Any other one stays, and an error names it when pnnx does not convert it.
    """
    import torch

    aten, graph = torch.ops.aten, captured.graph
    for node in graph.find_nodes(op="call_function", target=aten.index_select.default):
        source, axis, index = node.args
        if index.op != "get_attr":
            continue
        shape = list(source.meta["val"].shape)
        axis %= len(shape)
        indices = operator.attrgetter(index.target)(captured).tolist()
        digits = _digits(indices) if len(indices) == shape[axis] else None
        runs = list(_runs(indices))
        with graph.inserting_before(node):
            if digits is not None:
                new = _reordered(graph, source, shape, axis, digits)
            elif len(runs) <= _MOST_SLICES:
                parts = [_call(graph, "slice.Tensor", source, axis, *run) for run in runs]
                new = _call(graph, "cat.default", parts, axis)
            else:
                continue
        node.replace_all_uses_with(new)
        graph.erase_node(node)


def _reordered(graph: Any, source: Any, shape: list[int], axis: int, digits: list[_Axis]) -> Any:
    batch = shape[0] if axis else 1
    # Strides of 0 and -1 distinguish these two from every digit.
    before = (math.prod(shape[:axis]) // batch, 0)
    after = (math.prod(shape[axis + 1 :]), -1)
    now = sorted(digits, key=lambda digit: -digit[1])
    moved = _transposed(graph, source, batch, _block_swaps([before, *now, after], [before, *digits, after]))
    return _call(graph, "reshape.default", moved, shape)


def _transposed(graph: Any, value: Any, batch: int, moves: list[tuple[int, ...]]) -> Any:
    """Apply each move to a tensor of a batch and four axes, the most that ncnn holds."""
    for outer, *sizes in moves:
        view = [batch, *sizes] if outer == 1 else [batch, outer, *sizes]
        value = _call(graph, "reshape.default", value, view)
        value = _call(graph, "transpose.int", value, -3, -2)
    return value


def _block_swaps(now: list[_Axis], goal: list[_Axis]) -> list[tuple[int, ...]]:
    """Turn one order of axes into another by swaps of neighbouring blocks.

    Each swap is (left, a, b, right), sizes of merged axes whose two in the middle change places.
    """
    moves = []
    for i in range(len(goal)):
        start = end = now.index(goal[i])
        if start == i:
            continue
        while end < len(now) and now[end] == goal[i + end - start]:
            end += 1
        blocks = now[:i], now[i:start], now[start:end], now[end:]
        moves.append(tuple(math.prod(size for size, _ in block) for block in blocks))
        now = [*blocks[0], *blocks[2], *blocks[1], *blocks[3]]
    return moves


def _digits(indices: Sequence[int]) -> list[_Axis] | None:
    """Return sizes and strides, slowest first, so that an index is the sum of digit times stride; None if impossible.

    The strides must be those of a dense tensor, in any order.
    """
    digits: list[_Axis] = []
    starts = list(indices)
    while len(starts) > 1:
        stride, size = starts[1] - starts[0], 1
        while size < len(starts) and starts[size] == starts[0] + size * stride:
            size += 1
        heads = starts[::size]
        if starts != [head + k * stride for head in heads for k in range(size)]:
            return None
        digits.append((size, stride))
        starts = heads
    ascending = sorted(digits, key=lambda digit: digit[1])
    dense = itertools.accumulate((size for size, _ in ascending), operator.mul, initial=1)
    is_dense = all(stride == expected for (_, stride), expected in zip(ascending, dense, strict=False))
    return digits[::-1] if is_dense and starts == [0] else None


def _runs(indices: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield the index as ranges of consecutive numbers, each as (start, end)."""
    start = 0
    for i in range(1, len(indices) + 1):
        if i == len(indices) or indices[i] != indices[i - 1] + 1:
            yield indices[start], indices[i - 1] + 1
            start = i
