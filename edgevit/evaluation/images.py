"""Image files as a model takes them: decoded by Pillow, resized, cropped from the middle, normalised.

The arithmetic is that of torchvision's Resize, CenterCrop, ToTensor and Normalize, with which the families' papers
measured: sides are rounded as there, and Pillow does the resizing, always with antialiasing.
"""

from __future__ import annotations

import io
import math
import struct
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgevit.errors import UsageError
from edgevit.records.model import Preprocessing
from edgevit_runtime.record import TensorSpec

# A format here is a decoder that strangers' files may reach: no PostScript, which starts a program.
_FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP", "GIF", "MPO")
_ORIENTATION, _UPRIGHT = 0x0112, 1  # EXIF's tag, and the value that means that nothing is to be turned
_WITHOUT_RANGE = ("I", "F")  # modes whose black and white nobody tells
_MAX_PIXELS = 2**28  # of a resized image: a line of one pixel's width would take gigabytes
_CHANNELS = 3
# What Pillow's decoders raise for files that are damaged.
_DAMAGED = (
    OSError, SyntaxError, ValueError, TypeError, IndexError, KeyError, EOFError, OverflowError, NotImplementedError,
    struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip

Pixels = NDArray[np.uint8]


class UnreadableError(ValueError):
    """A file is no image that can be read; the message says why."""


@dataclass(frozen=True)
class Picture:
    """What a model is to see of an image, uint8 (H, W, 3), and whether its EXIF data asks for a turn; none is made."""

    pixels: Pixels
    turned: bool


def read_picture(data: bytes, how: Preprocessing, height: int, width: int) -> Picture:
    """The bytes of an image file as the pixels in the middle, after resizing. Raises UnreadableError."""
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            image.load()
            return Picture(cropped(as_rgb(image), how, height, width), _is_turned(image))
    except UnreadableError:
        raise
    except _DAMAGED as error:
        raise UnreadableError(f"{type(error).__name__}: {error}") from error


def as_rgb(image: Image.Image) -> Image.Image:
    """Any image with three channels of 8 bits.

    Grey is repeated, a palette looked up, CMYK converted without a profile; transparency is left out, of 16 bits the
    upper 8 are kept, of several frames the first. Raises UnreadableError for 32 bits, whose range nobody tells.
    """
    if image.mode in _WITHOUT_RANGE:
        raise UnreadableError(f"pixels of Pillow's mode {image.mode}, whose black and white are not told")
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    image.info.pop("transparency", None)  # or Pillow would try to keep it
    return image.convert("RGB")


def _is_turned(image: Image.Image) -> bool:
    try:
        return image.getexif().get(_ORIENTATION, _UPRIGHT) not in (None, 0, _UPRIGHT)
    except _DAMAGED:  # data beside an image that is sound
        return False


def cropped(image: Image.Image, how: Preprocessing, height: int, width: int) -> Pixels:
    """Resize so that the crop is `crop_pct` of the side that fits it closest, then take the middle: (H, W, 3)."""
    size = resized_size(image.size, how, height, width)
    if math.prod(size) > _MAX_PIXELS:
        raise UnreadableError(f"{image.size[0]}x{image.size[1]} pixels: too thin to be resized")
    resized = image.resize(size, Image.Resampling[_known(how.interpolation)])
    left, top = round((size[0] - width) / 2), round((size[1] - height) / 2)
    pixels: Pixels = np.asarray(resized)[top : top + height, left : left + width]
    return pixels


def resized_size(size: tuple[int, int], how: Preprocessing, height: int, width: int) -> tuple[int, int]:
    """(width, height) that an image of `size` (width, height) is resized to, in pixels; the ratio stays."""
    wide, high = (math.floor(side / how.crop_pct) for side in (width, height))
    if size[0] * high <= size[1] * wide:
        return wide, int(wide * size[1] / size[0])
    return int(high * size[0] / size[1]), high


def _known(interpolation: str) -> str:
    name = interpolation.upper()
    if name not in Image.Resampling.__members__:
        known = ", ".join(sorted(Image.Resampling.__members__)).lower()
        raise UsageError(f"no interpolation is called {interpolation!r}", why=f"Pillow has {known}")
    return name


def as_input(pixels: Pixels, how: Preprocessing, spec: TensorSpec) -> NDArray[np.generic]:
    """Pixels uint8 (H, W, 3) as one sample of an input: themselves for uint8, else float (3, H, W), normalised."""
    if how.colour == "BGR":
        pixels = pixels[..., ::-1]
    if spec.dtype == "uint8":
        return np.ascontiguousarray(pixels)
    low, high = how.range
    mean, std = np.array(how.mean, np.float32), np.array(how.std, np.float32)
    scaled = pixels.astype(np.float32) / np.float32(255)
    if (low, high) != (0.0, 1.0):
        scaled = scaled * np.float32(high - low) + np.float32(low)
    return np.ascontiguousarray(np.moveaxis((scaled - mean) / std, 2, 0).astype(spec.dtype))


def image_size(inputs: tuple[TensorSpec, ...], how: Preprocessing) -> tuple[int, int]:
    """(height, width) of the one image that a model takes. Raises UsageError where it takes something else."""
    if len(inputs) == 1 and len(inputs[0].shape) == 4:
        shape, dtype = inputs[0].shape, inputs[0].dtype
        if dtype == "uint8" and shape[3] == _CHANNELS:
            return shape[1], shape[2]
        if dtype in ("float32", "float16") and shape[1] == _CHANNELS and how.layout == "NCHW":
            return shape[2], shape[3]
    told = ", ".join(f"{spec.name} {list(spec.shape)} {spec.dtype}" for spec in inputs)
    raise UsageError("the model takes no image, or not only one", why=f"its inputs: {told}")
