"""Maxima of differences, and minima over a map's own rolls: the max-relative graph convolution in fewer steps."""

from __future__ import annotations

from torch.fx import Node

from edgevit.folding.graph import Net, aten, is_call

_MAXIMUM = (aten.maximum.default, aten.max.other)
_MINIMUM = (aten.minimum.default, aten.min.other)


def max_of_differences(net: Net, node: Node) -> bool:
    """max(a - b, a - c) = a - min(b, c), to the bit: rounding is monotonic. Zeros count as a - a."""
    if not is_call(node, *_MAXIMUM) or not node.meta["val"].dtype.is_floating_point:
        return False
    differences = [_difference(net, item) for item in node.args[:2]]
    known = [item for item in differences if item is not None]
    if not known or any(
        item is None and not _is_zeros(side) for item, side in zip(differences, node.args, strict=False)
    ):
        return False
    minuend = known[0][0]
    if any(other is not minuend for other, _ in known) or net.shape(minuend) != net.shape(node):
        return False
    if minuend.meta["val"].dtype != node.meta["val"].dtype:
        return False
    subtrahends = [minuend if item is None else item[1] for item in differences]
    least = net.call(aten.minimum.default, *subtrahends, before=node)
    net.replace(node, net.call(aten.sub.Tensor, minuend, least, before=node))
    return True


def _difference(net: Net, node: object) -> tuple[Node, Node] | None:
    if not is_call(node, aten.sub.Tensor) or len(node.users) > 1 or net.arguments(node)["alpha"] != 1:
        return None
    subtrahend = node.args[1]
    return (net.input(node), subtrahend) if isinstance(subtrahend, Node) else None


def _is_zeros(node: object) -> bool:
    return is_call(node, aten.zeros_like.default, aten.zeros.default)


def min_over_rolls(net: Net, node: Node) -> bool:
    """A minimum over a map's rolls by 0, K, 2K .. (n-1)K in ceil(log2 n) steps an axis instead of n - 1.

    A minimum may see an element twice, so min over 2m rolls is min(y, roll(y, mK)) for y the minimum over m, and the
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
    if sum((len(steps) - 1).bit_length() for steps in shifts.values()) >= len(leaves) - 1:
        return False  # two short axes: there is nothing to gain
    parts = [_doubled(net, source, axis, steps, node) for axis, steps in sorted(shifts.items())]
    result = parts[0]
    for part in parts[1:]:
        result = net.call(aten.minimum.default, result, part, before=node)
    net.replace(node, result)
    return True


def _leaves(node: Node) -> list[Node]:
    """What a tree of minima takes the minimum of; inner results that others read too are leaves."""
    found: list[Node] = []
    for item in node.all_input_nodes:
        inner = is_call(item, *_MINIMUM) and len(item.users) == 1
        found += _leaves(item) if inner else [item]
    return found


def _shifts(net: Net, source: Node, leaves: list[Node]) -> dict[int, list[int]] | None:
    """Rolls by axis, the zero roll in each; None if a leaf rolls two or the batch, or the map is missing."""
    shifts: dict[int, list[int]] = {}
    for leaf in leaves:
        if leaf is source:
            continue
        named = net.arguments(leaf)
        if len(named["dims"]) != 1:
            return None
        axis = named["dims"][0] % len(net.shape(source))
        if net.shape(source)[axis] == -1:  # along the batch
            return None
        shifts.setdefault(axis, [0]).append(named["shifts"][0] % net.shape(source)[axis])
    return {axis: sorted(set(steps)) for axis, steps in shifts.items()} if source in leaves else None


def _is_progression(steps: list[int]) -> bool:
    """0, K, 2K, .."""
    return len(steps) > 1 and steps == [i * steps[1] for i in range(len(steps))]


def _doubled(net: Net, source: Node, axis: int, steps: list[int], before: Node) -> Node:
    result, have = source, 1
    while have < len(steps):
        more = min(have, len(steps) - have)
        rolled = net.call(aten.roll.default, result, [more * steps[1]], [axis], before=before)
        result = net.call(aten.minimum.default, result, rolled, before=before)
        have += more
    return result
