"""Moves arithmetic ahead of reshapes, so that linear maps meet the sums and scales that follow them."""

from __future__ import annotations

from torch.fx import Node

from edgevit.folding.graph import Net, aten, is_call

_RESHAPES = (aten.flatten.using_ints, aten.view.default, aten.reshape.default)
_ARITHMETIC = (aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor)


def reshape_downstream(net: Net, node: Node) -> bool:
    """Move a reshape behind arithmetic: reshape(a) + reshape(b) = reshape(a + b); one operand may be a scalar."""
    if not is_call(node, *_ARITHMETIC):
        return False
    operands = node.args[:2]
    reshapes = [operand for operand in operands if isinstance(operand, Node)]
    if not reshapes or not all(is_call(reshape, *_RESHAPES) and len(reshape.users) == 1 for reshape in reshapes):
        return False
    first = reshapes[0]
    if any((reshape.target, reshape.args[1:]) != (first.target, first.args[1:]) for reshape in reshapes):
        return False
    sources = [net.input(operand) if isinstance(operand, Node) else operand for operand in operands]
    # Sources of other shapes would broadcast.
    if len({net.shape(source) for source in sources if isinstance(source, Node)}) > 1:
        return False
    result = net.call(node.target, *sources, *node.args[2:], before=node, **node.kwargs)  # type: ignore[arg-type]
    net.replace(node, net.call(first.target, result, *first.args[1:], before=node))  # type: ignore[arg-type]
    return True
