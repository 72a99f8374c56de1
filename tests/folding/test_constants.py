"""Expressions of constants: computed, unless the network would grow by more than 1%."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edgevit.count import count
from edgevit.folding import fold
from support.nets import Toy, fold_and_compare, image, operators

X = image(2, 12, 8)


def biased(net: Any, x: Tensor) -> Tensor:
    """A table of 5 numbers, spread over 12 tokens of 8 channels as Swin spreads its position biases."""
    return net.fc(x) + net.table[net.index]  # type: ignore[no-any-return]


def network(features: int) -> nn.Module:
    index = torch.arange(12 * features).reshape(12, features) % 5
    return Toy(biased, fc=nn.Linear(8, features), table=nn.Parameter(torch.rand(5)), index=index)


def test_a_value_much_larger_than_its_table_stays_an_expression() -> None:
    model = network(8)
    folded = fold_and_compare(model, X)
    assert operators(folded)["index"] == 1
    assert count(folded, X).params <= count(model, X).params


@pytest.mark.parametrize(
    "compute",
    [
        lambda net, x: net.fc(x) * (net.scale + 1),
        lambda net, x: net.fc(x) * net.scale[:8] + net.fc(x),
        lambda net, x: net.fc(x) * net.halves[:8] + net.halves[8:],
        lambda net, x: (lambda a, b: net.fc(x) * a + b)(*net.halves.chunk(2)),
        lambda net, x: x @ (net.weight / net.weight[:, :1].sum() * net.weight[:1]),
        lambda net, x: net.fc(x) * net.halves[:8].exp() + net.halves[8:].sin().exp(),
    ],
    ids=["as many numbers", "a part", "two slices of one", "a chunk", "one weight called thrice", "two expressions"],
)
def test_a_value_no_larger_than_what_goes_with_it_is_computed(compute: Callable[..., Any]) -> None:
    parts = {"scale": nn.Parameter(torch.rand(8)), "halves": nn.Parameter(torch.rand(16))}
    weight = nn.Parameter(torch.rand(8, 8))
    model = Toy(compute, fc=nn.Linear(8, 8), weight=weight, **parts)
    folded = fold_and_compare(model, X)
    assert not {"slice", "chunk", "index", "sum", "div", "exp", "sin"} & set(operators(folded))
    assert count(folded, X).params <= count(model, X).params


def encoded(tokens: int) -> nn.Module:
    """Sines of positions, computed in each call as detectors do: integers times frequencies."""

    def compute(net: Any, x: Tensor) -> Tensor:
        positions, frequencies = torch.arange(tokens), 1 / 10000 ** (torch.arange(4) / 4)
        angles = torch.outer(positions, frequencies)
        return net.fc(x) + torch.cat([angles.sin(), angles.cos()], 1)  # type: ignore[no-any-return]

    return Toy(compute, fc=nn.Sequential(nn.Linear(8, 800), nn.Linear(800, 8)))


def test_positions_that_are_encoded_anew_in_each_call_become_a_constant() -> None:
    folded = fold_and_compare(encoded(12), X)
    assert not {"arange", "outer", "sin", "cat"} & set(operators(folded))


@pytest.mark.parametrize(
    "table", [lambda net: net.table, lambda net: torch.arange(1.0, 50.0)], ids=["of weights", "of nothing"]
)
def test_an_index_that_rounding_decides_is_the_models_own(table: Callable[[Any], Tensor]) -> None:
    """In float64 some of these quotients are rounded down to other numbers than in the model's float32."""

    def compute(net: Any, x: Tensor) -> Tensor:
        index = (table(net) / 49.0 * 49.0).floor().long() % 5
        return net.body(x).index_select(2, index)  # type: ignore[no-any-return]

    body = nn.Sequential(nn.Linear(8, 100), nn.ReLU(), nn.Linear(100, 100))
    model = Toy(compute, body=body, table=nn.Parameter(torch.arange(1.0, 50.0))).eval()
    x = X.float()
    folded = fold(model, (x,))
    with torch.no_grad():
        torch.testing.assert_close(folded(x), model(x))


def test_a_large_table_made_of_nothing_stays_an_expression() -> None:
    """Without a weight that goes with it, each number counts, an index too."""
    model = Toy(lambda net, x: net.fc(x) + (torch.arange(96).reshape(12, 8) % 5 == 0), fc=nn.Linear(8, 8))
    folded = fold_and_compare(model, X)
    assert operators(folded)["arange"] == 1


def test_a_constant_that_stays_is_not_counted_as_one_that_goes() -> None:
    """The weight is read as it is, too, so a second form of it would double it."""
    model = Toy(
        lambda net, x: x @ net.weight.sigmoid() + x @ (net.weight * x.mean()), weight=nn.Parameter(torch.rand(8, 8))
    )
    folded = fold_and_compare(model, X)
    assert operators(folded)["sigmoid"] == 1
    assert count(folded, X).params <= 1.01 * count(model, X).params
