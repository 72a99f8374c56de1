"""Chains of operators that only move numbers, as fewer of them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.fx import Node

from edgevit.folding.graph import Net, aten, is_call
from edgevit.folding.layout import MOVES, probed, send

_ORDERS = (aten.permute.default, aten.transpose.int, aten.movedim.int, aten.movedim.intlist)
_RANK = 4  # what every runtime takes


def one_gather(net: Net, node: Node) -> bool:
    """Moves that only reorder one axis, such as windows found by several transpositions, become one gather of it.

    Only where they are three transpositions or more, or need a tensor above rank 4: some runtimes take none.
    """
    if not is_call(node, *MOVES) or any(_continues(net, reader, node) for reader in node.users):
        return False
    chain = _chain(net, node)
    source = net.input(chain[0])
    if net.shape(source) != net.shape(node) or -1 in net.shape(source)[1:]:
        return False
    if sum(is_call(item, *_ORDERS) for item in chain) < 3 and max(len(net.shape(item)) for item in chain) <= _RANK:
        return False
    found = _one_axis(_order(net, source, chain))
    if found is None or found[0] == 0:
        return False
    axis, places = found
    index = net.add_constant(places.to(source.meta["val"].device), before=node)
    net.replace(node, net.call(aten.index_select.default, source, axis, index, before=node))
    return True


def _continues(net: Net, reader: Node, node: Node) -> bool:
    return is_call(reader, *MOVES) and net.input(reader) is node and len(node.users) == 1


def _chain(net: Net, node: Node) -> list[Node]:
    """The longest chain of moves that ends here and that nobody reads on its way, in order."""
    chain = [node]
    while is_call(before := net.input(chain[0]), *MOVES) and len(before.users) == 1:
        chain.insert(0, before)
    return chain


def _order(net: Net, source: Node, chain: list[Node]) -> Tensor:
    """Where in `source` each number of the chain's end was, counted row by row."""
    shape = probed(net.shape(source))
    places = torch.arange(torch.Size(shape).numel(), device="cpu").reshape(shape)
    for node in chain:
        places = send(net, node, {node.all_input_nodes[0]: places})
    return places


def _one_axis(places: Tensor) -> tuple[int, Tensor] | None:
    """(axis, index) so that the places are those of index_select(axis, index); None where they are of no such call."""
    plain = torch.arange(places.numel(), device="cpu").reshape(places.shape)
    for axis, size in enumerate(places.shape):
        step = plain.stride(axis)
        first = places.movedim(axis, 0).reshape(size, -1)[:, 0]
        index = first // step % size
        if torch.equal(places, plain.index_select(axis, index)):
            return axis, index
    return None
