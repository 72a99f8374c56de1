"""FMViT (Tan et al., arXiv 2311.05707): convolution and attention mixed by frequency. Training form, reconstructed.

No code and no weights of it are public. The abstract names four parts, and each is a class here: the multi-group
reparameterization gMLP, the lightweight attention RLMHSA, the convolutional fusion block CFB, and the mixing of high-
and low-frequency features. Their insides, the depths and the widths are ours, on the skeleton of Next-ViT (Li et al.,
arXiv 2207.05501); widths are such that folded params and MACs are the published ones. What is whose: docs/fmvit.md.

Every norm is a BatchNorm and each has a linear map beside it, so that all of them fold: a norm ahead of a map is read
by 1x1 convolutions and pooling only, because the zeros around a padded one would not get its shift.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgevit.models.layers import DropPath
from edgevit.records.model import ModelCard
from edgevit_runtime.record import TensorSpec

HEAD = 16  # channels of an attention head, and of a group of the widest grouped branch
GROUPS = (1, 2, 4)  # of the branches of a multi-group convolution, times the groups of the widest one
LOW = 3 / 4  # of a mixing block's channels, those that attend: the ratio of the paper's ancestor
CFB_RATIO, MIX_RATIO = 3, 2  # hidden over outer channels of the gMLP in either block
KEYS = 7  # pixels a side that keys and values are pooled to, at 224x224
DROP_PATH = 0.1  # of the last block; grows linearly from 0 at the first


class MultiGroupConv(nn.Module):
    """gMLP's convolution: the mean of branches of g, 2g and 4g groups, each with BatchNorm. Padded by half its kernel.

    A kernel over 1x1 has a 1x1 branch of g groups beside them, and where the channels stay a BatchNorm alone is the
    last branch. The partitions nest, so that the mean is one convolution of g groups: (N, C, H, W) -> (N, C', H, W).
    A mean and not a sum, so that what a block adds does not grow with its branches: sums of untrained ones reach 1e9.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, groups: int = 1) -> None:
        super().__init__()
        branches = [_conv_bn(inputs, outputs, kernel, groups=groups * times) for times in GROUPS]
        if kernel > 1:
            branches.append(_conv_bn(inputs, outputs, groups=groups))
        if inputs == outputs:
            branches.append(nn.Sequential(nn.BatchNorm2d(outputs)))
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C', H, W)."""
        first, *others = self.branches
        out: Tensor = first(x)
        for branch in others:
            out = out + branch(x)
        return out / len(self.branches)


class GMLP(nn.Module):
    """x + two multi-group 1x1 convolutions after a norm, with ReLU between: C -> ratio C -> C. Keeps (N, C, H, W)."""

    def __init__(self, channels: int, ratio: int, drop_path: float) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.expand = MultiGroupConv(channels, ratio * channels)
        self.reduce = MultiGroupConv(ratio * channels, channels)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, H, W)."""
        branch: Tensor = self.drop_path(self.reduce(F.relu(self.expand(self.norm(x)))))  # through (N, rC, H, W)
        return x + branch


class LocalMixer(nn.Module):
    """x + a multi-group 3x3 of 16 channels a group, ReLU, a multi-group 1x1: high frequencies. Keeps (N, C, H, W)."""

    def __init__(self, channels: int, drop_path: float) -> None:
        super().__init__()
        self.conv = MultiGroupConv(channels, channels, kernel=3, groups=channels // HEAD)
        self.project = MultiGroupConv(channels, channels)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, H, W)."""
        branch: Tensor = self.drop_path(self.project(F.relu(self.conv(x))))
        return x + branch


class CFB(nn.Module):
    """Convolutional fusion block: pixels fused by the local mixer, then channels by gMLP. Keeps (N, C, H, W)."""

    def __init__(self, channels: int, drop_path: float) -> None:
        super().__init__()
        self.mixer = LocalMixer(channels, drop_path)
        self.mlp = GMLP(channels, CFB_RATIO, drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, H, W)."""
        out: Tensor = self.mlp(self.mixer(x))
        return out


class RLMHSA(nn.Module):
    """x + lightweight multi-head self-attention: low frequencies. Keeps (N, C, H, W).

    Light, because keys and values come from the map average-pooled by `pool`: P = HW / pool^2 instead of HW. All four
    projections are multi-group 1x1 convolutions, which fold to one 1x1 each; no LayerNorm, and no tensor above rank 4.
    """

    def __init__(self, channels: int, pool: int, drop_path: float) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.pool = nn.AvgPool2d(pool) if pool > 1 else nn.Identity()
        self.query, self.key, self.value, self.project = (MultiGroupConv(channels, channels) for _ in range(4))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, H, W)."""
        normed = self.norm(x)
        pooled = self.pool(normed)  # (N, C, H / pool, W / pool)
        query = _heads(self.query(normed))  # (N, C / 16, HW, 16)
        attended = F.scaled_dot_product_attention(query, _heads(self.key(pooled)), _heads(self.value(pooled)))
        attended = attended.transpose(2, 3).reshape(x.shape)  # -> (N, C / 16, 16, HW) -> (N, C, H, W)
        branch: Tensor = self.drop_path(self.project(attended))
        return x + branch


