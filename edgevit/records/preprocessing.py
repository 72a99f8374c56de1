"""Stated preprocessing: what a person says of it by options, or beside the network, and how it completes a record.

What is not stated keeps its value and is listed in Preprocessing.assumed, so that every number which rests on it can
say so.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgevit.errors import UsageError
from edgevit.records.model import ASSUMED_PREPROCESSING, IMAGE_CHANNELS, Preprocessing
from edgevit_runtime.record import TensorSpec

INTERPOLATIONS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")  # by Pillow's names
COLORS = {"RGB": "RGB", "BGR": "BGR", "GREY": "GREY", "GRAY": "GREY"}
GREY, STRETCH = "GREY", "stretch"
# What mends a network that takes images with their channels last.
CHANNELS_FIRST = (
    "let FILE.py:FUNCTION return a module that takes (N, C, H, W) and begins with `x = x.permute(0, 2, 3, 1)`, "
    "and export that"
)
# Steps of other pipelines that are no resize, crop or stretch.
_PADDED = ("letterbox", "pad", "padded")
_CHANNELS = {"RGB": 3, "BGR": 3, GREY: 1}
_CHANNEL_AXIS = 1
# Of a network with another number of channels than ImageNet's images have: nothing is subtracted, nothing is divided.
_NEUTRAL = {"mean": 0.0, "std": 1.0}


@dataclass(frozen=True)
class StatedPreprocessing:
    """What was stated; None or empty: nothing. The names are those of the options, and of a mapping's keys.

    mean, std: one number for all channels, or one for each. resize: see Preprocessing; `stretch` stands for the
    input's own size. crop: share of the resized side, or the input's side in pixels beside a `resize`.
    """

    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    range: tuple[float, float] | None = None
    resize: tuple[int, ...] = ()
    stretch: bool = False
    crop: float | None = None
    interpolation: str = ""
    color: str = ""

    def __bool__(self) -> bool:
        return bool(self.stated)

    @property
    def stated(self) -> frozenset[str]:
        """The names out of model.STATEABLE for which something was stated."""
        names = [name for name in ("mean", "std", "range", "interpolation", "color") if getattr(self, name)]
        return frozenset([*names, *["crop"] * bool(self.resize or self.stretch or self.crop)])

    def over(self, other: StatedPreprocessing) -> StatedPreprocessing:
        """Return what either states; of two different statements this one counts. Resize and crop belong together."""
        names = ["mean", "std", "range", "interpolation", "color"]
        geometry = self if "crop" in self.stated else other
        fields = {name: getattr(self, name) or getattr(other, name) for name in names}
        return StatedPreprocessing(**fields, resize=geometry.resize, stretch=geometry.stretch, crop=geometry.crop)


NOTHING_STATED = StatedPreprocessing()


def stated_in(preprocessing: Preprocessing) -> StatedPreprocessing:
    """Return the statements that give a preprocessing again, without what it assumed."""
    values = {
        "mean": preprocessing.mean,
        "std": preprocessing.std,
        "range": preprocessing.range,
        "interpolation": preprocessing.interpolation,
        "color": preprocessing.colour,
    }
    fields: dict[str, Any] = {name: value for name, value in values.items() if name not in preprocessing.assumed}
    if "crop" not in preprocessing.assumed:
        crop = None if preprocessing.resize else preprocessing.crop_pct
        fields |= {"resize": preprocessing.resize, "stretch": preprocessing.stretch, "crop": crop}
    return StatedPreprocessing(**fields)


def read_stated(values: Mapping[str, Any], where: str = "") -> StatedPreprocessing:
    """Return what a mapping or the options state. Texts may stand for numbers: `0.5,0.5,0.5`, `256x256`.

    Raises UsageError for an unknown name or a value that makes no sense.
    """
    readers = {
        "mean": _numbers, "std": _positive, "range": _range, "resize": _resize, "crop": _crop,
        "interpolation": _interpolation, "color": _color,
    }  # fmt: skip
    if unknown := [name for name in values if name not in readers]:
        raise UsageError(
            f"preprocessing has no {unknown[0]!r}", where=where, why=f"it has {', '.join(readers)}", fix="leave it out"
        )
    given = {name: value for name, value in values.items() if value is not None}
    fields: dict[str, Any] = {}
    for name, value in given.items():
        try:
            fields |= {name: readers[name](value)} if name != "resize" else _resize(value)
        except (ValueError, TypeError, OverflowError) as error:
            fix = f"--{name} {_EXAMPLES[name]}" if not where else f"{name!r}: {_PYTHON_EXAMPLES[name]}"
            raise UsageError(f"{value!r} is no {name} of a preprocessing", where=where, fix=fix) from error
    return StatedPreprocessing(**fields)


_EXAMPLES = {
    "mean": "0.485,0.456,0.406, or 0.5 for all channels", "std": "0.229,0.224,0.225, or 0.5 for all channels",
    "range": "0,1 or --range=-1,1 or 0,255", "resize": "256, 256x256 (height x width) or stretch",
    "crop": "0.875, or 224 beside --resize 256", "interpolation": " or ".join(INTERPOLATIONS),
    "color": "RGB, BGR or grey",
}  # fmt: skip
_PYTHON_EXAMPLES = {
    "mean": "(0.485, 0.456, 0.406)", "std": "(0.229, 0.224, 0.225)", "range": "(0, 1)", "resize": "256",
    "crop": "0.875", "interpolation": "'bilinear'", "color": "'RGB'",
}  # fmt: skip


def complete(
    base: Preprocessing, stated: StatedPreprocessing, inputs: Sequence[TensorSpec], *, raw: bool = False
) -> Preprocessing:
    """Return the preprocessing with what was stated, for these inputs. `raw`: they take pixels, (N, H, W, C).

    A network of one channel takes grey images. Raises UsageError where something does not fit the inputs.
    """
    assumed = tuple(name for name in base.assumed if name not in stated.stated)
    simple: dict[str, Any] = {"mean": stated.mean, "std": stated.std, "range": stated.range}
    simple |= {"interpolation": stated.interpolation, "colour": stated.color}
    changed = dataclasses.replace(base, assumed=assumed, **{name: value for name, value in simple.items() if value})
    if "crop" in stated.stated:
        changed = _with_crop(changed, stated, inputs, raw=raw)
    return _with_channels(changed, inputs, raw=raw)


def stated_preprocessing(stated: Mapping[str, Any], inputs: Sequence[TensorSpec], where: str) -> Preprocessing:
    """Return the preprocessing that a mapping states, the rest of it assumed. Raises UsageError."""
    return complete(ASSUMED_PREPROCESSING, read_stated(stated, where), inputs)


def takes_image(inputs: Sequence[TensorSpec]) -> bool:
    """Return whether the only input is an image as models take it: float32 (N, C, H, W), coloured or grey."""
    if len(inputs) != 1 or len(inputs[0].shape) != 4:
        return False
    return inputs[0].shape[1] in IMAGE_CHANNELS and inputs[0].dtype == "float32"


def has_channels_last(inputs: Sequence[TensorSpec]) -> bool:
    """Return whether the only input is an image whose channels are its last axis, as TensorFlow has them."""
    return len(inputs) == 1 and len(inputs[0].shape) == 4 and inputs[0].shape[3] in IMAGE_CHANNELS


def describe_assumed(preprocessing: Preprocessing) -> str:
    """Return `mean, std and crop`, the names of what was not stated; empty where everything was."""
    *first, last = preprocessing.assumed or ("",)
    return f"{', '.join(first)} and {last}" if first else last


def describe_preprocessing(preprocessing: Preprocessing) -> str:
    """Return `shorter side to 256 (bicubic), centre crop, RGB, (pixel / 255 - 0.5) / 0.25`."""
    if preprocessing.resize:
        by = _by(preprocessing.resize)
        size = f"{'sides' if len(preprocessing.resize) > 1 else 'shorter side'} to {by}"
    else:
        size = f"crop {preprocessing.crop_pct:g}{' of the stretched image' * preprocessing.stretch}"
    low, high = preprocessing.range
    scaled = "pixel / 255" if (low, high) == (0, 1) else f"pixel / 255 * {high - low:g} + {low:g}"
    mean, std = (_joined(sorted(set(numbers)) if len(set(numbers)) == 1 else numbers)
                 for numbers in (preprocessing.mean, preprocessing.std))  # fmt: skip
    return f"{size} ({preprocessing.interpolation}), {preprocessing.colour}, ({scaled} - {mean}) / {std}"


def state_options(preprocessing: Preprocessing) -> str:
    """Return the options that state what is assumed, with the values that were assumed: what a person has to check."""
    values = {
        "mean": _joined(preprocessing.mean),
        "std": _joined(preprocessing.std),
        "range": _joined(preprocessing.range),
        "crop": f"{preprocessing.crop_pct:g}",
        "interpolation": preprocessing.interpolation,
        "color": preprocessing.colour,
    }
    return " ".join(f"--{name} {values[name]}" for name in preprocessing.assumed)


def _joined(numbers: Sequence[float]) -> str:
    return ",".join(f"{number:g}" for number in numbers)


def _with_crop(
    base: Preprocessing, stated: StatedPreprocessing, inputs: Sequence[TensorSpec], *, raw: bool
) -> Preprocessing:
    """Return the preprocessing with another resize and crop."""
    size = _image_size(inputs, raw=raw)
    crop = stated.crop or 1.0
    if stated.resize and stated.crop is not None and size and {stated.crop} != set(size):
        why = f"the network takes {_by(size)} pixels, and the crop is what it takes"
        raise UsageError(f"a crop of {stated.crop:g} does not fit --resize {_by(stated.resize)}", why=why)
    if not stated.resize and crop > 1:
        fix = "--crop 0.875, or --resize 256 --crop 224"
        raise UsageError(f"a crop of {crop:g} pixels needs the size that it is cut from", fix=fix)
    if stated.resize and size and min(side - own for side, own in zip(stated.resize * 2, size, strict=False)) < 0:
        problem = f"an image of {_by(stated.resize)} pixels is smaller than the input"
        raise UsageError(problem, why=f"the network takes {_by(size)} pixels", fix=f"--resize {max(size)}")
    share = 1.0 if stated.resize else crop
    return dataclasses.replace(base, crop_pct=share, resize=stated.resize, stretch=stated.stretch)


def _with_channels(base: Preprocessing, inputs: Sequence[TensorSpec], *, raw: bool) -> Preprocessing:
    """Return the preprocessing with a mean and a deviation for each channel, and the colour that one channel has."""
    if len(inputs) != 1 or len(inputs[0].shape) != 4:
        return base
    channels = inputs[0].shape[-1 if raw else _CHANNEL_AXIS]
    if channels == 1 and (base.colour == GREY or "color" in base.assumed):
        # One channel can be nothing else.
        assumed = tuple(name for name in base.assumed if name != "color")
        base = dataclasses.replace(base, colour=GREY, assumed=assumed)
    if "color" not in base.assumed and channels != _CHANNELS[base.colour]:
        why = f"the network takes {channels} channel(s)"
        raise UsageError(f"{base.colour} images have {_CHANNELS[base.colour]} channel(s)", why=why, fix="--color grey")
    values: dict[str, Any] = {}
    for name, neutral in _NEUTRAL.items():
        numbers = getattr(base, name)
        if name in base.assumed and channels != len(numbers):
            numbers = (neutral,)
        if len(numbers) not in (1, channels):
            why = f"the network takes {channels} channel(s)"
            raise UsageError(f"a {name} of {len(numbers)} numbers does not fit", why=why, fix=f"--{name} NUMBER")
        values[name] = numbers * channels if len(numbers) == 1 else numbers
    return dataclasses.replace(base, **values)


def _image_size(inputs: Sequence[TensorSpec], *, raw: bool) -> tuple[int, ...]:
    """Return height and width of the only input; empty for what is no image."""
    if len(inputs) != 1 or len(inputs[0].shape) != 4:
        return ()
    return inputs[0].shape[1:3] if raw else inputs[0].shape[2:]


def _by(sizes: Sequence[int]) -> str:
    return "x".join(map(str, sizes))


def _numbers(value: Any) -> tuple[float, ...]:
    """Return numbers of a text, a number or a sequence. Raise ValueError or TypeError for anything else."""
    parts = value.split(",") if isinstance(value, str) else value if isinstance(value, Sequence) else (value,)
    numbers = tuple(map(float, parts))
    if not numbers or not all(map(math.isfinite, numbers)):
        raise ValueError("no finite numbers")
    return numbers


def _positive(value: Any) -> tuple[float, ...]:
    numbers = _numbers(value)
    if min(numbers) <= 0:
        raise ValueError("a deviation is above 0")
    return numbers


def _range(value: Any) -> tuple[float, float]:
    low, high = _numbers(value)
    if low >= high:
        raise ValueError("the lowest number comes first")
    return low, high


def _resize(value: Any) -> dict[str, Any]:
    if value == STRETCH:
        return {"stretch": True}
    if value in _PADDED:
        raise UsageError(
            f"images are not padded: {value!r} is no resize of a preprocessing",
            why="the color and the place of the padding decide the answers, and each detector has its own",
            fix="pad in your own program and leave --resize out, or --resize stretch if the network was trained so",
        )
    text = "x".join(map(str, value)) if isinstance(value, Sequence) and not isinstance(value, str) else str(value)
    match = re.fullmatch(r"([1-9]\d*)(?:x([1-9]\d*))?", text)
    if match is None:
        raise ValueError("no size")
    return {"resize": tuple(int(side) for side in match.groups() if side)}


def _crop(value: Any) -> float:
    share = float(value)
    if not (0 < share <= 1 or (share > 1 and share == int(share))):
        raise ValueError("neither a share nor pixels")
    return share


def _interpolation(value: Any) -> str:
    name = str(value).lower()
    if name not in INTERPOLATIONS:
        raise ValueError("no interpolation")
    return name


def _color(value: Any) -> str:
    try:
        return COLORS[str(value).upper()]
    except KeyError as error:
        raise ValueError("no color") from error
