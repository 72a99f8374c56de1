"""The steps that random networks are drawn from; each function appends one to a builder, or finds that none applies."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from support.random_networks import BATCH, Builder, Vector

Append = Callable[[Builder, int], bool]
_CONVOLUTIONS = {3: nn.Conv1d, 4: nn.Conv2d}
_TRANSPOSED = {3: nn.ConvTranspose1d, 4: nn.ConvTranspose2d}
_BATCH_NORMS = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d}
_INSTANCE_NORMS = {3: nn.InstanceNorm1d, 4: nn.InstanceNorm2d}


def divisors(number: int) -> list[int]:
    return [d for d in range(1, number + 1) if number % d == 0]


# ---- layers --------------------------------------------------------------------------------------------------------


def convolution(b: Builder, i: int) -> bool:
    shape = b.shape(i)
    if len(shape) not in _CONVOLUTIONS:
        return False
    channels, sides = shape[1], shape[2:]
    groups = b.choice(*(g for g in {1, 2, channels} if channels % g == 0))
    outputs = groups * b.integer(1, max(1, 8 // groups))
    size = tuple(b.integer(1, min(4, side)) for side in sides)
    dilation = b.choice(1, 1, 1, 2)
    if any(dilation * (s - 1) >= side for s, side in zip(size, sides, strict=True)):
        dilation = 1
    named = b.choice("same", "numbers", "numbers", "none")
    padding: str | tuple[int, ...] = (
        "same" if named == "same" else tuple(b.integer(0, 2) if named == "numbers" else 0 for _ in sides)
    )
    stride = 1 if named == "same" else b.choice(1, 1, 2)
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups, "bias": b.chance()}
    return b.add_module(_CONVOLUTIONS[len(shape)](channels, outputs, size, **options), i)  # type: ignore[arg-type]


def pointwise(b: Builder, i: int) -> bool:
    shape = b.shape(i)
    if len(shape) not in _CONVOLUTIONS:
        return False
    return b.add_module(_CONVOLUTIONS[len(shape)](shape[1], b.integer(1, 9), 1, bias=b.chance()), i)


def transposed(b: Builder, i: int) -> bool:
    shape = b.shape(i)
    if len(shape) not in _TRANSPOSED:
        return False
    groups = b.choice(*(g for g in (1, 2) if shape[1] % g == 0))
    size, stride = b.integer(1, 3), b.integer(1, 2)
    padding = b.integer(0, (size - 1) // 2)
    options: dict[str, Any] = {"stride": stride, "padding": padding, "output_padding": stride - 1 and b.integer(0, 1),
               "groups": groups, "bias": b.chance()}  # fmt: skip
    return b.add_module(_TRANSPOSED[len(shape)](shape[1], groups * b.integer(1, 4), size, **options), i)


def linear(b: Builder, i: int) -> bool:
    return b.add_module(nn.Linear(b.shape(i)[-1], b.integer(1, 9), bias=b.chance()), i)


def again(b: Builder, i: int) -> bool:
    """Call a part once more, on another value that it takes."""
    takers = [p for p, part in enumerate(b.parts) if _takes(part, b.shape(i))]
    if not takers:
        return False
    p = b.choice(*takers)
    return b.add(f"part {p} again", lambda parts, x: parts[p](x), i)


def _takes(part: nn.Module, shape: tuple[int, ...]) -> bool:
    if isinstance(part, nn.Linear):
        return shape[-1] == part.in_features
    ranks = {nn.Conv1d: 3, nn.Conv2d: 4, nn.BatchNorm2d: 4}
    rank = next((rank for kind, rank in ranks.items() if isinstance(part, kind)), 0)
    channels = getattr(part, "in_channels", getattr(part, "num_features", 0))
    return rank == len(shape) and shape[1] == channels and min(shape[2:], default=0) >= 7


def tied(b: Builder, i: int) -> bool:
    """Append a layer with the weight of one before it, with its own bias and geometry."""
    shape = b.shape(i)
    layers: list[Any] = [part for part in b.parts if isinstance(part, nn.Linear) and part.in_features == shape[-1]]
    maps: list[Any] = [part for part in b.parts if isinstance(part, nn.Conv2d) and part.kernel_size == (1, 1)]
    maps = [part for part in maps if len(shape) == 4 and part.in_channels == shape[1]]
    if not layers and not maps:
        return False
    older: Any = b.choice(*layers, *maps)
    bias = b.chance()
    layer: nn.Linear | nn.Conv2d
    if isinstance(older, nn.Linear):
        layer = nn.Linear(older.in_features, older.out_features, bias=bias)
    else:
        options = {"groups": older.groups, "stride": b.integer(1, 2), "bias": bias}
        layer = nn.Conv2d(older.in_channels, older.out_channels, 1, **options)
    layer.weight = older.weight
    if bias and older.bias is not None and b.chance():
        layer.bias = older.bias
    return b.add_module(layer, i)


# ---- norms, scales and shifts --------------------------------------------------------------------------------------


def batch_norm(b: Builder, i: int) -> bool:
    shape = b.shape(i)
    if len(shape) not in _BATCH_NORMS:
        return False
    return b.add_module(
        _BATCH_NORMS[len(shape)](shape[1], affine=b.choice(True, True, False), eps=b.choice(1e-5, 1e-2)), i
    )


def instance_norm(b: Builder, i: int) -> bool:
    shape = b.shape(i)
    if len(shape) not in _INSTANCE_NORMS:
        return False
    tracked = b.choice(True, True, True, False) or math.prod(shape[2:]) < 4
    norm = _INSTANCE_NORMS[len(shape)](shape[1], affine=b.chance(), track_running_stats=tracked)
    return b.add_module(norm, i)


def token_norm(b: Builder, i: int) -> bool:
    shape = b.shape(i)
    if b.chance() and len(shape) == 4 and math.prod(shape[1:]) >= 4:
        return b.add_module(nn.GroupNorm(b.choice(1, *(g for g in (2,) if shape[1] % 4 == 0)), shape[1]), i)
    if shape[-1] < 3:
        return False
    return b.add_module(nn.LayerNorm(shape[-1], elementwise_affine=b.chance()), i)


def vector(b: Builder, i: int) -> bool:
    """Append a sum, difference, product or quotient with a parameter along one axis."""
    shape = b.shape(i)
    axis = b.choice(1, len(shape) - 1, b.integer(1, len(shape) - 1))
    p = b.part(Vector(*(shape[axis] if other == axis else 1 for other in range(b.choice(1, axis), len(shape)))))
    text, compute = b.choice(*_ARITHMETIC.items())
    return b.add(f"{text}, v along {axis}", lambda parts, x: compute(x, parts[p].weight), i)


def number(b: Builder, i: int) -> bool:
    constant = b.choice(-2.0, 0.5, 3, 1)
    text, compute = b.choice(*_ARITHMETIC.items())
    return b.add(f"{text}, v = {constant}", lambda parts, x: compute(x, constant), i)


def position(b: Builder, i: int) -> bool:
    p = b.part(Vector(1, *b.shape(i)[1:]))
    return b.add("x + position", lambda parts, x: x + parts[p].weight, i)


_ARITHMETIC: dict[str, Callable[..., torch.Tensor]] = {
    "x * v": lambda x, v: x * v,
    "x + v": lambda x, v: x + v,
    "x - v": lambda x, v: x - v,
    "v - x": lambda x, v: v - x,
    "x / (v + 4)": lambda x, v: x / (v + 4),
    "add(x, v, alpha=2)": lambda x, v: torch.add(x, v, alpha=2),
    "sub(x, v, alpha=3)": lambda x, v: torch.sub(x, v, alpha=3),
    "rsub(x, v, alpha=2)": lambda x, v: torch.rsub(x, v, alpha=2),
    "clone().mul_(v)": lambda x, v: x.clone().mul_(v),
    "clone().sub_(v, alpha=2)": lambda x, v: x.clone().sub_(v, alpha=2),
}


# ---- moves ---------------------------------------------------------------------------------------------------------

MOVES: dict[int, dict[str, Callable[[torch.Tensor], torch.Tensor]]] = {
    2: {
        "unsqueeze(1)": lambda x: x.unsqueeze(1),
        "[:, :, None, None]": lambda x: x[:, :, None, None],
        "view(B, 1, -1)": lambda x: x.view(x.shape[0], 1, -1),
    },
    3: {
        "transpose(1, 2)": lambda x: x.transpose(1, 2),
        "permute(0, 2, 1)": lambda x: x.permute(0, 2, 1),
        "flatten(0, 1)": lambda x: x.flatten(0, 1),
        "flatten(1)": lambda x: x.flatten(1),
        "reshape(-1, C)": lambda x: x.reshape(-1, x.shape[-1]),
        "unsqueeze(2)": lambda x: x.unsqueeze(2),
        "flip(2)": lambda x: x.flip(2),
        "[:, -1]": lambda x: x[:, -1],
    },
    4: {
        "flatten(1)": lambda x: x.flatten(1),
        "flatten(2)": lambda x: x.flatten(2),
        "view(B, C, -1)": lambda x: x.contiguous().view(x.shape[0], x.shape[1], -1),
        "flatten(2).transpose(1, 2)": lambda x: x.flatten(2).transpose(1, 2),
        "permute(0, 2, 3, 1)": lambda x: x.permute(0, 2, 3, 1),
        "permute(0, 3, 1, 2)": lambda x: x.permute(0, 3, 1, 2),
        "transpose(2, 3)": lambda x: x.transpose(2, 3),
        "permute(0, 2, 3, 1).flatten(0, 2)": lambda x: x.permute(0, 2, 3, 1).flatten(0, 2),
        "flatten(0, 1)": lambda x: x.flatten(0, 1),
        "roll(1, 2)": lambda x: x.roll((1, 2), (2, 3)),
        "flip(3)": lambda x: x.flip(3),
        "pad": lambda x: F.pad(x, (1, 0, 0, 2)),
        "reflected": lambda x: F.pad(x, (1, 1, 0, 0), mode="replicate"),
    },
}  # fmt: skip


def move(b: Builder, i: int) -> bool:
    moves = MOVES.get(len(b.shape(i)))
    if moves is None:
        return False
    text, compute = b.choice(*moves.items())
    return b.add(text, lambda parts, x: compute(x), i)


def divide(b: Builder, i: int) -> bool:
    """Append a reshape that divides the rows of the batch, or the last axis or the channels, into two axes."""
    shape = b.shape(i)
    if shape[0] > BATCH and len(shape) == 2:
        n = shape[0] // BATCH
        return b.add(f"reshape(-1, {n}, C)", lambda parts, x: x.reshape(-1, n, x.shape[-1]), i)
    if len(shape) == 4:
        return False
    axis = b.integer(1, len(shape) - 1)
    n = b.choice(*divisors(shape[axis]))
    if b.chance():
        return b.add(f"unflatten({axis}, ({n}, -1))", lambda parts, x: x.unflatten(axis, (n, -1)), i)
    sizes = [*shape[1:axis], n, shape[axis] // n, *shape[axis + 1 :]]
    return b.add(f"view(B, {sizes})", lambda parts, x: x.reshape(x.shape[0], *sizes), i)


def windows(b: Builder, i: int) -> bool:
    """Append a division of a map into windows that lie in the batch: (B, C, H, W) -> (B windows, pixels, C)."""
    shape = b.shape(i)
    if len(shape) != 4 or shape[2] == 1:
        return False
    rows, columns = b.choice(*divisors(shape[2])), b.choice(*divisors(shape[3]))

    def compute(parts: nn.ModuleList, x: torch.Tensor) -> torch.Tensor:
        batch, channels, height, width = x.shape
        y = x.reshape(batch, channels, height // rows, rows, width // columns, columns)
        return y.permute(0, 2, 4, 3, 5, 1).reshape(-1, rows * columns, channels)

    return b.add(f"windows of {rows} x {columns}", compute, i)


# ---- pools, resizing, activations ----------------------------------------------------------------------------------


def pool(b: Builder, i: int) -> bool:
    shape = b.shape(i)
    if len(shape) == 3 and b.chance():
        return b.add("mean(1)", lambda parts, x: x.mean(1), i)
    if len(shape) != 4:
        return False
    small = min(shape[2:]) < 3
    pools: list[nn.Module] = [nn.AdaptiveAvgPool2d(1), nn.AdaptiveAvgPool2d((3, 2)), nn.AdaptiveMaxPool2d((2, 3))]
    if not small:
        ceil = b.chance()
        pools += [nn.MaxPool2d(2), nn.MaxPool2d(3, 2, 1, ceil_mode=ceil), nn.AvgPool2d(2, ceil_mode=ceil),
                  nn.AvgPool2d(3, 1, 1), nn.AvgPool2d(3, 2, 1, ceil_mode=ceil, count_include_pad=False),
                  nn.AvgPool2d(2, divisor_override=3), nn.MaxPool2d(2, 1, dilation=2)]  # fmt: skip
    text = b.choice("module", "module", "mean", "mean of rank 4", "amax")
    if text == "module":
        return b.add_module(b.choice(*pools), i)
    means = {"mean": lambda x: x.mean((2, 3)), "mean of rank 4": lambda x: x.mean((2, 3), keepdim=True),
             "amax": lambda x: x.amax((2, 3))}  # fmt: skip
    return b.add(text, lambda parts, x: means[text](x), i)


def resize(b: Builder, i: int) -> bool:
    shape = b.shape(i)
    if len(shape) != 4:
        return False
    kinds = ["bilinear", "nearest", "bicubic", "nearest-exact", "unshuffled", "channels shuffled"]
    kind = b.choice("shuffled", *kinds) if shape[1] % 4 == 0 else b.choice(*kinds)
    if kind == "shuffled":
        return b.add_module(nn.PixelShuffle(2), i)
    if kind == "unshuffled":
        return shape[2] % 2 == shape[3] % 2 == 0 and b.add_module(nn.PixelUnshuffle(2), i)
    if kind == "channels shuffled":
        return b.add_module(nn.ChannelShuffle(b.choice(*divisors(shape[1]))), i)
    options: dict[str, Any] = {"mode": kind}
    if kind in ("bilinear", "bicubic"):
        options["align_corners"] = b.chance()
    size: dict[str, Any] = b.choice({"scale_factor": 2}, {"scale_factor": 1.5}, {"size": (5, 7)})
    return b.add(f"resize {options | size}", lambda parts, x: F.interpolate(x, **size, **options), i)


def activation(b: Builder, i: int) -> bool:
    kinds: tuple[nn.Module, ...] = (
        nn.ReLU(), nn.ReLU(inplace=True), nn.GELU(), nn.GELU(approximate="tanh"), nn.SiLU(), nn.Hardswish(),
        nn.LeakyReLU(1.0), nn.LeakyReLU(0.1), nn.Softshrink(0.3), nn.Sigmoid(), nn.Dropout(), nn.Softmax(-1),
        nn.Identity(),
    )  # fmt: skip
    kind = b.choice(*kinds)
    # In place, an older value would be another one for the steps that read it.
    if getattr(kind, "inplace", False):
        return b.add("clone().relu_()", lambda parts, x: x.clone().relu_(), i)
    return b.add_module(kind, i)


def mixing(b: Builder, i: int) -> bool:
    """Append a function of several numbers, which no affine map passes."""
    axis = b.integer(1, len(b.shape(i)) - 1)
    functions: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "cumsum": lambda x: x.cumsum(axis),
        "sort": lambda x: x.sort(axis).values,
        "centred": lambda x: x - x.mean(axis, keepdim=True),
        "sum": lambda x: x.sum(axis, keepdim=True),
        "mean": lambda x: x.mean(axis, keepdim=True),
        "maximum": lambda x: x.amax(axis, keepdim=True),
        "first doubled in place": lambda x: _first_doubled(x, axis),
    }
    text, compute = b.choice(*functions.items())
    return b.add(f"{text} along {axis}", lambda parts, x: compute(x), i)


def _first_doubled(x: torch.Tensor, axis: int) -> torch.Tensor:
    y = x.clone()
    y.narrow(axis, 0, 1).mul_(2)
    return y


# ---- joints and divisions ------------------------------------------------------------------------------------------


def join(b: Builder, i: int) -> bool:
    j = b.choice(*b.alike(i))
    joints: dict[str, Callable[..., torch.Tensor]] = {
        "x + y": lambda x, y: x + y,
        "y - x": lambda x, y: y - x,
        "add(x, y, alpha=2)": lambda x, y: torch.add(x, y, alpha=2),
        "sub(x, y, alpha=3)": lambda x, y: torch.sub(x, y, alpha=3),
        "maximum": torch.maximum,
        "x * sigmoid(y)": lambda x, y: x * y.sigmoid(),
    }
    text, compute = b.choice(*joints.items())
    return b.add(text, lambda parts, x, y: compute(x, y), i, j)


def broadcast(b: Builder, i: int) -> bool:
    """Append a sum, difference or product with a value that has size 1 on some axes."""
    shape = b.shape(i)

    def fits(other: tuple[int, ...]) -> bool:
        sizes = zip(shape[1:], other[1:], strict=True)
        return other[0] == shape[0] and all(size in (1, whole) for whole, size in sizes)

    others = [j for j in range(len(b.values)) if len(b.shape(j)) == len(shape) and fits(b.shape(j))]
    joints: dict[str, Callable[..., torch.Tensor]] = {
        "x + y": lambda x, y: x + y,
        "y - x": lambda x, y: y - x,
        "x * y": lambda x, y: x * y.sigmoid(),
        "maximum": torch.maximum,
    }
    text, compute = b.choice(*joints.items())
    return b.add(f"{text}, broadcast", lambda parts, x, y: compute(x, y), i, b.choice(*others))


def concatenate(b: Builder, i: int) -> bool:
    axis = b.integer(1, len(b.shape(i)) - 1)
    others = b.alike(i, except_axis=axis)
    sources = [i, *(b.choice(*others) for _ in range(b.integer(1, 2)))]
    return b.add(f"cat along {axis}", lambda parts, *xs: torch.cat(xs, axis), *sources)


def separate(b: Builder, i: int) -> bool:
    """Append the parts that chunk, split, unbind or slices make of a value."""
    shape = b.shape(i)
    axis = b.integer(1, len(shape) - 1)
    size = shape[axis]
    if size < 2:
        return False
    kind = b.choice("chunk", "split", "sizes", "slice", "unbind", "select")
    at = b.integer(1, size - 1)
    cuts: dict[str, Callable[[torch.Tensor], torch.Tensor | tuple[torch.Tensor, ...]]] = {
        "chunk": lambda x: x.chunk(2, axis),
        "split": lambda x: torch.split(x, at, axis),
        "sizes": lambda x: torch.split(x, [at, size - at], axis),
        "slice": lambda x: x.narrow(axis, at, size - at),
        "unbind": lambda x: x.unbind(axis)[:2],
        "select": lambda x: x.select(axis, at),
    }
    if kind in ("unbind", "select") and len(shape) == 2:
        return False
    return b.add(f"{kind} along {axis} at {at}", lambda parts, x: cuts[kind](x), i)


# ---- attention -----------------------------------------------------------------------------------------------------


def attention(b: Builder, i: int) -> bool:
    """Append attention of tokens (N, T, C), with one layer for all operands, or with pooled queries."""
    shape = b.shape(i)
    if len(shape) != 3:
        return False
    heads, width = b.integer(1, 2), b.integer(1, 4)
    p = b.part(nn.Linear(shape[-1], 3 * heads * width, bias=b.chance()))
    pooled, kind = b.choice("all", "max", "first", "mean"), b.choice("chunk", "unbind", "split by head")

    def compute(parts: nn.ModuleList, x: torch.Tensor) -> torch.Tensor:
        y = parts[p](x)
        if kind == "chunk":
            operands = [part.reshape(*x.shape[:2], heads, width) for part in y.chunk(3, -1)]
        elif kind == "unbind":
            operands = list(y.reshape(*x.shape[:2], 3, heads, width).unbind(2))
        else:
            operands = list(y.view(*x.shape[:2], heads, -1).split(width, -1))
        pools = {"max": lambda q: q.amax(1, keepdim=True), "first": lambda q: q[:, :1],
                 "mean": lambda q: q.mean(1, keepdim=True), "all": lambda q: q}  # fmt: skip
        operands[0] = pools[pooled](operands[0])
        attended = F.scaled_dot_product_attention(*(operand.transpose(1, 2) for operand in operands))
        return attended.transpose(1, 2).flatten(2)

    return b.add(f"attention, {heads} heads of {width}, queries {pooled}, by {kind}", compute, i)
