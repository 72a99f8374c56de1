"""A data set as a folder: one folder of images for each class, FOLDER/CLASS/image.*, as for ImageNet.

The order of the names decides the class of a folder, as in torchvision's ImageFolder, unless there is a list of names.
A wrong order gives a wrong accuracy and no error, so ambiguous orders are refused.
"""

from __future__ import annotations

import hashlib
import os
import random
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgevit.errors import UsageError
from edgevit.images.files import SUFFIXES, composed, files_below, is_image
from edgevit.plain_files import read_plain
from edgevit.records.model import IMAGENET

_SYNSET = re.compile(r"n\d{8}")
_IMAGENET_CLASSES = 1000
_IMAGENET_FILE = re.compile(r"ILSVRC2012_val_\d{8}\.jpe?g", re.IGNORECASE)
_SPLITS = ("val", "validation", "test")
_SEED = 0  # of the draw of a part
_SHOWN = 3  # names in a message


# What says which class a folder has: a list of the caller, the artifact's labels, ImageNet's names, or nothing.
ClassOrder = Literal["classes", "labels", "synsets", "folders"]
_ORDERS: dict[ClassOrder, str] = {
    "classes": "by --classes",
    "labels": "by the artifact's labels",
    "synsets": "by ImageNet's synsets",
    "folders": "by the names of the folders (assumed)",
}
CLASSES_FIX = "--classes FILE, with the names of the folders in the order of the model's outputs, one a line"


@dataclass(frozen=True)
class Example:
    """An image file, the number of its class, and its name below the data set's folder."""

    path: Path
    label: int
    name: str


@dataclass(frozen=True)
class ImageFolder:
    """The images to classify, by name, and the other content of the folder.

    images: number of images in the folder, of which `examples` may be a part. passed_over: files whose names are not
    those of images. empty: classes of the model without an image. labels: of the classes, in the order of the outputs.
    order: what says that this is their order.
    """

    dataset: str
    examples: tuple[Example, ...]
    images: int
    classes: int
    empty: int
    passed_over: tuple[str, ...]
    labels: tuple[str, ...] = ()
    order: ClassOrder = "folders"

    @property
    def order_is_assumed(self) -> bool:
        """Whether the order of the classes is that of the folders' names, which nothing stated."""
        return self.order == "folders"

    def contradicts(self, labels: Sequence[str]) -> bool:
        """Return whether an artifact's labels name these classes in another order; other names contradict nothing."""
        names = [composed(label) for label in labels]
        shared = set(names) & set(self.labels)
        return any(one != other for one, other in zip(names, self.labels, strict=False) if {one, other} & shared)

    def describe_order(self) -> str:
        """Return `class order: 0 = green, 1 = orange, 2 = red, by the names of the folders (assumed)`."""
        numbered = [f"{number} = {label}" for number, label in enumerate(self.labels)]
        if len(numbered) > 2 * _SHOWN:
            numbered = [*numbered[:_SHOWN], "...", *numbered[-1:]]
        return f"class order: {', '.join(numbered)}, {_ORDERS[self.order]}"

    def describe(self) -> str:
        """Return `360 images of 10 classes`, or `500 of 50000 images of 1000 classes, drawn with seed 0`."""
        part, seed = (f"{len(self.examples)} of ", f", drawn with seed {_SEED}") if self.is_part else ("", "")
        return f"{part}{self.images} images of {self.classes - self.empty} classes{seed}"

    @property
    def is_part(self) -> bool:
        """Whether only some of the images are classified."""
        return len(self.examples) < self.images


def read_folder(
    root: Path,
    classes: int,
    *,
    labels: Sequence[str] = (),
    names: Path | None = None,
    dataset: str = "",
    limit: int | None = None,
) -> ImageFolder:
    """Return the images below `root` for a model with this many classes.

    labels: the artifact's names of the classes, in the order of the outputs. names: a file with the names of the class
    folders in that order, one a line. limit: the size of a part of the images, drawn at random with a fixed seed.
    Raises UsageError for a missing folder, for a folder without images, and for classes that are not the model's.
    """
    folders = _class_folders(root)
    source, ordered = _order(root, list(folders), classes, labels, names)
    order = {name: number for number, name in enumerate(ordered) if name in folders}
    files = {name: files_below(path) for name, path in folders.items()}
    examples = [Example(path, order[name], f"{name}/{inner}") for name in folders for inner, path in files[name]]
    images = [example for example in examples if is_image(example.path)]
    if not images:
        fix = f"FOLDER/CLASS/image{'|'.join(sorted(SUFFIXES))}"
        raise UsageError("no images in the data set", where=str(root), fix=fix)
    return ImageFolder(
        dataset=dataset or _name(root, images),
        examples=_drawn(images, limit),
        images=len(images),
        classes=classes,
        empty=classes - len({example.label for example in images}),
        passed_over=tuple(example.name for example in examples if not is_image(example.path)),
        labels=tuple(ordered),
        order=source,
    )


def examples_sha256(examples: Iterable[Example], digests: Iterable[str]) -> str:
    """Return the digest of a data set: each file's name below the folder, its class and its content's sha256."""
    digest = hashlib.sha256()
    for example, content in zip(examples, digests, strict=True):
        digest.update(os.fsencode(f"{example.name}\0{example.label}\0{content}\n"))
    return digest.hexdigest()


