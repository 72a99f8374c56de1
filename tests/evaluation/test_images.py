"""Preprocessing of evaluation: the same pixels as other implementations give, for every kind of file."""

from __future__ import annotations

import io
import math
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin
from torch.nn import functional as F

from edgevit.errors import UsageError
from edgevit.images.pictures import UnreadableError, as_input, image_size, read_picture, resized_size
from edgevit.records.model import Preprocessing
from edgevit_runtime.record import TensorSpec

INPUT = TensorSpec("image", (1, 3, 24, 24))
COLOURS = (
    np.array([[[200, 30, 10], [20, 160, 60]], [[90, 80, 250], [0, 255, 120]]], np.uint8).repeat(16, 0).repeat(16, 1)
)


def encoded(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def pixels_of(image: Image.Image, format: str = "PNG", **options: Any) -> NDArray[np.uint8]:
    """Return the pixels of an image's file in an evaluation, 32 pixels a side and nothing cropped."""
    return read_picture(encoded(image, format, **options), Preprocessing(crop_pct=1.0), 32, 32).pixels


# Against an implementation without Pillow


def photograph(height: int, width: int) -> NDArray[np.uint8]:
    """Return an image with coarse and fine structure, so that a shift by one pixel shows."""
    rng = np.random.default_rng(height * 1000 + width)
    coarse = F.interpolate(
        torch.rand(1, 3, 5, 7, generator=torch.Generator().manual_seed(1)), (height, width), mode="bicubic"
    )
    return np.clip(220 * coarse[0].permute(1, 2, 0).numpy() + rng.normal(15, 12, (height, width, 3)), 0, 255).astype(
        np.uint8
    )


def by_torch(array: NDArray[np.uint8], preprocessing: Preprocessing, side: int) -> NDArray[np.float64]:
    """Resize (short side), CenterCrop, ToTensor, Normalize as torchvision documents them, in torch and float64."""
    height, width = array.shape[:2]
    short = math.floor(side / preprocessing.crop_pct)
    size = (short, int(short * width / height)) if height <= width else (int(short * height / width), short)
    planes = torch.from_numpy(array).permute(2, 0, 1)[None]
    resized = F.interpolate(planes, size, mode=preprocessing.interpolation, antialias=True, align_corners=False)
    top, x = (round((whole - side) / 2.0) for whole in size)
    crop = resized[0, :, top : top + side, x : x + side].double() / 255
    constants = (preprocessing.mean, preprocessing.std)
    mean, std = (torch.tensor(values, dtype=torch.float64)[:, None, None] for values in constants)
    return ((crop - mean) / std).numpy()


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("crop_pct", [0.875, 0.9, 1.0])
@pytest.mark.parametrize("size", [(375, 500), (333, 250), (97, 61), (24, 24), (25, 300), (40, 23), (13, 200)])
def test_it_is_what_torchvision_documents(size: tuple[int, int], crop_pct: float, interpolation: str) -> None:
    preprocessing = Preprocessing(crop_pct=crop_pct, interpolation=interpolation)
    array = photograph(*size)
    picture = read_picture(encoded(Image.fromarray(array)), preprocessing, 24, 24)
    pixels: NDArray[Any] = as_input(picture.pixels, preprocessing, INPUT)
    expected = by_torch(array, preprocessing, 24)
    assert pixels.shape == (3, 24, 24) and pixels.dtype == np.float32
    # Both round to whole levels after each direction, with coefficients of their own: one level apart, here and there.
    level = 1 / 255 / np.array(preprocessing.std)[:, None, None]
    distance = np.abs(pixels - expected) / level
    assert distance.max() < 1.01 and (distance > 0.5).mean() < 0.05
    shifted = np.abs(pixels[:, :, 1:] - expected[:, :, :-1]) / level
    assert shifted.mean() > 3, "these pixels would not show a shift"


def test_sides_are_rounded_as_torchvision_does() -> None:
    preprocessing = Preprocessing(crop_pct=0.875)
    assert resized_size((500, 375), preprocessing, 224, 224) == (341, 256)
    assert resized_size((375, 500), preprocessing, 224, 224) == (256, 341)
    assert resized_size((500, 375), Preprocessing(crop_pct=0.9), 224, 224) == (330, 248)
    assert resized_size((256, 256), preprocessing, 224, 224) == (256, 256)


SIDES = st.integers(1, 3000)


@given(SIDES, SIDES, st.integers(1, 512), st.integers(1, 512), st.floats(0.3, 1.0))
def test_the_crop_always_fits_and_the_ratio_stays(w: int, h: int, height: int, width: int, crop_pct: float) -> None:
    new_w, new_h = resized_size((w, h), Preprocessing(crop_pct=crop_pct), height, width)
    assert new_w >= width and new_h >= height
    assert new_w == math.floor(width / crop_pct) or new_h == math.floor(height / crop_pct)
    scale = max(new_w / w, new_h / h)
    assert abs(new_w - w * scale) < 1 + 1e-6 and abs(new_h - h * scale) < 1 + 1e-6


def test_an_input_that_is_no_square_is_covered_and_cropped() -> None:
    preprocessing = Preprocessing(crop_pct=0.5)
    picture = read_picture(encoded(Image.fromarray(photograph(90, 90))), preprocessing, 16, 12)
    assert picture.pixels.shape == (16, 12, 3)
    assert resized_size((90, 90), preprocessing, 16, 12) == (32, 32)
    assert resized_size((30, 90), preprocessing, 16, 12) == (24, 72)


# What an input is


def test_range_colour_order_and_raw_bytes() -> None:
    pixels = COLOURS[:24, :24]
    plain = Preprocessing(mean=(0, 0, 0), std=(1, 1, 1), range=(-1.0, 1.0))
    sample = as_input(pixels, plain, INPUT)
    assert np.allclose(sample, np.moveaxis(pixels, 2, 0) / 127.5 - 1, atol=1e-6)
    assert np.array_equal(
        as_input(pixels, Preprocessing(colour="BGR", mean=(0, 0, 0), std=(1, 1, 1)), INPUT)[0] * 255, pixels[..., 2]
    )
    raw = as_input(pixels, Preprocessing(), TensorSpec("image", (1, 24, 24, 3), "uint8"))
    assert raw.dtype == np.uint8 and np.array_equal(raw, pixels)


def test_the_default_is_bit_for_bit_what_float32_tensors_give() -> None:
    preprocessing, pixels = Preprocessing(), COLOURS[:24, :24]
    tensor = torch.from_numpy(pixels).permute(2, 0, 1).float().div(255)
    mean, std = (torch.tensor(values)[:, None, None] for values in (preprocessing.mean, preprocessing.std))
    assert np.array_equal(as_input(pixels, preprocessing, INPUT), tensor.sub(mean).div(std).numpy())


@pytest.mark.parametrize(
    "inputs",
    [
        (TensorSpec("ids", (1, 77), "int64"),),
        (INPUT, INPUT),
        (TensorSpec("image", (1, 4, 24, 24)),),
        (TensorSpec("image", (1, 24, 24, 3)),),
    ],
)
def test_models_that_take_something_else_are_refused(inputs: tuple[TensorSpec, ...]) -> None:
    with pytest.raises(UsageError, match="takes no image, or not only one") as caught:
        image_size(inputs, Preprocessing())
    assert ("permute(0, 2, 3, 1)" in caught.value.fix) == (inputs[0].shape[-1] == 3)


def test_an_unknown_interpolation_is_named() -> None:
    with pytest.raises(UsageError, match="no interpolation is called 'cubic-ish'"):
        read_picture(encoded(Image.fromarray(COLOURS)), Preprocessing(interpolation="cubic-ish"), 8, 8)


# Kinds of files


def test_grey_is_repeated_and_transparency_left_out() -> None:
    grey = Image.fromarray(COLOURS[..., 0])
    expected = np.repeat(COLOURS[..., :1], 3, 2)
    alpha = Image.fromarray(np.full((32, 32), 7, np.uint8))
    assert np.array_equal(pixels_of(grey), expected)
    assert np.array_equal(pixels_of(Image.merge("LA", (grey, alpha))), expected)
    image = Image.fromarray(COLOURS)
    assert np.array_equal(pixels_of(Image.merge("RGBA", (*image.split(), alpha))), COLOURS)
    assert np.array_equal(
        pixels_of(Image.merge("RGBA", (*image.split(), alpha)), "WEBP", lossless=True, exact=True), COLOURS
    )


def test_black_and_white() -> None:
    bits = Image.fromarray(COLOURS[..., 0] > 100)
    assert bits.mode == "1"
    assert np.array_equal(pixels_of(bits), np.repeat((COLOURS[..., :1] > 100) * np.uint8(255), 3, 2))


def test_what_a_conversion_drops_is_counted() -> None:
    image = Image.fromarray(COLOURS)
    solid, faint = (Image.merge("RGBA", (*image.split(), Image.new("L", image.size, level))) for level in (255, 254))
    palette = image.quantize(4, method=Image.Quantize.MEDIANCUT)
    files = {
        "": [encoded(image), encoded(solid), encoded(palette)],
        "transparency": [encoded(faint), encoded(palette, transparency=1)],
        "bits": [png_16(1), png_16(3)],
    }
    for dropped, contents in files.items():
        for content in contents:
            assert read_picture(content, Preprocessing(crop_pct=1.0), 32, 32).dropped == dropped


@pytest.mark.parametrize("transparency", [None, 1, b"\x00\x80\xff\x10"])
def test_a_palette_is_looked_up(transparency: Any) -> None:
    palette = Image.fromarray(COLOURS).quantize(4, method=Image.Quantize.MEDIANCUT)
    options = {} if transparency is None else {"transparency": transparency}
    pixels = pixels_of(palette, **options)
    assert np.array_equal(pixels, np.asarray(palette.convert("RGB")))
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) == 4


