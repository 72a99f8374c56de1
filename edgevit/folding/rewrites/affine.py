"""Folds scales and shifts per channel (BatchNorm, layer scale, constants) into neighbouring linear maps."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.fx import Node

from edgevit.folding.graph import BATCH_NORM, Net, aten, is_call


def affine_into_previous(net: Net, node: Node) -> bool:
    """Merge linear -> affine into one linear map, where nothing else reads the linear map or shares its weights.

    This holds for every convolution: 1-D, 2-D, 3-D and transposed.
    """
    for source in filter(net.is_weighted, node.all_input_nodes):
        affine = net.affine(node, net.channel_axis(source))
        if affine and affine[0] is source and len(source.users) == 1 and not net.shared(source):
            net.scale_and_shift(source, affine[1], affine[2])
            net.replace(node, source)
            return True
    return False


def affine_into_repeated(net: Net, node: Node) -> bool:
    """Merge linear -> affine where one layer is called several times, and an equal affine map follows every call."""
    for source in filter(net.is_weighted, node.all_input_nodes):
        calls = net.calls(source)
        maps = [_only_affine(net, call) for call in calls]
        first = maps[0]
        if len(calls) > 1 and first and all(other and _are_equal(first, other) for other in maps):
            net.scale_and_shift(calls[0], first[1], first[2])
            for call, affine in zip(calls, maps, strict=True):
                call.args, call.kwargs = (call.args[0], *calls[0].args[1:]), {}
                if affine:
                    net.replace(affine[0], call)
            return True
    return False


Affine = tuple[Node, Tensor, Tensor | None]


def _only_affine(net: Net, source: Node) -> Affine | None:
    """Return the affine map that is the only reader of a linear map, with scale and shift; None for other readers."""
    if len(source.users) != 1:
        return None
    reader = next(iter(source.users))
    affine = net.affine(reader, net.channel_axis(source))
    return (reader, affine[1], affine[2]) if affine and affine[0] is source else None


def _are_equal(first: Affine, second: Affine) -> bool:
    shifts = [affine[2] for affine in (first, second)]
    same_shift = shifts[0] is shifts[1] or (None not in shifts and torch.equal(*shifts))  # type: ignore[arg-type]
    return same_shift and torch.equal(first[1], second[1])


def affine_into_next(net: Net, node: Node) -> bool:
    """Merge affine -> linear into one linear map, where every reader of the affine map is linear and exact.

    A shift before zero padding cannot be merged: the padding's zeros come after it.
    """
    readers = list(node.users)
    if not readers or not all(net.is_linear(reader) and reader.args[0] is node for reader in readers):
        return False
    axes = {net.channel_axis(reader) for reader in readers}
    affine = net.affine(node, axes.pop()) if len(axes) == 1 else None
    if affine is None:
        return False
    source, scale, shift = affine
    if any(net.shared(reader) or (net.kernel(reader).padded and shift is not None) for reader in readers):
        return False
    for reader in readers:
        net.set_kernel(reader, net.kernel(reader).after_affine(scale, shift))
    net.replace(node, source)
    return True


def why_norm_stays(net: Net, node: Node) -> str:
    """Return why a BatchNorm could not be folded into a linear map before or after it."""
    if net.affine(node, 1) is None:
        return "it takes its statistics from the batch: it has no inference form"
    source = net.input(node)
    if net.is_weighted(source):
        if net.shared(source):
            return f"the weights of {source.name} before it serve another call too"
        return f"{source.name} before it has {len(source.users)} readers, and only one passes through this norm"
    readers = [reader for reader in node.users if net.is_linear(reader)]
    if len(readers) < len(node.users) or not readers:
        return f"{_name(source)} before it cannot take it, nor can every reader after it"
    return f"{readers[0].name} after it pads with zeros that the shift does not reach, or shares its weights"


def _name(node: Node) -> str:
    return str(node.target).removeprefix("aten.") if node.op == "call_function" else node.name


def is_norm(node: Node) -> bool:
    """Return whether a node is a BatchNorm, also one without running statistics, as capture may spell it."""
    return is_call(node, BATCH_NORM, aten._native_batch_norm_legit.no_stats)
