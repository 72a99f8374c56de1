"""Calibration, against the same figures computed of all numbers at once."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from edgevit.errors import QuantizationError
from edgevit.folding import Folded, fold
from edgevit.quantization import calibrate
from edgevit.quantization.calibration import KEPT_VALUES
from edgevit.quantization.placement import watched


def folded_net() -> Folded:
    torch.manual_seed(0)
    return fold(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 1)).eval(), (torch.zeros(1, 3, 8, 8),))


def batches(sizes: tuple[int, ...]) -> list[tuple[Tensor, ...]]:
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(size, 3, 8, 8, generator=generator),) for size in sizes]


def test_ends_and_means_are_those_of_all_samples_in_any_batches() -> None:
    net = folded_net()
    names = watched(net.net.graph)
    first = net.net.graph.find_nodes(op="placeholder")[0].name
    samples = batches((1, 4, 2))
    every = torch.cat([inputs[0] for inputs in samples])
    calibration = calibrate(net, samples, names)
    observed = calibration.observed(first, 1)
    assert calibration.samples == 7
    assert torch.equal(observed.low, every.amin((0, 2, 3)).double())
    assert torch.equal(observed.high, every.amax((0, 2, 3)).double())
    assert torch.allclose(observed.mean, every.double().mean((0, 2, 3)), atol=1e-12)
    assert observed.range == (float(every.min()), float(every.max()))
    at_once = calibrate(net, [(every,)], names)
    for key, other in at_once.tensors.items():
        assert torch.allclose(calibration.tensors[key].high, other.high, atol=1e-6), key
        assert torch.allclose(calibration.tensors[key].mean, other.mean, atol=1e-6), key


def test_memory_does_not_grow_with_the_samples() -> None:
    net = folded_net()
    first = net.net.graph.find_nodes(op="placeholder")[0].name
    counts = (3, 12)
    observed = [calibrate(net, batches((64,) * count), [(first, 1)]).observed(first) for count in counts]
    few, many = (tensor.values for tensor in observed)
    for count, tensor in zip(counts, observed, strict=True):
        assert len(tensor.values) * tensor.stride == pytest.approx(count * 64 * 3 * 64, rel=0.01)
    assert KEPT_VALUES <= len(few) <= 2 * KEPT_VALUES and KEPT_VALUES <= len(many) <= 2 * KEPT_VALUES
    assert abs(float(many.std()) - 1) < 0.02, "a stride is no selection by value"


def test_without_samples_there_is_nothing_to_calibrate_on() -> None:
    with pytest.raises(QuantizationError, match="no samples") as refused:
        calibrate(folded_net(), [], [])
    assert "--data" in str(refused.value.fix)


def test_a_tensor_that_is_not_finite_is_named() -> None:
    net = folded_net()
    samples = [(torch.full((1, 3, 8, 8), float("inf")),)]
    with pytest.raises(QuantizationError, match="not finite"):
        calibrate(net, samples, watched(net.net.graph))
