"""Preprocessing inside a model: it takes raw pixels, so that no caller can normalise them wrongly."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgevit.records.model import Preprocessing
from edgevit_runtime.record import TensorSpec


class Preprocessed(nn.Module):
    """A model behind its normalisation: takes a uint8 image (N, H, W, C) in the order of its colours, or a grey one.

    The caller crops and resizes. Folding moves the scale into the first layer where it can.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, model: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        like = next((tensor for tensor in model.parameters() if tensor.is_floating_point()), torch.empty(0))
        low, high = preprocessing.range
        mean, std = (like.new_tensor(values) for values in (preprocessing.mean, preprocessing.std))
        self.model = model
        self.register_buffer("scale", (high - low) / (255.0 * std), persistent=False)
        self.register_buffer("shift", (low - mean) / std, persistent=False)
        self.train(model.training)

    def forward(self, image: Tensor) -> Tensor:
        """Map uint8 (N, H, W, C) to the model's output."""
        # The product converts to the model's dtype: a cast would name a dtype and prevent half(). It comes first,
        # because TensorRT takes bytes for no other operator.
        out: Tensor = self.model((image * self.scale + self.shift).permute(0, 3, 1, 2))
        return out


def raw_image(spec: TensorSpec) -> TensorSpec:
    """Return the raw image, uint8 (N, H, W, C), of an input (N, C, H, W)."""
    batch, channels, height, width = spec.shape
    return TensorSpec(spec.name, (batch, height, width, channels), "uint8")


def normalised_image(spec: TensorSpec) -> TensorSpec:
    """Return the input (N, C, H, W) of a raw image, uint8 (N, H, W, C)."""
    batch, height, width, channels = spec.shape
    return TensorSpec(spec.name, (batch, channels, height, width))
