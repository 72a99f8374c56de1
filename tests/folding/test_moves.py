"""Norms behind moves, selections, resizing and joints reach the layers that the numbers come from, or stay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from support.fold_cases import TOKENS, X, case, chain, check, conv, norm, parameter
from support.nets import Toy, fold_and_compare, image, operators, ready


class Resize(nn.Module):
    """Interpolation to another size."""

    def __init__(self, mode: str, scale: float = 2.0, **options: Any) -> None:
        super().__init__()
        self.options = {"mode": mode, "scale_factor": scale, **options}

    def forward(self, x: Tensor) -> Tensor:
        resized: Tensor = F.interpolate(x, **self.options)
        return resized


def tokens(net: Any, x: Tensor) -> Any:
    return net.a(x).flatten(2).transpose(1, 2)


def two_heads(net: Any, x: Tensor) -> Any:
    first, second = net.a(x).chunk(2, 1)
    return net.n(first).relu() + net.m(second).sigmoid()


def window_tokens(net: Any, x: Tensor) -> Any:
    y = net.a(x)
    batch, tokens_, channels = y.shape
    return net.n(y.reshape(batch * tokens_, channels)).view(batch, tokens_, channels)


GONE = [
    case("flatten to one row", chain(conv(4, 6, (9, 8)), nn.Flatten(1), nn.BatchNorm1d(6)), X, batch_norm=0),
    case("flatten to tokens", chain(conv(4, 6), nn.Flatten(2), nn.BatchNorm1d(6)), X, batch_norm=0),
    case("linear, transposed", Toy(lambda net, x: net.n(net.a(x).transpose(1, 2)), a=nn.Linear(6, 5),
         n=nn.BatchNorm1d(5)), TOKENS, batch_norm=0),
    case("linear, permuted to a map", Toy(lambda net, x: net.n(net.a(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)),
         a=nn.Linear(4, 6), n=norm(6)), X, batch_norm=0),
    case("LeViT's linear layer", Toy(lambda net, x: net.n((y := net.a(x)).flatten(0, 1)).reshape_as(y),
         a=nn.Linear(6, 5, bias=False), n=nn.BatchNorm1d(5)), TOKENS, batch_norm=0),
    case("tokens viewed by their sizes", Toy(window_tokens, a=nn.Linear(6, 5), n=nn.BatchNorm1d(5)), TOKENS,
         batch_norm=0),
    case("bilinear", chain(conv(4, 6), Resize("bilinear"), norm(6)), X, batch_norm=0),
    case("bilinear, aligned", chain(conv(4, 6), Resize("bilinear", align_corners=True), norm(6)), X, batch_norm=0),
    case("bicubic, smaller, antialiased", chain(conv(4, 6), Resize("bicubic", 0.7, antialias=True), norm(6)), X,
         batch_norm=0),
    case("nearest", chain(conv(4, 6), Resize("nearest"), norm(6)), X, batch_norm=0),
    case("nearest, exact", chain(conv(4, 6), Resize("nearest-exact", 1.5), norm(6)), X, batch_norm=0),
    case("linear in one axis", chain(nn.Conv1d(5, 6, 3), Resize("linear"), nn.BatchNorm1d(6)), TOKENS,
         batch_norm=0),
    case("pixel shuffle", chain(conv(4, 24), nn.PixelShuffle(2), norm(6)), X, batch_norm=0),
    case("pixel unshuffle under a scale for all", Toy(lambda net, x: F.pixel_unshuffle(net.a(x), 2) * 3,
         a=conv(4, 6)), image(2, 4, 8, 8), mul=0),
    case("channel shuffle", chain(conv(4, 6), nn.ChannelShuffle(3), norm(6)), X, batch_norm=0),
    case("transposed convolution, flattened", chain(nn.ConvTranspose2d(4, 6, 2, groups=2), nn.Flatten(2),
         nn.BatchNorm1d(6)), X, batch_norm=0),
    case("average pool", chain(conv(4, 6), nn.AvgPool2d(2), norm(6)), X, batch_norm=0),
    case("maximum, increasing", Toy(lambda net, x: F.max_pool2d(net.a(x), 2) * 2 + 1, a=conv(4, 6)), X, mul=0, add=0),
    case("joined", Toy(lambda net, x: net.n(torch.cat((net.a(x), net.b(x.relu())), 1)), a=conv(4, 6), b=conv(4, 3),
         n=norm(9)), X, batch_norm=0),
    case("joined along the pixels", Toy(lambda net, x: net.n(torch.cat((net.a(x), net.b(x.relu())), 2)),
         a=conv(4, 6), b=conv(4, 6), n=norm(6)), X, batch_norm=0),
    case("halves with a norm each", Toy(two_heads, a=conv(4, 6), n=norm(3), m=norm(3)), X, batch_norm=0),
    case("slice", Toy(lambda net, x: net.n((y := net.a(x))[:, 2:]) + y[:, :1], a=conv(4, 6), n=norm(4)), X,
         batch_norm=0),
    case("scale of tokens' channels", Toy(lambda net, x: tokens(net, x) * net.s, a=conv(4, 6), s=parameter(6)), X,
         mul=0),
    case("scaled queries", Toy(lambda net, x: (y := net.a(x).unflatten(-1, (3, 2, 4)))[:, :, 0] * 0.5 + y[:, :, 1],
         a=nn.Linear(6, 24)), TOKENS, mul=0),
    case("rolled", Toy(lambda net, x: net.n(net.a(x).roll((1, 2), (2, 3))), a=conv(4, 6), n=norm(6)), X, batch_norm=0),
    case("instance norm with statistics", chain(conv(4, 6), nn.InstanceNorm2d(6, affine=True,
         track_running_stats=True)), X, batch_norm=0, instance_norm=0),
]  # fmt: skip


@pytest.mark.parametrize(("model", "inputs", "expected"), GONE)
def test_norms_reach_the_layer_through_moves(model: nn.Module, inputs: Any, expected: dict[str, int]) -> None:
    check(model, inputs, expected)


STAY: dict[str, tuple[Callable[..., Any], dict[str, nn.Module], Tensor]] = {
    "a channel of the norm has several layers' channels": (
        lambda net, x: net.n(net.a(x).flatten(1)), {"a": conv(4, 6), "n": nn.BatchNorm1d(6 * 72)}, X,
    ),
    "counted padding": (
        lambda net, x: net.n(F.avg_pool2d(net.a(x), 3, 1, 1)), {"a": conv(4, 6), "n": norm(6)}, X,
    ),
    "zeros around it": (lambda net, x: net.n(F.pad(net.a(x), (1, 1, 1, 1))), {"a": conv(4, 6), "n": norm(6)}, X),
    "maximum under a falling map": (
        lambda net, x: F.max_pool2d(net.a(x), 2) * -2 + 1, {"a": conv(4, 6)}, X,
    ),
    "the numbers are read before the norm": (
        lambda net, x: net.n((y := net.a(x)).flatten(2)).relu().sum() + y.sigmoid(),
        {"a": conv(4, 6), "n": nn.BatchNorm1d(6)}, X,
    ),
    "the rows are read through another slice": (
        lambda net, x: net.n((y := net.a(x))[:, 2:]) + y[:, 1:5].relu(), {"a": conv(4, 6), "n": norm(4)}, X,
    ),
    "two norms of one half": (
        lambda net, x: net.n((y := net.a(x))[:, :3]) + net.m(y[:, :3]).relu(),
        {"a": conv(4, 6), "n": norm(3), "m": norm(3)}, X,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", STAY)
def test_norms_that_no_layer_can_take_stay(name: str) -> None:
    compute, modules, inputs = STAY[name]
    folded = fold_and_compare(ready(Toy(compute, **modules)), inputs)
    left = operators(folded)
    assert left.get("batch_norm", 0) + left.get("mul", 0) > 0


def test_layer_called_several_times_takes_an_equal_norm_behind_every_call() -> None:
    body = nn.Sequential(conv(4, 6, 3, bias=False), norm(6), nn.ReLU())
    siamese = Toy(lambda net, x: net.body(x) - net.body(x.flip(3)) * net.body(x.roll(1, 2)), body=body)
    folded = fold_and_compare(ready(siamese), X)
    assert operators(folded)["conv2d"] == 3
    assert "batch_norm" not in operators(folded)
    assert folded.report.unfolded == ()
    assert sum(tensor.numel() for tensor in folded.parameters()) == 6 * 4 * 9 + 6


def test_layer_called_several_times_under_other_norms_stays_and_says_so() -> None:
    model = ready(Toy(lambda net, x: net.n(net.a(x)) + net.m(net.a(x.flip(3))), a=conv(4, 6), n=norm(6), m=norm(6)))
    folded = fold_and_compare(model, X)
    assert operators(folded)["batch_norm"] == 2
    assert {left.module for left in folded.report.unfolded} == {"n", "m"}


SHAPES: dict[str, tuple[Callable[[Tensor], Tensor], int]] = {
    "tokens": (lambda x: x.flatten(2).transpose(1, 2), -1),
    "channels last": (lambda x: x.permute(0, 2, 3, 1), -1),
    "row of tokens": (lambda x: x.flatten(2).transpose(1, 2).flatten(0, 1), -1),
    "resized": (lambda x: F.interpolate(x, scale_factor=2.0, mode="bilinear"), 1),
    # Moves ahead of it may leave an odd number of channels.
    "shuffled": (lambda x: x if x.shape[1] % 2 else F.channel_shuffle(x, 2), 1),
    "half": (lambda x: x[:, ::2], 1),
}


@given(st.lists(st.sampled_from(sorted(SHAPES)), min_size=1, max_size=3), st.integers(0, 1000), st.booleans())
@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
def test_any_sequence_of_moves_under_a_scale_is_exact(names: list[str], seed: int, joined: bool) -> None:
    torch.manual_seed(seed)

    def compute(net: Any, x: Tensor) -> Any:
        y = net.a(x)
        y = torch.cat((y, net.b(x.sin())), 1) if joined else y
        for name in names:
            y = SHAPES[name][0](y) if y.dim() == 4 else y
        return y * net.s[: y.shape[-1]] + 0.5 if y.shape[-1] <= 64 else y * 2

    model = Toy(compute, a=conv(4, 8), b=conv(4, 8), s=parameter(64))
    fold_and_compare(ready(model), X)


def test_equal_reshapes_of_other_shapes_stay_ahead_of_arithmetic() -> None:
    """A column and a row are flattened alike, and would become a table together."""

    def compute(net: Any, x: Tensor) -> Any:
        column, row = net.a(x.unsqueeze(2)), net.b(x.unsqueeze(1))
        return column.flatten(1) + row.flatten(1)

    fold_and_compare(Toy(compute, a=nn.Linear(1, 1), b=nn.Linear(6, 6)), image(2, 6))


@pytest.mark.parametrize("operator", [torch.add, torch.sub, torch.mul])
def test_reshapes_to_other_shapes_stay_ahead_of_arithmetic(operator: Callable[..., Tensor]) -> None:
    """Two maps of one shape become a column and a row, so that their result is a table."""

    def compute(net: Any, x: Tensor) -> Any:
        return operator(net.a(x).reshape(x.shape[0], 4, 1), net.b(x).reshape(x.shape[0], 1, 4))

    folded = fold_and_compare(Toy(compute, a=nn.Linear(6, 4), b=nn.Linear(6, 4)), image(2, 6))
    assert operators(folded)["reshape"] == 2
