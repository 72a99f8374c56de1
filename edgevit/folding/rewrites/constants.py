"""Computes expressions of constants alone."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from edgevit.folding.agreement import max_rel
from edgevit.folding.answers import ROUNDINGS
from edgevit.folding.graph import Net, aten, writes
from edgevit.folding.one_dtype import OneDtype
from edgevit.folding.values import VALUE

# In half precision a chain of operators may lose more than its last digits.
_MOST_ROUNDING = 0.05
_UNSET = (aten.empty.memory_format, aten.empty_strided.default)


def constant_expression(net: Net, node: Node) -> bool:
    """Replace an expression of constants by its value: a reshaped layer scale, a masked weight, encoded positions.

    Expressions that read the same constants are computed together, because only then do these go. What the network may
    not grow by stays an expression.
    """
    if not _is_last(net, node):
        return False
    for results in (_related(net, node), [node]):
        growth = sum(map(_added, results)) - _freed(net, results)
        if not net.has_room(growth):
            continue
        with OneDtype(torch.float64):
            # Constants are in float64 here whatever their dtype, so a cast rounds nothing before the end.
            values = _values(net, results)
        rounded = [result for result in results if not _is_models_own(net, result, values[result])]
        if rounded:
            net.expressions |= dict.fromkeys(rounded, False)
            continue
        net.grow(growth)
        for result in results:
            constant = values[result].detach()
            net.replace(result, net.add_constant(constant, before=result, dtype=result.meta[VALUE].dtype))
        return True
    return False


def _is_models_own(net: Net, result: Node, value: Tensor) -> bool:
    """Return whether a value is the model's own up to rounding, where that computes it in its own dtypes.

    An index that is rounded from a quotient may be another one in float64, and then the fold another function.
    """
    if value.is_meta:
        return True
    own = _values(net, [result], own_dtypes=True)[result]
    if not (own.is_floating_point() or own.is_complex()):
        return torch.equal(own, value)
    return max_rel(own, value) <= min(ROUNDINGS * torch.finfo(own.dtype).eps, _MOST_ROUNDING)


def _is_expression(net: Net, node: Node) -> bool:
    """Return whether a node is a deterministic call on constants, or on such calls, alone."""
    if node not in net.expressions:
        # In order, so that nothing is asked along the depth of the network.
        for each in net.nodes():
            if each not in net.expressions:
                net.expressions[each] = _is_call_on_constants(net, each)
    return net.expressions[node]


def _is_call_on_constants(net: Net, node: Node) -> bool:
    if node.op != "call_function" or _is_random(node) or writes(node):
        return False
    # Without inputs it makes a tensor of numbers, as `arange` does, or of whatever lay in memory.
    sources = node.all_input_nodes
    return (bool(sources) or node.target not in _UNSET) and all(
        net.constant(each) is not None or net.expressions.get(each) for each in sources
    )


def _is_last(net: Net, node: Node) -> bool:
    """Return whether a node is the result of an expression: a tensor that something else reads."""
    is_tensor = isinstance(node.meta.get(VALUE), Tensor)
    return is_tensor and _is_expression(net, node) and not all(_is_expression(net, user) for user in node.users)


def _sources(node: Node) -> Iterator[Node]:
    """Yield the constants of an expression."""
    for source in node.all_input_nodes:
        if source.op == "get_attr":
            yield source
        else:
            yield from _sources(source)


def _related(net: Net, node: Node) -> list[Node]:
    """Return the results of all expressions that read constants of this one, or of one another, in order."""
    pending, seen, results = [*_sources(node)], set[Node](), {node}
    while pending:
        constant = pending.pop()
        readers = [] if constant in seen else list(constant.users)
        seen.add(constant)
        while readers:
            reader = readers.pop()
            if _is_last(net, reader) and reader not in results:
                results.add(reader)
                pending += _sources(reader)
            readers += [user for user in reader.users if _is_expression(net, user)]
    return [each for each in net.nodes() if each in results]


def _added(result: Node) -> int:
    """Return the number of weights that a result is; of an expression without constants, indices count too."""
    return _weights(result) if any(True for _ in _sources(result)) else int(result.meta[VALUE].numel())


def _freed(net: Net, results: Collection[Node]) -> int:
    """Return the number of weights that go when these results become constants."""
    constants = dict.fromkeys(source for result in results for source in _sources(result))
    gone = [constant for constant in constants if all(_goes(user, results) for user in constant.users)]
    return sum(map(_weights, gone))


def _goes(node: Node, results: Collection[Node]) -> bool:
    """Return whether a node is read by nothing once the results are constants."""
    return node in results or (bool(node.users) and all(_goes(user, results) for user in node.users))


def _weights(node: Node) -> int:
    """Return the number of weights of a constant. Indices are no weights."""
    value = node.meta[VALUE]
    return int(value.numel()) if value.is_floating_point() else 0


def _values(net: Net, results: Collection[Node], *, own_dtypes: bool = False) -> dict[Node, Any]:
    """Return the values of results and of what they are computed from, with constants in float64 or their own dtype."""
    values: dict[Node, Any] = {}

    def value(node: Node) -> Any:
        if node.op == "get_attr":
            constant = net.constant(node)
            return constant.to(node.meta[VALUE].dtype) if own_dtypes and constant is not None else constant
        if node not in values:
            arguments = torch.fx.map_arg((node.args, dict(node.kwargs)), value)
            values[node] = node.target(*arguments[0], **arguments[1])  # type: ignore[operator]
        return values[node]

    for result in results:
        value(result)
    return values


def _is_random(node: Node) -> bool:
    return torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())
