"""Trained networks and real images for tests: what docs/examples/train_digits.py trains, and its digits as files."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

FILE = Path(__file__).parents[2] / "docs" / "examples" / "train_digits.py"
# The fewest after which both networks are right about nine of ten images.
EPOCHS = 3
CLASSES = tuple(map(str, range(10)))

# FILE.py:FUNCTION for the command line: the trained network, with a card that says how its images are made.
# A pixel p of the files stands for p / 15, which the preprocessing gives back: 17 * p / 255.
SUBJECT = """
import importlib.util
import sys

import torch

from edgevit.models import load_weights
from edgevit.records.model import ModelCard, Preprocessing
from edgevit_runtime.record import TensorSpec

spec = importlib.util.spec_from_file_location("train_digits", {file!r})
example = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = example
spec.loader.exec_module(example)

PREPROCESSING = Preprocessing(({mean},) * 3, ({std},) * 3, 1.0, range=(0.0, 17.0), interpolation="bilinear")


def {name}():
    model = example.{name}().eval()
    load_weights(model, {checkpoint!r})
    inputs = (TensorSpec("image", (-1, 3, 32, 32)),)
    model.card = ModelCard("{name}", "digits", inputs, "", "", "reconstructed", None, "", preprocessing=PREPROCESSING)
    return model
"""


@dataclass(frozen=True)
class Digits:
    """What was trained, and the split it was trained and tested on (pixels from 0 to 16)."""

    example: ModuleType
    results: list[Any]
    split: Any
    # The test images: uint8 (360, 8, 8).
    pixels: Any
    labels: list[int]
    mean: float
    std: float

    def checkpoint(self, name: str) -> Path:
        return Path(next(result.checkpoint for result in self.results if result.name == name))

    def module(self, name: str) -> Any:
        from edgevit.models import load_weights

        model = getattr(self.example, name)().eval()
        load_weights(model, self.checkpoint(name))
        return model

    def subject(self, folder: Path, name: str) -> str:
        """Return FILE.py:FUNCTION of a trained network."""
        checkpoint = str(self.checkpoint(name))
        text = SUBJECT.format(file=str(FILE), name=name, checkpoint=checkpoint, mean=self.mean, std=self.std)
        path = folder / f"{name}_digits.py"
        path.write_text(text, encoding="utf-8")
        return f"{path}:{name}"

    def write(self, folder: Path, count: int = 360) -> Path:
        """Write the test images as grey PNG files of 8x8 pixels, in ImageFolder's layout."""
        from PIL import Image

        for number, (pixels, label) in enumerate(zip(self.pixels[:count], self.labels[:count], strict=True)):
            class_folder = folder / CLASSES[label]
            class_folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels * 15).save(class_folder / f"{number:04}.png")
        return folder


def load_example() -> ModuleType:
    """Load docs/examples/train_digits.py as a module."""
    spec = importlib.util.spec_from_file_location("train_digits", FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # dataclasses look here for annotations.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@cache
def trained(folder: Path) -> Digits:
    """Train both networks, once a session. The checkpoints stay in the folder."""
    import torch
    from sklearn.datasets import load_digits

    example, digits = load_example(), load_digits()
    torch.set_num_threads(1)
    order = torch.randperm(len(digits.images), generator=torch.Generator().manual_seed(0)).numpy()
    test = order[-example.TEST :]
    pixels, labels = digits.images[test].astype("uint8"), digits.target[test].tolist()
    raw = torch.tensor(digits.images[order][: -example.TEST], dtype=torch.float32)[:, None]
    enlarged = torch.nn.functional.interpolate(raw, size=(example.SIZE,) * 2, mode="bilinear", align_corners=False)
    split = example.digits()
    results = example.main(["--epochs", str(EPOCHS), "--out", str(folder)], split=split)
    return Digits(example, results, split, pixels, labels, float(enlarged.mean()), float(enlarged.std()))
