"""Averages over windows and over whole maps in the operators that compute the same numbers."""

from __future__ import annotations

import math

import torch
from torch.fx import Node

from edgevit.folding.graph import Net, aten, is_call, pair
from edgevit.folding.kernel import Kernel
from edgevit.tuning.form import Form
from edgevit.tuning.forms_parts import called, cut, has_fixed_sizes, is_plain, reshaped

_WINDOWS, _ADAPTIVE, _MEAN = aten.avg_pool2d.default, aten.adaptive_avg_pool2d.default, aten.mean.dim


def _window(net: Net, node: Node) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int], int] | None:
    """Return (size, stride, padding, divisor) of an average over windows that all have one divisor, or None."""
    if not is_call(node, _WINDOWS) or not is_plain(net, node) or len(net.shape(node)) != 4:
        return None
    named = net.arguments(node)
    size, padding = pair(named["kernel_size"]), pair(named["padding"])
    stride = pair(named["stride"]) if named["stride"] else size
    divisor = named["divisor_override"] or math.prod(size)
    counts_all = named["count_include_pad"] or not any(padding) or named["divisor_override"] is not None
    usable = counts_all and not named["ceil_mode"] and has_fixed_sizes(net, node)
    return (size, stride, padding, divisor) if usable else None


def _depthwise_nodes(net: Net, node: Node) -> tuple[Node, ...] | None:
    return None if _window(net, node) is None else (node,)


def _write_depthwise(net: Net, node: Node) -> Node:
    window = _window(net, node)
    assert window is not None
    size, stride, padding, divisor = window
    channels = net.shape(node)[1]
    weight = torch.full((channels, 1, *size), 1 / divisor, dtype=torch.float64, device=net.device)
    kernel = Kernel(weight, None, stride, padding, groups=channels)
    return net.convolve(net.input(node), kernel, before=node)


def _tiles_nodes(net: Net, node: Node) -> tuple[Node, ...] | None:
    window = _window(net, node)
    if window is None:
        return None
    size, stride, padding, divisor = window
    return (node,) if size == stride and not any(padding) and divisor == math.prod(size) else None


def _write_tiles(net: Net, node: Node) -> Node:
    window = _window(net, node)
    assert window is not None
    (rows, columns), (channels, height, width) = window[0], net.shape(node)[1:]
    source = cut(net, net.input(node), 2, 0, height * rows, before=node)
    source = cut(net, source, 3, 0, width * columns, before=node)
    # Rows first: (B, C h, rows, W), so that no tensor has more than four axes.
    bands = reshaped(net, source, channels * height, rows, width * columns, before=node)
    means = net.call(_MEAN, bands, [2], before=node)
    tiles = reshaped(net, means, channels * height, width, columns, before=node)
    return reshaped(net, net.call(_MEAN, tiles, [3], before=node), channels, height, width, before=node)


# ---- whole maps ---------------------------------------------------------------------------------------------------


def _keeps_axes(net: Net, node: Node) -> bool | None:
    """Return whether a mean over all pixels of maps has the axes of pixels left, as ones; None for other nodes."""
    if not is_call(node, _ADAPTIVE, _MEAN, _WINDOWS) or not is_plain(net, node):
        return None
    shape, named = net.shape(net.input(node)), net.arguments(node)
    if len(shape) != 4 or min(shape[1:]) < 0:
        return None
    if is_call(node, _MEAN):
        is_whole = named["dtype"] is None and {dim % 4 for dim in named["dim"] or ()} == {2, 3}
        return bool(named["keepdim"]) if is_whole else None
    if is_call(node, _ADAPTIVE):
        return True if pair(named["output_size"]) == (1, 1) else None
    window = _window(net, node)
    is_whole = window is not None and window[0] == shape[2:] and window[2:] == ((0, 0), math.prod(shape[2:]))
    return True if is_whole else None


def _mean_nodes(net: Net, node: Node) -> tuple[Node, ...] | None:
    is_other = _keeps_axes(net, node) is not None and not is_call(node, _MEAN)
    return (node,) if is_other else None


def _pool_nodes(net: Net, node: Node) -> tuple[Node, ...] | None:
    is_other = _keeps_axes(net, node) is not None and not is_call(node, _ADAPTIVE)
    return (node,) if is_other else None


def _whole_nodes(net: Net, node: Node) -> tuple[Node, ...] | None:
    return (node,) if _keeps_axes(net, node) is not None else None


def _write_mean(net: Net, node: Node) -> Node:
    return net.call(_MEAN, net.input(node), [2, 3], True, before=node)


def _write_pool(net: Net, node: Node) -> Node:
    pooled = net.call(_ADAPTIVE, net.input(node), [1, 1], before=node)
    return pooled if _keeps_axes(net, node) else reshaped(net, pooled, net.shape(node)[1], before=node)


def _write_product(net: Net, node: Node) -> Node:
    channels, height, width = net.shape(net.input(node))[1:]
    flat = reshaped(net, net.input(node), channels, height * width, before=node)
    weights = torch.full((height * width, 1), 1 / (height * width), dtype=torch.float64, device=net.device)
    product = called(net, aten.matmul.default, flat, weights, before=node)
    return reshaped(net, product, *net.shape(node)[1:], before=node)


FORMS = (
    Form("average_depthwise", "averages over windows as depthwise layers", _depthwise_nodes, _write_depthwise),
    Form("average_tiles", "averages over tiles as two means of reshaped maps", _tiles_nodes, _write_tiles),
    Form("global_mean", "averages over whole maps as a mean", _mean_nodes, _write_mean),
    Form("global_pool", "means over whole maps as a pool", _pool_nodes, _write_pool),
    Form("global_product", "averages over whole maps as a product with a constant", _whole_nodes, _write_product),
)
