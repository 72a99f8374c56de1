"""Shortens chains of operators that only move numbers."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.fx import Node

from edgevit.folding.graph import Net, aten, is_call
from edgevit.folding.layout import MOVES, send, shape_at_probe

_ORDERS = (aten.permute.default, aten.transpose.int, aten.movedim.int, aten.movedim.intlist)
_RANK = 4  # the highest rank that every runtime takes


def one_gather(net: Net, node: Node) -> bool:
    """Replace moves that only reorder one axis, such as windows by several transpositions, by one gather along it.

    This applies to three transpositions or more, or above rank 4, which some runtimes do not take.
    """
    if not is_call(node, *MOVES) or any(_continues(net, reader, node) for reader in node.users):
        return False
    chain = _chain(net, node)
    source = net.input(chain[0])
    if net.shape(source) != net.shape(node) or min(net.shape(source)[1:], default=0) < 0:
        return False
    if sum(is_call(move, *_ORDERS) for move in chain) < 3 and max(len(net.shape(move)) for move in chain) <= _RANK:
        return False
    gather = _one_axis(_positions(net, source, chain))
    if gather is None or gather[0] == 0:
        return False
    axis, indices = gather
    index = net.add_constant(indices.to(net.device), before=node)
    net.replace(node, net.call(aten.index_select.default, source, axis, index, before=node))
    return True


def _continues(net: Net, reader: Node, node: Node) -> bool:
    return is_call(reader, *MOVES) and net.input(reader) is node and len(node.users) == 1


def _chain(net: Net, node: Node) -> list[Node]:
    """Return the longest chain of moves that ends here and has no other reader on its way, in order."""
    chain = [node]
    while is_call(before := net.input(chain[0]), *MOVES) and len(before.users) == 1:
        chain.insert(0, before)
    return chain


def _positions(net: Net, source: Node, chain: list[Node]) -> Tensor:
    """Return the position in `source`, counted row by row, of each number at the chain's end."""
    shape = shape_at_probe(source)
    positions = torch.arange(torch.Size(shape).numel(), device="cpu").reshape(shape)
    for node in chain:
        positions = send(net, node, {node.all_input_nodes[0]: positions})
    return positions


def _one_axis(positions: Tensor) -> tuple[int, Tensor] | None:
    """Return (axis, index) such that the positions are those of index_select(axis, index), or None."""
    plain = torch.arange(positions.numel(), device="cpu").reshape(positions.shape)
    for axis, size in enumerate(positions.shape):
        step = plain.stride(axis)
        first = positions.movedim(axis, 0).reshape(size, -1)[:, 0]
        index = first // step % size
        if torch.equal(positions, plain.index_select(axis, index)):
            return axis, index
    return None
