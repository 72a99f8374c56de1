"""Grids of int8 numbers, against the definitions of their properties."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgevit.quantization import Dialect
from edgevit.quantization.ranges import grid_of_range, grid_of_values, weight_steps

DIALECTS = {
    "uint8": Dialect(),
    "int8": Dialect("int8"),
    "symmetric": Dialect("int8", symmetric=True),
    "symmetric to the end": Dialect("int8", symmetric=True, lowest=-127),
    "narrow": Dialect(largest_weight=64),
    "one scale": Dialect(per_channel=False),
}
ends = st.floats(-(2.0**100), 2.0**100, width=32)
each_dialect = pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS)


def test_no_engine_has_a_dialect_like_that() -> None:
    with pytest.raises(ValueError, match="no negative numbers"):
        Dialect("uint8", symmetric=True)
    with pytest.raises(ValueError, match="128 steps"):
        Dialect(largest_weight=128)
    with pytest.raises(ValueError, match="lstm"):
        Dialect(operators=("linear", "lstm"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="begins at -64"):
        Dialect("int8", lowest=-64)


@each_dialect
@given(ends, ends)
def test_a_grid_covers_its_range_and_holds_zero(dialect: Dialect, first: float, second: float) -> None:
    low, high = sorted((first, second))
    grid = grid_of_range(low, high, dialect)
    assert (grid.lowest, grid.highest) == dialect.bounds and grid.lowest <= grid.zero_point <= grid.highest
    least, largest = grid.range
    # Half a step is what the rounding of the zero point may cost.
    assert least <= low + 0.51 * grid.scale and largest >= high - 0.51 * grid.scale
    zero = torch.zeros(1, dtype=torch.float64)
    assert torch.equal(grid.rounded(zero), zero), "padding is exact"
    if dialect.symmetric:
        assert grid.zero_point == 0
    values = torch.linspace(max(low, least), min(high, largest), 50, dtype=torch.float64)
    assert bool(((grid.rounded(values) - values).abs() <= 0.5001 * grid.scale).all())


def test_a_grid_of_no_range_is_finite() -> None:
    for dialect in DIALECTS.values():
        grid = grid_of_range(0.0, 0.0, dialect)
        assert grid.rounded(torch.zeros(3)).tolist() == [0.0] * 3
        assert grid_of_range(0.0, 1e-42, dialect).scale >= 1e-35, "its reciprocal has to be finite in float32"


@each_dialect
def test_least_error_clips_a_lone_outlier(dialect: Dialect) -> None:
    values = torch.linspace(-1, 1, 20_000)
    wide, tight = grid_of_range(-1.0, 8.0, dialect), grid_of_values(-1.0, 8.0, values, dialect, stride=1000)
    assert tight.scale < 0.9 * wide.scale

    def error(grid: object) -> float:
        return float((grid.rounded(values) - values).square().mean())  # type: ignore[attr-defined]

    assert error(tight) < error(wide)
    assert error(grid_of_values(-1.0, 8.0, values, dialect)) <= error(wide)
    assert grid_of_values(-1.0, 8.0, values[::500], dialect).range[1] > 7.5, "one of few values is not clipped much"


def test_ends_count_where_the_values_lack_them() -> None:
    """Of many values a selection is kept: an outlier that is not in it is not clipped for nothing."""
    values = torch.zeros(4)
    assert grid_of_values(-1.0, 8.0, values, Dialect()).range[1] == pytest.approx(8.0, rel=0.01)


@each_dialect
@pytest.mark.parametrize("method", ["minmax", "mse"])
@pytest.mark.parametrize("axis", [0, 1])
def test_steps_of_a_weight(dialect: Dialect, method: str, axis: int) -> None:
    weight = torch.randn(6, 5, 3, 3, generator=torch.Generator().manual_seed(0))
    weight.select(axis, 2).mul_(50)
    weight.select(axis, 3).zero_()
    steps = weight_steps(weight, axis, dialect, method)  # type: ignore[arg-type]
    assert steps.steps.dtype == torch.int8 and steps.scales.dtype == torch.float32
    assert int(steps.steps.abs().max()) == dialect.largest_weight and len(steps.scales) == weight.shape[axis]
    assert (len(set(steps.scales.tolist())) == 1) != dialect.per_channel
    shape = [1] * 4
    shape[axis] = -1
    bound = steps.scales.double().reshape(shape) * 0.5001
    error = (steps.dequantized() - weight.double()).abs()
    assert int(steps.steps.min()) >= -dialect.largest_weight
    if method == "minmax":
        assert bool((error <= bound).all())
    else:
        plain = weight_steps(weight, axis, dialect)
        assert float(error.square().sum()) <= float((plain.dequantized() - weight.double()).square().sum())


def test_a_weight_that_is_clipped_keeps_within_its_steps() -> None:
    weight = torch.linspace(-1, 1, 100_000).repeat(2, 1)
    weight[:, 0] = -1.6
    for dialect in (Dialect(), Dialect(largest_weight=64)):
        steps = weight_steps(weight, 0, dialect, "mse")
        assert float(steps.scales[0]) * dialect.largest_weight < 1.5, "it is clipped"
        assert int(steps.steps.min()) == -dialect.largest_weight
