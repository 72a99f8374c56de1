"""HorNet-T: Rao, Zhao, Tang, Zhou, Lim, Lu, "HorNet: Efficient High-Order Spatial Interactions with Recursive Gated
Convolutions", NeurIPS 2022, arXiv 2207.14284.

A recursive gated convolution of order n projects the map to p_0 and q_0 .. q_{n-1}, whose widths double from
C / 2^(n-1) to C. One depthwise convolution of all q together mixes space. Then p_{k+1} = g_k(p_k) * q_k / alpha, where
g_k is a 1x1 convolution that doubles the width and g_0 is the identity. This mixer replaces the depthwise convolution
of a ConvNeXt block. Published are 22.4 million parameters and 4.0 GMACs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

SIZE = 224
DEPTHS, WIDTH, KERNEL, ALPHA = (2, 3, 18, 2), 64, 7, 3.0


class MapNorm(nn.LayerNorm):
    """LayerNorm over the channels of an NCHW map."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class GatedConvolution(nn.Module):
    """A recursive gated convolution of an order."""

    def __init__(self, channels: int, order: int) -> None:
        super().__init__()
        self.widths = [channels >> (order - 1 - step) for step in range(order)]
        total = sum(self.widths)
        self.project_in = nn.Conv2d(channels, self.widths[0] + total, 1)
        self.spatial = nn.Conv2d(total, total, KERNEL, padding=KERNEL // 2, groups=total)
        pairs = zip(self.widths, self.widths[1:], strict=False)
        self.gates = nn.ModuleList(nn.Conv2d(narrow, wide, 1) for narrow, wide in pairs)
        self.project_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        projected = self.project_in(x)
        p, q = projected[:, : self.widths[0]], projected[:, self.widths[0] :]
        features = torch.split(self.spatial(q) / ALPHA, self.widths, dim=1)
        p = p * features[0]
        for gate, feature in zip(self.gates, features[1:], strict=True):
            p = gate(p) * feature
        result: Tensor = self.project_out(p)
        return result


class Block(nn.Module):
    """A mixer and a feed-forward network, each behind a norm and with a layer scale."""

    def __init__(self, channels: int, order: int) -> None:
        super().__init__()
        self.mixer_norm, self.mixer = MapNorm(channels, eps=1e-6), GatedConvolution(channels, order)
        self.channel_norm = nn.LayerNorm(channels, eps=1e-6)
        self.channel = nn.Sequential(nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels))
        self.mixer_scale = nn.Parameter(torch.full((channels,), 1e-6))
        self.channel_scale = nn.Parameter(torch.full((channels,), 1e-6))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.mixer_scale[:, None, None] * self.mixer(self.mixer_norm(x))
        tokens = self.channel_scale * self.channel(self.channel_norm(x.permute(0, 2, 3, 1)))
        y: Tensor = x + tokens.permute(0, 3, 1, 2)
        return y


class HorNet(nn.Module):
    """Four stages of blocks, of order 2, 3, 4 and 5."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, WIDTH, 4, 4), MapNorm(WIDTH, eps=1e-6)]
        for stage, depth in enumerate(DEPTHS):
            width = WIDTH << stage
            if stage:
                layers += [MapNorm(width // 2, eps=1e-6), nn.Conv2d(width // 2, width, 2, 2)]
            layers += [Block(width, stage + 2) for _ in range(depth)]
        self.features = nn.Sequential(*layers)
        self.norm, self.head = nn.LayerNorm(width, eps=1e-6), nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.head(self.norm(self.features(x).mean((2, 3))))
        return result


def build() -> nn.Module:
    """Return HorNet-T with kernels of 7x7."""
    return HorNet()
