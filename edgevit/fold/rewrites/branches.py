"""Linear maps side by side: terms of one sum that read one map."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from torch import Tensor
from torch.fx import Node

from edgevit.fold.graph import CONVOLUTION, Net, aten, is_call
from edgevit.fold.kernel import Kernel, added, added_macs


def merge_parallel(net: Net, node: Node) -> bool:
    """Terms of a sum that read one map linearly become one convolution, where that costs no more than they did.

    Any number of terms in any order: convolutions (their groups may nest) and the map itself, as it is or through
    norms, scales and shifts. Other terms of the sum stay.
    """
    if not _is_sum(net, node) or _is_part(net, node):
        return False
    terms = _terms(net, node)
    for members in _candidates(net, terms):
        if (kernel := _merged(terms, members)) is not None:
            base = next(terms[i] for i in members if _is_branch(net, terms[i]))
            net.set_kernel(base, kernel)
            result = base
            for item in (term for i, term in enumerate(terms) if i not in members):
                result = net.call(aten.add.Tensor, result, item, before=node)
            net.replace(node, result)
            return True
    return False


def _is_sum(net: Net, node: object) -> bool:
    """a + b of two maps of one shape and dtype."""
    if not is_call(node, aten.add.Tensor) or net.arguments(node)["alpha"] != 1:
        return False
    if not all(isinstance(item, Node) for item in node.args):
        return False
    kinds = {(net.shape(item), item.meta["val"].dtype) for item in (node, *node.all_input_nodes)}
    return len(kinds) == 1


def _is_part(net: Net, node: Node) -> bool:
    """Whether a sum is read by a greater sum alone."""
    return len(node.users) == 1 and _is_sum(net, next(iter(node.users)))


def _terms(net: Net, node: Node) -> list[Node]:
    """What a tree of sums adds up, as often as it does; an inner sum that others read too is a term."""
    found: list[Node] = []
    for item in node.args:
        if isinstance(item, Node):
            found += _terms(net, item) if _is_sum(net, item) and _is_part(net, item) else [item]
    return found


Members = dict[int, Kernel]  # place in the list of terms -> the term as a kernel


def _candidates(net: Net, terms: list[Node]) -> Iterator[Members]:
    """Terms of one source, a convolution among them: all there are, then two at a time.

    A convolution added twice stays: it cannot take another term for one of its places.
    """
    branches = {i for i, term in enumerate(terms) if _is_branch(net, term) and terms.count(term) == 1}
    for source in dict.fromkeys(net.input(terms[i]) for i in sorted(branches)):
        able = (i for i, term in enumerate(terms) if i in branches or not _is_branch(net, term))
        read = {i: _as_kernel(net, terms[i], source) for i in able}
        known = {i: kernel for i, kernel in read.items() if kernel is not None}
        pairs = map(dict, itertools.combinations(known.items(), 2))
        yield from (found for found in ([known] if len(known) > 2 else []) + list(pairs) if branches & found.keys())


def _merged(terms: list[Node], members: Members) -> Kernel | None:
    """Their sum as one kernel; None where they do not meet on one grid or one kernel would cost more."""
    costs = {terms[i]: kernel.macs_per_pixel for i, kernel in members.items()}  # a term added twice runs once
    kernels = list(members.values())
    if added_macs(kernels) > sum(costs.values()):
        return None
    try:
        return added(kernels)
    except ValueError:
        return None


def _is_branch(net: Net, node: Node) -> bool:
    return is_call(node, CONVOLUTION) and net.is_linear(node) and len(node.users) == 1 and not net.shared(node)


def _as_kernel(net: Net, node: Node, source: Node) -> Kernel | None:
    """A node as a kernel on `source`: a convolution, or `source` itself after norms, scales and shifts if any."""
    if _is_branch(net, node):
        return net.kernel(node) if net.input(node) is source else None
    steps: list[tuple[Tensor, Tensor | None]] = []
    while node is not source:
        read = net.affine(node, 1)
        if read is None:
            return None
        node = read[0]
        steps.append(read[1:])
    kernel = Kernel.identity(net.shape(source)[1], like=source.meta["val"])
    for scale, shift in reversed(steps):
        kernel = kernel.then_affine(scale, shift)
    return kernel
