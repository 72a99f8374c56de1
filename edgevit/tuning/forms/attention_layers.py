"""The layers of queries, keys and values: one whose result is split, or one for each.

Both forms replace all from the layers to the attention, because only there the parts meet again.
"""

from __future__ import annotations

import dataclasses
import operator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import Node

from edgevit.folding.graph import LINEAR, Net, aten, is_call
from edgevit.folding.kernel import Kernel
from edgevit.folding.layout import MOVES, SELECTIONS, labels, send
from edgevit.tuning.attentions import FUSED, read_attention
from edgevit.tuning.form import Form
from edgevit.tuning.forms_parts import enclosed, kernel_of, linear_as, reshaped, swapped

_SPLITS = (aten.chunk.default, aten.split.Tensor, aten.split_with_sizes.default, aten.slice.Tensor)


@dataclass(frozen=True)
class _Path:
    """The steps from a layer to an operand of attention, in order; without any the layer is the operand."""

    layer: Node
    steps: tuple[Node, ...]


@dataclass(frozen=True)
class _Part:
    """Rows of a layer that become an operand: by these steps, or where they are None by heads."""

    rows: Tensor
    steps: tuple[Node, ...] | None


def _paths(net: Net, node: Node) -> list[_Path] | None:
    """Return the paths to queries, keys and values, each from a layer by moves and selections alone."""
    attention = read_attention(net, node) if is_call(node, FUSED) else None
    if attention is None:
        return None
    paths = []
    for operand in (attention.query, attention.key, attention.value):
        steps, source = list[Node](), operand
        while is_call(source, *MOVES, *SELECTIONS):
            steps.insert(0, source)
            source = net.input(source)
        kernel = kernel_of(net, source)
        if kernel is None or not kernel.pointwise or kernel.groups != 1:
            return None
        paths.append(_Path(source, tuple(steps)))
    return paths


def _region(paths: list[_Path], node: Node) -> tuple[Node, ...] | None:
    return enclosed([node, *(each for path in paths for each in (path.layer, *path.steps))])


def _moved(net: Net, steps: tuple[Node, ...], before_steps: Node, source: Node, before: Node) -> Node:
    """Return a tensor after the same steps as another one."""
    for step in steps:
        arguments = [source if argument is before_steps else argument for argument in step.args]
        before_steps, source = step, net.call(step.target, *arguments, before=before, **step.kwargs)  # type: ignore[arg-type]
    return source


def _with_operands(net: Net, node: Node, operands: list[Node]) -> Node:
    return net.call(FUSED, *operands, *node.args[3:], before=node, **node.kwargs)


# ---- one for each -------------------------------------------------------------------------------------------------


def _part(net: Net, path: _Path) -> _Part | None:
    """Return the rows of a layer that become an operand; None where they are no whole rows."""
    axis = net.channel_axis(path.layer)
    rows = {path.layer: labels(path.layer, axis)}
    for step in path.steps:
        rows[step] = send(net, step, rows)
    end = 1 + is_call(path.steps[0], *_SPLITS[:3]) if path.steps else 0
    if path.steps and is_call(path.steps[0], *_SPLITS) and len(path.steps) >= end:
        named, part = net.arguments(path.steps[0]), path.steps[end - 1]
        if named["dim"] % len(net.shape(path.layer)) == axis and isinstance(rows[part], Tensor):
            return _Part(rows[part].movedim(axis, 0).reshape(rows[part].shape[axis], -1)[:, 0], path.steps[end:])
    return _by_heads(net, path, rows[path.steps[-1]]) if path.steps and is_call(path.layer, LINEAR) else None


def _by_heads(net: Net, path: _Path, rows: Tensor) -> _Part | None:
    """Return the rows of an operand (B, h, N, d) of tokens (B, N, C), where heads and channels alone tell a row."""
    if rows.dim() != 4 or len(net.shape(path.layer)) != 3:
        return None
    tokens = {path.layer: labels(path.layer, 1)}
    for step in path.steps:
        tokens[step] = send(net, step, tokens)
    own = rows[:1, :, :1]
    in_order = torch.arange(rows.shape[2])[:, None].expand(rows.shape)
    is_whole = torch.equal(rows, own.expand(rows.shape)) and torch.equal(tokens[path.steps[-1]], in_order)
    return _Part(own.flatten(), None) if is_whole and rows.shape[2] == net.shape(path.layer)[1] else None


