"""Spellings: operators that a converter gets wrong, written before the conversion in others that it gets right.

Each spelling computes the same function. A recipe names those that its converter needs (`Recipe.spellings`), and
docs/targets.md lists why. To add one, write a function here and list it in SPELLINGS.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from edgevit.folding import Folded
from edgevit.folding.graph import arguments, aten, copied_graph, is_call, pair
from edgevit.folding.values import ORIGIN, VALUE, infer, set_constant, shape
from edgevit.quantization.placement import even_window
from edgevit.quantization.simulation import QUANTIZE


def spelled(model: Folded, names: Sequence[str]) -> Folded:
    """Return the network with these spellings; the same object where none applies."""
    net = GraphModule(model.net, copied_graph(model.net))
    changed = [_Speller(net, node).apply(names) for node in list(net.graph.nodes)]
    if not any(changed):
        return model
    # A reshape that the next spelling looked through.
    net.graph.eliminate_dead_code()
    net.graph.lint()
    net.recompile()
    return Folded(net, model.shapes, model.report)


class _Speller:
    """One node of a network, and the calls that replace it."""

    def __init__(self, net: GraphModule, node: Node) -> None:
        self.net, self.node = net, node

    def apply(self, names: Sequence[str]) -> bool:
        """Replace the node by the first of these spellings that knows it. Return whether one does."""
        for name in names:
            result = SPELLINGS[name](self)
            if result is not None:
                self.node.replace_all_uses_with(result)
                self.net.graph.erase_node(self.node)
                return True
        return False

    def call(self, target: Any, *inputs: Any, **options: Any) -> Node:
        """Add a call ahead of the node, of the same origin."""
        with self.net.graph.inserting_before(self.node):
            call = self.net.graph.call_function(target, inputs, options)
        call.meta[ORIGIN] = self.node.meta[ORIGIN]
        infer(call)
        return call

    def constant(self, tensor: Tensor) -> Node:
        """Add a constant ahead of the node."""
        number = 0
        while hasattr(self.net, name := f"spelled_{number}"):
            number += 1
        self.net.register_buffer(name, tensor)
        with self.net.graph.inserting_before(self.node):
            node = self.net.graph.get_attr(name)
        set_constant(node, tensor)
        return node

    @property
    def device(self) -> torch.device:
        """The device of the network's constants."""
        return next((tensor.device for tensor in (*self.net.parameters(), *self.net.buffers())), torch.device("cpu"))

    @property
    def source(self) -> Node:
        """The tensor that the node reads first."""
        first = self.node.args[0]
        assert isinstance(first, Node)
        return first


def tanh_gelu(at: _Speller) -> Node | None:
    """Write x Phi(x) with its hyperbolic tangent out: x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))."""
    if not is_call(at.node, aten.gelu.default) or arguments(at.node)["approximate"] != "tanh":
        return None
    x, multiply, add = at.source, aten.mul.Tensor, aten.add.Tensor
    cube = at.call(multiply, at.call(multiply, x, x), x)
    inner = at.call(multiply, at.call(add, x, at.call(multiply, cube, 0.044715)), math.sqrt(2 / math.pi))
    return at.call(multiply, at.call(multiply, x, 0.5), at.call(add, at.call(aten.tanh.default, inner), 1.0))


def rms_norm(at: _Speller) -> Node | None:
    """Write x / sqrt(mean(x^2) + eps) with its own epsilon, times the weight."""
    if not is_call(at.node, aten.rms_norm.default):
        return None
    x, axes_shape, weight, eps = arguments(at.node).values()
    eps = torch.finfo(x.meta[VALUE].dtype).eps if eps is None else eps
    axes = list(range(-len(axes_shape), 0))
    power = at.call(aten.mean.dim, at.call(aten.mul.Tensor, x, x), axes, True)
    scaled = at.call(aten.mul.Tensor, x, at.call(aten.rsqrt.default, at.call(aten.add.Tensor, power, eps)))
    return scaled if weight is None else at.call(aten.mul.Tensor, scaled, weight)


