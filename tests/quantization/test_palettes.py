"""Palettes: few values for the numbers of a weight, at the least square error."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from edgevit.folding import fold
from edgevit.quantization import Dialect, Simulator, calibrate
from edgevit.quantization.palettes import palette_of
from edgevit.quantization.placement import watched

SIZE = 16


def drawn(kind: str, seed: int) -> Tensor:
    """Return a weight (8, 12, 3, 3) of normal numbers, of some with outliers, or of few different ones."""
    normal = torch.randn(8, 12, 3, 3, generator=torch.Generator().manual_seed(seed))
    return {"normal": normal, "outliers": normal**5, "few": (normal * 2).round()}[kind]


def count(tensor: Tensor) -> int:
    """Return how many different numbers a tensor has."""
    return len(set(tensor.flatten().tolist()))


@given(st.sampled_from(["normal", "outliers", "few"]), st.integers(0, 99))
def test_each_number_becomes_the_nearest_of_few_values(kind: str, seed: int) -> None:
    weight = drawn(kind, seed)
    palette = palette_of(weight, SIZE)
    result = palette.dequantized()
    assert len(palette.values) <= SIZE and count(result) <= SIZE
    assert torch.equal(result, result.float().double()), "a file stores float32"
    nearest = (weight.double()[..., None] - palette.values).abs().amin(-1)
    assert torch.equal((weight.double() - result).abs(), nearest)
    if kind == "few":
        assert torch.equal(result, weight.double())


@pytest.mark.parametrize(("kind", "gain_db"), [("normal", 1.5), ("outliers", 6.0)])
def test_values_follow_the_numbers(kind: str, gain_db: float) -> None:
    """They are the means of what they stand for, and so better than as many steps of equal width."""
    weight = drawn(kind, 0).double()
    palette = palette_of(weight, SIZE)
    for number, value in enumerate(palette.values):
        members = weight[palette.indices == number]
        assert len(members) == 0 or abs(float(members.mean() - value)) < 0.05 * float(weight.std())
    step = float(weight.max() - weight.min()) / (SIZE - 1)
    steps = torch.round((weight - weight.min()) / step) * step + weight.min()
    errors = [float((weight - form).square().sum()) for form in (steps, palette.dequantized())]
    assert 10 * float(torch.tensor(errors[0] / errors[1]).log10()) > gain_db


def test_two_values_by_hand() -> None:
    palette = palette_of(torch.tensor([[0.0, 10.0], [1.0, 0.0]]), 2)
    assert palette.values.tolist() == pytest.approx([1 / 3, 10.0])
    assert palette.indices.tolist() == [[0, 1], [0, 0]]


def test_a_network_has_weights_of_few_values_and_biases_that_make_up_for_them() -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 3, 8, 8)
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3, groups=4), nn.ReLU()).eval()
    net = fold(model, (x,))
    calibration = calibrate(net, [(x,)], watched(net.net.graph))
    dialect = Dialect(activations="float", palette=4)
    forms = [Simulator(net, calibration, dialect, corrects_biases=corrects).network() for corrects in (False, True)]
    for form in forms:
        weights = [tensor for _, tensor in form.net.named_buffers() if tensor.ndim == 4]
        assert len(weights) == 2 and all(count(weight) == 4 for weight in weights)
    with torch.no_grad():
        errors = [float((form(x) - net(x)).mean((0, 2, 3)).abs().max()) for form in forms]
    assert errors[1] < 0.5 * errors[0]


def test_no_engine_multiplies_a_palette_in_int8() -> None:
    with pytest.raises(ValueError, match="multiplied in float"):
        Dialect(palette=64)
