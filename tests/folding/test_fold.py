"""Folding: each rewrite where it holds and where it does not, whole networks, and what a Folded can be used for."""

from __future__ import annotations

import copy
import functools
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from edgevit.count import count
from edgevit.errors import FoldError, ModelError
from edgevit.folding import Folded, fold, max_rel
from edgevit.folding.inference_form import Unfolded
from edgevit.models import randomize
from support.nets import LINEAR, Toy, assert_same, biases, calls, fold_and_compare, image, operators, ready

Make = Callable[[], tuple[nn.Module, *tuple[Tensor, ...]]]
TORCH_WARNS_OF_ITSELF = pytest.mark.filterwarnings("ignore:.*treespec, LeafSpec.*:FutureWarning")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def conv(inputs: int, outputs: int, size: int = 1, **options: Any) -> nn.Conv2d:
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


# ---- norms and scales beside a linear layer ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "inputs", "expected"),
    [
        case("convolution", chain(conv(4, 6, 3, padding=1), norm(6)), X, conv2d=1, batch_norm=0),
        case("no bias", chain(conv(4, 6, 3, bias=False, stride=2), norm(6)), X, conv2d=1, batch_norm=0, biased=1),
        case("groups", chain(conv(4, 6, (1, 3), groups=2), norm(6)), X, conv2d=1, batch_norm=0),
        case("no scale and shift", chain(conv(4, 6), norm(6, affine=False)), X, conv2d=1, batch_norm=0),
        case("padding by name", chain(conv(4, 6, 3, padding="same"), norm(6)), X, conv2d=1, batch_norm=0),
        case("no padding by name", chain(conv(4, 6, 3, padding="valid"), norm(6)), X, conv2d=1, batch_norm=0),
        case("dilated", chain(conv(4, 6, 3, padding="same", dilation=2), norm(6)), X, conv2d=1, batch_norm=0),
        case("several norms", chain(conv(4, 6), norm(6), norm(6), norm(6)), X, conv2d=1, batch_norm=0),
        case("fully connected", chain(nn.Linear(6, 5), nn.BatchNorm1d(5)), ROW, linear=1, batch_norm=0),
        case("written in place", chain(conv(4, 6), norm(6), nn.ReLU(inplace=True), conv(6, 2), norm(2)), X, conv2d=2,
             batch_norm=0, relu=1, relu_=0),
        case("norm first", chain(norm(4), conv(4, 6)), X, conv2d=1, batch_norm=0),
        case("norm first, fully connected", chain(nn.BatchNorm1d(6), nn.Linear(6, 5)), ROW, linear=1, batch_norm=0),
        case("norm first, strided without padding", chain(norm(4), conv(4, 6, 3, stride=2)), X, batch_norm=0),
        case("norm first, several readers", Toy(lambda net, x: net.a(y := net.n(x)).relu() + net.b(y).sigmoid(),
             n=norm(4), a=conv(4, 6), b=conv(4, 6)), X, batch_norm=0, conv2d=2),
        case("dropout between", chain(conv(4, 6), nn.Dropout(0.2), nn.Dropout2d(0.2), norm(6), nn.AlphaDropout(0.2),
             nn.FeatureAlphaDropout(0.1)), X, conv2d=1, batch_norm=0, dropout=0, feature_dropout=0, alpha_dropout=0),
        case("dropout in place", chain(conv(4, 6), nn.Dropout(0.2, inplace=True), norm(6)), X, batch_norm=0),
        case("cast to its own dtype between", Toy(lambda net, x: net.n(net.c(x).double()), c=conv(4, 6), n=norm(6)), X,
             batch_norm=0, to=0),
    ],
)  # fmt: skip
def test_norms_go_into_the_layer_beside_them(model: nn.Module, inputs: Any, expected: dict[str, int]) -> None:
    check(model, inputs, expected)


SCALES: dict[str, tuple[Callable[..., Tensor], dict[str, Any]]] = {
    "scale (C, 1, 1)": (lambda net, x: x * net.s, {"s": parameter(6, 1, 1)}),
    "scale (1, C, 1, 1), first": (lambda net, x: net.s * x, {"s": parameter(1, 6, 1, 1)}),
    "scale (C) reshaped": (lambda net, x: x * net.s[:, None, None], {"s": parameter(6)}),
    "scale of one number": (lambda net, x: x * net.s, {"s": parameter(1)}),
    "number": (lambda net, x: 3 * x, {}),
    "quotient": (lambda net, x: x / net.s, {"s": parameter(6, 1, 1)}),
    "divided by a number": (lambda net, x: x / 2, {}),
    "shift": (lambda net, x: x + net.s, {"s": parameter(6, 1, 1)}),
    "shift, first": (lambda net, x: net.s + x, {"s": parameter(6, 1, 1)}),
    "difference": (lambda net, x: x - net.s, {"s": parameter(6, 1, 1)}),
    "less a number": (lambda net, x: x - 1.5, {}),
    "in place": (lambda net, x: x.mul_(net.s).add_(1), {"s": parameter(6, 1, 1)}),
    "buffer of whole numbers": (lambda net, x: x * net.s, {"s": torch.arange(1, 7)[:, None, None]}),
    "number made in forward": (lambda net, x: x * torch.tensor([2.0], dtype=torch.float64), {}),
}


@pytest.mark.parametrize("name", SCALES)
def test_scales_and_shifts_go_into_the_layer_before(name: str) -> None:
    compute, parts = copy.deepcopy(SCALES[name])
    folded = fold_and_compare(Toy(lambda net, x: compute(net, net.conv(x)), conv=conv(4, 6, 3), **parts), X)
    assert operators(folded) == {"conv2d": 1}


