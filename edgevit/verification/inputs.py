"""Sample inputs of a verification: noise, crops of real photographs where scikit-image is installed, and extremes.

Extremes of floating inputs are noise a hundred times smaller, one constant, and zeros with single spikes. They find
what ordinary inputs hide: an epsilon that a converter changed, or a norm of variance zero. A model that takes raw
pixels gets a black and a white picture.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import TYPE_CHECKING

import numpy as np
from numpy.lib.format import MAGIC_PREFIX
from numpy.typing import NDArray

from edgevit.errors import UsageError
from edgevit.plain_files import require_plain
from edgevit.records.artifact import SampleRequest
from edgevit.records.model import IMAGE_CHANNELS, Preprocessing
from edgevit_runtime.record import TensorSpec

STANDARD_NOISE = SampleRequest()
_NO_ARRAY = "it is no array of numbers in NumPy's format"
_NOISE_SETS = 2
_ROWS = 8  # of a file, at most: every engine computes all of them
_DIM = 0.01
_SPIKES = 0.01  # share of the numbers
_STANDARD = (-4.0, 4.0)  # ends of the spikes beside standard normal noise
_PHOTOGRAPHS = ("astronaut", "chelsea", "coffee")  # ship inside scikit-image's wheel: nothing is fetched

if TYPE_CHECKING:
    from PIL import Image

Arrays = tuple[NDArray[np.generic], ...]


@dataclass(frozen=True)
class Samples:
    """Sets of inputs, one array per input in the order of the specs, with a description of their sources."""

    sets: tuple[Arrays, ...]
    description: str
    batch: int
    extremes: int = 0  # sets at the end that amplify rounding
    value_range: tuple[float, float] | None = None  # of floating inputs; None: standard normal noise
    pictures: int = 0  # sets behind the noise that are photographs or the caller's

    @property
    def natural(self) -> slice:
        """The sets that are like what the model was made for: photographs or the caller's samples, else noise."""
        return slice(_NOISE_SETS, _NOISE_SETS + self.pictures) if self.pictures else slice(0, _NOISE_SETS)


@dataclass(frozen=True, eq=False)
class Pictures:
    """Batches of a model's only input, in place of the photographs that ship, and where they come from."""

    batches: Sequence[NDArray[np.generic]]
    origin: str


def make_samples(
    specs: Sequence[TensorSpec],
    preprocessing: Preprocessing,
    request: SampleRequest = STANDARD_NOISE,
    *,
    batch: int = 1,
    seed: int = 0,
    pictures: Pictures | None = None,
) -> Samples:
    """Return noise, the caller's samples or photographs preprocessed as the model needs them, and extremes.

    pictures: the caller's samples, where they are no file.

    Noise is standard normal, uniform in the range of the request, or uniform over all values of a byte, a boolean or an
    int8. Wider integers are 0 and 1, because only the model knows which other indices or sizes are legal. The same seed
    gives the same samples. The description names every source. Raises UsageError for a file that does not fit.
    """
    rng = np.random.default_rng(seed)
    sized = [spec.at_batch(batch) for spec in specs]
    value_range, found, origin = request.value_range, list[NDArray[np.generic]](), ""
    if pictures is not None:
        found, origin = list(pictures.batches), pictures.origin
    elif request.file is not None:
        rows = read_rows(request.file, specs)
        value_range = value_range or (float(rows.min()), float(rows.max()))
        found, origin = _batches(rows[:_ROWS], sized[0]), f"{min(len(rows), _ROWS)} of {request.file.name}"
    elif len(sized) == 1 and takes_photographs(sized[0]):
        found = photographs(sized[0], preprocessing, rng, value_range)
        origin = f"{len(found)} photographs"
    if not any(map(_is_floating, sized)):
        value_range = None  # integers have a range of their own
    sets = [tuple(noise(spec, rng, value_range) for spec in sized) for _ in range(_NOISE_SETS)]
    extremes = _extremes(sized, rng, value_range)
    bounds = f" from {value_range[0]:g} to {value_range[1]:g}" if value_range else ""
    sources = [f"{len(sets)} noise{bounds}{' (integers 0 and 1)' if any(map(_is_wide_integer, sized)) else ''}"]
    sources += [origin] if found else ["no photographs (pip install 'edgevit[photos]', one image as input)"]
    is_raw = len(sized) == 1 and _is_raw(sized[0])
    sources += list(extremes) if is_raw else [f"{len(extremes)} extremes"] * bool(extremes)
    every = (*sets, *((picture,) for picture in found), *extremes.values())
    return Samples(every, ", ".join(sources), batch, 0 if is_raw else len(extremes), value_range, len(found))


