"""Element types and constants of an ML program, from the specification or from the package's weight file."""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgevit_runtime.record import UnsupportedError

from .operators.packing import unpack
from .proto import Message

# MIL's element types by their numbers, in NumPy's spelling.
_DTYPES = {
    1: "bool", 2: "str", 10: "float16", 11: "float32", 12: "float64", 21: "int8", 22: "int16", 23: "int32",
    24: "int64", 25: "int4", 31: "uint8", 32: "uint16", 33: "uint32", 35: "uint4", 36: "uint2", 37: "uint1",
    38: "uint6", 39: "uint3",
}  # fmt: skip
# The types that are narrower than a byte, with their bits.
_BITS = {"int4": 4, "uint1": 1, "uint2": 2, "uint3": 3, "uint4": 4, "uint6": 6}
_PACKAGE_PREFIX = "@model_path/"  # begins each path inside the package
_SENTINEL = 0xDEADBEEF  # begins each record of the weight file
# The types of the weight file by their numbers there, which are others.
_FILED = {
    1: "float16", 2: "float32", 3: "uint8", 4: "int8", 6: "int16", 7: "uint16", 8: "int4", 9: "uint1", 10: "uint2",
    11: "uint4", 12: "uint3", 13: "uint6", 14: "int32", 15: "uint32",
}  # fmt: skip


class ConstantReader:
    """Reads the constants of one package; the weight file is mapped into memory, not copied."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._weight_files: dict[Path, NDArray[np.uint8]] = {}

    def read(self, value: Message, *, keeps_bytes: bool = False) -> Any:
        """Return a text, or a tensor: floats in their declared type, integers as int64.

        torch computes on few other integer types. keeps_bytes: integers of up to 8 bits stay int8 or uint8, which takes
        an eighth of the memory. Value: type = 2, immediateValue = 3, blobFileValue = 5.
        """
        dtype, shape = element_type(value.one(2))
        if value.has(5):
            blob = value.one(5)
            path = self._folder / blob.text(1).removeprefix(_PACKAGE_PREFIX)
            array = self._stored(path, blob.number(2), dtype, shape)
        else:
            tensor = value.one(3).one(1)  # ImmediateValue.tensor
            if dtype == "str":
                return tensor.one(4).text(1)
            array = _immediate(tensor, dtype, math.prod(shape)).reshape(shape)
        keeps = array.dtype.kind in "fb" or (keeps_bytes and array.dtype.itemsize == 1)
        return torch.from_numpy(array.astype(array.dtype if keeps else np.int64, copy=False))

    def _stored(self, path: Path, offset: int, dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
        """Return a constant of the weight file. Its record holds sentinel, type, size and offset of the data."""
        weights = self._weight_file(path)
        sentinel, filed, size, start = struct.unpack_from("<IIQQ", weights.data, offset)
        if (sentinel, _FILED.get(filed), size) != (_SENTINEL, dtype, _bytes(dtype, math.prod(shape))):
            raise ValueError(f"{path.name} holds no {dtype} of {list(shape)} at {offset}")
        if dtype in _BITS:
            return _narrow(weights[start : start + size], dtype, math.prod(shape)).reshape(shape)
        return np.frombuffer(weights, dtype, math.prod(shape), start).reshape(shape)

    def _weight_file(self, path: Path) -> NDArray[np.uint8]:
        if path not in self._weight_files:
            # Copy on write: torch refuses arrays that it may not write to, and the file stays as it is.
            self._weight_files[path] = np.memmap(path, np.uint8, mode="c")
        return self._weight_files[path]


def element_type(value_type: Message) -> tuple[str, tuple[int, ...]]:
    """Return the dtype and the shape of a ValueType; an open dimension is -1.

    ValueType: tensorType = 1. TensorType: dataType = 1, dimensions = 3. Dimension: constant = 1, with size = 1.
    """
    tensor = value_type.one(1)
    if not value_type.has(1) or tensor.number(1) not in _DTYPES:
        raise UnsupportedError(f"the reference evaluator has no values of MIL's type {tensor.number(1)}")
    shape = tuple(size.one(1).number(1) if size.has(1) else -1 for size in tensor.all(3))
    return _DTYPES[tensor.number(1)], shape


def _bytes(dtype: str, count: int) -> int:
    """Return how many bytes so many numbers take."""
    return -(-count * _BITS[dtype] // 8) if dtype in _BITS else count * np.dtype(dtype).itemsize


def _narrow(data: NDArray[np.uint8], dtype: str, count: int) -> NDArray[Any]:
    """Return numbers of a type that is narrower than a byte, as uint8 or int8."""
    numbers = unpack(data, _BITS[dtype], count)
    return numbers if dtype[0] == "u" else ((numbers.astype(np.int8) ^ 8) - 8).astype(np.int8)


def _immediate(tensor: Message, dtype: str, count: int) -> NDArray[Any]:
    """Return the values of a TensorValue as a vector that may be written to.

    TensorValue: floats = 1, ints = 2, bools = 3, longInts = 5, doubles = 6, bytes = 7, each with values = 1.
    """
    if dtype in _BITS:
        return _narrow(np.frombuffer(tensor.one(7).raw(1), np.uint8), dtype, count)
    for number, raw_dtype in ((1, "<f4"), (6, "<f8"), (7, dtype)):
        if tensor.has(number):
            return np.frombuffer(tensor.one(number).raw(1), raw_dtype).astype(dtype)
    return np.array([n for number in (2, 3, 5) for n in tensor.one(number).numbers(1)], dtype)