def test_cmyk_is_converted_without_a_profile() -> None:
    cmyk = Image.fromarray(COLOURS).convert("CMYK")
    pixels = pixels_of(cmyk, "JPEG", quality=100, subsampling=0)
    assert np.abs(pixels.astype(int) - COLOURS).max() <= 6, "an inverted CMYK image would be the negative"


def png_16(channels: int) -> bytes:
    """Return a PNG of 16 bits a channel, encoded here because Pillow writes none in colour."""
    levels = (np.arange(32 * 32 * channels) * 21 % 65536).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in levels.reshape(32, -1))
    header = struct.pack(">IIBBBBB", 32, 32, 16, 2 if channels == 3 else 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    chunk_bytes = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk_bytes)


@pytest.mark.parametrize("channels", [1, 3])
def test_of_16_bits_the_upper_eight_are_kept(channels: int) -> None:
    levels = np.arange(32 * 32 * channels).reshape(32, 32, channels) * 21 % 65536
    expected = np.broadcast_to(levels >> 8, (32, 32, 3))
    assert np.array_equal(read_picture(png_16(channels), Preprocessing(crop_pct=1.0), 32, 32).pixels, expected)


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_pixels_without_a_range_are_refused(dtype: Any) -> None:
    with pytest.raises(UnreadableError, match="whose black and white are undefined"):
        pixels_of(Image.fromarray(COLOURS[..., 0].astype(dtype)), "TIFF")


