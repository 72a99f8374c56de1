"""Reparameterizable blocks as people write them, in the styles of well-known networks. None knows edgevit."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def conv_bn(inputs: int, outputs: int, size: int | tuple[int, int], *, bias: bool = False, **options: Any) -> nn.Module:
    """Build a convolution padded so that stride 1 keeps the size, then BatchNorm."""
    sizes = (size, size) if isinstance(size, int) else size
    dilation = options.get("dilation", 1)
    padding = (dilation * (sizes[0] // 2), dilation * (sizes[1] // 2))
    conv = nn.Conv2d(inputs, outputs, sizes, padding=padding, bias=bias, **options)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


class RepVGG(nn.Module):
    """A RepVGG block: kxk, 1x1 and, where it fits, the map itself, each with BatchNorm; one ReLU."""

    def __init__(self, inputs: int, outputs: int, size: int, *, stride: int, groups: int, dilation: int, bias: bool):
        super().__init__()
        options: dict[str, Any] = {"stride": stride, "groups": groups}
        self.dense = conv_bn(inputs, outputs, size, dilation=dilation, bias=bias, **options)
        self.point = conv_bn(inputs, outputs, 1, bias=bias, **options)
        self.same = nn.BatchNorm2d(inputs) if inputs == outputs and stride == 1 else None

    def forward(self, x: Tensor) -> Tensor:
        same = 0 if self.same is None else self.same(x)
        return F.relu(self.dense(x) + self.point(x) + same)


class MobileOne(nn.Module):
    """Any number of equal branches, a 1x1 beside them and a BatchNorm alone, summed in a loop."""

    def __init__(self, inputs: int, outputs: int, size: int, *, stride: int, groups: int, branches: int, bias: bool):
        super().__init__()
        options: dict[str, Any] = {"stride": stride, "groups": groups, "bias": bias}
        self.skip = nn.BatchNorm2d(inputs) if inputs == outputs and stride == 1 else None
        self.scale = conv_bn(inputs, outputs, 1, **options) if size > 1 else None
        self.convs = nn.ModuleList(conv_bn(inputs, outputs, size, **options) for _ in range(branches))

    def forward(self, x: Tensor) -> Tensor:
        out: Any = self.skip(x) if self.skip is not None else 0
        if self.scale is not None:
            out += self.scale(x)
        for conv in self.convs:
            out = out + conv(x)
        result: Tensor = out
        return result


class Residual(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x + self.inner(x)
        return result


class RepViT(nn.Module):
    """Depthwise kxk with BatchNorm, a depthwise 1x1 without, and the map: their sum is normed. Then a bottleneck."""

    def __init__(self, channels: int, size: int, *, squeeze: bool) -> None:
        super().__init__()
        self.conv = conv_bn(channels, channels, size, groups=channels)
        self.conv1 = nn.Conv2d(channels, channels, 1, groups=channels)
        self.bn = nn.BatchNorm2d(channels)
        self.squeeze = nn.Sequential(nn.Conv2d(channels, 2, 1), nn.ReLU(inplace=True), nn.Conv2d(2, channels, 1))
        self.squeezes = squeeze
        mixer = (conv_bn(channels, 2 * channels, 1), nn.GELU(), conv_bn(2 * channels, channels, 1))
        self.channel_mixer = Residual(nn.Sequential(*mixer))

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn((self.conv(x) + self.conv1(x)) + x)
        if self.squeezes:
            x = x * self.squeeze(x.mean((2, 3), keepdim=True)).sigmoid()
        result: Tensor = self.channel_mixer(x)
        return result


class RepViTHead(nn.Module):
    """BatchNorm and a linear layer, twice; in inference the mean of both."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.head, self.distilled = (
            nn.Sequential(nn.BatchNorm1d(channels), nn.Linear(channels, classes)) for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = F.adaptive_avg_pool2d(x, 1).flatten(1)
        result: Tensor = (self.head(x) + self.distilled(x)) / 2
        return result


