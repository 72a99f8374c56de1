"""Merges parallel linear maps: terms of one sum or difference that read one map."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor
from torch.fx import Node

from edgevit.folding.graph import Net, aten, is_call
from edgevit.folding.kernel import Kernel, added, added_macs
from edgevit.folding.values import VALUE


@dataclass(frozen=True)
class Term:
    """A term of a sum, with its sign: 1 or -1."""

    node: Node
    sign: int


@dataclass(frozen=True)
class Branch:
    """A term as one kernel on `source`, with its present cost in multiply-accumulates per pixel."""

    source: Node
    kernel: Kernel
    macs: int
    is_linear: bool  # False for norms, scales and shifts alone


def merge_parallel(net: Net, node: Node) -> bool:
    """Merge the terms of a sum that read one map linearly into one linear map, where that costs no more.

    Terms may be many and in any order: convolutions (their groups may nest) or fully connected layers, chains of them,
    and the map itself, plain or through norms, scales and shifts. Other terms of the sum stay.
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
        _add_other_terms(net, node, base, [term for i, term in enumerate(terms) if i not in members])
        return True
    return False


def why_branches_stay(net: Net, node: Node) -> str | None:
    """Return why terms of a sum that read one map linearly stay apart, once no rewrite applies; None without any.

    A layer whose weights serve another call, or that has other readers, is no branch.
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


def _add_other_terms(net: Net, node: Node, result: Node, others: list[Term]) -> None:
    for term in others:
        operator = aten.add.Tensor if term.sign > 0 else aten.sub.Tensor
        result = net.call(operator, result, term.node, before=node)
    net.replace(node, result)


def _is_sum(net: Net, node: object) -> bool:
    """Return whether a node is a + b or a - b of two maps of one shape and dtype."""
    if not is_call(node, aten.add.Tensor, aten.sub.Tensor) or net.arguments(node)["alpha"] != 1:
        return False
    # A size may be added too.
    if not all(isinstance(operand, Node) and isinstance(operand.meta[VALUE], Tensor) for operand in node.args):
        return False
    kinds = {(net.shape(value), value.meta[VALUE].dtype) for value in (node, *node.all_input_nodes)}
    return len(kinds) == 1


def _is_part(net: Net, node: Node) -> bool:
    """Return whether the only reader of a sum is a greater sum."""
    return len(node.users) == 1 and _is_sum(net, next(iter(node.users)))


def _terms(net: Net, node: Node, sign: int) -> list[Term]:
    """Return the terms of a tree of sums, with repetitions; an inner sum with other readers is a term."""
    terms: list[Term] = []
    signs = (sign, -sign if is_call(node, aten.sub.Tensor) else sign)
    for operand, operand_sign in zip(node.args[:2], signs, strict=True):
        if isinstance(operand, Node):
            is_inner = _is_sum(net, operand) and _is_part(net, operand)
            terms += _terms(net, operand, operand_sign) if is_inner else [Term(operand, operand_sign)]
    return terms


Members = dict[int, Branch]  # by index in the list of terms


def _candidates(net: Net, terms: list[Term]) -> Iterator[Members]:
    """Yield sets of terms that read one source and contain a linear map: all together, then in pairs.

    A linear map that is added twice stays: another term cannot join only one of its occurrences.
    """
    nodes = [term.node for term in terms]
    linear = {i: node for i, node in enumerate(nodes) if _is_branch(net, node) and nodes.count(node) == 1}
    limit = sum(net.kernel(node).macs_per_pixel for node in linear.values())
    for kind in dict.fromkeys(node.target for node in linear.values()):
        chains = {i: list(_chain(net, node, limit)) for i, node in linear.items() if node.target is kind}
        axis = net.channel_axis(next(node for node in linear.values() if node.target is kind))
        for source in dict.fromkeys(branch.source for chain in chains.values() for branch in chain):
            branches = {i: branch for i, chain in chains.items() for branch in chain if branch.source is source}
            for i, node in enumerate(nodes):
                if not _is_branch(net, node) and (branch := _affine_of(net, node, source, axis)) is not None:
                    branches[i] = branch
            pairs = map(dict, itertools.combinations(sorted(branches.items()), 2))
            together = [dict(sorted(branches.items()))] if len(branches) > 2 else []
            yield from (group for group in [*together, *pairs] if any(b.is_linear for b in group.values()))


def _merged(terms: list[Term], members: Members) -> Kernel:
    """Return the members' sum as one kernel. Raises ValueError for other geometries, or where it would cost more."""
    # A term that is added twice runs once.
    costs = {terms[i].node: branch.macs for i, branch in members.items()}
    kernels = [branch.kernel for branch in members.values()]
    if (cost := added_macs(kernels)) > (costs_now := sum(costs.values())):
        raise ValueError(f"one kernel would cost {cost} multiply-accumulates a pixel, and they cost {costs_now}")
    signs = (terms[i].sign for i in members)
    return added([kernel if sign > 0 else kernel.negated() for kernel, sign in zip(kernels, signs, strict=True)])


def _is_branch(net: Net, node: Node) -> bool:
    return net.is_linear(node) and len(node.users) == 1 and not net.shared(node)


def _chain(net: Net, node: Node, limit: int) -> Iterator[Branch]:
    """Yield the linear map that ends in a term, then it merged with the ones before it that have no other reader.

    As one kernel a chain may be larger than its parts, as in low-rank adapters. Above `limit` multiply-accumulates it
    ends: no sum with it could save any.
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
    """Return a term that is `source` itself, possibly after norms, scales and shifts; None for any other."""
    steps: list[tuple[Tensor, Tensor | None]] = []
    while node is not source:
        affine = net.affine(node, axis)
        if affine is None:
            return None
        node = affine[0]
        steps.append(affine[1:])
    kernel = Kernel.identity(net.shape(source)[axis], device=net.device)
    for scale, shift in reversed(steps):
        kernel = kernel.then_affine(scale, shift)
    return Branch(source, kernel, kernel.macs_per_pixel, is_linear=False)
