"""Sites: the places of a network where a form may be used, and the signatures by which equal ones are known.

A signature is of the operators, their attributes and the shapes and dtypes of their inputs, weights and results. It
knows neither weights nor names, so equal sites of any two networks share their measurements.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.fx import Graph, GraphModule, Node

from edgevit.folding.digest import operator_list
from edgevit.folding.graph import Net, arguments, aten, is_call
from edgevit.folding.values import BATCHES, ORIGIN, OTHER, VALUE

_DIGITS = 32


@dataclass(frozen=True)
class Site:
    """Nodes of a network that a form replaces, the last of which is the result. digest: that of their signature."""

    nodes: tuple[Node, ...]
    digest: str

    @property
    def result(self) -> Node:
        """The node whose value the form computes."""
        return self.nodes[-1]

    @property
    def module(self) -> str:
        """Path of the module that the result comes from."""
        return str(self.result.meta.get(ORIGIN) or self.result.name)


def site_of(net: Net, nodes: Sequence[Node]) -> Site:
    """Return the site that consists of these nodes."""
    text = json.dumps(operator_list(isolated(net, nodes)), separators=(",", ":"), allow_nan=True)
    return Site(tuple(nodes), hashlib.sha256(text.encode("ascii")).hexdigest()[:_DIGITS])


def isolated(net: Net, nodes: Sequence[Node]) -> GraphModule:
    """Return a network of these nodes alone, whose inputs are what they read, constants left out."""
    graph, copies = Graph(), dict[Node, Node]()
    sources = [source for node in nodes for source in node.all_input_nodes if source not in nodes]
    # Inputs come first, each once.
    for source in dict.fromkeys(sources):
        if net.constant(source) is None:
            copies[source] = graph.placeholder(f"input_{len(copies)}")
    for source in dict.fromkeys(sources):
        if source not in copies:
            copies[source] = graph.get_attr(str(source.target))
    for node in nodes:
        copies[node] = graph.node_copy(node, copies.__getitem__)
    for node, copy in copies.items():
        copy.meta = dict(node.meta)
    end = graph.output(copies[nodes[-1]])
    end.meta = {key: nodes[-1].meta[key] for key in (VALUE, OTHER)}
    constants = {str(node.target): _resolve(net.module, str(node.target)) for node in graph.find_nodes(op="get_attr")}
    return GraphModule(constants, graph)


def _resolve(module: torch.nn.Module, path: str) -> object:
    value: object = module
    for part in path.split("."):
        value = getattr(value, part)
    return value


def describe(site: Site) -> str:
    """Return what a site computes in words: `conv2d 7x7 depthwise of 1x512x56x56`."""
    names = "+".join(_name(node) for node in site.nodes)
    return f"{names} of {'x'.join(map(str, _first_shape(site)))}"


def _first_shape(site: Site) -> tuple[int, ...]:
    """Return the shape of the first input at batch 1, where the batch is open."""
    for node in site.nodes:
        for source in node.all_input_nodes:
            if source.op != "get_attr" and source not in site.nodes and isinstance(source.meta[VALUE], torch.Tensor):
                pairs = zip(source.meta[VALUE].shape, source.meta[OTHER].shape, strict=True)
                return tuple(first if first == other else first // BATCHES[0] for first, other in pairs)
    return ()


def _name(node: Node) -> str:
    name = str(node.target).removeprefix("aten.").split(".")[0]
    if not is_call(node, aten.conv2d.default):
        return name
    named = arguments(node)
    weight, groups = named["weight"].meta[VALUE].shape, int(named["groups"])
    channels = f"{weight[1] * groups}->{weight[0]}"
    kind = "depthwise" if weight[1] == 1 and groups == weight[0] else f"groups {groups}" if groups != 1 else channels
    return f"{name} {weight[2]}x{weight[3]} {kind}"
