"""Sums in 16 bits: exact where they fit, clipped where they do not, and never clipped with weights of 7 bits."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from edgevit.folding import Folded, fold
from edgevit.quantization import CalibrationData, Dialect, quantize
from edgevit.quantization.saturation import Saturating
from edgevit.records.quantization import QuantizationRequest
from edgevit_runtime.dialect import UNSATURATED_WEIGHT
from support.fold_cases import chain

# Of both signs, so that what pads is a zero point above 0.
X = torch.rand(2, 6, 9, 7, generator=torch.Generator().manual_seed(1)) - 0.4


def simulation(model: nn.Module, largest: int, x: Tensor = X) -> Folded:
    data = CalibrationData([(x,)], [(x,)], "noise")
    request = QuantizationRequest(floor_db=-50.0, absorbs=False, corrects=False)
    return quantize(fold(model.eval(), (x,)), data, Dialect(largest_weight=largest), request).simulation


def outputs(computed: object) -> Tensor:
    (leaf,) = torch.utils._pytree.tree_leaves(computed)
    assert isinstance(leaf, Tensor)
    return leaf


@settings(max_examples=15, deadline=None)
@given(
    st.sampled_from([1, 2, 3, 6]),
    st.sampled_from([1, 2, 3]),
    st.sampled_from([1, 2]),
    st.sampled_from([1, 2]),
    st.booleans(),
)
def test_weights_of_seven_bits_are_never_clipped(groups: int, side: int, stride: int, far: int, bias: bool) -> None:
    """Then the sums are those of the simulation, for any geometry."""
    torch.manual_seed(groups + 10 * side)
    conv = nn.Conv2d(6, 12, side, stride=stride, padding=side // 2, dilation=far, groups=groups, bias=bias)
    net = simulation(chain(conv, nn.ReLU(), nn.Conv2d(12, 5, 1)), UNSATURATED_WEIGHT)
    clipping = Saturating(net)
    expected, computed = net(X), outputs(clipping(X))
    assert clipping.clipped == 0
    step = float(expected.abs().max()) / 100
    assert float((expected - computed).abs().max()) <= step, "but for a number between two steps"


def test_linear_layers_over_tokens_are_added_in_pairs_too() -> None:
    torch.manual_seed(0)
    tokens = torch.rand(2, 5, 9, generator=torch.Generator().manual_seed(2))
    net = simulation(chain(nn.Linear(9, 16), nn.ReLU(), nn.Linear(16, 3)), UNSATURATED_WEIGHT, tokens)
    assert torch.allclose(net(tokens), outputs(Saturating(net)(tokens)), atol=float(net(tokens).abs().max()) / 100)


ONES = torch.ones(1, 2, 3, 3)


def of_equal_weights(weight: float) -> nn.Module:
    conv = nn.Conv2d(2, 1, 1, bias=False)
    with torch.no_grad():
        conv.weight.fill_(weight)
    return chain(conv)


@pytest.mark.parametrize(("weight", "end"), [(1.0, 32767), (-1.0, 32768)])
def test_weights_of_eight_bits_overflow_as_16_bits_do(weight: float, end: int) -> None:
    """All products are as large as they can be: 255 * 127 * 2 is 64770, and 32767 is left of it."""
    net = simulation(of_equal_weights(weight), 127, ONES)
    clipping = Saturating(net)
    assert outputs(net(ONES)).flatten()[0] == pytest.approx(2.0 * weight, rel=1e-2)
    assert outputs(clipping(ONES)).flatten()[0] == pytest.approx(2.0 * weight * end / 64770, rel=1e-2)
    assert clipping.clipped == 9
    clipping(ONES)
    assert clipping.clipped == 18, "of all runs"


def test_depthwise_layers_are_not_clipped() -> None:
    conv = nn.Conv2d(2, 2, 3, groups=2, bias=False)
    with torch.no_grad():
        conv.weight.fill_(1.0)
    ones = torch.ones(1, 2, 5, 5)
    net = simulation(chain(conv), 127, ones)
    clipping = Saturating(net)
    assert torch.equal(outputs(net(ones)), outputs(clipping(ones))) and clipping.clipped == 0
    assert F.conv2d(ones, conv.weight, groups=2).max() == 9.0
