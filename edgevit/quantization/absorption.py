"""Absorption: scales moved between layers, exactly, so that the channels of an int8 tensor have one magnitude.

A channel with a range of its own wastes the steps of all others. Where a factor passes what stands between two layers
(an activation that is homogeneous, a pool, an attention), the first one divides and the next one multiplies. A norm
divides by its own weight. The ranges are those of the activations on samples.
Sources: RepQ-ViT (arXiv 2212.08254), MPTQ-ViT (arXiv 2401.14895), Q-HyViT (arXiv 2303.12557), SmoothQuant
(arXiv 2211.10438).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import Node

from edgevit.folding.graph import Net, aten, is_call
from edgevit.quantization.calibration import Calibration
from edgevit.quantization.placement import channel_axis, end_of
from edgevit.quantization.scale_flow import FOREIGN, Flow, flow

_NORMS = (aten.layer_norm.default, aten.group_norm.default)
# A factor beyond this would be of a channel that is almost always zero.
LARGEST_FACTOR = 2.0**16


@dataclass(frozen=True)
class Balance:
    """How a channel's factor follows from its magnitude and from the weights that read it.

    factor = activation ** (1 - weight_share) / weight ** weight_share, with a median of 1. The exponents add up to 1,
    so that the result does not depend on the scales that the network came with.
    """

    weight_share: float

    @property
    def label(self) -> str:
        """The share as a report shows it: `25% weights`."""
        return f"{self.weight_share:.0%} weights"


BALANCES = tuple(Balance(share) for share in (0.0, 0.25, 0.5, 0.75, 1.0))


def absorb(net: Net, calibration: Calibration, balance: Balance) -> int:
    """Move scales in a network, and return how many layers or norms gave some away."""
    sources = [
        _Source(node, flow(net, node, axis), calibration.observed(end_of(node).name, axis).reach)
        for node in net.nodes()
        if (axis := source_axis(net, node)) is not None
    ]
    changed = {source.node for pair in _products(sources) for source in _move_product(net, *pair)}
    # From the end, so that the rows of a layer have their final magnitudes when its columns are judged.
    for source in reversed(sources):
        factors = _factors(net, source, balance)
        if bool((factors != 1).any()):
            _move(net, source, factors)
            changed.add(source.node)
    return len(changed)


@dataclass(frozen=True, eq=False)
class _Source:
    """A layer or norm, where its channels go, and their magnitudes on samples (C,)."""

    node: Node
    flow: Flow
    reach: Tensor

    @property
    def labels_of_products(self) -> list[Tensor]:
        """The labels of its queries and keys, (heads, channels) of each attention."""
        return [*self.flow.queries.values(), *self.flow.keys.values()]


def source_axis(net: Net, node: Node) -> int | None:
    """Return the axis of the channels that a node may scale; None for a node that cannot."""
    if is_call(node, *_NORMS):
        named = net.arguments(node)
        constants = [named[name] for name in ("weight", "bias") if named[name] is not None]
        if any(net.constant(constant) is None or len(constant.users) > 1 for constant in constants):
            return None
        if is_call(node, aten.group_norm.default):
            return 1
        return len(net.shape(node)) - 1 if len(named["normalized_shape"]) == 1 else None
    return net.channel_axis(node) if net.is_linear(node) and not net.shared(node) else None


def watched(net: Net) -> Iterator[tuple[str, int]]:
    """Yield the tensors whose ranges decide about factors, each with the axis of its channels."""
    for node in net.nodes():
        axis = source_axis(net, node)
        if axis is not None:
            yield end_of(node).name, axis
            yield node.name, channel_axis(node)


def _factors(net: Net, source: _Source, balance: Balance) -> Tensor:
    """Return the factor by which each channel is divided; 1 where it may not be, or has no magnitude."""
    reach = source.reach
    free = torch.ones(len(reach), dtype=torch.bool)
    free[sorted(source.flow.blocked)] = False
    for labels in source.labels_of_products:
        free[labels.flatten()] = False
    is_read, weights = torch.zeros_like(free), torch.zeros_like(reach)
    for reader, labels in source.flow.readers:
        own = labels != FOREIGN
        is_read[labels[own]] = True
        weights.scatter_reduce_(0, labels[own], _input_magnitudes(net, reader)[own], "amax")
    free &= is_read & (weights > 0)
    live, silent = free & (reach > 0), free & (reach == 0)
    factors = torch.ones_like(reach)
    if bool(live.any()):
        share = balance.weight_share
        wanted = reach[live] ** (1 - share) / weights[live] ** share
        factors[live] = (wanted / wanted.median()).clamp(1 / LARGEST_FACTOR, LARGEST_FACTOR)
        # A channel that no sample woke has no magnitude: the weights that read it get that of the others.
        usual = (weights[live] * factors[live]).median()
        factors[silent] = (usual / weights[silent]).clamp(1 / LARGEST_FACTOR, LARGEST_FACTOR)
    return factors


def _input_magnitudes(net: Net, layer: Node) -> Tensor:
    """Return the largest weight of each input channel, (in,)."""
    kernel = net.kernel(layer)
    by_group = kernel.weight.reshape(kernel.groups, -1, *kernel.weight.shape[1:]).abs()
    return by_group.amax((1, 3, 4)).flatten()


def _move(net: Net, source: _Source, factors: Tensor) -> None:
    """Divide the channels of a source, and multiply them in the layers that read them."""
    _divide(net, source.node, factors)
    for reader, labels in source.flow.readers:
        multiplied = torch.where(labels == FOREIGN, torch.ones((), dtype=torch.float64), factors[labels])
        net.set_kernel(reader, net.kernel(reader).after_affine(multiplied, None))


def _divide(net: Net, node: Node, factors: Tensor) -> None:
    if not is_call(node, *_NORMS):
        net.scale_and_shift(node, 1 / factors, None)
        return
    named = net.arguments(node)
    weight, bias = net.constant(named["weight"]), net.constant(named["bias"])
    scaled = 1 / factors if weight is None else weight.double() / factors
    source, size = list(named.values())[:2]
    shift = None if bias is None else net.add_constant(bias.double() / factors, before=node)
    node.args, node.kwargs = (source, size, net.add_constant(scaled, before=node), shift, named["eps"]), {}
    for constant in (named["weight"], named["bias"]):
        if isinstance(constant, Node):
            net.drop(constant)


def _products(sources: list[_Source]) -> Iterator[tuple[_Source, Tensor, _Source, Tensor]]:
    """Yield the source and labels of the queries, and those of the keys, of each attention that no other use blocks."""
    for queries in sources:
        for attention, asking in queries.flow.queries.items():
            for keys in sources:
                answering = keys.flow.keys.get(attention)
                if answering is None or answering.shape != asking.shape:
                    continue
                if _is_free(queries, asking) and _is_free(keys, answering):
                    yield queries, asking, keys, answering


def _is_free(source: _Source, labels: Tensor) -> bool:
    """Return whether the channels of these labels have a magnitude, and no use but this one."""
    others = [*source.labels_of_products, *(along for _, along in source.flow.readers)]
    uses = sum(bool(torch.isin(labels, other).any()) for other in others)
    is_blocked = bool(torch.isin(labels, torch.tensor(sorted(source.flow.blocked), dtype=torch.int64)).any())
    is_foreign = bool((labels == FOREIGN).any())
    each_once = len(set(labels.flatten().tolist())) == labels.numel()
    return uses == 1 and each_once and not is_blocked and not is_foreign and bool((source.reach[labels] > 0).all())


def _move_product(net: Net, queries: _Source, asking: Tensor, keys: _Source, answering: Tensor) -> Iterator[_Source]:
    """Give both sides of a product the same magnitude, and yield the sources that changed."""
    ratio = (queries.reach[asking] / keys.reach[answering]).sqrt().clamp(1 / LARGEST_FACTOR, LARGEST_FACTOR)
    for source, labels, factors in ((queries, asking, ratio), (keys, answering, 1 / ratio)):
        all_factors = torch.ones_like(source.reach)
        all_factors[labels.flatten()] = factors.flatten()
        _divide(net, source.node, all_factors)
        yield source
