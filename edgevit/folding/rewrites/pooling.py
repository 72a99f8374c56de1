"""Simplifies pools: adaptive ones become plain, a ReLU moves behind its pool, a mean joins its depthwise kernel."""

from __future__ import annotations

import math
import operator

from torch.fx import Node

from edgevit.folding.graph import CONVOLUTION, Net, aten, is_call

_MAX_SLICES = 4  # as measured by benchmarks/hiera_forms.py
# Pixels in one float32 sum. Of 12,544 the rounding alone came near the tolerance of the proof.
_LONGEST_SUM = 1024


def plain_max_pool(net: Net, node: Node) -> bool:
    """Replace an adaptive max-pool by the plain one with the same windows at this input size.

    Neither ONNX exporter knows the adaptive operator for sizes that do not divide.
    """
    if not is_call(node, aten.adaptive_max_pool2d.default) or any(u.args[1] != 0 for u in node.users):
        return False
    if len(net.shape(net.input(node))) != 4:
        return False
    source, sizes = net.input(node), net.arguments(node)["output_size"]
    plain = [_plain_window(size, out) for size, out in zip(net.shape(source)[2:], sizes, strict=True)]
    if None in plain:
        return False
    windows, strides, paddings = zip(*[window for window in plain if window], strict=True)
    pool = net.call(aten.max_pool2d.default, source, list(windows), list(strides), list(paddings), before=node)
    for reader in list(node.users):
        if is_call(reader, operator.getitem):
            net.replace(reader, pool)
    return True


def _plain_window(size: int, outputs: int) -> tuple[int, int, int] | None:
    """Return (window, stride, padding) of the plain pool with the adaptive pool's windows, or None.

    Adaptive output i covers floor(i n / m) .. ceil((i + 1) n / m). Padding never wins a maximum, so a plain window may
    reach over the border. It must cover the same pixels.
    """
    adaptive = [(i * size // outputs, -(-(i + 1) * size // outputs)) for i in range(outputs)]
    widest = max(stop - start for start, stop in adaptive)
    for window in (widest, widest + 1):
        for stride in range(1, window + 1):
            for padding in range(window // 2 + 1):
                starts = [i * stride - padding for i in range((size + 2 * padding - window) // stride + 1)]
                if [(max(s, 0), min(s + window, size)) for s in starts] == adaptive:
                    return window, stride, padding
    return None


def max_pool_before_relu(net: Net, node: Node) -> bool:
    """Move a ReLU behind its max-pool, where it has fewer pixels: max-pool(relu(x)) = relu(max-pool(x))."""
    if not is_call(node, aten.max_pool2d.default) or not is_call(relu := node.args[0], aten.relu.default):
        return False
    if len(relu.users) > 1:
        return False
    arguments = (net.input(relu), *node.args[1:])
    pool = net.call(aten.max_pool2d.default, *arguments, before=node)
    net.replace(node, net.call(aten.relu.default, pool, before=node))
    return True


def maxima_of_few(net: Net, node: Node) -> bool:
    """Split a maximum over an axis of two to four slices into maxima of two: engines reduce short axes badly."""
    if not is_call(node, aten.amax.default):
        return False
    source, dims, keepdim = net.input(node), net.arguments(node)["dim"], net.arguments(node)["keepdim"]
    shape = net.shape(source)
    if keepdim or len(dims) != 1 or dims[0] % len(shape) == len(shape) - 1 or not 2 <= shape[dims[0]] <= _MAX_SLICES:
        return False
    slices = net.call(aten.unbind.int, source, dims[0], before=node)
    parts = [net.call(operator.getitem, slices, i, before=node) for i in range(shape[dims[0]])]
    while len(parts) > 1:
        pairs = [parts[i : i + 2] for i in range(0, len(parts), 2)]
        parts = [net.call(aten.maximum.default, *pair, before=node) if len(pair) == 2 else pair[0] for pair in pairs]
    net.replace(node, parts[0])
    return True


def mean_into_depthwise(net: Net, node: Node) -> bool:
    """Merge depthwise convolution -> mean over all pixels into one weighted sum per channel.

    It has a weight for each pixel, so it is for small maps, and for networks with many other weights.
    """
    if not _is_global_mean(net, node) or not net.is_linear(source := net.input(node)):
        return False
    if not is_call(source, CONVOLUTION) or len(source.users) > 1 or net.shared(source):
        return False
    kernel, shape = net.kernel(source), net.shape(net.input(source))
    if kernel.weight.shape[1] != 1 or kernel.stride != (1, 1) or min(shape[2:]) < 0:
        return False
    # With few taps far apart, the convolution reads less than the whole map.
    pixels = math.prod(shape[2:])
    if pixels > math.prod(kernel.size) * math.prod(net.shape(source)[2:]) or pixels > _LONGEST_SUM:
        return False
    if not net.grow(kernel.channels_out * (pixels - math.prod(kernel.size))):
        return False
    summed = net.convolve(net.input(source), kernel.mean_weights(*shape[2:]), before=node)
    # A mean of rank 2 has dropped the pixel axes.
    if len(net.shape(node)) == 2:
        summed = net.call(aten.flatten.using_ints, summed, 1, before=node)
    net.replace(node, summed)
    return True


def _is_global_mean(net: Net, node: Node) -> bool:
    if is_call(node, aten.mean.dim):
        named, rank = net.arguments(node), len(net.shape(net.input(node)))
        return rank == 4 and named["dtype"] is None and {axis % 4 for axis in named["dim"] or ()} == {2, 3}
    return is_call(node, aten.adaptive_avg_pool2d.default) and tuple(net.arguments(node)["output_size"]) == (1, 1)