def ceil_average(at: _Speller) -> Node | None:
    """Write an average pool that rounds its size up as a padding, a plain pool and a constant map.

    A window that reaches beyond the padded map counts the numbers inside it alone.
    """
    is_average = is_call(at.node, aten.avg_pool2d.default)
    return _plain_average(at) if is_average and arguments(at.node)["ceil_mode"] else None


def average_in_int8(at: _Speller) -> Node | None:
    """Write an average pool of a network in int8 as a depthwise convolution, whose weights are on any grid exactly."""
    is_quantized = bool(at.net.graph.find_nodes(op="call_function", target=QUANTIZE))
    window = even_window(at.node) if is_quantized else None
    if window is None:
        return None
    size, stride, padding = window
    channels, value = shape(at.source)[1], at.node.meta[VALUE]
    weight = at.constant(torch.full((channels, 1, *size), 1 / math.prod(size), dtype=value.dtype, device=at.device))
    return at.call(aten.conv2d.default, at.source, weight, None, stride, padding, [1, 1], channels)


def padded_in_int8(at: _Speller) -> Node | None:
    """Write the padding of an average pool of a network in int8 apart from it."""
    is_quantized = bool(at.net.graph.find_nodes(op="call_function", target=QUANTIZE))
    is_average = is_quantized and is_call(at.node, aten.avg_pool2d.default)
    return _plain_average(at) if is_average and any(pair(arguments(at.node)["padding"])) else None


def attention_of_four_axes(at: _Speller) -> Node | None:
    """Write attention over more than four axes, or three, with the axes ahead of the heads in one."""
    if not is_call(at.node, aten.scaled_dot_product_attention.default):
        return None
    named = arguments(at.node)
    operands = [named[name] for name in ("query", "key", "value")]
    ranks = {len(shape(operand)) for operand in operands}
    if ranks == {4} or len(ranks) > 1 or named["attn_mask"] is not None or named["enable_gqa"]:
        return None
    sizes = [max(size, -1) for size in shape(at.node)]
    if sizes.count(-1) > 1 or any(min(shape(operand)[-2:]) < 0 for operand in operands):
        return None
    rows = [at.call(aten.reshape.default, operand, [-1, 1, *shape(operand)[-2:]]) for operand in operands]
    options = {"is_causal": named["is_causal"], "scale": named["scale"]}
    attended = at.call(aten.scaled_dot_product_attention.default, *rows, **options)
    return at.call(aten.reshape.default, attended, sizes)


def average_divisor(at: _Speller) -> Node | None:
    """Write an average pool with a divisor of its own as a plain pool times a number."""
    is_average = is_call(at.node, aten.avg_pool2d.default)
    return _plain_average(at) if is_average and arguments(at.node)["divisor_override"] else None


def _plain_average(at: _Speller) -> Node | None:
    named = arguments(at.node)
    size, padding = pair(named["kernel_size"]), pair(named["padding"])
    stride = pair(named["stride"] or named["kernel_size"])
    sides, outputs = shape(at.source)[-2:], shape(at.node)[-2:]
    if min(*sides, *outputs) < 0:
        return None
    spans = [(out - 1) * s + k for out, s, k in zip(outputs, stride, size, strict=True)]
    after = [max(0, span - side - before) for span, side, before in zip(spans, sides, padding, strict=True)]
    pads = [padding[1], after[1], padding[0], after[0]]
    padded = at.call(aten.constant_pad_nd.default, at.source, pads, 0.0) if any(pads) else at.source
    pooled = at.call(aten.avg_pool2d.default, padded, list(size), list(stride))
    counts_padding, divisor = named["count_include_pad"], named["divisor_override"]
    factors = _corrections(size, stride, padding, sides, outputs, counts_padding, divisor)
    if bool((factors == 1).all()):
        return pooled
    if factors.numel() == 1:
        return at.call(aten.mul.Tensor, pooled, float(factors))
    value = at.node.meta[VALUE]
    return at.call(aten.mul.Tensor, pooled, at.constant(factors.to(value.dtype).to(at.device)))


