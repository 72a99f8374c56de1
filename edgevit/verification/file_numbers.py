"""Numbers that stand in an int8 file, compared with those of its simulation, layer by layer.

A wrong channel of one layer in a deep network is less than the noise of int8 in the outputs. In the file it stands out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from edgevit.recipes import load_recipe, missing
from edgevit.records.artifact import ParityCheck
from edgevit.verification.compare import failed
from edgevit_runtime.stated_numbers import StatedNumbers, StatedWeight, Stating

NUMBERS = "numbers of the simulation"
# Of a scale that a converter computes from the ends of a range, in float32.
TOLERANCE = 1e-5
_LABEL = "equal numbers"


def verify_numbers(stage: str, target: str, file: Path, expected: StatedNumbers) -> list[ParityCheck]:
    """Compare the numbers of a file with those that it should have; no check where its recipe reads none."""
    recipe = load_recipe(target)
    if not isinstance(recipe, Stating) or missing(recipe.RECIPE):
        return []
    stated = recipe.stated_numbers(file)
    if problem := next(_problems(expected, stated), ""):
        return [failed(stage, NUMBERS, _LABEL, problem)]
    how = f"read from the file: {len(stated.weights)} weights, {len(stated.grids)} grids"
    return [ParityCheck(stage, NUMBERS, 0.0, None, 1.0, _LABEL, True, how=how)]


def _problems(expected: StatedNumbers, stated: StatedNumbers) -> Iterator[str]:
    """Yield in words what is other in a file than it should be."""
    for weight in expected.weights:
        if not any(_is_same(weight, other) for other in stated.weights):
            yield _difference(weight, stated.weights)
    for other in stated.weights:
        # A pool may be a layer of equal weights.
        is_pool = bool((other.steps == other.steps.flat[0]).all())
        if not is_pool and not any(_is_same(weight, other) for weight in expected.weights):
            yield f"{other.name} of the file has a weight that no layer should have"
    # A converter may leave out a grid whose numbers come onto another one at once.
    for scale, zero_point in sorted(stated.grids):
        if not any(_is_close(scale, each) and zero_point == zero for each, zero in expected.grids):
            numbers = f"the scale {scale:.7g} with the zero point {zero_point}"
            yield f"a tensor of the file has {numbers}, and none should"


def _is_same(weight: StatedWeight, other: StatedWeight) -> bool:
    if weight.steps.size != other.steps.size or not np.array_equal(weight.steps.ravel(), other.steps.ravel()):
        return False
    return len(_other_scales(weight, other)) == 0


def _other_scales(weight: StatedWeight, other: StatedWeight) -> Sequence[int]:
    """Return the channels that have other scales."""
    scales = other.scales if len(other.scales) == len(weight.scales) else np.full(len(weight.scales), other.scales[0])
    return list(np.flatnonzero(~np.isclose(scales, weight.scales, rtol=TOLERANCE, atol=0)))


def _is_close(scale: float, other: float) -> bool:
    return abs(scale - other) <= TOLERANCE * max(scale, other)


def _difference(weight: StatedWeight, others: Sequence[StatedWeight]) -> str:
    """Return in words how the weight of the file that is most like a layer's differs from it."""
    alike = [other for other in others if other.steps.size == weight.steps.size]
    if not alike:
        return f"layer {weight.name}: the file has no int8 weight of {weight.steps.size} numbers"

    def wrong(other: StatedWeight) -> Sequence[int]:
        return list(np.flatnonzero((other.steps.reshape(weight.steps.shape) != weight.steps).any(1)))

    nearest = min(alike, key=lambda other: len(wrong(other)))
    kind, channels = ("weights", wrong(nearest)) if wrong(nearest) else ("scales", _other_scales(weight, nearest))
    listed = ", ".join(map(str, channels[:3])) + ("..." if len(channels) > 3 else "")
    count = f"{len(channels)} of {len(weight.scales)} channels"
    return f"layer {weight.name}: {count} have other {kind} in the file than they should (channel {listed})"
