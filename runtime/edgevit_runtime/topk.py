"""Top-k classes of each sample from a classifier's raw output."""

from __future__ import annotations

import heapq
import math
import struct
from collections.abc import Iterator, Sequence

from edgevit_runtime.record import ITEM_BYTES, TensorSpec

# struct's names for element types that an output may have.
_CODES = {"float16": "e", "float32": "f", "float64": "d", "uint8": "B", "int8": "b", "int32": "i", "int64": "q"}
_DIMENSIONS = 2  # (N, classes)


class ClassesError(ValueError):
    """A model's output is not a tensor of class scores; the message gives the reason."""


def top_classes(
    outputs: Sequence[TensorSpec], raw: Sequence[bytes], batch: int, keep: int
) -> Iterator[tuple[int, ...]]:
    """Yield the `keep` classes with the highest scores of each of `batch` samples, best first.

    For equal scores the class with the lower number comes first. A sample with a NaN among its scores has no classes.
    Raises ClassesError where the outputs are not one tensor (N, classes) of numbers.
    """
    if len(outputs) != 1 or len(outputs[0].shape) != _DIMENSIONS:
        shapes = ", ".join(str(list(spec.shape)) for spec in outputs)
        raise ClassesError(f"its outputs are {shapes}, where a classifier has one, (N, classes)")
    [spec], [data] = outputs, raw
    if spec.dtype not in _CODES:
        raise ClassesError(f"its output is {spec.dtype}, and scores of that type cannot be read")
    count = len(data) // ITEM_BYTES[spec.dtype]
    if count % batch or len(data) % ITEM_BYTES[spec.dtype]:
        raise ClassesError(f"its output has {len(data)} bytes, which are no scores of {batch} samples")
    scores = struct.unpack(f"<{count}{_CODES[spec.dtype]}", data)
    classes = count // batch
    for first in range(0, count, classes):
        yield _top(scores[first : first + classes], keep)


def _top(scores: Sequence[float], keep: int) -> tuple[int, ...]:
    if any(map(math.isnan, scores)):
        return ()
    return tuple(heapq.nlargest(keep, range(len(scores)), key=scores.__getitem__))
