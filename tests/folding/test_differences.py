"""Maxima, minima and differences over rolls, and the differences that go into the weights reading them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edgevit.folding import fold
from support.fold_cases import check, conv
from support.nets import Toy, image

Shifts = int | tuple[int, ...]  # of torch.roll, and the axes that they go along


def relative(x: Tensor, *rolls: tuple[Shifts, Shifts]) -> Tensor:
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
        (lambda x: torch.maximum(torch.sub(x, x.exp(), alpha=2), x - x.sigmoid()), (2, 3, 4, 4), {"sub": 1}),
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
        (lambda net, x: net.c(torch.cat([x, torch.sub(x, x.exp(), alpha=2)], 1)), {"sub": 0}),
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
    parts: dict[str, nn.Module] = {"c": conv(8, 3), "p": conv(8, 3, 3, padding=1), "three": conv(12, 3)}
    parts |= {"g": conv(8, 4, groups=2), "same": conv(8, 8, 3), "line": nn.Linear(8, 3), "wide": nn.Linear(16, 3)}
    check(Toy(compute, **parts), (image(2, 4, 8, 8),), expected)
