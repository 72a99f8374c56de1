"""Biases: how far each moves towards the output, and what holds it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from support.fold_cases import conv
from support.nets import Toy, biases, fold_and_compare, image


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


@pytest.mark.parametrize("operator", [torch.maximum, torch.sub])
def test_two_biases_do_not_pass_an_operator_together(operator: Callable[..., Tensor]) -> None:
    model = Toy(
        lambda net, x: net.c(operator(net.a(x).roll(1, 3), net.b(x).roll(1, 2))),
        a=nn.Conv2d(3, 4, 3),
        b=nn.Conv2d(3, 4, 3),
        c=nn.Conv2d(4, 2, 1),
    )
    fold_and_compare(model, image(2, 3, 7, 8))


def test_the_bias_of_a_layer_in_a_concatenation_is_kept() -> None:
    model = Toy(lambda net, x: net.c(torch.cat((x, net.a(x)), 1)), a=nn.Conv2d(3, 3, 1, groups=3), c=nn.Conv2d(6, 2, 1))
    fold_and_compare(model, image(2, 3, 7, 8))
