"""Samples for a calibration: images of a folder, a file of samples, or the photographs that ship, and some to judge by.

Images are kept as the bytes of their pixels, so that 500 of them take 75 MB, and a batch is made when it is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgevit.errors import UsageError
from edgevit.images.calibration_files import MOST, calibration_files, calibration_sha256, spread
from edgevit.images.pictures import Pixels, UnreadableError, as_input, image_size, read_picture
from edgevit.plain_files import read_plain
from edgevit.quantization.quantized import CalibrationData
from edgevit.records.model import Preprocessing
from edgevit.verification.inputs import Arrays, Pictures, Samples, noise, photographs, read_rows, takes_photographs
from edgevit_runtime.record import TensorSpec

# Samples that the result is judged by, which no range comes from; a quarter of them where there are few.
JUDGED = 8
_SHARE = 4
# Draws of crops from the photographs, and of noise for models that take no image.
_DRAWS = 8

Row = NDArray[np.generic]
T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class CalibrationSamples:
    """What a quantization is calibrated on, and what it is to be judged by.

    judged: None stands for the samples that every verification has. description: of those that ranges come from.
    """

    batches: Sequence[tuple[Tensor, ...]]
    judged: Pictures | None
    description: str
    is_assumed: bool
    sha256: str

    def data(self, samples: Samples) -> CalibrationData:
        """Return the tensors of both; `samples` are those of the verification, made with `judged`."""
        judged = [_tensors(arrays) for arrays in samples.sets[samples.natural]]
        return CalibrationData(self.batches, judged, self.description, self.is_assumed, self.sha256)


def calibration_samples(
    specs: Sequence[TensorSpec],
    preprocessing: Preprocessing,
    data: Path | None,
    value_range: tuple[float, float] | None = None,
    *,
    batch: int = 1,
) -> CalibrationSamples:
    """Return the samples of a folder of images or of a `.npy` file, with some of them kept apart to judge by.

    specs: the inputs, of which a folder or a file serves the only one. value_range: of an input whose samples are not
    the caller's, which is assumed. Raises UsageError for data that do not fit.
    """
    if data is None:
        return _shipped([spec.at_batch(batch) for spec in specs], preprocessing, value_range)
    rows = _images(data, preprocessing, specs) if data.is_dir() else _samples(data, specs)
    judged = spread(len(rows), min(JUDGED, len(rows) // _SHARE))
    kept = [position for position in range(len(rows)) if position not in judged]
    judging = _batched(rows, sorted(judged) or kept, batch)
    origin, alike = f"{len(judged) or len(rows)} of {data.name}", "" if judged else ", which judge it too"
    return CalibrationSamples(
        _Lazy(-(-len(kept) // batch), lambda number: _tensors((_batched(rows, kept, batch)[number],))),
        Pictures(list(judging), origin),
        f"{len(kept)} of {data.name}{alike}",
        is_assumed=False,
        sha256=calibration_sha256(data),
    )


def _shipped(
    sized: Sequence[TensorSpec], preprocessing: Preprocessing, value_range: tuple[float, float] | None
) -> CalibrationSamples:
    """Return crops of the photographs, other ones than verification has, or noise where the model takes no image."""
    found, kind = list[Arrays](), "draws of noise"
    for seed in range(1, _DRAWS + 1):
        rng = np.random.default_rng(seed)
        crops = []
        if len(sized) == 1 and takes_photographs(sized[0]):
            crops = photographs(sized[0], preprocessing, rng, value_range)
            kind = "crops of the photographs that ship" if crops else kind
        found += [(crop,) for crop in crops] or [tuple(noise(spec, rng, value_range) for spec in sized)]
    batches = _Lazy(len(found), lambda number: _tensors(found[number]))
    return CalibrationSamples(batches, None, f"{len(found)} {kind}", is_assumed=True, sha256="")


def _samples(file: Path, specs: Sequence[TensorSpec]) -> Sequence[Row]:
    rows = read_rows(file, specs)
    return list(rows[sorted(spread(len(rows), MOST))])


def _images(folder: Path, preprocessing: Preprocessing, specs: Sequence[TensorSpec]) -> Sequence[Row]:
    """Return images of a folder as inputs, made from their pixels when they are asked for."""
    height, width = image_size(tuple(specs), preprocessing)
    read = partial(_pixels, preprocessing=preprocessing, height=height, width=width)
    pixels = list(map(read, calibration_files(folder)))
    return _Lazy(len(pixels), lambda number: as_input(pixels[number], preprocessing, specs[0]))


def _pixels(file: Path, preprocessing: Preprocessing, height: int, width: int) -> Pixels:
    problem, where = "an image cannot be read", str(file)
    try:
        return read_picture(read_plain(file), preprocessing, height, width).pixels
    except OSError as error:
        raise UsageError(problem, where=where, why=error.strerror or str(error), fix="another folder") from error
    except UnreadableError as error:
        raise UsageError(problem, where=where, why=str(error), fix="replace or remove it") from error


class _Lazy(Sequence[T]):
    """A sequence whose elements are made whenever they are asked for."""

    def __init__(self, count: int, make: Callable[[int], T]) -> None:
        self._range, self._make = range(count), make

    def __len__(self) -> int:
        return len(self._range)

    @overload
    def __getitem__(self, number: int) -> T: ...
    @overload
    def __getitem__(self, number: slice) -> Sequence[T]: ...
    def __getitem__(self, number: int | slice) -> Any:
        if isinstance(number, slice):
            return [self._make(each) for each in self._range[number]]
        return self._make(self._range[number])


def _batched(rows: Sequence[Row], positions: Sequence[int], batch: int) -> Sequence[Row]:
    """Return the rows at some positions in batches, the last one filled up from the first rows."""

    def at(number: int) -> Row:
        chosen = [positions[(number * batch + i) % len(positions)] for i in range(batch)]
        return np.stack([rows[position] for position in chosen])

    return _Lazy(-(-len(positions) // batch), at)


def _tensors(arrays: Arrays) -> tuple[Tensor, ...]:
    return tuple(torch.from_numpy(np.ascontiguousarray(array)) for array in arrays)