@pytest.mark.parametrize(
    ("model", "inputs", "expected"),
    [
        case("layer scale", Toy(lambda net, x: net.fc(x) * net.s, fc=nn.Linear(6, 5), s=parameter(5)), TOKENS, mul=0),
        case("scale of tokens", Toy(lambda net, x: net.fc(x) * net.s, fc=nn.Linear(6, 5), s=parameter(5, 1)), TOKENS,
             mul=1),
        case("scale of columns", Toy(lambda net, x: net.c(x) * net.s, c=conv(4, 6), s=parameter(8)), X, mul=1),
        case("scale of rows", Toy(lambda net, x: net.c(x) * net.s, c=conv(4, 6), s=parameter(1, 9, 1)), X, mul=1),
        case("a mask", Toy(lambda net, x: net.c(x) * net.s, c=conv(4, 6), s=parameter(9, 8)), X, mul=1),
        case("makes channels", Toy(lambda net, x: net.c(x) * net.s, c=conv(4, 1), s=parameter(6, 1, 1)), X, mul=1),
        case("makes pixels", Toy(lambda net, x: net.c(x.mean((2, 3), True)) + net.s, c=conv(4, 6),
             s=parameter(6, 9, 8)), X, add=1),
        case("scaled sum", Toy(lambda net, x: torch.add(net.c(x), net.s, alpha=2), c=conv(4, 6), s=parameter(6, 1, 1)),
             X, add=1),
        case("a difference the other way", Toy(lambda net, x: net.s - net.c(x), c=conv(4, 6), s=parameter(6, 1, 1)), X,
             sub=1),
        case("a quotient the other way", Toy(lambda net, x: net.s / net.c(x), c=conv(4, 6), s=parameter(6, 1, 1)), X,
             div=1),
        case("squared", Toy(lambda net, x: (y := net.c(x)) * y, c=conv(4, 6)), X, mul=1),
        case("shift before padding", chain(norm(4), conv(4, 6, 3, padding=1)), X, batch_norm=1),
        case("scale before padding", Toy(lambda net, x: net.c(x * net.s), c=conv(4, 6, 3, padding=1),
             s=parameter(4, 1, 1)), X, mul=0),
        case("one reader is padded", Toy(lambda net, x: net.a(y := net.n(x)).relu() + net.b(y).sigmoid(), n=norm(4),
             a=conv(4, 6), b=conv(4, 6, 3, padding=1)), X, batch_norm=1),
        case("one reader is not linear", Toy(lambda net, x: (net.a(y := net.n(x)), y.relu()), n=norm(4), a=conv(4, 6)),
             X, batch_norm=1),
        case("it is an output", Toy(lambda net, x: (net.a(y := net.n(x)), y), n=norm(4), a=conv(4, 6)), X,
             batch_norm=1),
        case("read along two axes", Toy(lambda net, x: (net.a(y := x * net.s), net.b(y)), s=parameter(4, 1, 1),
             a=conv(4, 6), b=nn.Linear(4, 3)), image(2, 4, 4, 4), mul=1),
        case("another reads the layer", Toy(lambda net, x: (net.n(y := net.c(x)), y.relu()), c=conv(4, 6), n=norm(6)),
             X, batch_norm=1),
        case("weights used twice", Toy(lambda net, x: net.n(net.c(net.c(x).relu())), c=conv(4, 4), n=norm(4)), X,
             batch_norm=1, conv2d=2),
        case("next one's weights used twice", Toy(lambda net, x: net.c(net.c(net.n(x)).relu()), c=conv(4, 4),
             n=norm(4)), X, batch_norm=1),
        case("norm used twice", Toy(lambda net, x: net.n(net.b(net.n(net.a(x)).relu())), a=conv(4, 6), b=conv(6, 6),
             n=norm(6)), X, batch_norm=0),
        case("norm of tokens", chain(nn.Linear(6, 6), nn.BatchNorm1d(5)), TOKENS, batch_norm=1),
        case("no statistics", chain(conv(4, 6), norm(6, track_running_stats=False)), X, batch_norm=1),
        case("computed weights", Toy(lambda net, x: net.n(F.conv2d(x, net.w * x.mean())), w=parameter(6, 4, 1, 1),
             n=norm(6)), X, batch_norm=1),
        case("computed bias", Toy(lambda net, x: net.n(F.conv2d(x, net.w, x.mean((0, 2, 3))[:1].expand(6))),
             w=parameter(6, 4, 1, 1), n=norm(6)), X, batch_norm=1),
        case("one map without a batch", Toy(lambda net, x: net.c(x) * net.s, c=conv(4, 4), s=parameter(1, 4, 1)),
             image(4, 4, 4), mul=1, fixed=1),
        case("the scale is written to", Toy(lambda net, x: net.c(x) * net.s.add_(1), c=conv(4, 6),
             s=torch.ones(1, dtype=torch.float64)), X, mul=1),
    ],
)  # fmt: skip
def test_norms_and_scales_stay_where_the_layer_cannot_take_them(
    model: nn.Module, inputs: Any, expected: dict[str, int]
) -> None:
    check(model, inputs, expected)


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (chain(norm(4), conv(4, 6, 3, padding=1)), "pads"),
        (chain(nn.ReLU(), norm(4), nn.ReLU()), "cannot take it"),
        (chain(conv(4, 4), norm(4, track_running_stats=False)), "statistics from the batch"),
        (Toy(lambda net, x: (net.n(y := net.c(x)), y.relu()), c=conv(4, 6), n=norm(6)), "2 readers"),
        (Toy(lambda net, x: net.n(net.c(net.c(x).relu())), c=conv(4, 4), n=norm(4)), "another call"),
        (Toy(lambda net, x: net.n(x.abs()), n=norm(4)), "abs"),
    ],
)
def test_what_stays_is_listed_with_its_place_and_reason(model: nn.Module, why: str) -> None:
    folded = fold_and_compare(model, X)
    (unfolded,) = folded.report.unfolded
    assert why in unfolded.reason
    assert unfolded.module in {name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)}
    assert folded.report.summary.endswith("1 left") and unfolded.kind == "norm"


# ---- linear layers that meet -------------------------------------------------------------------------------------


def repvgg() -> nn.Module:
    return Toy(lambda net, x: (net.a(x) + net.b(x) + net.n(x)).relu(), n=norm(4),
               a=chain(conv(4, 4, 3, padding=1, bias=False), norm(4)),
               b=chain(conv(4, 4, bias=False), norm(4)))  # fmt: skip


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
        case("doubled", two_branches(conv(4, 4), conv(4, 4), lambda a, b: torch.add(a, b, alpha=2)), X, conv2d=2),
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
             b=conv(4, 6)), X, conv2d=2, add=1),
    ],
)  # fmt: skip
def test_arithmetic_goes_ahead_of_reshapes(model: nn.Module, inputs: Any, expected: dict[str, int]) -> None:
    check(model, inputs, expected)


# ---- pooling -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "outputs"), [(75, 38), (38, 19), (19, 10), (8, 4), (9, 3), (7, 1), (5, 5), (9, 4)])
def test_adaptive_max_pool_becomes_a_plain_one(size: int, outputs: int) -> None:
    folded = fold_and_compare(nn.AdaptiveMaxPool2d((outputs, 2)), image(2, 3, size, 4))
    assert operators(folded) == {"max_pool2d": 1}


@pytest.mark.parametrize(
    ("model", "inputs", "expected"),
    [
        case("uneven windows", nn.AdaptiveMaxPool2d((5, 3)), image(2, 3, 7, 6), adaptive_max_pool2d=1),
        case("one axis kept", nn.AdaptiveMaxPool2d((None, 2)), image(2, 3, 9, 6), max_pool2d=1),
        case("indices wanted", nn.AdaptiveMaxPool2d(2, return_indices=True), image(2, 3, 6, 6), adaptive_max_pool2d=1),
        case("no batch", nn.AdaptiveMaxPool2d(2), image(3, 6, 6), adaptive_max_pool2d=1),
    ],
)
def test_adaptive_max_pool_stays_where_no_plain_one_has_its_windows(
    model: nn.Module, inputs: Any, expected: dict[str, int]
) -> None:
    check(model, inputs, expected)


