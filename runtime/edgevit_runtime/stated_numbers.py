"""Numbers of int8 as a file states them, which recipes read back. They run on the host, with NumPy."""

from __future__ import annotations

import math
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True, eq=False)
class StatedWeight:
    """A weight in int8, as NumPy arrays: steps less their zero point (outputs, rest), and scales (outputs,).

    name: of the layer that reads it, or of the constant.
    """

    name: str
    steps: Any
    scales: Any


@dataclass(frozen=True, eq=False)
class StatedNumbers:
    """The weights in int8, and the grids of activations: scale and zero point of each."""

    weights: tuple[StatedWeight, ...]
    grids: frozenset[tuple[float, int]]


def stated_weight(name: str, steps: Any, zero_points: Any, scales: Any) -> StatedWeight:
    """Return a weight whose scales and zero points have its rank, and more than one number along the outputs alone."""
    axes = [axis for axis, size in enumerate(scales.shape) if size > 1] or [0]
    rest = [axis for axis in range(steps.ndim) if axis not in axes]
    outputs = math.prod(steps.shape[axis] for axis in axes)
    rows = (steps.astype("int16") - zero_points).transpose(axes + rest).reshape(outputs, -1)
    return StatedWeight(name, rows, scales.reshape(-1).repeat(outputs // scales.size))


@typing.runtime_checkable
class Stating(Protocol):
    """An addition to a recipe module whose files state their int8 numbers in the open."""

    def stated_numbers(self, path: Path) -> StatedNumbers:
        """Read the numbers of a payload or a stage. This needs the converter's distributions."""
