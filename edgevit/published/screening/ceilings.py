"""Ceilings of devices: peak arithmetic and memory bandwidth, which give the shortest possible time of a run.

Each ceiling is generous on purpose. A row below the resulting time is impossible; one above it may still be wrong.
Sources are the vendors' data sheets. A device without an entry here is not checked in this way, and that is counted.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from edgevit.published.screening.claims import Cost

# A 3x3 convolution needs at most 4 times fewer products in Winograd's F(4x4, 3x3) than it has multiply-accumulates
# (Lavin and Gray, arXiv 1509.09308). Larger tiles save more, and lose it to floating-point error.
FAST_CONVOLUTION = 4.0


class Ceiling(NamedTuple):
    """Peak of one kind of device: products per second, bytes per second, and bytes that may stay on the chip."""

    macs_per_s: float
    bytes_per_s: float
    cache_bytes: float
    source: str


# The names are those of the sources: they are compared by their end, letters and digits only.
_CEILINGS: dict[str, Ceiling] = {
    # 6 cores of 16 fp32 products a cycle at 4.7 GHz and 8 of 8 at 3.5 GHz; DDR5-4800, 2 channels
    "i712700h": Ceiling(0.68e12, 76.8e9, 36e6, "Intel ARK, Core i7-12700H; L2 and L3 together"),
    # 14 cores of 32 fp32 products a cycle at 4.8 GHz; DDR4-2933, 4 channels
    "i910940x": Ceiling(2.2e12, 94e9, 34e6, "Intel ARK, Core i9-10940X; L2 and L3 together"),
    # 330 TFLOPS of fp16 with fp16 sums, and 660 of 8 bits
    "rtx4090": Ceiling(330e12, 1.01e12, 73e6, "NVIDIA Ada GPU architecture white paper"),
    # 312 TFLOPS of fp16, 624 TOPS of 8 bits; the faster memory of the two sizes
    "nvidiaa100": Ceiling(312e12, 2.04e12, 41e6, "NVIDIA A100 data sheet"),
    "iphone12": Ceiling(5.5e12, 34.1e9, 32e6, "Apple: 11 trillion operations a second; LPDDR4X-4266, 64 bits"),
    "iphone13mini": Ceiling(7.9e12, 34.1e9, 48e6, "Apple: 15.8 trillion operations a second; LPDDR4X-4266, 64 bits"),
}


def ceiling_of(device: str) -> Ceiling | None:
    """Return the ceiling of a device by its name in a source; None: it has no entry here."""
    plain = re.sub(r"[^a-z0-9]", "", device.lower())
    return next((ceiling for name, ceiling in _CEILINGS.items() if name == plain or plain.endswith(name)), None)


def least_ns(cost: Cost, ceiling: Ceiling) -> tuple[float, str]:
    """Return the shortest possible time of a run of this cost in nanoseconds, and the limit that sets it."""
    arithmetic = (cost.macs or 0.0) / FAST_CONVOLUTION / ceiling.macs_per_s
    memory = max(0.0, (cost.weight_bytes or 0.0) - ceiling.cache_bytes) / ceiling.bytes_per_s
    if memory > arithmetic:
        return 1e9 * memory, f"{cost.weight_bytes or 0:.3g} bytes of weights at {ceiling.bytes_per_s:.3g} a second"
    return 1e9 * arithmetic, f"{cost.macs or 0:.3g} multiply-accumulates at {ceiling.macs_per_s:.3g} a second"
