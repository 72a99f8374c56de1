"""Fills the layout of a published checkpoint with numbers that follow from each key and shape alone.

The official code, filled the same way, computed the logits in golden/parity_*.json. So two implementations that share
a layout can be compared where no checkpoint can be had. RandomState's streams are frozen: the numbers never change.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

GOLDEN = Path(__file__).parents[1] / "golden"


def load_golden(variant: str) -> dict[str, Any]:
    """Load variant, input_shape, keys (key -> shape) and logits of one published model."""
    golden: dict[str, Any] = json.loads((GOLDEN / f"parity_{variant}.json").read_text())
    return golden


def fill(layout: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """Return a whole state dict: float32, counters int64."""
    return {key: torch.from_numpy(_fill_one(key, tuple(shape))) for key, shape in layout.items()}


def noise_image(shape: Sequence[int]) -> Tensor:
    """Return standard normal noise, float32, NCHW."""
    stream = _stream("input" + "x".join(str(size) for size in shape))
    return torch.from_numpy(stream.standard_normal(tuple(shape)).astype(np.float32))


def _stream(name: str) -> np.random.RandomState:
    return np.random.RandomState(zlib.crc32(name.encode()))


def _fill_one(key: str, shape: tuple[int, ...]) -> Any:
    leaf = key.split(".")[-1]
    if leaf == "num_batches_tracked":
        return np.array(1, dtype=np.int64)
    return np.asarray(_draw(key, leaf, shape), dtype=np.float32)


def _draw(key: str, leaf: str, shape: tuple[int, ...]) -> Any:
    """Draw float64 numbers for a key.

    Statistics and affines of norms are near 1 or 0, biases are small, kernels keep the variance.
    """
    stream = _stream(key)
    if leaf == "running_var":
        return stream.uniform(0.5, 1.5, shape)
    if leaf == "running_mean" or leaf.startswith("b") or not shape:
        return 0.1 * stream.standard_normal(shape)
    if "layer_scale" in key or leaf.startswith("gamma"):
        return stream.uniform(0.2, 0.8, shape)
    if leaf == "pos_embed":
        return 0.5 * stream.standard_normal(shape)
    # One dimension is the weight of a norm.
    if len(shape) == 1:
        return stream.uniform(0.5, 1.5, shape)
    # w1 and w2 are (part, block, in, out).
    fan_in = shape[-2] if leaf in ("w1", "w2") else math.prod(shape[1:])
    return stream.standard_normal(shape) / np.sqrt(fan_in)
