"""Activations as one operator, or spelled in arithmetic, an error function, a sigmoid or a clamp."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from torch.fx import Node

from edgevit.folding.graph import Net, aten, is_call
from edgevit.tuning.form import Form
from edgevit.tuning.forms_parts import enclosed, is_plain, number_of, operands, with_number

_MULTIPLY, _ADD, _DIVIDE = aten.mul.Tensor, aten.add.Tensor, aten.div.Tensor
_Reader = Callable[[Net, Node], tuple[Node, list[Node]] | None]


def _is_gelu(net: Net, node: Node) -> bool:
    return is_call(node, aten.gelu.default) and net.arguments(node)["approximate"] == "none"


def _spelled_gelu(net: Net, node: Node) -> Node:
    source = net.input(node)
    error = net.call(aten.erf.default, net.call(_MULTIPLY, source, math.sqrt(0.5), before=node), before=node)
    half = net.call(_MULTIPLY, source, 0.5, before=node)
    return net.call(_MULTIPLY, half, net.call(_ADD, error, 1.0, before=node), before=node)


def _spelled_silu(net: Net, node: Node) -> Node:
    source = net.input(node)
    return net.call(_MULTIPLY, source, net.call(aten.sigmoid.default, source, before=node), before=node)


def _spelled_hardswish(net: Net, node: Node) -> Node:
    source = net.input(node)
    clamped = net.call(aten.hardtanh.default, net.call(_ADD, source, 3.0, before=node), 0.0, 6.0, before=node)
    return net.call(_MULTIPLY, net.call(_MULTIPLY, source, clamped, before=node), 1 / 6, before=node)


def _gated_hardswish(net: Net, node: Node) -> Node:
    source = net.input(node)
    return net.call(_MULTIPLY, source, net.call(aten.hardsigmoid.default, source, before=node), before=node)


# ---- reading what is spelled --------------------------------------------------------------------------------------


def _factors(net: Net, node: Any) -> tuple[list[Any], float, list[Node]]:
    """Return the tensors of a tree of products, the product of its numbers, and the nodes of the tree."""
    pair = operands(net, node, _MULTIPLY)
    scaled = with_number(net, node, _MULTIPLY, _DIVIDE)
    if scaled is not None:
        source, number = scaled
        tensors, factor, nodes = _factors(net, source)
        divides = is_call(node, _DIVIDE)
        return tensors, factor / number if divides and number else factor * number, [*nodes, node]
    if pair is None or any(number_of(net, each) is not None for each in pair):
        return [node], 1.0, []
    parts = [_factors(net, each) for each in pair]
    return (
        [tensor for tensors, _, _ in parts for tensor in tensors],
        parts[0][1] * parts[1][1],
        [*parts[0][2], *parts[1][2], node],
    )


def _one_of(factors: list[Any], net: Net, read: Callable[[Net, Any], tuple[Node, list[Node]] | None]) -> Any:
    """Return the source and the nodes of a pair of factors of which one is a function of the other, or None."""
    if len(factors) != 2:
        return None
    for gate, source in (factors, factors[::-1]):
        reading = read(net, gate)
        if reading is not None and reading[0] is source:
            return reading
    return None


def _error_gate(net: Net, node: Any) -> tuple[Node, list[Node]] | None:
    """Read 1 + erf(x / sqrt(2)) as (x, nodes)."""
    shifted = with_number(net, node, _ADD)
    if shifted is None or shifted[1] != 1.0 or not is_call(shifted[0], aten.erf.default):
        return None
    scaled = net.input(shifted[0])
    inner = with_number(net, scaled, _MULTIPLY, _DIVIDE)
    if inner is None:
        return None
    factor = 1 / inner[1] if is_call(scaled, _DIVIDE) and inner[1] else inner[1]
    is_root = math.isclose(factor, math.sqrt(0.5), rel_tol=_SAME)
    return (inner[0], [scaled, shifted[0], node]) if is_root else None


def _sigmoid_gate(net: Net, node: Any) -> tuple[Node, list[Node]] | None:
    return (net.input(node), [node]) if is_call(node, aten.sigmoid.default) else None


def _clamp_gate(net: Net, node: Any) -> tuple[Node, list[Node]] | None:
    """Read a clamp of x + 3 to 0 .. 6 as (x, nodes)."""
    if not is_call(node, aten.hardtanh.default, aten.relu6.default, aten.clamp.default):
        return None
    named = net.arguments(node)
    bounds = (0.0, 6.0) if is_call(node, aten.relu6.default) else tuple(list(named.values())[1:3])
    shifted = with_number(net, net.input(node), _ADD)
    if bounds != (0.0, 6.0) or shifted is None or shifted[1] != 3.0:
        return None
    return shifted[0], [net.input(node), node]


def _hard_gate(net: Net, node: Any) -> tuple[Node, list[Node]] | None:
    return (net.input(node), [node]) if is_call(node, aten.hardsigmoid.default) else None


# Numbers that float32 cannot tell apart would make another function in float64.
_SAME = 1e-12


def _reader(gate: Callable[[Net, Any], tuple[Node, list[Node]] | None], factor: float) -> _Reader:
    """Return the reader of factor * x * gate(x), as (x, nodes)."""

    def read(net: Net, node: Node) -> tuple[Node, list[Node]] | None:
        factors, number, nodes = _factors(net, node)
        reading = _one_of(factors, net, gate)
        if reading is None or not math.isclose(number, factor, rel_tol=_SAME):
            return None
        return reading[0], [*reading[1], *nodes]

    return read


def _as_node(name: str, words: str, operator: Any, *readers: _Reader) -> Form:
    """Return the form that writes one operator in place of what a reader reads."""

    def reading(net: Net, node: Node) -> tuple[Node, tuple[Node, ...]] | None:
        if not is_call(node, _MULTIPLY, _DIVIDE) or not is_plain(net, node):
            return None
        for read in readers:
            source_nodes = read(net, node)
            nodes = None if source_nodes is None else enclosed(source_nodes[1])
            if source_nodes is not None and nodes is not None:
                return source_nodes[0], nodes
        return None

    def nodes(net: Net, node: Node) -> tuple[Node, ...] | None:
        result = reading(net, node)
        return None if result is None else result[1]

    def write(net: Net, node: Node) -> Node:
        result = reading(net, node)
        assert result is not None
        return net.call(operator, result[0], before=node)

    return Form(name, words, nodes, write)


def _spelled(name: str, words: str, applies: Callable[[Net, Node], bool], write: Callable[[Net, Node], Node]) -> Form:
    def nodes(net: Net, node: Node) -> tuple[Node, ...] | None:
        return (node,) if is_plain(net, node) and applies(net, node) else None

    return Form(name, words, nodes, write)


def _is_silu(net: Net, node: Node) -> bool:
    return is_call(node, aten.silu.default)


def _is_hardswish(net: Net, node: Node) -> bool:
    return is_call(node, aten.hardswish.default)


FORMS = (
    _spelled("gelu_spelled", "the exact GELU as arithmetic with an error function", _is_gelu, _spelled_gelu),
    _spelled("silu_spelled", "SiLU as x * sigmoid(x)", _is_silu, _spelled_silu),
    _spelled("hardswish_spelled", "hard swish as x * clamp(x + 3, 0, 6) / 6", _is_hardswish, _spelled_hardswish),
    _spelled("hardswish_gated", "hard swish as x * hardsigmoid(x)", _is_hardswish, _gated_hardswish),
    _as_node("gelu_node", "spelled GELU as one operator", aten.gelu.default, _reader(_error_gate, 0.5)),
    _as_node("silu_node", "x * sigmoid(x) as SiLU", aten.silu.default, _reader(_sigmoid_gate, 1.0)),
    _as_node(
        "hardswish_node",
        "spelled hard swish as one operator",
        aten.hardswish.default,
        _reader(_clamp_gate, 1 / 6),
        _reader(_hard_gate, 1.0),
    ),
)
