"""Small networks that the tests of forms are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# A function that builds a network, with the shape of its input.
Case = tuple[Callable[[], nn.Module], tuple[int, ...]]


class Computed(nn.Module):
    """A function of an input and of layers: compute(network, x)."""

    def __init__(self, compute: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        self.compute = compute
        for name, part in parts.items():
            is_index = isinstance(part, Tensor) and not part.is_floating_point()
            is_weight = isinstance(part, Tensor) and not is_index
            setattr(self, name, nn.Buffer(part) if is_index else nn.Parameter(part) if is_weight else part)

    def forward(self, x: Tensor) -> Any:
        return self.compute(self, x)


def of(compute: Callable[..., Any], shape: tuple[int, ...], **parts: Callable[[], Any]) -> Case:
    """Return the case of a function with parts, each of which is built anew."""
    return (lambda: Computed(compute, **{name: build() for name, build in parts.items()}), shape)


def conv(shape: tuple[int, ...], *arguments: Any, **geometry: Any) -> Case:
    return (lambda: nn.Conv2d(*arguments, **geometry), shape)


def depthwise(shape: tuple[int, ...], size: int | tuple[int, int], **geometry: Any) -> Case:
    return conv(shape, 4, 4, size, groups=4, **geometry)


def linear(shape: tuple[int, ...], inputs: int, outputs: int, **options: Any) -> Case:
    return (lambda: nn.Linear(inputs, outputs, **options), shape)


def sequence(shape: tuple[int, ...], *parts: Callable[[], nn.Module]) -> Case:
    return (lambda: nn.Sequential(*(part() for part in parts)), shape)


# ---- parts of networks --------------------------------------------------------------------------------------------


def heads_joined(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(2)


def attend(network: Any, x: Tensor, *, heads: int = 2, place: str = "", fused: bool = True, **options: Any) -> Tensor:
    """Compute attention of tokens (B, N, C), one operator or spelled with its scale at a place."""
    batch, tokens, channels = x.shape
    query, key, value = (
        layer(x).reshape(batch, tokens, heads, channels // heads).transpose(1, 2)
        for layer in (network.q, network.k, network.v)
    )
    if fused:
        result = F.scaled_dot_product_attention(torch.tanh(query), torch.sigmoid(key), value, **options)
        return heads_joined(result)
    # An activation keeps the scale from going into a layer.
    query, key, scale = torch.tanh(query), torch.sigmoid(key), 0.3
    query = query * scale if place == "query" else query
    turned = key.transpose(-2, -1)
    turned = turned / (1 / scale) if place == "key" else turned
    scores = query @ turned
    scores = scores * scale if place == "product" else scores
    if "mask" in options:
        scores = scores + network.mask
    axis = options.get("axis", -1)
    return heads_joined(torch.softmax(scores, axis) @ value)


def attention(shape: tuple[int, int, int], parts: dict[str, Callable[[], Any]] | None = None, **options: Any) -> Case:
    channels = shape[2]
    layers = {name: lambda: nn.Linear(channels, channels) for name in "qkv"}
    return of(lambda network, x: attend(network, x, **options), shape, **layers, **(parts or {}))


def by_columns(network: Any, x: Tensor) -> Tensor:
    """Compute attention of pixels, with channels of a head ahead of them."""
    batch, channels, height, width = x.shape
    maps = (layer(x).reshape(batch, 2, channels // 2, height * width) for layer in (network.q, network.k, network.v))
    query, key, value = (each.transpose(2, 3) for each in maps)
    attended = F.scaled_dot_product_attention(query, key, value)
    result: Tensor = attended.transpose(2, 3).reshape(batch, channels, height, width)
    return result


def plain_heads(network: Any, x: Tensor) -> Tensor:
    """Compute attention of tokens by separate layers, without anything between these and the attention."""
    parts = (layer(x).reshape(x.shape[0], -1, 2, 4).transpose(1, 2) for layer in (network.q, network.k, network.v))
    return heads_joined(F.scaled_dot_product_attention(*parts))


def split_heads(network: Any, x: Tensor) -> Tensor:
    """Compute attention of tokens by one layer, whose channels are split."""
    parts = (part.reshape(x.shape[0], -1, 2, 4).transpose(1, 2) for part in network.layer(x).chunk(3, dim=-1))
    return heads_joined(F.scaled_dot_product_attention(*parts))


def permuted_heads(network: Any, x: Tensor) -> Tensor:
    """Compute attention of tokens by one layer, whose channels are reshaped to parts and heads."""
    batch, tokens, channels = x.shape
    parts = network.layer(x).reshape(batch, tokens, 3, 3, channels // 3).permute(2, 0, 3, 1, 4).unbind(0)
    return heads_joined(F.scaled_dot_product_attention(*parts))


def split_maps(network: Any, x: Tensor) -> Tensor:
    """Compute attention of pixels by one 1x1 convolution, whose channels are split."""
    query, key, value = (part.flatten(2).transpose(1, 2) for part in network.layer(x).split([8, 8, 8], dim=1))
    attended: Tensor = F.scaled_dot_product_attention(query, key, value)
    return attended.transpose(1, 2).reshape(x.shape)


def normed(x: Tensor, axis: int, *, by_variance: bool = False, divides: bool = False) -> Tensor:
    centred = x - x.mean(axis, keepdim=True)
    if by_variance:
        variance = x.var(axis, correction=0, keepdim=True)
    else:
        variance = (centred * centred if divides else centred.pow(2)).mean(axis, keepdim=True)
    result: Tensor = centred / torch.sqrt(variance + 1e-5) if divides else centred * torch.rsqrt(variance + 1e-5)
    return result


def fourier(x: Tensor) -> Tensor:
    """Filter the frequencies of maps; real and imaginary parts separately."""
    spectrum = torch.fft.rfft2(x, norm="ortho")
    spectrum = torch.complex(torch.tanh(spectrum.real), torch.tanh(spectrum.imag))
    filtered: Tensor = torch.fft.irfft2(spectrum, s=x.shape[2:], norm="ortho")
    return filtered


def kronecker(*sizes: int) -> Tensor:
    """Return a Kronecker product of small whole numbers, which float32 rounds nowhere."""
    height, height_out, width, width_out = sizes
    return torch.kron(torch.randint(-9, 9, (height, height_out)), torch.randint(-9, 9, (width, width_out))).float()


def two_sides(network: Any, x: Tensor) -> Tensor:
    return torch.sigmoid(torch.matmul(network.rows, torch.matmul(x, network.columns)))


def convnext(network: Any, x: Tensor) -> Tensor:
    y = x.permute(0, 2, 3, 1)
    y = network.scale * network.second(F.gelu(network.first(y)))
    return torch.tanh(y.permute(0, 3, 1, 2))


def both(network: Any, x: Tensor) -> Tensor:
    """Compute a layer of two maps behind one another."""
    layer: Tensor = network.layer(torch.cat((F.relu(x), torch.tanh(x)), network.axis))
    return layer


def apart(network: Any, x: Tensor) -> Tensor:
    total: Tensor = network.first(F.relu(x)) + network.second(torch.tanh(x))
    return total


def alike(names: Iterable[str], cases: list[Case]) -> dict[str, list[Case]]:
    return {name: list(cases) for name in names}


def statistics(norm: nn.Module) -> nn.Module:
    """Return a batch norm with running statistics that are not those of a new one."""
    with torch.no_grad():
        for name, value in {**dict(norm.named_parameters()), **dict(norm.named_buffers())}.items():
            if value.is_floating_point():
                value.copy_(torch.rand_like(value) + (0.5 if "var" in name else 0.0))
    return norm
