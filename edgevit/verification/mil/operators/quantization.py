"""Quantized tensors, and constants that are stored in fewer bits than their values have."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .arguments import Arguments, Operator
from .packing import unpack

_BOUNDS = {"int8": (-128, 127), "uint8": (0, 255)}


def _along(parameter: Tensor, like: Tensor, axis: int) -> Tensor:
    """Return a scalar, or a vector along an axis of a tensor, in a shape that broadcasts to the tensor's."""
    if parameter.ndim == 0:
        return parameter
    shape = [1] * like.ndim
    shape[axis] = -1
    return parameter.reshape(shape)


def _quantize(a: Arguments) -> Tensor:
    """Return clip(round(input / scale) + zero_point); ties go to the even number, as in coremltools."""
    x, axis, zero_point = a["input"], a.int("axis"), a.get("zero_point")
    steps = torch.round(x / _along(a["scale"], x, axis))
    if zero_point is not None:
        steps = steps + _along(zero_point, x, axis)
    return steps.clamp(*_BOUNDS[a.text("output_dtype", "")])


def _dequantize(a: Arguments, data: str = "input") -> Tensor:
    """Return scale * (data - zero_point)."""
    scale, zero_point, axis = a["scale"], a.get("zero_point"), a.int("axis")
    steps = a[data].to(scale.dtype)
    if zero_point is not None:
        steps = steps - _along(zero_point, steps, axis).to(scale.dtype)
    return _along(scale, steps, axis) * steps


def _per_block(parameter: Tensor, shape: Sequence[int]) -> Tensor:
    """Repeat each number of a tensor over its block of a larger shape. Raises ValueError where blocks do not fit."""
    for axis, size in enumerate(shape):
        blocks = parameter.shape[axis]
        if size % blocks:
            raise ValueError(f"{blocks} blocks do not divide {size}")
        if 1 < blocks < size:
            parameter = parameter.repeat_interleave(size // blocks, axis)
    return parameter


def _shift_scale(a: Arguments) -> Tensor:
    """Return scale * (data - offset), each with one number for each block of the data."""
    scale, offset = a["scale"], a.get("offset")
    data = a["data"].to(scale.dtype)
    if offset is not None:
        data = data - _per_block(offset.to(scale.dtype), data.shape)
    return _per_block(scale, data.shape) * data


def _lut_to_dense(a: Arguments) -> Tensor:
    """Look values up. Until iOS 17 there is one table, and the indices are packed into bytes."""
    lut = a["lut"]
    if a.get("shape") is None:
        return _grouped_lut(a["indices"].long(), lut, a.int("vector_axis"))
    shape = a.ints("shape")
    bits = int(math.log2(len(lut)))
    indices = unpack(a["indices"].to(torch.uint8).numpy(), bits, math.prod(shape))
    return lut[torch.from_numpy(indices).long()].reshape(shape)


def _grouped_lut(indices: Tensor, lut: Tensor, axis: int) -> Tensor:
    """Look vectors up, in a table for each block of the indices, and lay them along an axis.

    indices: (...); lut: (blocks of each axis..., values, vector size).
    """
    blocks = []
    for dim, size in enumerate(indices.shape):
        shape = [1] * indices.ndim
        shape[dim] = size
        if size % lut.shape[dim]:
            raise ValueError(f"{lut.shape[dim]} tables do not divide {size}")
        blocks.append((torch.arange(size) // (size // lut.shape[dim])).reshape(shape))
    vectors = lut[(*blocks, indices)]
    axis %= indices.ndim
    return vectors.movedim(-1, axis + 1).flatten(axis, axis + 1)


OPERATORS: dict[str, Operator] = {
    "constexpr_affine_dequantize": lambda a: _dequantize(a, "quantized_data"),
    "constexpr_blockwise_shift_scale": _shift_scale,
    "constexpr_lut_to_dense": _lut_to_dense,
    "dequantize": _dequantize,
    "quantize": _quantize,
}
