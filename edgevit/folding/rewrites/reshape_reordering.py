"""Arithmetic ahead of reshapes, so that linear maps meet the sums and scales that follow them."""

from __future__ import annotations

from torch.fx import Node

from edgevit.folding.graph import Net, aten, is_call

_RESHAPES = (aten.flatten.using_ints, aten.view.default, aten.reshape.default)
_ARITHMETIC = (aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor)


def reshape_downstream(net: Net, node: Node) -> bool:
    """reshape(a) + reshape(b) = reshape(a + b), and the same for a scalar in place of one of them."""
    if not is_call(node, *_ARITHMETIC):
        return False
    operands = node.args[:2]
    reshapes = [item for item in operands if isinstance(item, Node)]
    if not reshapes or not all(is_call(item, *_RESHAPES) and len(item.users) == 1 for item in reshapes):
        return False
    first = reshapes[0]
    if any((item.target, item.args[1:]) != (first.target, first.args[1:]) for item in reshapes):
        return False
    sources = [net.input(item) if isinstance(item, Node) else item for item in operands]
    if len({net.shape(item) for item in sources if isinstance(item, Node)}) > 1:
        return False  # the arithmetic would broadcast
    result = net.call(node.target, *sources, *node.args[2:], before=node, **node.kwargs)  # type: ignore[arg-type]
    net.replace(node, net.call(first.target, result, *first.args[1:], before=node))  # type: ignore[arg-type]
    return True
