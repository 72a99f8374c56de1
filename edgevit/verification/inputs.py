"""What an artifact is tried on: noise, and crops of real photographs where scikit-image is there to lend some.

One that takes raw pixels is tried on a black and on a white picture as well: the ends of what it may be given, and maps
without any variance for norms to divide by.
"""

from __future__ import annotations

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
    """Sets of inputs, each one array per input in the order of the specs, and where they come from."""

    sets: tuple[Arrays, ...]
    says: str
    batch: int


def make_samples(
    specs: Sequence[TensorSpec], preprocessing: Preprocessing, *, batch: int = 1, seed: int = 0
) -> Samples:
    """Noise, then photographs as the model's own preprocessing makes them, then extremes. The same every time.

    Noise is standard normal, or uniform over all that a byte, a boolean or an int8 can be. Wider integers are 0 and 1:
    what else is legal, an index or a size, only the model knows. `says` tells all of it.
    """
    rng = np.random.default_rng(seed)
    sized = [spec.at_batch(batch) for spec in specs]
    sets = [tuple(_noise(spec, rng) for spec in sized) for _ in range(_NOISE_SETS)]
    photographs = _photographs(sized[0], preprocessing, rng) if len(sized) == 1 and _is_image(sized[0]) else []
    extremes = _extremes(sized[0]) if len(sized) == 1 and _is_raw(sized[0]) else {}
    told = [f"{len(sets)} noise{' (integers 0 and 1)' if any(map(_is_wide_integer, sized)) else ''}"]
    told += [f"{len(photographs)} photographs"] if photographs else []
    told += list(extremes)
    told += [] if photographs else ["no photographs (pip install 'edgevit[photos]', one RGB input)"]
    pictures = (*photographs, *extremes.values())
    return Samples((*sets, *((item,) for item in pictures)), ", ".join(told), batch)


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
    """As models take it, (N, 3, H, W), or raw, (N, H, W, 3)."""
    return (len(spec.shape) == 4 and (spec.shape[1], spec.dtype) == (3, "float32")) or _is_raw(spec)


def _is_raw(spec: TensorSpec) -> bool:
    return len(spec.shape) == 4 and (spec.shape[3], spec.dtype) == (3, "uint8")


def _photographs(spec: TensorSpec, how: Preprocessing, rng: np.random.Generator) -> list[NDArray[np.generic]]:
    if importlib.util.find_spec("skimage") is None:
        return []
    import skimage.data
    from skimage.transform import resize

    mean, std = (np.array(value)[:, None, None] for value in (how.mean, how.std))
    raw = _is_raw(spec)
    batch, height, width = spec.shape[0], *(spec.shape[1:3] if raw else spec.shape[2:])
    made = []
    for name in _PHOTOGRAPHS:
        photograph = getattr(skimage.data, name)()[:, :, :3]
        crops = []
        for _ in range(batch):
            side = int(min(photograph.shape[:2]) * how.crop_pct)
            top, left = (int(rng.integers(0, size - side + 1)) for size in photograph.shape[:2])
            crop = resize(photograph[top : top + side, left : left + side], (height, width), anti_aliasing=True)
            crops.append(np.round(crop * 255) if raw else (np.moveaxis(crop, 2, 0) - mean) / std)
        made.append(np.stack(crops).astype(spec.dtype))
    return made
