"""Random values for parameters that a fresh model leaves constant, so that a proof on it can fail.

A fresh model's BatchNorms are the identity, its biases 0 and its layer scales 1e-5: a fold that loses any of them
computes the same function. Under some initialisations the signal also fades: with VanillaNet's own weights and random
statistics, two noise images differ by 6e-7 of the logits. That is below any tolerance, so kernels are drawn anew.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.modules import batchnorm, conv

_NORMS = (batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def randomize(model: nn.Module, seed: int = 0) -> None:
    """Overwrite all parameters and normalisation statistics of any module in place, the same for the same seed.

    Normalisation: running_mean N(0, 0.1), running_var U(0.5, 1.5), weight U(0.5, 1.5), bias N(0, 0.1).
    Other biases: N(0, 0.1). Kernels of convolutions, linear layers and similar parameters: N(0, 1/sqrt(fan_in)).
    Constant parameters, such as a layer scale: U(0.2, 0.8). N has the standard deviation. A lone map (1, ...) that is
    not constant, such as a position embedding, stays. The global random state stays as it is.
    """
    draw = _Draw(seed)
    # Shared parameters are drawn once.
    drawn: set[int] = set()
    with torch.no_grad():
        for module in model.modules():
            for name, parameter in module.named_parameters(recurse=False):
                if id(parameter) not in drawn and parameter.is_floating_point():
                    _randomize_parameter(module, name, parameter, draw)
                    drawn.add(id(parameter))
            _randomize_statistics(module, draw)


class _Draw:
    """Fills tensors of any device and precision from one generator on the CPU."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator("cpu").manual_seed(seed)

    def uniform(self, tensor: Tensor, low: float, high: float) -> None:
        tensor.copy_(torch.empty(tensor.shape, device="cpu").uniform_(low, high, generator=self.generator))

    def normal(self, tensor: Tensor, deviation: float) -> None:
        tensor.copy_(torch.empty(tensor.shape, device="cpu").normal_(0.0, deviation, generator=self.generator))


def _randomize_parameter(module: nn.Module, name: str, parameter: Tensor, draw: _Draw) -> None:
    if name.endswith("bias"):
        draw.normal(parameter, 0.1)
    elif isinstance(module, _NORMS):
        draw.uniform(parameter, 0.5, 1.5)
    elif _is_kernel(module, parameter):
        draw.normal(parameter, 1.0 / math.sqrt(math.prod(parameter.shape[1:])))
    elif _is_constant(parameter):
        draw.uniform(parameter, 0.2, 0.8)


def _randomize_statistics(module: nn.Module, draw: _Draw) -> None:
    if isinstance(module, batchnorm._NormBase) and module.running_mean is not None and module.running_var is not None:
        draw.normal(module.running_mean, 0.1)
        draw.uniform(module.running_var, 0.5, 1.5)


def _is_kernel(module: nn.Module, parameter: Tensor) -> bool:
    """Return whether it is a weight of a convolution or linear layer, or a random raw parameter [outputs, ...]."""
    if isinstance(module, (conv._ConvNd, nn.Linear)):
        return True
    return parameter.ndim > 1 and parameter.shape[0] > 1 and not _is_constant(parameter)


def _is_constant(parameter: Tensor) -> bool:
    return parameter.numel() > 0 and bool((parameter == parameter.flatten()[0]).all())
