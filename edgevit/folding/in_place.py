"""Operators that write to their input, replaced by those that return a new tensor."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, Node

from edgevit.folding.graph import DROPOUTS, arguments, aten, is_call, writes
from edgevit.folding.values import VALUE


def drop_dropouts(graph: Graph) -> None:
    """Remove dropouts: in inference they return their input itself.

    Their schema does not declare that alias, so functionalization in torch misses it.
    """
    for node in graph.nodes:
        is_inert = is_call(node, *DROPOUTS) and not arguments(node)["train"]
        # An exported program refers to its outputs by name, so these stay.
        if is_inert and not any(user.op == "output" for user in node.users):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)


def write_nothing(graph: Graph) -> bool:
    """Replace `relu_` by `relu`, and so on. Return False where the written tensor has an alias that is read later."""
    positions = {node: i for i, node in enumerate(graph.nodes)}
    writers = list(filter(writes, positions))
    owners = _owners(positions) if writers else {}
    for node in writers:
        written, twin = node.args[0], _functional_twin(node)
        if twin is None or not isinstance(written, Node) or _has_aliases(written, node, positions, owners):
            return False
        node.target = twin
        # The loop's own variables are bound: the callback runs at once, but a linter cannot know that.
        written.replace_all_uses_with(node, lambda user, node=node: positions[user] > positions[node])  # type: ignore[misc]
    return True


def _owners(nodes: Iterable[Node]) -> dict[int, list[Node]]:
    """Return the nodes whose tensors lie in each storage."""
    owners: dict[int, list[Node]] = {}
    for node in nodes:
        for storage in _storages(node):
            owners.setdefault(storage, []).append(node)
    return owners


def _has_aliases(written: Node, node: Node, positions: dict[Node, int], owners: dict[int, list[Node]]) -> bool:
    """Return whether the written storage belongs to the model or its caller, or is read through an alias later."""
    position = positions[node]
    sharing = dict.fromkeys(other for storage in _storages(written) for other in owners.get(storage, ()))
    aliases = [other for other in sharing if positions[other] < position]
    later = (user for alias in aliases if alias is not written for user in alias.users if positions[user] > position)
    return any(alias.op != "call_function" for alias in aliases) or any(later)


def _storages(node: Node) -> set[int]:
    """Return the storages of a node's tensors. A view shares its base's storage, even if both are fake tensors."""
    leaves = torch.utils._pytree.tree_leaves(node.meta.get(VALUE))
    return {leaf.untyped_storage()._cdata for leaf in leaves if isinstance(leaf, Tensor)}


def _functional_twin(node: Node) -> Any:
    """Return the operator that computes what `node` writes into a new tensor, or None."""
    name, overload = node.target._schema.name, node.target._schema.overload_name or "default"  # type: ignore[union-attr]
    packet = getattr(aten, name.removeprefix("aten::").removesuffix("_"), None) if name.startswith("aten::") else None
    twin: Any = getattr(packet, overload, None)
    # A call on a list writes to many tensors and returns none.
    if twin is None or twin._schema.is_mutable or not isinstance(node.meta.get(VALUE), Tensor):
        return None
    args, kwargs = torch.fx.map_arg((node.args, dict(node.kwargs)), lambda argument: argument.meta[VALUE])
    before = node.meta[VALUE]
    with contextlib.nullcontext() if before.is_meta else before.fake_mode:
        result = twin(*args, **kwargs)
    # float16 stays float16 when float32 is added in place, but not otherwise.
    return twin if (result.dtype, result.shape) == (before.dtype, before.shape) else None