@pytest.mark.parametrize("pool", [nn.MaxPool2d(2), nn.MaxPool2d(3, 2, 1), nn.MaxPool2d(2, ceil_mode=True, dilation=2)])
def test_relu_comes_after_its_max_pool(pool: nn.Module) -> None:
    folded = fold_and_compare(chain(nn.ReLU(), pool), X)
    assert list(operators(folded)) == ["max_pool2d", "relu"]


def test_relu_stays_ahead_of_its_max_pool_where_another_reads_it() -> None:
    folded = fold_and_compare(Toy(lambda net, x: (F.max_pool2d(y := x.relu(), 2), y)), X)
    assert operators(folded) == {"relu": 1, "max_pool2d": 1}


@pytest.mark.parametrize(
    ("model", "inputs", "expected"),
    [
        case("mean, axes kept", Toy(lambda net, x: net.c(x).mean((2, 3), True), c=conv(4, 4, 3, padding=1, groups=4)),
             X, mean=0, conv2d=1, flatten=0),
        case("mean, axes dropped", Toy(lambda net, x: net.c(x).mean((-1, -2)), c=conv(4, 4, 3, groups=4)), X, mean=0,
             flatten=1),
        case("adaptive", chain(conv(4, 8, 5, padding=4, groups=4, dilation=2), nn.AdaptiveAvgPool2d(1)), X,
             adaptive_avg_pool2d=0),
        case("larger than the map", chain(conv(4, 4, 7, padding=3, groups=4), nn.AdaptiveAvgPool2d((1, 1))),
             image(2, 4, 3, 2), adaptive_avg_pool2d=0),
        case("mean of one axis", Toy(lambda net, x: net.c(x).mean(3), c=conv(4, 4, 3, groups=4)), X, mean=1),
        case("mean of channels", Toy(lambda net, x: net.c(x).mean((1, 2)), c=conv(4, 4, 3, groups=4)), X, mean=1),
        case("mean of everything", Toy(lambda net, x: net.c(x).mean(), c=conv(4, 4, 3, groups=4)), X, mean=1),
        case("mean of every axis", Toy(lambda net, x: net.c(x).mean((0, 1, 2, 3)), c=conv(4, 4, 3, groups=4)), X,
             mean=1),
        case("mean in another dtype", Toy(lambda net, x: net.c(x).mean((2, 3), dtype=torch.float32),
             c=conv(4, 4, 3, groups=4)), X, mean=1),
        case("mean of tokens", Toy(lambda net, x: net.c(x).flatten(2).mean(2), c=conv(4, 4, 3, groups=4)), X, mean=1),
        case("not depthwise", chain(conv(4, 4, 3, groups=2), nn.AdaptiveAvgPool2d(1)), X, adaptive_avg_pool2d=1),
        case("strided", chain(conv(4, 4, 3, groups=4, stride=2), nn.AdaptiveAvgPool2d(1)), X, adaptive_avg_pool2d=1),
        case("more than one output", chain(conv(4, 4, 3, groups=4), nn.AdaptiveAvgPool2d((1, 2))), X,
             adaptive_avg_pool2d=1),
        case("few taps far apart", chain(conv(4, 4, 2, groups=4, dilation=7), nn.AdaptiveAvgPool2d(1)), X,
             adaptive_avg_pool2d=1),
        case("another reads it", Toy(lambda net, x: (net.c(x), net.c(x).mean((2, 3))), c=conv(4, 4, 3, groups=4)), X,
             mean=1),
    ],
)  # fmt: skip
def test_depthwise_layer_and_mean_become_a_weighted_sum(
    model: nn.Module, inputs: Any, expected: dict[str, int]
) -> None:
    check(model, inputs, expected)


# ---- maxima, minima, differences ---------------------------------------------------------------------------------


def relative(x: Tensor, *rolls: tuple[int, int]) -> Tensor:
    """Return the largest difference of each pixel to its neighbours (shift, axis), itself among them."""
    largest = torch.zeros_like(x)
    for shift, axis in rolls:
        largest = torch.maximum(largest, x - torch.roll(x, shift, axis))
    return largest


@pytest.mark.parametrize(
    ("compute", "shape", "expected"),
    [
        (lambda x: relative(x, (2, 2), (4, 2), (6, 2), (2, 3), (4, 3), (6, 3)), (2, 3, 7, 7), {"roll": 4, "sub": 1}),
        (lambda x: relative(x, (2, 2), (4, 2), (6, 2), (2, 3), (4, 3), (6, 3)), (2, 3, 8, 8), {"roll": 4, "sub": 1}),
        (lambda x: relative(x, *((i, 2) for i in range(2, 14, 2))), (2, 3, 14, 5), {"roll": 3, "sub": 1}),
        (lambda x: relative(x, *((i, -1) for i in range(3, 12, 3))), (2, 3, 5, 12), {"roll": 2, "sub": 1}),
        (lambda x: relative(x, (-2, 2), (-4, 2), (-6, 2)), (2, 3, 8, 5), {"roll": 2, "sub": 1}),
        (lambda x: relative(x, (2, 2), (4, 2), (7, 2)), (2, 3, 9, 5), {"roll": 3, "sub": 1}),
        (lambda x: relative(x, (4, 2), (6, 2), (8, 2)), (2, 3, 9, 5), {"roll": 3, "sub": 1}),
        (lambda x: relative(x, (9, 2), (18, 2), (27, 2)), (2, 3, 9, 5), {"roll": 3, "sub": 1}),
        (lambda x: relative(x, (2, 2), (2, 3), (4, 3)), (2, 3, 7, 7), {"roll": 3, "minimum": 3}),
        (lambda x: functools.reduce(torch.minimum, [x.roll(i, 2) for i in range(2, 14, 2)]), (2, 3, 14, 5),
         {"roll": 6, "minimum": 5}),  # without the map itself
        (lambda x: relative(x, (1, 0), (2, 0), (3, 0)), (4, 3, 7, 7), {"roll": 3}),
        (lambda x: relative(x, ((1, 1), (2, 3)), ((2, 2), (2, 3)), ((3, 3), (2, 3))), (2, 3, 5, 5), {"roll": 3}),
        (lambda x: torch.maximum(x - 1.0, x - 2.0), (2, 3, 4, 4), {"sub": 2, "maximum": 1}),
        (lambda x: torch.maximum(x - x.mean(), x - x.sigmoid()), (2, 3, 4, 4), {"sub": 1, "maximum": 0}),
        (lambda x: torch.max(x - x.exp(), x - x.sigmoid()), (2, 3, 4, 4), {"sub": 1, "max": 0}),
        (lambda x: torch.maximum(torch.sub(x, x.exp(), alpha=2), x - x.sigmoid()), (2, 3, 4, 4), {"sub": 2}),
        (lambda x: torch.maximum(x - x.exp(), x.abs() - x.exp()), (2, 3, 4, 4), {"sub": 2}),
        (lambda x: (torch.maximum(y := x - x.exp(), x - x.abs()), y), (2, 3, 4, 4), {"sub": 2}),
        (lambda x: torch.maximum((m := x.mean((2, 3), True)) - x, m - x.exp()), (2, 3, 4, 4), {"sub": 2}),
        (lambda x: torch.maximum(torch.ones_like(x), x - x.exp()), (2, 3, 4, 4), {"maximum": 1}),
        (lambda x: torch.maximum(x.relu(), x - x.exp()), (2, 3, 4, 4), {"maximum": 1}),
    ],
)  # fmt: skip
def test_maxima_of_differences_and_minima_over_rolls(
    compute: Callable[[Tensor], Any], shape: tuple[int, ...], expected: dict[str, int]
) -> None:
    check(Toy(lambda net, x: compute(x)), (image(*shape),), expected)


