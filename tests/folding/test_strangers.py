"""Networks that have never heard of edgevit fold completely; what must not be folded is left and reported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from edgevit.count import count
from edgevit.folding import Folded
from support import strangers
from support.nets import calls, fold_and_compare, image, operators

SIZES, GROUPS = st.sampled_from([1, 3, 5, 7]), st.sampled_from([1, 2, 4])
DILATIONS, STRIDES, BOOLS = st.integers(1, 3), st.integers(1, 2), st.booleans()
some_examples = settings(
    deadline=None, max_examples=15, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


def check(model: nn.Module, x: Tensor, **expected: int) -> Folded:
    """Fold it with proof; the operators that are left are these and no others, and nothing is reported."""
    folded = fold_and_compare(model, x)
    assert operators(folded) == expected, folded.net.graph
    assert folded.report.unfolded == ()
    assert count(folded, x).macs <= count(model, x).macs
    return folded


@given(SIZES, STRIDES, GROUPS, DILATIONS, BOOLS, BOOLS)
@some_examples
def test_repvgg(size: int, stride: int, groups: int, dilation: int, bias: bool, grows: bool) -> None:
    options: dict[str, Any] = {"stride": stride, "groups": groups, "dilation": dilation, "bias": bias}
    first = strangers.RepVGG(8, 16 if grows else 8, size, **options)
    second = strangers.RepVGG(16 if grows else 8, 8, size, **options)
    folded = check(nn.Sequential(first, second), image(2, 8, 13, 11), conv2d=2, relu=2)
    assert [node.args[6] for node in calls(folded) if len(node.args) == 7] == [groups] * 2


@given(SIZES, STRIDES, st.sampled_from([1, 2, 8]), st.integers(1, 4), BOOLS)
@some_examples
def test_mobileone(size: int, stride: int, groups: int, branches: int, bias: bool) -> None:
    options: dict[str, Any] = {"branches": branches, "bias": bias}
    mixer = strangers.MobileOne(8, 8, size, stride=stride, groups=groups, **options)
    model = nn.Sequential(mixer, nn.ReLU(), strangers.MobileOne(8, 12, 1, stride=1, groups=1, **options), nn.ReLU())
    check(model, image(2, 8, 9, 8), conv2d=2, relu=2)


@given(st.sampled_from([3, 5, 7]), BOOLS)
@some_examples
def test_repvit(size: int, squeeze: bool) -> None:
    model = nn.Sequential(strangers.RepViT(8, size, squeeze=squeeze), strangers.RepViTHead(8, 5))
    gate = {"mean": 1, "relu": 1, "sigmoid": 1, "mul": 1, "conv2d": 5} if squeeze else {"conv2d": 3}
    # the last 1x1 comes after the average of what it reads, and so there is one of the shortcut, too
    remaining = {"gelu": 1, "add": 1, "adaptive_avg_pool2d": 2, "flatten": 1, "linear": 1} | gate
    check(model, image(2, 8, 9, 8), **remaining)


@given(st.sampled_from([3, 5, 7]), st.integers(1, 3))
@some_examples
def test_fastvit(size: int, branches: int) -> None:
    model = strangers.FastViT(8, size, branches=branches)
    # position and the shortcut beside it are one kernel; the next sum of kernels cannot take it, it is read twice
    check(model, image(2, 8, 11, 9), conv2d=5, gelu=2, add=1)


@given(st.sampled_from([3, 5, 7]), STRIDES, GROUPS, DILATIONS)
@some_examples
def test_acnet(size: int, stride: int, groups: int, dilation: int) -> None:
    model = strangers.ACNet(8, 12, size, stride=stride, groups=groups, dilation=dilation)
    check(model, image(2, 8, 13, 11), conv2d=1, relu=1)


@given(SIZES, GROUPS, BOOLS, BOOLS)
@some_examples
def test_chains_of_a_pointwise_and_another_layer(size: int, groups: int, first_is_pointwise: bool, bias: bool) -> None:
    """1x1 then kxk is exact only where the first has no bias to lose at the border, or nothing is padded."""
    point = strangers.conv_bn(8, 8, 1, bias=bias)
    wide = nn.Conv2d(8, 8, size, groups=groups, bias=bias)
    order = (point, wide) if first_is_pointwise else (wide, nn.BatchNorm2d(8), point)
    folded = fold_and_compare(nn.Sequential(*order, nn.ReLU()), image(2, 8, 9, 8))
    merged_macs, macs = 64 * size**2, 64 + 64 * size**2 // groups
    assert operators(folded) == {"conv2d": 1 if merged_macs <= macs else 2, "relu": 1}


def test_a_pointwise_layer_without_bias_goes_into_a_padded_one() -> None:
    check(nn.Sequential(nn.Conv2d(8, 8, 1, bias=False), nn.Conv2d(8, 8, 3, padding=1)), image(2, 8, 9, 8), conv2d=1)


def test_a_pointwise_layer_with_a_bias_does_not() -> None:
    check(nn.Sequential(nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 3, padding=1)), image(2, 8, 9, 8), conv2d=2)


@given(GROUPS, BOOLS)
@some_examples
def test_transposed_convolutions(groups: int, bias: bool) -> None:
    model = strangers.decoder((8, 4, 12), groups=groups, bias=bias)
    check(model, image(2, 8, 5, 4), conv_transpose2d=2, relu=2)


@pytest.mark.parametrize(
    ("model", "x", "remaining"),
    [
        (nn.Sequential(nn.Conv1d(4, 6, 3, padding=1), nn.BatchNorm1d(6)), image(2, 4, 9), {"conv1d": 1}),
        (nn.Sequential(nn.Conv1d(4, 6, 3, padding="same", bias=False), nn.BatchNorm1d(6)), image(2, 4, 9),
         {"conv1d": 1}),
        (nn.Sequential(nn.Conv3d(4, 6, 3, groups=2), nn.BatchNorm3d(6)), image(2, 4, 5, 6, 7), {"conv3d": 1}),
        (nn.Sequential(nn.ConvTranspose1d(4, 6, 3, groups=2), nn.BatchNorm1d(6)), image(2, 4, 9),
         {"conv_transpose1d": 1}),
        (nn.Sequential(nn.ConvTranspose3d(4, 6, 3, 2), nn.BatchNorm3d(6)), image(2, 4, 3, 4, 5),
         {"conv_transpose3d": 1}),
    ],
    ids=["line", "line, padded by name", "volume", "line, transposed", "volume, transposed"],
)  # fmt: skip
def test_convolutions_of_other_ranks(model: nn.Module, x: Tensor, remaining: dict[str, int]) -> None:
    check(model, x, **remaining)


def test_adapters_of_low_rank() -> None:
    check(strangers.LowRank(8, 2, 4.0), image(2, 5, 8), linear=1)


def test_affine_maps_and_scales_around_token_mixing() -> None:
    folded = fold_and_compare(strangers.Mixer(5, 8), image(2, 5, 8))
    assert operators(folded)["mul"] == 1  # ahead of the tokens' layer, whose inputs are tokens and not channels
    assert operators(folded)["linear"] == 3


def test_a_transformer_block() -> None:
    """No scale and shift of a norm, no adapter, no layer scale, no scale of attention is left."""
    folded = check(
        strangers.Encoder(8, 2), image(2, 5, 8), layer_norm=2, linear=6, gelu=1, add=2,
        scaled_dot_product_attention=1, unflatten=3, transpose=4, flatten=1,
    )  # fmt: skip
    for node in calls(folded):
        if node.target is torch.ops.aten.layer_norm.default:
            assert node.args[2:4] == (None, None)
        if node.target is torch.ops.aten.scaled_dot_product_attention.default:
            assert node.kwargs == {"scale": 1.0}


# ---- what must not be folded -------------------------------------------------------------------------------------


class Twice(nn.Module):
    """One layer called twice, the second time ahead of a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.norm(self.layer(torch.relu(self.layer(x))))
        return result


