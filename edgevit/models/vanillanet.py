"""VanillaNet (Chen et al., arXiv 2305.12972): plain convolutions, no shortcut, no attention. Training form.

Where the folded network has one 1x1 convolution, the training form has two with a leaky ReLU between them. Its slope
grows from 0 to 1 in the first epochs ("deep training"): at 1 it is the identity, and the two merge into one. The slope
is not in the official state dicts; ours carry it, because folding at any other slope changes the function.
Keys and shapes are those of the official checkpoints (github.com/huawei-noah/VanillaNet, MIT); words and code are ours.

Departure from the official code: none in what is computed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgevit.errors import ModelError
from edgevit.records.model import ModelCard, Preprocessing, PublishedLatency
from edgevit_runtime.record import TensorSpec

BN_EPS = 1e-6  # everywhere in this family; the default 1e-5 is off by 1e-2 relative at the logits


class SeriesActivation(nn.Module):
    """Sum of 49 shifted, scaled and biased ReLUs per channel: ReLU -> depthwise 7x7 -> BatchNorm. Keeps (N, C, H, W).

    Paper, section 3.2 (series informed activation function) with n = `reach`: a window of 2n+1 a side.
    """

    def __init__(self, channels: int, reach: int = 3) -> None:
        super().__init__()
        self.reach = reach
        self.weight = nn.Parameter(torch.empty(channels, 1, 2 * reach + 1, 2 * reach + 1))
        self.bn = nn.BatchNorm2d(channels, eps=BN_EPS)
        nn.init.trunc_normal_(self.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, H, W)."""
        x = F.conv2d(F.relu(x), self.weight, padding=self.reach, groups=self.weight.shape[0])
        out: Tensor = self.bn(x)
        return out


class Block(nn.Module):
    """Two 1x1 convolutions with the fading ReLU between them, pooling, series activation.

    `grid` > 0 pools to that height and width from any size; otherwise a stride of 2 halves them.
    """

    def __init__(self, channels: int, out_channels: int, stride: int, grid: int = 0) -> None:
        super().__init__()
        self.slope = 1.0
        self.conv1 = _conv_bn(channels, channels)
        self.conv2 = _conv_bn(channels, out_channels)
        self.pool: nn.Module = nn.Identity()
        if stride > 1:
            self.pool = nn.AdaptiveMaxPool2d(grid) if grid else nn.MaxPool2d(stride)
        self.act = SeriesActivation(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C', H/s, W/s), or (N, C', grid, grid)."""
        x = F.leaky_relu(self.conv1(x), self.slope)  # (N, C, H, W)
        x = self.pool(self.conv2(x))  # -> (N, C', H, W) -> (N, C', H/s, W/s)
        out: Tensor = self.act(x)
        return out

    def fold_obstacle(self) -> str | None:
        """Return why this module must not be folded yet, or None."""
        return _obstacle(self.slope)


class VanillaNet(nn.Module):
    """The training form: image (N, 3, H, W), ImageNet-normalised -> logits (N, classes).

    `widths` has one entry more than `strides`: the stem's channels, then each block's output channels. `grids` (of
    the ada_pool variant) holds the side to which each block pools, 0 where it does not; the stem's stride is 3 then.
    """

    def __init__(
        self,
        widths: tuple[int, ...],
        strides: tuple[int, ...],
        grids: tuple[int, ...] = (),
        *,
        classes: int = 1000,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self._slope = 1.0
        stride, padding = (3, 1) if grids else (4, 0)
        self.stem1 = _conv_bn(3, widths[0], kernel=4, stride=stride, padding=padding)
        self.stem2 = _conv_bn(widths[0], widths[0]).append(SeriesActivation(widths[0]))
        ends = zip(widths[:-1], widths[1:], strides, grids or (0,) * len(strides), strict=True)
        self.stages = nn.ModuleList(Block(*end) for end in ends)
        self.cls1 = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Dropout(dropout), *_conv_bn(widths[-1], classes))
        self.cls2 = nn.Sequential(nn.Conv2d(classes, classes, 1))
        self.apply(_initialise)
        self.register_load_state_dict_pre_hook(_assume_trained)  # type: ignore[no-untyped-call]

    def forward(self, x: Tensor) -> Tensor:
        """Map an image (N, 3, H, W) to logits (N, classes)."""
        x = F.leaky_relu(self.stem1(x), self.slope)  # (N, 3, 224, 224) -> (N, C0, 56, 56); ada_pool: 75, 75
        x = self.stem2(x)
        for stage in self.stages:
            x = stage(x)  # -> (N, C', 7, 7) after the last; ada_pool: 10, 10
        x = F.leaky_relu(self.cls1(x), self.slope)  # -> (N, 1000, 1, 1)
        logits: Tensor = self.cls2(x)
        return logits.flatten(1)  # -> (N, 1000)

    @property
    def slope(self) -> float:
        """Slope of the leaky ReLUs in stem and head, 0 to 1. Setting it sets the blocks too. ModelError if outside."""
        return self._slope

    @slope.setter
    def slope(self, value: float) -> None:
        self._set_slopes([value] * (1 + len(self.stages)))

    def fold_obstacle(self) -> str | None:
        """Return why this module must not be folded yet, or None."""
        return _obstacle(self.slope)

    def get_extra_state(self) -> Tensor:
        """Return the slopes of the root and of each block in order, float64, always on the CPU."""
        slopes = [self._slope, *(block.slope for block in self._blocks())]
        return torch.tensor(slopes, dtype=torch.float64, device="cpu")

    def set_extra_state(self, state: Tensor) -> None:
        """Restore the slopes that get_extra_state returned. Raises ModelError for another depth, or outside 0 to 1."""
        self._set_slopes(state.tolist())

    def _set_slopes(self, values: list[float]) -> None:
        if len(values) != 1 + len(self.stages) or not all(0.0 <= value <= 1.0 for value in values):
            why = f"a network of {len(self.stages)} blocks needs {1 + len(self.stages)} slopes from 0 to 1"
            raise ModelError(f"{values} cannot be the slopes of this VanillaNet", why=why)
        self._slope, *slopes = map(float, values)
        for block, value in zip(self._blocks(), slopes, strict=True):
            block.slope = value

    def _blocks(self) -> list[Block]:
        return [stage for stage in self.stages if isinstance(stage, Block)]


@dataclass(frozen=True)
class SlopeSchedule:
    """Deep training: the slope goes from 0 to 1 over the first `epochs` (100 of 300 in the paper, section 3.1).

    Call `apply(model, epoch)` before each epoch, counted from 0. After the last one the model can be folded.
    """

    epochs: int = 100
    shape: Literal["linear", "cosine"] = "linear"

    def at(self, epoch: float) -> float:
        """Return the slope at an epoch: e/E, or 0.5 (1 - cos(pi e/E)); 1 from E on."""
        share = min(epoch / self.epochs, 1.0)
        return share if self.shape == "linear" else 0.5 * (1.0 - math.cos(math.pi * share))

    def apply(self, model: VanillaNet, epoch: float) -> None:
        """Set all slopes of the model for this epoch."""
        model.slope = self.at(epoch)


def _conv_bn(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, padding: int = 0) -> nn.Sequential:
    """Build a convolution with a bias, then BatchNorm: (N, C, H, W) -> (N, C', H', W')."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel, stride, padding), nn.BatchNorm2d(outputs, eps=BN_EPS))


def _obstacle(slope: float) -> str | None:
    if slope == 1.0:
        return None
    return f"slope is {slope:g}, not 1: the leaky ReLU between the two convolutions is not the identity"


def _initialise(module: nn.Module) -> None:
    """Apply the official initialisation: truncated normal of 0.02, biases zero."""
    if isinstance(module, nn.Conv2d) and module.bias is not None:
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)


