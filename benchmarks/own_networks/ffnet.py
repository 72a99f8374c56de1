"""FFNet: Yun, Lee, Ro, "FFNet: MetaMixer-based Efficient Convolutional Mixer Design", arXiv 2406.02021.

The token mixer is self-attention made into a feed-forward network of convolutions. The query is a projection of the
map. A large depthwise kernel that widens each channel takes the place of query times key. GELU takes that of the
softmax, and a large depthwise kernel that narrows takes that of coefficients times value. The channel mixer is a
ConvNeXt block. Large kernels are trained with a small one beside them, each ahead of its own norm. They are deployed as
one kernel.

Assumed, because the abstract that we read does not give it: widths of 64 to 512, depths of 2, 2, 6 and 2, kernels of
7x7 with 3x3 beside them, an expansion of 3, the stem, and BatchNorm. So the network has no published size.
"""

from __future__ import annotations

from torch import Tensor, nn

SIZE = 224
DEPTHS, WIDTHS, LARGE, SMALL, EXPANSION = (2, 2, 6, 2), (64, 128, 256, 512), 7, 3, 3


def normed(inputs: int, outputs: int, size: int, *, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Return a convolution without bias and its BatchNorm."""
    conv = nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


class LargeKernel(nn.Module):
    """A large depthwise kernel and a small one, summed behind their norms; each channel becomes outputs / inputs."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        groups = min(inputs, outputs)
        self.large = normed(inputs, outputs, LARGE, groups=groups)
        self.small = normed(inputs, outputs, SMALL, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.large(x) + self.small(x)
        return result


class TokenMixer(nn.Module):
    """A key-value memory of local patterns: query, depthwise keys, GELU, depthwise values."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query = normed(channels, channels, 1)
        self.keys, self.values = (
            LargeKernel(channels, EXPANSION * channels),
            LargeKernel(EXPANSION * channels, channels),
        )
        self.activation, self.out = nn.GELU(), nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.out(self.values(self.activation(self.keys(self.query(x)))))
        return result


class ChannelMixer(nn.Sequential):
    """A ConvNeXt block's own sequence with BatchNorm: depthwise 7x7, 1x1 that widens, GELU, 1x1 that narrows."""

    def __init__(self, channels: int) -> None:
        hidden = EXPANSION * channels
        layers = (LargeKernel(channels, channels), nn.Conv2d(channels, hidden, 1), nn.GELU())
        super().__init__(*layers, nn.Conv2d(hidden, channels, 1))


class Block(nn.Module):
    """Both mixers, each with a residual connection."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.tokens, self.channels = TokenMixer(channels), ChannelMixer(channels)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.tokens(x)
        result: Tensor = x + self.channels(x)
        return result


class FFNet(nn.Module):
    """A stem, four stages of blocks, and a classifier."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        layers: list[nn.Module] = [normed(3, WIDTHS[0] // 2, 3, stride=2), nn.GELU()]
        before = WIDTHS[0] // 2
        for width, depth in zip(WIDTHS, DEPTHS, strict=True):
            layers += [normed(before, width, 3, stride=2), *(Block(width) for _ in range(depth))]
            before = width
        self.features = nn.Sequential(*layers)
        self.pool, self.norm, self.head = nn.AdaptiveAvgPool2d(1), nn.BatchNorm1d(before), nn.Linear(before, classes)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.head(self.norm(self.pool(self.features(x)).flatten(1)))
        return result


def build() -> nn.Module:
    """Return a network of the size in the module's docstring."""
    return FFNet()
