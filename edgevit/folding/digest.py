"""graph_digest: what a network computes with, without its weights, so that checkpoints of one architecture share it.

Latency does not depend on the values of weights, and nobody should measure every checkpoint. The digest is of the
canonical list of operators: the graph is walked from its outputs, in the order of arguments, so that neither names nor
the order in which independent branches were captured matter. Of each operator it has the attributes and the shape and
dtype of the result; of a weight its shape and dtype. Constants of whole numbers are indices and masks, which are part
of the architecture: they count with their values.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from edgevit.folding.capture import capture
from edgevit.folding.graph import arguments, size_of
from edgevit.folding.inference_form import Folded


def graph_digest(model: nn.Module, inputs: Sequence[Tensor] = ()) -> str:
    """sha256 in hex of a network's operators, attributes, shapes and topology; never of weights or names.

    A folded network is taken as it is. Any other is captured first, with `inputs` that fix its sizes; that raises
    ModelError where it cannot be captured.
    """
    module = model.net if isinstance(model, Folded) else capture(model, tuple(inputs)).module
    text = json.dumps(operator_list(module), separators=(",", ":"), allow_nan=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def operator_list(module: GraphModule) -> list[Any]:
    """The canonical list: per node its kind, arguments and result. An earlier node is named by its place in it."""
    places: dict[Node, int] = {}
    listed: list[Any] = []
    [output] = module.graph.find_nodes(op="output")
    for root in [*module.graph.find_nodes(op="placeholder"), output]:
        for node in _in_order(root, places):
            listed.append(_describe(module, node, places))
            places[node] = len(places)
    return listed


def _in_order(root: Node, done: dict[Node, int]) -> list[Node]:
    """What a node needs and is not listed yet, each after what it needs itself; then the node."""
    ordered: list[Node] = []
    seen = set(done)
    todo = [(root, False)]
    while todo:
        node, ready = todo.pop()
        if ready:
            ordered.append(node)
        elif node not in seen:
            seen.add(node)
            todo += [(node, True), *((item, False) for item in reversed(node.all_input_nodes))]
    return ordered


def _describe(module: GraphModule, node: Node, places: dict[Node, int]) -> list[Any]:
    if node.op == "get_attr":
        return ["constant", *_constant(_resolve(module, str(node.target)))]
    if node.op == "placeholder":
        return ["input", *_result(node)]
    given = arguments(node) if hasattr(node.target, "_schema") else {"args": node.args, **node.kwargs}
    called = [[name, _attribute(value, places)] for name, value in sorted(given.items())]
    return [_name(node), called, *_result(node)]


def _name(node: Node) -> str:
    target = node.target
    plain = not isinstance(target, str) and not hasattr(target, "_schema")
    return f"{target.__module__}.{target.__name__}" if plain else str(target)  # type: ignore[union-attr]


def _result(node: Node) -> list[Any]:
    leaves = torch.utils._pytree.tree_leaves(node.meta.get("val"))
    return [[list(map(size_of, leaf.shape)), str(leaf.dtype)] for leaf in leaves if isinstance(leaf, Tensor)]


def _constant(value: Any) -> list[Any]:
    if not isinstance(value, Tensor):
        return [str(type(value).__name__)]
    told: list[Any] = [list(value.shape), str(value.dtype)]
    if value.is_floating_point() or value.is_complex():
        return told
    return [*told, hashlib.sha256(value.detach().cpu().to(torch.int64).contiguous().numpy().tobytes()).hexdigest()]


def _attribute(value: Any, places: dict[Node, int]) -> Any:
    if isinstance(value, Node):
        return {"node": places[value]}
    if isinstance(value, (list, tuple)):
        return [_attribute(item, places) for item in value]
    if isinstance(value, dict):
        return {str(key): _attribute(item, places) for key, item in value.items()}
    if isinstance(value, slice):
        return {"slice": [_attribute(item, places) for item in (value.start, value.stop, value.step)]}
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def _resolve(module: nn.Module, place: str) -> Any:
    value: Any = module
    for part in place.split("."):
        value = getattr(value, part)
    return value
