"""Bias correction: the mean error that rounded weights cause, computed from mean inputs, goes into the bias."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.fx import Node

from edgevit.folding.graph import CONVOLUTION, LINEAR, arguments, is_call
from edgevit.quantization.palettes import Palette
from edgevit.quantization.ranges import WeightSteps


def bias_correction(node: Node, weight: Tensor, steps: WeightSteps | Palette, mean: Tensor) -> Tensor | None:
    """Return (W - W in int8) * mean(input) of each output channel in float64; None for an operator without a rule.

    mean: of each input channel, (in,). At borders, padding makes it smaller; that is left out, as in Data-Free
    Quantization (arXiv 1906.04721).
    """
    if not is_call(node, CONVOLUTION, LINEAR):
        return None
    lost = weight.detach().double() - steps.dequantized()
    lost = lost.reshape(*lost.shape[:2], -1).sum(2)
    groups = arguments(node)["groups"] if is_call(node, CONVOLUTION) else 1
    by_group = lost.reshape(groups, -1, lost.shape[1])
    return torch.bmm(by_group, mean.double().reshape(groups, -1, 1)).flatten()
