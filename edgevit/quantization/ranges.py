"""Grids of int8 numbers: scale and zero point of an activation from its range, scales of a weight from its values.

Rounding is to the nearest, ties to even, as engines and torch do it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from edgevit.records.quantization import Method
from edgevit_runtime.dialect import Dialect

# Shares of the full range that the search of the least error tries.
_SHARES = tuple(share / 100 for share in range(100, 39, -4))
# A range of zero width, as a constant activation of zero has it, gets this scale.
_NO_RANGE = 1.0
# The smallest scale whose reciprocal is finite in float32.
_LEAST_SCALE = 1e-35


@dataclass(frozen=True)
class Grid:
    """The numbers that an activation may have: scale * (q - zero_point) for every integer q from lowest to highest."""

    scale: float
    zero_point: int
    lowest: int
    highest: int

    @property
    def range(self) -> tuple[float, float]:
        """The least and the largest number on the grid."""
        return (self.lowest - self.zero_point) * self.scale, (self.highest - self.zero_point) * self.scale

    def rounded(self, values: Tensor) -> Tensor:
        """Return the nearest numbers on the grid, in the dtype of the values; ends are clipped."""
        steps = torch.round(values / self.scale) + self.zero_point
        return (steps.clamp(self.lowest, self.highest) - self.zero_point) * self.scale


def grid_of_range(low: float, high: float, dialect: Dialect) -> Grid:
    """Return the grid of a dialect that covers a range and 0, which padding needs exactly."""
    lowest, highest = dialect.bounds
    low, high = min(low, 0.0), max(high, 0.0)
    if dialect.symmetric:
        reach = max(-low, high)
        return Grid(_float32(reach / highest), 0, lowest, highest)
    scale = _float32((high - low) / (highest - lowest))
    zero_point = round(lowest - low / scale)
    return Grid(scale, min(max(zero_point, lowest), highest), lowest, highest)


def _float32(scale: float) -> float:
    """Return a scale as engines store it."""
    return float(torch.tensor(scale if scale > _LEAST_SCALE else _NO_RANGE, dtype=torch.float32))


def grid_of_values(low: float, high: float, values: Tensor, dialect: Dialect, *, stride: int = 1) -> Grid:
    """Return the grid with the least square error on every `stride`-th value of a tensor, clipped where that is less.

    The two ends count once each, since a selection of values may lack them.
    """
    ends = torch.tensor([low, high], dtype=torch.float64)
    values = values.double()

    def error(grid: Grid) -> float:
        of_values, of_ends = ((grid.rounded(some) - some).square().sum() for some in (values, ends))
        return float(stride * of_values + of_ends)

    # An outlier is at one end, so each end is clipped for itself; those of a symmetric grid go together.
    both = min(_SHARES, key=lambda share: error(grid_of_range(low * share, high * share, dialect)))
    starts = [(low, high), (low * both, high * both)]
    clipped = [(start[0], high_end) for start in starts for high_end in _ends(high)]
    low, high = min(clipped, key=lambda ends: error(grid_of_range(ends[0], ends[1], dialect)))
    return min((grid_of_range(low_end, high, dialect) for low_end in _ends(low)), key=error)


def _ends(end: float) -> list[float]:
    return [end * share for share in _SHARES]


@dataclass(frozen=True, eq=False)
class WeightSteps:
    """A weight in int8: steps (int8, of the weight's shape), and scales (float32, one for each index along axis)."""

    steps: Tensor
    scales: Tensor
    axis: int
    largest: int

    def dequantized(self) -> Tensor:
        """Return the weight that the steps stand for, in float64."""
        shape = [1] * self.steps.dim()
        shape[self.axis] = -1
        return self.steps.double() * self.scales.double().reshape(shape)


def weight_steps(weight: Tensor, axis: int, dialect: Dialect, method: Method = "minmax") -> WeightSteps:
    """Return a weight in int8, symmetric, with a scale for each output channel along `axis` or one for all."""
    rows = weight.detach().double().movedim(axis, 0).flatten(1)
    largest = dialect.largest_weight
    # A row without weights has no magnitude either.
    reach = rows.abs().amax(1) if rows.shape[1] else rows.new_zeros(len(rows))
    if not dialect.per_channel:
        reach = reach.max().expand(len(rows))
    scales = _weight_scales(reach, largest)
    if method == "mse":
        scales = _least_error(rows.float(), reach, largest, per_channel=dialect.per_channel)
    shape = [1] * weight.dim()
    shape[axis] = -1
    steps = torch.round(weight.detach().double() / scales.double().reshape(shape)).clamp(-largest, largest)
    return WeightSteps(steps.to(torch.int8), scales, axis, largest)


def _weight_scales(reach: Tensor, largest: int) -> Tensor:
    scales = reach / largest
    return torch.where(scales > _LEAST_SCALE, scales, torch.full_like(scales, _NO_RANGE)).float()


def _least_error(rows: Tensor, reach: Tensor, largest: int, *, per_channel: bool) -> Tensor:
    """Return for each row the scale with the least square error among shares of its reach."""

    def errors(scales: Tensor) -> Tensor:
        steps = torch.round(rows / scales[:, None]).clamp_(-largest, largest)
        error = (steps * scales[:, None] - rows).square_().sum(1)
        return error if per_channel else error.sum().expand(len(rows))

    return _best([_weight_scales(reach * share, largest) for share in _SHARES], errors)


def _best(candidates: list[Tensor], errors: Callable[[Tensor], Tensor]) -> Tensor:
    """Return of each row the candidate with the least error, the first of equal ones."""
    best, least = candidates[0], errors(candidates[0])
    for candidate in candidates[1:]:
        error = errors(candidate)
        best = torch.where(error < least, candidate, best)
        least = torch.minimum(error, least)
    return best
