"""Numbers narrower than a byte, as ML programs store them: without gaps, each from its least significant bit on."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def unpack(data: NDArray[np.uint8], bits: int, count: int) -> NDArray[Any]:
    """Return the first numbers of so many bits, as uint8. Raises ValueError where there are fewer."""
    digits = np.unpackbits(data, bitorder="little")
    if len(digits) < count * bits:
        raise ValueError(f"{len(data)} bytes do not hold {count} numbers of {bits} bits")
    columns = digits[: count * bits].reshape(count, bits)
    numbers = np.zeros(count, np.uint8)
    for bit in range(bits):
        numbers |= columns[:, bit] << bit
    return numbers
