"""Sequences of steps that rewrites look for, and that independent draws seldom make; see random_motifs.py."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from support.random_networks import Builder, Vector


def affine_before_layer(b: Builder, i: int) -> bool:
    """Append a norm, scale or shift behind an activation, and one convolution or two that read it, often padded."""
    shape = b.shape(i)
    if len(shape) != 4:
        return False
    channels, kind = shape[1], b.choice("norm", "scale", "shift", "group norm")
    norms = {"norm": nn.BatchNorm2d(channels), "group norm": nn.GroupNorm(1, channels)}
    p = b.part(norms.get(kind) or Vector(channels, 1, 1))
    layers = [b.part(_convolution(b, channels)) for _ in range(b.integer(1, 2))]

    def compute(parts: nn.ModuleList, x: Tensor) -> tuple[Tensor, ...]:
        y = x.relu()
        weight = parts[p].weight if kind in ("scale", "shift") else None
        y = parts[p](y) if weight is None else y * weight if kind == "scale" else y + weight  # type: ignore[operator]
        return tuple(parts[q](y) for q in layers)

    return b.add(f"relu, {kind}, {[str(b.parts[q]) for q in layers]}", compute, i)


def _convolution(b: Builder, channels: int) -> nn.Conv2d:
    size = b.choice(1, 3, 3)
    groups = b.choice(*(g for g in (1, 2, channels) if channels % g == 0))
    padding = b.choice(0, size // 2, 1) if size == 3 else b.choice(0, 0, 1)
    # A kernel of three fits any map that is padded.
    padding = 1 if size == 3 else padding
    return nn.Conv2d(channels, groups * b.integer(1, 3), size, padding=padding, groups=groups, bias=b.chance())


def layers_in_sequence(b: Builder, i: int) -> bool:
    """Append two convolutions, one of them pointwise, with nothing between, or with what a shift passes."""
    shape = b.shape(i)
    if len(shape) != 4 or min(shape[2:]) < 6:
        return False
    channels = b.choice(1, 2, 4)
    first = nn.Conv2d(shape[1], channels, b.choice(1, 1, 3), padding=b.integer(0, 1), bias=b.chance())
    groups = b.choice(*(g for g in (1, 2) if channels % g == 0))
    second = nn.Conv2d(
        channels, b.choice(2, 4), b.choice(1, 1, 3), padding=b.integer(0, 1), groups=groups, bias=b.chance()
    )
    between: dict[str, Callable[[Tensor], Tensor]] = {
        "nothing": lambda x: x,
        "a roll": lambda x: x.roll(1, 3),
        "a pool": lambda x: F.max_pool2d(x, 2, 1),
        "a maximum": lambda x: torch.maximum(x, x.roll(1, 2)),
        "a difference": lambda x: torch.cat((x, x - x.roll(1, 2)), 1)[:, : x.shape[1]],
        "a padding": lambda x: F.pad(x, (1, 1, 1, 1)),
        "an average": lambda x: F.avg_pool2d(x, 2, 1),
    }
    text, passes = b.choice(*between.items())
    p, q = b.part(first), b.part(second)
    return b.add(f"{first}, {text}, {second}", lambda parts, x: parts[q](passes(parts[p](x))), i)


def norm_before_average(b: Builder, i: int) -> bool:
    """Append a norm behind an activation, an average over windows, and a layer behind it."""
    shape = b.shape(i)
    if len(shape) != 4 or min(shape[2:]) < 3:
        return False
    averages: dict[str, Callable[[Tensor], Tensor]] = {
        "windows": lambda x: F.avg_pool2d(x, 2),
        "padded windows": lambda x: F.avg_pool2d(x, 3, 2, 1),
        "padded windows, not counted": lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
        "windows by another number": lambda x: F.avg_pool2d(x, 2, divisor_override=3),
        "all pixels": lambda x: x.mean((2, 3), keepdim=True),
    }
    text, average = b.choice(*averages.items())
    p, q = b.part(nn.BatchNorm2d(shape[1])), b.part(nn.Conv2d(shape[1], b.integer(1, 4), 1, bias=b.chance()))
    return b.add(f"relu, norm, {text}, layer", lambda parts, x: parts[q](average(parts[p](x.relu()))), i)


def token_norm_before_layers(b: Builder, i: int) -> bool:
    """Append a LayerNorm with scale and shift, and layers that read it; one of them may read other channels."""
    shape = b.shape(i)
    if len(shape) != 3 or shape[-1] < 3:
        return False
    p = b.part(nn.LayerNorm(shape[-1], bias=b.chance()))
    q, r = (b.part(nn.Linear(shape[-1], b.integer(1, 4), bias=b.chance())) for _ in range(2))
    both = b.chance()

    def compute(parts: nn.ModuleList, x: Tensor) -> tuple[Tensor, ...]:
        y = parts[p](x)
        return (parts[q](y), parts[r](y)) if both else (parts[q](y),)

    return b.add(f"LayerNorm, {1 + both} layers", compute, i)


def few_maxima(b: Builder, i: int) -> bool:
    """Append the maximum over an axis of a few slices, as pooled queries have it."""
    shape = b.shape(i)
    axes = [axis for axis in range(1, len(shape) - 1) if shape[axis] % 3 == 0 or shape[axis] % 2 == 0]
    if not axes:
        return False
    axis = b.choice(*axes)
    n = b.choice(*(n for n in (2, 3, 4) if shape[axis] % n == 0))
    return b.add(f"maximum of {n} along {axis}", lambda parts, x: x.unflatten(axis, (n, -1)).amax(axis), i)


def few_queries(b: Builder, i: int) -> bool:
    """Append attention of one query on many tokens, where late projection of keys and values is cheaper."""
    shape = b.shape(i)
    if len(shape) != 4 or shape[2] * shape[3] < 12:
        return False
    heads, width, channels = b.integer(1, 2), b.choice(4, 6), shape[1]
    p, q = (b.part(nn.Linear(channels, n * heads * width, bias=b.chance())) for n in (2, 1))
    own_scale = b.chance()

    def compute(parts: nn.ModuleList, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        queries = parts[q](tokens.mean(1, keepdim=True))
        operands = [queries, *parts[p](tokens).chunk(2, -1)]
        split = [operand.reshape(x.shape[0], -1, heads, width).transpose(1, 2) for operand in operands]
        query, key, value = split
        attended = F.scaled_dot_product_attention(query, key, value, scale=0.3 if own_scale else None)
        return attended.transpose(1, 2).reshape(x.shape[0], 1, heads * width)

    return b.add(f"one query, {heads} heads of {width}, own scale {own_scale}", compute, i)


def fourier(b: Builder, i: int) -> bool:
    """Append a Fourier transform, a product with complex weights or a function of both parts, and its inverse."""
    shape = b.shape(i)
    if len(shape) != 4 or min(shape[2:]) < 2:
        return False
    height, width = shape[2:]
    norm, kind = b.choice("ortho", "backward", "forward"), b.choice("product", "function", "layer")
    p = b.part(Vector(shape[1], height, width // 2 + 1, 2))
    q = b.part(Vector(shape[1], shape[1], 2))

    def compute(parts: nn.ModuleList, x: Tensor) -> Tensor:
        spectrum = torch.fft.rfft2(x, norm=norm)
        if kind == "product":
            spectrum = spectrum * torch.view_as_complex(parts[p].weight)  # type: ignore[arg-type]
        elif kind == "function":
            spectrum = torch.complex(F.softshrink(spectrum.real, 0.1), F.softshrink(spectrum.imag, 0.1))
        else:
            spectrum = torch.einsum("nihf,io->nohf", spectrum, torch.view_as_complex(parts[q].weight))  # type: ignore[arg-type]
        result: Tensor = torch.fft.irfft2(spectrum, s=(height, width), norm=norm)
        return result

    return b.add(f"Fourier transform {norm}, {kind}", compute, i)


def regrouped(b: Builder, i: int) -> bool:
    """Append a reordering of one axis by three transpositions, as windows in windows have it."""
    shape = b.shape(i)
    if len(shape) != 3 or shape[1] % 4:
        return False

    def compute(parts: nn.ModuleList, x: Tensor) -> Tensor:
        batch, tokens, channels = x.shape
        y = x.reshape(batch, 2, 2, -1, channels).transpose(1, 2).reshape(batch, 2, -1, channels).transpose(1, 2)
        return y.reshape(batch, -1, 2, channels).transpose(1, 2).reshape(batch, tokens, channels)

    return b.add("axis 1 by three transpositions", compute, i)


def repeated_layer(b: Builder, i: int) -> bool:
    """Append two calls of one layer, each followed by a scale of its own, equal or not, and by a reshape or none."""
    shape = b.shape(i)
    if len(shape) != 4:
        return False
    p = b.part(nn.Conv2d(shape[1], b.integer(1, 4), 1, bias=b.chance()))
    channels = b.parts[p].out_channels
    q, r = (b.part(nn.BatchNorm2d(channels)) for _ in range(2))  # type: ignore[arg-type]
    is_equal = b.chance()

    def compute(parts: nn.ModuleList, x: Tensor) -> tuple[Tensor, Tensor]:
        return parts[q](parts[p](x)), parts[q if is_equal else r](parts[p](x.flip(-1)))

    return b.add(f"one layer twice, norms equal {is_equal}", compute, i)
