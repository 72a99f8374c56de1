"""Layers in short, and networks with the operators that should remain of them, for the tests of folding."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edgevit.count import count
from edgevit.folding import Folded
from edgevit.folding.inference_form import Unfolded
from support.narrowing import node_at
from support.nets import LINEAR, Toy, biases, calls, fold_and_compare, image, operators


def conv(inputs: int, outputs: int, size: int | tuple[int, int] = 1, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, **options)


def norm(channels: int, **options: Any) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, **options)


def chain(*modules: nn.Module) -> nn.Module:
    return nn.Sequential(*modules)


def parameter(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.rand(shape) + 0.5)


def case(name: str, model: nn.Module, *inputs: Tensor, **expected: int) -> Any:
    """Fold a network and check the number of each operator; `biased`: layers with a bias; `fixed`: the batch is."""
    return pytest.param(model, inputs, expected, id=name)


def check(model: nn.Module, inputs: tuple[Tensor, ...], expected: dict[str, int]) -> None:
    folded = fold_and_compare(model, *inputs, fixed=bool(expected.pop("fixed", 0)))
    assert count(folded, *inputs).macs <= count(model, *inputs).macs
    remaining = operators(folded)
    remaining["biased"] = sum(biases(folded))
    assert {name: remaining[name] for name in expected} == expected, folded.net.graph


X = image(2, 4, 9, 8)
ROW = image(2, 6)
TOKENS = image(2, 5, 6)


def repvgg() -> nn.Module:
    return Toy(lambda net, x: (net.a(x) + net.b(x) + net.n(x)).relu(), n=norm(4),
               a=chain(conv(4, 4, 3, padding=1, bias=False), norm(4)),
               b=chain(conv(4, 4, bias=False), norm(4)))  # fmt: skip


def norms_left(folded: Folded) -> list[Unfolded]:
    return [unfolded for unfolded in folded.report.unfolded if unfolded.kind == "norm"]


def assert_no_foldable_norm(folded: Folded) -> None:
    for node in calls(folded):
        if node.target is torch.ops.aten.batch_norm.default:
            source = node_at(node, 0)
            assert not (source.target in LINEAR and len(source.users) == 1), folded.net.graph
            # Arguments that have their default may be left out: stride, then padding.
            none = ((), ([0, 0],))
            takers = [user.target is torch.ops.aten.conv2d.default and user.args[4:5] in none for user in node.users]
            assert not (takers and all(takers)), folded.net.graph
