"""A whole quantization: its steps, the layers that stay in float, and its report."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edgevit.errors import QuantizationError
from edgevit.folding import Folded, fold
from edgevit.quantization import CalibrationData, Dialect, Options, Quantized, quantize
from edgevit.records.quantization import Quantization
from edgevit_runtime.codec import from_json, to_json
from support.fold_cases import chain, conv

X = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def net_with_a_coarse_layer() -> Folded:
    """Return a network whose second layer has weights of two magnitudes in each row, which no scale fits."""
    torch.manual_seed(0)
    model = chain(conv(3, 16), nn.GELU(), conv(16, 16), nn.GELU(), conv(16, 40)).eval()
    with torch.no_grad():
        first, second = (model.get_submodule(name) for name in "02")
        assert isinstance(first, nn.Conv2d) and isinstance(second, nn.Conv2d)
        second.weight[:, 0] *= 3000
        first.weight[0] *= 1e-4
        for layer in (first, second):
            assert layer.bias is not None
            layer.bias.zero_()
    return fold(model, (X,))


def quantized(net: Folded, **options: Any) -> Quantized:
    return quantize(net, CalibrationData([(X[:4],)], [(X[4:5],), (X[5:],)], "noise"), Dialect(), Options(**options))


def test_the_worst_layer_stays_in_float_until_the_floor_holds() -> None:
    net = net_with_a_coarse_layer()
    loose = quantized(net, floor_db=1.0).report
    assert loose.excluded == () and loose.snr_db is not None
    worst = min(loose.layers, key=lambda layer: layer.snr_db or 0.0)
    assert worst.module == "2"
    tight = quantized(net, floor_db=loose.snr_db + 3)
    assert [layer.module for layer in tight.report.layers if layer.excluded] == ["2"]
    assert tight.report.snr_db is not None and tight.report.snr_db > loose.snr_db + 3
    layers = [node for node in tight.simulation.net.graph.nodes if node.name in tight.report.excluded]
    assert [node.args[1].op for node in layers] == ["get_attr"], "with its own weights"


def test_a_floor_out_of_reach_is_an_error_that_names_it() -> None:
    with pytest.raises(QuantizationError, match="cannot reach") as refused:
        quantized(net_with_a_coarse_layer(), floor_db=90.0)
    assert "90 dB" in str(refused.value) and "lower floor" in str(refused.value.fix)


def test_a_network_without_layers_has_nothing_to_quantize() -> None:
    with pytest.raises(QuantizationError, match="no layer"):
        quantized(fold(chain(nn.ReLU()).eval(), (X,)))


def test_the_report_tells_the_steps_that_were_taken_and_goes_through_json() -> None:
    report = quantized(net_with_a_coarse_layer(), floor_db=1.0).report
    assert report.steps[0].name == "rounded" and report.steps[0].taken
    assert report.samples == 4 and report.description == "noise" and not report.is_assumed
    best = max(step.snr_db or 0.0 for step in report.steps)
    taken = [step.snr_db or 0.0 for step in report.steps if step.taken]
    assert taken == sorted(taken) and taken[-1] == best == report.snr_db
    assert from_json(Quantization, to_json(report)) == report
    assert report.summary == f"3 of 3 layers in int8, {report.snr_db:.1f} dB, calibrated on noise"


def test_steps_can_be_left_out() -> None:
    assert [step.name for step in quantized(
        net_with_a_coarse_layer(), floor_db=1.0, absorbs=False, corrects=False
    ).report.steps] == ["rounded"]  # fmt: skip


def test_the_folded_network_stays_as_it_was() -> None:
    net = net_with_a_coarse_layer()
    before: list[Tensor] = [parameter.clone() for parameter in net.parameters()]
    graph = str(net.net.graph)
    quantized(net, floor_db=1.0)
    assert str(net.net.graph) == graph
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))


def test_judged_samples_are_not_those_of_the_calibration() -> None:
    """A range that is too small for other samples is found: here those are ten times larger."""
    net = net_with_a_coarse_layer()
    alike = quantize(net, CalibrationData([(X[:4],)], [(X[4:],)], ""), Dialect(), Options(floor_db=-5.0)).report
    larger = quantize(net, CalibrationData([(X[:4],)], [(10 * X[4:],)], ""), Dialect(), Options(floor_db=-5.0)).report
    assert alike.snr_db is not None and larger.snr_db is not None and larger.snr_db < alike.snr_db - 5
