"""Folds norms, scales and shifts into linear maps that reach them only moved, selected, resized or joined."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from edgevit.folding.graph import BATCH_NORM, Net, aten, is_call
from edgevit.folding.layout import ALL_MOVES, SELECTIONS, labels, send, shape_at_probe
from edgevit.folding.values import VALUE

# Resizing that selects pixels.
_NEAREST = (
    aten.upsample_nearest1d.vec,
    aten.upsample_nearest2d.vec,
    aten.upsample_nearest3d.vec,
    aten._upsample_nearest_exact1d.vec,
    aten._upsample_nearest_exact2d.vec,
    aten._upsample_nearest_exact3d.vec,
)
# Sums over pixels with weights that add up to 1, at the borders too; and the number of axes of pixels.
_BLENDS = {
    aten.upsample_linear1d.vec: 1,
    aten.upsample_bilinear2d.vec: 2,
    aten._upsample_bilinear2d_aa.vec: 2,
    aten.upsample_bicubic2d.vec: 2,
    aten._upsample_bicubic2d_aa.vec: 2,
    aten.upsample_trilinear3d.vec: 3,
    aten.adaptive_avg_pool1d.default: 1,
    aten.adaptive_avg_pool2d.default: 2,
    aten.adaptive_avg_pool3d.default: 3,
}
_AVERAGES = {aten.avg_pool1d.default: 1, aten.avg_pool2d.default: 2, aten.avg_pool3d.default: 3}
# An affine map that is increasing passes these.
_MAXIMA = {aten.max_pool1d.default: 1, aten.max_pool2d.default: 2, aten.max_pool3d.default: 3}
_POOLS = _BLENDS | _AVERAGES | _MAXIMA
_JOINTS = (aten.cat.default, aten.stack.default)


def affine_through_moves(net: Net, node: Node) -> bool:
    """Fold an affine map into the linear maps whose outputs, moved, selected, resized, pooled or joined, are its input.

    Each number has a label, that of the output channel which it comes from. All numbers of a label must get the same
    scale and the same shift, and the labels that reach the affine map must reach nothing else. Maxima pass a map that
    is increasing.
    """
    affine = _affine(net, node)
    if affine is None:
        return False
    layers, steps = _route(net, affine.source)
    if not layers or not steps or (any(is_call(step, *_MAXIMA) for step in steps) and not affine.increasing):
        return False
    offsets, labels_of = _labels(net, layers, steps)
    reached = labels_of.get(affine.source)
    if not isinstance(reached, Tensor) or not _reach_nothing_else(net, labels_of, node, affine.source):
        return False
    by_label = _by_label(affine, reached, sum(_channels(net, layer) for layer in layers))
    if by_label is None:
        return False
    for layer in layers:
        rows = slice(offsets[layer], offsets[layer] + _channels(net, layer))
        device = net.device
        scale, shift = (None if vector is None else vector[rows].to(device) for vector in by_label)
        assert scale is not None
        net.scale_and_shift(layer, scale, shift)
    net.replace(node, affine.source)
    return True


@dataclass(frozen=True)
class _Affine:
    """scale * source + shift, both (channels,) along an axis of the source; a number is the same for every channel."""

    source: Node
    axis: int
    scale: Tensor
    shift: Tensor | None
    is_number: bool

    @property
    def increasing(self) -> bool:
        """Whether every scale is positive; False where that is unknown, on the meta device."""
        return not self.scale.is_meta and bool((self.scale > 0).all())

    def values_at(self, index: Tensor) -> Tensor:
        """Return scale and shift at these channels."""
        shift = torch.zeros_like(self.scale) if self.shift is None else self.shift
        return torch.stack((self.scale, shift))[:, index]


def _affine(net: Net, node: Node) -> _Affine | None:
    """Read a node as an affine map of the channels of some axis; None for any other node."""
    value = node.meta.get(VALUE)
    if not isinstance(value, Tensor):
        return None
    for axis in (1,) if is_call(node, BATCH_NORM) else range(1, value.dim()):
        if (affine := net.affine(node, axis)) is not None:
            source, scale, shift = affine
            is_number = any(isinstance(operand, (int, float)) for operand in node.args[:2])
            device = "meta" if scale.is_meta else "cpu"
            return _Affine(source, axis, scale.to(device), None if shift is None else shift.to(device), is_number)
    return None


def _route(net: Net, source: Node) -> tuple[list[Node], list[Node]]:
    """Return the linear maps that a tensor comes from, and the moves on the way; none where there is anything else."""
    layers: dict[Node, None] = {}
    steps: set[Node] = set()
    pending = [source]
    while pending:
        current = pending.pop()
        if current in layers or current in steps:
            continue
        if net.is_weighted(current):
            if net.shared(current):
                return [], []
            layers[current] = None
        elif inputs := _moved_inputs(net, current):
            steps.add(current)
            pending += inputs
        else:
            return [], []
    return list(layers), [node for node in net.nodes() if node in steps]


def _moved_inputs(net: Net, node: Node) -> list[Node]:
    """Return the tensors whose numbers make up a node's output, under any affine map of channels; none for others."""
    if is_call(node, *_JOINTS):
        return list(net.arguments(node)["tensors"])
    if not is_call(node, *ALL_MOVES, *_NEAREST, *_POOLS) and not _is_mean(net, node):
        return []
    if is_call(node, *_AVERAGES):
        named = net.arguments(node)
        padded = named["count_include_pad"] and any(named["padding"])
        if padded or named.get("divisor_override") is not None:
            return []
    first, *others = node.all_input_nodes
    tensors = (other for other in others if isinstance(other.meta.get(VALUE), Tensor))
    return [first] if all(net.constant(other) is not None for other in tensors) else []