class FrequencyMixing(nn.Module):
    """Attention on 3/4 of the channels, convolution on 1/4, side by side; joined and mixed by gMLP. (N, C, H, W) kept.

    Attention smooths, so it takes the low frequencies; the convolution reads the block's input rather than what
    attention leaves, because the high frequencies are still there.
    """

    def __init__(self, channels: int, pool: int, drop_path: float) -> None:
        super().__init__()
        low = int(LOW * channels) // HEAD * HEAD
        self.to_low, self.to_high = _conv_bn(channels, low), _conv_bn(channels, channels - low)
        self.low = RLMHSA(low, pool, drop_path)
        self.high = LocalMixer(channels - low, drop_path)
        self.mlp = GMLP(channels, MIX_RATIO, drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, H, W)."""
        low, high = self.low(self.to_low(x)), self.high(self.to_high(x))  # (N, 3C/4, H, W), (N, C/4, H, W)
        out: Tensor = self.mlp(torch.cat((low, high), dim=1))
        return out


class FMViT(nn.Module):
    """The training form: image (N, 3, H, W), ImageNet-normalised, H and W multiples of 32 -> logits (N, classes).

    `widths` and `depths` have one entry for each of the four stages. A stage embeds patches (average-pool 2, 1x1, norm;
    the first follows the stem), then has depth - 1 CFBs and last a mixing block.
    """

    def __init__(self, widths: Sequence[int], depths: Sequence[int], *, classes: int = 1000) -> None:
        super().__init__()
        rates = iter(torch.linspace(0.0, DROP_PATH, sum(depths), device="cpu").tolist())
        self.stem = _stem(widths[0])
        self.stages = nn.ModuleList()
        for i, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            embed = [nn.AvgPool2d(2), *_conv_bn(widths[i - 1], width)] if i else []
            blocks = [CFB(width, next(rates)) for _ in range(depth - 1)]
            pool = 56 // 2**i // KEYS  # 8, 4, 2, 1
            self.stages.append(nn.Sequential(*embed, *blocks, FrequencyMixing(width, pool, next(rates))))
        self.norm = nn.BatchNorm2d(widths[-1])
        self.head = nn.Conv2d(widths[-1], classes, 1)
        self.apply(_initialise)

    def forward(self, x: Tensor) -> Tensor:
        """Map an image (N, 3, H, W) to logits (N, classes)."""
        x = self.stem(x)  # (N, 3, 224, 224) -> (N, C0, 56, 56)
        for stage in self.stages:
            x = stage(x)  # 56 -> 28 -> 14 -> 7 pixels a side
        x = F.adaptive_avg_pool2d(self.norm(x), 1)  # -> (N, C3, 1, 1)
        logits: Tensor = self.head(x)
        return logits.flatten(1)  # -> (N, 1000)


def _conv_bn(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """Build a convolution padded by half its kernel, then BatchNorm: (N, C, H, W) -> (N, C', H/s, W/s)."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


def _stem(channels: int) -> nn.Sequential:
    """Build three 3x3 convolutions: (N, 3, H, W) -> (N, C/2, H/2, W/2) twice -> (N, C, H/4, W/4)."""
    half = channels // 2
    layers = (_conv_bn(3, half, 3, stride=2), _conv_bn(half, half, 3), _conv_bn(half, channels, 3, stride=2))
    return nn.Sequential(*(part for layer in layers for part in (*layer, nn.ReLU())))


def _heads(x: Tensor) -> Tensor:
    """Reshape (N, C, H, W) to (N, C / 16, HW, 16): heads ahead of pixels."""
    return x.reshape(x.shape[0], -1, HEAD, x.shape[2] * x.shape[3]).transpose(2, 3)


def _initialise(module: nn.Module) -> None:
    """Apply He's normal over a kernel's outputs, biases zero. This is ours: the paper's is not known."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


# --- variants -----------------------------------------------------------------------------------------------------

# name -> widths and depths of the four stages: ours, see docs/fmvit.md
_SHAPES: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "fmvit_t": ((32, 64, 144, 288), (2, 2, 2, 2)),
    "fmvit_s": ((48, 96, 224, 448), (2, 2, 3, 3)),
    "fmvit_m": ((64, 128, 256, 512), (3, 3, 8, 4)),
    "fmvit_b": ((96, 192, 384, 800), (3, 4, 7, 3)),
    "fmvit_l": ((128, 256, 512, 992), (3, 3, 9, 2)),
}
# name -> top-1 percent. Those of s and l are in the abstract too.
_PUBLISHED: Mapping[str, float] = {"fmvit_t": 72.9, "fmvit_s": 78.5, "fmvit_m": 80.3, "fmvit_b": 82.4, "fmvit_l": 83.3}


def _card(name: str, top1_percent: float) -> ModelCard:
    return ModelCard(
        name=name,
        family="fmvit",
        inputs=(TensorSpec("image", (-1, 3, 224, 224), "float32"),),
        source="arXiv 2311.05707; no official code: parts from its abstract, all else reconstructed by edgevit",
        licence="Apache-2.0",
        provenance="reconstructed",
        top1_percent=top1_percent,
        top1_source="third-party transcription of arXiv 2311.05707, of the authors' network and not of this one",
    )


CARDS: tuple[ModelCard, ...] = tuple(_card(name, top1_percent) for name, top1_percent in _PUBLISHED.items())


def build(name: str, *, classes: int = 1000) -> FMViT:
    """Build the variant called `name`, in training form and mode, freshly initialised."""
    return FMViT(*_SHAPES[name], classes=classes)
