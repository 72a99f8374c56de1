"""Shortens the max-relative graph convolution: maxima of differences, and minima over a map's own rolls."""

from __future__ import annotations

from torch.fx import Node

from edgevit.folding.graph import Net, aten, is_call
from edgevit.folding.values import VALUE

_MAXIMUM = (aten.maximum.default, aten.max.other)
_MINIMUM = (aten.minimum.default, aten.min.other)


def max_of_differences(net: Net, node: Node) -> bool:
    """Replace max(a - b, a - c) by a - min(b, c), equal to the bit, as rounding is monotonic. Zeros count as a - a."""
    if not is_call(node, *_MAXIMUM) or not node.meta[VALUE].dtype.is_floating_point:
        return False
    operands = [(operand, _difference(net, operand)) for operand in node.args[:2]]
    differences = [difference for _, difference in operands if difference is not None]
    if not differences or any(pair is None and not _is_zeros(operand) for operand, pair in operands):
        return False
    minuend = differences[0][0]
    if any(other is not minuend for other, _ in differences) or net.shape(minuend) != net.shape(node):
        return False
    if minuend.meta[VALUE].dtype != node.meta[VALUE].dtype:
        return False
    subtrahends = [minuend if difference is None else difference[1] for _, difference in operands]
    minimum = net.call(aten.minimum.default, *subtrahends, before=node)
    net.replace(node, net.call(aten.sub.Tensor, minuend, minimum, before=node))
    return True


def _difference(net: Net, node: object) -> tuple[Node, Node] | None:
    if not is_call(node, aten.sub.Tensor) or len(node.users) > 1 or net.arguments(node)["alpha"] != 1:
        return None
    subtrahend = node.args[1]
    return (net.input(node), subtrahend) if isinstance(subtrahend, Node) else None


def _is_zeros(node: object) -> bool:
    return is_call(node, aten.zeros_like.default, aten.zeros.default)


def min_over_rolls(net: Net, node: Node) -> bool:
    """Compute a minimum over a map's rolls by 0, K, 2K .. (n-1)K in ceil(log2 n) steps an axis instead of n - 1.

    A minimum may count an element twice. So the minimum over 2m rolls is min(y, roll(y, mK)), y being that over m. The
    last step overlaps where n is no power of two.
    """
    if not is_call(node, *_MINIMUM) or any(is_call(reader, *_MINIMUM) for reader in node.users):
        return False
    leaves = _leaves(node)
    sources = {leaf if not is_call(leaf, aten.roll.default) else net.input(leaf) for leaf in leaves}
    if len(sources) != 1 or len(leaves) < 4:
        return False
    source = sources.pop()
    shifts = _shifts(net, source, leaves)
    if shifts is None or not all(map(_is_progression, shifts.values())):
        return False
    # With two short axes, doubling saves no step.
    if sum((len(steps) - 1).bit_length() for steps in shifts.values()) >= len(leaves) - 1:
        return False
    parts = [_doubled(net, source, axis, steps, node) for axis, steps in sorted(shifts.items())]
    result = parts[0]
    for part in parts[1:]:
        result = net.call(aten.minimum.default, result, part, before=node)
    net.replace(node, result)
    return True


def _leaves(node: Node) -> list[Node]:
    """Return the leaves of a tree of minima; inner results with other readers are leaves."""
    leaves: list[Node] = []
    for operand in node.all_input_nodes:
        is_inner = is_call(operand, *_MINIMUM) and len(operand.users) == 1
        leaves += _leaves(operand) if is_inner else [operand]
    return leaves


def _shifts(net: Net, source: Node, leaves: list[Node]) -> dict[int, list[int]] | None:
    """Return the shifts by axis, 0 among them; None if a leaf rolls two axes or the batch, or the map is missing."""
    shifts: dict[int, list[int]] = {}
    for leaf in leaves:
        if leaf is source:
            continue
        named = net.arguments(leaf)
        if len(named["dims"]) != 1:
            return None
        axis = named["dims"][0] % len(net.shape(source))
        # The open axis is the batch.
        if net.shape(source)[axis] < 0:
            return None
        shifts.setdefault(axis, [0]).append(named["shifts"][0] % net.shape(source)[axis])
    return {axis: sorted(set(steps)) for axis, steps in shifts.items()} if source in leaves else None


def _is_progression(steps: list[int]) -> bool:
    """Return whether the steps are 0, K, 2K, .."""
    return len(steps) > 1 and steps == [i * steps[1] for i in range(len(steps))]


def _doubled(net: Net, source: Node, axis: int, steps: list[int], before: Node) -> Node:
    result, covered = source, 1
    while covered < len(steps):
        added = min(covered, len(steps) - covered)
        rolled = net.call(aten.roll.default, result, [added * steps[1]], [axis], before=before)
        result = net.call(aten.minimum.default, result, rolled, before=before)
        covered += added
    return result
