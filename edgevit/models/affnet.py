"""AFFNet (Huang et al., arXiv 2307.14008): inverted residuals and filters of the frequencies. Training form.

An adaptive frequency filter multiplies a map's spectrum by a mask that a small network computes from that spectrum: a
circular convolution over the whole map with kernels that depend on the input, at the price of two Fourier transforms.
BatchNorm's and GroupNorm's eps are 1e-5. Keys and shapes are those of the official checkpoints
(github.com/microsoft/TokenMixers, folder Adaptive Frequency Filters, MIT), words and code ours.

Departures from the official code, none of which changes what float32 computes: the filter works in the model's own
precision, and in float32 for half precisions (the official one always in float32, and crashes in all others).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgevit.records.model import ModelCard, Preprocessing
from edgevit_runtime.record import TensorSpec

FILTER_GROUPS = 8  # diagonal blocks of the filter's two complex layers
SHRINKAGE = 0.01  # lambda of the soft-shrinkage that makes the mask sparse
BLOCKS = (2, 4, 3)  # mixer blocks of the last three stages, in every variant
MIXER_RATIO = 2  # hidden over outer channels, in the inverted residuals beside the filters
DROPOUT = 0.1  # before the classifier


class ConvNorm(nn.Module):
    """Convolution without a bias, padded by half its kernel, BatchNorm, SiLU: (N, C, H, W) -> (N, C', H/s, W/s)."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, *, groups: int = 1, activate: bool = True
    ) -> None:
        super().__init__()
        conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.block = nn.Sequential()
        self.block.add_module("conv", conv)
        self.block.add_module("norm", nn.BatchNorm2d(outputs))
        if activate:
            self.block.add_module("act", nn.SiLU())

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C', H/s, W/s)."""
        out: Tensor = self.block(x)
        return out


class InvertedResidual(nn.Module):
    """MobileNetV2's block (arXiv 1801.04381): 1x1 up, depthwise 3x3, 1x1 down: (N, C, H, W) -> (N, C', H/s, W/s).

    The input is added to the output where the two have one shape.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, ratio: int) -> None:
        super().__init__()
        hidden = _divisible(inputs * ratio)
        self.block = nn.Sequential()
        self.block.add_module("exp_1x1", ConvNorm(inputs, hidden))
        self.block.add_module("conv_3x3", ConvNorm(hidden, hidden, 3, stride, groups=hidden))
        self.block.add_module("red_1x1", ConvNorm(hidden, outputs, activate=False))
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C', H/s, W/s)."""
        out: Tensor = self.block(x)  # through (N, rC, H, W)
        return x + out if self.residual else out


