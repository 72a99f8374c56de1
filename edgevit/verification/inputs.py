"""Sample inputs of a verification: noise, and crops of real photographs where scikit-image is installed.

A model that takes raw pixels also gets a black and a white picture. These are the extremes of its input, and give
norms a variance of zero to divide by.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgevit.records.model import Preprocessing
from edgevit_runtime.record import TensorSpec

_NOISE_SETS = 3
_PHOTOGRAPHS = ("astronaut", "chelsea", "coffee")  # ship inside scikit-image's wheel: nothing is fetched
Arrays = tuple[NDArray[np.generic], ...]


@dataclass(frozen=True)
class Samples:
    """Sets of inputs, one array per input in the order of the specs, with a description of their sources."""

    sets: tuple[Arrays, ...]
    description: str
    batch: int


def make_samples(
    specs: Sequence[TensorSpec], preprocessing: Preprocessing, *, batch: int = 1, seed: int = 0
) -> Samples:
    """Return noise, photographs preprocessed as the model needs them, and extremes; the same for the same seed.

    Noise is standard normal, or uniform over all values of a byte, a boolean or an int8. Wider integers are 0 and 1,
    because only the model knows which other indices or sizes are legal. The description names every source.
    """
    rng = np.random.default_rng(seed)
    sized = [spec.at_batch(batch) for spec in specs]
    sets = [tuple(_noise(spec, rng) for spec in sized) for _ in range(_NOISE_SETS)]
    photographs = _photographs(sized[0], preprocessing, rng) if len(sized) == 1 and _is_image(sized[0]) else []
    extremes = _extremes(sized[0]) if len(sized) == 1 and _is_raw(sized[0]) else {}
    sources = [f"{len(sets)} noise{' (integers 0 and 1)' if any(map(_is_wide_integer, sized)) else ''}"]
    sources += [f"{len(photographs)} photographs"] if photographs else []
    sources += list(extremes)
    sources += [] if photographs else ["no photographs (pip install 'edgevit[photos]', one RGB input)"]
    pictures = (*photographs, *extremes.values())
    return Samples((*sets, *((picture,) for picture in pictures)), ", ".join(sources), batch)


def _noise(spec: TensorSpec, rng: np.random.Generator) -> NDArray[np.generic]:
    dtype = np.dtype(spec.dtype)
    if dtype.kind == "f":
        return rng.standard_normal(spec.shape).astype(dtype)
    lowest, highest = (
        (0, 1) if dtype.kind == "b" or _is_wide_integer(spec) else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    )
    return rng.integers(lowest, highest + 1, spec.shape).astype(dtype)


def _is_wide_integer(spec: TensorSpec) -> bool:
    dtype = np.dtype(spec.dtype)
    return dtype.kind in "iu" and dtype.itemsize > 1


def _extremes(spec: TensorSpec) -> dict[str, NDArray[np.generic]]:
    return {name: np.full(spec.shape, value, spec.dtype) for name, value in (("black", 0), ("white", 255))}


def _is_image(spec: TensorSpec) -> bool:
    """Return whether the input is an image, float (N, 3, H, W) or raw (N, H, W, 3)."""
    return (len(spec.shape) == 4 and (spec.shape[1], spec.dtype) == (3, "float32")) or _is_raw(spec)


def _is_raw(spec: TensorSpec) -> bool:
    return len(spec.shape) == 4 and (spec.shape[3], spec.dtype) == (3, "uint8")


def _photographs(spec: TensorSpec, preprocessing: Preprocessing, rng: np.random.Generator) -> list[NDArray[np.generic]]:
    if importlib.util.find_spec("skimage") is None:
        return []
    mean, std = (np.array(value)[:, None, None] for value in (preprocessing.mean, preprocessing.std))
    raw = _is_raw(spec)
    batch, height, width = spec.shape[0], *(spec.shape[1:3] if raw else spec.shape[2:])
    batches = []
    for name in _PHOTOGRAPHS:
        sides = _photograph(name).shape[:2]
        crops = []
        for _ in range(batch):
            side = int(min(sides) * preprocessing.crop_pct)
            row, column = (int(rng.integers(0, size - side + 1)) for size in sides)
            crop = _crop(name, row, column, side, height, width)
            crops.append(np.round(crop * 255) if raw else (np.moveaxis(crop, 2, 0) - mean) / std)
        batches.append(np.stack(crops).astype(spec.dtype))
    return batches


@functools.cache
def _photograph(name: str) -> NDArray[np.uint8]:
    import skimage.data

    photograph: NDArray[np.uint8] = getattr(skimage.data, name)()[:, :, :3]
    return photograph


# Artifacts of one input size that are verified one after the other have the same crops.
@functools.lru_cache(maxsize=8 * len(_PHOTOGRAPHS))
def _crop(name: str, row: int, column: int, side: int, height: int, width: int) -> NDArray[np.float64]:
    """Return a square part of a photograph at another size, from 0 to 1: (height, width, 3)."""
    from skimage.transform import resize

    part = _photograph(name)[row : row + side, column : column + side]
    crop: NDArray[np.float64] = resize(part, (height, width), anti_aliasing=True)
    crop.setflags(write=False)
    return crop