def test_max_of_differences_is_equal_to_the_bit() -> None:
    rolls = [(shift, axis) for axis in (2, 3) for shift in (2, 4, 6)]
    x = image(2, 5, 7, 7, dtype=torch.float32)
    model = Toy(lambda net, x: relative(x, *rolls)).eval()
    assert torch.equal(model(x), fold(model, (x,))(x))


def test_max_of_differences_stays_in_whole_numbers_where_differences_wrap() -> None:
    model = Toy(lambda net, x: torch.maximum(x - (x + 20), x - x // 2)).eval()
    x = torch.arange(48, dtype=torch.uint8).reshape(1, 3, 4, 4)
    assert torch.equal(model(x), fold(model, (x,))(x))


@pytest.mark.parametrize(
    ("compute", "expected"),
    [
        (lambda net, x: net.c(torch.cat([x, x - x.exp()], 1)), {"sub": 0}),
        (lambda net, x: net.c(torch.cat([x - x.exp(), x], -3)), {"sub": 0}),
        (lambda net, x: net.p(torch.cat([x, x - x.exp()], 1)), {"sub": 0}),
        (lambda net, x: net.three(torch.cat([x, x - x.exp(), x - x.abs()], 1)), {"sub": 0}),
        (lambda net, x: net.c(torch.cat([x, torch.sub(x, x.exp(), alpha=2)], 1)), {"sub": 1}),
        (lambda net, x: net.c(torch.cat([x, x - x.mean((2, 3), True)], 1)), {"sub": 1}),
        (lambda net, x: net.c(torch.cat([x, x - x.mean()], 1)), {"sub": 1}),
        (lambda net, x: net.g(torch.cat([x, x - x.exp()], 1)), {"sub": 1}),
        (lambda net, x: net.c(torch.cat([x.exp(), x - x.abs()], 1)), {"sub": 1}),
        (lambda net, x: (net.c(torch.cat([x, y := x - x.exp()], 1)), y), {"sub": 1}),
        (lambda net, x: (net.c(y := torch.cat([x, x - x.exp()], 1)), y.relu()), {"sub": 1}),
        (lambda net, x: net.c(net.same(torch.cat([x, x - x.exp()], 1))), {"sub": 0}),
        (lambda net, x: net.line(torch.cat([x, x - x.exp()], 1)), {"sub": 1}),
        (lambda net, x: net.line(torch.cat([x, x - x.exp()], 2)), {"sub": 1}),
        (lambda net, x: net.wide(torch.cat([x, x - x.exp()], 3)), {"sub": 0}),
        (lambda net, x: net.c(torch.cat([x, x - 1.0], 1)), {"sub": 1}),
    ],
)
def test_differences_go_into_the_weights_that_read_them(compute: Callable[..., Any], expected: dict[str, int]) -> None:
    parts = {"c": conv(8, 3), "p": conv(8, 3, 3, padding=1), "three": conv(12, 3), "g": conv(8, 4, groups=2)}
    parts |= {"same": conv(8, 8, 3), "line": nn.Linear(8, 3), "wide": nn.Linear(16, 3)}
    check(Toy(compute, **parts), (image(2, 4, 8, 8),), expected)


# ---- biases ------------------------------------------------------------------------------------------------------


def between(compute: Callable[[Tensor], Tensor], after: nn.Module | None = None) -> nn.Module:
    """Build a convolution (4 -> 6), a step, and a convolution that reads it."""
    return Toy(lambda net, x: net.b(compute(net.a(x))), a=conv(4, 6, 3), b=after or conv(6, 5))


SQUARE = image(2, 4, 8, 8)  # 6x6 after the convolution: as many rows and columns as channels


@pytest.mark.parametrize(
    ("name", "model", "moved"),
    [
        ("max-pool with padding", between(lambda y: F.max_pool2d(y, 3, 2, 1)), True),
        ("adaptive average", between(lambda y: F.adaptive_avg_pool2d(y, 2)), True),
        ("mean", between(lambda y: y.mean((2, 3), True)), True),
        ("mean, flat", between(lambda y: y.mean((2, 3)), nn.Linear(6, 5)), True),
        ("flatten", between(lambda y: F.adaptive_avg_pool2d(y, 1).flatten(1), nn.Linear(6, 5)), True),
        ("roll", between(lambda y: torch.roll(y, (1, 2), (2, 3))), True),
        ("maximum", between(lambda y: torch.maximum(y, torch.roll(y, 1, 2))), True),
        ("difference", between(lambda y: y - torch.roll(y, 1, 2)), True),
        ("difference, whatever reads it", between(lambda y: (y - torch.roll(y, 1, 2)).relu()), True),
        ("all that is joined", between(lambda y: torch.cat([y, y.roll(1, 2)], 1), conv(12, 5)), True),
        ("part of what is joined", between(lambda y: torch.cat([y - y.roll(1, 2), y], 1), conv(12, 5)), True),
        ("strided, dilated reader", between(lambda y: y.roll(1, 2), conv(6, 5, 2, stride=2, dilation=2)), True),
        ("grouped reader", between(lambda y: y.roll(1, 2), conv(6, 4, groups=2)), True),
        ("relu", between(lambda y: y.relu().roll(1, 2)), False),
        ("padded reader", between(lambda y: y.roll(1, 2), conv(6, 5, 3, padding=1)), False),
        ("average with padding", between(lambda y: F.avg_pool2d(y, 3, 2, 1)), False),
        ("roll of channels", between(lambda y: y.roll(1, 1)), False),
        ("roll of channels, from behind", between(lambda y: y.roll(1, -3)), False),
        ("roll of all numbers in a row", between(lambda y: y.roll(7)), False),
        ("less a number, then relu", between(lambda y: (y.roll(1, 2) - 1.0).relu()), False),
        ("twice the difference", between(lambda y: torch.sub(y, y.roll(1, 2), alpha=2)), False),
        ("maximum with another map", between(lambda y: torch.maximum(y, y.exp())), False),
        ("minimum with a number", between(lambda y: torch.minimum(y, torch.zeros(1, dtype=y.dtype))), False),
        ("sum", between(lambda y: y.roll(1, 2) + y.roll(1, 3)), False),
        ("joined in rows", between(lambda y: torch.cat([y, y - y.roll(1, 3)], 2)), False),
        ("over columns", between(lambda y: y.roll(1, 2), nn.Linear(6, 5)), False),
        ("transposed", between(lambda y: y.transpose(1, 3)), False),
        ("mean over channels", between(lambda y: y.mean((1, 2), True).expand(-1, 6, -1, -1)), False),
        ("maximum of a flat and a deep map", between(lambda y: torch.maximum(y.mean((2, 3)), y)), False),
        ("an output", Toy(lambda net, x: (net.b(y := net.a(x).roll(1, 2)), y), a=conv(4, 6, 3), b=conv(6, 5)), False),
        ("weights used twice", Toy(lambda net, x: net.b(net.a(net.a(x).roll(1, 2)).roll(1, 2)), a=conv(4, 4),
         b=conv(4, 4)), False),
        ("reader's weights used twice", Toy(lambda net, x: net.b(net.b(net.a(x).roll(1, 2)).relu()), a=conv(4, 4),
         b=conv(4, 4)), False),
    ],
)  # fmt: skip
def test_biases_move_through_what_lets_a_shift_pass(name: str, model: nn.Module, moved: bool) -> None:
    x = image(6, 4, 8, 8) if name == "maximum of a flat and a deep map" else SQUARE
    folded = fold_and_compare(model, x, fixed=name == "maximum of a flat and a deep map")
    assert biases(folded)[0] != moved
    assert biases(folded)[-1] or not moved


# ---- what may not be folded, and what folding leaves alone -------------------------------------------------------


@pytest.mark.parametrize("path", ["", "0", "1.0"])
def test_training_mode_anywhere_is_refused(path: str) -> None:
    model = chain(conv(4, 4), chain(norm(4), nn.ReLU()), nn.Dropout()).eval()
    model.get_submodule(path).training = True
    with pytest.raises(FoldError, match="training mode") as caught:
        fold(model, (X.float(),))
    assert caught.value.where == (path or "Sequential")
    assert caught.value.fix == "model.eval()"


def test_an_obstacle_that_a_module_names_is_refused() -> None:
    class Fading(nn.Module):
        obstacle: str | None = "slope is 0.5"

        def fold_obstacle(self) -> str | None:
            return self.obstacle

        def forward(self, x: Tensor) -> Tensor:
            return x

    model = chain(conv(4, 4), Fading()).eval()
    with pytest.raises(FoldError, match=r"(?s)cannot be folded yet.*where: 1.*slope is 0\.5"):
        fold(model, (X.float(),))
    model[1].obstacle = None
    fold(model, (X.float(),))


def test_a_model_without_a_card_needs_inputs() -> None:
    with pytest.raises(FoldError, match="has no card"):
        fold(conv(4, 4).eval())
    with pytest.raises(ModelError, match="no inputs"):
        fold(conv(4, 4).eval(), ())


@pytest.mark.parametrize(
    "compute",
    [
        lambda net, x: net.c(x) if x.sum() > 0 else x,  # depends on data
        lambda net, x: net.c(x[:, :3]),  # wrong sizes
        lambda net, x: net.c(x.numpy()),
        lambda net, x: [x][3],
        lambda net, x: net.missing(x),
    ],
)
def test_what_cannot_be_captured_is_refused_with_the_reason(compute: Callable[..., Any]) -> None:
    with pytest.raises(ModelError, match="Toy cannot be captured") as caught:
        fold(Toy(compute, c=conv(4, 4)).eval(), (X.float(),))
    assert len(caught.value.why) > 3
    assert "\n" not in caught.value.why


def test_the_model_is_left_as_it_was() -> None:
    tied = conv(4, 4, 3, padding=1)
    model = ready(chain(tied, norm(4), nn.ReLU(inplace=True), conv(4, 4, 3, padding=1), norm(4)))
    model[3].weight = tied.weight
    model.register_buffer("steps", torch.zeros(3, dtype=torch.int64))
    state = copy.deepcopy(model.state_dict())
    strides = [tensor.stride() for tensor in model.state_dict().values()]
    pointers = [tensor.data_ptr() for tensor in model.state_dict().values()]
    gradients = [parameter.requires_grad for parameter in model.parameters()]
    folded = fold(model, (X,), memory_format=torch.channels_last)
    for parameter_ in folded.parameters():
        parameter_.fill_(7.0)
    after = model.state_dict()
    assert list(after) == list(state)
    assert all(torch.equal(after[name], state[name]) for name in state)
    assert [tensor.stride() for tensor in after.values()] == strides
    assert [tensor.data_ptr() for tensor in after.values()] == pointers
    assert [parameter.requires_grad for parameter in model.parameters()] == gradients
    assert not any(module.training for module in model.modules())
    assert not {id(tensor) for tensor in model.parameters()} & {id(tensor) for tensor in folded.parameters()}


def test_nothing_of_the_folded_form_lies_in_the_models_memory() -> None:
    model = ready(Toy(lambda net, x: net.c(x)[:, net.order] * net.scale.relu(), c=conv(4, 4), order=torch.arange(4),
                      scale=parameter(1)))  # fmt: skip
    folded = fold(model, (X,))
    storages = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    assert not storages & {tensor.untyped_storage().data_ptr() for tensor in (*folded.parameters(), *folded.buffers())}
    assert [tensor.dtype for tensor in folded.buffers()] == [torch.int64]


def test_folding_twice_is_folding_once() -> None:
    model = ready(chain(repvgg(), conv(4, 6, 3), norm(6), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3)))
    once = fold(model, (X,))
    twice = fold(once, (X,))
    assert twice.report.rewrites == {}
    assert operators(twice) == operators(once)
    assert torch.equal(once(X), twice(X))


def test_dead_code_and_unused_inputs_do_not_hold_a_fold_back() -> None:
    def compute(net: Any, x: Tensor, unused: Tensor) -> Tensor:
        y = net.c(x)
        y.relu().sum()
        return net.n(y)

    folded = fold_and_compare(Toy(compute, c=conv(4, 6), n=norm(6)), X, X)
    assert operators(folded) == {"conv2d": 1}


# ---- writing in place: torch.export keeps it ---------------------------------------------------------------------


def copy_written(net: Any, x: Tensor) -> Any:
    y = x.clone()
    y.relu_()
    return net.a(y) + net.b(x)


def scaled_then_written(net: Any, x: Tensor) -> Any:
    x = net.a(x)
    y = x * 2
    x.relu_()
    return net.b(y) + x


def written_through_a_view(net: Any, x: Tensor) -> Any:
    x = net.n(net.a(x))
    x[:, 0].fill_(3.0)
    return net.b(x)


def written_after_a_view_was_taken(net: Any, x: Tensor) -> Any:
    x = net.n(net.a(x))
    rows = x.flatten(2)
    x.relu_()
    return net.b(x) + rows.mean()


def written_after_an_alias_was_taken(net: Any, x: Tensor) -> Any:
    x = net.n(net.a(x))
    same = F.dropout(x, 0.5, training=False)
    x.relu_()
    return net.b(same)


def written_and_read_by_its_old_name(net: Any, x: Tensor) -> Any:
    x = net.n(net.a(x))
    before = x.exp()
    x.relu_()
    return net.b(x) + before


def input_written(net: Any, x: Tensor) -> Any:
    x.relu_()
    return net.b(net.n(net.a(x)))


def half_written(net: Any, x: Tensor) -> Any:
    first, second = net.n(net.a(x)).chunk(2, 1)
    second.relu_()
    return net.c(first) + net.c(second)


def promoted(net: Any, x: Tensor) -> Any:
    y = net.n(net.a(x)).float()
    y += x
    return y


def under_no_grad(net: Any, x: Tensor) -> Any:
    with torch.no_grad():
        return net.n(net.a(x)).relu_()


def under_autocast(net: Any, x: Tensor) -> Any:
    with torch.autocast("cpu", enabled=False):
        return net.n(net.a(x)).relu()


@pytest.mark.parametrize(
    "compute",
    [copy_written, scaled_then_written, written_through_a_view, written_after_a_view_was_taken,
     written_after_an_alias_was_taken, written_and_read_by_its_old_name, input_written, half_written, promoted,
     under_no_grad, under_autocast],
)  # fmt: skip
def test_what_a_network_writes_in_place_is_kept(compute: Callable[..., Any]) -> None:
    folded = fold_and_compare(Toy(compute, a=conv(4, 4), b=conv(4, 4), c=conv(2, 2), n=norm(4)), X)
    assert operators(folded)["batch_norm"] == 0
    written = [node for node in calls(folded) if getattr(getattr(node.target, "_schema", None), "is_mutable", False)]
    assert [str(node.target) for node in written] in ([], ["aten.copy_.default"])  # at last, to the caller's input


def test_a_network_that_counts_its_calls_still_counts() -> None:
    def compute(net: Any, x: Tensor) -> Tensor:
        net.calls += 1
        return net.n(net.a(x)) * net.calls

    model = ready(Toy(compute, a=conv(4, 4), n=norm(4), calls=torch.zeros((), dtype=torch.float64)))
    folded = fold(model, (X,))
    assert model.calls == 0
    for _ in range(3):
        assert_same(model, folded, (X,))
    assert operators(folded)["batch_norm"] == 0


# ---- inputs and outputs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "compute",
    [
        lambda net, x: {"logits": net.a(x), "features": (x.relu(), [net.n(net.a(x))])},
        lambda net, x: (net.a(x), None, 3),
        lambda net, x: [net.n(net.a(x))],
        lambda net, x: x,
        lambda net, x: F.dropout(x, 0.5, training=False),
        lambda net, x: (x, x, net.a(x)),
        lambda net, x: (net.a(x), net.s),
    ],
)
def test_outputs_of_any_structure(compute: Callable[..., Any]) -> None:
    model = Toy(compute, a=conv(4, 4), n=norm(4), s=parameter(3))
    folded = fold_and_compare(model, X)
    assert torch.utils._pytree.tree_structure(folded(X)) == torch.utils._pytree.tree_structure(model(X))