def ceil_max(at: _Speller) -> Node | None:
    """Write a maximum pool that rounds its size up as a padding with minus infinity and a plain pool."""
    if not is_call(at.node, aten.max_pool2d.default) or not arguments(at.node)["ceil_mode"]:
        return None
    named = arguments(at.node)
    size, padding, dilation = (pair(named[name]) for name in ("kernel_size", "padding", "dilation"))
    stride = pair(named["stride"] or named["kernel_size"])
    sides, outputs = shape(at.source)[-2:], shape(at.node)[-2:]
    if min(*sides, *outputs) < 0:
        return None
    spans = [(out - 1) * s + d * (k - 1) + 1 for out, s, d, k in zip(outputs, stride, dilation, size, strict=True)]
    after = [max(0, span - side - before) for span, side, before in zip(spans, sides, padding, strict=True)]
    padded = at.source
    if any(after) or any(padding):
        pads = [padding[1], after[1], padding[0], after[0]]
        padded = at.call(aten.constant_pad_nd.default, at.source, pads, -math.inf)
    return at.call(aten.max_pool2d.default, padded, list(size), list(stride), [0, 0], list(dilation))


def _corrections(
    size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    sides: Sequence[int],
    outputs: Sequence[int],
    counts_padding: bool,
    divisor: int | None,
) -> Tensor:
    """Return size / count of every window of an average pool (height, width); a divisor is the count if it is given."""
    if divisor is not None:
        return torch.full((1, 1), math.prod(size) / divisor, dtype=torch.float64)
    counts = []
    for k, s, p, side, out in zip(size, stride, padding, sides, outputs, strict=True):
        start = torch.arange(out) * s - p
        # Windows end at the end of the padding; what lies beyond is never counted.
        end = (start + k).clamp(max=side + p)
        counts.append(end - start if counts_padding else end.clamp(max=side) - start.clamp(min=0))
    return math.prod(size) / (counts[0][:, None] * counts[1][None, :]).double()


