"""Fully connected layers of tokens as 1x1 convolutions, as one product of all rows, or as a product and a sum."""

from __future__ import annotations

from torch.fx import Node

from edgevit.folding.graph import LINEAR, Net, aten
from edgevit.tuning.form import Form
from edgevit.tuning.forms_parts import called, has_fixed_sizes, kernel_of, projected, reshaped, swapped


def _nodes(net: Net, node: Node) -> tuple[Node, ...] | None:
    return (node,) if kernel_of(net, node, LINEAR) is not None else None


def _token_nodes(net: Net, node: Node) -> tuple[Node, ...] | None:
    if kernel_of(net, node, LINEAR) is None or len(net.shape(node)) not in (3, 4):
        return None
    return (node,) if has_fixed_sizes(net, node) else None


def _write_pointwise(net: Net, node: Node) -> Node:
    kernel, source = net.kernel(node), net.input(node)
    # Maps (B, H, W, C), or tokens (B, N, C) as maps of one column.
    if len(net.shape(node)) == 4:
        first = net.call(aten.permute.default, source, [0, 3, 1, 2], before=node)
        return net.call(aten.permute.default, net.convolve(first, kernel, before=node), [0, 2, 3, 1], before=node)
    tokens = net.shape(node)[1]
    first = swapped(net, source, 1, 2, before=node)
    result = net.convolve(reshaped(net, first, kernel.channels_in, tokens, 1, before=node), kernel, before=node)
    return swapped(net, reshaped(net, result, kernel.channels_out, tokens, before=node), 1, 2, before=node)


def _write_rows(net: Net, node: Node) -> Node:
    kernel = net.kernel(node)
    rows = net.call(aten.reshape.default, net.input(node), [-1, kernel.channels_in], before=node)
    result = projected(net, rows, kernel.weight[:, :, 0, 0], kernel.bias, before=node)
    return reshaped(net, result, *net.shape(node)[1:], before=node)


def _write_product(net: Net, node: Node) -> Node:
    kernel = net.kernel(node)
    product = called(net, aten.matmul.default, net.input(node), kernel.weight[:, :, 0, 0].T, before=node)
    return product if kernel.bias is None else called(net, aten.add.Tensor, product, kernel.bias, before=node)


FORMS = (
    Form("tokens_pointwise", "fully connected layers of tokens as 1x1 convolutions", _token_nodes, _write_pointwise),
    Form("tokens_rows", "fully connected layers of tokens as one product of all rows", _token_nodes, _write_rows),
    Form("tokens_product", "fully connected layers as a product with a constant and a sum", _nodes, _write_product),
)