def _class_folders(root: Path) -> dict[str, Path]:
    """Return the class folders by name. Names are compared in Unicode's composed form, as file systems differ in it."""
    try:
        inside = [path for path in root.iterdir() if not path.name.startswith(".")]
    except OSError as error:
        raise UsageError("the data set cannot be read", where=str(root), why=str(error.strerror)) from error
    subfolders = [path for path in inside if path.is_dir()]
    if not subfolders:
        count = sum(map(is_image, inside))
        why = f"{count} images are in it directly, so their classes are unknown" if count else "it has none"
        fix = "put the images of each class into a folder of their own: FOLDER/CLASS/image.jpg"
        raise UsageError("no class folders in the data set", where=str(root), why=why, fix=fix)
    folders = {composed(path.name): path for path in sorted(subfolders, key=lambda path: composed(path.name))}
    if len(folders) < len(subfolders):
        raise UsageError("two class folders have one name", where=str(root), why="their names differ in form only")
    return folders


def _order(
    root: Path, folders: Sequence[str], classes: int, labels: Sequence[str], names: Path | None
) -> tuple[ClassOrder, list[str]]:
    """Return the names of the classes in the order of the outputs, and what says that it is this one."""
    if names is not None:
        listed = _read_names(names, classes, folders)
        _require_listed(root, folders, listed, str(names))
        return "classes", listed
    labels = [composed(label) for label in labels]
    if set(folders) & set(labels) and len(labels) == classes:
        _require_listed(root, folders, labels, "the artifact's labels")
        return "labels", labels
    if len(folders) != classes:
        raise _other_count(root, folders, classes)
    as_numbers = _as_numbers(folders)
    if as_numbers != list(folders):
        why = f"by name they are {', '.join(folders[:_SHOWN])}..., and as numbers {', '.join(as_numbers[:_SHOWN])}..."
        problem = "the class folders are numbers, and their order can be two"
        raise UsageError(problem, where=str(root), why=why, fix=CLASSES_FIX)
    is_imagenet = classes == _IMAGENET_CLASSES and all(map(_SYNSET.fullmatch, folders))
    return ("synsets" if is_imagenet else "folders"), list(folders)


def _as_numbers(folders: Sequence[str]) -> list[str]:
    """Sort folders named by numbers numerically. Other names keep their order."""
    if not all(name.isascii() and name.isdecimal() for name in folders):
        return list(folders)
    return sorted(folders, key=lambda name: (int(name), name))


def _require_listed(root: Path, folders: Sequence[str], listed: Sequence[str], source: str) -> None:
    """Raise UsageError for a folder that is missing from a list of names, or repeated there."""
    count = Counter(listed)
    twice = [name for name in folders if count[name] > 1]
    for wrong, problem in ((_not_in(folders, count), "not among"), (twice, "twice among")):
        if wrong:
            shown = ", ".join(map(repr, wrong[:_SHOWN]))
            why = f"{len(wrong)} of {len(folders)}: {shown}{'...' if len(wrong) > _SHOWN else ''}"
            problem = f"class folders of {root} are {problem} the names"
            raise UsageError(problem, where=source, why=why, fix=CLASSES_FIX)


def _not_in(folders: Sequence[str], count: Counter[str]) -> list[str]:
    return [name for name in folders if name not in count]


def _read_names(file: Path, classes: int, folders: Sequence[str]) -> list[str]:
    """Return the lines of a file, or their first words where no whole line is a folder (ImageNet's synset lists)."""
    try:
        text = read_plain(file).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError("the names of the classes cannot be read", where=str(file), why=str(error)) from error
    lines = [composed(line.strip()) for line in text.splitlines() if line.strip()]
    if len(lines) != classes:
        why = f"it has {len(lines)} lines, the model has {classes} classes"
        raise UsageError("the names are not those of the model's classes", where=str(file), why=why)
    return lines if set(lines) & set(folders) else [line.split()[0] for line in lines]


def _other_count(root: Path, folders: Sequence[str], classes: int) -> UsageError:
    split = next((name for name in _SPLITS if name in folders), None)
    fix = (
        f"--data {root / split}"
        if split
        else "the data set that the model was made for; of a part of its classes: --classes FILE, with the names of all"
        " class folders in the order of the model's outputs, one a line"
    )
    why = f"{len(folders)} class folders ({', '.join(folders[:_SHOWN])}...), the model has {classes} classes"
    return UsageError("the data set does not fit the model", where=str(root), why=why, fix=fix)


def _name(root: Path, examples: Sequence[Example]) -> str:
    """Return the data set's name: ImageNet for its validation images' names, else the folder's name."""
    if all(_IMAGENET_FILE.fullmatch(example.path.name) for example in examples):
        return IMAGENET
    return composed(root.resolve().name)


def _drawn(examples: Sequence[Example], limit: int | None) -> tuple[Example, ...]:
    if limit is None or limit >= len(examples):
        return tuple(examples)
    chosen = sorted(random.Random(_SEED).sample(range(len(examples)), limit))
    return tuple(examples[number] for number in chosen)
