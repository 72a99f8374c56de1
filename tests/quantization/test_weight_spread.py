"""Spread of folded weights, and the branch that makes it."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from edgevit.folding import Folded, fold
from edgevit.quantization import CalibrationData, Dialect, quantize
from edgevit.quantization.weight_spread import channel_spread_db, peak_db, spreads
from edgevit.records.quantization import QuantizationRequest, WeightSpread
from support.fold_cases import chain
from support.strangers import RepVGG

X = torch.randn(6, 8, 8, 8, generator=torch.Generator().manual_seed(1))


def block(identity: float) -> nn.Module:
    """Build two blocks; the norm of the second one's identity has this factor over all else."""
    torch.manual_seed(0)
    model = chain(*(RepVGG(8, 8, 3, stride=1, groups=1, dilation=1, bias=False) for _ in range(2))).eval()
    same = model.get_submodule("1.same")
    assert isinstance(same, nn.BatchNorm2d)
    with torch.no_grad():
        same.weight.fill_(identity)
    return model


def explained(model: nn.Module) -> tuple[Folded, tuple[WeightSpread, ...]]:
    folded = fold(model, (X[:1],))
    data = CalibrationData([(X[:1],)], [(X[1:2],), (X[2:3],)], "noise")
    report = quantize(folded, data, Dialect(), QuantizationRequest(floor_db=0.0, absorbs=False)).report
    return folded, spreads(model, folded, (X[:1],), report.layers)


def test_the_branch_that_makes_the_largest_weights_is_named() -> None:
    _, found = explained(block(30.0))
    (worst,) = [one for one in found if one.driver == "1.same"]
    assert worst.without_driver_db is not None
    assert worst.peak_db > worst.without_driver_db + 5
    assert worst.peak_before_db is not None and worst.peak_before_db < worst.peak_db - 5
    assert f"{worst.peak_db - worst.without_driver_db:.0f} of them by 1.same" in worst.label


def test_an_ordinary_layer_has_no_branch_that_makes_much() -> None:
    for worst in explained(block(0.01))[1]:
        assert worst.driver != "1.same" or worst.peak_db - (worst.without_driver_db or 0.0) < 1


@pytest.mark.parametrize(
    ("rows", "peak", "spread"),
    [
        ([[1.0, -1.0], [1.0, 1.0]], 0.0, 0.0),
        ([[10.0, 0.0], [0.0, 10.0]], 10 * math.log10(2), 0.0),
        ([[1.0, 1.0], [1.0, 1.0], [8.0, 8.0]], 0.0, 20 * math.log10(8)),
        ([[0.0, 0.0], [0.0, 0.0]], 0.0, 0.0),
    ],
)
def test_measures_of_spread(rows: list[list[float]], peak: float, spread: float) -> None:
    weight: Tensor = torch.tensor(rows)
    assert peak_db(weight) == pytest.approx(peak) and channel_spread_db(weight) == pytest.approx(spread)
