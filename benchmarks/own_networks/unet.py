"""U-Net: Ronneberger, Fischer, Brox, "U-Net: Convolutional Networks for Biomedical Image Segmentation", MICCAI 2015,
arXiv 1505.04597.

Four halvings, each by a maximum pool behind two convolutions of 3x3, and four doublings by a transposed convolution of
2x2, joined with the map of the same size. Widths are 64 to 1024, and the classes two. As most people build it, the
convolutions keep the size and a BatchNorm follows each; the paper crops and has none. 31.0 million parameters.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

SIZE = 128
WIDTHS, CLASSES = (64, 128, 256, 512, 1024), 2


def twice(inputs: int, outputs: int) -> nn.Sequential:
    """Return two convolutions of 3x3 with their norms and ReLUs."""
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        layers += [nn.Conv2d(channels, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
    return nn.Sequential(*layers)


class UNet(nn.Module):
    """A contracting path, an expanding path, and a 1x1 convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList(twice(inputs, outputs) for inputs, outputs in itertools.pairwise((3, *WIDTHS)))
        pairs = list(itertools.pairwise(reversed(WIDTHS)))
        self.up = nn.ModuleList(nn.ConvTranspose2d(wide, narrow, 2, 2) for wide, narrow in pairs)
        self.joined = nn.ModuleList(twice(wide, narrow) for wide, narrow in pairs)
        self.pool, self.classify = nn.MaxPool2d(2), nn.Conv2d(WIDTHS[0], CLASSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        maps = [self.down[0](x)]
        for block in self.down[1:]:
            maps.append(block(self.pool(maps[-1])))
        x = maps.pop()
        for up, block in zip(self.up, self.joined, strict=True):
            x = block(torch.cat((maps.pop(), up(x)), dim=1))
        result: Tensor = self.classify(x)
        return result


def build() -> nn.Module:
    """Return the network of the paper's widths, for colour images and two classes."""
    return UNet()
