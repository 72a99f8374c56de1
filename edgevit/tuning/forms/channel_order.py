"""Layers of single pixels with their channels last, or as 1x1 convolutions with their channels first.

A chain of such layers, activations, scales and shifts is moved as a whole: it is transposed at its two ends, or loses
the transpositions that it has there.
"""

from __future__ import annotations

from typing import Any

from torch.fx import Node

from edgevit.folding.graph import CONVOLUTION, LINEAR, Net, aten, is_call
from edgevit.tuning.form import Form
from edgevit.tuning.forms_parts import ELEMENTWISE, called, enclosed, is_plain, kernel_of, projected

_LAST, _FIRST = [0, 2, 3, 1], [0, 3, 1, 2]
_ARITHMETIC = (aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor)


def _source(net: Net, node: Any, axis: int) -> Node | None:
    """Return what a step of a chain computes its pixels from; None for other nodes. axis: that of channels."""
    if not is_plain(net, node) or len(net.shape(node)) != 4:
        return None
    kernel = kernel_of(net, node, LINEAR if axis == 3 else CONVOLUTION)
    if kernel is not None:
        return net.input(node) if kernel.pointwise and kernel.groups == 1 else None
    if is_call(node, *ELEMENTWISE):
        return net.input(node)
    affine = net.affine(node, axis) if is_call(node, *_ARITHMETIC) else None
    return affine[0] if affine is not None else None


def _chain(net: Net, node: Node, axis: int) -> list[Node]:
    """Return the longest chain that ends in a node, from its first layer with weights on; empty without any."""
    chain: list[Node] = []
    while (source := _source(net, node, axis)) is not None:
        chain.insert(0, node)
        if len(source.users) > 1:
            break
        node = source
    while chain and not is_call(chain[0], LINEAR, CONVOLUTION):
        chain.pop(0)
    return chain


def _moves(net: Net, node: Any, order: list[int]) -> bool:
    """Return whether a node is a permutation of four axes to this order."""
    if not is_call(node, aten.permute.default) or len(net.shape(node)) != 4:
        return False
    return [axis % 4 for axis in net.arguments(node)["dims"]] == order


def _write(net: Net, chain: list[Node], source: Node, axis: int, before: Node) -> Node:
    """Return what a chain computes of a source in the other order. axis: that of channels in the chain's own order."""
    shape = [-1] if axis == 1 else [-1, 1, 1]
    for step in chain:
        kernel = kernel_of(net, step)
        if kernel is not None:
            weight = kernel.weight[:, :, 0, 0]
            source = (
                projected(net, source, weight, kernel.bias, before=before)
                if axis == 1
                else net.convolve(source, kernel, before=before)
            )
        elif is_call(step, *ELEMENTWISE):
            source = net.call(step.target, source, *step.args[1:], before=before, **step.kwargs)  # type: ignore[arg-type]
        else:
            affine = net.affine(step, axis)
            assert affine is not None
            _, scale, shift = affine
            if bool((scale != 1).any()) or shift is None:
                source = called(net, aten.mul.Tensor, source, scale.reshape(shape), before=before)
            if shift is not None:
                source = called(net, aten.add.Tensor, source, shift.reshape(shape), before=before)
    return source


# ---- to the end ---------------------------------------------------------------------------------------------------


def _last_nodes(net: Net, node: Node) -> tuple[Node, ...] | None:
    chain = _chain(net, node, 1)
    readers = list(node.users)
    goes_on = len(readers) == 1 and _source(net, readers[0], 1) is node
    return enclosed(chain) if chain and not goes_on else None


def _write_last(net: Net, node: Node) -> Node:
    chain = _chain(net, node, 1)
    source = net.call(aten.permute.default, net.input(chain[0]), _LAST, before=node)
    return net.call(aten.permute.default, _write(net, chain, source, 1, node), _FIRST, before=node)


# ---- to the front -------------------------------------------------------------------------------------------------


def _first_chain(net: Net, node: Node) -> list[Node] | None:
    """Return the chain between two permutations of which this node is the second."""
    if not _moves(net, node, _FIRST):
        return None
    chain = _chain(net, net.input(node), 3)
    # Steps ahead of the first layer belong to it here.
    while chain and (source := _source(net, net.input(chain[0]), 3)) is not None and source.op == "call_function":
        chain.insert(0, net.input(chain[0]))
    return chain if chain and _moves(net, net.input(chain[0]), _LAST) else None


def _first_nodes(net: Net, node: Node) -> tuple[Node, ...] | None:
    chain = _first_chain(net, node)
    if chain is None:
        return None
    first = net.input(chain[0])
    return enclosed([*([first] if len(first.users) == 1 else []), *chain, node])


def _write_first(net: Net, node: Node) -> Node:
    chain = _first_chain(net, node)
    assert chain is not None
    return _write(net, chain, net.input(net.input(chain[0])), 3, node)


FORMS = (
    Form("channels_last", "1x1 convolutions as layers of pixels with channels last", _last_nodes, _write_last),
    Form("channels_first", "layers of pixels between transpositions as 1x1 convolutions", _first_nodes, _write_first),
)
