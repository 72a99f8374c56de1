"""Preprocessing of transformers: preprocessor_config.json in edgevit's words.

Most of its image processors resize, crop, rescale and normalise by the same keys. Where one has steps of its own that
are not known here, resize and crop stay unstated, so that they count as assumed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgevit.errors import ModelError
from edgevit.records.preprocessing import NOTHING_STATED, StatedPreprocessing

Size = tuple[int, int]
_RESAMPLING = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}  # of Pillow
_BITS = 255.0
# The image processors that resize and crop by `size` and `crop_size` alone.
_PLAIN = frozenset(
    {"Beit", "Bit", "CLIP", "DeiT", "EfficientNet", "MobileNetV1", "MobileNetV2", "MobileViT", "Segformer", "Siglip",
     "ViT"}
)  # fmt: skip
# Those for which a single number as `size` is the shorter side.
_BY_SHORTER_SIDE = frozenset({"Bit", "CLIP", "ConvNext", "Levit", "MobileNetV1", "MobileNetV2", "MobileViT"})
_CONVNEXT_LARGE = 384  # from this size on it does not crop
_LEVIT_RATIO = 256 / 224


def read_preprocessing(folder: Path, config: Mapping[str, Any]) -> tuple[StatedPreprocessing, Size | None]:
    """Return what a folder's image processor states, and the size of its images; None where nothing tells it.

    config: that of the network, whose image_size counts where the processor has none. Raise ModelError for a damaged
    file.
    """
    processor = _read(folder)
    try:
        own_size = _sides(config.get("image_size"))
        return _stated(processor, own_size) if processor else (NOTHING_STATED, own_size)
    except (ValueError, TypeError, OverflowError, ZeroDivisionError) as error:
        problem, why = "the preprocessing cannot be read", f"a size or a number makes no sense: {error}"
        raise ModelError(problem, where=str(folder), why=why) from error


def _stated(processor: Mapping[str, Any], own_size: Size | None) -> tuple[StatedPreprocessing, Size | None]:
    """Return what a processor's configuration states. Raises ValueError, TypeError... for values of other types."""
    resize, stretch, size = _geometry(processor, own_size)
    mean, deviation, pixels = _normalisation(processor)
    if any(side < 1 for side in (*resize, *(size or ()))) or not all(map(math.isfinite, (*mean, *deviation, *pixels))):
        raise ValueError(f"resize {resize}, size {size}, mean {mean}, deviation {deviation}, pixels {pixels}"[:200])
    stated = StatedPreprocessing(
        mean=mean,
        std=deviation,
        range=pixels,
        resize=resize,
        stretch=stretch,
        interpolation=_RESAMPLING.get(processor.get("resample", -1), ""),
        color="BGR" if processor.get("do_flip_channel_order") else "RGB",
    )
    return stated, size


def _read(folder: Path) -> dict[str, Any]:
    """Return the image processor's configuration; empty where the folder has none."""
    for name in ("preprocessor_config.json", "processor_config.json"):
        file = folder / name
        if not file.is_file():
            continue
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ModelError("the preprocessing cannot be read", where=str(file), why=str(error)) from error
        except RecursionError:
            why = "its values are nested too deep"
            raise ModelError("the preprocessing cannot be read", where=str(file), why=why) from None
        inner = content.get("image_processor", content) if isinstance(content, dict) else None
        if not isinstance(inner, dict):
            raise ModelError("the preprocessing cannot be read", where=str(file), why="it is no JSON object")
        return inner
    return {}


def _geometry(processor: Mapping[str, Any], own_size: Size | None) -> tuple[tuple[int, ...], bool, Size | None]:
    """Return resize and stretch as StatedPreprocessing has them, and the size of the input."""
    kind = str(processor.get("image_processor_type") or processor.get("feature_extractor_type") or "")
    family = kind.removesuffix("Fast").removesuffix("ImageProcessor").removesuffix("FeatureExtractor")
    size = processor.get("size")
    if isinstance(size, int) and family in _BY_SHORTER_SIDE:
        size = {"shortest_edge": size}
    both, shortest = _sides(size), _shortest(size)
    cropped = _sides(processor.get("crop_size")) if processor.get("do_center_crop") else None
    if family == "ConvNext" and shortest:
        if shortest >= _CONVNEXT_LARGE:
            return (), True, (shortest, shortest)
        share = float(processor.get("crop_pct") or 224 / 256)
        return (int(shortest / share),), False, (shortest, shortest)
    if family == "Levit" and shortest and cropped:
        return (int(_LEVIT_RATIO * shortest),), False, cropped
    if family not in _PLAIN or not processor.get("do_resize", True):
        return (), False, cropped or both or own_size
    if cropped:
        resize = (shortest,) if shortest else both or ()
        return resize, False, cropped
    if both:
        return (), True, both
    # Images of any shape go through such a processor: which part of one the network sees is not stated.
    return (), False, own_size or ((shortest, shortest) if shortest else None)


def _normalisation(
    processor: Mapping[str, Any],
) -> tuple[tuple[float, ...], tuple[float, ...], tuple[float, float]]:
    """Return mean, deviation and the range of the pixels before both."""
    factor = float(processor.get("rescale_factor") or 1 / _BITS) if processor.get("do_rescale", True) else 1.0
    low = -1.0 if processor.get("rescale_offset") else 0.0
    # 1/255 is written in as many digits as a float has.
    high = round(low + _BITS * factor, 6)
    if not processor.get("do_normalize", True):
        return (0.0,), (1.0,), (low, high)
    mean, deviation = _numbers(processor.get("image_mean")), _numbers(processor.get("image_std"))
    if processor.get("include_top") and "EfficientNet" in str(processor.get("image_processor_type")):
        # EfficientNet's processor divides once more.
        deviation = tuple(value * value for value in deviation)
    return mean, deviation, (low, high)


def _numbers(value: Any) -> tuple[float, ...]:
    if isinstance(value, (int, float)):
        return (float(value),)
    return tuple(map(float, value)) if isinstance(value, list) else ()


def _sides(value: Any) -> Size | None:
    """Return height and width of 224, [224, 224] or {"height": 224, "width": 224}; None for anything else."""
    if isinstance(value, int) and value > 0:
        return value, value
    if isinstance(value, (list, tuple)) and len(value) == 2:
        return int(value[0]), int(value[1])
    if isinstance(value, dict) and "height" in value and "width" in value:
        return int(value["height"]), int(value["width"])
    return None


def _shortest(value: Any) -> int | None:
    return int(value["shortest_edge"]) if isinstance(value, dict) and value.get("shortest_edge") else None
