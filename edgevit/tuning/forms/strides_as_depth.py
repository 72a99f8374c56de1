"""Strided convolutions as space-to-depth and a convolution without stride, such as stems and patch embeddings.

Each square of s x s pixels becomes one pixel with s x s times the channels. A kernel of k taps an axis becomes one of
ceil(k / s) taps, with zeros for what it does not read: a kernel as large as its stride becomes a product.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor
from torch.fx import Node

from edgevit.folding.graph import CONVOLUTION, Net, aten
from edgevit.folding.kernel import Kernel
from edgevit.tuning.form import Form
from edgevit.tuning.forms_parts import cut, has_fixed_sizes, joined, kernel_of, reshaped, swapped


def _nodes(way: str, net: Net, node: Node) -> tuple[Node, ...] | None:
    kernel = kernel_of(net, node, CONVOLUTION)
    if kernel is None or kernel.groups != 1 or kernel.stride == (1, 1) or kernel.dilation != (1, 1):
        return None
    is_square = kernel.stride[0] == kernel.stride[1]
    reads_all = all(size >= stride for size, stride in zip(kernel.size, kernel.stride, strict=True))
    fits = reads_all and has_fixed_sizes(net, net.input(node)) and (is_square or way != _UNSHUFFLED)
    return (node,) if fits else None


def _write(way: str, net: Net, node: Node) -> Node:
    kernel = net.kernel(node)
    taps = tuple(-(-size // stride) for size, stride in zip(kernel.size, kernel.stride, strict=True))
    sides = tuple((net.shape(node)[axis + 2] + taps[axis] - 1) * kernel.stride[axis] for axis in (0, 1))
    source = fitted(net, net.input(node), kernel.padding, sides, before=node)
    rows, columns = kernel.stride
    if way == _SLICED:
        # One slice for each pixel of a square: the channels are the last part of a channel's index.
        bands = [cut(net, source, 2, i, sides[0], step=rows, before=node) for i in range(rows)]
        parts = [cut(net, band, 3, j, sides[1], step=columns, before=node) for band in bands for j in range(columns)]
        deep = joined(net, parts, 1, before=node)
    elif way == _UNSHUFFLED:
        deep = net.call(aten.pixel_unshuffle.default, source, rows, before=node)
    else:
        deep = _moved(net, source, rows, columns, before=node)
    weight = _deep_weight(kernel, taps, channels_last=way == _SLICED)
    return net.convolve(deep, Kernel(weight, kernel.bias), before=node)


def fitted(net: Net, source: Node, padding: tuple[int, int], sides: tuple[int, ...], *, before: Node) -> Node:
    """Return maps (B, C, H, W) with zeros ahead as given, and behind zeros or a cut to these sides."""
    shape = net.shape(source)
    behind = [max(0, sides[axis] - shape[axis + 2] - padding[axis]) for axis in (0, 1)]
    if any(padding) or any(behind):
        pads = [padding[1], behind[1], padding[0], behind[0]]
        source = net.call(aten.constant_pad_nd.default, source, pads, 0.0, before=before)
    for axis in (0, 1):
        source = cut(net, source, axis + 2, 0, sides[axis], before=before)
    return source


def _moved(net: Net, source: Node, rows: int, columns: int, *, before: Node) -> Node:
    """Return space-to-depth by transpositions of rank 4, which every engine has."""
    _, channels, height, width = net.shape(source)
    height, width = height // rows, width // columns
    out = net.call(aten.reshape.default, source, [-1, rows, width, columns], before=before)
    out = swapped(net, out, 2, 3, before=before)
    out = net.call(aten.reshape.default, out, [-1, height, rows * columns, width], before=before)
    out = swapped(net, out, 1, 2, before=before)
    return reshaped(net, out, channels * rows * columns, height, width, before=before)


def _deep_weight(kernel: Kernel, taps: tuple[int, ...], *, channels_last: bool) -> Tensor:
    """Return the weight (out, in * rows * columns, taps ..) that reads squares of pixels as channels."""
    (rows, columns), (height, width) = kernel.stride, kernel.size
    missing = [0, taps[1] * columns - width, 0, taps[0] * rows - height]
    weight = torch.nn.functional.pad(kernel.weight, missing)
    squares = weight.reshape(*weight.shape[:2], taps[0], rows, taps[1], columns)
    order = (0, 3, 5, 1, 2, 4) if channels_last else (0, 1, 3, 5, 2, 4)
    return squares.permute(order).reshape(weight.shape[0], -1, *taps)


_UNSHUFFLED, _MOVED, _SLICED = "unshuffled", "moved", "sliced"
FORMS = tuple(
    Form(
        f"strides_{way}",
        f"strided convolutions as {words} and a convolution without stride",
        partial(_nodes, way),
        partial(_write, way),
    )
    for way, words in (
        (_UNSHUFFLED, "space-to-depth"),
        (_MOVED, "space-to-depth by transpositions"),
        (_SLICED, "slices of every n-th pixel"),
    )
)