def test_several_inputs() -> None:
    model = Toy(lambda net, x, y, z: net.a(x) * y.mean() + net.b(z).mean(), a=conv(4, 4), b=nn.Linear(6, 5))
    folded = fold_and_compare(model, X, TOKENS, ROW)
    with pytest.raises(ModelError, match="3 inputs, given 2"):
        folded(X, TOKENS)


def test_pixels_of_eight_bits_normalised_inside() -> None:
    model = ready(Toy(lambda net, x: net.c((x / 255.0 - net.mean) / net.std), c=conv(3, 4), mean=torch.rand(3, 1, 1),
                      std=torch.rand(3, 1, 1) + 0.5)).float()  # fmt: skip
    x = torch.randint(0, 256, (2, 3, 6, 6), dtype=torch.uint8)
    folded = fold(model, (x,))
    assert_same(model, folded, (x,), 1e-5)
    assert operators(folded) == {"div": 1, "conv2d": 1}


def test_a_network_of_buffers_alone_keeps_their_dtype() -> None:
    model = Toy(lambda net, x: x * (net.s * 2), s=torch.rand(3, 1, 1)).eval()
    x = torch.randint(0, 256, (2, 3, 6, 6), dtype=torch.uint8)
    assert_same(model, fold(model, (x,)), (x,), 1e-6)


