"""Interpolation to other image sizes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from edgevit_runtime.record import UnsupportedError

from .arguments import Arguments, Operator

# Positions of output pixels among the input's, by the input's and the output's size, in one dimension.
_GRIDS: dict[str, Callable[[int, int], Tensor]] = {
    "STRICT_ALIGN_CORNERS": lambda size, out: torch.arange(out) * ((size - 1) / max(out - 1, 1)),
    "ALIGN_CORNERS": lambda size, out: torch.arange(out) * ((size - 1) / max(out - 1, 1)) + (out == 1) * (size - 1) / 2,
    "DEFAULT": lambda size, out: torch.arange(out) * (size / out),
    "OFFSET_CORNERS": lambda size, out: (torch.arange(out) + 0.5) * (max(1, size - 1) / out),
    "UNALIGN_CORNERS": lambda size, out: (torch.arange(out) + 0.5) * (size / out) - 0.5,
}


def _interpolate(x: Tensor, sizes: Sequence[int], grid: str) -> Tensor:
    """Interpolate the last dimensions linearly, one after another."""
    for axis, size in zip(range(x.ndim - len(sizes), x.ndim), sizes, strict=True):
        position = _GRIDS[grid](x.shape[axis], size).double().clamp(0, x.shape[axis] - 1)
        low = position.floor().long()
        share = (position - low).to(x.dtype).reshape(-1, *[1] * (x.ndim - 1 - axis))
        high = (low + 1).clamp(max=x.shape[axis] - 1)
        x = x.index_select(axis, low) * (1 - share) + x.index_select(axis, high) * share
    return x


def _upsample_bilinear(a: Arguments) -> Tensor:
    sides = [int(a["x"].shape[i] * a.number(f"scale_factor_{n}", 1.0)) for i, n in ((-2, "height"), (-1, "width"))]
    aligned = bool(a.int("align_corners", 1))
    centred = bool(a.int("half_pixel_centers", not aligned))
    if aligned and centred:
        raise UnsupportedError("the reference evaluator has no upsample_bilinear with aligned corners and half pixels")
    grid = "STRICT_ALIGN_CORNERS" if aligned else "UNALIGN_CORNERS" if centred else "DEFAULT"
    return _interpolate(a["x"], sides, grid)


def _upsample_nearest(a: Arguments) -> Tensor:
    x = a["x"]
    for axis, name in ((-2, "height"), (-1, "width")):
        scale, size = a.number(f"scale_factor_{name}", 1.0), x.shape[axis]
        out = int(size * scale)
        x = x.index_select(axis, (torch.arange(out).double() * (size / out)).long().clamp(max=size - 1))
    return x


def _resize_bilinear(a: Arguments) -> Tensor:
    sides = [a.int("target_size_height", 1), a.int("target_size_width", 1)]
    return _interpolate(a["x"], sides, a.text("sampling_mode", "DEFAULT"))


# Paddings of torch's grid_sample by those of MIL, and whether corners are aligned in it.
_PADDINGS = {
    ("constant", True): "zeros",
    ("constant", False): "zeros",
    ("border", True): "border",
    ("border", False): "border",
    ("reflection", True): "reflection",
    ("symmetric", False): "reflection",
}


def _resample(a: Arguments) -> Tensor:
    """Compute samples at given places, which count as torch counts them; other ways to count are not known here."""
    padding, aligned = a.text("padding_mode", "constant"), bool(a.int("align_corners", 0))
    is_known = (padding, aligned) in _PADDINGS and a.number("padding_value", 0.0) == 0
    if not is_known or a.text("coordinates_mode", "") != "normalized_minus_one_to_one":
        raise UnsupportedError("the reference evaluator has no resample of this padding and these coordinates")
    x, places, mode = a["x"], a["coordinates"], a.text("sampling_mode", "bilinear")
    wide = torch.promote_types(x.dtype, places.dtype)
    torch_padding = _PADDINGS[padding, aligned]
    sampled = torch.nn.functional.grid_sample(x.to(wide), places.to(wide), mode, torch_padding, align_corners=aligned)
    return sampled.to(x.dtype)


OPERATORS: dict[str, Operator] = {
    "resample": _resample,
    "resize_bilinear": _resize_bilinear,
    "upsample_bilinear": _upsample_bilinear,
    "upsample_nearest_neighbor": _upsample_nearest,
}
