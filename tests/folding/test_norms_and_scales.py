"""Norms, scales and shifts beside a linear layer: which its weights take, and which stay and why."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgevit.folding import fold
from support.fold_cases import ROW, TOKENS, X, case, chain, check, conv, norm, parameter
from support.nets import Toy, fold_and_compare, image, operators


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
    "a number less it": (lambda net, x: 1.5 - x, {}),
    "a constant less it": (lambda net, x: net.s - x, {"s": parameter(6, 1, 1)}),
    "scaled sum": (lambda net, x: torch.add(x, net.s, alpha=2), {"s": parameter(6, 1, 1)}),
    "scaled difference": (lambda net, x: torch.sub(x, net.s, alpha=0.5), {"s": parameter(6, 1, 1)}),
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


@pytest.mark.parametrize(("layer", "x"), [(nn.Linear(4, 5), image(3, 4)), (conv(4, 5), X)], ids=["tokens", "a map"])
def test_a_quotient_of_zero_stays_a_quotient(layer: nn.Module, x: Tensor) -> None:
    """Its reciprocal is no weight: infinity times zero is no number."""
    divisor = parameter(5) if x.dim() == 2 else parameter(5, 1, 1)
    with torch.no_grad():
        divisor[2] = 0.0
    model = Toy(lambda net, x: torch.sigmoid(net.layer(x) / net.divisor), layer=layer, divisor=divisor).double().eval()
    folded = fold(model, (x,))
    assert "aten.div.Tensor" in {str(node.target) for node in folded.net.graph.nodes}
    assert torch.allclose(folded(x), model(x))
