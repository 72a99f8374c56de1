"""Stated preprocessing: texts and mappings become a record, and what was not stated is listed as assumed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgevit.errors import UsageError
from edgevit.records.model import ASSUMED_PREPROCESSING, STATEABLE, ModelCard, Preprocessing
from edgevit.records.preprocessing import (
    StatedPreprocessing,
    complete,
    describe_assumed,
    describe_preprocessing,
    read_stated,
    state_options,
    stated_in,
)
from edgevit_runtime.codec import from_json, to_json
from edgevit_runtime.record import TensorSpec

RGB, GREY, FOUR = (TensorSpec("image", (-1, channels, 32, 32)) for channels in (3, 1, 4))
VALUES: dict[str, Any] = {
    "mean": "0.1,0.2,0.3", "std": 0.5, "range": (-1, 1), "crop": 0.9, "interpolation": "Bilinear", "color": "bgr",
}  # fmt: skip


@pytest.mark.parametrize("word", ["letterbox", "pad"])
def test_a_padding_resize_is_refused_with_the_reason(word: str) -> None:
    with pytest.raises(UsageError, match=f"images are not padded: '{word}'") as caught:
        read_stated({"resize": word})
    assert "each detector has its own" in caught.value.why and "--resize stretch" in caught.value.fix


@given(st.sets(st.sampled_from(STATEABLE)), st.sampled_from([{"resize": 40, "crop": 32}, {"resize": "stretch"}, {}]))
def test_what_was_stated_can_be_stated_again(names: set[str], geometry: dict[str, Any]) -> None:
    values = {name: VALUES[name] for name in names} | ({} if "crop" not in names else geometry)
    completed = complete(ASSUMED_PREPROCESSING, read_stated(values), [RGB])
    assert complete(ASSUMED_PREPROCESSING, stated_in(completed), [RGB]) == completed


@given(st.sets(st.sampled_from(STATEABLE)))
def test_what_is_not_stated_is_assumed_and_nothing_else(names: set[str]) -> None:
    stated = read_stated({name: VALUES[name] for name in names})
    completed = complete(ASSUMED_PREPROCESSING, stated, [RGB])
    assert set(completed.assumed) == set(STATEABLE) - names and stated.stated == names
    assert bool(stated) == bool(names) and from_json(StatedPreprocessing, to_json(stated)) == stated
    # To state what was assumed changes no value.
    options = state_options(completed).split()
    again = read_stated(
        {name.removeprefix("--"): value for name, value in zip(options[::2], options[1::2], strict=True)}
    )
    explicit = complete(completed, again, [RGB])
    assert explicit.assumed == () and (explicit.mean, explicit.std) == (completed.mean, completed.std)
    assert describe_preprocessing(explicit) == describe_preprocessing(completed)


def test_numbers_of_all_spellings_are_read() -> None:
    completed = complete(ASSUMED_PREPROCESSING, read_stated(VALUES), [RGB])
    assert completed == Preprocessing((0.1, 0.2, 0.3), (0.5,) * 3, 0.9, "NCHW", "BGR", (-1.0, 1.0), "bilinear")
    for value in (256, "256", (256,)):
        assert read_stated({"resize": value}).resize == (256,)
    assert read_stated({"resize": "256x192"}).resize == read_stated({"resize": (256, 192)}).resize == (256, 192)
    assert read_stated({"resize": "stretch"}).stretch
    cut = complete(ASSUMED_PREPROCESSING, read_stated({"resize": 40, "crop": 32}), [RGB])
    assert (cut.resize, cut.crop_pct, "crop" in cut.assumed) == ((40,), 1.0, False)


@pytest.mark.parametrize(
    ("values", "what"),
    [
        ({"mean": "a"}, "mean"), ({"mean": ""}, "mean"), ({"mean": "nan"}, "mean"), ({"std": 0}, "std"),
        ({"std": "0.1,-1,1"}, "std"), ({"range": "1,0"}, "range"), ({"range": "1"}, "range"), ({"resize": 0}, "resize"),
        ({"resize": "big"}, "resize"), ({"crop": 0}, "crop"), ({"crop": 1.5}, "crop"), ({"color": "HSV"}, "color"),
        ({"interpolation": "cubic-ish"}, "interpolation"), ({"means": 0.5}, "means"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(values: dict[str, Any], what: str) -> None:
    with pytest.raises(UsageError, match=what):
        read_stated(values)


@pytest.mark.parametrize(
    ("values", "inputs", "what"),
    [
        ({"mean": "0.1,0.2"}, RGB, "a mean of 2 numbers"), ({"std": (1, 2, 3)}, GREY, "a std of 3 numbers"),
        ({"color": "RGB"}, GREY, "RGB images have 3"), ({"color": "grey"}, RGB, "GREY images have 1"),
        ({"crop": 32}, RGB, "needs the size"), ({"resize": 40, "crop": 24}, RGB, "does not fit"),
        ({"resize": 24}, RGB, "smaller than the input"), ({"resize": "40x24"}, RGB, "smaller than the input"),
    ],
)  # fmt: skip
def test_what_does_not_fit_the_input_is_refused(values: dict[str, Any], inputs: TensorSpec, what: str) -> None:
    with pytest.raises(UsageError, match=what):
        complete(ASSUMED_PREPROCESSING, read_stated(values), [inputs])


def test_one_channel_is_grey_and_has_no_mean_of_imagenet() -> None:
    completed = complete(ASSUMED_PREPROCESSING, read_stated({}), [GREY])
    assert (completed.colour, completed.mean, completed.std) == ("GREY", (0.0,), (1.0,))
    assert describe_assumed(completed) == "mean, std, range, crop and interpolation", "the colour follows"
    assert complete(ASSUMED_PREPROCESSING, read_stated({"mean": 0.3}), [FOUR]).mean == (0.3,) * 4


def test_a_card_needs_only_what_is_known() -> None:
    card = ModelCard(inputs=(GREY,))
    assert card.preprocessing.assumed == STATEABLE and card.family == "custom" and card.top1_percent is None