class FrequencyFilter(nn.Module):
    """x + irfft2(X * M(X)) with X = rfft2(x), equation 5 of the paper. Keeps (N, C, H, W).

    M = shrink(W2 silu(W1 X + b1) + b2), the two layers complex and block-diagonal over the channels, the same at every
    frequency; SiLU and soft-shrinkage act on real and imaginary parts separately. Parameters have the two parts first.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        size = channels // FILTER_GROUPS
        self.w1, self.w2 = (nn.Parameter(0.02 * torch.randn(2, FILTER_GROUPS, size, size)) for _ in range(2))
        self.b1, self.b2 = (nn.Parameter(0.02 * torch.randn(2, FILTER_GROUPS, size)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, H, W)."""
        wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x  # no complex halves on most backends
        spectrum = torch.fft.rfft2(wide, norm="ortho")  # (N, C, H, W/2 + 1)
        mask = _per_part(functional.silu, self._layer(spectrum, self.w1, self.b1))
        mask = _per_part(_shrink, self._layer(mask, self.w2, self.b2))
        mixed = torch.fft.irfft2(spectrum * mask, s=(x.shape[2], x.shape[3]), norm="ortho")
        out: Tensor = x + mixed.to(x.dtype)
        return out

    def _layer(self, z: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Map complex (N, C, H, F) to (N, C, H, F)."""
        blocks = z.reshape(z.shape[0], FILTER_GROUPS, -1, *z.shape[2:])  # (N, 8, C/8, H, F)
        mixed = torch.einsum("nkihf,kio->nkohf", blocks, _complex(weight, z))
        return (mixed + _complex(bias, z)[..., None, None]).flatten(1, 2)


class MixerBlock(nn.Module):
    """Inverted residual, then frequency filter, each after a norm, plus the shortcut. Keeps (N, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm1 = _layer_norm(channels)
        self.filter = FrequencyFilter(channels)
        self.norm2 = _layer_norm(channels)
        self.mlp = InvertedResidual(channels, channels, 1, MIXER_RATIO)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, H, W)."""
        mixed: Tensor = self.filter(self.norm2(self.mlp(self.norm1(x))))
        return x + mixed


class FilterStage(nn.Module):
    """Mixer blocks beside the map they started from, both fused by a 1x1 convolution. Keeps (N, C, H, W)."""

    def __init__(self, channels: int, blocks: int) -> None:
        super().__init__()
        self.global_rep = nn.Sequential(*(MixerBlock(channels) for _ in range(blocks)), _layer_norm(channels))
        self.conv_proj = ConvNorm(channels, channels, activate=False)
        self.fusion = ConvNorm(2 * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, H, W)."""
        features = self.conv_proj(self.global_rep(x))
        out: Tensor = self.fusion(torch.cat((x, features), dim=1))  # through (N, 2C, H, W)
        return out


class AFFNet(nn.Module):
    """The training form: image (N, 3, H, W) of values in [0, 1], without mean and std -> logits (N, classes)."""

    def __init__(self, ratio: int, widths: tuple[int, int, int, int, int], *, classes: int = 1000) -> None:
        super().__init__()
        local, fine, *deep = widths
        self.conv_1 = ConvNorm(3, 16, 3, stride=2)
        self.layer_1 = nn.Sequential(InvertedResidual(16, local, 1, ratio))
        repeats = (InvertedResidual(fine, fine, 1, ratio) for _ in range(2))
        self.layer_2 = nn.Sequential(InvertedResidual(local, fine, 2, ratio), *repeats)
        self.layer_3, self.layer_4, self.layer_5 = (
            nn.Sequential(InvertedResidual(before, width, 2, ratio), FilterStage(width, blocks))
            for before, width, blocks in zip((fine, *deep[:2]), deep, BLOCKS, strict=True)
        )
        embedding = min(4 * deep[-1], 960)
        self.conv_1x1_exp = ConvNorm(deep[-1], embedding)
        self.classifier = nn.Sequential()
        self.classifier.add_module("dropout", nn.Dropout(DROPOUT))
        self.classifier.add_module("fc", nn.Linear(embedding, classes))
        self.apply(_initialise)

    def forward(self, x: Tensor) -> Tensor:
        """Map an image (N, 3, H, W), H and W multiples of 32 to logits (N, classes)."""
        x = self.layer_1(self.conv_1(x))  # (N, 3, 256, 256) -> (N, C1, 128, 128)
        x = self.layer_2(x)  # -> (N, C2, 64, 64)
        x = self.layer_5(self.layer_4(self.layer_3(x)))  # 32, 16, 8 pixels a side
        x = self.conv_1x1_exp(x).mean(dim=(2, 3))  # -> (N, E)
        logits: Tensor = self.classifier(x)  # -> (N, 1000)
        return logits


def _per_part(function: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """Apply a real function to the real and to the imaginary part separately. Keeps any complex shape."""
    return torch.complex(function(z.real), function(z.imag))


def _shrink(x: Tensor) -> Tensor:
    return functional.softshrink(x, SHRINKAGE)


def _complex(parts: Tensor, like: Tensor) -> Tensor:
    """Join parts (2, ...) to complex (...), in the precision of the complex `like`."""
    parts = parts.to(like.dtype.to_real())
    return torch.complex(parts[0], parts[1])


def _layer_norm(channels: int) -> nn.GroupNorm:
    """Build a layer norm over channels and pixels together, scale and shift per channel. Keeps (N, C, H, W)."""
    return nn.GroupNorm(1, channels, eps=1e-5)


def _divisible(width: float, by: int = 8) -> int:
    """Return the multiple of `by` nearest to `width`, but not less than 0.9 of it (MobileNet's rule)."""
    nearest = max(by, int(width + by / 2) // by * by)
    return nearest + by if nearest < 0.9 * width else nearest


def _initialise(module: nn.Module) -> None:
    """Apply the official initialisation: He's normal over outputs for convolutions, small normal for the classifier."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out")
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.01)
        nn.init.zeros_(module.bias)


# --- variants -----------------------------------------------------------------------------------------------------

# name -> ratio of the inverted residuals outside the mixer blocks, widths of layers 1 to 5
_SHAPES: Mapping[str, tuple[int, tuple[int, int, int, int, int]]] = {
    "affnet_et": (2, (32, 48, 64, 104, 144)),
    "affnet_t": (4, (32, 48, 96, 160, 192)),
    "affnet": (4, (32, 64, 128, 256, 320)),
}
_TOP1_PERCENT: Mapping[str, float] = {"affnet_et": 73.0, "affnet_t": 77.0, "affnet": 79.8}

# The official code's names of these variants, which its checkpoints carry.
ALIASES: Mapping[str, str] = {"xx_small": "affnet_et", "x_small": "affnet_t", "small": "affnet"}


def _card(name: str, top1_percent: float) -> ModelCard:
    return ModelCard(
        name=name,
        family="affnet",
        inputs=(TensorSpec("image", (-1, 3, 256, 256), "float32"),),
        source="arXiv 2307.14008; github.com/microsoft/TokenMixers",
        licence="MIT",
        provenance="published",
        top1_percent=top1_percent,
        top1_source="arXiv 2307.14008",
        # The configuration of the official evaluation is missing from its code.
        preprocessing=Preprocessing((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), assumed=("crop", "interpolation")),
    )


CARDS: tuple[ModelCard, ...] = tuple(_card(name, top1) for name, top1 in _TOP1_PERCENT.items())


def build(name: str, *, classes: int = 1000) -> AFFNet:
    """Build the variant called `name`, in training form and mode, randomly initialised."""
    return AFFNet(*_SHAPES[name], classes=classes)
