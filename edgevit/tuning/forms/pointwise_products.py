"""1x1 convolutions as products of their matrix with pixels, as tokens or as they lie in memory."""

from __future__ import annotations

from torch.fx import Node

from edgevit.folding.graph import CONVOLUTION, Net, aten
from edgevit.folding.kernel import Kernel
from edgevit.tuning.form import Form
from edgevit.tuning.forms_parts import called, has_fixed_sizes, kernel_of, projected, reshaped, swapped


def _nodes(net: Net, node: Node) -> tuple[Node, ...] | None:
    kernel = kernel_of(net, node, CONVOLUTION)
    if kernel is None or not kernel.pointwise or kernel.groups != 1 or not has_fixed_sizes(net, node):
        return None
    return (node,)


def _grouped_nodes(net: Net, node: Node) -> tuple[Node, ...] | None:
    kernel = kernel_of(net, node, CONVOLUTION)
    # One channel a group is a scale, and no product.
    if kernel is None or not kernel.pointwise or kernel.groups == 1 or kernel.weight.shape[1] == 1:
        return None
    return (node,) if has_fixed_sizes(net, node) else None


def _pixels(net: Net, node: Node) -> tuple[int, int, int]:
    """Return height, width and their product."""
    height, width = net.shape(node)[2:]
    return height, width, height * width


def _write_tokens(net: Net, node: Node) -> Node:
    kernel, (height, width, pixels) = net.kernel(node), _pixels(net, node)
    flat = reshaped(net, net.input(node), kernel.channels_in, pixels, before=node)
    tokens = swapped(net, flat, 1, 2, before=node)
    result = projected(net, tokens, kernel.weight[:, :, 0, 0], kernel.bias, before=node)
    return reshaped(net, swapped(net, result, 1, 2, before=node), kernel.channels_out, height, width, before=node)


def _write_rows(net: Net, node: Node) -> Node:
    kernel, (height, width, _) = net.kernel(node), _pixels(net, node)
    last = net.call(aten.permute.default, net.input(node), [0, 2, 3, 1], before=node)
    rows = net.call(aten.reshape.default, last, [-1, kernel.channels_in], before=node)
    result = projected(net, rows, kernel.weight[:, :, 0, 0], kernel.bias, before=node)
    result = reshaped(net, result, height, width, kernel.channels_out, before=node)
    return net.call(aten.permute.default, result, [0, 3, 1, 2], before=node)


def _write_matrix(net: Net, node: Node) -> Node:
    kernel, (height, width, pixels) = net.kernel(node), _pixels(net, node)
    flat = reshaped(net, net.input(node), kernel.channels_in, pixels, before=node)
    result = called(net, aten.matmul.default, kernel.weight[:, :, 0, 0], flat, before=node)
    result = reshaped(net, result, kernel.channels_out, height, width, before=node)
    return _shifted(net, result, kernel, node)


def _write_groups(net: Net, node: Node) -> Node:
    kernel, (height, width, pixels) = net.kernel(node), _pixels(net, node)
    groups = kernel.groups
    flat = reshaped(net, net.input(node), groups, kernel.channels_in // groups, pixels, before=node)
    matrices = kernel.weight.reshape(groups, kernel.channels_out // groups, -1)
    result = called(net, aten.matmul.default, matrices, flat, before=node)
    result = reshaped(net, result, kernel.channels_out, height, width, before=node)
    return _shifted(net, result, kernel, node)


def _shifted(net: Net, result: Node, kernel: Kernel, node: Node) -> Node:
    """Return maps with the bias of a kernel added."""
    if kernel.bias is None:
        return result
    return called(net, aten.add.Tensor, result, kernel.bias.reshape(-1, 1, 1), before=node)


FORMS = (
    Form("pointwise_tokens", "1x1 convolutions as fully connected layers of pixels as tokens", _nodes, _write_tokens),
    Form("pointwise_rows", "1x1 convolutions as one product with the pixels of all images", _nodes, _write_rows),
    Form("pointwise_matrix", "1x1 convolutions as products of a matrix with flat maps", _nodes, _write_matrix),
    Form("pointwise_groups", "grouped 1x1 convolutions as batched products", _grouped_nodes, _write_groups),
)
