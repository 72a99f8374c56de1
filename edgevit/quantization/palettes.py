"""Palettes: a weight in few values at any distances, which is stored as their numbers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# Rounds of Lloyd's algorithm, each of which lowers the error. It takes a fraction of a second for millions of numbers.
_ROUNDS = 100


@dataclass(frozen=True, eq=False)
class Palette:
    """A weight whose numbers are few: values (float64, ascending), and which of them each number is (of its shape)."""

    values: Tensor
    indices: Tensor

    def dequantized(self) -> Tensor:
        """Return the weight that the palette stands for, in float64."""
        return self.values[self.indices]


def palette_of(weight: Tensor, size: int) -> Palette:
    """Return a weight in at most `size` values whose square error Lloyd's algorithm hardly lowers any more.

    It starts between the quantiles, which follow where numbers are dense, and equal distances, which reach outliers.
    """
    numbers, _ = weight.detach().double().flatten().sort()
    distinct = torch.unique_consecutive(numbers)
    if len(distinct) <= size:
        return _nearest(weight, distinct)
    places = torch.linspace(0, len(numbers) - 1, size, dtype=torch.float64).round().long()
    equal = torch.linspace(float(numbers[0]), float(numbers[-1]), size, dtype=torch.float64)
    values = (numbers[places] + equal) / 2
    sums = torch.cat([numbers.new_zeros(1), numbers.cumsum(0)])
    for _ in range(_ROUNDS):
        # Numbers are sorted, so those nearest to a value stand together.
        ends = torch.searchsorted(numbers, (values[1:] + values[:-1]) / 2)
        ends = torch.cat([ends.new_zeros(1), ends, ends.new_tensor([len(numbers)])])
        counts = ends.diff()
        means = sums[ends].diff() / counts.clamp(min=1)
        values = torch.where(counts > 0, means, values)
    return _nearest(weight, values)


def _nearest(weight: Tensor, values: Tensor) -> Palette:
    # As a file stores them.
    values = values.float().double()
    middles = (values[1:] + values[:-1]) / 2
    return Palette(values, torch.searchsorted(middles, weight.detach().double()))