def _is_mean(net: Net, node: Node) -> bool:
    return is_call(node, aten.mean.dim) and net.arguments(node)["dtype"] is None and bool(net.arguments(node)["dim"])


def _labels(net: Net, layers: list[Node], steps: list[Node]) -> tuple[dict[Node, int], dict[Node, Any]]:
    """Return the first label of each layer, and the labels of all tensors on the way, as far as there are any."""
    offsets: dict[Node, int] = {}
    labels_of: dict[Node, Any] = {}
    count = 0
    for layer in layers:
        offsets[layer] = count
        labels_of[layer] = labels(layer, net.channel_axis(layer)) + count
        count += _channels(net, layer)
    for step in steps:
        if any(tensor not in labels_of for tensor in _moved_inputs(net, step)):
            continue
        moved = _after(net, step, labels_of)
        if moved is not None:
            labels_of[step] = moved
    return offsets, labels_of


def _after(net: Net, step: Node, labels_of: Mapping[Node, Any]) -> Any:
    """Return the labels behind a step; None where it blends numbers of several labels."""
    if is_call(step, *ALL_MOVES, *_JOINTS):
        return send(net, step, labels_of)
    before = labels_of[step.all_input_nodes[0]]
    if is_call(step, aten.mean.dim):
        named = net.arguments(step)
        lowest, highest = (sign * torch.amax(sign * before, named["dim"], named["keepdim"]) for sign in (-1, 1))
        return highest if torch.equal(lowest, highest) else None
    if is_call(step, *_NEAREST):
        # torch resizes no integers.
        return send(net, step, {step.all_input_nodes[0]: before.double()}).long()
    first = before
    for axis in range(-_POOLS[step.target], 0):  # type: ignore[index]
        first = first.narrow(axis, 0, 1)
    return first.expand(shape_at_probe(step)) if torch.equal(before, first.expand(before.shape)) else None


def _reach_nothing_else(net: Net, labels_of: dict[Node, Any], node: Node, source: Node) -> bool:
    """Return whether the labels that reach `node` through `source` reach no other reader."""
    reached = labels_of[source].unique()
    labels_of = dict(labels_of)
    pending = [(tensor, reader) for tensor in labels_of for reader in tensor.users if reader not in labels_of]
    while pending:
        tensor, reader = pending.pop()
        if reader is node:
            continue
        if is_call(reader, *SELECTIONS) and _moved_inputs(net, reader):
            labels_of[reader] = send(net, reader, labels_of)
            pending += [(reader, user) for user in reader.users]
            continue
        parts = torch.utils._pytree.tree_leaves(labels_of[tensor])
        if any(bool(torch.isin(part, reached).any()) for part in parts):
            return False
    return True


def _channels(net: Net, layer: Node) -> int:
    return net.shape(layer)[net.channel_axis(layer)]


def _by_label(affine: _Affine, reached: Tensor, count: int) -> tuple[Tensor, Tensor | None] | None:
    """Return scale and shift of each label, 1 and 0 of one that is not reached; None where a label gets two values."""
    along = (-1, *[1] * (reached.dim() - affine.axis - 1))
    channels = torch.arange(len(affine.scale)) * (not affine.is_number)
    index, labels_ = channels.reshape(along).expand(reached.shape).flatten(), reached.flatten()
    of_label = torch.zeros(count, dtype=torch.long)
    of_label[labels_] = index
    chosen = of_label[labels_]
    # Other channels may have equal values; on the meta device nothing has any.
    if not torch.equal(chosen, index) and (
        affine.scale.is_meta or not torch.equal(affine.values_at(chosen), affine.values_at(index))
    ):
        return None
    is_reached = torch.zeros(count, dtype=torch.bool)
    is_reached[labels_] = True
    is_reached = is_reached.to(affine.scale.device)
    scale = torch.where(is_reached, affine.scale[of_label], 1.0)
    return scale, None if affine.shift is None else torch.where(is_reached, affine.shift[of_label], 0.0)