def test_constants_of_two_dtypes_keep_theirs() -> None:
    model = Toy(lambda net, x: net.n(net.c(x)) * net.s.relu(), c=conv(4, 4), n=norm(4), s=torch.rand(1).double()).eval()
    x = X.float()
    folded = fold(model, (x,))
    assert model(x).dtype == folded(x).dtype
    assert_same(model, folded, (x,), 1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_models_in_half_precision(dtype: torch.dtype) -> None:
    model = chain(conv(4, 6, 3), norm(6), nn.ReLU(), conv(6, 6), norm(6)).eval().requires_grad_(False)
    randomize(model)
    exact = fold(copy.deepcopy(model).to(dtype).double(), (X,))
    folded = fold(model.to(dtype), (X.to(dtype),))
    assert {parameter_.dtype for parameter_ in folded.parameters()} == {dtype}
    assert operators(folded) == {"conv2d": 2, "relu": 1}
    for mine, rounded in zip(folded.parameters(), exact.parameters(), strict=True):
        assert torch.equal(mine, rounded.to(dtype))  # each constant is rounded once
    assert max_rel(model(X.to(dtype)).double(), folded(X.to(dtype)).double()) < 16 * torch.finfo(dtype).eps


def test_a_batch_that_the_model_fixes_is_kept() -> None:
    model = Toy(lambda net, x: net.n(net.c(x)).reshape(2, 288), c=conv(4, 4), n=norm(4))
    folded = fold_and_compare(model, X, fixed=True)
    assert operators(folded)["batch_norm"] == 0
    with pytest.raises(ModelError, match=r"folded for inputs of \(2, 4, 9, 8\), given \(3, 4, 9, 8\)"):
        folded(image(3, 4, 9, 8))


def test_a_model_that_takes_one_image_at_a_time() -> None:
    folded = fold_and_compare(
        Toy(lambda net, x: net.c(x.view(4, 9, 8)[None])[0].view(6, 72), c=conv(4, 6)), X[:1], fixed=True
    )
    assert operators(folded)["conv2d"] == 1


def test_an_open_batch_is_open_whatever_the_example_had() -> None:
    model = ready(chain(conv(4, 4), norm(4), nn.Flatten(), nn.Linear(288, 3)))
    for batch in (1, 2, 5):
        folded = fold(model, (X[:1].repeat(batch, 1, 1, 1),))
        assert folded.report.batch_is_open
        assert_same(model, folded, (image(7, 4, 9, 8),))


@pytest.mark.parametrize("shape", [(2, 4, 9, 9), (2, 4, 8, 8), (2, 5, 9, 8), (2, 4, 9), (2, 4, 9, 8, 1)])
def test_another_size_is_refused(shape: tuple[int, ...]) -> None:
    folded = fold(ready(chain(conv(4, 4, 3, padding=1, groups=4), nn.AdaptiveAvgPool2d(1))), (X,))
    with pytest.raises(ModelError, match=r"(?s)folded for inputs of \(-1, 4, 9, 8\).*fix: fold at that size"):
        folded(torch.zeros(shape, dtype=torch.float64))


def test_a_copy_that_arranges_memory_for_its_reader_stays() -> None:
    def compute(net: Any, x: Tensor) -> Any:
        y = net.n(net.c(x)).permute(0, 2, 3, 1)
        pairs = torch.view_as_real(torch.view_as_complex(y.reshape(x.shape[0], -1, 2).contiguous()) * 1j)
        return y.contiguous().view(x.shape[0], -1, 4), torch.as_strided(y.contiguous(), (4, 3), (3, 1)), pairs

    fold_and_compare(Toy(compute, c=conv(4, 4), n=norm(4)), X)


# ---- a Folded as a module ----------------------------------------------------------------------------------------


def small() -> nn.Module:
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3))
    body = (conv(4, 4, 3, groups=4, padding=1), norm(4), nn.ReLU(), conv(4, 6), norm(6), nn.LeakyReLU(1.0), conv(6, 6))
    return ready(chain(*body, norm(6), nn.GELU(), conv(6, 6, 3), *head))


