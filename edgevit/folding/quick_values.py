"""Shapes of the results of common operators, told without torch.

torch computes some of them step by step in Python where there is no data, which takes up to a hundred times longer and
imports its compiler. A rule returns None where it does not hold, and torch is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten


def quick_value(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Tensor | None:
    """Return an operator's result on tensors without data; None where no rule tells it."""
    rule = _RULES.get(func)
    if rule is None or not args:
        return None
    operands = args[0] if isinstance(args[0], (list, tuple)) else args[:1]
    holds = all(_has_numbers(operand, complex_too=rule is _arithmetic) for operand in operands)
    return rule(*args, **kwargs) if operands and holds else None


def _has_numbers(value: Any, *, complex_too: bool) -> bool:
    is_tensor = isinstance(value, Tensor) and value.dim() > 0
    return is_tensor and (value.is_floating_point() or (complex_too and value.is_complex()))


def _empty(shape: Sequence[int], like: Tensor) -> Tensor:
    return torch.empty(tuple(shape), dtype=like.dtype, device="meta")


def _like(source: Tensor) -> Tensor:
    """Return a tensor of the same shape, dtype and memory layout; torch's own `empty_like` is slow without data."""
    if source.is_contiguous() or not _is_dense(source):
        return _empty(source.shape, source) if source.is_contiguous() else torch.empty_like(source)
    return torch.empty_strided(source.shape, source.stride(), dtype=source.dtype, device="meta")


def _is_dense(source: Tensor) -> bool:
    """Return whether a tensor has all numbers of its storage once, in the order of some permutation of its axes."""
    expected = 1
    for stride, size in sorted(zip(source.stride(), source.shape, strict=True)):
        if size != 1 and stride != expected:
            return False
        expected *= size
    return True


def _unary(source: Tensor, *_: Any, **__: Any) -> Tensor:
    return _like(source)


def _binary(first: Tensor, second: Any, **_: Any) -> Tensor | None:
    """Tell the result of an operator element by element, if it has the dtype of its operands."""
    if isinstance(second, (int, float)) and not isinstance(second, bool):
        return _like(first)
    if not isinstance(second, Tensor) or second.dtype != first.dtype:
        return None
    pairs = list(zip_longest(reversed(first.shape), reversed(second.shape), fillvalue=1))
    if not all(a == b or 1 in (a, b) for a, b in pairs):
        return None
    shape = tuple(b if a == 1 else a for a, b in reversed(pairs))
    if shape == first.shape:
        return _like(first)
    return _empty(shape, first) if first.is_contiguous() and second.is_contiguous() else None


def _arithmetic(first: Tensor, second: Any, **named: Any) -> Tensor | None:
    """Tell the result of an operator that complex numbers have too."""
    return _binary(first, second, **named)


def _batch_norm(source: Tensor, *others: Any) -> Tensor | None:
    return _like(source) if len(others) > 4 and not others[4] else None


def _contiguous(source: Tensor, *_: Any, **__: Any) -> Tensor:
    return _empty(source.shape, source)


def _group_norm(source: Tensor, *_: Any, **__: Any) -> Tensor | None:
    return _empty(source.shape, source) if source.is_contiguous() else None


def _linear(source: Tensor, weight: Tensor, *_: Any) -> Tensor | None:
    fits = weight.dim() == 2 and source.shape[-1] == weight.shape[1] and source.dtype == weight.dtype
    return _empty((*source.shape[:-1], weight.shape[0]), source) if fits else None