def nearest(at: _Speller) -> Node | None:
    """Write nearest resizing as a selection of rows and columns, unless it repeats each of them equally often."""
    kinds = {aten._upsample_nearest_exact2d.vec: 0.5, aten.upsample_nearest2d.vec: 0.0}
    if not is_call(at.node, *kinds):
        return None
    sides, outputs = shape(at.source)[-2:], shape(at.node)[-2:]
    if min(*sides, *outputs) < 0:
        return None
    factors = arguments(at.node)["scale_factors"] or (None, None)
    indices = [
        _nearest_index(side, out, factor, kinds[at.node.target])  # type: ignore[index]
        for side, out, factor in zip(sides, outputs, factors, strict=True)
    ]
    times = [out // side for side, out in zip(sides, outputs, strict=True)]
    if all(
        torch.equal(index, torch.arange(side).repeat_interleave(count))
        for index, side, count in zip(indices, sides, times, strict=True)
    ):
        if is_call(at.node, aten.upsample_nearest2d.vec):
            return None
        return at.call(aten.upsample_nearest2d.vec, at.source, None, [float(count) for count in times])
    result = at.source
    for axis, index in enumerate(indices, start=2):
        result = at.call(aten.index_select.default, result, axis, at.constant(index))
    return result


def _nearest_index(side: int, out: int, factor: float | None, middle: float) -> Tensor:
    """Return the row or column that each of the result's comes from, as torch computes it, in float32."""
    step = torch.tensor(side / out if factor is None else 1 / factor, dtype=torch.float32)
    return ((torch.arange(out, dtype=torch.float32) + middle) * step).floor().long().clamp(max=side - 1)


def bilinear(at: _Speller) -> Node | None:
    """Write bilinear resizing by a factor as one to a size, or as two products where the size is no whole multiple.

    torch steps by the factor, and some engines by the quotient of the sizes.
    """
    if not is_call(at.node, aten.upsample_bilinear2d.vec):
        return None
    named = arguments(at.node)
    sides, outputs = shape(at.source)[-2:], shape(at.node)[-2:]
    if named["scale_factors"] is None or min(*sides, *outputs) < 0:
        return None
    corners, factors = named["align_corners"], named["scale_factors"]
    if corners or all(side * factor == out for side, factor, out in zip(sides, factors, outputs, strict=True)):
        return at.call(aten.upsample_bilinear2d.vec, at.source, list(outputs), corners, None)
    value = at.node.meta[VALUE]
    rows, columns = (
        torch.ops.aten.upsample_linear1d.vec(torch.eye(side, dtype=torch.float64)[None], None, False, [factor])[0]
        for side, factor in zip(sides, factors, strict=True)
    )
    wide = at.call(aten.matmul.default, at.source, at.constant(columns.to(value.dtype)))
    return at.call(aten.matmul.default, at.constant(rows.T.contiguous().to(value.dtype)), wide)


def log_sigmoid(at: _Speller) -> Node | None:
    """Write the logarithm of a sigmoid as -softplus(-x)."""
    if not is_call(at.node, aten.log_sigmoid.default):
        return None
    return at.call(aten.neg.default, at.call(aten.softplus.default, at.call(aten.neg.default, at.source)))


def softplus(at: _Speller) -> Node | None:
    """Write log(1 + exp(beta x)) / beta with its slope and its threshold outside."""
    if not is_call(at.node, aten.softplus.default):
        return None
    x, beta, threshold = arguments(at.node).values()
    if (beta, threshold) == (1, 20):
        return None
    steep = at.call(aten.mul.Tensor, x, beta)
    curve = at.call(aten.mul.Tensor, at.call(aten.softplus.default, steep), 1 / beta)
    return at.call(aten.where.self, at.call(aten.gt.Scalar, steep, threshold), x, curve)


def circular_pad(at: _Speller) -> Node | None:
    """Write circular padding as a concatenation of slices."""
    if not is_call(at.node, aten.pad.default) or arguments(at.node)["mode"] != "circular":
        return None
    pads, result = arguments(at.node)["pad"], at.source
    rank = len(shape(at.source))
    for i in range(0, len(pads), 2):
        axis, (before, after) = rank - 1 - i // 2, pads[i : i + 2]
        side = shape(result)[axis]
        if side < 0 or before < 0 or after < 0:
            return None
        parts = [at.call(aten.slice.Tensor, result, axis, side - before, side)] if before else []
        parts += [result, *([at.call(aten.slice.Tensor, result, axis, 0, after)] if after else [])]
        result = at.call(aten.cat.default, parts, axis) if len(parts) > 1 else result
    return result


def strided_slice(at: _Speller) -> Node | None:
    """Write a slice that takes every n-th row as a reshape to rows of n, and a slice of the first in each."""
    if not is_call(at.node, aten.slice.Tensor):
        return None
    named, sizes = arguments(at.node), shape(at.source)
    axis, step = named["dim"] % len(sizes), named["step"]
    if step == 1 or axis == 0 or min(sizes[1:]) < 0 or not (count := shape(at.node)[axis]):
        return None
    side, start = sizes[axis], named["start"] or 0
    start = max(0, start + side if start < 0 else start)
    # The last row may lack what follows it; any numbers do there.
    end, rows = start + count * step, at.source
    if end - side > side:
        return None
    if end > side:
        more = at.call(aten.slice.Tensor, rows, axis, 0, end - side)
        rows = at.call(aten.cat.default, [rows, more], axis)
    if (start, end) != (0, max(side, end)):
        rows = at.call(aten.slice.Tensor, rows, axis, start, end)
    before, after = math.prod(sizes[1:axis]), math.prod(sizes[axis + 1 :])
    rows = at.call(aten.reshape.default, rows, [-1, before * count, step * after])
    return at.call(aten.reshape.default, at.call(aten.slice.Tensor, rows, 2, 0, after), [-1, *shape(at.node)[1:]])


def remainder(at: _Speller) -> Node | None:
    """Write x mod d as x - d floor(x / d)."""
    if not is_call(at.node, aten.remainder.Scalar) or not at.source.meta[VALUE].is_floating_point():
        return None
    divisor = at.node.args[1]
    whole = at.call(aten.floor.default, at.call(aten.div.Tensor, at.source, divisor))
    return at.call(aten.sub.Tensor, at.source, at.call(aten.mul.Tensor, whole, divisor))


# That every target transposes.
_FEW_AXES = 5


def deep_transpose(at: _Speller) -> Node | None:
    """Write an exchange of two of many axes as a permutation, which the recipe splits."""
    if not is_call(at.node, aten.transpose.int) or (rank := len(shape(at.source))) <= _FEW_AXES:
        return None
    order = list(range(rank))
    first, second = (axis % rank for axis in list(arguments(at.node).values())[1:])
    order[first], order[second] = second, first
    return at.call(aten.permute.default, at.source, order)


_RESHAPES = (aten.reshape.default, aten.view.default, aten.unsqueeze.default)
_POINTWISE = (
    aten.add.Tensor,
    aten.sub.Tensor,
    aten.mul.Tensor,
    aten.div.Tensor,
    aten.neg.default,
    aten.sigmoid.default,
    aten.tanh.default,
    aten.relu.default,
)


def six_axes(at: _Speller) -> Node | None:
    """Write arithmetic and parts of six axes with the first two in one, as deformable attention has them."""
    if not is_call(at.node, *_POINTWISE, aten.slice.Tensor, aten.select.int):
        return None
    operands, result = at.node.all_input_nodes, shape(at.node)
    joined = [operand for operand in operands if len(shape(operand)) > _FEW_AXES]
    if not joined or any(not _has_two_in_front(operand, result) for operand in joined):
        return None
    first, *others = at.node.args
    if is_call(at.node, *_POINTWISE):
        # An operand of five axes would meet the second one.
        if any(len(shape(operand)) == _FEW_AXES for operand in operands):
            return None
        inputs = [_front_joined(at, value) if value in joined else value for value in at.node.args]
    else:
        axis = arguments(at.node)["dim"] % len(shape(at.source))
        if axis < 2:
            return None
        inputs = [_front_joined(at, first), axis - 1, *others[1:]]
    call = at.call(at.node.target, *inputs, **at.node.kwargs)
    return at.call(aten.reshape.default, call, [-1, *result[1:]])


def _has_two_in_front(operand: Node, result: Sequence[int]) -> bool:
    """Return whether a tensor of six axes has the first two of a result, and the others are known."""
    sizes = shape(operand)
    return len(sizes) == _FEW_AXES + 1 and sizes[:2] == tuple(result[:2]) and min(sizes[1:]) > 0


def _front_joined(at: _Speller, operand: Any) -> Node:
    """Return a tensor with its first two axes in one, made of what it is a reshape of."""
    sizes, source = shape(operand), operand
    while is_call(source, *_RESHAPES):
        source = source.args[0]
    target = (-1, *sizes[2:])
    same = len(shape(source)) == len(target) and shape(source)[1:] == target[1:]
    return source if same else at.call(aten.reshape.default, source, list(target))


def matrix_transpose(at: _Speller) -> Node | None:
    """Write `.mT` as an exchange of the last two axes."""
    return at.call(aten.transpose.int, at.source, -2, -1) if is_call(at.node, aten.mT.default) else None


def celu(at: _Speller) -> Node | None:
    """Write CELU with a as a ELU(x / a)."""
    if not is_call(at.node, aten.celu.default):
        return None
    x, alpha = arguments(at.node).values()
    curve = at.call(aten.elu.default, at.call(aten.mul.Tensor, x, 1 / alpha), 1.0)
    return at.call(aten.mul.Tensor, curve, alpha)


SPELLINGS: dict[str, Callable[[_Speller], Node | None]] = {
    "attention_of_four_axes": attention_of_four_axes,
    "average_divisor": average_divisor,
    "average_in_int8": average_in_int8,
    "bilinear": bilinear,
    "ceil_average": ceil_average,
    "ceil_max": ceil_max,
    "celu": celu,
    "circular_pad": circular_pad,
    "deep_transpose": deep_transpose,
    "log_sigmoid": log_sigmoid,
    "matrix_transpose": matrix_transpose,
    "nearest": nearest,
    "padded_in_int8": padded_in_int8,
    "remainder": remainder,
    "rms_norm": rms_norm,
    "six_axes": six_axes,
    "softplus": softplus,
    "strided_slice": strided_slice,
    "tanh_gelu": tanh_gelu,
}
