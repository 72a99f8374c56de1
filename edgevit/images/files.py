"""Image files below a folder, in the order of their names."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from edgevit.errors import UsageError

# The suffixes of images in torchvision's ImageFolder.
SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp"))


def files_below(folder: Path) -> list[tuple[str, Path]]:
    """Return every visible file below a folder, by its name in it. Links are followed, except in circles.

    Raises UsageError for a folder that cannot be read.
    """
    return sorted((composed(path.relative_to(folder).as_posix()), path) for path in _walk(folder, ()))


def image_files(folder: Path) -> list[Path]:
    """Return every image below a folder, in the order of their names. Raises UsageError as files_below() does."""
    return [path for _, path in files_below(folder) if is_image(path)]


def is_image(path: Path) -> bool:
    """Return whether a file has the suffix of an image."""
    return path.suffix.lower() in SUFFIXES


def composed(name: str) -> str:
    """Return a name in Unicode's composed form (NFC), as file systems differ in it."""
    return unicodedata.normalize("NFC", name)


def _walk(folder: Path, above: tuple[str, ...]) -> Iterator[Path]:
    real = os.path.realpath(folder)
    if real in above:
        return
    try:
        inside = list(folder.iterdir())
    except OSError as error:
        raise UsageError("the data set cannot be read", where=str(folder), why=str(error.strerror)) from error
    for path in inside:
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield from _walk(path, (*above, real))
        else:
            yield path
