"""A fake engine for tests of evaluation: it tells the grey of an image, and misbehaves when its payload says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from edgevit.artifacts.folder import seal
from edgevit.records.artifact import Artifact, Source
from edgevit.records.model import Preprocessing
from edgevit_runtime.record import Operators, TensorSpec

SIDE, STEP = 8, 20  # pixels; of grey between two classes

# The payload's text is "WHAT AT": what happens at the run of that number, from 0.
RECIPE = """
import ctypes, os, struct, time
from pathlib import Path

from edgevit_runtime.record import Recipe, TensorSpec, UnsupportedError

SIDE, STEP = 8, 20
RECIPE = Recipe(target="grader", suffix=".txt", engine="grader", precisions=("fp32",), requires=(), extra="")


class Session:
    engine_version, provider = "1.0", "Fake"

    def __init__(self, text):
        what, at, classes = text.split()
        self.what, self.at, self.classes, self.runs = what, int(at), int(classes), 0
        self.inputs = (TensorSpec("image", (-1, SIDE, SIDE, 3), "uint8"),)
        self.outputs = (TensorSpec("scores", (-1, self.classes)),)

    def feed(self, tensors, batch):
        self.batch, (self.raw,) = batch, tensors

    def run(self):
        wrong = self.what if self.runs == self.at else ""
        self.runs += 1
        if wrong == "segv":
            ctypes.string_at(0)
        elif wrong == "hang":
            ctypes.PyDLL(None).sleep(60)  # holds the interpreter's lock, as an engine may
        elif wrong == "raise":
            raise RuntimeError("the engine says no")
        size = SIDE * SIDE * 3
        self.scores = []
        for i in range(self.batch):
            grey = self.raw[i * size] / STEP
            scores = [-abs(grey - number) for number in range(self.classes)]
            self.scores += [float("nan")] * self.classes if wrong == "nan" else scores

    def fetch(self):
        return (struct.pack(f"<{len(self.scores)}f", *self.scores),)


def load(path, *, threads):
    text = path.read_text()
    if text.startswith("missing"):
        raise UnsupportedError("it needs another machine")
    return Session(text)
"""


def recipe(folder: Path) -> Path:
    path = folder / "grader.py"
    path.write_text(RECIPE)
    return path


def artifact(folder: Path, behaviour: str = "work", at: int = 0, classes: int = 10, **changes: Any) -> Artifact:
    """Return a sealed artifact of the fake engine."""
    folder.mkdir(parents=True)
    (folder / "payload.txt").write_text(f"{behaviour} {at} {classes}")
    facts: dict[str, Any] = {
        "folder": folder, "model": "grey", "family": "toy", "target": "grader", "precision": "fp32",
        "payload": "payload.txt", "sha256": "", "size_bytes": 0,
        "inputs": (TensorSpec("image", (-1, SIDE, SIDE, 3), "uint8"),),
        "outputs": (TensorSpec("scores", (-1, classes)),),
        "dynamic_batch": True, "folded": True, "fold_summary": "", "params": 1, "macs": 1,
        "source": Source("grey", "function"), "preprocessing": Preprocessing(crop_pct=1.0), "toolchain": {},
        "stages": (), "operators": Operators({}), "created": "2026-01-01T00:00:00+00:00", "preprocessing_inside": True,
    }  # fmt: skip
    # A manifest says of one model that it was made from it.
    facts["source"] = Source(changes.get("model", "grey"), "function")
    return seal(Artifact(**(facts | changes)))


def grey_folder(folder: Path, greys: dict[str, list[int]]) -> Path:
    """Write FOLDER/CLASS/NUMBER.png, of one grey each. The engine takes 20 times a class's number for that class."""
    for name, values in greys.items():
        (folder / name).mkdir(parents=True)
        for number, grey in enumerate(values):
            Image.fromarray(np.full((SIDE, SIDE), grey, np.uint8)).save(folder / name / f"{number}.png")
    return folder
