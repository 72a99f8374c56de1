"""Networks of published papers, written anew from their descriptions, with random weights.

Each module is one network. Its docstring names the paper, and what the paper leaves open. `build()` returns the module,
and `SIZE` is the side of its input in pixels.
"""

from __future__ import annotations

import importlib

from torch import nn

PREFIX = "own_"
NAMES = ("evit_small", "ffnet", "hornet_tiny", "unet", "yolov8n")


def build(name: str) -> tuple[nn.Module, int]:
    """Return a network of this folder and the side of its input; `name` is one of NAMES."""
    module = importlib.import_module(f"{__name__}.{name}")
    network: nn.Module = module.build()
    return network, module.SIZE