@TORCH_WARNS_OF_ITSELF
def test_a_folded_network_can_be_copied_saved_and_converted() -> None:
    model = small()
    folded = fold(model, (X,))
    twin = copy.deepcopy(folded)
    assert torch.equal(folded(X), twin(X))
    file = io.BytesIO()
    torch.save(folded.state_dict(), file)
    file.seek(0)
    for parameter_ in twin.parameters():
        parameter_.zero_()
    twin.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(folded(X), twin(X))
    assert folded(X.float().double()).dtype == torch.float64
    assert twin.float()(X.float()).dtype == torch.float32
    assert max_rel(model(X).float(), twin(X.float())) < 1e-5
    assert not any(parameter_.requires_grad for parameter_ in folded.parameters())


def test_a_cast_inside_does_not_tie_a_folded_network_to_its_dtype() -> None:
    model = Toy(lambda net, x: net.c(x.float()).relu().float(), c=conv(4, 4)).eval()
    folded = fold(model, (X.float(),))
    assert folded.double()(X).dtype == torch.float64


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_every_weight_has_the_memory_format_asked_for(memory_format: torch.memory_format) -> None:
    model = small().to(memory_format=torch.channels_last)
    folded = fold(model, (X,), memory_format=memory_format)
    weights = [tensor for tensor in folded.parameters() if tensor.dim() == 4]
    assert {tuple(weight.shape[2:]) for weight in weights} == {(1, 1), (3, 3)}
    assert all(weight.is_contiguous(memory_format=memory_format) for weight in weights)
    assert not all(weight.is_contiguous() for weight in weights) or memory_format is torch.contiguous_format
    if memory_format is torch.contiguous_format:  # sizes of 1 satisfy both: look at the strides themselves
        assert all(weight.stride() == torch.empty(weight.shape).stride() for weight in weights)
    assert_same(model, folded, (X,))


def test_views_survive_channels_last() -> None:
    model = ready(Toy(lambda net, x: net.b(net.a(x).relu()).view(x.shape[0], 6, -1), a=conv(4, 6, 3), b=conv(6, 6, 3)))
    assert_same(model, fold(model, (X,), memory_format=torch.channels_last), (X,))


# ---- blocks of well-known networks -------------------------------------------------------------------------------


def resnet(net: Any, x: Tensor) -> Tensor:
    out = net.second(F.relu(net.first(x), inplace=True))
    out += net.down(x)
    return F.relu(out, inplace=True)


def squeeze_excite(net: Any, x: Tensor) -> Tensor:
    y = net.depthwise(x)
    weights = F.adaptive_avg_pool2d(y, 1)
    weights = F.hardsigmoid(net.up(F.relu(net.down(weights), inplace=True)), inplace=True)
    return net.point(F.hardswish(y * weights, inplace=True)) + x


def shuffle(net: Any, x: Tensor) -> Tensor:
    unchanged, changed = x.chunk(2, 1)
    out = torch.cat([unchanged, net.branch(changed)], 1)
    batch, channels, height, width = out.shape
    out = out.view(batch, 2, channels // 2, height, width).transpose(1, 2).contiguous()
    return out.view(batch, channels, height, width)


def convnext(net: Any, x: Tensor) -> Tensor:
    y = net.depthwise(x).permute(0, 2, 3, 1)
    y = net.scale * net.down(F.gelu(net.up(net.norm(y))))
    return x + y.permute(0, 3, 1, 2)


def vit(net: Any, x: Tensor) -> Tensor:
    tokens = net.patch(x).flatten(2).transpose(1, 2)
    tokens = torch.cat([net.token.expand(x.shape[0], -1, -1), tokens], 1) + net.position
    return net.head(net.encoder(tokens)[:, 0])


def plain_head(net: Any, x: Tensor) -> Tensor:
    y = net.norm(net.conv(x))
    return net.head(y.view(y.size(0), -1))


def bottleneck(inputs: int, outputs: int, **options: Any) -> nn.Module:
    return chain(conv(inputs, outputs, 3, padding=1, bias=False, **options), norm(outputs))


STRANGERS: dict[str, tuple[nn.Module, int]] = {
    "resnet": (Toy(resnet, first=bottleneck(4, 6, stride=2), second=bottleneck(6, 6),
                   down=chain(conv(4, 6, stride=2, bias=False), norm(6))), 0),
    "mobilenet v3": (Toy(squeeze_excite, depthwise=chain(bottleneck(4, 4, groups=4), nn.Hardswish(inplace=True)),
                         down=conv(4, 2), up=conv(2, 4), point=chain(conv(4, 4, bias=False), norm(4))), 0),
    "shufflenet": (Toy(shuffle, branch=chain(bottleneck(2, 2), nn.ReLU(inplace=True), bottleneck(2, 2, groups=2),
                                             conv(2, 2), norm(2), nn.ReLU(inplace=True))), 0),
    "densenet": (Toy(lambda net, x: net.end(torch.cat([x, net.layer(x)], 1)),
                     layer=chain(norm(4), nn.ReLU(inplace=True), bottleneck(4, 6), nn.ReLU(inplace=True), conv(6, 3)),
                     end=chain(norm(7), nn.ReLU(inplace=True), conv(7, 4, bias=False), nn.AvgPool2d(2))), 2),
    "convnext": (Toy(convnext, depthwise=conv(4, 4, 7, padding=3, groups=4), norm=nn.LayerNorm(4), up=nn.Linear(4, 8),
                     down=nn.Linear(8, 4), scale=parameter(4)), 0),
    "vit": (Toy(vit, patch=conv(4, 8, 2, stride=2), token=parameter(1, 1, 8), position=parameter(1, 17, 8),
                encoder=nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True),
                head=nn.Linear(8, 3)), 0),
    "vgg": (Toy(plain_head, conv=conv(4, 4, 3), norm=norm(4), head=nn.Linear(144, 3)), 0),
    "unet": (Toy(lambda net, x: net.end(torch.cat([y := net.a(x), net.up(net.b(F.max_pool2d(y, 2)))], 1)),
                 a=bottleneck(4, 4), b=bottleneck(4, 6), up=nn.ConvTranspose2d(6, 4, 2, stride=2), end=conv(8, 1)), 0),
}  # fmt: skip