class FastViT(nn.Module):
    """x + scale (mixer(x) - norm(x)), a large depthwise kernel beside a small one, an MLP with layer scale."""

    def __init__(self, channels: int, size: int, *, branches: int) -> None:
        super().__init__()
        options: dict[str, Any] = {"stride": 1, "groups": channels, "bias": False}
        self.norm = MobileOne(channels, channels, 1, branches=0, **options)
        self.mixer = MobileOne(channels, channels, 3, branches=branches, **options)
        self.layer_scale = nn.Parameter(torch.ones(channels, 1, 1))
        self.position = nn.Conv2d(channels, channels, size, padding=size // 2, groups=channels)
        self.large = conv_bn(channels, channels, 7, groups=channels)
        self.small = conv_bn(channels, channels, size, groups=channels)
        self.fc1, self.fc2 = nn.Conv2d(channels, 2 * channels, 1), nn.Conv2d(2 * channels, channels, 1)
        self.mlp_scale = nn.Parameter(torch.ones(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.layer_scale * (self.mixer(x) - self.norm(x))
        x = F.gelu(x)
        x = self.position(x) + x
        y = self.large(x)
        y += self.small(x)
        result: Tensor = x + self.mlp_scale * self.fc2(F.gelu(self.fc1(y)))
        return result


class ACNet(nn.Module):
    """A square kernel and its row and column, each with BatchNorm."""

    def __init__(self, inputs: int, outputs: int, size: int, *, stride: int, groups: int, dilation: int) -> None:
        super().__init__()
        options: dict[str, Any] = {"stride": stride, "groups": groups, "dilation": dilation}
        self.square = conv_bn(inputs, outputs, size, **options)
        self.row = conv_bn(inputs, outputs, (1, size), **options)
        self.column = conv_bn(inputs, outputs, (size, 1), **options)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu((self.row(x) + self.column(x)) + self.square(x), inplace=True)


class LowRank(nn.Module):
    """A linear layer with a low-rank adapter beside it."""

    def __init__(self, channels: int, rank: int, alpha: float) -> None:
        super().__init__()
        self.base = nn.Linear(channels, channels)
        self.down, self.up = nn.Linear(channels, rank, bias=False), nn.Linear(rank, channels, bias=False)
        self.scaling = alpha / rank

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.base(x) + self.up(self.down(x)) * self.scaling
        return result


class Affine(nn.Module):
    """alpha x + beta on the last axis, as in networks without norms."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha, self.beta = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return self.alpha * x + self.beta


class Scale(nn.Module):
    """A learned factor per channel on the last axis."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


class Mixer(nn.Module):
    """Tokens and channels mixed in turn, between affine maps and with scales on the way back."""

    def __init__(self, tokens: int, channels: int) -> None:
        super().__init__()
        self.before_tokens, self.before_channels = Affine(channels), Affine(channels)
        self.tokens = nn.Linear(tokens, tokens)
        self.channels = nn.Sequential(nn.Linear(channels, 2 * channels), nn.GELU(), nn.Linear(2 * channels, channels))
        self.after_channels = Scale(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.tokens(self.before_tokens(x).transpose(1, 2)).transpose(1, 2)
        result: Tensor = x + self.after_channels(self.channels(self.before_channels(x)))
        return result


class Encoder(nn.Module):
    """A pre-norm transformer block with adapters on its queries and layer scales on its branches."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.query, self.heads = LowRank(channels, 2, 4.0), heads
        self.key, self.value, self.out = (nn.Linear(channels, channels) for _ in range(3))
        self.mlp = nn.Sequential(nn.Linear(channels, 2 * channels), nn.GELU(), nn.Linear(2 * channels, channels))
        self.scale1, self.scale2 = Scale(channels), Scale(channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        parts = (part(y).unflatten(2, (self.heads, -1)).transpose(1, 2) for part in (self.query, self.key, self.value))
        y = F.scaled_dot_product_attention(*parts).transpose(1, 2).flatten(2)
        x = x + self.scale1(self.out(y))
        result: Tensor = x + self.scale2(self.mlp(self.norm2(x)))
        return result


def decoder(channels: Sequence[int], *, groups: int, bias: bool) -> nn.Module:
    """Build transposed convolutions with BatchNorm, as in generators and segmentation heads."""
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(channels):
        layer = nn.ConvTranspose2d(inputs, outputs, 3, 2, 1, 1, groups=groups, bias=bias)
        layers += [layer, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)
