"""Proof that a form computes what stood at its site, on noise at the site's own inputs.

That of the whole network may miss a difference: where a signal fades on its way, so does an error.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node

from edgevit.folding.agreement import compare
from edgevit.folding.graph import Net
from edgevit.folding.one_dtype import OneDtype
from edgevit.folding.values import VALUE


def site_difference(net: Net, nodes: Sequence[Node], written: Node) -> float:
    """Return by how much a form's result differs from that of the nodes in float64, as a share of the largest number.

    Raises AssertionError for a form that reads anything else than the nodes do: sites with one signature would not be
    alike then.
    """
    sources = [source for node in nodes for source in node.all_input_nodes if source not in nodes]
    inputs = [source for source in dict.fromkeys(sources) if net.constant(source) is None]
    generator = torch.Generator(net.device).manual_seed(0)
    noise = [_noise(source.meta[VALUE], net, generator) for source in inputs]
    before, after = (_part(net, inputs, result) for result in (nodes[-1], written))
    with contextlib.nullcontext() if net.follows_dtype else OneDtype(torch.float64):
        return compare(before, after, noise)


def _noise(value: Any, net: Net, generator: torch.Generator) -> Any:
    """Return random numbers of a tensor's shape; sizes and tensors of whole numbers as zeros and as they are."""
    if not isinstance(value, Tensor):
        return value
    if not value.is_floating_point():
        return torch.zeros(value.shape, dtype=value.dtype, device=net.device)
    return torch.randn(value.shape, dtype=torch.float64, device=net.device, generator=generator)


def _part(net: Net, inputs: Sequence[Node], result: Node) -> GraphModule:
    """Return the network that computes a node from these inputs."""
    graph, copies = Graph(), dict[Node, Node]()
    for number, source in enumerate(inputs):
        copies[source] = graph.placeholder(f"input_{number}")
    pending = [result]
    while pending:
        node = pending[-1]
        missing = [source for source in node.all_input_nodes if source not in copies]
        if node in copies or not missing:
            pending.pop()
        if node in copies:
            continue
        assert node.op != "placeholder", f"{result.name} reads {node.name}, which its site does not"
        if missing:
            pending += missing
        else:
            copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.output(copies[result])
    constants = {str(node.target): _constant(net, str(node.target)) for node in graph.find_nodes(op="get_attr")}
    return GraphModule(constants, graph)


def _constant(net: Net, path: str) -> Any:
    value: Any = net.module
    for part in path.split("."):
        value = getattr(value, part)
    return value