@pytest.mark.parametrize("name", STRANGERS)
def test_blocks_of_well_known_networks(name: str) -> None:
    model, norms_that_stay = STRANGERS[name]
    folded = fold_and_compare(model, image(2, 4, 8, 8))
    assert operators(folded)["batch_norm"] == len(norms_left(folded)) == norms_that_stay
    assert_no_foldable_norm(folded)
    assert "relu_" not in operators(folded)


# ---- random networks ---------------------------------------------------------------------------------------------


class RandomNetwork(nn.Module):
    """Steps drawn by hypothesis; each appends a map, computed from the ones before it."""

    def __init__(self, draw: st.DrawFn) -> None:
        super().__init__()
        self.parts, self.steps = nn.ModuleList(), list[Callable[[list[Tensor]], Tensor]]()
        maps = [torch.empty(2, 4, draw(st.integers(6, 9)), draw(st.integers(6, 9)), device="meta")]
        self.size = maps[0].shape
        for _ in range(draw(st.integers(2, 9))):
            step = self._draw_step(draw, maps)
            maps.append(step(maps))
            self.steps.append(step)
        self.steps.append(self._draw_head(draw, maps[-1].shape[1]))

    def forward(self, x: Tensor) -> Any:
        maps = [x]
        for step in self.steps:
            maps.append(step(maps))
        return maps[-1]

    def _part(self, module: nn.Module) -> int:
        self.parts.append(module.to("meta").eval())
        return len(self.parts) - 1

    def _draw_step(self, draw: st.DrawFn, maps: list[Tensor]) -> Callable[[list[Tensor]], Tensor]:
        i = draw(st.integers(max(0, len(maps) - 3), len(maps) - 1))
        alike = [k for k, other in enumerate(maps) if other.shape == maps[i].shape]
        aligned = [k for k, other in enumerate(maps) if other.shape[2:] == maps[i].shape[2:]]
        j = draw(st.sampled_from(alike))
        kind = draw(st.sampled_from(["conv", "conv", "conv", "norm", "pointwise", "act", "pool", "cat", "add", "max",
                                     "difference", "roll", "scale"]))  # fmt: skip
        channels, height, width = maps[i].shape[1:]
        if kind in ("conv", "pointwise"):
            return self._draw_conv(draw, maps[i], i, pointwise=kind == "pointwise")
        if kind in ("norm", "scale"):
            part = norm(channels) if kind == "norm" else Toy(lambda net, x: x * net.s, s=parameter(channels, 1, 1))
            p = self._part(part)
            return lambda maps: self.parts[p](maps[i])
        if kind == "act":
            act = draw(st.sampled_from([F.relu, F.gelu, torch.Tensor.clone, lambda x: F.leaky_relu(x, 1.0)]))
            return lambda maps: act(maps[i])
        if kind == "pool" and min(height, width) > 2:
            pool = draw(st.sampled_from([nn.MaxPool2d(2, 1), nn.MaxPool2d(3, 2, 1), nn.AvgPool2d(2, 1),
                                         nn.AdaptiveMaxPool2d(2), nn.AdaptiveAvgPool2d(2)]))  # fmt: skip
            return lambda maps: pool(maps[i])
        if kind == "cat" and channels < 24:
            k = draw(st.sampled_from(aligned))
            return lambda maps: torch.cat([maps[i], maps[k]], 1)
        if kind == "add":
            alpha = draw(st.sampled_from([1, 1, 2]))
            return lambda maps: torch.add(maps[i], maps[j], alpha=alpha)
        if kind == "max":
            return lambda maps: torch.maximum(maps[i], maps[j])
        if kind == "difference":
            return lambda maps: maps[i] - maps[j]
        shift, axis = draw(st.integers(1, 3)), draw(st.integers(1, 3))
        return lambda maps: torch.roll(maps[i], shift, axis)

    def _draw_conv(self, draw: st.DrawFn, like: Tensor, i: int, *, pointwise: bool) -> Callable[[list[Tensor]], Tensor]:
        channels, size = like.shape[1], 1 if pointwise else draw(st.integers(1, min(3, *like.shape[2:])))
        groups = draw(st.sampled_from([g for g in (1, 2, channels) if channels % g == 0]))
        outputs = groups * draw(st.integers(1, max(1, 8 // groups)))
        options = {} if pointwise else {"stride": draw(st.integers(1, 2)), "padding": draw(st.integers(0, 1))}
        layer: nn.Module = conv(channels, outputs, size, groups=groups, bias=draw(st.booleans()), **options)
        ends = {"norm": [norm(outputs)], "relu": [norm(outputs), nn.ReLU(inplace=True)], "none": []}
        p = self._part(chain(layer, *ends[draw(st.sampled_from(list(ends)))]))
        return lambda maps: self.parts[p](maps[i])

    def _draw_head(self, draw: st.DrawFn, channels: int) -> Callable[[list[Tensor]], Tensor]:
        kind = draw(st.sampled_from(["none", "mean", "flat mean", "linear"]))
        p = self._part(chain(nn.Linear(channels, 3), nn.BatchNorm1d(3)))
        heads: dict[str, Callable[[list[Tensor]], Tensor]] = {
            "none": lambda maps: maps[-1],
            "mean": lambda maps: F.adaptive_avg_pool2d(maps[-1], 1).flatten(1),
            "flat mean": lambda maps: maps[-1].mean((2, 3)),
            "linear": lambda maps: self.parts[p](maps[-1].mean((2, 3), keepdim=True).flatten(1)),
        }
        return heads[kind]


def norms_left(folded: Folded) -> list[Unfolded]:
    return [norm for norm in folded.report.unfolded if norm.kind == "norm"]


def assert_no_foldable_norm(folded: Folded) -> None:
    for node in calls(folded):
        if node.target is torch.ops.aten.batch_norm.default:
            source = node.args[0]
            assert not (source.target in LINEAR and len(source.users) == 1), folded.net.graph
            takers = [user.target is torch.ops.aten.conv2d.default and user.args[4] == [0, 0] for user in node.users]
            assert not (takers and all(takers)), folded.net.graph


@given(st.data())
@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_random_networks(data: st.DataObject) -> None:
    network = RandomNetwork(data.draw).to_empty(device="cpu")
    for tensor in network.parameters():
        nn.init.normal_(tensor)
    x = image(*network.size)
    folded = fold_and_compare(network, x)
    assert_no_foldable_norm(folded)
    assert len(norms_left(folded)) == operators(folded)["batch_norm"]
    before, after = count(network, x), count(folded, x)
    assert after.macs <= before.macs
    assert after.layers <= before.layers