def test_of_several_frames_the_first_counts() -> None:
    frames = [Image.fromarray(COLOURS), Image.fromarray(255 - COLOURS)]
    assert np.array_equal(pixels_of(frames[0], save_all=True, append_images=frames[1:]), COLOURS)
    assert np.array_equal(pixels_of(frames[0], "TIFF", save_all=True, append_images=frames[1:]), COLOURS)


def test_an_orientation_is_told_and_not_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = read_picture(encoded(Image.fromarray(COLOURS), exif=exif), Preprocessing(crop_pct=1.0), 32, 32)
    assert turned.turned and np.array_equal(turned.pixels, COLOURS)
    exif[0x0112] = 1
    assert not read_picture(encoded(Image.fromarray(COLOURS), exif=exif), Preprocessing(), 8, 8).turned


def test_a_name_says_nothing_of_the_format(tmp_path: Path) -> None:
    """ImageNet has a PNG file called .JPEG."""
    path = tmp_path / "n02105855_2933.JPEG"
    path.write_bytes(encoded(Image.fromarray(COLOURS)))
    assert np.array_equal(read_picture(path.read_bytes(), Preprocessing(crop_pct=1.0), 32, 32).pixels, COLOURS)


@pytest.mark.parametrize("damage", ["empty", "text", "half a PNG", "half a JPEG", "wrong CRC", "PostScript"])
def test_what_is_no_image_is_refused(damage: str) -> None:
    png, jpeg = encoded(Image.fromarray(COLOURS)), encoded(Image.fromarray(photograph(64, 64)), "JPEG")
    data = {
        "empty": b"",
        "text": b"not an image",
        "half a PNG": png[: len(png) // 2],
        "half a JPEG": jpeg[: len(jpeg) // 2],
        "wrong CRC": png[:20] + bytes([png[20] ^ 1]) + png[21:],
        "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n",
    }[damage]
    with pytest.raises(UnreadableError):
        read_picture(data, Preprocessing(), 8, 8)


@given(st.integers(0, 10**9), st.integers(0, 7))
def test_a_flipped_bit_is_an_image_or_an_error_that_is_named(position: int, bit: int) -> None:
    data = bytearray(JPEG)
    data[position % len(data)] ^= 1 << bit
    try:
        assert read_picture(bytes(data), Preprocessing(), 8, 8).pixels.shape == (8, 8, 3)
    except UnreadableError as error:
        assert str(error)


JPEG = encoded(Image.fromarray(photograph(40, 56)), "JPEG")


def test_a_line_of_pixels_does_not_fill_the_memory() -> None:
    with pytest.raises(UnreadableError, match="1x40000 pixels: too thin"):
        read_picture(encoded(Image.new("L", (1, 40_000))), Preprocessing(), 224, 224)


def test_text_in_a_png_is_no_matter() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "手")
    assert np.array_equal(pixels_of(Image.fromarray(COLOURS), pnginfo=info), COLOURS)


# Stated sizes and grey images


@pytest.mark.parametrize(
    ("preprocessing", "size"),
    [
        (Preprocessing(resize=(40,)), (60, 40)),
        (Preprocessing(resize=(40, 48)), (48, 40)),
        (Preprocessing(crop_pct=1.0, stretch=True), (32, 32)),
        (Preprocessing(crop_pct=0.8, stretch=True), (40, 40)),
    ],
)
def test_a_stated_size_is_the_size_of_the_resized_image(preprocessing: Preprocessing, size: tuple[int, int]) -> None:
    assert resized_size((90, 60), preprocessing, 32, 32) == size
    image = Image.fromarray(COLOURS).resize((90, 60))
    expected = np.asarray(image.resize(size, Image.Resampling.BICUBIC))
    x, y = (size[0] - 32) // 2, (size[1] - 32) // 2
    pixels = read_picture(encoded(image), preprocessing, 32, 32).pixels
    assert np.array_equal(pixels, expected[y : y + 32, x : x + 32])


def test_a_grey_input_gets_luma_and_its_own_mean() -> None:
    preprocessing = Preprocessing(mean=(0.5,), std=(0.25,), colour="GREY", crop_pct=1.0)
    pixels = read_picture(encoded(Image.fromarray(COLOURS)), preprocessing, 32, 32).pixels
    red, green, blue = np.moveaxis(COLOURS.astype(np.float64), 2, 0)
    assert (
        pixels.shape == (32, 32, 1) and np.abs(pixels[..., 0] - (0.299 * red + 0.587 * green + 0.114 * blue)).max() <= 1
    )
    sample = as_input(pixels, preprocessing, TensorSpec("image", (1, 1, 32, 32)))
    assert sample.shape == (1, 32, 32)
    assert np.allclose(sample[0], (pixels[..., 0] / 255 - 0.5) / 0.25, atol=1e-5)
    assert image_size((TensorSpec("image", (1, 1, 32, 32)),), preprocessing) == (32, 32)
    assert image_size((TensorSpec("image", (1, 32, 32, 1), "uint8"),), preprocessing) == (32, 32)
