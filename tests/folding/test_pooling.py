"""Pooling: adaptive maxima as plain ones, ReLU behind its pool, depthwise layers and means as one sum."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgevit.count import count
from edgevit.folding import fold, prove
from support.fold_cases import X, case, chain, check, conv
from support.nets import Toy, fold_and_compare, image, operators, ready


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


def beside_many(compute: Callable[[Any, Tensor], Tensor], layer: nn.Conv2d, width: int = 600) -> nn.Module:
    """Return a network whose weights are mostly those of another output, so that some more do not matter."""
    return Toy(lambda net, x: (compute(net, x), net.many(x)), c=layer, many=conv(4, width, 6))


@pytest.mark.parametrize(
    ("model", "inputs", "expected"),
    [
        case("mean, axes kept", beside_many(lambda net, x: net.c(x).mean((2, 3), True),
                                            conv(4, 4, 3, padding=1, groups=4)), X, mean=0, conv2d=2, flatten=0),
        case("mean, axes dropped", beside_many(lambda net, x: net.c(x).mean((-1, -2)), conv(4, 4, 3, groups=4)), X,
             mean=0, flatten=1),
        case("adaptive", beside_many(lambda net, x: F.adaptive_avg_pool2d(net.c(x), 1),
                                     conv(4, 8, 5, padding=4, groups=4, dilation=2)), X, adaptive_avg_pool2d=0),
        case("larger than the map", chain(conv(4, 4, 7, padding=3, groups=4), nn.AdaptiveAvgPool2d((1, 1))),
             image(2, 4, 3, 2), adaptive_avg_pool2d=0),
        case("few other weights", chain(conv(4, 4, 3, groups=4), nn.AdaptiveAvgPool2d(1)), X, adaptive_avg_pool2d=1),
        case("a large map", beside_many(lambda net, x: net.c(x).mean((2, 3)), conv(4, 4, 3, groups=4), width=3000),
             image(2, 4, 33, 32), mean=1),
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
        case("strided, many weights", beside_many(lambda net, x: net.c(x).mean((2, 3)),
                                                  conv(4, 4, 3, groups=4, stride=2)), X, mean=1),
        case("not depthwise, many weights", beside_many(lambda net, x: net.c(x).mean((2, 3)),
                                                        conv(4, 4, 3, groups=2)), X, mean=1),
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


@pytest.mark.parametrize("with_norm", [False, True], ids=["bare", "with a norm"])
def test_a_mean_over_a_large_map_adds_no_weights(with_norm: bool) -> None:
    """As a weighted sum this network would have 805,258 weights instead of 3,082."""
    layers = [conv(3, 64, 3, stride=2, padding=1), nn.ReLU(), conv(64, 64, 3, padding=1, groups=64)]
    model = ready(chain(*layers, *[nn.BatchNorm2d(64)] * with_norm, nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                        nn.Linear(64, 10))).float()  # fmt: skip
    x = image(1, 3, 224, 224, dtype=torch.float32)
    assert count(fold(model, (x,)), x).params <= 3082
    assert prove(model, (x,)).passed


PARTS_OF_LISTS: dict[str, Callable[[Any], Any]] = {
    "unbind": lambda y: y.unbind(2)[1],
    "split": lambda y: y.split(3, 2)[0],
    "sorted values": lambda y: y.sort(2).values,
    "maximum and its index": lambda y: y.max(2).values,
}


@pytest.mark.parametrize("name", PARTS_OF_LISTS)
def test_a_mean_over_a_part_of_several_results_folds(name: str) -> None:
    """What such an operator gives is a list, which has no shape."""
    divided = PARTS_OF_LISTS[name]
    model = Toy(lambda net, x: divided(net.c(x)).mean(-1), c=conv(4, 4, 3))
    assert operators(fold_and_compare(model, X))["conv2d"] == 1