class Apart(nn.Module):
    """Two branches of one map that one kernel could replace only at a higher cost."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Conv2d(12, 12, 7, padding=3, groups=12)
        self.dense = nn.Conv2d(12, 12, 1)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.wide(x) + self.dense(x)
        return result


class Askew(nn.Module):
    """Two branches whose pixels do not meet."""

    def __init__(self) -> None:
        super().__init__()
        self.near, self.far = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=2, dilation=2)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.near(x) + self.far(x)
        return result


def line_of(model: type[nn.Module]) -> str:
    """Return the first line of a model's forward, as a report names it."""
    return f"{Path(__file__).name}:{model.forward.__code__.co_firstlineno + 1}"


KEPT: dict[str, tuple[nn.Module, Any]] = {
    "a norm after an activation": (
        nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU(), nn.BatchNorm2d(4), nn.Sigmoid()),
        ("norm", "2", "relu.default before it cannot take it"),
    ),
    "a module used twice": (Twice(), ("norm", "norm", "serve another call too")),
    "a norm ahead of a zero-padded layer": (
        nn.Sequential(nn.ReLU(), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, padding=1)),
        ("norm", "1", "pads with zeros that the shift does not reach"),
    ),
    "branches that cost more as one": (Apart(), ("branches", line_of(Apart), "one kernel would cost 7056")),
    "branches on two grids": (Askew(), ("branches", line_of(Askew), "do not meet on one grid")),
}


@pytest.mark.parametrize("name", KEPT)
def test_what_must_not_be_folded_is_left_and_reported(name: str) -> None:
    model, (kind, module, reason) = KEPT[name]
    channels = 12 if isinstance(model, Apart) else 4
    folded = fold_and_compare(model, image(2, channels, 9, 8))
    (unfolded,) = folded.report.unfolded
    assert (unfolded.kind, unfolded.module) == (kind, module)
    assert reason in unfolded.reason
    assert folded.report.summary.endswith("1 left")
