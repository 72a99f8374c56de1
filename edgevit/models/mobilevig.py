"""MobileViG (Munir et al., arXiv 2307.00395): inverted residuals, then convolutions on a fixed graph. Training form.

Sparse vision graph attention links each pixel to every second pixel of its row and of its column, so a neighbour is
found by rolling the map and no graph is ever built. Every convolution has a bias, BatchNorm's eps is 1e-5, GELU exact.
Keys and shapes are those of the official checkpoints (github.com/SLDGroup/MobileViG, Apache-2.0), words and code ours.

Departure from the official code: none in what is computed.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from edgevit.models.layers import DropPath
from edgevit.records.model import ModelCard, Preprocessing, PublishedLatency
from edgevit_runtime.record import TensorSpec

HOP = 2  # K of the paper: distance between linked pixels of a row or column
RATIO = 4  # hidden over outer channels, in inverted residuals and FFNs
DROP_PATH = 0.1  # of the last block; grows linearly from 0 at the first


class Stem(nn.Module):
    """Two strided 3x3 convolutions: (N, 3, H, W) -> (N, C/2, H/2, W/2) -> (N, C, H/4, W/4)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        first = (*_conv_bn(3, channels // 2, kernel=3, stride=2), nn.GELU())
        second = (*_conv_bn(channels // 2, channels, kernel=3, stride=2), nn.GELU())
        self.stem = nn.Sequential(*first, *second)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, 3, H, W) to (N, C, H/4, W/4)."""
        out: Tensor = self.stem(x)
        return out


class LocalMLP(nn.Module):
    """1x1 up, depthwise 3x3, 1x1 down, each with BatchNorm: (N, C, H, W) -> (N, 4C, H, W) -> (N, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = RATIO * channels
        self.fc1 = nn.Conv2d(channels, hidden, 1)
        self.norm1 = nn.BatchNorm2d(hidden)
        self.mid = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.mid_norm = nn.BatchNorm2d(hidden)
        self.fc2 = nn.Conv2d(hidden, channels, 1)
        self.norm2 = nn.BatchNorm2d(channels)
        self.act = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, H, W)."""
        x = self.act(self.norm1(self.fc1(x)))  # -> (N, 4C, H, W)
        x = self.act(self.mid_norm(self.mid(x)))
        out: Tensor = self.norm2(self.fc2(x))  # -> (N, C, H, W)
        return out


class InvertedResidual(nn.Module):
    """x + layer_scale * MLP(x), the block of the three local stages. Keeps (N, C, H, W)."""

    def __init__(self, channels: int, drop_path: float) -> None:
        super().__init__()
        self.layer_scale_2 = nn.Parameter(torch.full((channels, 1, 1), 1e-5))
        self.mlp = LocalMLP(channels)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, H, W)."""
        branch: Tensor = self.drop_path(self.layer_scale_2 * self.mlp(x))
        return x + branch


class Downsample(nn.Module):
    """Strided 3x3 convolution and BatchNorm between stages: (N, C, H, W) -> (N, C', H/2, W/2)."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = _conv_bn(channels, out_channels, kernel=3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C', H/2, W/2)."""
        out: Tensor = self.conv(x)
        return out


class MaxRelativeConv(nn.Module):
    """Max-relative graph convolution (Li et al., arXiv 1904.03751) on the fixed graph: (N, C, H, W) -> (N, 2C, H, W).

    Each pixel joins its features with the largest difference x - neighbour over its links, itself (0) among them.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.nn = nn.Sequential(*_conv_bn(2 * channels, 2 * channels), nn.GELU())

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, 2C, H, W)."""
        relative = torch.zeros_like(x)  # the pixel's difference to itself
        for axis in (2, 3):
            for shift in range(HOP, x.shape[axis], HOP):  # 7 pixels a side: 2, 4, 6; the wrap mixes parities
                relative = torch.maximum(relative, x - torch.roll(x, shift, axis))
        out: Tensor = self.nn(torch.cat((x, relative), dim=1))  # (N, 2C, H, W)
        return out


class Grapher(nn.Module):
    """Graph convolution between two 1x1 convolutions, plus the shortcut. Keeps (N, C, H, W)."""

    def __init__(self, channels: int, drop_path: float) -> None:
        super().__init__()
        self.fc1 = _conv_bn(channels, channels)
        self.graph_conv = MaxRelativeConv(channels)
        self.fc2 = _conv_bn(2 * channels, channels)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, H, W)."""
        branch: Tensor = self.drop_path(self.fc2(self.graph_conv(self.fc1(x))))  # through (N, 2C, H, W)
        return x + branch


class FFN(nn.Module):
    """Two 1x1 convolutions with GELU between them, plus the shortcut; no layer scale. Keeps (N, C, H, W)."""

    def __init__(self, channels: int, drop_path: float) -> None:
        super().__init__()
        self.fc1 = _conv_bn(channels, RATIO * channels)
        self.act = nn.GELU()
        self.fc2 = _conv_bn(RATIO * channels, channels)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, H, W)."""
        branch: Tensor = self.drop_path(self.fc2(self.act(self.fc1(x))))  # through (N, 4C, H, W)
        return x + branch


class MobileViG(nn.Module):
    """The training form: image (N, 3, H, W), ImageNet-normalised -> logits (N, classes).

    Trained with a second classifier on a teacher's labels (DeiT's distillation, arXiv 2012.12877): in training mode
    forward returns both heads' logits, in evaluation mode their mean.
    """

    def __init__(
        self,
        local_blocks: tuple[int, ...],
        local_channels: tuple[int, ...],
        global_blocks: int,
        global_channels: int,
        embedding: int,
        *,
        classes: int = 1000,
    ) -> None:
        super().__init__()
        rates = iter(torch.linspace(0.0, DROP_PATH, sum(local_blocks) + global_blocks, device="cpu").tolist())
        self.stem = Stem(local_channels[0])
        self.local_backbone = nn.ModuleList()
        exits = (*local_channels[1:], global_channels)
        for blocks, channels, out_channels in zip(local_blocks, local_channels, exits, strict=True):
            self.local_backbone.extend(InvertedResidual(channels, next(rates)) for _ in range(blocks))
            self.local_backbone.append(Downsample(channels, out_channels))
        self.backbone = nn.ModuleList(
            nn.Sequential(Grapher(global_channels, rate), FFN(global_channels, rate)) for rate in rates
        )
        pool, embed = nn.AdaptiveAvgPool2d(1), _conv_bn(global_channels, embedding)
        self.prediction = nn.Sequential(pool, *embed, nn.GELU())
        self.head = nn.Conv2d(embedding, classes, 1)
        self.dist_head = nn.Conv2d(embedding, classes, 1)
        self.apply(_initialise)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Map an image (N, 3, H, W) to logits (N, classes); in training mode those of both heads."""
        x = self.stem(x)  # (N, 3, 224, 224) -> (N, C0, 56, 56)
        for layer in self.local_backbone:
            x = layer(x)  # 56 -> 28 -> 14 -> 7 pixels a side
        for layer in self.backbone:
            x = layer(x)  # (N, C, 7, 7)
        x = self.prediction(x)  # -> (N, E, 1, 1)
        logits: Tensor = self.head(x).flatten(1)  # -> (N, 1000)
        distilled: Tensor = self.dist_head(x).flatten(1)
        return (logits, distilled) if self.training else (logits + distilled) / 2


def _conv_bn(inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> nn.Sequential:
    """Build a convolution with a bias, padded by half its kernel, then BatchNorm: (N, C, H, W) -> (N, C', H/s, W/s)."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2), nn.BatchNorm2d(outputs))


def _initialise(module: nn.Module) -> None:
    """Apply the official initialisation: He's normal for convolutions, biases zero."""
    if isinstance(module, nn.Conv2d) and module.bias is not None:
        nn.init.kaiming_normal_(module.weight)
        nn.init.zeros_(module.bias)


# --- variants -----------------------------------------------------------------------------------------------------

# name -> local blocks, local channels, global blocks, global channels, embedding
_SHAPES: Mapping[str, tuple[tuple[int, ...], tuple[int, ...], int, int, int]] = {
    "mobilevig_ti": ((2, 2, 6), (42, 84, 168), 2, 256, 512),
    "mobilevig_s": ((3, 3, 9), (42, 84, 176), 3, 256, 512),
    "mobilevig_m": ((3, 3, 9), (42, 84, 224), 3, 400, 768),
    "mobilevig_b": ((5, 5, 15), (42, 84, 240), 5, 464, 768),
}

_PAPER = "abstract of arXiv 2307.00395, Neural Engine"
_THIRD_PARTY = "third party: RepViT paper, arXiv 2307.09283"
# name -> top-1 percent, device, milliseconds, who says so. The paper's own numbers for s and m were not readable.
_PUBLISHED: Mapping[str, tuple[float, str, float, str]] = {
    "mobilevig_ti": (75.7, "iPhone 13 Mini", 0.78, _PAPER),
    "mobilevig_s": (78.2, "iPhone 12", 1.2, _THIRD_PARTY),
    "mobilevig_m": (80.6, "iPhone 12", 1.6, _THIRD_PARTY),
    "mobilevig_b": (82.6, "iPhone 13 Mini", 2.30, _PAPER),
}


def _card(name: str, top1_percent: float, device: str, latency_ms: float, latency_source: str) -> ModelCard:
    return ModelCard(
        name=name,
        family="mobilevig",
        inputs=(TensorSpec("image", (-1, 3, 224, 224), "float32"),),
        source="arXiv 2307.00395; github.com/SLDGroup/MobileViG",
        licence="Apache-2.0",
        provenance="published",
        top1_percent=top1_percent,
        top1_source="arXiv 2307.00395",
        latencies=(PublishedLatency(device, "Core ML", "not stated", latency_ms, latency_source),),
        preprocessing=Preprocessing(crop_pct=0.9),
    )


CARDS: tuple[ModelCard, ...] = tuple(_card(name, *facts) for name, facts in _PUBLISHED.items())


def build(name: str, *, classes: int = 1000) -> MobileViG:
    """Build the variant called `name`, in training form and mode, with the official random initialisation."""
    return MobileViG(*_SHAPES[name], classes=classes)
