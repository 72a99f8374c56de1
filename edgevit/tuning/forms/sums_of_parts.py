"""Layers of a concatenation as sums of layers of its parts, and sums of layers as a layer of a concatenation."""

from __future__ import annotations

import dataclasses

import torch
from torch.fx import Node

from edgevit.folding.graph import Net, aten, is_call
from edgevit.folding.kernel import Kernel, plus
from edgevit.tuning.form import Form
from edgevit.tuning.forms_parts import enclosed, is_plain, joined, kernel_of, linear_as, operands, summed


def _apart_nodes(net: Net, node: Node) -> tuple[Node, ...] | None:
    kernel = kernel_of(net, node)
    if kernel is None or kernel.groups != 1 or not is_call(cat := net.input(node), aten.cat.default):
        return None
    named, rank = net.arguments(cat), len(net.shape(cat))
    fits = named["dim"] % rank == net.channel_axis(node) and len(named["tensors"]) > 1
    parts_are_plain = all(is_plain(net, part) for part in named["tensors"])
    return enclosed([cat, node]) if fits and parts_are_plain else None


def _write_apart(net: Net, node: Node) -> Node:
    kernel, terms, start = net.kernel(node), list[Node](), 0
    axis = net.channel_axis(node)
    for part in net.arguments(net.input(node))["tensors"]:
        stop = start + net.shape(part)[axis]
        weight = kernel.weight[:, start:stop]
        bias = None if terms else kernel.bias
        terms.append(linear_as(net, node, part, dataclasses.replace(kernel, weight=weight, bias=bias), before=node))
        start = stop
    return summed(net, terms, before=node)


def _terms(net: Net, node: Node) -> list[tuple[Node, Kernel]] | None:
    """Return the two layers of a sum with their kernels, where they are alike but for their inputs."""
    pair = operands(net, node, aten.add.Tensor)
    if pair is None:
        return None
    terms = [(term, kernel) for term in pair if (kernel := kernel_of(net, term)) is not None]
    if len(terms) != 2 or pair[0] is pair[1] or pair[0].target is not pair[1].target:
        return None
    if any(net.shape(term) != net.shape(node) or len(term.users) > 1 for term in pair):
        return None
    first, second = (
        (kernel.size, kernel.stride, kernel.padding, kernel.dilation, kernel.groups) for _, kernel in terms
    )
    axis = net.channel_axis(pair[0])
    inputs = [[size for i, size in enumerate(net.shape(net.input(term))) if i != axis] for term in pair]
    return terms if first == second and first[-1] == 1 and inputs[0] == inputs[1] else None


def _joined_nodes(net: Net, node: Node) -> tuple[Node, ...] | None:
    terms = _terms(net, node)
    return None if terms is None else enclosed([*(term for term, _ in terms), node])


def _write_joined(net: Net, node: Node) -> Node:
    terms = _terms(net, node)
    assert terms is not None
    (first, one), (second, other) = terms
    source = joined(net, [net.input(first), net.input(second)], net.channel_axis(first), before=node)
    weight = torch.cat((one.weight, other.weight), 1)
    kernel = dataclasses.replace(one, weight=weight, bias=plus(one.bias, other.bias))
    return linear_as(net, first, source, kernel, before=node)


FORMS = (
    Form("concat_as_sum", "layers of a concatenation as sums of layers of its parts", _apart_nodes, _write_apart),
    Form("sum_as_concat", "sums of two layers as one layer of a concatenation", _joined_nodes, _write_joined),
)
