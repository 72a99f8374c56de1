"""Files that a quantization is calibrated on: images of a folder, or one file of samples. Importing costs no torch."""

from __future__ import annotations

import hashlib
from pathlib import Path

from edgevit.errors import UsageError
from edgevit.images.files import SUFFIXES, image_files
from edgevit.plain_files import read_plain

# Of a folder, images at a regular distance; of a file, samples. More do not change the ranges much.
MOST = 512


def calibration_files(data: Path) -> list[Path]:
    """Return the images of a folder that are used, or the file itself. Raises UsageError where there is nothing."""
    if not data.is_dir():
        if not data.exists():
            raise UsageError("there are no such samples", where=str(data), fix="--data FOLDER of images, or FILE.npy")
        return [data]
    files = image_files(data)
    if not files:
        why = f"no file below it ends in {', '.join(sorted(SUFFIXES))}"
        raise UsageError("no images to calibrate on", where=str(data), why=why, fix="--data FOLDER of images")
    return [files[position] for position in sorted(spread(len(files), MOST))]


def spread(count: int, most: int) -> set[int]:
    """Return at most so many positions at a regular distance."""
    return {number * count // most for number in range(most)} if count > most else set(range(count))


def calibration_sha256(data: Path) -> str:
    """Return the digest of the content of these files, in order. Raises UsageError for one that cannot be read."""
    digest = hashlib.sha256()
    for file in calibration_files(data):
        try:
            digest.update(hashlib.sha256(read_plain(file)).digest())
        except OSError as error:
            why = error.strerror or str(error)
            raise UsageError("samples cannot be read", where=str(file), why=why, fix="--data FOLDER") from error
    return digest.hexdigest()
