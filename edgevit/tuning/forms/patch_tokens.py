"""Convolutions whose result is read as tokens, as products of the tokens of their patches.

A convolution with kernel = stride, flattened and transposed to (B, N, C), is one product per patch. A 1x1 convolution
is the smallest case. The transposition then meets the input, which is the smaller of the two for a stem.
"""

from __future__ import annotations

from torch.fx import Node

from edgevit.folding.graph import CONVOLUTION, Net, aten, is_call
from edgevit.tuning.form import Form
from edgevit.tuning.forms.strides_as_depth import fitted
from edgevit.tuning.forms_parts import enclosed, has_fixed_sizes, kernel_of, projected, reshaped, swapped


def _nodes(net: Net, node: Node) -> tuple[Node, ...] | None:
    if not is_call(node, aten.transpose.int, aten.permute.default) or len(net.shape(node)) != 3:
        return None
    flat = net.input(node)
    if not is_call(flat, aten.flatten.using_ints, aten.reshape.default) or not _swaps(net, node):
        return None
    convolution = net.input(flat)
    kernel = kernel_of(net, convolution, CONVOLUTION)
    if kernel is None or kernel.groups != 1 or kernel.size != kernel.stride or kernel.dilation != (1, 1):
        return None
    if not has_fixed_sizes(net, net.input(convolution)):
        return None
    batch, channels, height, width = net.shape(convolution)
    is_flat = net.shape(flat) == (batch, channels, height * width)
    return enclosed([convolution, flat, node]) if is_flat else None


def _swaps(net: Net, node: Node) -> bool:
    """Return whether a node swaps the last two of three axes."""
    named = net.arguments(node)
    if is_call(node, aten.transpose.int):
        return {named["dim0"] % 3, named["dim1"] % 3} == {1, 2}
    return [axis % 3 for axis in named["dims"]] == [0, 2, 1]


def _write(net: Net, node: Node) -> Node:
    convolution = net.input(net.input(node))
    kernel, (height, width) = net.kernel(convolution), net.shape(convolution)[2:]
    rows, columns = kernel.size
    sides = (height * rows, width * columns)
    source = fitted(net, net.input(convolution), kernel.padding, sides, before=node)
    weight = kernel.weight.flatten(1)
    if (rows, columns) != (1, 1):
        # (B C h, rows, w, columns) -> (B C h, w, rows, columns)
        bands = net.call(aten.reshape.default, source, [-1, rows, width, columns], before=node)
        source = swapped(net, bands, 1, 2, before=node)
    patches = reshaped(net, source, kernel.channels_in, height * width, rows * columns, before=node)
    tokens = swapped(net, patches, 1, 2, before=node)
    tokens = reshaped(net, tokens, height * width, weight.shape[1], before=node)
    return projected(net, tokens, weight, kernel.bias, before=node)


FORMS = (Form("patch_tokens", "convolutions that are read as tokens as products of patches", _nodes, _write),)
