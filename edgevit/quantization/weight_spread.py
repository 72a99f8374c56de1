"""Spread of folded weights: how much larger the largest are than the usual ones, and which branch makes them so.

A step of an int8 weight is as wide as its largest number asks. Folding adds branches up, and one of them, such as an
identity behind a norm of small variance, may have few large numbers that all others pay for.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from edgevit.folding import Folded, fold
from edgevit.folding.graph import arguments
from edgevit.quantization.placement import kind_of
from edgevit.quantization.simulation import constant
from edgevit.records.quantization import QuantizedLayer, WeightSpread

# Layers that are explained, the noisiest first; each costs a fold for each of its branches.
EXPLAINED = 3
_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


def spreads(
    model: nn.Module, folded: Folded, examples: tuple[Tensor, ...], layers: Sequence[QuantizedLayer]
) -> tuple[WeightSpread, ...]:
    """Return the spread of the noisiest layers, and the branch of the model that drives each."""
    noisiest = sorted(layers, key=lambda layer: math.inf if layer.snr_db is None else layer.snr_db)[:EXPLAINED]
    weights = _weights(folded)
    return tuple(_spread(model, weights, examples, layer) for layer in noisiest if layer.name in weights)


def _spread(
    model: nn.Module, weights: dict[str, Tensor], examples: tuple[Tensor, ...], layer: QuantizedLayer
) -> WeightSpread:
    position, weight = list(weights).index(layer.name), weights[layer.name]
    least, driver, before = peak_db(weight), "", list[float]()
    for name, branch in _branches(model, layer.module):
        if isinstance(branch, _LAYERS):
            before.append(peak_db(branch.weight))
        without = list(_weights(fold(_without(model, name), examples, check=False)).values())
        # A branch of another layer leaves this weight as it was, and one without which the layer is nothing has no say.
        if len(without) == len(weights) and bool(without[position].any()):
            left = peak_db(without[position])
            if left < least:
                least, driver = left, name
    return WeightSpread(
        layer.name,
        layer.module,
        peak_db(weight),
        channel_spread_db(weight),
        max(before, default=None),
        driver,
        least if driver else None,
    )


def peak_db(weight: Tensor) -> float:
    """Return the root mean square of the channels' largest magnitudes over that of all numbers, in dB."""
    rows = weight.detach().double().flatten(1)
    signal = float(rows.square().mean())
    return 10 * math.log10(float(rows.abs().amax(1).square().mean()) / signal) if signal else 0.0


def channel_spread_db(weight: Tensor) -> float:
    """Return the largest magnitude of all channels over that of the median one, in dB; 0 for a zero median."""
    reach = weight.detach().double().flatten(1).abs().amax(1)
    middle = float(reach.median())
    return 20 * math.log10(float(reach.max()) / middle) if middle else 0.0


def _weights(folded: Folded) -> dict[str, Tensor]:
    """Return the weights of a folded network's layers by the names of their nodes, in order."""
    found = {}
    for node in folded.net.graph.nodes:
        if kind_of(node) not in (None, "add"):
            found[node.name] = constant(folded.net, arguments(node)["weight"])
    return found


def _branches(model: nn.Module, module: str) -> Iterator[tuple[str, nn.Module]]:
    """Yield norms and layers of the block that a layer comes from, by their names.

    A branch is mostly a container of a layer and a norm, so that the block is two steps up; not the whole model.
    """
    steps = module.split(".")
    prefix = f"{'.'.join(steps[: max(1, len(steps) - 2)])}."
    for name, part in model.named_modules():
        if f"{name}.".startswith(prefix) and isinstance(part, (_NormBase, *_LAYERS)):
            yield name, part


def _without(model: nn.Module, name: str) -> nn.Module:
    """Return a copy whose norm or layer of this name gives zeros."""
    copied = copy.deepcopy(model)
    part = copied.get_submodule(name)
    with torch.no_grad():
        for parameter in part.parameters(recurse=False):
            parameter.zero_()
        # A norm without a factor of its own gives almost nothing behind a huge variance.
        if isinstance(part, _NormBase) and not part.affine and part.running_var is not None:
            part.running_var.fill_(torch.finfo(part.running_var.dtype).max)
    return copied