def read_rows(file: Path, specs: Sequence[TensorSpec]) -> NDArray[np.generic]:
    """Return the samples of a file, (N, ..) of the model's only input. Raise UsageError where they do not fit it."""
    problem, shape = "these samples cannot be used", (1, *specs[0].shape[1:])
    fix = f"numpy.save({file.name!r}, array), the array of the shape (N, {', '.join(map(str, shape[1:]))})"
    if len(specs) != 1:
        raise UsageError(problem, where=str(file), why=f"the model has {len(specs)} inputs", fix="--input-range 0,1")
    try:
        require_plain(file)
        with file.open("rb") as content:
            is_array = content.read(len(MAGIC_PREFIX)) == MAGIC_PREFIX
        if not is_array:
            raise UsageError(problem, where=str(file), why=_NO_ARRAY, fix=fix)
        # Mapped, so that a header which claims more than the file has is an error, and takes no memory.
        rows = np.load(file, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        raise UsageError(problem, where=str(file), why=error.strerror or str(error), fix=fix) from error
    # TokenError: the text of a header
    except (ValueError, EOFError, TokenError, OverflowError) as error:
        raise UsageError(problem, where=str(file), why=_NO_ARRAY, fix=fix) from error
    if not isinstance(rows, np.ndarray) or rows.dtype.kind not in "fiu":
        raise UsageError(problem, where=str(file), why="it holds no array of numbers", fix=fix)
    if rows.ndim == len(shape) - 1:
        rows = rows[None]
    if rows.shape[1:] != shape[1:] or not len(rows):
        raise UsageError(problem, where=str(file), why=f"its shape is {rows.shape}", fix=fix)
    if not np.isfinite(rows).all():
        raise UsageError(problem, where=str(file), why="it holds numbers that are not finite", fix=fix)
    converted = rows.astype(specs[0].dtype)
    if not _is_floating(specs[0]) and not np.array_equal(converted, rows):
        raise UsageError(problem, where=str(file), why=f"its numbers are not all of {specs[0].dtype}", fix=fix)
    return np.asarray(converted)


def _batches(rows: NDArray[np.generic], spec: TensorSpec) -> list[NDArray[np.generic]]:
    """Return rows in batches of the input's size, the last one filled up from the first rows."""
    size = spec.shape[0]
    count = -(-len(rows) // size)
    return np.split(np.resize(rows, (count * size, *rows.shape[1:])), count)


def noise(
    spec: TensorSpec, rng: np.random.Generator, value_range: tuple[float, float] | None = None
) -> NDArray[np.generic]:
    """Return noise for one input, as make_samples() describes it."""
    dtype = np.dtype(spec.dtype)
    if dtype.kind == "f":
        numbers = rng.uniform(*value_range, spec.shape) if value_range else rng.standard_normal(spec.shape)
        return numbers.astype(dtype)
    lowest, highest = (
        (0, 1) if dtype.kind == "b" or _is_wide_integer(spec) else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    )
    return rng.integers(lowest, highest + 1, spec.shape).astype(dtype)


def _is_wide_integer(spec: TensorSpec) -> bool:
    dtype = np.dtype(spec.dtype)
    return dtype.kind in "iu" and dtype.itemsize > 1


def _extremes(
    specs: Sequence[TensorSpec], rng: np.random.Generator, value_range: tuple[float, float] | None
) -> dict[str, Arrays]:
    """Return sets by name: extremes of floating inputs, beside noise for other inputs; two pictures of raw pixels."""
    if len(specs) == 1 and _is_raw(specs[0]):
        pictures = (("black", 0), ("white", 255))
        return {name: (np.full(specs[0].shape, value, specs[0].dtype),) for name, value in pictures}
    if not any(map(_is_floating, specs)):
        return {}
    lowest, highest = value_range or (0.0, 1.0)
    ends = np.array(value_range or _STANDARD)

    def dim(spec: TensorSpec) -> NDArray[np.float64]:
        drawn = rng.standard_normal(spec.shape) if value_range is None else rng.random(spec.shape) * (highest - lowest)
        return (lowest if value_range else 0.0) + _DIM * drawn

    def constant(spec: TensorSpec) -> NDArray[np.float64]:
        return np.full(spec.shape, (lowest + highest) / 2)

    def spiky(spec: TensorSpec) -> NDArray[np.float64]:
        spikes = rng.random(spec.shape) < _SPIKES
        return np.where(spikes, rng.choice(ends, spec.shape), lowest if value_range else 0.0)

    return {
        draw.__name__: tuple(
            draw(spec).astype(spec.dtype) if _is_floating(spec) else noise(spec, rng) for spec in specs
        )
        for draw in (dim, constant, spiky)
    }


def _is_floating(spec: TensorSpec) -> bool:
    return np.dtype(spec.dtype).kind == "f"


def takes_photographs(spec: TensorSpec) -> bool:
    """Return whether the input is an image, float (N, C, H, W) or raw (N, H, W, C), coloured or grey."""
    if len(spec.shape) != 4:
        return False
    return (spec.shape[1] in IMAGE_CHANNELS and spec.dtype == "float32") or _is_raw(spec)


def _is_raw(spec: TensorSpec) -> bool:
    return len(spec.shape) == 4 and spec.shape[3] in IMAGE_CHANNELS and spec.dtype == "uint8"


def photographs(
    spec: TensorSpec,
    preprocessing: Preprocessing,
    rng: np.random.Generator,
    value_range: tuple[float, float] | None,
) -> list[NDArray[np.generic]]:
    """Return a batch of crops of each photograph that ships; none where scikit-image is not installed."""
    if importlib.util.find_spec("skimage") is None:
        return []
    mean, std = (np.array(value)[:, None, None] for value in (preprocessing.mean, preprocessing.std))
    raw = _is_raw(spec)
    batch, height, width = spec.shape[0], *(spec.shape[1:3] if raw else spec.shape[2:])
    channels = spec.shape[3 if raw else 1]
    batches = []
    for name in _PHOTOGRAPHS:
        sides = _photograph(name).size[::-1]
        crops = []
        for _ in range(batch):
            side = int(min(sides) * preprocessing.crop_pct)
            row, column = (int(rng.integers(0, size - side + 1)) for size in sides)
            crop = _crop(name, row, column, side, height, width)
            if channels == 1:
                crop = crop.mean(2, keepdims=True)
            if raw:
                crops.append(np.round(crop * 255))
            elif value_range:
                crops.append(value_range[0] + np.moveaxis(crop, 2, 0) * (value_range[1] - value_range[0]))
            else:
                crops.append((np.moveaxis(crop, 2, 0) - mean) / std)
        batches.append(np.stack(crops).astype(spec.dtype))
    return batches


@functools.cache
def _photograph(name: str) -> Image.Image:
    """Return a photograph of scikit-image's wheel; the package itself takes half a second to import."""
    from PIL import Image

    spec = importlib.util.find_spec("skimage")
    assert spec is not None and spec.submodule_search_locations
    with Image.open(Path(spec.submodule_search_locations[0]) / "data" / f"{name}.png") as photograph:
        return photograph.convert("RGB")


# Artifacts of one input size that are verified one after the other have the same crops.
@functools.lru_cache(maxsize=8 * len(_PHOTOGRAPHS))
def _crop(name: str, row: int, column: int, side: int, height: int, width: int) -> NDArray[np.float64]:
    """Return a square part of a photograph at another size, from 0 to 1: (height, width, 3)."""
    from PIL import Image

    part = (column, row, column + side, row + side)
    resized = _photograph(name).resize((width, height), Image.Resampling.BILINEAR, box=part)
    crop: NDArray[np.float64] = np.asarray(resized) / 255
    crop.setflags(write=False)
    return crop