def _assume_trained(module: nn.Module, state: dict[str, Any], prefix: str, *_: object) -> None:
    """Add the slope to official files, which have none: their training is finished, so it is 1, not the model's own."""
    slopes = torch.ones_like(module.get_extra_state())
    state.setdefault(f"{prefix}_extra_state", slopes)


# --- variants -----------------------------------------------------------------------------------------------------


def _deep(middle: int, unit: int = 512) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return widths and strides from VanillaNet-7 (middle 0) to -13 (middle 6), with `middle` more blocks at 14x14."""
    times = (1, 1, 2, 4) + (4,) * middle + (8, 8)
    return tuple(unit * factor for factor in times), (1, 2, 2) + (1,) * middle + (2, 1)


_SHAPES: Mapping[str, tuple[tuple[int, ...], ...]] = {
    "vanillanet_5": ((512, 1024, 2048, 4096), (2, 2, 2)),
    "vanillanet_6": ((512, 1024, 2048, 4096, 4096), (2, 2, 2, 1)),
    **{f"vanillanet_{7 + middle}": _deep(middle) for middle in range(7)},
    "vanillanet_13_x1_5": _deep(6, 768),
    "vanillanet_13_x1_5_ada_pool": (*_deep(6, 768), (0, 38, 19, 0, 0, 0, 0, 0, 0, 10, 0)),
}

# name -> top-1 percent, milliseconds on an A100: PyTorch, TensorRT FP32, TensorRT FP16 (batch 1, deploy form)
_PUBLISHED: Mapping[str, tuple[float, ...]] = {
    "vanillanet_5": (72.49, 1.61, 0.33, 0.27),
    "vanillanet_6": (76.36, 2.01, 0.40, 0.33),
    "vanillanet_7": (77.98, 2.27, 0.47, 0.39),
    "vanillanet_8": (79.13, 2.56, 0.52, 0.45),
    "vanillanet_9": (79.87, 2.91, 0.58, 0.49),
    "vanillanet_10": (80.57, 3.24, 0.63, 0.53),
    "vanillanet_11": (81.08, 3.59, 0.69, 0.58),
    "vanillanet_12": (81.55, 3.82, 0.75, 0.62),
    "vanillanet_13": (82.05, 4.26, 0.82, 0.67),
    "vanillanet_13_x1_5": (82.53, 7.83),
    "vanillanet_13_x1_5_ada_pool": (83.11, 9.72),
}
_ENGINES = (("PyTorch", "not stated"), ("TensorRT", "fp32"), ("TensorRT", "fp16"))
_README = "README of github.com/huawei-noah/VanillaNet"


def _card(name: str, top1_percent: float, *latencies_ms: float) -> ModelCard:
    return ModelCard(
        name=name,
        family="vanillanet",
        inputs=(TensorSpec("image", (-1, 3, 224, 224), "float32"),),
        source="arXiv 2305.12972; github.com/huawei-noah/VanillaNet",
        licence="MIT",
        provenance="published",
        top1_percent=top1_percent,
        top1_source=_README,
        preprocessing=Preprocessing(),
        latencies=tuple(
            PublishedLatency("NVIDIA A100", engine, precision, latency_ms, _README)
            for (engine, precision), latency_ms in zip(_ENGINES, latencies_ms, strict=False)  # the widest: PyTorch only
        ),
    )


CARDS: tuple[ModelCard, ...] = tuple(_card(name, *numbers) for name, numbers in _PUBLISHED.items())


def build(name: str, *, classes: int = 1000) -> VanillaNet:
    """Build the variant called `name`, in training form and mode, with the official random initialisation."""
    return VanillaNet(*_SHAPES[name], classes=classes)
