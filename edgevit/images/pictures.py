"""Preprocessing of image files: decoding and resizing by Pillow, crop from the centre, normalisation.

The arithmetic is that of torchvision's Resize, CenterCrop, ToTensor and Normalize, which the families' papers used.
Sides are rounded as there, and Pillow resizes, always with antialiasing.
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
from edgevit.records.model import IMAGE_CHANNELS, Preprocessing
from edgevit.records.preprocessing import CHANNELS_FIRST, GREY, has_channels_last
from edgevit_runtime.record import TensorSpec

# A format here is a decoder for untrusted files. PostScript is left out, because it starts a program.
_FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP", "GIF", "MPO")
_ORIENTATION, _UPRIGHT = 0x0112, 1  # EXIF's tag, and its value for an image without rotation
_OPAQUE = 255  # alpha of a pixel that hides what is behind it
_WITHOUT_RANGE = ("I", "F")  # modes whose values of black and white are undefined
_MAX_PIXELS = 2**28  # of a resized image: a line of one pixel's width would take gigabytes
_IMAGE_DIMENSIONS = 3  # of pixels: height, width, channels
# The errors of Pillow's decoders for damaged files.
_DAMAGED = (
    OSError, SyntaxError, ValueError, TypeError, IndexError, KeyError, EOFError, OverflowError, NotImplementedError,
    struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip

Pixels = NDArray[np.uint8]


class UnreadableError(ValueError):
    """A file is no readable image; the message gives the reason."""


@dataclass(frozen=True)
class Picture:
    """The cropped pixels of an image, uint8 (H, W, C), and what of the file is not in them.

    turned: its EXIF data asks for a rotation; none is applied. dropped: `transparency`, or the lower 8 of 16 bits, as
    `bits`; empty: nothing.
    """

    pixels: Pixels
    turned: bool
    dropped: str = ""


def read_picture(data: bytes, preprocessing: Preprocessing, height: int, width: int) -> Picture:
    """Decode, resize and crop the bytes of an image file. Raises UnreadableError."""
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
            # A color image of 16 bits is decoded to 8, so that only its tiles tell.
            has_16_bits = ";16" in str(image.tile)
            image.load()
            dropped = "bits" if has_16_bits else "transparency" * _is_transparent(image)
            converted = as_grey(image) if preprocessing.colour == GREY else as_rgb(image)
            return Picture(cropped(converted, preprocessing, height, width), _is_turned(image), dropped)
    except UnreadableError:
        raise
    except _DAMAGED as error:
        raise UnreadableError(f"{type(error).__name__}: {error}") from error


def as_rgb(image: Image.Image) -> Image.Image:
    """Convert any image to three channels of 8 bits.

    Grey is repeated, a palette is looked up, and CMYK is converted without a profile. Transparency is dropped, as are
    the lower 8 of 16 bits and all frames after the first. Raises UnreadableError for 32 bits, whose range is undefined.
    """
    if image.mode in _WITHOUT_RANGE:
        raise UnreadableError(f"pixels of Pillow's mode {image.mode}, whose black and white are undefined")
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    # Without this Pillow would try to keep the transparency.
    image.info.pop("transparency", None)
    return image.convert("RGB")


def as_grey(image: Image.Image) -> Image.Image:
    """Convert any image to one channel of 8 bits, by the luma of ITU-R 601-2. Raises UnreadableError as as_rgb does."""
    return as_rgb(image).convert("L")


def _is_transparent(image: Image.Image) -> bool:
    """Return whether an image has pixels that do not hide what is behind them."""
    if "A" not in image.getbands() and "transparency" not in image.info:
        return False
    lowest, _ = image.convert("RGBA").getchannel("A").getextrema()
    return bool(lowest != _OPAQUE)


def _is_turned(image: Image.Image) -> bool:
    try:
        return image.getexif().get(_ORIENTATION, _UPRIGHT) not in (None, 0, _UPRIGHT)
    except _DAMAGED:  # damaged metadata of a sound image
        return False


def cropped(image: Image.Image, preprocessing: Preprocessing, height: int, width: int) -> Pixels:
    """Resize as the preprocessing says, then crop the centre: (H, W, 3), or (H, W, 1) of a grey image."""
    size = resized_size(image.size, preprocessing, height, width)
    if math.prod(size) > _MAX_PIXELS:
        raise UnreadableError(f"{image.size[0]}x{image.size[1]} pixels: too thin to be resized")
    resized = image.resize(size, Image.Resampling[_resampling(preprocessing.interpolation)])
    x, y = round((size[0] - width) / 2), round((size[1] - height) / 2)
    pixels: Pixels = np.asarray(resized)[y : y + height, x : x + width]
    return pixels if pixels.ndim == _IMAGE_DIMENSIONS else pixels[..., None]


def resized_size(size: tuple[int, int], preprocessing: Preprocessing, height: int, width: int) -> tuple[int, int]:
    """Return the (width, height) in pixels to which an image of `size` (width, height) is resized.

    The ratio of the sides stays, unless the preprocessing stretches or names both sides.
    """
    wide, high = (math.floor(side / preprocessing.crop_pct) for side in (width, height))
    if len(preprocessing.resize) > 1:
        high, wide = preprocessing.resize
    elif preprocessing.resize:
        wide = high = preprocessing.resize[0]
    if preprocessing.stretch or len(preprocessing.resize) > 1:
        return wide, high
    if size[0] * high <= size[1] * wide:
        return wide, int(wide * size[1] / size[0])
    return int(high * size[0] / size[1]), high


def _resampling(interpolation: str) -> str:
    name = interpolation.upper()
    if name not in Image.Resampling.__members__:
        names = ", ".join(sorted(Image.Resampling.__members__)).lower()
        raise UsageError(f"no interpolation is called {interpolation!r}", why=f"Pillow has {names}")
    return name


def as_input(pixels: Pixels, preprocessing: Preprocessing, spec: TensorSpec) -> NDArray[np.generic]:
    """Convert pixels uint8 (H, W, C) to one sample of an input: unchanged for uint8, else normalised (C, H, W)."""
    if preprocessing.colour == "BGR":
        pixels = pixels[..., ::-1]
    if spec.dtype == "uint8":
        return np.ascontiguousarray(pixels)
    low, high = preprocessing.range
    mean, std = np.array(preprocessing.mean, np.float32), np.array(preprocessing.std, np.float32)
    scaled = pixels.astype(np.float32) / np.float32(255)
    if (low, high) != (0.0, 1.0):
        scaled = scaled * np.float32(high - low) + np.float32(low)
    return np.ascontiguousarray(np.moveaxis((scaled - mean) / std, 2, 0).astype(spec.dtype))


def image_size(inputs: tuple[TensorSpec, ...], preprocessing: Preprocessing) -> tuple[int, int]:
    """Return (height, width) of the image that a model takes. Raises UsageError for other inputs."""
    if len(inputs) == 1 and len(inputs[0].shape) == 4:
        shape, dtype = inputs[0].shape, inputs[0].dtype
        if dtype == "uint8" and shape[3] in IMAGE_CHANNELS:
            return shape[1], shape[2]
        if dtype in ("float32", "float16") and shape[1] in IMAGE_CHANNELS and preprocessing.layout == "NCHW":
            return shape[2], shape[3]
    listed = ", ".join(f"{spec.name} {list(spec.shape)} {spec.dtype}" for spec in inputs)
    fix = "only classifiers of one image are evaluated; --input-shape at the export says what a network takes"
    raise UsageError(
        "the model takes no image, or not only one",
        why=f"its inputs: {listed}",
        fix=CHANNELS_FIRST if has_channels_last(inputs) else fix,
    )
