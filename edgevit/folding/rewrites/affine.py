"""Scales and shifts per channel (BatchNorm, layer scale, constants) into the linear maps beside them."""

from __future__ import annotations

from torch.fx import Node

from edgevit.folding.graph import BATCH_NORM, Net, aten, is_call


def affine_into_previous(net: Net, node: Node) -> bool:
    """linear -> affine becomes linear, where nothing else reads the linear map or shares its weights.

    Any convolution will do, transposed ones and those of lines and volumes too.
    """
    for source in filter(net.is_weighted, node.all_input_nodes):
        read = net.affine(node, net.channel_axis(source))
        if read and read[0] is source and len(source.users) == 1 and not net.shared(source):
            net.scale_and_shift(source, read[1], read[2])
            net.replace(node, source)
            return True
    return False


def affine_into_next(net: Net, node: Node) -> bool:
    """affine -> linear becomes linear, where every reader of the affine map is linear and takes it exactly.

    A shift before zero padding is not taken: the padding's zeros come after it.
    """
    readers = list(node.users)
    if not readers or not all(net.is_linear(item) and item.args[0] is node for item in readers):
        return False
    axes = {net.channel_axis(item) for item in readers}
    read = net.affine(node, axes.pop()) if len(axes) == 1 else None
    if read is None or any(net.shared(item) or (net.kernel(item).padded and read[2] is not None) for item in readers):
        return False
    for item in readers:
        net.set_kernel(item, net.kernel(item).after_affine(read[1], read[2]))
    net.replace(node, read[0])
    return True


def why_norm_stays(net: Net, node: Node) -> str:
    """The reason why a BatchNorm could not be folded into a linear map before or after it."""
    if net.affine(node, 1) is None:
        return "it takes its statistics from the batch: it has no inference form"
    source = net.input(node)
    if net.is_weighted(source):
        if net.shared(source):
            return f"the weights of {source.name} before it serve another call too"
        return f"{source.name} before it has {len(source.users)} readers, and only one passes through this norm"
    readers = [item for item in node.users if net.is_linear(item)]
    if len(readers) < len(node.users) or not readers:
        return f"{_name(source)} before it cannot take it, nor can every reader after it"
    return f"{readers[0].name} after it pads with zeros that the shift does not reach, or shares its weights"


def _name(node: Node) -> str:
    return str(node.target).removeprefix("aten.") if node.op == "call_function" else node.name


def is_norm(node: Node) -> bool:
    """Whether a node is a BatchNorm, one without running statistics (as capture may spell it) too."""
    return is_call(node, BATCH_NORM, aten._native_batch_norm_legit.no_stats)
