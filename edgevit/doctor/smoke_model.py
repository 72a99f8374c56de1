"""The small network that `edgevit doctor --try` exports: layers that every vision model has, and an odd size."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

# The name, in the form of a user's own model.
NAME = f"{Path(__file__)}:net"
SIZE = (16, 12)  # height, width


def net() -> nn.Module:
    """Make a network from an RGB image (N, 3, H, W) to (N, 5): convolutions with norms, and a linear layer."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    body = (nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 1), nn.BatchNorm2d(16), nn.GELU())
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5)).eval()
