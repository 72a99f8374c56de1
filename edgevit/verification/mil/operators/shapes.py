"""Operators that only move numbers: reshapes, permutations, concatenations, splits, pads and blocks."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .arguments import Arguments, Operator
from .padding import pad_sides


def _reshape(a: Arguments) -> Tensor:
    """Reshape; a size of 0 keeps the input's size, -1 is inferred."""
    return a["x"].reshape([size or a["x"].shape[i] for i, size in enumerate(a.ints("shape"))])


def _expand_dims(a: Arguments) -> Tensor:
    rank = a["x"].ndim + len(a.ints("axes"))
    sizes = iter(a["x"].shape)
    new_axes = {axis % rank for axis in a.ints("axes")}
    return a["x"].reshape([1 if axis in new_axes else next(sizes) for axis in range(rank)])


def _squeeze(a: Arguments) -> Tensor:
    axes = a.ints("axes") or [i for i, size in enumerate(a["x"].shape) if size == 1]
    return a["x"].squeeze(tuple(axes))


def _concat(a: Arguments) -> Tensor:
    axis, values = a.int("axis"), a.all("values")
    if a.int("interleave"):
        return torch.stack(values, axis % values[0].ndim + 1).flatten(axis % values[0].ndim, axis % values[0].ndim + 1)
    return torch.cat(values, axis)


def _split(a: Arguments) -> tuple[Tensor, ...]:
    axis = a.int("axis")
    sizes = a.ints("split_sizes") or [a["x"].shape[axis] // a.int("num_splits")] * a.int("num_splits")
    return tuple(torch.split(a["x"], sizes, axis))


def _reverse(a: Arguments) -> Tensor:
    return a["x"].flip(a.ints("axes") or list(range(a["x"].ndim)))


def _pad(a: Arguments) -> Tensor:
    mode, padding = a.text("mode", "constant"), a.ints("pad")
    if mode == "constant":
        return pad_sides(a["x"], padding, a.number("constant_val"))
    rank = a["x"].ndim
    full = [0] * (2 * rank - len(padding)) + padding
    pairs = [(full[2 * i], full[2 * i + 1]) for i in range(rank)]
    return torch.from_numpy(np.pad(a["x"].numpy(), pairs, "reflect" if mode == "reflect" else "edge"))


def _band_part(a: Arguments) -> Tensor:
    lower, upper = a.int("lower", -1), a.int("upper", -1)
    x = a["x"] if lower < 0 else a["x"].triu(-lower)
    return x if upper < 0 else x.tril(upper)


def _depth_to_space(a: Arguments) -> Tensor:
    """Move blocks of channels to pixels. Channels are [block row, block column, depth].

    pixel_shuffle's are [depth, row, column].
    """
    block = a.int("block_size")
    n, c, h, w = a["x"].shape
    blocks = a["x"].reshape(n, block, block, c // block**2, h, w)
    return blocks.permute(0, 3, 4, 1, 5, 2).reshape(n, c // block**2, h * block, w * block)


def _space_to_depth(a: Arguments) -> Tensor:
    block = a.int("block_size")
    n, c, h, w = a["x"].shape
    blocks = a["x"].reshape(n, c, h // block, block, w // block, block)
    return blocks.permute(0, 3, 5, 1, 2, 4).reshape(n, c * block**2, h // block, w // block)


def _flatten2d(a: Arguments) -> Tensor:
    return a["x"].reshape(math.prod(a["x"].shape[: a.int("axis", 1)]), -1)


OPERATORS: dict[str, Operator] = {
    "band_part": _band_part,
    "concat": _concat,
    "depth_to_space": _depth_to_space,
    "expand_dims": _expand_dims,
    "flatten2d": _flatten2d,
    "pad": _pad,
    "pixel_shuffle": lambda a: F.pixel_shuffle(a["x"], a.int("upscale_factor")),
    "pixel_unshuffle": lambda a: F.pixel_unshuffle(a["x"], a.int("downscale_factor")),
    "reshape": _reshape,
    "reverse": _reverse,
    "shape": lambda a: torch.tensor(a["x"].shape),
    "space_to_depth": _space_to_depth,
    "split": _split,
    "squeeze": _squeeze,
    "stack": lambda a: torch.stack(a.all("values"), a.int("axis")),
    "tile": lambda a: a["x"].tile(a.ints("reps")),
    "transpose": lambda a: a["x"].permute(a.ints("perm")),
}
