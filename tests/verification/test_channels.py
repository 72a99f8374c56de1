"""Single channels of an output: each is judged against the channels of its kind, and right artifacts pass."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgevit.verification import GATES, Gate
from edgevit.verification.channels import FEW, GAP, NUMBERS, groups
from edgevit.verification.compare import compare

Array = NDArray[np.floating[Any]]
RNG = np.random.default_rng(0)
NOISE = {"fp32": 2e-7, "fp16": 5e-4, "bf16": 4e-3}  # of a value, as rounding leaves it


def detector(classes: int = 80, places: int = 300) -> Array:
    """Boxes in pixels beside scores from 0 to 1: (1, 4 + classes, places)."""
    boxes = RNG.uniform(0, 640, (1, 4, places))
    scores = RNG.uniform(0, 1, (1, classes, places)) ** 3
    return np.concatenate((boxes, scores), 1).astype(np.float32)


def rounded(array: Array, precision: str) -> Array:
    return (array * (1 + NOISE[precision] * RNG.standard_normal(array.shape))).astype(np.float32)


def passes(expected: Sequence[Array], computed: Sequence[Array], gate: Gate) -> bool:
    return compare("artifact", "model", [(a,) for a in expected], [(b,) for b in computed], gate).passed


MISTAKES: dict[str, Callable[[Array], Array]] = {
    "zero": np.zeros_like,
    "one": np.ones_like,
    "negated": lambda x: -x,
    "doubled": lambda x: 2 * x,
    "halved": lambda x: x / 2,
    "a fifth more": lambda x: 1.2 * x,
    "a fifth less": lambda x: 0.8 * x,
    "squared": np.square,
    "root": np.sqrt,
    "rolled": lambda x: np.roll(x, 1, -1),
    "reversed": lambda x: x[..., ::-1],
    "mean": lambda x: np.full_like(x, x.mean()),
    "median": lambda x: np.full_like(x, np.median(x)),
    "shifted up": lambda x: x + 0.15,
    "shifted down": lambda x: x - 0.15,
    "cut off": lambda x: np.minimum(x, 0.4),
    "cut below": lambda x: np.maximum(x, 0.5),
    "coarse": lambda x: np.round(x * 2) / 2,
    "complement": lambda x: 1 - x,
    "half of it zero": lambda x: np.where(np.arange(x.shape[-1]) % 2, x, 0),
}


@pytest.mark.parametrize("precision", NOISE)
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_one_channel_of_eighty_is_found(mistake: str, precision: str) -> None:
    expected = [detector() for _ in range(3)]
    right = [rounded(array, precision) for array in expected]
    assert passes(expected, right, GATES[precision])
    wrong = [array.copy() for array in right]
    for array in wrong:
        array[:, 17] = MISTAKES[mistake](array[:, 17])
    check = compare("artifact", "model", [(a,) for a in expected], [(b,) for b in wrong], GATES[precision])
    assert not check.passed
    assert check.channel is not None
    assert (check.channel.output, check.channel.axis, check.channel.channel) == (0, 1, 17)
    assert "channel 17 (axis 1) of output 0" in check.channel.label


@pytest.mark.parametrize("precision", NOISE)
def test_a_mistake_in_the_last_axis_is_found(precision: str) -> None:
    expected = [np.ascontiguousarray(detector().transpose(0, 2, 1)) for _ in range(2)]
    wrong = [rounded(array, precision) for array in expected]
    assert passes(expected, wrong, GATES[precision])
    for array in wrong:
        array[..., 40] *= 1.3
    assert not passes(expected, wrong, GATES[precision])


@pytest.mark.parametrize("precision", NOISE)
def test_lost_scores_beside_boxes_in_pixels_are_found(precision: str) -> None:
    for classes in (1, 3, 80):
        expected = [detector(classes) for _ in range(3)]
        wrong = [rounded(array, precision) for array in expected]
        for array in wrong:
            array[:, 4:] += 0.1 * RNG.standard_normal(array[:, 4:].shape)
        assert not passes(expected, wrong, GATES[precision]), classes


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(list(NOISE)), st.sampled_from([5, 50, 1000]), st.floats(0, 1))
def test_noise_that_all_logits_share_is_no_mistake(seed: int, precision: str, classes: int, spread: float) -> None:
    # Random networks give nearly the same logits for every input, some of which are near 0.
    rng = np.random.default_rng(seed)
    common = rng.standard_normal((1, classes))
    expected = [(common + 0.05 * spread * rng.standard_normal((1, classes))).astype(np.float32) for _ in range(6)]
    level = NOISE[precision]
    computed = [(a + level * rng.standard_normal(a.shape)).astype(np.float32) for a in expected]
    assert passes(expected, computed, GATES[precision])


def test_an_output_that_is_nearly_zero_on_one_input_is_judged_by_the_others() -> None:
    expected = [RNG.standard_normal((1, 6, 50)) for _ in range(3)] + [1e-6 * RNG.standard_normal((1, 6, 50))]
    computed = [*expected[:3], expected[3] + 1e-5]
    assert passes(expected, computed, GATES["fp32"]), "ten times what it is, and the rounding of what it is made of"
    assert not passes(expected, [*expected[:3], expected[3] + 1e-2], GATES["fp32"])
    assert not passes([expected[3]] * 3, [computed[3]] * 3, GATES["fp32"]), "the others are as small"


@pytest.mark.parametrize(
    ("error", "ordinary", "extreme"), [(5e-5, True, True), (5e-4, False, True), (5e-3, False, False)]
)
def test_extremes_have_wider_limits(error: float, ordinary: bool, extreme: bool) -> None:
    expected = [(RNG.uniform(0.5, 1, (1, 6, 50)),) for _ in range(3)]
    wrong = [*expected[:2], (expected[2][0] * (1 + error),)]
    for extremes, passed in ((0, ordinary), (1, extreme)):
        check = compare("artifact", "model", expected, wrong, GATES["fp32"], extremes)
        assert check.passed == passed
        assert ("on extremes" in check.tolerance) == (extremes == 1 and not passed)


def test_channels_that_are_zero_may_hold_the_rounding_of_others() -> None:
    expected = [RNG.standard_normal((2, 16, 9, 9)).astype(np.float32) for _ in range(2)]
    for array in expected:
        array[:, 3:6] = 0
    computed = [rounded(array, "fp32") for array in expected]
    for array in computed:
        array[:, 3:6] = 1e-8
    assert passes(expected, computed, GATES["fp32"])


@given(st.lists(st.floats(0, 1e6, allow_subnormal=False), min_size=1, max_size=40), st.integers(1, 40))
def test_groups_divide_the_channels_where_the_gap_is(magnitudes: list[float], numbers: int) -> None:
    values = np.array(magnitudes)
    parts = groups(values, numbers)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(values)))
    for larger, smaller in itertools.pairwise(parts):
        assert values[smaller].max() < values[larger].max() / GAP
        assert len(smaller) > 1 or len(values) <= FEW
        assert len(smaller) * numbers >= NUMBERS
