"""Digest of a network's graph without its weights, so that all checkpoints of one architecture share it.

Latency does not depend on the values of weights, so one checkpoint's measurements serve all. The digest is that of the
canonical list of operators. The graph is walked from its outputs in the order of arguments: neither names nor the
capture order of independent branches matter. The list has each operator's attributes and the shape and dtype of its
result; of a weight, shape and dtype. Integer constants are indices and masks, which belong to the architecture, so
their values count.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from edgevit.folding.graph import arguments
from edgevit.folding.inference_form import Folded, captured, fold_unchecked
from edgevit.folding.values import OTHER, VALUE, size_of


def graph_digest(model: nn.Module, inputs: Sequence[Tensor] = ()) -> str:
    """Return the sha256 in hex of a network's operators, attributes, shapes and topology, never of weights or names.

    A folded network has its graph already. Any other is captured first, with `inputs` that fix its sizes. Raises
    ModelError where it cannot be captured.
    """
    module = model.net if isinstance(model, Folded) else captured(model, tuple(inputs)).module
    text = json.dumps(operator_list(module), separators=(",", ":"), allow_nan=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def network_digest(model: nn.Module, inputs: Sequence[Tensor]) -> str:
    """Return the sha256 in hex of a network's operators with all of its weights and constants: of what it computes.

    Raises ModelError where it cannot be captured.
    """
    return _module_digest(captured(model, tuple(inputs)).module)


def fold_and_digest(model: nn.Module, inputs: Sequence[Tensor]) -> tuple[Folded, str]:
    """Return the fold, which nothing has checked, and the digest that network_digest() gives, of one capture."""
    digests: list[str] = []
    folded = fold_unchecked(model, tuple(inputs), lambda module: digests.append(_module_digest(module)))
    return folded, digests[0]


def _module_digest(module: GraphModule) -> str:
    digest = hashlib.sha256(json.dumps(operator_list(module), separators=(",", ":"), allow_nan=True).encode("ascii"))
    for node in module.graph.find_nodes(op="get_attr"):
        value = _resolve(module, str(node.target))
        if isinstance(value, Tensor):
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def operator_list(module: GraphModule) -> list[Any]:
    """Return the canonical list: each node's kind, arguments and result; an earlier node is named by its index."""
    indices: dict[Node, int] = {}
    entries: list[Any] = []
    [output] = module.graph.find_nodes(op="output")
    for root in [*module.graph.find_nodes(op="placeholder"), output]:
        for node in _in_order(root, indices):
            entries.append(_describe(module, node, indices))
            indices[node] = len(indices)
    return entries


def _in_order(root: Node, listed: dict[Node, int]) -> list[Node]:
    """Return a node and all its inputs that are not listed yet, each after its own inputs."""
    ordered: list[Node] = []
    visited = set(listed)
    todo = [(root, False)]
    while todo:
        node, ready = todo.pop()
        if ready:
            ordered.append(node)
        elif node not in visited:
            visited.add(node)
            todo += [(node, True), *((source, False) for source in reversed(node.all_input_nodes))]
    return ordered


def _describe(module: GraphModule, node: Node, indices: dict[Node, int]) -> list[Any]:
    if node.op == "get_attr":
        return ["constant", *_constant(_resolve(module, str(node.target)))]
    if node.op == "placeholder":
        return ["input", *_result(node)]
    parameters = arguments(node) if hasattr(node.target, "_schema") else {"args": node.args, **node.kwargs}
    attributes = [[name, _attribute(value, indices)] for name, value in sorted(parameters.items())]
    return [_name(node), attributes, *_result(node)]


def _name(node: Node) -> str:
    target = node.target
    plain = not isinstance(target, str) and not hasattr(target, "_schema")
    return f"{target.__module__}.{target.__name__}" if plain else str(target)  # type: ignore[union-attr]


def _result(node: Node) -> list[Any]:
    pairs = zip(*(torch.utils._pytree.tree_leaves(node.meta.get(key)) for key in (VALUE, OTHER)), strict=True)
    # Any open size is -1 here, so that digests of earlier versions hold.
    return [
        [[max(size_of(*sizes), -1) for sizes in zip(first.shape, other.shape, strict=True)], str(first.dtype)]
        for first, other in pairs
        if isinstance(first, Tensor)
    ]


def _constant(value: Any) -> list[Any]:
    if not isinstance(value, Tensor):
        return [str(type(value).__name__)]
    declaration: list[Any] = [list(value.shape), str(value.dtype)]
    if value.is_floating_point() or value.is_complex():
        return declaration
    return [
        *declaration,
        hashlib.sha256(value.detach().cpu().to(torch.int64).contiguous().numpy().tobytes()).hexdigest(),
    ]


def _attribute(value: Any, indices: dict[Node, int]) -> Any:
    if isinstance(value, Node):
        return {"node": indices[value]}
    if isinstance(value, (list, tuple)):
        return [_attribute(element, indices) for element in value]
    if isinstance(value, dict):
        return {str(key): _attribute(element, indices) for key, element in value.items()}
    if isinstance(value, slice):
        return {"slice": [_attribute(bound, indices) for bound in (value.start, value.stop, value.step)]}
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def _resolve(module: nn.Module, path: str) -> Any:
    value: Any = module
    for part in path.split("."):
        value = getattr(value, part)
    return value
