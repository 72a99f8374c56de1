"""Dialects: what an engine's int8 kernels compute, as far as it changes numbers.

A recipe states the dialect of its engine by its function `dialect`. The room that quantizes knows no engine by name.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

# Precisions whose numbers come from samples: int8 weights and activations, int8 weights alone, weights of 64 values.
QUANTIZED = ("int8", "w8", "w6")
# Kinds of operators that engines have int8 kernels for. A depthwise layer is a convolution with one input channel for
# each group, and a grouped one has several.
Kind = Literal["convolution", "depthwise", "grouped", "transposed", "linear", "add"]
KINDS: tuple[Kind, ...] = ("convolution", "depthwise", "grouped", "transposed", "linear", "add")
# Operators whose int8 kernels give numbers on the grid of what they read. An uneven average is a pool some of whose
# windows have fewer numbers than others; even ones are depthwise convolutions, which have a grid of their own.
Keeper = Literal["uneven_average", "clip", "concatenation", "resize"]
LARGEST_WEIGHT = 127
# Values of a weight in numbers of 6 bits.
PALETTE = 64
# Two products of a uint8 and a weight of this size fit in 16 bits. With more, processors without a dot product of bytes
# clip their sum.
UNSATURATED_WEIGHT = 64


@dataclass(frozen=True)
class Dialect:
    """The int8 numbers and operators of an engine.

    activations: their type; `uint8` has a zero point, and `float` leaves them as they are. symmetric: their zero point
    is 0, and the range is as wide below it as above. lowest: the least number of an int8, by which the engine clips.
    largest_weight: the largest magnitude of a weight in steps.
    operators: the kinds that run in int8. requantized: the kinds whose outputs are int8 too, because the kernel has no
    other. maps: the axes of the maps that convolutions run over in int8: 1 for signals, 2 for images, 3 for volumes.
    per_channel: a scale for each output channel of a weight, and one for all without it. ends_in_float: kernels give
    floats where nothing in the network reads their results. palette: how many values a weight may have, at any
    distances, in place of steps; 0 for steps. keepers: operators that the converter puts into int8 wherever they stand
    beside int8 numbers, with one grid for what they read and give. aligns: it puts a concatenation into int8 for any
    reader, and brings its operands onto its grid; without, it does so for layers in int8 alone, and the operands have
    to be there. softmax: scale and zero point of the only grid on which its kernel gives numbers.
    """

    activations: Literal["uint8", "int8", "float"] = "uint8"
    symmetric: bool = False
    lowest: int = -128
    largest_weight: int = LARGEST_WEIGHT
    operators: tuple[Kind, ...] = KINDS
    requantized: tuple[Kind, ...] = KINDS
    maps: tuple[int, ...] = (1, 2, 3)
    per_channel: bool = True
    ends_in_float: bool = False
    palette: int = 0
    keepers: tuple[Keeper, ...] = ()
    aligns: bool = True
    softmax: tuple[float, int] | None = None

    def __post_init__(self) -> None:
        """Raise ValueError for a dialect that no engine could have."""
        if self.symmetric and self.activations == "uint8":
            raise ValueError("a uint8 without a zero point has no negative numbers")
        if self.symmetric and self.activations == "float":
            raise ValueError("activations in float have no range")
        if self.palette and self.activations != "float":
            raise ValueError("weights of a palette are multiplied in float")
        if not 1 <= self.largest_weight <= LARGEST_WEIGHT:
            raise ValueError(f"a weight of {self.largest_weight} steps does not fit in int8")
        if self.lowest not in (-128, -127):
            raise ValueError(f"no engine's int8 begins at {self.lowest}")
        _require_known(self.operators)
        _require_known(self.requantized)

    @property
    def bounds(self) -> tuple[int, int]:
        """The lowest and the highest number of an activation, by which engines clip."""
        return (0, 255) if self.activations == "uint8" else (self.lowest, 127)


def _require_known(kinds: Iterable[str]) -> None:
    if unknown := set(kinds) - set(KINDS):
        raise ValueError(f"no kind of operator is called {', '.join(sorted(unknown))}")
