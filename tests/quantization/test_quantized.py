"""A whole quantization: its steps, the layers that stay in float, and its report."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edgevit.errors import QuantizationError
from edgevit.folding import Folded, fold
from edgevit.quantization import CalibrationData, Dialect, Quantized, quantize, requantize
from edgevit.quantization.restless import Restless
from edgevit.records.quantization import Quantization, QuantizationRequest
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
    return quantize(
        net, CalibrationData([(X[:4],)], [(X[4:5],), (X[5:],)], "noise"), Dialect(), QuantizationRequest(**options)
    )


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
    assert report.steps[0].kind == "rounded" and report.steps[0].taken
    assert report.samples == 4 and report.description == "noise" and not report.is_assumed
    best = max(step.snr_db or 0.0 for step in report.steps)
    taken = [step.snr_db or 0.0 for step in report.steps if step.taken]
    assert taken == sorted(taken) and taken[-1] == best == report.snr_db
    assert from_json(Quantization, to_json(report)) == report
    assert report.summary == f"3 of 3 layers quantized, {report.snr_db:.1f} dB, calibrated on noise"


def test_steps_can_be_left_out() -> None:
    assert [step.kind for step in quantized(
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
    alike = quantize(
        net, CalibrationData([(X[:4],)], [(X[4:],)], ""), Dialect(), QuantizationRequest(floor_db=-5.0)
    ).report
    larger = quantize(
        net, CalibrationData([(X[:4],)], [(10 * X[4:],)], ""), Dialect(), QuantizationRequest(floor_db=-5.0)
    ).report
    assert alike.snr_db is not None and larger.snr_db is not None and larger.snr_db < alike.snr_db - 5


@pytest.mark.parametrize("corrects", [True, False])
def test_a_quantization_made_again_computes_the_same(corrects: bool) -> None:
    """What was decided then holds, also where another machine would decide otherwise."""
    net = net_with_a_coarse_layer()
    data = CalibrationData([(X[:4],)], [(X[4:5],), (X[5:],)], "noise")
    first = quantize(net, data, Dialect(), QuantizationRequest(floor_db=15.0, corrects=corrects))
    assert first.report.excluded
    assert any(step.kind == "corrected" and step.taken for step in first.report.steps) == corrects
    again = requantize(net, data, Dialect(), first.report)
    assert torch.equal(first.simulation(X), again.simulation(X))
    assert again.report is first.report
    undecided = dataclasses.replace(first.report, steps=first.report.steps[:1], layers=())
    assert not torch.equal(requantize(net, data, Dialect(), undecided).simulation(X), first.simulation(X))


def test_layers_are_measured_only_where_that_is_asked_or_needed() -> None:
    net, data = net_with_a_coarse_layer(), CalibrationData([(X[:4],)], [(X[4:],)], "noise")
    unmeasured = quantize(net, data, Dialect(), QuantizationRequest(floor_db=1.0), measures_layers=False).report
    assert {layer.snr_db for layer in unmeasured.layers} == {None}
    needed = quantize(net, data, Dialect(), QuantizationRequest(floor_db=15.0), measures_layers=False).report
    assert needed.excluded and None not in {layer.snr_db for layer in needed.layers}


def test_weights_alone_leave_activations_as_they_are() -> None:
    net, data = net_with_a_coarse_layer(), CalibrationData([(X[:4],)], [(X[4:],)], "noise")
    simulation = quantize(net, data, Dialect(activations="float"), QuantizationRequest(floor_db=1.0)).simulation
    kinds = {str(node.target) for node in simulation.net.graph.nodes if "quantize" in str(node.target)}
    assert kinds == {"quantized_decomposed.dequantize_per_channel.default"}


def test_a_restless_simulation_differs_a_little_and_always_alike() -> None:
    simulation = quantized(net_with_a_coarse_layer(), floor_db=1.0).simulation
    restless = Restless(simulation)
    first, again = restless(X), restless(X)
    exact = simulation(X)
    assert torch.equal(*(torch.utils._pytree.tree_leaves(each)[0] for each in (first, again)))
    moved = torch.utils._pytree.tree_leaves(first)[0] - exact
    assert 0 < float(moved.abs().max()) < 0.05 * float(exact.abs().max())


def test_samples_that_fill_up_a_batch_are_not_counted_as_agreeing() -> None:
    torch.manual_seed(0)
    net = fold(chain(conv(3, 8), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)).eval(), (X,))
    for size, expected in ((1, 6), (3, None)):
        data = CalibrationData(
            [(x,) for x in torch.split(X[:3], size)], [(x,) for x in torch.split(X[3:], size)], "noise"
        )
        agreement = quantize(net, data, Dialect(), QuantizationRequest(floor_db=1.0)).report.agreement
        assert (agreement and agreement[1]) == expected