def _apart_nodes(net: Net, node: Node) -> tuple[Node, ...] | None:
    paths = _paths(net, node)
    if paths is None or len({path.layer for path in paths}) == len(paths):
        return None
    shared = [path for path in paths if [each.layer for each in paths].count(path.layer) > 1]
    return _region(paths, node) if all(_part(net, path) is not None for path in shared) else None


def _write_apart(net: Net, node: Node) -> Node:
    paths, operands = _paths(net, node), list[Node]()
    assert paths is not None
    layers = [path.layer for path in paths]
    for path in paths:
        part = _part(net, path) if layers.count(path.layer) > 1 else None
        if part is None:
            operands.append(path.steps[-1] if path.steps else path.layer)
            continue
        source, kernel = net.input(path.layer), net.kernel(path.layer)
        chosen = part.rows.to(kernel.weight.device)
        bias = None if kernel.bias is None else kernel.bias[chosen]
        own = dataclasses.replace(kernel, weight=kernel.weight[chosen], bias=bias)
        result = linear_as(net, path.layer, source, own, before=node)
        if part.steps is not None:
            replaced = path.steps[-len(part.steps) - 1]
            operands.append(_moved(net, part.steps, replaced, result, node))
            continue
        _, heads, tokens, channels = net.shape(path.steps[-1])
        operands.append(swapped(net, reshaped(net, result, tokens, heads, channels, before=node), 1, 2, before=node))
    return _with_operands(net, node, operands)


# ---- one for all --------------------------------------------------------------------------------------------------


def _joined_paths(net: Net, node: Node) -> list[_Path] | None:
    """Return the paths whose layers read one tensor alike, at least two, and the others."""
    paths = _paths(net, node)
    if paths is None or len({path.layer for path in paths}) < len(paths):
        return None
    return paths if len(_alike(net, paths)) > 1 else None


def _alike(net: Net, paths: list[_Path]) -> list[_Path]:
    """Return the paths whose layer reads what that of the keys reads, by the same operator."""
    key = paths[1].layer
    return [path for path in paths if net.input(path.layer) is net.input(key) and path.layer.target is key.target]


def _joined_nodes(net: Net, node: Node) -> tuple[Node, ...] | None:
    paths = _joined_paths(net, node)
    return None if paths is None else _region(paths, node)


def _write_joined(net: Net, node: Node) -> Node:
    paths = _joined_paths(net, node)
    assert paths is not None
    members = _alike(net, paths)
    kernels = [net.kernel(path.layer) for path in members]
    sizes = [kernel.channels_out for kernel in kernels]
    bias = None if all(kernel.bias is None for kernel in kernels) else torch.cat([_bias(kernel) for kernel in kernels])
    whole = dataclasses.replace(kernels[0], weight=torch.cat([kernel.weight for kernel in kernels]), bias=bias)
    layer = members[0].layer
    result = linear_as(net, layer, net.input(layer), whole, before=node)
    parts = net.call(aten.split_with_sizes.default, result, sizes, net.channel_axis(layer), before=node)
    operands = []
    for path in paths:
        if path not in members:
            operands.append(path.steps[-1] if path.steps else path.layer)
            continue
        part = net.call(operator.getitem, parts, members.index(path), before=node)
        operands.append(_moved(net, path.steps, path.layer, part, node))
    return _with_operands(net, node, operands)


def _bias(kernel: Kernel) -> Tensor:
    return torch.zeros_like(kernel.weight[:, 0, 0, 0]) if kernel.bias is None else kernel.bias


FORMS = (
    Form("attention_layers_apart", "a layer each for queries, keys and values", _apart_nodes, _write_apart),
    Form("attention_layers_joined", "one layer for queries, keys and values", _joined_nodes, _write_joined),
)