def _conv2d(
    source: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = (1, 1),
    padding: Any = (0, 0),
    dilation: Any = (1, 1),
    groups: int = 1,
) -> Tensor | None:
    fits = source.dim() == weight.dim() == 4 and source.dtype == weight.dtype
    fits = fits and source.shape[1] == weight.shape[1] * groups and weight.shape[0] % groups == 0
    if not fits or any(len(numbers) != 2 for numbers in (stride, padding, dilation)):
        return None
    spans = [d * (size - 1) + 1 for size, d in zip(weight.shape[2:], dilation, strict=True)]
    free = [side + 2 * p - span for side, p, span in zip(source.shape[2:], padding, spans, strict=True)]
    if min(free) < 0 or (bias is not None and (bias.shape != weight.shape[:1] or bias.dtype != source.dtype)):
        return None
    sides = (room // s + 1 for room, s in zip(free, stride, strict=True))
    return _empty((source.shape[0], weight.shape[0], *sides), source)


def _attention(query: Tensor, key: Tensor, value: Tensor, *_: Any, **named: Any) -> Tensor | None:
    alike = query.shape[:-2] == key.shape[:-2] == value.shape[:-2] and query.dtype == key.dtype == value.dtype
    fits = alike and query.shape[-1] == key.shape[-1] and key.shape[-2] == value.shape[-2]
    return _empty((*query.shape[:-1], value.shape[-1]), query) if fits and not named.get("enable_gqa") else None


def _max_pool(
    source: Tensor, size: Sequence[int], stride: Any = (), padding: Any = 0, dilation: Any = 1, rounds_up: bool = False
) -> Tensor | None:
    return None if rounds_up else _pooled(source, size, stride, padding, dilation)


def _average_pool(
    source: Tensor, size: Sequence[int], stride: Any = (), padding: Any = 0, rounds_up: bool = False, *others: Any
) -> Tensor | None:
    return None if rounds_up or any(other is not True for other in others) else _pooled(source, size, stride, padding)


def _pooled(source: Tensor, size: Any, stride: Any, padding: Any, dilation: Any = 1) -> Tensor | None:
    if source.dim() != 4 or not source.is_contiguous():
        return None
    window, steps, pads, gaps = (_both(numbers) for numbers in (size, stride or size, padding, dilation))
    if any(2 * p > k for p, k in zip(pads, window, strict=True)):
        return None
    spans = (d * (k - 1) + 1 for k, d in zip(window, gaps, strict=True))
    free = [side + 2 * p - span for side, p, span in zip(source.shape[2:], pads, spans, strict=True)]
    sides = [room // s + 1 for room, s in zip(free, steps, strict=True)]
    return _empty((*source.shape[:2], *sides), source) if min(free) >= 0 else None


def _both(numbers: Any) -> list[int]:
    """Return one number for each of two sides."""
    one_or_two = [numbers] if isinstance(numbers, int) else list(numbers)
    return one_or_two * 2 if len(one_or_two) == 1 else one_or_two


def _adaptive_pool(source: Tensor, size: Sequence[int]) -> Tensor | None:
    return _empty((*source.shape[:-2], *size), source) if source.dim() in (3, 4) and len(size) == 2 else None


def _filled(source: Tensor, **named: Any) -> Tensor | None:
    """Tell a tensor like another one, unless it shall differ in anything."""
    places = {"device", "pin_memory"}
    return None if any(value is not None for name, value in named.items() if name not in places) else _like(source)


def _reduced(source: Tensor, axes: Sequence[int] | None, keeps: bool = False, **named: Any) -> Tensor | None:
    """Tell a mean or a maximum over these axes."""
    if not axes or named.get("dtype") is not None:
        return None
    reduced = {axis % source.dim() for axis in axes}
    sizes = [1 if i in reduced else size for i, size in enumerate(source.shape) if keeps or i not in reduced]
    return _empty(sizes, source)


def _cat(tensors: Sequence[Tensor], axis: int = 0) -> Tensor | None:
    first = tensors[0]
    axis %= first.dim()
    shapes = [[size for i, size in enumerate(tensor.shape) if i != axis] for tensor in tensors]
    if any(tensor.dtype != first.dtype or tensor.dim() != first.dim() for tensor in tensors) or any(
        shape != shapes[0] for shape in shapes
    ):
        return None
    sizes = list(first.shape)
    sizes[axis] = sum(tensor.shape[axis] for tensor in tensors)
    return _empty(sizes, first)


_RULES: dict[Any, Callable[..., Tensor | None]] = {
    **dict.fromkeys(
        (
            aten.relu.default,
            aten.leaky_relu.default,
            aten.gelu.default,
            aten.silu.default,
            aten.mish.default,
            aten.elu.default,
            aten.sigmoid.default,
            aten.tanh.default,
            aten.hardswish.default,
            aten.hardsigmoid.default,
            aten.hardtanh.default,
            aten.softshrink.default,
            aten.roll.default,
        ),
        _unary,
    ),
    **dict.fromkeys(
        (
            aten.add.Tensor,
            aten.sub.Tensor,
            aten.mul.Tensor,
            aten.div.Tensor,
        ),
        _arithmetic,
    ),
    **dict.fromkeys((aten.maximum.default, aten.minimum.default), _binary),
    aten.max_pool2d.default: _max_pool,
    aten.avg_pool2d.default: _average_pool,
    aten.batch_norm.default: _batch_norm,
    aten.layer_norm.default: _contiguous,
    aten.group_norm.default: _group_norm,
    aten.linear.default: _linear,
    aten.conv2d.default: _conv2d,
    aten.scaled_dot_product_attention.default: _attention,
    aten.adaptive_avg_pool2d.default: _adaptive_pool,
    aten.mean.dim: _reduced,
    aten.amax.default: _reduced,
    aten.zeros_like.default: _filled,
    aten.ones_like.default: _filled,
    aten.cat.default: _cat,
}
