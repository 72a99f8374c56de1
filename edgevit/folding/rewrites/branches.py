"""Linear maps side by side: terms of one sum or difference that read one map."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor
from torch.fx import Node

from edgevit.folding.graph import Net, aten, is_call
from edgevit.folding.kernel import Kernel, added, added_macs


@dataclass(frozen=True)
class Term:
    """One of the things that a sum adds up or, with sign -1, takes away."""

    node: Node
    sign: int


@dataclass(frozen=True)
class Branch:
    """A term as one kernel on `source`, and what it costs as it stands, in multiply-accumulates per pixel."""

    source: Node
    kernel: Kernel
    macs: int
    is_linear: bool  # rather than norms, scales and shifts


def merge_parallel(net: Net, node: Node) -> bool:
    """Terms of a sum that read one map linearly become one linear map, where that costs no more than they did.

    Any number of terms in any order: convolutions (their groups may nest) or fully connected layers, chains of them,
    and the map itself, as it is or through norms, scales and shifts. Other terms of the sum stay.
    """
    if not _is_sum(net, node) or _is_part(net, node):
        return False
    terms = _terms(net, node, 1)
    for members in _candidates(net, terms):
        try:
            kernel = _merged(terms, members)
        except ValueError:
            continue
        base = next(terms[i].node for i, branch in members.items() if branch.is_linear)
        before = net.input(base)
        base.replace_input_with(before, next(iter(members.values())).source)
        net.set_kernel(base, kernel)
        net.drop(before)
        _add_rest(net, node, base, [term for i, term in enumerate(terms) if i not in members])
        return True
    return False


def why_branches_stay(net: Net, node: Node) -> str | None:
    """The reason why terms of a sum that read one map linearly stay apart, once no rewrite applies; None without any.

    A layer whose weights serve another call, or that others read, is no branch.
    """
    if not _is_sum(net, node) or _is_part(net, node):
        return None
    terms = _terms(net, node, 1)
    for members in _candidates(net, terms):
        names = " and ".join(dict.fromkeys(terms[i].node.name for i in members))
        try:
            _merged(terms, members)
        except ValueError as error:
            return f"{names}: {error}"
    return None


def _add_rest(net: Net, node: Node, result: Node, rest: list[Term]) -> None:
    for term in rest:
        operator = aten.add.Tensor if term.sign > 0 else aten.sub.Tensor
        result = net.call(operator, result, term.node, before=node)
    net.replace(node, result)


def _is_sum(net: Net, node: object) -> bool:
    """a + b or a - b of two maps of one shape and dtype."""
    if not is_call(node, aten.add.Tensor, aten.sub.Tensor) or net.arguments(node)["alpha"] != 1:
        return False
    if not all(isinstance(item, Node) for item in node.args):
        return False
    kinds = {(net.shape(item), item.meta["val"].dtype) for item in (node, *node.all_input_nodes)}
    return len(kinds) == 1


def _is_part(net: Net, node: Node) -> bool:
    """Whether a sum is read by a greater sum alone."""
    return len(node.users) == 1 and _is_sum(net, next(iter(node.users)))


def _terms(net: Net, node: Node, sign: int) -> list[Term]:
    """What a tree of sums adds up, as often as it does; an inner sum that others read too is a term."""
    found: list[Term] = []
    signs = (sign, -sign if is_call(node, aten.sub.Tensor) else sign)
    for item, own in zip(node.args[:2], signs, strict=True):
        if isinstance(item, Node):
            found += _terms(net, item, own) if _is_sum(net, item) and _is_part(net, item) else [Term(item, own)]
    return found


Members = dict[int, Branch]  # by place in the list of terms


def _candidates(net: Net, terms: list[Term]) -> Iterator[Members]:
    """Terms of one source, a linear map among them: all there are, then two at a time.

    A linear map added twice stays: it cannot take another term for one of its places.
    """
    nodes = [term.node for term in terms]
    linear = {i: item for i, item in enumerate(nodes) if _is_branch(net, item) and nodes.count(item) == 1}
    limit = sum(net.kernel(item).macs_per_pixel for item in linear.values())
    for kind in dict.fromkeys(item.target for item in linear.values()):
        chains = {i: list(_chain(net, item, limit)) for i, item in linear.items() if item.target is kind}
        axis = net.channel_axis(next(item for item in linear.values() if item.target is kind))
        for source in dict.fromkeys(branch.source for chain in chains.values() for branch in chain):
            known = {i: branch for i, chain in chains.items() for branch in chain if branch.source is source}
            for i, item in enumerate(nodes):
                if not _is_branch(net, item) and (branch := _affine_of(net, item, source, axis)) is not None:
                    known[i] = branch
            pairs = map(dict, itertools.combinations(sorted(known.items()), 2))
            every = [dict(sorted(known.items()))] if len(known) > 2 else []
            yield from (found for found in [*every, *pairs] if any(item.is_linear for item in found.values()))


def _merged(terms: list[Term], members: Members) -> Kernel:
    """Their sum as one kernel. ValueError where they do not meet on one grid or one kernel would cost more."""
    costs = {terms[i].node: branch.macs for i, branch in members.items()}  # a term added twice runs once
    kernels = [branch.kernel for branch in members.values()]
    if (cost := added_macs(kernels)) > (costs_now := sum(costs.values())):
        raise ValueError(f"one kernel would cost {cost} multiply-accumulates a pixel, and they cost {costs_now}")
    signs = (terms[i].sign for i in members)
    return added([kernel if sign > 0 else kernel.negated() for kernel, sign in zip(kernels, signs, strict=True)])


def _is_branch(net: Net, node: Node) -> bool:
    return net.is_linear(node) and len(node.users) == 1 and not net.shared(node)


def _chain(net: Net, node: Node, limit: int) -> Iterator[Branch]:
    """A linear map that ends in a term, then with the one before it, and so on: those that nobody else reads.

    As one kernel a chain may be larger than its parts, as in low-rank adapters, but never needs more than `limit`
    multiply-accumulates: no sum with it could pay.
    """
    kernel, macs = net.kernel(node), net.kernel(node).macs_per_pixel
    yield Branch(net.input(node), kernel, macs, is_linear=True)
    while _is_branch(net, before := net.input(node)) and before.target is node.target:
        first = net.kernel(before)
        if not kernel.composes(first) or kernel.composed_macs(first) > limit + first.macs_per_pixel:
            return
        kernel, macs, node = kernel.compose(first), macs + first.macs_per_pixel, before
        yield Branch(net.input(node), kernel, macs, is_linear=True)


def _affine_of(net: Net, node: Node, source: Node, axis: int) -> Branch | None:
    """A term that is `source` itself, after norms, scales and shifts if any."""
    steps: list[tuple[Tensor, Tensor | None]] = []
    while node is not source:
        read = net.affine(node, axis)
        if read is None:
            return None
        node = read[0]
        steps.append(read[1:])
    kernel = Kernel.identity(net.shape(source)[axis], like=source.meta["val"])
    for scale, shift in reversed(steps):
        kernel = kernel.then_affine(scale, shift)
    return Branch(source, kernel, kernel.macs_per_pixel, is_linear=False)
