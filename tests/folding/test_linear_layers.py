"""Linear layers in sequence and side by side: which become one, and which stay because that costs no more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgevit.count import count
from support.fold_cases import TOKENS, X, case, chain, check, conv, norm, parameter, repvgg
from support.nets import Toy, fold_and_compare, image


def two_branches(a: nn.Module, b: nn.Module, combine: Callable[[Tensor, Tensor], Tensor] = torch.add) -> nn.Module:
    return Toy(lambda net, x: combine(net.a(x), net.b(x)), a=a, b=b)


@pytest.mark.parametrize(
    ("model", "inputs", "expected"),
    [
        case("pointwise after", chain(conv(4, 6, 3, padding=1, stride=2), conv(6, 4)), X, conv2d=1),
        case("three", chain(conv(4, 4), norm(4), nn.LeakyReLU(1.0), conv(4, 4), norm(4), conv(4, 4)), X, conv2d=1,
             leaky_relu=0),
        case("grouped first", chain(conv(4, 6, 3, groups=2), conv(6, 4)), X, conv2d=2),
        case("grouped second", chain(conv(6, 4, 1), conv(4, 4, 1, groups=4)), image(2, 6, 5, 5), conv2d=1),
        case("depthwise, scaled by a depthwise", chain(conv(4, 4, 3, groups=4), conv(4, 4, groups=4)), X, conv2d=1),
        case("fully connected", chain(nn.Linear(6, 6), nn.Dropout(), nn.Linear(6, 4)), TOKENS, linear=1),
        case("a bottleneck is dearer merged", chain(conv(4, 1), conv(1, 4)), X, conv2d=2),
        case("depthwise first is dearer merged", chain(conv(4, 4, 3, groups=4), conv(4, 4)), X, conv2d=2),
        case("pointwise first", chain(conv(4, 4), conv(4, 4, 3)), X, conv2d=1),
        case("pointwise first without a bias, padded after", chain(conv(4, 4, bias=False), conv(4, 4, 3, padding=1)),
             X, conv2d=1),
        case("pointwise first with a bias, padded after", chain(conv(4, 4), conv(4, 4, 3, padding=1)), X, conv2d=2),
        case("neither pointwise", chain(conv(4, 4, 3), conv(4, 4, 3)), X, conv2d=2),
        case("padded 1x1", chain(conv(4, 4), conv(4, 4, padding=1)), X, conv2d=2),
        case("strided 1x1", chain(conv(4, 4), conv(4, 4, stride=2)), X, conv2d=1),
        case("another reads the first", Toy(lambda net, x: (net.b(y := net.a(x)), y), a=conv(4, 4, 3), b=conv(4, 4)),
             X, conv2d=2),
        case("one layer twice", Toy(lambda net, x: net.a(net.a(x)), a=conv(4, 4)), X, conv2d=2),
        case("slope of a half between", chain(conv(4, 4), nn.LeakyReLU(0.5), conv(4, 4)), X, conv2d=2, leaky_relu=1),
        case("over columns, then over channels", Toy(lambda net, x: net.b(net.a(x)), a=nn.Linear(8, 8), b=conv(4, 4)),
             X, conv2d=1, linear=1),
    ],
)  # fmt: skip
def test_linear_layers_in_sequence_merge_where_that_costs_no_more(
    model: nn.Module, inputs: Any, expected: dict[str, int]
) -> None:
    check(model, inputs, expected)


@pytest.mark.parametrize(
    ("model", "inputs", "expected"),
    [
        case("3x3 and 1x1", two_branches(conv(4, 4, 3, padding=1), conv(4, 4)), X, conv2d=1, add=0),
        case("1x1 and 3x3", two_branches(conv(4, 4), conv(4, 4, 3, padding=1)), X, conv2d=1, add=0),
        case("added in place", two_branches(conv(4, 4), conv(4, 4), Tensor.add_), X, conv2d=1, add=0),
        case("strided", two_branches(conv(4, 4, 3, padding=1, stride=2), conv(4, 4, stride=2)), X, conv2d=1, add=0),
        case("asymmetric", two_branches(conv(4, 4, (1, 3), padding=(0, 1)), conv(4, 4, (3, 1), padding=(1, 0))), X,
             conv2d=2, add=1),
        case("asymmetric and square", two_branches(conv(4, 4, (1, 3), padding=(0, 1)), conv(4, 4, 3, padding=1)), X,
             conv2d=1, add=0),
        case("the shortcut", Toy(lambda net, x: net.c(x) + x, c=conv(4, 4, 3, padding=1)), X, conv2d=1, add=0),
        case("the shortcut first", Toy(lambda net, x: x + net.c(x), c=conv(4, 4, 3, padding=1)), X, conv2d=1, add=0),
        case("a scaled shortcut", Toy(lambda net, x: net.c(x) + x * net.s, c=conv(4, 4), s=parameter(4, 1, 1)), X,
             conv2d=1, add=0, mul=0),
        case("RepVGG with a norm as third branch", repvgg(), X, conv2d=1, add=0, batch_norm=0),
        case("a sum of three whose first two cost more as one", Toy(lambda net, x: net.a(x) + net.b(x) + net.n(x),
             a=conv(4, 4, 3, padding=1, groups=2), b=conv(4, 4), n=norm(4)), X, conv2d=2, add=1, batch_norm=0),
        case("branches of two maps", Toy(lambda net, x: (net.a(x) + net.b(y := x.relu())) + (net.c(x) + y),
             a=conv(4, 4), b=conv(4, 4), c=conv(4, 4)), X, conv2d=2, add=1),
        case("the map twice", Toy(lambda net, x: net.a(x) + (x + x), a=conv(4, 4)), X, conv2d=1, add=0),
        case("MobileOne", Toy(lambda net, x: sum(branch(x) for branch in net.all), all=nn.ModuleList([
             *(chain(conv(4, 4, 3, padding=1, groups=4, bias=False), norm(4)) for _ in range(4)),
             chain(conv(4, 4, groups=4, bias=False), norm(4)), norm(4)])), X, conv2d=1, add=0, batch_norm=0),
        case("the map and a number", Toy(lambda net, x: net.a(x) + (x + 1.5), a=conv(4, 4)), X, conv2d=1, add=0),
        case("a partial sum read elsewhere", Toy(lambda net, x: ((y := net.a(x) + x.relu()) + net.b(x), y),
             a=conv(4, 4), b=conv(4, 4)), X, conv2d=2, add=2),
        case("a partial sum doubled", Toy(lambda net, x: torch.add(net.c(x), net.a(x) + x.relu(), alpha=2),
             a=conv(4, 4), c=conv(4, 4)), X, conv2d=2, add=2),
        case("groups that nest", two_branches(conv(4, 4, 3, padding=1, groups=2), conv(4, 4, groups=4)), X, conv2d=1),
        case("both convolutions read elsewhere", Toy(lambda net, x: ((y := net.a(x)) + (z := net.b(x)), y, z),
             a=conv(4, 4), b=conv(4, 4)), X, conv2d=2, add=1),
        case("weights used twice", Toy(lambda net, x: net.a(x) + net.a(x.relu()), a=conv(4, 4)), X, conv2d=2, add=1),
        case("other maps", Toy(lambda net, x: net.a(x) + net.b(x.relu()), a=conv(4, 4), b=conv(4, 4)), X, conv2d=2),
        case("other geometry", two_branches(conv(4, 4, 3, padding=1), conv(4, 4, 3, padding=2, dilation=2)), X,
             conv2d=2),
        case("broadcast pixels", two_branches(conv(4, 4, (9, 8)), conv(4, 4)), X, conv2d=2, add=1),
        case("broadcast one row", two_branches(conv(4, 4, (9, 1)), conv(4, 4)), X, conv2d=2, add=1),
        case("broadcast channels", two_branches(conv(4, 1), conv(4, 4)), X, conv2d=2, add=1),
        case("broadcast shortcut", Toy(lambda net, x: net.c(x) + x, c=conv(1, 4)), image(2, 1, 5, 5), conv2d=1, add=1),
        case("broadcast onto the shortcut", Toy(lambda net, x: net.c(x) + x, c=conv(4, 1)), X, conv2d=1, add=1),
        case("global context", Toy(lambda net, x: net.c(x.mean((2, 3), True)) + x, c=conv(4, 4)), X, conv2d=1, add=1),
        case("doubled", two_branches(conv(4, 4), conv(4, 4), lambda a, b: torch.add(a, b, alpha=2)), X, conv2d=1),
        case("difference", two_branches(conv(4, 4), conv(4, 4), torch.sub), X, conv2d=1, sub=0),
        case("groups that would cost more", two_branches(conv(12, 12, 3, padding=1, groups=4),
             conv(12, 12, 3, padding=1, groups=6)), image(2, 12, 5, 5), conv2d=2, add=1),
    ],
)  # fmt: skip
def test_parallel_branches_merge_where_they_meet_on_one_grid(
    model: nn.Module, inputs: Any, expected: dict[str, int]
) -> None:
    check(model, inputs, expected)


@pytest.mark.parametrize(
    ("model", "inputs", "expected"),
    [
        case("masked weight", Toy(lambda net, x: net.n(F.conv2d(x, net.w * net.m)), w=parameter(6, 4, 1, 1),
             m=torch.ones(4, 1, 1), n=norm(6)), X, mul=0, batch_norm=0),
        case("standardised weight", Toy(lambda net, x: net.n(F.conv2d(x, (net.w - net.w.mean()) / net.w.std())),
             w=parameter(6, 4, 1, 1), n=norm(6)), X, conv2d=1, std=0, mean=0, batch_norm=0),
        case("stacked weights", Toy(lambda net, x: F.conv2d(x, torch.cat([net.a, net.b])), a=parameter(6, 4, 1, 1),
             b=parameter(2, 4, 1, 1)), X, conv2d=1, cat=0),
        case("noise is not constant", Toy(lambda net, x: x * (torch.rand_like(net.s) >= 0), s=parameter(4, 1, 1)), X,
             rand_like=1),
        case("a bias beside the convolution", Toy(lambda net, x: net.n(F.conv2d(x, net.weight)).relu() + net.bias,
             weight=parameter(6, 4, 1, 1), bias=parameter(6, 1, 1), n=norm(6)), X, conv2d=1, add=1, batch_norm=0),
        case("what a norm would be called is a module", Toy(lambda net, x: net.bias(net.n(F.conv2d(x, net.weight))),
             weight=parameter(6, 4, 1, 1), bias=nn.PReLU(), n=norm(6)), X, conv2d=1, batch_norm=0),
        case("a name that folding uses too", Toy(lambda net, x: net.n(F.conv2d(x, net.w)).relu() * net.folded_1
             * net.folded_2, w=parameter(6, 4, 1, 1), folded_1=parameter(6, 1, 1), folded_2=parameter(6, 1, 1),
             n=norm(6)), X, conv2d=1, batch_norm=0),
    ],
)  # fmt: skip
def test_expressions_of_constants_are_computed(model: nn.Module, inputs: Any, expected: dict[str, int]) -> None:
    check(model, inputs, expected)


@pytest.mark.parametrize(
    ("model", "inputs", "expected"),
    [
        case("mean of two heads", Toy(lambda net, x: (net.a(x).flatten(1) + net.b(x).flatten(1)) / 2, a=conv(4, 6),
             b=conv(4, 6)), image(2, 4, 1, 1), conv2d=1, add=0, div=0, flatten=1),
        case("reshaped otherwise", Toy(lambda net, x: net.a(x).flatten(1) + net.b(x).flatten(2).flatten(1),
             a=conv(4, 6), b=conv(4, 6)), X, conv2d=2),
        case("flat maps of other shapes", Toy(lambda net, x: net.a(x).flatten(1) + net.b(x.mean((2, 3), True))
             .flatten(1), a=conv(4, 6), b=conv(4, 432)), X, conv2d=2, add=1),
        case("a flat map read twice", Toy(lambda net, x: ((y := net.a(x).flatten(1)) + net.b(x).flatten(1), y),
             a=conv(4, 6), b=conv(4, 6)), X, conv2d=2, add=1),
        case("doubled", Toy(lambda net, x: torch.add(net.a(x).flatten(1), net.b(x).flatten(1), alpha=2), a=conv(4, 6),
             b=conv(4, 6)), X, conv2d=1, add=0),
    ],
)  # fmt: skip
def test_arithmetic_goes_ahead_of_reshapes(model: nn.Module, inputs: Any, expected: dict[str, int]) -> None:
    check(model, inputs, expected)


@pytest.mark.parametrize("third", [lambda y: y, lambda y: y - y], ids=["itself", "a difference with itself"])
def test_a_layer_that_is_joined_twice_is_not_merged_into_each_place(third: Any) -> None:
    """Each merge would save the layer's cost, which goes only once."""
    model = Toy(lambda net, x: net.b(torch.cat(((y := net.a(x)), third(y), x), 2)), a=nn.Linear(3, 2),
                b=nn.Linear(7, 4))  # fmt: skip
    x = image(2, 5, 3)
    assert count(fold_and_compare(model, x), x).macs <= count(model, x).macs
