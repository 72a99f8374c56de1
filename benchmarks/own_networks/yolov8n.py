"""YOLOv8n, built from yolov8n.yaml: Jocher, Chaurasia, Qiu, "Ultralytics YOLOv8", 2023, docs.ultralytics.com.

It is described in Terven, Cordova-Esparza, "A Comprehensive Review of YOLO Architectures", arXiv 2304.00501.

C2f splits a 1x1 convolution's map in two, runs bottlenecks of 3x3 one after the other on the second half, and joins all
of their results. SPPF joins a map with three maximum pools, one behind the other. The head is decoupled and has no
anchors. One branch gives 16 bins for each side of a box, whose expected value is the distance (distribution focal
loss). The other gives the classes. Published are 3.2 million parameters, and 8.7 GFLOPs at 640 pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

SIZE = 320
Layer = dict[str, Any]


class Conv(nn.Sequential):
    """A convolution, its BatchNorm and SiLU."""

    def __init__(self, inputs: int, outputs: int, size: int, stride: int = 1) -> None:
        conv = nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)
        super().__init__(conv, nn.BatchNorm2d(outputs, eps=1e-3), nn.SiLU(inplace=True))


class Bottleneck(nn.Module):
    """Two convolutions of 3x3, with a residual connection in the backbone."""

    def __init__(self, channels: int, *, residual: bool) -> None:
        super().__init__()
        self.layers, self.residual = nn.Sequential(Conv(channels, channels, 3), Conv(channels, channels, 3)), residual

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x + self.layers(x) if self.residual else self.layers(x)
        return result


class C2f(nn.Module):
    """Bottlenecks in a row on half of the channels, all of whose results are joined."""

    def __init__(self, inputs: int, outputs: int, repeats: int, *, residual: bool) -> None:
        super().__init__()
        half = outputs // 2
        self.split, self.join = Conv(inputs, 2 * half, 1), Conv((2 + repeats) * half, outputs, 1)
        self.blocks = nn.ModuleList(Bottleneck(half, residual=residual) for _ in range(repeats))

    def forward(self, x: Tensor) -> Tensor:
        maps = list(self.split(x).chunk(2, 1))
        for block in self.blocks:
            maps.append(block(maps[-1]))
        result: Tensor = self.join(torch.cat(maps, 1))
        return result


class SPPF(nn.Module):
    """Three maximum pools of one size in a row, joined with what they read."""

    def __init__(self, inputs: int, outputs: int, size: int) -> None:
        super().__init__()
        self.narrow, self.join = Conv(inputs, inputs // 2, 1), Conv(2 * inputs, outputs, 1)
        self.pool = nn.MaxPool2d(size, 1, size // 2)

    def forward(self, x: Tensor) -> Tensor:
        maps = [self.narrow(x)]
        for _ in range(3):
            maps.append(self.pool(maps[-1]))
        result: Tensor = self.join(torch.cat(maps, 1))
        return result


class Detect(nn.Module):
    """Branches for boxes and for classes on each map. Boxes are (x, y, width, height) in pixels, scores sigmoids."""

    bin_numbers: Tensor

    def __init__(self, channels: Sequence[int], strides: Sequence[int], classes: int, bins: int) -> None:
        super().__init__()
        self.strides, self.bins = tuple(strides), bins
        box, score = max(16, channels[0] // 4, 4 * bins), max(channels[0], min(classes, 100))
        self.boxes, self.scores = (
            nn.ModuleList(
                nn.Sequential(Conv(inputs, width, 3), Conv(width, width, 3), nn.Conv2d(width, outputs, 1))
                for inputs in channels
            )
            for width, outputs in ((box, 4 * bins), (score, classes))
        )
        self.register_buffer("bin_numbers", torch.arange(float(bins)).reshape(1, bins, 1, 1))

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        batch = maps[0].shape[0]
        sides = torch.cat([branch(x).flatten(2) for branch, x in zip(self.boxes, maps, strict=True)], 2)
        scores = torch.cat([branch(x).flatten(2) for branch, x in zip(self.scores, maps, strict=True)], 2)
        bins = sides.view(batch, 4, self.bins, -1).transpose(2, 1).softmax(1)
        distances = nn.functional.conv2d(bins, self.bin_numbers).view(batch, 4, -1)
        anchors, strides = self.anchors(maps)
        low, high = anchors - distances[:, :2], anchors + distances[:, 2:]
        boxes = torch.cat(((low + high) / 2, high - low), 1) * strides
        return torch.cat((boxes, scores.sigmoid()), 1)

    def anchors(self, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the centres (2, A) of all cells in units of their strides, and the strides (1, A) in pixels."""
        centres, strides = [], []
        for x, stride in zip(maps, self.strides, strict=True):
            rows, columns = (torch.arange(side, dtype=x.dtype, device=x.device) + 0.5 for side in x.shape[-2:])
            grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij")[::-1]).flatten(1)
            centres.append(grid)
            strides.append(torch.full((1, grid.shape[1]), stride, dtype=x.dtype, device=x.device))
        return torch.cat(centres, 1), torch.cat(strides, 1)


class Joined(nn.Module):
    """Maps joined along their channels."""

    def forward(self, *maps: Tensor) -> Tensor:
        return torch.cat(maps, 1)


class Detector(nn.Module):
    """The layers of a description, each with the numbers of those that it reads, and the head."""

    def __init__(self, description: dict[str, Any]) -> None:
        super().__init__()
        scale, most = description["width"], description["most_channels"]
        self.layers, self.sources = nn.ModuleList(), list[list[int]]()
        widths: list[int] = []
        for number, layer in enumerate(description["layers"]):
            sources = layer.get("from", [number - 1])
            inputs = sum(widths[source] for source in sources) if number else 3
            outputs = round(min(layer["channels"], most) * scale / 8) * 8 if "channels" in layer else inputs
            self.layers.append(built(layer, inputs, outputs, description["depth"]))
            self.sources.append(sources)
            widths.append(outputs)
        self.read = description["detect"]
        channels = [widths[number] for number in self.read]
        self.head = Detect(channels, description["strides"], description["classes"], description["bins"])

    def forward(self, x: Tensor) -> Tensor:
        maps: list[Tensor] = []
        for layer, sources in zip(self.layers, self.sources, strict=True):
            maps.append(layer(*(maps[source] if maps else x for source in sources)))
        result: Tensor = self.head([maps[number] for number in self.read])
        return result


def built(layer: Layer, inputs: int, outputs: int, depth: float) -> nn.Module:
    """Return the module that a line of the description stands for. Raise KeyError for an unknown kind."""
    repeats = max(1, round(layer.get("repeats", 1) * depth))
    kinds: dict[str, Callable[[], nn.Module]] = {
        "conv": lambda: Conv(inputs, outputs, 3, layer["stride"]),
        "c2f": lambda: C2f(inputs, outputs, repeats, residual=layer.get("residual", False)),
        "sppf": lambda: SPPF(inputs, outputs, layer["size"]),
        "upsample": lambda: nn.Upsample(scale_factor=2, mode="nearest"),
        "cat": Joined,
    }
    return kinds[layer["kind"]]()


def build() -> nn.Module:
    """Return the detector that yolov8n.yaml beside this file describes."""
    file = Path(__file__).with_suffix(".yaml")
    return Detector(yaml.safe_load(file.read_text(encoding="utf-8")))
