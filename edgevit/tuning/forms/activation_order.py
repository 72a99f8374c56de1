"""An increasing activation ahead of a maximum over windows, or behind it: max f(x) = f(max x)."""

from __future__ import annotations

from typing import Any

from torch.fx import Node

from edgevit.folding.graph import Net, aten, is_call
from edgevit.tuning.form import Form
from edgevit.tuning.forms_parts import INCREASING, enclosed, is_plain

_POOL = aten.max_pool2d.default
# These increase for some parameters only.
_SLOPES = {aten.leaky_relu.default: "negative_slope", aten.elu.default: "alpha"}


def _increases(net: Net, node: Any) -> bool:
    if is_call(node, *_SLOPES):
        named = net.arguments(node)
        scales = [named.get("scale", 1), named.get("input_scale", 1), named[_SLOPES[node.target]]]  # type: ignore[index]
        return bool(min(scales) > 0)
    return is_call(node, *INCREASING)


def _pair(net: Net, node: Node, last: bool) -> tuple[Node, ...] | None:
    """Return a pool and an activation in sequence; `last`: the pool is the second of them."""
    if not is_plain(net, node) or not (is_call(node, _POOL) if last else _increases(net, node)):
        return None
    source = net.input(node)
    fits = _increases(net, source) if last else is_call(source, _POOL)
    return enclosed([source, node]) if fits else None


def _after(net: Net, node: Node) -> tuple[Node, ...] | None:
    return _pair(net, node, True)


def _before(net: Net, node: Node) -> tuple[Node, ...] | None:
    return _pair(net, node, False)


def _write(net: Net, node: Node) -> Node:
    source = net.input(node)
    first = net.call(node.target, net.input(source), *node.args[1:], before=node, **node.kwargs)  # type: ignore[arg-type]
    return net.call(source.target, first, *source.args[1:], before=node, **source.kwargs)  # type: ignore[arg-type]


FORMS = (
    Form("activation_after_pool", "increasing activations behind their max-pool", _after, _write),
    Form("activation_before_pool", "increasing activations ahead of their max-pool", _before, _write),
)
