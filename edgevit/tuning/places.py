"""Places of a network: its sites by signature, the forms that apply there, and each as a network of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.fx import Node

from edgevit.count import count
from edgevit.folding import Folded, FoldReport
from edgevit.folding.editing import editable
from edgevit.folding.graph import Net
from edgevit.folding.values import BATCHES, OTHER, VALUE, shape
from edgevit.tuning.form import Form
from edgevit.tuning.forms import list_forms
from edgevit.tuning.search import Place
from edgevit.tuning.sites import describe, isolated, site_of


@dataclass
class _Found:
    """The sites of one signature, as they are found."""

    operator: str
    first: tuple[Node, ...]
    nodes: dict[frozenset[str], None] = field(default_factory=dict)
    forms: dict[str, None] = field(default_factory=dict)


def places_of(folded: Folded, batch: int, forms: Sequence[Form] | None = None) -> list[tuple[Place, Folded]]:
    """Return the places of a network at a batch size, each with one site of it as a network of its own.

    Sites that read anything but floating tensors are left out: noise would be no input of theirs.
    """
    net, found = editable(folded), dict[str, _Found]()
    for node in net.nodes():
        if node.op != "call_function":
            continue
        for form in list_forms() if forms is None else forms:
            nodes = form.nodes(net, node)
            if nodes is None or not _reads_floats(net, nodes):
                continue
            site = site_of(net, nodes)
            kind = found.setdefault(site.digest, _Found(describe(site), nodes))
            kind.nodes[frozenset(each.name for each in nodes)] = None
            kind.forms[form.name] = None
    return [_place(net, digest, kind, batch) for digest, kind in found.items()]


def inputs_of(alone: Folded, batch: int) -> dict[str, Tensor]:
    """Return noise for each input of a network, by name."""
    generator = torch.Generator().manual_seed(0)
    return {
        str(node.target): torch.randn(_sizes(node, batch), generator=generator).to(node.meta[VALUE].dtype)
        for node in alone.net.graph.find_nodes(op="placeholder")
    }


def _place(net: Net, digest: str, kind: _Found, batch: int) -> tuple[Place, Folded]:
    module = isolated(net, kind.first)
    # The constants of a Net wait in float64 for their own dtypes.
    for node in module.graph.find_nodes(op="get_attr"):
        constant = module.get_parameter(node.target) if node.target in dict(module.named_parameters()) else None
        if constant is not None:
            constant.data = constant.detach().to(node.meta[VALUE].dtype)
    shapes = tuple(shape(node) for node in module.graph.find_nodes(op="placeholder"))
    alone = Folded(module, shapes, FoldReport({}, (), net.batch_is_open), follows_dtype=net.follows_dtype)
    macs = count(alone, *inputs_of(alone, batch).values()).macs
    return Place(digest, kind.operator, tuple(kind.nodes), tuple(sorted(kind.forms)), macs), alone


def _reads_floats(net: Net, nodes: Sequence[Node]) -> bool:
    sources = [source for node in nodes for source in node.all_input_nodes if source not in nodes]
    read = [source.meta.get(VALUE) for source in sources if net.constant(source) is None]
    return bool(read) and all(isinstance(value, Tensor) and value.is_floating_point() for value in read)


def _sizes(node: Node, batch: int) -> list[int]:
    pairs = zip(node.meta[VALUE].shape, node.meta[OTHER].shape, strict=True)
    return [first if first == other else first * batch // BATCHES[0] for first, other in pairs]
